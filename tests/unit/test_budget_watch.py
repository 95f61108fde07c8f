"""What the daemon makes of the engine's counts: health, log lines, metrics; by a clock that the test moves.

The engine's memory is real, and the test writes the words that the engine would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from grpc_health.v1 import health_pb2

from penstock.v1.records import PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.admin_services import HealthService
from penstock_daemon.budget_metrics import StageBudget
from penstock_daemon.budget_warnings import REALTIME, BudgetWarnings, FlaggedPredictions, StageOverBudget
from penstock_daemon.budget_watch import BudgetWatch
from penstock_daemon.config import BudgetConfig
from penstock_daemon.engine import EngineSettings
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_sizes import allocate
from penstock_daemon.engine_stages import EXCEEDED
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.readiness import Readiness, Reason
from support.clock import HandClock
from support.engines import PATIENCE_S, SIZES, open_source, publish, running_engine, take
from support.tick_stream import tick_stream

CLOSE_S = 5.0
EVERY_NS = 10_000_000_000
CONFIG = BudgetConfig(breaker_close_s=CLOSE_S, warn_every_s=EVERY_NS / 1e9)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def memory_taken() -> Buffers:
    return allocate(SIZES)[1]


@pytest.fixture
def buffers(memory_taken: Buffers) -> Buffers:
    """The engine's memory, with a bound on each path's PREDICT and nothing counted."""
    for table in (memory_taken.words, memory_taken.totals, memory_taken.breaches):
        table[:] = 0
    memory_taken.bounds[:] = memory.NO_BOUND
    memory_taken.bounds[:, Stage.PREDICT] = 60_000
    return memory_taken


def breach(buffers: Buffers, path: int, stage: Stage, sequence: int, elapsed_ns: int, count: int = 1) -> None:
    """Count as the engine does."""
    buffers.totals[path, REALTIME, stage, EXCEEDED] += count
    buffers.breaches[path, stage] = (sequence, elapsed_ns)


def trip(buffers: Buffers, clock: HandClock, stale: int = 32) -> None:
    """Let the engine have made *stale* STALE predictions now, which trip the breaker."""
    buffers.words[memory.BREAKER_TRIPS] += 1
    buffers.words[[memory.LATE, memory.STALE]] += stale
    buffers.words[memory.STALE_LAST_NS] = clock()


# --- Warnings -----------------------------------------------------------------------------------------------------------


def test_first_breach_is_told_at_once_and_later_ones_together(buffers: Buffers) -> None:
    clock, warnings = HandClock(), BudgetWarnings(buffers, EVERY_NS)
    assert list(warnings.look(clock())) == []
    breach(buffers, memory.PATH_GRPC, Stage.PREDICT, 19_021, 81_200)
    first = StageOverBudget("grpc", Stage.PREDICT, 81_200, 60_000, 19_021, 1)
    assert list(warnings.look(clock())) == [first]
    for sequence in range(5):
        breach(buffers, memory.PATH_GRPC, Stage.PREDICT, sequence, 70_000 + sequence, count=2)
        assert list(warnings.look(clock.advance(seconds=1))) == []
    clock.advance(ns=EVERY_NS - 5_000_000_000 - 1)
    assert list(warnings.look(clock())) == []
    (later,) = warnings.look(clock.advance(ns=1))
    assert later == StageOverBudget("grpc", Stage.PREDICT, 70_004, 60_000, 4, 10)
    assert list(warnings.look(clock.advance(ns=EVERY_NS))) == [], "nothing new"


def test_each_path_and_stage_and_flag_has_a_line_of_its_own(buffers: Buffers) -> None:
    clock, warnings = HandClock(), BudgetWarnings(buffers, EVERY_NS)
    breach(buffers, memory.PATH_GRPC, Stage.PREDICT, 1, 61_000)
    list(warnings.look(clock()))
    breach(buffers, memory.PATH_FEED, Stage.PREDICT, 2, 62_000)
    breach(buffers, memory.PATH_GRPC, Stage.TOTAL, 3, 5_000_001)
    buffers.words[memory.LATE] = 7
    buffers.words[memory.STALE] = 5
    found = list(warnings.look(clock.advance(seconds=0.25)))
    assert [(one.path, one.stage) for one in found if isinstance(one, StageOverBudget)] == [
        ("grpc", Stage.TOTAL),
        ("feed", Stage.PREDICT),
    ]
    assert found[2:] == [FlaggedPredictions(PredictionFlag.LATE, 7), FlaggedPredictions(PredictionFlag.STALE, 5)]


def test_all_lines_of_a_row_together_tell_the_engine_s_count(buffers: Buffers) -> None:
    clock, warnings = HandClock(), BudgetWarnings(buffers, EVERY_NS)
    lines = []
    for _ in range(400):
        breach(buffers, memory.PATH_SHARED_MEMORY, Stage.RING, 1, 1, count=3)
        lines += list(warnings.look(clock.advance(seconds=0.25)))
    lines += list(warnings.look(clock.advance(ns=EVERY_NS)))
    assert sum(one.count for one in lines) == 1200
    assert len(lines) == 100 // 10 + 1


# --- Breaker and health -------------------------------------------------------------------------------------------------


class SlowHealth(HealthService):
    """Health that takes a few turns of the loop to take in a status, as it does while many watch it."""

    async def set(self, service: str, status: Any) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await super().set(service, status)


class Rig:
    """A watch over memory that nobody runs on, with health as a client sees it."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers, self.clock, self.health = buffers, HandClock(), SlowHealth()
        self.readiness = Readiness(self.health, ("one", "two"))
        self.watch = BudgetWatch(buffers, CONFIG, self.readiness, self.clock)

    async def statuses(self) -> set[int]:
        """Return what health says now, of the daemon and each service."""
        await self.readiness.settle()
        listed = await self.health.List(None, None)
        assert set(listed.statuses) == {"", "one", "two"}
        return {one.status for one in listed.statuses.values()}


