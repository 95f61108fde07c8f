"""LatencyService: how long ticks take, stage by stage, against their bounds, as the engine has counted it.

    GetLatency      everything since counting began         two answers differ by exactly what came between them
    WatchLatency    what came since the last message

The hot path only adds to its tables; they are copied and subtracted here, on the event loop, when somebody asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import latency_pb2, latency_pb2_grpc, prediction_pb2
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_stages import EXCEEDED, MAXIMUM, NEGATIVE, SUM

_PATHS: Final = (latency_pb2.PATH_GRPC, latency_pb2.PATH_SHARED_MEMORY, latency_pb2.PATH_FEED)
_REALTIME: Final = 0  # The pace that has a budget.
_WATCH_NS_MIN: Final = 100_000_000
_WATCH_NS_DEFAULT: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Reading:
    """The engine's tables, as they stood."""

    histograms: NDArray[np.int64]  # (PATHS, PACES, STAGES, BUCKETS)
    totals: NDArray[np.int64]  # (PATHS, PACES, STAGES, TOTALS)
    taken_ns: int  # Unix.

    @classmethod
    def of(cls, buffers: Buffers) -> Self:
        """Copy the tables."""
        return cls(buffers.histograms.copy(), buffers.totals.copy(), time.time_ns())

    def since(self, earlier: _Reading) -> _Reading:
        """Return what was added since *earlier*; a maximum has no difference and stays as it is."""
        totals = self.totals - earlier.totals
        totals[..., MAXIMUM] = self.totals[..., MAXIMUM]
        return _Reading(self.histograms - earlier.histograms, totals, self.taken_ns)


class LatencyService(latency_pb2_grpc.LatencyServiceServicer):
    """Reads the engine's tables.

    Args:
        buffers: the engine's; only read.
        breaker_open: whether the breaker is open now.
    """

    def __init__(self, buffers: Buffers, breaker_open: Callable[[], bool]) -> None:
        self._buffers = buffers
        self._breaker_open = breaker_open
        self._since_ns = time.time_ns()

    async def GetLatency(self, request: Any, _context: Any) -> latency_pb2.GetLatencyResponse:  # noqa: N802 - gRPC's.
        """Return every histogram as it stands."""
        reading = _Reading.of(self._buffers)
        return latency_pb2.GetLatencyResponse(
            taken_ns=reading.taken_ns,
            histograms=_histograms(request, reading),
            budgets=self._budgets(request, reading),
            since_ns=self._since_ns,
            breaker_open=self._breaker_open(),
        )

    async def WatchLatency(  # noqa: N802 - gRPC's.
        self, request: Any, _context: Any
    ) -> AsyncIterator[latency_pb2.WatchLatencyResponse]:
        """Return what was added since the last message, again and again."""
        interval_ns = max(request.interval_ns or _WATCH_NS_DEFAULT, _WATCH_NS_MIN)
        before = _Reading.of(self._buffers)
        while True:
            await asyncio.sleep(interval_ns / 1e9)
            now = _Reading.of(self._buffers)
            added = now.since(before)
            yield latency_pb2.WatchLatencyResponse(
                taken_ns=now.taken_ns,
                histograms=_histograms(request, added),
                budgets=self._budgets(request, added),
                since_ns=before.taken_ns,
                breaker_open=self._breaker_open(),
            )
            before = now

    def _budgets(self, request: Any, reading: _Reading) -> list[latency_pb2.Budget]:
        bounds = self._buffers.bounds
        return [
            latency_pb2.Budget(
                path=_PATHS[path],
                stage=latency_pb2.Stage.Name(stage + 1),
                bound_ns=int(bounds[path, stage]),
                exceeded=int(reading.totals[path, _REALTIME, stage, EXCEEDED]),
            )
            for path in range(memory.PATHS)
            for stage in range(memory.STAGES)
            if _wanted(request, path, stage) and bounds[path, stage] != memory.NO_BOUND
        ]


def _wanted(request: Any, path: int, stage: int) -> bool:
    return request.path in (0, _PATHS[path]) and request.stage in (0, stage + 1)


def _histograms(request: Any, reading: _Reading) -> list[latency_pb2.Histogram]:
    rendered = []
    for path in range(memory.PATHS):
        for pace in range(memory.PACES):
            for stage in range(memory.STAGES):
                counts = reading.histograms[path, pace, stage]
                if not _wanted(request, path, stage) or not counts.any():
                    continue
                filled = np.flatnonzero(counts)
                totals = reading.totals[path, pace, stage]
                rendered.append(
                    latency_pb2.Histogram(
                        path=_PATHS[path],
                        stage=latency_pb2.Stage.Name(stage + 1),
                        pace=prediction_pb2.Pace.Name(pace + 1),
                        buckets=filled.tolist(),
                        counts=counts[filled].tolist(),
                        sum_ns=max(int(totals[SUM]), 0),
                        max_ns=int(totals[MAXIMUM]),
                        negative=int(totals[NEGATIVE]),
                    )
                )
    return rendered
