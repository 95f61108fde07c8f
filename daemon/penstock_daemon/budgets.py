"""The budget as the engine measures against it: bounds in nanoseconds, by path and stage, made of the configuration.

    bounds[path, stage] <= bounds[path, TOTAL] <= stale bound        where the stage has one

A duration is over its bound where it is greater: 5 ms pass a bound of 5 ms, one nanosecond more does not. Bounds are
written before the engine starts and constant after; BULK sources are never measured against them.
"""

from __future__ import annotations

from typing import Final

from penstock.v1.records import Stage
from penstock_daemon.config import Config, PathBudgetConfig
from penstock_daemon.config_budget import PATH_SECTIONS, STAGE_KEYS
from penstock_daemon.engine_memory import OldTick

PATH_NAMES: Final = ("grpc", "shared_memory", "feed")  # In the order of the engine's paths.
STAGE_NAMES: Final = tuple(stage.name.lower() for stage in Stage)
OLD_TICKS: Final = {"predict": OldTick.PREDICT, "update": OldTick.UPDATE}

assert tuple(f"{name}_us" for name in STAGE_NAMES) == STAGE_KEYS, "a key per stage, in the order of the stages"
assert tuple(f"budget_{name}" for name in PATH_NAMES) == PATH_SECTIONS, "a section per path, in their order"


def bounds_of(config: Config) -> dict[tuple[int, int], int]:
    """Return every bound that *config* asks for, in nanoseconds, by (path, stage): TOTAL of every path among them."""
    found: dict[tuple[int, int], int] = {}
    for path, section in enumerate(PATH_SECTIONS):
        budget: PathBudgetConfig = getattr(config, section)
        total_ns = _nanoseconds(budget.total_us or config.budget.total_us)
        for stage, key in enumerate(STAGE_KEYS):
            bound_ns = _nanoseconds(getattr(budget, key))
            if bound_ns:
                found[path, stage] = min(bound_ns, total_ns)  # A default may be above a total that was lowered.
        found[path, Stage.TOTAL] = total_ns
    return found


def totals_of(config: Config) -> tuple[int, ...]:
    """Return the bound of TOTAL of each path, in nanoseconds, in the order of the paths."""
    bounds = bounds_of(config)
    return tuple(bounds[path, Stage.TOTAL] for path in range(len(PATH_NAMES)))


def _nanoseconds(duration_us: float) -> int:
    return round(duration_us * 1_000)
