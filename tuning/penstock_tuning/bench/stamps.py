"""``penstock-bench stamps``: what it costs to time a tick: one stamp, one record of a histogram, and all of it together.

    stamp_tsc_ns, stamp_clock_ns, stamp_python_ns    one reading: of the counter of cycles, of CLOCK_MONOTONIC in compiled
                                                     code, of time.monotonic_ns() in Python
    record_ns                                        one duration into histogram, sum, maximum and bound
    step_on_ns, step_off_ns                          the engine's step, one tick a drain, with all measuring and without
    overhead_share                                   median over the rounds of (on - off) / off
    batched_...                                      the same, a full pass of the engine a drain
    ..._on_clock                                     the same, where the counter of cycles is not used

Off is the same source with the measuring not compiled at all; a daemon always runs with it on. All sides take turns in
every round, in one process on one processor, so that a slow moment of the machine meets all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from penstock_daemon.config import load_config
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.settings import Bench

STAMPS: Final = ("stamp_tsc", "stamp_clock", "stamp_python", "record")
STEPS: Final = ("", "batched_")
_TICKS: Final = 512  # Of a turn of the step: a millisecond.
_TICKS_QUICK: Final = 64
_ROUNDS_MAX: Final = 1_000
_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class StampSettings:
    """How often each side takes its turn, and whether turns are short ones that only show that all works."""

    rounds: int
    quick: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= _ROUNDS_MAX:
            raise BenchError(f"--rounds must be from 1 to {_ROUNDS_MAX:,}: rounds={self.rounds}")


def measure(settings: StampSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: the process that measures failed.
    """
    processor = max(os.sched_getaffinity(0))
    plan = {
        "model": bench.daemon.model,
        "sets": bench.daemon.sets,
        "rounds": settings.rounds,
        "ticks": _TICKS_QUICK if settings.quick else _TICKS,
        "batch": load_config(None, {}, bench.daemon.sets).engine.batch_max,
    }
    with bench.progress.step(f"stamps: {settings.rounds} rounds of all sides", 10.0):
        found = run_part("stamp_part", plan, bench.folder, _TIMEOUT_S, frozenset({processor}))
    conditions = bench.conditions(None, None) | {
        "counter": found["refusal"] or "the counter of cycles, calibrated, as a daemon uses it here",
        "rounds": settings.rounds,
        "batch": plan["batch"],
        "scale": "quick: short turns; the figures mean nothing" if settings.quick else "full",
        "placement": f"one processor: CPU {processor}, one thread for every side",
    }
    return Outcome("stamps", figures_of(found["times_ns"]), conditions, _SHOWN)


_SHOWN: Final = (
    *(f"{name}_ns" for name in STAMPS),
    *("step_on_ns", "step_off_ns", "overhead_share", "overhead_share_on_clock", "batched_overhead_share"),
)


def figures_of(times_ns: dict[str, list[float]]) -> dict[str, Any]:
    """Return the figures of what the part has found: medians of times, and medians of each round's own shares."""
    figures: dict[str, Any] = {f"{name}_ns": median(values) for name, values in times_ns.items()}
    for step in STEPS:
        off_ns = times_ns[f"{step}step_off"]
        for clock in ("", "_on_clock"):
            on_ns = times_ns[f"{step}step{clock or '_on'}"]
            shares = [(on - off) / off for on, off in zip(on_ns, off_ns, strict=True)]
            figures[f"{step}overhead_share{clock}"] = median(shares)
    figures["overhead_ns"] = figures["overhead_share"] * figures["step_off_ns"]
    return figures
