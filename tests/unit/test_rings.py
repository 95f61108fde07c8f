"""The event loop's ends of the rings, with the test in the engine's place."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_TIME, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import rings
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_daemon.engine_sizes import EngineSizes
from support.engines import frozen
from support.tick_arrays import quotes

SLOTS = 16
SIZES = EngineSizes(sources=3, slots=SLOTS, states=4, model_slots=1, units_max=16, journal_ticks=16)
IDS = np.array([3, 5, 4_000_000_000], np.int64)
STATES = np.array([1, 3, 2], np.int64)
RECEIVED_NS = 1_000


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine that was never started: its memory, and the event loop's ends of it."""
    engine = Engine(SIZES, EngineSettings(assist_max=4))
    yield engine
    engine.close()


def publish(engine: Engine, ticks: NDArray[np.void], *, first: int = 0, rebuild: bool = False, source: int = 1) -> int:
    return engine.publish_ticks(source, frozen(ticks), first, rebuild, IDS, STATES, RECEIVED_NS)


def of(number: int, *ids: int) -> NDArray[np.void]:
    return quotes(number, ids or (3,))


def set_cursor(engine: Engine, which: int, value: int, source: int = 1) -> None:
    engine.buffers.cursors[memory.cursor(source, which)] = value


def answer(engine: Engine, count: int, *, flags: int = 0, source: int = 1) -> None:
    """Do as the engine: take *count* ticks, publish an answer to each."""
    buffers = engine.buffers
    published = engine.cursor(source, memory.PREDICTION_PUBLISHED)
    for position in range(published, published + count):
        place = buffers.prediction_slots[source, position % SLOTS]
        place["sequence"], place["flags"], place["stage_ns"] = position, flags, 7
    set_cursor(engine, memory.TICK_CONSUMED, engine.cursor(source, memory.TICK_CONSUMED) + count, source)
    set_cursor(engine, memory.PREDICTION_PUBLISHED, published + count, source)


# --- Ticks in ---------------------------------------------------------------------------------------------------------


def test_published_tick_is_in_its_slot_to_the_byte(engine: Engine) -> None:
    ticks = np.frombuffer(np.random.default_rng(5).bytes(9 * TICK_BYTES), TICK_DTYPE).copy()
    ticks["length"], ticks["rtype"], ticks["instrument_id"] = TICK_LENGTH_WORDS, TICK_RTYPE, 5
    ticks["ts_recv"] >>= np.uint64(1)
    assert publish(engine, ticks, first=70) == 0
    slots = engine.buffers.tick_slots[1, : len(ticks)]
    assert [slot.tobytes()[:TICK_BYTES] for slot in slots] == [tick.tobytes() for tick in ticks]
    assert slots["session_sequence"].tolist() == list(range(70, 70 + len(ticks)))
    assert (slots["received_ns"] == RECEIVED_NS).all()
    assert (slots["ringed_ns"] > RECEIVED_NS).all()
    assert (slots["state"] == 3).all()
    assert not slots["refusal"].any()
    assert not slots["rebuild"].any()
    assert engine.cursor(1, memory.TICK_PUBLISHED) == len(ticks)
    assert not engine.buffers.tick_slots[0].view(np.uint8).any(), "another source's ring"
    assert not engine.buffers.tick_slots[1, len(ticks) :].view(np.uint8).any(), "slots behind the batch"


def test_each_instrument_finds_its_state(engine: Engine) -> None:
    assert publish(engine, of(6, 3, 5, 4_000_000_000), rebuild=True) == 0
    slots = engine.buffers.tick_slots[1, :6]
    assert slots["state"].tolist() == [1, 3, 2, 1, 3, 2]
    assert (slots["rebuild"] == 1).all()


@pytest.mark.parametrize("unknown", [0, 1, 4, 6, 3_999_999_999, 2**32 - 1])
def test_unknown_instrument_is_refused_and_keeps_its_place(engine: Engine, unknown: int) -> None:
    assert publish(engine, of(3, 3, unknown, 5)) == 1
    slots = engine.buffers.tick_slots[1, :3]
    assert slots["refusal"].tolist() == [0, rings.UNKNOWN_INSTRUMENT, 0]
    assert slots["session_sequence"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("ts_recv", "refused"), [(0, 0), (2**63 - 1, 0), (2**63, 1), (UNDEFINED_TIME, 1)])
def test_time_outside_of_int64_is_refused(engine: Engine, ts_recv: int, refused: int) -> None:
    ticks = of(2)
    ticks["ts_recv"][1] = ts_recv
    assert publish(engine, ticks) == refused
    assert engine.buffers.tick_slots[1, 1]["refusal"] == refused * rings.TIME_OUT_OF_RANGE


