"""Two rings and the engine's drain against lists, in every order of publishing, draining, taking and rewinding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from penstock.v1.records import PredictionFlag
from penstock_daemon import engine_memory as memory
from penstock_daemon import engine_ticks, engine_turns, rings
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.predictor import pack
from support.engines import driven, frozen
from support.models import random_model
from support.tick_stream import tick_stream

SLOTS = 16
BATCH_MAX = 5
MODEL = random_model(4, units=16, fan_in=2, rebuild_ticks=32)
STREAMS = {source: tick_stream(source, 1200) for source in (1, 2)}
NOBODY = 99

SOURCES = st.sampled_from([1, 2])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), SOURCES, st.integers(1, SLOTS + 2), st.booleans()),
        st.tuples(st.just("drain"), SOURCES),
        st.tuples(st.just("take"), SOURCES, st.integers(0, SLOTS)),
        st.tuples(st.just("rewind"), SOURCES, st.integers(0, SLOTS)),
        st.tuples(st.just("assist"), SOURCES, st.integers(1, 4)),
    ),
    min_size=5,
    max_size=60,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine whose thread never starts: its drain is called by the test, its sleep is claimed."""
    sizes = EngineSizes(sources=3, slots=SLOTS, states=3, model_slots=1, units_max=16, journal_ticks=32)
    engine = Engine(sizes, EngineSettings(batch_max=BATCH_MAX, assist_max=4))
    engine.load_model(0, pack(MODEL), serial=9)
    engine.compile()
    yield engine
    engine.close()


class Side:
    """What one source's rings must hold."""

    def __init__(self, engine: Engine, source: int) -> None:
        self.engine, self.source = engine, source
        self.sent: list[tuple[int, bool]] = []  # Which tick of the stream, and whether it was made unknown.
        self.drained = 0
        self.taken = 0
        self.stream = 0
        self.answers: dict[int, np.void] = {}
        engine.reset_source(source)
        engine_turns.forget(engine.buffers, source)
        engine.buffers.seen[source] = 0
        engine.buffers.source_table[source, memory.SOURCE_OPEN] = 1

    def publish(self, count: int, *, odd: bool, assist: bool) -> None:
        ticks = STREAMS[self.source][self.stream : self.stream + count].copy()
        if odd:
            ticks["instrument_id"][count // 2] = NOBODY
        self.engine.buffers.words[memory.SLEEPING] = int(assist)
        ids, states = np.array([1]), np.array([self.source])
        result = self.engine.publish_ticks(
            self.source, frozen(ticks), len(self.sent), False, ids, states, 1, assist=assist
        )
        if len(self.sent) + count - self.drained > SLOTS:
            assert result == rings.NO_SLOT
            event("full")
            return
        assert result == int(odd)
        self.sent += [(self.stream + index, odd and index == count // 2) for index in range(count)]
        self.stream += count
        if assist:
            assert self.engine.assisted == self.take_in()

    def take_in(self) -> int:
        """Count what one drain takes: no more than a batch, nor than there is room for answers."""
        room = SLOTS - (self.drained - self.taken)
        count = min(len(self.sent) - self.drained, room, BATCH_MAX)
        self.drained += count
        return count

    def drain(self) -> None:
        assert engine_ticks.drain(self.engine.buffers, self.source, BATCH_MAX, 0) == self.take_in()

    def take(self, limit: int) -> None:
        place, count, special = self.engine.answers(self.source, limit)
        assert place == self.taken % SLOTS
        assert count == min(self.drained - self.taken, limit, SLOTS - place)
        records = self.engine.buffers.prediction_slots[self.source, place : place + count].copy()
        for record, position in zip(records, range(self.taken, self.taken + count), strict=True):
            assert record["sequence"] == position
            before = self.answers.setdefault(position, record)
            assert record.tobytes() == before.tobytes(), "an answer given again is the same answer"
        assert special == any(self.sent[position][1] for position in range(self.taken, self.taken + count))
        self.engine.release_answers(self.source, memory.PATH_GRPC, False, count)
        self.taken += count

    def rewind(self, back: int) -> None:
        position = max(self.taken - back, len(self.sent) - SLOTS, 0)
        if position < self.taken:
            event("given again")
            self.engine.rewind_answers(self.source, position)
            self.taken = position

    def check(self) -> None:
        cursor = self.engine.cursor
        assert cursor(self.source, memory.TICK_PUBLISHED) == len(self.sent)
        assert cursor(self.source, memory.TICK_CONSUMED) == self.drained
        assert cursor(self.source, memory.PREDICTION_PUBLISHED) == self.drained
        assert cursor(self.source, memory.PREDICTION_CONSUMED) == self.taken
        assert self.taken <= self.drained <= len(self.sent) <= self.taken + 2 * SLOTS

    def check_answers(self) -> None:
        known = [stream for stream, unknown in self.sent[: self.drained] if not unknown]
        forecasts, flags = driven(pack(MODEL), STREAMS[self.source][known])
        expected = iter(zip(forecasts, flags, strict=True))
        for position in range(self.drained):
            unknown = self.sent[position][1]
            forecast, flag = (None, None) if unknown else next(expected)
            record = self.answers.get(position)
            if record is None:
                continue
            if unknown:
                assert record["flags"] == memory.ANSWER_REFUSED
                assert record["horizons"] == rings.UNKNOWN_INSTRUMENT
            else:
                late = np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)
                assert record["flags"] & ~late == flag
                assert record["forecasts"].tobytes() == forecast.tobytes()


@given(steps=STEPS)
@settings(deadline=None, max_examples=300)
def test_rings_are_lists_in_every_order_of_steps(engine: Engine, steps: list[tuple]) -> None:
    sides = {source: Side(engine, source) for source in (1, 2)}
    for kind, source, *arguments in steps:
        side = sides[source]
        if kind == "publish":
            side.publish(arguments[0], odd=arguments[1], assist=False)
        elif kind == "assist":
            side.publish(arguments[0], odd=False, assist=True)
        else:
            getattr(side, kind)(*arguments)
        for one in sides.values():
            one.check()
    for side in sides.values():
        side.check_answers()
