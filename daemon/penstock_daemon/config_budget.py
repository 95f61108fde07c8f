"""The configuration's part about time: bounds of the whole and of each stage, the breaker, the warnings.

    budget.stale_us >= the total of every path >= each of that path's stages

A stage's default that is above its path's total counts as that total, so that lowering the total alone is enough; the
stages' defaults add up to the total's, so a tick that keeps every stage keeps the whole. What the engine measures
against is made of these in ``budgets``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal

from penstock_daemon.config_limits import Between, OffOrBetween, number_text

OldTicks = Literal["predict", "update"]

_BOUND_US_MIN: Final = 0.001  # A nanosecond.
_BOUND_US_MAX: Final = 100_000_000
_STAGE: Final = OffOrBetween(_BOUND_US_MIN, _BOUND_US_MAX, zero="no bound")

PATH_SECTIONS: Final = ("budget_grpc", "budget_shared_memory", "budget_feed")  # In the order of the engine's paths.


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """Bounds that every tick of a REALTIME session is measured against; see docs/budget.md."""

    total_us: Annotated[
        int, Between(1, _BOUND_US_MAX), "Bound of TOTAL; a prediction that is older when made is flagged LATE."
    ] = 5_000
    stale_us: Annotated[
        int, Between(1, _BOUND_US_MAX), "A prediction that is older than this is flagged STALE: do not trade on it."
    ] = 6_000
    breaker_run: Annotated[
        int,
        OffOrBetween(1, 1_000_000, zero="never"),
        "So many STALE predictions in a row, over all REALTIME sessions, open the breaker: health says NOT_SERVING. Sessions "
        "go on being answered.",
    ] = 32
    breaker_close_s: Annotated[
        float,
        Between(0.1, 3600),
        "The breaker closes after so long without a STALE prediction; it can't open and close more often than that.",
    ] = 5.0
    old_ticks: Annotated[
        OldTicks,
        "What becomes of a tick that is over stale_us before it is predicted. predict does it all the same, and flags it. "
        "update lets its state take it in and answers SKIPPED with forecasts of 0, which catches up sooner.",
    ] = "predict"
    warn_every_s: Annotated[
        float,
        OffOrBetween(0.25, 3600, zero="no warnings"),
        "The log has at most one line for each path and stage over its bound in so long; it says how many were over.",
    ] = 10.0


@dataclass(frozen=True, slots=True)
class PathBudgetConfig:
    """Bounds of the stages of one path, for REALTIME sessions. A default above the path's total counts as that total."""

    receive_us: Annotated[float, _STAGE, "From the first stamp until the tick stands in its ring."] = 500.0
    ring_us: Annotated[float, _STAGE, "In the ring, until the engine takes it."] = 1_500.0
    features_us: Annotated[float, _STAGE, "Features of the tick; 0 long on a GPU, which has them in predict_us."] = (
        250.0
    )
    upload_us: Annotated[float, _STAGE, "To a GPU, ticks before it in its block included."] = 750.0
    predict_us: Annotated[float, _STAGE, "Reservoir and readout."] = 1_000.0
    download_us: Annotated[float, _STAGE, "From a GPU, until the engine has seen it."] = 250.0
    egress_us: Annotated[float, _STAGE, "From the prediction made until it is handed to the transport."] = 750.0
    total_us: Annotated[
        float,
        OffOrBetween(_BOUND_US_MIN, _BOUND_US_MAX, zero="budget.total_us"),
        "Bound of TOTAL on this path, and of what LATE means on it.",
    ] = 0.0


STAGE_KEYS: Final = tuple(declared.name for declared in fields(PathBudgetConfig))  # In the order of records.Stage.
_DEFAULTS: Final = {declared.name: declared.default for declared in fields(PathBudgetConfig)}


def total_us(values: Mapping[str, Any], section: str) -> float:
    """Return the bound of TOTAL on the path of *section*; *values* by key, such as "budget.total_us"."""
    return float(values[f"{section}.total_us"] or values["budget.total_us"])


def budget_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with bounds that are each sound but don't go together; *values* by key."""
    stale_us = values["budget.stale_us"]
    if stale_us < values["budget.total_us"]:
        yield f"budget.stale_us: must be at least budget.total_us ({values['budget.total_us']}), was {stale_us}"
    for section in PATH_SECTIONS:
        whole_us = total_us(values, section)
        if values[f"{section}.total_us"] > stale_us:
            shown = number_text(values[f"{section}.total_us"])
            yield f"{section}.total_us: must be at most budget.stale_us ({stale_us}), was {shown}"
        for key in STAGE_KEYS[:-1]:
            bound_us = values[f"{section}.{key}"]
            if bound_us > whole_us and bound_us != _DEFAULTS[key]:
                named = f"{section}.total_us" if values[f"{section}.total_us"] else "budget.total_us"
                yield f"{section}.{key}: must be at most {named} ({number_text(whole_us)}), was {number_text(bound_us)}"
