"""The stamps benchmark's measurements: every side takes its turn in every round, in one process on one processor.

The order turns around from one round to the next, so that who comes first is nobody's advantage. What is kept is each
side's time of one turn in each round; medians, and differences of a round, are the caller's.

    times_ns[side]  =  one number per round
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from penstock_daemon.clocks import tsc
from penstock_daemon.clocks.cycles import read_anchor
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import AnswerBuffers
from penstock_kernels.predictor import pack
from penstock_tuning.bench import stamp_sides as sides
from penstock_tuning.bench.in_process import read_model, sizes_of
from penstock_tuning.bench.parts import Plan, be_part
from penstock_tuning.bench.processes import DaemonOptions
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import simulate

_MARKET_SECONDS: Final = 2.0
_TICKS_PER_SECOND: Final = 2_000
_LOOP_TURNS: Final = 20_000
_TYPICAL_NS: Final = 2_000.0  # Of the durations that are recorded.


def measure(plan: Plan) -> dict[str, Any]:
    """Return nanoseconds of every side in every round, and why the counter of cycles is not used, "" where it is.

    Args:
        plan: model, sets (of the daemon), rounds, ticks (of a turn of the step), batch (ticks of a drain, where it is not
            one).
    """
    options = DaemonOptions(plan["model"], tuple(plan["sets"]))
    market = simulate(MarketSettings(ticks_per_second=_TICKS_PER_SECOND), _MARKET_SECONDS)
    ticks = market.ticks[market.ticks["instrument_id"] == market.ticks["instrument_id"][0]]
    sizes = sizes_of(options)
    ticks = ticks[: min(plan["ticks"], sizes.slots)]
    refusal, fraction = _counter()
    engine = Engine(sizes, EngineSettings())
    try:
        engine.load_model(0, pack(read_model(options).model), serial=0)
        buffers = engine.buffers
        unmeasured = sides.UnmeasuredBuffers(*buffers)
        tables = AnswerBuffers(*(getattr(buffers, name) for name in AnswerBuffers._fields))
        durations_ns = np.random.default_rng(1).lognormal(np.log(_TYPICAL_NS), 1.0, 1 << 12).astype(np.int64)
        turns: dict[str, sides.Loop | sides.Step] = {
            "stamp_tsc": sides.Loop(sides.read_cycles, _LOOP_TURNS),
            "stamp_clock": sides.Loop(sides.read_clock, _LOOP_TURNS),
            "stamp_python": sides.Loop(sides.read_clock_from_python, _LOOP_TURNS),
            "record": sides.Loop(lambda count: sides.record(tables, durations_ns, count), _LOOP_TURNS),
        }
        for name, limit in (("step", 1), ("batched_step", plan["batch"])):
            turns[f"{name}_off"] = sides.Step(engine, unmeasured, ticks, limit, 0)
            turns[f"{name}_on"] = sides.Step(engine, buffers, ticks, limit, fraction)
            turns[f"{name}_on_clock"] = sides.Step(engine, buffers, ticks, limit, 0)
        return {"times_ns": _rounds(turns, plan["rounds"]), "refusal": refusal}
    finally:
        engine.close()


def _rounds(turns: dict[str, sides.Loop | sides.Step], rounds: int) -> dict[str, list[float]]:
    """Return each side's time in each of *rounds*; all have had two turns before."""
    for turn in [*turns.values(), *turns.values()]:
        turn.time_ns()
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns) if number % 2 else reversed(list(turns)):
            times[name].append(turns[name].time_ns())
    return times


def _counter() -> tuple[str, int]:
    """Return why a daemon would not count cycles here, "" where it would; and what one lasts, for Engine.use_cycles."""
    refusal = tsc.refusal()
    if refusal:
        return refusal, 0
    read_anchor()
    first = read_anchor()
    time.sleep(2 * tsc.BASELINE_NS / 1e9)
    rate = tsc.calibrate(first, read_anchor())
    return ("the counter of cycles did not run forward", 0) if rate is None else ("", rate.fraction)


if __name__ == "__main__":
    sys.exit(be_part(measure))
