"""The engine's ends of a segment: what is taken, checked, answered and timed, and what a false word in it does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

from penstock.v1 import shared_ring as layout
from penstock.v1.records import PredictionFlag, Stage
from penstock.v1.shared_ring import REFUSED_FLAG, SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_daemon.engine_tap import NOT_RECORDED, PUBLISHED, TICK_COLUMNS, tap_parts
from support.engines import close_source, open_source, predict
from support.raw_stream import hash_of
from support.segment_rig import SLOTS, attached, fault, segment_engine
from support.tick_arrays import quotes
from support.tick_stream import tick_stream

TICKS = tick_stream(3, 600)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))  # Both ends of 256 segments are this process's.
    with segment_engine(sources=258, tap_ticks=64) as engine:
        yield engine
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.001)


def test_answers_are_those_of_the_event_loops_ring_to_the_bit(engine: Engine) -> None:
    source = open_source(engine, 2)
    expected = predict(engine, source, TICKS)
    close_source(engine, source)
    with attached(engine, 1) as client:
        found = []
        for start in range(0, len(TICKS), SLOTS - 1):  # Never where a ring ends.
            client.publish(TICKS[start : start + SLOTS - 1])
            found.append(client.predictions(len(TICKS[start : start + SLOTS - 1])))
    predictions = np.concatenate(found)
    assert predictions["sequence"].tolist() == list(range(len(TICKS)))
    assert hash_of(predictions) == hash_of(expected)


def test_unknown_instrument_and_time_out_of_range_are_refused_in_their_places(engine: Engine) -> None:
    ticks = quotes(10)
    ticks["instrument_id"][3] = 77
    ticks["ts_recv"][6] = 2**63
    with attached(engine, 1, first_sequence=1000) as client:
        client.publish(ticks)
        answers = client.predictions(10)
        assert engine.buffers.segments[1, [memory.SEGMENT_UNKNOWN, memory.SEGMENT_OUT_OF_RANGE]].tolist() == [1, 1]
    refused = (answers["flags"] & REFUSED_FLAG) != 0
    assert np.flatnonzero(refused).tolist() == [3, 6]
    assert answers["horizons"][[3, 6]].tolist() == [memory.UNKNOWN_INSTRUMENT, memory.TIME_OUT_OF_RANGE]
    assert answers["sequence"].tolist() == list(range(1000, 1010))


def test_wait_in_the_segment_is_ring_and_the_rest_adds_up(engine: Engine) -> None:
    row = engine.buffers.histograms[memory.PATH_SHARED_MEMORY, 0]
    before = row.sum(axis=1)
    with attached(engine, 1) as client:
        client.publish(quotes(20))
        answers = client.predictions(20)
        until(lambda: row[Stage.TOTAL].sum() == before[Stage.TOTAL] + 20)
    assert (row.sum(axis=1) - before)[[Stage.RECEIVE, Stage.RING, Stage.EGRESS, Stage.TOTAL]].tolist() == [20] * 4
    assert (answers["stage_ns"][:, Stage.RECEIVE] == 0).all()
    assert (answers["stage_ns"][:, Stage.RING] > 0).all()


@pytest.mark.parametrize("written_ns", [1, -(2**62), 0, 2**62])
def test_false_stamp_makes_no_tick_old_and_none_of_the_future(engine: Engine, written_ns: int) -> None:
    negative = engine.buffers.totals[memory.PATH_SHARED_MEMORY, 0, :, 2].copy()
    with attached(engine, 1) as client:
        client.publish(quotes(3))
        client.predictions(3)
        began_ns = time.monotonic_ns()
        client.publish(quotes(3), written_ns=written_ns)
        answers = client.predictions(3)
        bound_ns = time.monotonic_ns() - began_ns + 1_000_000_000  # A sleeping engine has not looked for a while.
    assert answers["stage_ns"].sum(axis=1, dtype=np.int64).max() < bound_ns
    assert (engine.buffers.totals[memory.PATH_SHARED_MEMORY, 0, :, 2] == negative).all()


def test_client_that_stops_reading_ages_nobody(engine: Engine) -> None:
    with attached(engine, 1, slots=1024) as client:
        client.publish(quotes(engine.sizes.slots + 40))
        until(lambda: client.ready() == engine.sizes.slots)
        until(lambda: int(engine.buffers.segments[1, memory.SEGMENT_FLOOR_NS]) > time.monotonic_ns() - 1_000_000_000)
        assert client.word(layout.TICK_CONSUMED_AT) == engine.sizes.slots, "no more than can be given again"
        held_up_ns = int(engine.buffers.segments[1, memory.SEGMENT_FLOOR_NS])
        until(lambda: int(engine.buffers.segments[1, memory.SEGMENT_FLOOR_NS]) > held_up_ns + 100_000_000)
        read_ns = int(engine.buffers.segments[1, memory.SEGMENT_FLOOR_NS])
        first = client.predictions(engine.sizes.slots)
        rest = client.predictions(40)
        ended_ns = time.monotonic_ns()
    assert np.concatenate([first, rest])["sequence"].tolist() == list(range(engine.sizes.slots + 40))
    waited_ns = rest["stage_ns"][:, Stage.RING].astype(np.int64)
    assert waited_ns.max() <= ended_ns - read_ns, "the tenth of a second before is the strategy's own"
    assert waited_ns.min() >= 0


def test_strategy_that_rings_no_bell_has_stale_answers_and_trips_no_breaker() -> None:
    with segment_engine(settings=EngineSettings(breaker_run=2)) as engine, attached(engine, 1) as client:
        stale = np.uint32(0)
        while not stale:  # Until it published while the engine had long to sleep.
            until(lambda: client.word(layout.ENGINE_SLEEPING_AT) == 1)
            client.write(quotes(8))
            client.published += 8
            client.set_word(layout.TICK_PUBLISHED_AT, client.published)
            stale = client.predictions(8)["flags"].min() & PredictionFlag.STALE
        assert engine.buffers.words[[memory.BREAKER_TRIPS, memory.STALE_RUN, memory.STALE_LAST_NS]].tolist() == [
            0,
            0,
            0,
        ]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (layout.TICK_PUBLISHED_AT, -1),
        (layout.TICK_PUBLISHED_AT, 10 + SLOTS + 1),
        (layout.TICK_PUBLISHED_AT, 9),
        (layout.TICK_PUBLISHED_AT, -(2**63)),
        (layout.TICK_PUBLISHED_AT, 2**63 - 1),
    ],
)
def test_cursor_that_can_not_be_ends_the_segment_alone(engine: Engine, at: int, value: int) -> None:
    with attached(engine, 1) as client, attached(engine, 2, states=(2,)) as other:
        client.publish(quotes(10))
        client.predictions(10)
        client.set_word(at, value)
        client.ring()
        os.eventfd_write(client.bell, 1)
        until(lambda: fault(engine, 1) is SegmentEnd.CURSOR)
        assert client.word(layout.CLOSED_AT) == SegmentEnd.CURSOR
        assert client.hung_up()
        row = engine.buffers.segments[1]
        assert row[[memory.SEGMENT_FAULT_AT, memory.SEGMENT_FAULT_VALUE]].tolist() == [at, value]
        other.publish(quotes(5))
        assert len(other.predictions(5)) == 5


@pytest.mark.parametrize("value", [-1, 65, 2**62])
def test_reading_cursor_that_can_not_be_ends_the_segment_once_it_matters(engine: Engine, value: int) -> None:
    with attached(engine, 1) as client:
        client.publish(quotes(SLOTS))
        until(lambda: client.ready() == SLOTS)
        client.set_word(layout.PREDICTION_CONSUMED_AT, value)
        client.publish(quotes(1))
        until(lambda: fault(engine, 1) is SegmentEnd.CURSOR)
        assert client.hung_up()


def test_record_that_is_no_tick_ends_the_segment_after_those_before_it(engine: Engine) -> None:
    ticks = quotes(10)
    ticks["rtype"][4] = 160
    with attached(engine, 1) as client:
        client.publish(ticks)
        until(lambda: fault(engine, 1) is SegmentEnd.MALFORMED_TICK)
        assert client.word(layout.TICK_CONSUMED_AT) == 4
        assert engine.buffers.segments[1, memory.SEGMENT_FAULT_AT] == 4
        assert client.word(layout.CLOSED_AT) == SegmentEnd.MALFORMED_TICK


def test_punched_hole_is_no_tick_and_the_size_is_for_ever(engine: Engine) -> None:
    with attached(engine, 1) as client:
        client.write(quotes(5))
        for size in (0, 4096, 1 << 24):
            with pytest.raises(PermissionError):
                os.ftruncate(client.memory, size)
        punch_hole(client.memory, layout.HEADER_BYTES, 4096)
        client.set_word(layout.TICK_PUBLISHED_AT, 5)
        os.eventfd_write(client.bell, 1)
        until(lambda: fault(engine, 1) is SegmentEnd.MALFORMED_TICK)


def test_hole_in_the_header_is_a_cursor_that_went_back(engine: Engine) -> None:
    with attached(engine, 1) as client:
        client.publish(quotes(5))
        client.predictions(5)
        punch_hole(client.memory, 0, 4096)
        os.eventfd_write(client.bell, 1)
        until(lambda: fault(engine, 1) is SegmentEnd.CURSOR)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    keep_size, punch = 1, 2
    arguments = (
        ctypes.c_int(descriptor),
        ctypes.c_int(keep_size | punch),
        ctypes.c_long(offset),
        ctypes.c_long(length),
    )
    assert libc.fallocate(*arguments) == 0, os.strerror(ctypes.get_errno())


def test_engine_allocates_nothing_with_segments_that_are_recorded(engine: Engine) -> None:
    tap = tap_parts(engine.buffers.tap)
    tap.recordings[1] = 7
    _nrt_python.memsys_enable_stats()
    try:
        with attached(engine, 1) as client:
            client.publish(TICKS[:60])
            client.predictions(60)
            before = rtsys.get_allocation_stats().alloc
            for start in range(60, 600, 60):
                client.publish(TICKS[start : start + 60])
                client.predictions(60)
            assert rtsys.get_allocation_stats().alloc == before
    finally:
        _nrt_python.memsys_disable_stats()
        tap.recordings[1] = NOT_RECORDED
    assert (tap.words[PUBLISHED], tap.counts[1]) == (64, 600), "what found it full is counted"
    assert tap.slots[:, :TICK_COLUMNS].tobytes() == TICKS[:64].tobytes()
    assert tap.slots[:, TICK_COLUMNS:].tolist() == [[7, number] for number in range(64)]


def test_held_source_is_not_taken_from(engine: Engine) -> None:
    with attached(engine, 1) as client:
        engine.wait_applied(engine.command(Command.HOLD_SOURCE, 1))
        client.publish(quotes(5))
        passes = int(engine.buffers.words[memory.PASSES])
        until(lambda: int(engine.buffers.words[memory.PASSES]) > passes + 2)
        assert client.word(layout.TICK_CONSUMED_AT) == 0
        engine.wait_applied(engine.command(Command.BIND_MODEL, 1, 0))
        assert len(client.predictions(5)) == 5


def test_waiting_strategy_is_rung_once_and_a_bell_that_is_full_blocks_nobody(engine: Engine) -> None:
    with attached(engine, 1) as client:
        os.set_blocking(client.bell, True)
        os.eventfd_write(client.bell, 2**64 - 2)
        client.set_word(layout.CLIENT_WAITING_AT, 1)
        client.write(quotes(1))
        client.set_word(layout.TICK_PUBLISHED_AT, 1)
        assert client.connection.recv(64)
        assert client.word(layout.CLIENT_WAITING_AT) == 0
        assert client.ready() == 1


def test_strategy_that_wants_to_be_rung_always_and_reads_nothing_blocks_nobody(engine: Engine) -> None:
    with attached(engine, 1, slots=1024) as client:
        for _ in range(400):
            client.set_word(layout.CLIENT_WAITING_AT, 1)
            client.publish(quotes(1))
            client.predictions(1)
    with attached(engine, 1) as client:
        client.publish(quotes(1))
        assert len(client.predictions(1)) == 1


def test_engine_says_that_it_lives_while_nobody_asks(engine: Engine) -> None:
    with attached(engine, 1) as client:
        beats = {client.word(layout.DAEMON_BEAT_NS_AT)}
        until(lambda: beats.add(client.word(layout.DAEMON_BEAT_NS_AT)) is None and len(beats) >= 4)
        assert client.word(layout.ENGINE_SLEEPING_AT) in (0, 1)


def test_many_idle_segments_keep_nobody_from_anything(engine: Engine) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(attached(engine, source)) for source in range(2, 258)]
        assert int(engine.buffers.words[memory.SEGMENTS]) == 256
        busy = stack.enter_context(attached(engine, 1, states=(2,)))
        for start in range(0, 600, 60):
            busy.publish(TICKS[start : start + 60])
            assert len(busy.predictions(60)) == 60
        idle[255].publish(quotes(3))
        assert len(idle[255].predictions(3)) == 3
    assert int(engine.buffers.words[memory.SEGMENTS]) == 0


def test_all_strategies_have_their_turn_when_all_publish_at_once(engine: Engine) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(attached(engine, source, states=(source,), slots=1024, bulk=True))
            for source in range(1, 9)
        ]
        threads = [threading.Thread(target=client.publish, args=(quotes(200),)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for client in clients:
            assert (client.predictions(200)["flags"] & PredictionFlag.STALE == 0).all()
