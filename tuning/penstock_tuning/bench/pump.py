"""Ticks through a session at full speed, in this process, every answer counted: what throughput and memory run on.

answered == sent at the end, or the daemon broke its promise
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import uvloop
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES
from penstock_client import Instrument, Pace, Session, connect

SLICE_TICKS = 2048


@dataclass
class PumpRun:
    """What became of the ticks of one pump.

    Attributes:
        sent_ns: shape (ticks,), when each was offered to the session.
        received_ns: shape (ticks,), when its answer was here.
        refused: ticks answered with an error.
    """

    sent_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    answered: int = 0
    refused: int = 0
    elapsed_s: float = field(default=0.0)

    @property
    def lost(self) -> int:
        """Ticks without an answer."""
        return len(self.sent_ns) - self.answered

    @property
    def predictions_per_s(self) -> float:
        """Answers with a prediction, per second from the first send to the last answer."""
        return (self.answered - self.refused) / self.elapsed_s


def pump(
    address: str, instruments: list[Instrument], ticks: NDArray[np.void], look: Callable[[int], None] | None = None
) -> PumpRun:
    """Send *ticks* through a BULK session as fast as the daemon takes them, on an event loop of its own.

    Args:
        address: the daemon's.
        instruments: of the ticks.
        ticks: shape (any,), at least one.
        look: called now and then with how many ticks are answered; must be quick.

    Raises:
        PenstockError: what ended the session.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(pump_async(address, instruments, ticks, look))


async def pump_async(
    address: str, instruments: list[Instrument], ticks: NDArray[np.void], look: Callable[[int], None] | None = None
) -> PumpRun:
    """As pump(), on the running loop."""
    count = len(ticks)
    run = PumpRun(np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64))  # Pages touched.
    run.sent_ns[:] = run.received_ns[:] = 0
    records = np.ascontiguousarray(ticks).view(np.uint8).data
    session = connect(address, instruments=instruments, pace=Pace.BULK, client_name="penstock-bench")
    async with session:
        started_ns = time.monotonic_ns()
        reader = asyncio.create_task(_read(session, run, look))
        try:
            for first in range(0, count, SLICE_TICKS):
                end = min(first + SLICE_TICKS, count)
                run.sent_ns[first:end] = time.monotonic_ns()
                await session.send(records[first * TICK_BYTES : end * TICK_BYTES])
            await session.finish()
            await reader
        finally:
            reader.cancel()
    run.elapsed_s = (int(run.received_ns.max()) - started_ns) / 1e9
    return run


async def _read(session: Session, run: PumpRun, look: Callable[[int], None] | None) -> None:
    async for batch in session.batches():
        count = len(batch.predictions) + len(batch.errors)
        run.received_ns[run.answered : run.answered + count] = time.monotonic_ns()
        run.answered += count
        run.refused += len(batch.errors)
        if look is not None:
            look(run.answered)
