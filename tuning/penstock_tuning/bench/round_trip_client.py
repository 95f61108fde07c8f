"""The client of the round-trip comparison: both sides on one event loop, in small blocks that take turns.

A part of round_trips.py, in a process of its own; its plan names both addresses, the ticks, and where times go.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path
from typing import Any, Final

import grpc.aio
import numpy as np
import uvloop
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_BYTES
from penstock_client import Instrument, Session, connect, wire
from penstock_client.bookkeeping import Outgoing, Purpose
from penstock_client.channel import OPTIONS
from penstock_tuning.bench.echo_server import METHOD
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.market import Market
from penstock_tuning.bench.parts import Plan, be_part

BARE: Final = 0  # Rows of the times. The series of the raw file is twice the repeat, plus this.
PENSTOCK: Final = 1
WARM_UP_BLOCKS: Final = 2
_TIMEOUT_S: Final = 10.0


def make_round_trips(plan: Plan) -> dict[str, Any]:
    """Make all round trips of *plan* and write the times, int64 of shape (sent and received, sides, trips)."""
    instruments, ticks = Market(Path(plan["ticks"]), "").read()
    count = plan["trips"] + WARM_UP_BLOCKS * plan["block"]
    sides = _Sides(plan["trips"], plan["block"], [tick.tobytes() for tick in np.resize(ticks, count)])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(sides.run(plan["echo"], plan["daemon"], instruments))
    np.save(plan["times"], np.stack([sides.sent_ns, sides.received_ns]), allow_pickle=False)
    return {"trips": plan["trips"]}


class _Sides:
    """Both sides of the comparison and their times, shape (2, trips)."""

    def __init__(self, trips: int, block: int, records: list[bytes]) -> None:
        self._trips = trips
        self._block = block
        self._records = records
        self._next = 0
        self.sent_ns: NDArray[np.int64] = np.zeros((2, trips), dtype=np.int64)
        self.received_ns: NDArray[np.int64] = np.zeros((2, trips), dtype=np.int64)

    async def run(self, echo_address: str, daemon_address: str, instruments: list[Instrument]) -> None:
        """Make all round trips, block by block."""
        request = _request(self._records[0])
        channel = grpc.aio.insecure_channel(echo_address, options=OPTIONS)
        call = channel.stream_stream(METHOD)()
        session = connect(daemon_address, instruments=instruments, client_name="penstock-bench grpc")
        try:
            async with session, asyncio.timeout(_TIMEOUT_S + 0.01 * self._trips):
                await call.write(_reply())
                gc.collect()
                gc.freeze()
                scratch = np.zeros((2, self._block), dtype=np.int64)
                for _ in range(WARM_UP_BLOCKS):
                    await self._bare(call, request, scratch[0], scratch[1])
                    await self._penstock(session, scratch[0], scratch[1])
                for number, first in enumerate(range(0, self._trips, self._block)):
                    part = slice(first, min(first + self._block, self._trips))
                    for side in (BARE, PENSTOCK) if number % 2 else (PENSTOCK, BARE):
                        sent_ns, received_ns = self.sent_ns[side, part], self.received_ns[side, part]
                        if side == BARE:
                            await self._bare(call, request, sent_ns, received_ns)
                        else:
                            await self._penstock(session, sent_ns, received_ns)
                await session.finish()
        except TimeoutError as exc:
            raise BenchError("a round trip was never answered: the daemon or the echo server hangs") from exc
        finally:
            gc.unfreeze()
            call.cancel()
            await channel.close()

    @staticmethod
    async def _bare(call: Any, request: bytes, sent_ns: NDArray[np.int64], received_ns: NDArray[np.int64]) -> None:
        now_ns = time.monotonic_ns
        for index in range(len(sent_ns)):
            start_ns = now_ns()
            await call.write(request)
            await call.read()
            received_ns[index] = now_ns()
            sent_ns[index] = start_ns

    async def _penstock(self, session: Session, sent_ns: NDArray[np.int64], received_ns: NDArray[np.int64]) -> None:
        now_ns = time.monotonic_ns
        for index in range(len(sent_ns)):
            record = self._records[self._next]
            self._next += 1
            start_ns = now_ns()
            await session.send(record)
            batch = await session.receive()
            received_ns[index] = now_ns()
            sent_ns[index] = start_ns
            assert batch is not None, "the session ended in the middle of the benchmark"
            if len(batch.predictions) != 1:
                raise BenchError(f"a tick was answered with an error: {batch.errors[0].message}")


def _request(record: bytes) -> bytes:
    """Return a request as the client library makes it for one tick."""
    return wire.ticks(Outgoing(Purpose.PREDICT, 5_000, record))


def _reply() -> bytes:
    """Return an answer as the daemon makes it for one tick."""
    batch = pb.PredictionBatch(records=bytes(PREDICTION_BYTES), sent_ns=time.time_ns())
    return pb.StreamPredictionsResponse(predictions=batch).SerializeToString()


if __name__ == "__main__":
    sys.exit(be_part(make_round_trips))
