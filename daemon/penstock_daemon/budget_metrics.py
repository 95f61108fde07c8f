"""The budget as Prometheus sees it: the bounds, what was over each, the breaker, ticks that came too old.

Nothing is counted here: the engine has counted exactly, durations greater than their bound, of REALTIME sessions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock_daemon import engine_memory as memory
from penstock_daemon.budgets import PATH_NAMES, STAGE_NAMES
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_stages import EXCEEDED

_REALTIME: Final = 0


@dataclass(frozen=True, slots=True)
class StageBudget:
    """The bound of one stage, and how many durations were over it."""

    path: str
    stage: str
    bound_ns: int
    exceeded: int


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    """Everything that is shown of the budget, as it stands."""

    stages: Sequence[StageBudget] = ()
    breaker_open: bool = False
    breaker_opened: int = 0
    breaker_trips: int = 0
    old_ticks: int = 0
    skipped: int = 0


def stage_budgets(buffers: Buffers) -> list[StageBudget]:
    """Return every path and stage that has a bound, with what was over it since the start."""
    return [
        StageBudget(
            path_name,
            stage_name,
            int(buffers.bounds[path, stage]),
            int(buffers.totals[path, _REALTIME, stage, EXCEEDED]),
        )
        for path, path_name in enumerate(PATH_NAMES)
        for stage, stage_name in enumerate(STAGE_NAMES)
        if buffers.bounds[path, stage] != memory.NO_BOUND
    ]


def snapshot_of(buffers: Buffers, *, breaker_open: bool, breaker_opened: int) -> BudgetSnapshot:
    """Read the engine's counts; the breaker's state is its own."""
    words = buffers.words
    return BudgetSnapshot(
        stages=stage_budgets(buffers),
        breaker_open=breaker_open,
        breaker_opened=breaker_opened,
        breaker_trips=int(words[memory.BREAKER_TRIPS]),
        old_ticks=int(words[memory.OLD_TICKS]),
        skipped=int(words[memory.SKIPPED]),
    )


def budget_families(snapshot: BudgetSnapshot) -> Iterator[Metric]:
    """Yield the metrics of a snapshot."""
    labels = ["path", "stage"]
    bounds = GaugeMetricFamily("penstock_stage_budget_seconds", "The bound of a stage.", labels=labels)
    over = CounterMetricFamily(
        "penstock_stage_over_budget", "Durations over the bound, of REALTIME sessions.", labels=labels
    )
    for one in snapshot.stages:
        bounds.add_metric([one.path, one.stage], one.bound_ns / 1e9)
        over.add_metric([one.path, one.stage], one.exceeded)
    yield from (bounds, over)
    yield GaugeMetricFamily(
        "penstock_breaker_open",
        "1 while predictions come too late in a row: health says NOT_SERVING.",
        value=snapshot.breaker_open,
    )
    for name, text, value in (
        ("penstock_breaker_openings", "How often the breaker opened.", snapshot.breaker_opened),
        (
            "penstock_breaker_trips",
            "Runs of STALE predictions that were long enough to open it.",
            snapshot.breaker_trips,
        ),
        ("penstock_old_ticks", "Ticks over the stale bound before they were predicted.", snapshot.old_ticks),
        ("penstock_skipped_ticks", "Of those, how many only updated a state.", snapshot.skipped),
    ):
        yield CounterMetricFamily(name, text, value=value)