@pytest.fixture
def on_rig(buffers: Buffers) -> Callable[[Callable[[Rig], Awaitable[None]]], list[Any]]:
    """Run a body on a rig that serves, and return what was logged."""

    async def started(body: Callable[[Rig], Awaitable[None]]) -> None:
        rig = Rig(buffers)
        rig.readiness.put(Reason.STARTING, present=False)
        assert await rig.statuses() == {SERVING}
        await body(rig)

    def run(body: Callable[[Rig], Awaitable[None]]) -> list[Any]:
        with structlog.testing.capture_logs() as logged:
            asyncio.run(started(body))
        return logged

    return run


def test_trip_is_told_to_health_by_the_engine_s_signal_without_the_keeper(on_rig: Any) -> None:
    async def body(rig: Rig) -> None:
        rig.watch.on_signal()
        assert await rig.statuses() == {SERVING}
        trip(rig.buffers, rig.clock)
        rig.watch.on_signal()
        assert await rig.statuses() == {NOT_SERVING}
        snapshot = rig.watch.snapshot()
        assert (snapshot.breaker_open, snapshot.breaker_trips, snapshot.breaker_opened) == (True, 1, 1)
        rig.clock.advance(seconds=CLOSE_S - 0.001)
        rig.watch.look()
        assert await rig.statuses() == {NOT_SERVING}
        rig.clock.advance(seconds=0.001)
        rig.watch.look()
        assert await rig.statuses() == {SERVING}
        assert not rig.watch.snapshot().breaker_open

    lines = {line["event"]: line for line in on_rig(body)}
    opened, closed = lines["breaker_opened"], lines["breaker_closed"]
    assert (opened["log_level"], opened["trips"], opened["late"], opened["stale"]) == ("error", 1, 32, 32)
    assert (closed["log_level"], closed["open_s"], closed["stale"]) == ("warning", CLOSE_S, 0)


def test_each_transition_is_one_line_however_often_it_is_looked_at(on_rig: Any) -> None:
    async def body(rig: Rig) -> None:
        for _ in range(3):
            trip(rig.buffers, rig.clock)
            rig.watch.on_signal()
            rig.watch.look()
        rig.clock.advance(seconds=CLOSE_S)
        rig.watch.look()
        rig.watch.look()

    events = [line["event"] for line in on_rig(body)]
    assert [event for event in events if event.startswith("breaker")] == ["breaker_opened", "breaker_closed"]


def test_health_serves_only_where_neither_the_breaker_nor_a_stall_speaks_against_it(on_rig: Any) -> None:
    async def body(rig: Rig) -> None:
        trip(rig.buffers, rig.clock)
        rig.watch.on_signal()
        rig.readiness.put(Reason.STALLED, present=True)
        assert await rig.statuses() == {NOT_SERVING}
        rig.clock.advance(seconds=CLOSE_S)
        rig.watch.look()
        assert await rig.statuses() == {NOT_SERVING}, "the engine still stands"
        trip(rig.buffers, rig.clock)
        rig.watch.on_signal()
        rig.readiness.put(Reason.STALLED, present=False)
        assert await rig.statuses() == {NOT_SERVING}, "the breaker is open"
        rig.clock.advance(seconds=CLOSE_S)
        rig.watch.look()
        assert await rig.statuses() == {SERVING}

    on_rig(body)


