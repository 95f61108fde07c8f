"""``penstock-bench grpc``: the round trip of one tick, against a bare grpc.aio echo of messages of the same sizes.

    bare      write the bytes of a TickBatch, read the bytes of a PredictionBatch, nothing else
    penstock  session.send(tick), session.receive(): a real daemon predicts

Both servers run in processes of their own with the same options and event loop, both clients on one loop in this
process with the same channel options, and small blocks take turns (each pair in the other order than the last), so that
whatever the machine does meanwhile happens to both. Closed loop: one message is under way at any time. A process is
faster or slower than its twin by a tenth for as long as it lives, by where its threads and pages came to lie: so both
servers are started anew for each repeat, and figures are medians over repeats.
"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
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
from penstock_tuning.bench.figures import Figures, latency_figures, median_of
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.placement import FREE, on_processors
from penstock_tuning.bench.processes import daemon, echo_server
from penstock_tuning.bench.raw import Raw, raw_rows
from penstock_tuning.bench.settings import Bench

BARE: Final = 0  # The series of the raw times is twice the repeat, plus the side.
PENSTOCK: Final = 1
SHOWN: Final = (
    "p50_ratio",
    "p99_ratio",
    "penstock_p50_us",
    "bare_p50_us",
    "penstock_p99_us",
    "bare_p99_us",
    "trips",
)
WARM_UP_BLOCKS: Final = 2
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class RoundTripSettings:
    """How many round trips each side makes in each repeat, how many at a time, and how many repeats there are."""

    trips: int = 3_000
    block: int = 100
    repeat: int = 5

    def __post_init__(self) -> None:
        """Check the user's numbers."""
        if not 1 <= self.repeat <= 1000:
            raise BenchError(f"--repeat must be from 1 to 1,000: repeat={self.repeat}")
        if not 1 <= self.block <= self.trips:
            raise BenchError(f"--block must be from 1 to --trips={self.trips}: block={self.block}")


def measure(settings: RoundTripSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: a server does not serve.
    """
    market = bench.market()
    instruments, ticks = market.read()
    place = bench.placement(FREE)
    count = settings.trips + WARM_UP_BLOCKS * settings.block
    records = [tick.tobytes() for tick in np.resize(ticks, count)]
    repeats: list[Figures] = []
    raw: list[Raw] = []
    for number in range(settings.repeat):
        sides = _Sides(settings, records)
        with (
            bench.progress.step(f"grpc: {settings.trips:,} round trips each way, {number + 1} of {settings.repeat}"),
            echo_server(bench.folder, place.daemon) as echo,
            daemon(bench.folder, bench.daemon, place.daemon) as served,
            on_processors(place.strategy),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(sides.run(echo.address, served.address, instruments))
        repeats.append(sides.figures())
        for series in (BARE, PENSTOCK):
            sent_ns = sides.sent_ns[series]
            raw.append(raw_rows(2 * number + series, sent_ns, sent_ns, sides.received_ns[series]))
    figures: dict[str, Any] = {**median_of(repeats, summed=("trips",)), "repeats": repeats}
    conditions = bench.conditions(market, place)
    return Outcome("grpc", figures, conditions, SHOWN, raw)


class _Sides:
    """Both sides of the comparison and their times, shape (2, trips)."""

    def __init__(self, settings: RoundTripSettings, records: list[bytes]) -> None:
        self._settings = settings
        self._records = records
        self._next = 0
        self.sent_ns: NDArray[np.int64] = np.zeros((2, settings.trips), dtype=np.int64)
        self.received_ns: NDArray[np.int64] = np.zeros((2, settings.trips), dtype=np.int64)

    def figures(self) -> Figures:
        """Return both ratios and both sides' microseconds."""
        bare, penstock = (latency_figures(self.sent_ns[side], self.received_ns[side]) for side in (BARE, PENSTOCK))
        return {
            **{f"{key}_ratio": round(penstock[f"{key}_us"] / bare[f"{key}_us"], 4) for key in ("p50", "p99")},
            **{f"penstock_{key}": value for key, value in penstock.items() if key.endswith("_us")},
            **{f"bare_{key}": value for key, value in bare.items() if key.endswith("_us")},
            "trips": self._settings.trips,
        }

    async def run(self, echo_address: str, daemon_address: str, instruments: list[Instrument]) -> None:
        """Make all round trips, block by block."""
        request = _request(self._records[0])
        channel = grpc.aio.insecure_channel(echo_address, options=OPTIONS)
        call = channel.stream_stream(METHOD)()
        session = connect(daemon_address, instruments=instruments, client_name="penstock-bench grpc")
        try:
            async with session, asyncio.timeout(_TIMEOUT_S + 0.01 * self._settings.trips):
                await call.write(_reply())
                gc.collect()
                gc.freeze()
                scratch = np.zeros((2, self._settings.block), dtype=np.int64)
                for _ in range(WARM_UP_BLOCKS):
                    await self._bare(call, request, scratch[0], scratch[1])
                    await self._penstock(session, scratch[0], scratch[1])
                for number, first in enumerate(range(0, self._settings.trips, self._settings.block)):
                    part = slice(first, min(first + self._settings.block, self._settings.trips))
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
