"""Whatever a strategy writes into its segment while the engine runs: the engine lives, and others have their answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from penstock.v1 import shared_ring as layout
from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from support.engines import close_source, open_source, predict
from support.raw_stream import hash_of
from support.segment_client import SegmentClient
from support.segment_rig import SLOTS, attached, fault, segment_engine
from support.tick_stream import tick_stream

TICKS = tick_stream(9, 60)
BYTES = layout.segment_bytes(SLOTS)
WORDS = st.sampled_from(
    [
        layout.TICK_PUBLISHED_AT,
        layout.PREDICTION_CONSUMED_AT,
        layout.CLIENT_WAITING_AT,
        layout.TICK_CONSUMED_AT,
        layout.PREDICTION_PUBLISHED_AT,
        layout.ENGINE_SLEEPING_AT,
        layout.DAEMON_BEAT_NS_AT,
        layout.CLOSED_AT,
        layout.SLOTS_AT - 4,
        layout.SEGMENT_BYTES_AT,
        layout.TICK_RING_AT,
        layout.PREDICTION_RING_AT,
        layout.FIRST_SEQUENCE_AT,
    ]
)
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-2, SLOTS + 2),
    st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, SLOTS)),
        st.tuples(st.just("read"), st.integers(0, SLOTS)),
        st.tuples(st.just("word"), WORDS, VALUES),
        st.tuples(st.just("bytes"), st.integers(0, BYTES - 256), st.binary(min_size=1, max_size=256)),
        st.tuples(st.just("bell")),
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with segment_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def expected(engine: Engine) -> str:
    source = open_source(engine, 3, states=(3,))
    predictions = predict(engine, source, TICKS)
    close_source(engine, source)
    return hash_of(predictions)


def do(client: SegmentClient, step: tuple[object, ...]) -> None:
    """Do what no strategy should; nothing of it may wait for the engine."""
    kind, *arguments = step
    if kind == "publish":
        count = int(str(arguments[0]))
        client.write(TICKS[:count])
        client.published += len(TICKS[:count])
        client.set_word(layout.TICK_PUBLISHED_AT, client.published)
    elif kind == "read":
        client.consumed += int(str(arguments[0]))
        client.set_word(layout.PREDICTION_CONSUMED_AT, client.consumed)
    elif kind == "word":
        at, value = arguments
        assert isinstance(at, int)
        assert isinstance(value, int)
        client.set_word(at, value)
    elif kind == "bytes":
        at, data = arguments
        assert isinstance(at, int)
        assert isinstance(data, bytes)
        client.map[at : at + len(data)] = data
    os.eventfd_write(client.bell, 1)


def still_turns(engine: Engine) -> None:
    passes = int(engine.buffers.words[memory.PASSES])
    engine.wait_applied(engine.command(Command.HOLD_SOURCE, 4))
    deadline_s = time.monotonic() + 60
    while int(engine.buffers.words[memory.PASSES]) < passes + 2:
        assert time.monotonic() < deadline_s, "the engine stands still"
        os.eventfd_write(engine.engine_event, 1)
        time.sleep(0.0002)


@settings(max_examples=300)
@given(STEPS)
def test_no_word_of_a_segment_harms_the_engine_or_another_strategy(
    engine: Engine, expected: str, steps: list[tuple[object, ...]]
) -> None:
    with attached(engine, 1) as hostile, attached(engine, 2, states=(2,)) as other:
        other.publish(TICKS[:30])
        for step in steps:
            do(hostile, step)
        still_turns(engine)
        other.publish(TICKS[30:])
        assert hash_of(other.predictions(len(TICKS))) == expected
        event(fault(engine, 1).name)
        taken, given = engine.buffers.segments[1, [memory.SEGMENT_TAKEN, memory.SEGMENT_GIVEN]]
        assert 0 <= given <= taken
        start = memory.cursor(1, 0)
        cursors = engine.buffers.cursors[start : start + memory.CURSOR_WORDS : memory.WORDS_PER_LINE]
        assert 0 <= cursors[memory.PREDICTION_CONSUMED // memory.WORDS_PER_LINE] <= cursors[0] == taken
        if fault(engine, 1) is SegmentEnd.SERVED:
            assert engine.buffers.segments[1, memory.SEGMENT_READ] <= given
    assert engine.alive
