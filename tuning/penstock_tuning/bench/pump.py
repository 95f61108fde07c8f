"""Ticks through a session at full speed, every answer counted: what throughput and memory run on.

    answered == sent at the end, or the daemon broke its promise

``pump`` runs a process; the rest of this file is what that process does.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES
from penstock_client import Instrument, Pace, Session, connect
from penstock_tuning.bench.market import Market, repeated
from penstock_tuning.bench.parts import Plan, be_part, run_part
from penstock_tuning.bench.processes import Served, resident_kib

SLICE_TICKS: Final = 2048
SAMPLE_TICKS: Final = 10_000  # Between two looks at the daemon's memory.
_TIMEOUT_S: Final = 60.0
_TICKS_PER_S_MIN: Final = 5_000


@dataclass(frozen=True)
class PumpRun:
    """What became of the ticks of one pump.

    Attributes:
        sent_ns: shape (ticks,), when each was offered to the session.
        received_ns: shape (ticks,), when its answer was here.
        answered: how many ticks.
        refused: of those, how many with an error.
        resident_kib: the daemon's resident memory by ticks answered, ascending.
    """

    sent_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    answered: int
    refused: int
    resident_kib: list[tuple[int, int]]

    @property
    def lost(self) -> int:
        """Ticks without an answer."""
        return len(self.sent_ns) - self.answered

    @property
    def predictions_per_s(self) -> float:
        """Answers with a prediction, per second from the first send to the last answer."""
        elapsed_s = (int(self.received_ns.max()) - int(self.sent_ns.min())) / 1e9
        return (self.answered - self.refused) / elapsed_s


def pump(folder: Path, served: Served, market: Market, count: int, processors: frozenset[int] = frozenset()) -> PumpRun:
    """Send *count* ticks of *market*, again from its start where it is too short, through a BULK session.

    Args:
        folder: private.
        served: the daemon; its memory is looked at.
        market: the ticks.
        count: how many.
        processors: that the client may use; empty for all.

    Raises:
        BenchError: the session ended early.
    """
    times = folder / "pump.npy"
    plan = {
        "address": served.address,
        "pid": served.pid,
        "ticks": str(market.path),
        "count": count,
        "times": str(times),
    }
    found = run_part("pump", plan, folder, _TIMEOUT_S + count / _TICKS_PER_S_MIN, processors)
    sent_ns, received_ns = np.load(times)
    samples = [(int(answered), int(kib)) for answered, kib in found["resident_kib"]]
    return PumpRun(sent_ns, received_ns, found["answered"], found["refused"], samples)


class _Pump:
    """One session at full speed."""

    def __init__(self, pid: int, ticks: NDArray[np.void]) -> None:
        self._pid = pid
        self._ticks = ticks
        count = len(ticks)
        self.sent_ns, self.received_ns = np.full((2, count), -1, dtype=np.int64)  # Pages touched.
        self.received_ns[:] = 0
        self.answered = self.refused = 0
        self.resident_kib: list[tuple[int, int]] = []

    async def run(self, address: str, instruments: list[Instrument]) -> None:
        """Send and read everything.

        Raises:
            PenstockError: what ended the session.
        """
        records = np.ascontiguousarray(self._ticks).view(np.uint8).data
        count = len(self._ticks)
        async with connect(address, instruments=instruments, pace=Pace.BULK, client_name="penstock-bench") as session:
            reader = asyncio.create_task(self._read(session))
            try:
                for first in range(0, count, SLICE_TICKS):
                    end = min(first + SLICE_TICKS, count)
                    self.sent_ns[first:end] = time.monotonic_ns()
                    await session.send(records[first * TICK_BYTES : end * TICK_BYTES])
                await session.finish()
                await reader
            finally:
                reader.cancel()

    async def _read(self, session: Session) -> None:
        async for batch in session.batches():
            count = len(batch.predictions) + len(batch.errors)
            self.received_ns[self.answered : self.answered + count] = time.monotonic_ns()
            self.answered += count
            self.refused += len(batch.errors)
            if self.answered >= len(self.resident_kib) * SAMPLE_TICKS:
                self.resident_kib.append((self.answered, resident_kib(self._pid)))


def send_all(plan: Plan) -> dict[str, Any]:
    """Pump the ticks of *plan* and write the times, int64 of shape (sent and received, ticks)."""
    instruments, recorded = Market(Path(plan["ticks"]), "").read()
    pumped = _Pump(plan["pid"], repeated(recorded, plan["count"]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(pumped.run(plan["address"], instruments))
    np.save(plan["times"], np.stack([pumped.sent_ns, pumped.received_ns]), allow_pickle=False)
    return {"answered": pumped.answered, "refused": pumped.refused, "resident_kib": pumped.resident_kib}


if __name__ == "__main__":
    sys.exit(be_part(send_all))
