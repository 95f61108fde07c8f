"""LatencyService over the engine's memory, which the test fills as the engine would."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from penstock.v1 import histogram, latency_pb2
from penstock.v1.records import Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_sizes import allocate
from penstock_daemon.engine_stages import EXCEEDED, MAXIMUM, SUM
from penstock_daemon.latency_service import LatencyService
from support.engines import SIZES

BOUND_NS = 60_000
GRPC_PREDICT = (latency_pb2.PATH_GRPC, latency_pb2.STAGE_PREDICT)


@pytest.fixture(scope="module")
def memory_taken() -> Buffers:
    return allocate(SIZES)[1]


@pytest.fixture
def buffers(memory_taken: Buffers) -> Buffers:
    memory_taken.histograms[:] = 0
    memory_taken.totals[:] = 0
    memory_taken.bounds[:] = memory.NO_BOUND
    memory_taken.bounds[:, Stage.TOTAL] = 5_000_000
    memory_taken.bounds[memory.PATH_GRPC, Stage.PREDICT] = BOUND_NS
    return memory_taken


def record(buffers: Buffers, duration_ns: int, *, bulk: int = 0) -> None:
    """Count a duration of PREDICT on gRPC."""
    row = (memory.PATH_GRPC, bulk, Stage.PREDICT)
    buffers.histograms[(*row, histogram.bucket_of(duration_ns))] += 1
    buffers.totals[(*row, SUM)] += duration_ns
    buffers.totals[(*row, MAXIMUM)] = max(buffers.totals[(*row, MAXIMUM)], duration_ns)
    buffers.totals[(*row, EXCEEDED)] += duration_ns > BOUND_NS and not bulk


def budgets(answer: latency_pb2.GetLatencyResponse | latency_pb2.WatchLatencyResponse) -> dict[tuple[int, int], int]:
    return {(one.path, one.stage): one.exceeded for one in answer.budgets}


def test_snapshot_has_the_budgets_of_the_paths_and_stages_that_were_asked_for(buffers: Buffers) -> None:
    service = LatencyService(buffers, lambda: True)
    for duration_ns in (BOUND_NS, BOUND_NS + 1, 90_000):
        record(buffers, duration_ns)
        record(buffers, duration_ns, bulk=1)

    def asked(**what: int) -> latency_pb2.GetLatencyResponse:
        return asyncio.run(service.GetLatency(latency_pb2.GetLatencyRequest(**what), None))

    totals = {(path, latency_pb2.STAGE_TOTAL): 0 for path in (1, 2, 3)}
    assert budgets(asked()) == {GRPC_PREDICT: 2} | totals
    assert budgets(asked(stage=latency_pb2.STAGE_PREDICT)) == {GRPC_PREDICT: 2}
    assert set(budgets(asked(path=latency_pb2.PATH_FEED))) == {(latency_pb2.PATH_FEED, latency_pb2.STAGE_TOTAL)}
    assert [sum(one.counts) for one in asked().histograms] == [3, 3], "those of bulk are shown, and have no budget"
    assert asked().breaker_open
    assert asked().since_ns == asked().since_ns != 0


def test_watch_tells_what_came_since_the_message_before(buffers: Buffers) -> None:
    states = iter((True, False))
    service = LatencyService(buffers, lambda: next(states))
    record(buffers, 90_000)

    async def body() -> None:
        messages = service.WatchLatency(latency_pb2.WatchLatencyRequest(interval_ns=1), None)
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)  # It has read the tables.
        record(buffers, 70_000)
        record(buffers, 50_000)
        first = await waiting
        second = await anext(messages)
        await messages.aclose()
        assert budgets(first)[GRPC_PREDICT] == 1
        (counted,) = first.histograms
        assert dict(zip(counted.buckets, counted.counts, strict=True)) == {
            histogram.bucket_of(50_000): 1,
            histogram.bucket_of(70_000): 1,
        }
        assert (counted.sum_ns, counted.max_ns) == (120_000, 90_000), "a maximum is since the start"
        assert not second.histograms
        assert not any(budgets(second).values())
        assert (first.breaker_open, second.breaker_open) == (True, False)
        assert first.taken_ns == second.since_ns
        assert first.since_ns < first.taken_ns < second.taken_ns

    asyncio.run(body())
    assert np.count_nonzero(buffers.histograms) == 3