def test_undefined_event_time_is_data(engine: Engine) -> None:
    ticks = of(1)
    ticks["ts_event"] = UNDEFINED_TIME
    assert publish(engine, ticks) == 0


@pytest.mark.parametrize(("field", "value"), [("rtype", 0), ("rtype", 2), ("length", 19), ("length", 255)])
def test_malformed_record_is_named_and_nothing_of_its_batch_is_written(engine: Engine, field: str, value: int) -> None:
    ticks = of(4)
    ticks[field][2] = value
    assert publish(engine, ticks) == rings.MALFORMED - 2
    assert engine.cursor(1, memory.TICK_PUBLISHED) == 0
    assert not engine.buffers.tick_slots[1].view(np.uint8).any()


def test_full_ring_takes_nothing_and_changes_nothing(engine: Engine) -> None:
    assert publish(engine, of(SLOTS - 2)) == 0
    before = engine.buffers.tick_slots[1].copy()
    assert publish(engine, of(3)) == rings.NO_SLOT
    assert (engine.buffers.tick_slots[1] == before).all()
    assert engine.cursor(1, memory.TICK_PUBLISHED) == SLOTS - 2
    assert publish(engine, of(2)) == 0, "exactly full is not too full"
    assert publish(engine, of(1)) == rings.NO_SLOT
    set_cursor(engine, memory.TICK_CONSUMED, 1)
    assert publish(engine, of(1)) == 0


def test_ring_wraps_around_at_its_end(engine: Engine) -> None:
    for start in range(0, 10 * SLOTS, 5):
        assert publish(engine, of(5), first=start) == 0
        slots = [(start + index) % SLOTS for index in range(5)]
        assert engine.buffers.tick_slots[1]["session_sequence"][slots].tolist() == list(range(start, start + 5))
        set_cursor(engine, memory.TICK_CONSUMED, start + 5)


# --- Answers out ------------------------------------------------------------------------------------------------------


def test_waiting_answers_are_shown_up_to_the_limit_and_the_end_of_the_ring(engine: Engine) -> None:
    assert engine.answers(1, 100) == (0, 0, False)
    publish(engine, of(12))
    answer(engine, 12)
    assert engine.answers(1, 5) == (0, 5, False)
    assert engine.answers(1, 100) == (0, 12, False)
    engine.release_answers(1, memory.PATH_GRPC, False, 12)
    publish(engine, of(9))
    answer(engine, 9)
    assert engine.answers(1, 100) == (12, 4, False), "up to the end"
    engine.release_answers(1, memory.PATH_GRPC, False, 4)
    assert engine.answers(1, 100) == (0, 5, False), "and from the start"


@pytest.mark.parametrize("flags", [memory.ANSWER_REFUSED, memory.ANSWER_REBUILT])
def test_answers_that_are_no_predictions_are_told_and_not_timed(engine: Engine, flags: int) -> None:
    publish(engine, of(3))
    answer(engine, 1)
    answer(engine, 1, flags=flags | 1)
    answer(engine, 1)
    assert engine.answers(1, 1) == (0, 1, False)
    assert engine.answers(1, 2) == (0, 2, True)
    engine.release_answers(1, memory.PATH_GRPC, False, 3)
    for stage in (Stage.EGRESS, Stage.TOTAL):
        assert engine.buffers.histograms[memory.PATH_GRPC, 0, stage].sum() == 2


def test_release_times_what_is_handed_over_in_its_own_row(engine: Engine) -> None:
    publish(engine, of(4))
    answer(engine, 4)
    now_ns = engine.release_answers(1, memory.PATH_FEED, True, 3)
    totals = engine.buffers.totals[memory.PATH_FEED, 1]
    assert totals[Stage.TOTAL, 0] == 3 * (now_ns - RECEIVED_NS)
    ringed_ns = engine.buffers.tick_slots[1, :3]["ringed_ns"].astype(np.int64)
    assert totals[Stage.EGRESS, 0] == (now_ns - ringed_ns - 5 * 7).sum()
    assert engine.buffers.histograms.sum() == 6
    assert engine.cursor(1, memory.PREDICTION_CONSUMED) == 3


def test_answers_given_again_are_not_timed_again(engine: Engine) -> None:
    publish(engine, of(8))
    answer(engine, 8)
    engine.release_answers(1, memory.PATH_GRPC, False, 6)
    engine.rewind_answers(1, 2)
    assert engine.answers(1, 100) == (2, 6, False)
    engine.release_answers(1, memory.PATH_GRPC, False, 6, repeated=4)
    assert engine.buffers.histograms[memory.PATH_GRPC, 0, Stage.TOTAL].sum() == 8