def test_reason_that_comes_and_goes_within_a_turn_of_the_loop_ends_in_the_truth(on_rig: Any) -> None:
    async def body(rig: Rig) -> None:
        for present in (True, False, True):
            rig.readiness.put(Reason.BREAKER, present=present)
        assert await rig.statuses() == {NOT_SERVING}
        for turns in range(12):
            for present in (False, True, False):
                rig.readiness.put(Reason.BREAKER, present=present)
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert await rig.statuses() == {SERVING}

    on_rig(body)


def test_daemon_that_has_not_started_does_not_serve_whatever_the_breaker_says(buffers: Buffers) -> None:
    async def body() -> None:
        rig = Rig(buffers)
        trip(buffers, rig.clock)
        rig.watch.on_signal()
        rig.clock.advance(seconds=CLOSE_S)
        rig.watch.look()
        assert await rig.statuses() == {NOT_SERVING}

    asyncio.run(body())


def test_trip_of_a_running_engine_reaches_health_though_no_keeper_looks() -> None:
    async def body() -> None:
        settings = EngineSettings(budget_ns=1, stale_ns=1, breaker_run=5)
        with running_engine(settings=settings) as engine:
            rig = Rig(engine.buffers)
            rig.readiness.put(Reason.STARTING, present=False)
            link = LoopLink(engine, asyncio.get_running_loop())
            opened = asyncio.Event()

            def on_wake() -> None:
                rig.watch.on_signal()
                if rig.watch.breaker_open():
                    opened.set()

            link.watch(on_wake)
            source = open_source(engine)
            publish(engine, source, tick_stream(5, 4))
            take(engine, source, 4)
            assert await rig.statuses() == {SERVING}
            publish(engine, source, tick_stream(5, 1), first=4)
            async with asyncio.timeout(PATIENCE_S):
                await opened.wait()
            assert await rig.statuses() == {NOT_SERVING}
            link.close()

    asyncio.run(body())


# --- Log and metrics ------------------------------------------------------------------------------------------------------


def test_line_of_a_stage_over_budget_says_whose_it_is_and_by_how_much(on_rig: Any) -> None:
    async def body(rig: Rig) -> None:
        breach(rig.buffers, memory.PATH_GRPC, Stage.PREDICT, 19_021, 81_200)
        rig.buffers.words[memory.LATE] = 2
        rig.watch.look()

    stage, flagged = on_rig(body)
    assert stage == {
        "event": "stage over budget",
        "log_level": "warning",
        "path": "grpc",
        "stage": "PREDICT",
        "elapsed_ns": 81_200,
        "budget_ns": 60_000,
        "sequence": 19_021,
        "count": 1,
    }
    assert flagged == {"event": "predictions over budget", "log_level": "warning", "flag": "LATE", "count": 2}


def test_no_warning_comes_where_none_are_wanted(buffers: Buffers) -> None:
    async def body() -> None:
        readiness = Readiness(HealthService(), ())
        watch = BudgetWatch(buffers, BudgetConfig(warn_every_s=0), readiness, HandClock())
        breach(buffers, memory.PATH_GRPC, Stage.PREDICT, 1, 81_200)
        watch.look()
        trip(buffers, HandClock())
        watch.look()

    with structlog.testing.capture_logs() as logged:
        asyncio.run(body())
    assert [line["event"] for line in logged] == ["breaker_opened"]


def test_snapshot_has_the_stages_with_a_bound_alone(buffers: Buffers) -> None:
    breach(buffers, memory.PATH_FEED, Stage.PREDICT, 1, 81_200, count=4)
    buffers.words[memory.OLD_TICKS] = 3
    buffers.words[memory.SKIPPED] = 2

    async def taken() -> Any:
        return BudgetWatch(buffers, CONFIG, Readiness(HealthService(), ()), HandClock()).snapshot()

    snapshot = asyncio.run(taken())
    assert snapshot.stages == [
        StageBudget("grpc", "predict", 60_000, 0),
        StageBudget("shared_memory", "predict", 60_000, 0),
        StageBudget("feed", "predict", 60_000, 4),
    ]
    assert (snapshot.old_ticks, snapshot.skipped) == (3, 2)
