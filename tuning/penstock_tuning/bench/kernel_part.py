"""The kernel benchmark's measurements: every side takes its turn in every round, in one process on one processor.

A turn computes as many ticks as take a millisecond or two, after some that are not timed: each side finds the caches
as it would leave them itself, and most turns are over before a busy machine puts something else on the processor. What
is kept is the time of a tick in each round; medians are the caller's.

    times_us[side][units]  =  one number per round
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from penstock_kernels.drive import run_features
from penstock_kernels.packed import pack
from penstock_tuning.bench import kernel_sides as sides
from penstock_tuning.bench.parts import Plan, be_part
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import simulate

_MARKET_SECONDS: Final = 10.0
_TURN_S: Final = 0.0015
_COUNT_MAX: Final = 20_000

OURS: Final = ("cyclic", "sparse", "dense")
PEERS: Final = {"reservoirpy_degree10": 10, "reservoirpy_default": None}


class Turn:
    """A side and how many ticks it computes when it is its turn; a multiple of those it computes together."""

    def __init__(self, go: sides.Side, together: int = 1) -> None:
        self._go = go
        go(2)  # Compiles, or touches its memory.
        self._count = 1
        while self._count < _COUNT_MAX:
            elapsed_s = min(self._elapsed_s(), self._elapsed_s())
            if elapsed_s > _TURN_S / 4:
                self._count = min(max(round(self._count * _TURN_S / elapsed_s), 2), _COUNT_MAX)
                break
            self._count *= 4
        self._count = -(-self._count // together) * together
        self._warm = -(-self._count // 5)

    def _elapsed_s(self) -> float:
        started_s = time.perf_counter()
        self._go(self._count)
        return time.perf_counter() - started_s

    def time_us(self) -> float:
        """Take the turn and return the microseconds of a tick."""
        self._go(self._warm)
        started_ns = time.perf_counter_ns()
        self._go(self._count)
        return (time.perf_counter_ns() - started_ns) / 1e3 / self._count


def measure(plan: Plan) -> dict[str, Any]:
    """Return microseconds per tick of every side in every round, and the bytes of weights of each of our models.

    Args:
        plan: units, fan_ins, fan_in, batches, rounds, peers (whether ReservoirPy takes part), larger_bytes (of buffers
            that are only read).
    """
    market = simulate(MarketSettings(ticks_per_second=2_000), _MARKET_SECONDS)
    ticks = market.ticks[market.ticks["instrument_id"] == market.ticks["instrument_id"][0]]
    inputs = run_features(sides.packed_model("cyclic", 64, 4), ticks)
    turns: dict[tuple[str, str], Turn] = {}
    sizes: dict[str, dict[str, int]] = {}

    def add(name: str, key: object, go: sides.Side, together: int = 1) -> None:
        turns[name, str(key)] = Turn(go, together)

    for units in plan["units"]:
        for topology in OURS:
            model = sides.drawn_model(topology, units, plan["fan_in"])
            packed = pack(model)
            sizes.setdefault(topology, {})[str(units)] = sides.weight_bytes(packed)
            add(topology, units, sides.our_side(packed, ticks))
            if topology != "cyclic":
                by_csr = topology == "sparse"
                add("scipy_csr" if by_csr else "numpy_dense", units, sides.array_side(model, inputs, by_csr=by_csr))
        for name, more in (("products", {"products": units // 2}), ("linear memory", {"memory": True})):
            wider = pack(sides.drawn_model("cyclic", units, plan["fan_in"], **more))
            add(f"cyclic_with_{name.replace(' ', '_')}", units, sides.our_side(wider, ticks))
        packed = sides.packed_model("cyclic", units, plan["fan_in"])
        for states in plan["batches"]:
            # A turn computes whole batches; its count is of ticks.
            add("cyclic_batched", f"{units}x{states}", sides.batch_side(packed, inputs, states), states)
        add("floor", units, sides.reading_side(sizes["cyclic"][str(units)]))
        if plan["peers"]:
            for name, degree in PEERS.items():
                add(name, units, sides.peer_side(units, inputs.astype(np.float64), degree))
        for fan_in in plan["fan_ins"]:
            add(
                "cyclic_by_fan_in",
                f"{units}x{fan_in}",
                sides.our_side(sides.packed_model("cyclic", units, fan_in), ticks),
            )
    for size_bytes in plan["larger_bytes"]:
        add("read", size_bytes, sides.reading_side(size_bytes))

    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(plan["rounds"]):
        for (name, key), turn in turns.items():
            times.setdefault(name, {}).setdefault(key, []).append(turn.time_us())
    return {"times_us": times, "weight_bytes": sizes}


if __name__ == "__main__":
    sys.exit(be_part(measure))