def test_sources_with_answers_are_listed(engine: Engine) -> None:
    found = np.full(SIZES.sources, -1)
    assert engine.sources_with_answers(found) == 0
    for source in (2, 0):
        publish(engine, of(1), source=source)
        answer(engine, 1, source=source)
    assert engine.sources_with_answers(found) == 2
    assert found[:2].tolist() == [0, 2]
    engine.release_answers(0, memory.PATH_GRPC, False, 1)
    assert engine.sources_with_answers(found) == 1
    assert found[0] == 2


# --- Wakes and commands -----------------------------------------------------------------------------------------------


def test_producer_signals_a_sleeping_engine_once(engine: Engine) -> None:
    publish(engine, of(1))
    with pytest.raises(BlockingIOError):
        os.eventfd_read(engine.engine_event)
    engine.buffers.words[memory.SLEEPING] = 1
    publish(engine, of(1))
    publish(engine, of(1))
    assert os.eventfd_read(engine.engine_event) == 1
    assert engine.buffers.words[memory.SLEEPING] == 0


def test_command_wakes_the_engine_and_keeps_its_arguments(engine: Engine) -> None:
    engine.buffers.words[memory.SLEEPING] = 1
    assert engine.command(Command.OPEN_SOURCE, 2, 0, memory.PATH_GRPC, 1) == 1
    assert os.eventfd_read(engine.engine_event) == 1
    assert engine.command(Command.RESET_STATE, 9) == 2
    assert engine.command_state() == (2, 0)
    assert engine.buffers.control[0].tolist() == [Command.OPEN_SOURCE, 2, 0, memory.PATH_GRPC, 1, 0, 0, 0]
    assert engine.buffers.control[1].tolist() == [Command.RESET_STATE, 9, 0, 0, 0, 0, 0, 0]


def test_commands_that_find_the_control_ring_full_wait_in_order(engine: Engine) -> None:
    extra = 3
    for state in range(memory.CONTROL_SLOTS + extra):
        assert engine.command(Command.RESET_STATE, state) == state + 1
    assert engine.command_state() == (memory.CONTROL_SLOTS + extra, 0)
    engine.buffers.words[memory.CONTROL_CONSUMED] = 2  # The engine has applied two.
    engine.flush_commands()
    assert engine.buffers.words[memory.CONTROL_PUBLISHED] == memory.CONTROL_SLOTS + 2
    assert engine.buffers.control[:3, 1].tolist() == [memory.CONTROL_SLOTS, memory.CONTROL_SLOTS + 1, 2]
    engine.buffers.words[memory.CONTROL_CONSUMED] = 3
    engine.flush_commands()
    assert engine.buffers.control[2, 1] == memory.CONTROL_SLOTS + 2


# --- A producer that helps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [(memory.OWNER, 1), (memory.SLEEPING, 0), (memory.CONTROL_PUBLISHED, 1)],
    ids=["owned", "awake", "commanded"],
)
def test_helper_touches_no_state_that_is_not_its_to_touch(engine: Engine, word: int, value: int) -> None:
    buffers = engine.buffers
    buffers.source_table[1, memory.SOURCE_OPEN] = 1
    buffers.words[memory.SLEEPING] = 1
    buffers.words[word] = value
    assert engine.publish_ticks(1, frozen(of(2)), 0, False, IDS, STATES, RECEIVED_NS, assist=True) == 0
    assert engine.assisted == 0
    assert engine.cursor(1, memory.TICK_CONSUMED) == 0
    assert buffers.words[memory.OWNER] == (value if word == memory.OWNER else 0)
    if word == memory.SLEEPING:
        with pytest.raises(BlockingIOError):  # It will see them by itself.
            os.eventfd_read(engine.engine_event)
    else:
        assert os.eventfd_read(engine.engine_event) == 1, "whose it is has been woken"


@pytest.mark.parametrize(
    ("column", "value"), [(memory.SOURCE_OPEN, 0), (memory.SOURCE_HELD, 1)], ids=["closed", "held"]
)
def test_helper_leaves_sources_alone_that_wait(engine: Engine, column: int, value: int) -> None:
    buffers = engine.buffers
    buffers.source_table[1, memory.SOURCE_OPEN] = 1
    buffers.source_table[1, column] = value
    buffers.words[memory.SLEEPING] = 1
    assert engine.publish_ticks(1, frozen(of(2)), 0, False, IDS, STATES, RECEIVED_NS, assist=True) == 0
    assert engine.assisted == 0
    assert engine.cursor(1, memory.TICK_CONSUMED) == 0
    assert buffers.words[memory.OWNER] == 0, "given back"
