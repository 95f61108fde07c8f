"""One side of the shared-memory benchmark, in a process of its own; its plan names the side, the address, the ticks.

Closed loop: one tick is under way at any time. The echo is driven by the least that Python can do with a ring: copy a tick
in, move the cursor, look until the other cursor has moved, copy a prediction out.
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import uvloop
from numpy.typing import NDArray

from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_BYTES, TICK_BYTES
from penstock_client import Instrument, Pace, SharedMemory, connect
from penstock_client.blocking import BlockingSession
from penstock_client.blocking import connect as connect_blocking
from penstock_client.shared_memory.attach import attach
from penstock_client.shared_memory.segment import PREDICTION_PUBLISHED, TICK_PUBLISHED
from penstock_client.shared_memory.words import fences
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.predictor import PackedModel, pack
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.in_process import read_model
from penstock_tuning.bench.market import Market, repeated
from penstock_tuning.bench.parts import Plan, be_part
from penstock_tuning.bench.processes import DaemonOptions
from penstock_tuning.bench.ring_echo import TOKEN

WARM_UP_TRIPS: Final = 500
SLOW_SHARE: Final = 5  # Where a trip takes longer, there are so many times fewer.
STEP_TICKS: Final = 20_000
STRETCH_TICKS: Final = 200
SLICE_TICKS: Final = 512
_TIMEOUT_S: Final = 20.0
_NAME: Final = "penstock-bench shm"

Times = NDArray[np.int64]


def run_side(plan: Plan) -> dict[str, Any]:
    """Run the side of *plan*: "echo", "grpc", or "rings", which has rtt, blocking and throughput.

    Times are written as arrays by name, int64 of shape (sent and received, trips).
    """
    instruments, recorded = Market(Path(plan["ticks"]), "").read()
    address, side = plan["address"], plan["side"]
    many, few = (
        [tick.tobytes() for tick in np.resize(recorded, WARM_UP_TRIPS + trips)]
        for trips in (plan["trips"], max(plan["trips"] // SLOW_SHARE, 1))
    )
    found: dict[str, Any] = {}
    times: dict[str, Times] = {}
    gc.collect()
    gc.freeze()
    if side == "echo":
        times["echo"] = _echo(address, many)
        packed = pack(read_model(DaemonOptions(plan["model"])).model)
        found["step_us"] = _step_us(packed, np.resize(recorded, STEP_TICKS))
    elif side == "grpc":
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            times["grpc"] = runner.run(_grpc(address, instruments, few))
    else:
        times["rtt"] = _rings(address, instruments, many, math.inf)
        times["blocking"] = _rings(address, instruments, few, 0.0)
        found = _full_speed(address, instruments, repeated(recorded, plan["count"]))
    np.savez(plan["times"], allow_pickle=False, **{name: one[:, WARM_UP_TRIPS:] for name, one in times.items()})
    return found


def _step_us(packed: PackedModel, ticks: NDArray[np.void]) -> float:
    """Return the median cost of a step, over stretches that are short beside the turns of other processes."""
    place = new_place(packed)
    run_predictions(packed, ticks[:STRETCH_TICKS], place)
    costs_ns = []
    for first in range(0, len(ticks), STRETCH_TICKS):
        started_ns = time.monotonic_ns()
        run_predictions(packed, ticks[first : first + STRETCH_TICKS], place)
        costs_ns.append((time.monotonic_ns() - started_ns) / len(ticks[first : first + STRETCH_TICKS]))
    return round(median(costs_ns) / 1e3, 3)


def _echo(path: str, records: list[bytes]) -> Times:
    times = np.zeros((2, len(records)), dtype=np.int64)
    segment = attach(path, TOKEN, _TIMEOUT_S, fences())
    words, memory, mask = segment.words, segment.memory, segment.mask
    predictions_at = segment.prediction_word * 8
    now_ns = time.monotonic_ns
    for index, record in enumerate(records):
        started_ns = now_ns()
        at = layout.HEADER_BYTES + (index & mask) * layout.TICK_SLOT_BYTES
        memory[at : at + TICK_BYTES] = record
        words[TICK_PUBLISHED] = index + 1
        while words[PREDICTION_PUBLISHED] != index + 1:
            pass
        at = predictions_at + (index & mask) * layout.PREDICTION_SLOT_BYTES
        _ = bytes(memory[at : at + PREDICTION_BYTES])
        times[1, index] = now_ns()
        times[0, index] = started_ns
    return times


def _rings(address: str, instruments: list[Instrument], records: list[bytes], spin_s: float) -> Times:
    waits = SharedMemory(spin_s=spin_s)
    with connect_blocking(address, instruments=instruments, client_name=_NAME, shared_memory=waits) as session:
        times = _ring_trips(session, records)
        session.finish()
    return times


def _ring_trips(session: BlockingSession, records: list[bytes]) -> Times:
    times = np.zeros((2, len(records)), dtype=np.int64)
    now_ns = time.monotonic_ns
    send, receive = session.send, session.receive
    for index, record in enumerate(records):
        started_ns = now_ns()
        send(record)
        batch = receive()
        times[1, index] = now_ns()
        times[0, index] = started_ns
        if batch is None or len(batch.predictions) != 1:
            raise BenchError(f"tick {index} was not answered by one prediction")
    return times


async def _grpc(address: str, instruments: list[Instrument], records: list[bytes]) -> Times:
    times = np.zeros((2, len(records)), dtype=np.int64)
    now_ns = time.monotonic_ns
    async with connect(address, instruments=instruments, client_name=_NAME) as session:
        for index, record in enumerate(records):
            started_ns = now_ns()
            await session.send(record)
            batch = await session.receive(_TIMEOUT_S)
            times[1, index] = now_ns()
            times[0, index] = started_ns
            if batch is None or len(batch.predictions) != 1:
                raise BenchError(f"tick {index} was not answered by one prediction")
        await session.finish()
    return times


def _full_speed(address: str, instruments: list[Instrument], ticks: NDArray[np.void]) -> dict[str, Any]:
    """Send all *ticks* as fast as the ring takes them, and count the answers."""
    records = np.ascontiguousarray(ticks).view(np.uint8).data
    waits = SharedMemory(spin_s=math.inf)
    answered = sent = 0
    with connect_blocking(
        address, instruments=instruments, client_name=_NAME, pace=Pace.BULK, shared_memory=waits
    ) as session:
        started_ns = time.monotonic_ns()
        while answered < len(ticks):
            if sent < len(ticks):
                sent += session.try_send(records[sent * TICK_BYTES : (sent + SLICE_TICKS) * TICK_BYTES])
            if sent == len(ticks) or session.unanswered > 4 * SLICE_TICKS:
                batch = session.receive(_TIMEOUT_S)
                if batch is None:
                    break
                answered += len(batch.predictions) + len(batch.errors)
        elapsed_s = (time.monotonic_ns() - started_ns) / 1e9
        session.finish()
    return {"predictions_per_s": round(answered / elapsed_s, 1), "lost": len(ticks) - answered}


if __name__ == "__main__":
    sys.exit(be_part(run_side))
