"""An engine with sources of every kind on it, and what is to be expected of it after any order of steps.

sources 1 and 2    as gRPC's and as a feed's, whose producer helps while the engine sleeps
sources 3 and 4    strategies with a segment, who read when they like, come back after a loss, and may write what they like

Rings are short, so that they fill. Whoever waits, waits to be rung: none of it goes on after a time-out.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import event
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_DTYPE, TICK_DTYPE, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command, OldTick
from penstock_kernels.predictor import pack
from support.device_engines import DEVICE_SIZES, device_engine, kept_asleep
from support.engines import driven, frozen, running_engine
from support.models import random_model
from support.segment_client import SegmentClient
from support.segment_rig import SEGMENT_SIZES, attached, fault
from support.tick_stream import tick_stream

# So few that a state which is rebuilt differs from one that went on; the first one's take two parts.
MODELS = (random_model(1, units=24, rebuild_ticks=90), random_model(2, units=32, rebuild_ticks=20))
PACKED = tuple(pack(model) for model in MODELS)
STREAM = tick_stream(90, 4000)
SIZES = replace(SEGMENT_SIZES, slots=64)
NOBODY = 99
AGE_NS = {"plain": 0, "unknown": 0, "old": 50_000_000, "future": -50_000_000}
PATIENCE_S = 60.0
TIMED = np.uint32(PredictionFlag.LATE | PredictionFlag.STALE | PredictionFlag.SKIPPED)
SKIPPED, REFUSED = np.uint32(PredictionFlag.SKIPPED), np.uint32(memory.ANSWER_REFUSED)
PATHS = {1: memory.PATH_GRPC, 2: memory.PATH_FEED, 3: memory.PATH_SHARED_MEMORY, 4: memory.PATH_SHARED_MEMORY}
STATES = {1: (1, 5), 2: (2,), 3: (3, 6), 4: (4,)}

_NUMBERS = st.sampled_from(sorted(PATHS))
_SEGMENTS = st.sampled_from([3, 4])
_WORDS = st.sampled_from([layout.TICK_PUBLISHED_AT, layout.PREDICTION_CONSUMED_AT, layout.TICK_CONSUMED_AT])
_VALUES = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 200) | st.sampled_from([2**62, 2**63 - 1, -(2**63)])
_STEP = st.one_of(
    st.tuples(st.just("send"), _NUMBERS, st.integers(1, 64), st.sampled_from(sorted(AGE_NS))),
    st.tuples(st.just("send"), _NUMBERS, st.integers(1, 3), st.just("plain")),
    st.tuples(st.just("read"), _NUMBERS, st.integers(1, 64)),
    st.tuples(st.just("finish"), _NUMBERS),
    st.tuples(st.just("fill"), _NUMBERS),
    st.tuples(st.just("hold"), _NUMBERS),
    st.tuples(st.just("bind"), _NUMBERS, st.booleans()),
    st.tuples(st.just("resume"), _NUMBERS, st.integers(0, 64)),
    st.tuples(st.just("close"), _NUMBERS),
    st.tuples(st.just("sleep"), _NUMBERS),
    st.tuples(st.just("together"), _NUMBERS, st.integers(1, 64)),
    st.tuples(st.just("spoil"), _SEGMENTS, _WORDS, _VALUES),
    st.tuples(st.just("cycles"), _NUMBERS, st.sampled_from([0, 1, 2**32])),
)
STEPS = {"steps": st.lists(_STEP, min_size=6, max_size=40), "policy": st.sampled_from(list(OldTick))}


@contextlib.contextmanager
def any_order_engine(*, device: bool = False) -> Iterator[Engine]:
    """An engine on the CPU, or on a *device*, that worlds may use one after another."""
    settings = EngineSettings(assist_max=4, batch_max=16)
    if device:
        sizes = replace(DEVICE_SIZES, slots=SIZES.slots, segment_instruments=SIZES.segment_instruments)
        with device_engine(*MODELS, settings=settings, sizes=sizes) as (engine, _):
            yield engine
        return
    with running_engine(*MODELS, settings=settings, sizes=SIZES) as engine:
        yield engine


@dataclass
class Stream:
    """One source since it was opened."""

    number: int
    begun: list[
        tuple[int, int]
    ]  # From which place on which model predicts, its states rebuilt where it is not the first.
    sent: list[NDArray[np.void]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    answers: list[NDArray[np.void]] = field(default_factory=list)
    read: int = 0  # Answers that were read; less again after a loss.
    most: int = 0  # Answers that were handed over at most.
    held: bool = False
    spoiled: bool = False
    client: SegmentClient | None = None
    attachment: contextlib.ExitStack | None = None

    @property
    def ids(self) -> NDArray[np.int64]:
        return np.arange(1, 1 + len(STATES[self.number]))


class World:
    """The engine, and what is to be expected of it."""

    def __init__(self, engine: Engine, policy: OldTick) -> None:
        self.engine = engine
        self.streamed = 0
        self.spoiled = False
        self.ended: list[Stream] = []
        engine.wait_applied(engine.command_state()[0])
        engine.buffers.settings[memory.OLD_TICK_POLICY] = policy
        self.words = engine.buffers.words.copy()
        self.rows = engine.buffers.histograms[:, 0].sum(axis=2)
        self.streams = {number: self.open(number) for number in PATHS}

    # --- Sources ------------------------------------------------------------------------------------------------------

    def open(self, number: int) -> Stream:
        self.engine.reset_source(number)
        for state in STATES[number]:
            self.engine.command(Command.RESET_STATE, state)
        self.engine.command(Command.OPEN_SOURCE, number, 0, PATHS[number], 0)
        stream = Stream(number, [(0, 0)])
        self.engine.wait_applied(self.engine.command_state()[0])
        self.attach(stream)
        return stream

    def attach(self, stream: Stream) -> None:
        if PATHS[stream.number] != memory.PATH_SHARED_MEMORY:
            return
        stream.attachment = contextlib.ExitStack()
        taken = self.engine.cursor(stream.number, memory.TICK_PUBLISHED)
        stream.client = stream.attachment.enter_context(
            attached(
                self.engine,
                stream.number,
                ids=stream.ids.tolist(),
                states=STATES[stream.number],
                first_sequence=taken,
                opened=True,
                repeated=max(stream.most - stream.read, 0),
            )
        )

    def detach(self, stream: Stream) -> None:
        """Lose the connection: what was not taken is as if it had never been sent."""
        if stream.attachment is None:
            return
        stream.attachment.close()
        stream.attachment = stream.client = None
        self.keep(stream, self.engine.cursor(stream.number, memory.TICK_PUBLISHED))
        stream.most = max(stream.most, self.engine.cursor(stream.number, memory.PREDICTION_CONSUMED))

    def keep(self, stream: Stream, count: int) -> None:
        """Keep the first *count* ticks."""
        stream.sent = [np.concatenate([np.zeros(0, TICK_DTYPE), *stream.sent])[:count]]
        stream.kinds = stream.kinds[:count]

    def close(self, stream: Stream) -> None:
        """Close a source, whatever waits, and hold what it was answered against what it sent."""
        engine, number = self.engine, stream.number
        self.detach(stream)
        engine.wait_applied(engine.command(Command.CLOSE_SOURCE, number))
        made = engine.cursor(number, memory.PREDICTION_PUBLISHED)
        assert engine.cursor(number, memory.TICK_CONSUMED) == made
        self.ended.append(stream)
        if stream.spoiled:
            self.keep(stream, made)
            return
        assert made - stream.read <= SIZES.slots, "every answer that was not read can be given again"
        self.collect(stream, stream.read, made, self.engine.buffers.prediction_slots[number])
        self.keep(stream, made)
        check(stream, np.concatenate([np.zeros(0, PREDICTION_DTYPE), *stream.answers]))

    # --- Steps --------------------------------------------------------------------------------------------------------

    def step(self, what: str, number: int, *how: object) -> None:
        stream = self.streams[number]
        if what == "close" or (stream.spoiled and what != "spoil"):
            self.close(stream)
            self.streams[number] = self.open(number)
        elif what == "together":
            with kept_asleep(self.engine):
                for one in self.streams.values():
                    self.send(one, int(str(how[0])), "plain")
        elif what == "sleep":
            self.until(lambda: self.engine.buffers.words[memory.SLEEPING] == 1)
        elif what == "cycles":
            self.engine.use_cycles(int(str(how[0])))
        else:
            getattr(self, what)(stream, *how)

    def send(self, stream: Stream, count: int, kind: str) -> None:
        engine, client = self.engine, stream.client
        if client is not None:
            count = min(count, client.slots - (client.published - client.word(layout.TICK_CONSUMED_AT)))
        else:
            count = min(count, SIZES.slots - (len(stream.kinds) - stream.read))
        if count <= 0:
            event("full")
            return
        ticks = STREAM[np.arange(self.streamed, self.streamed + count) % len(STREAM)].copy()
        ticks["instrument_id"] = stream.ids[(np.arange(count) // 3 + count) % len(stream.ids)]
        kinds = ["plain"] * count
        if kind == "unknown":
            ticks["instrument_id"][count // 2] = NOBODY
            kinds[count // 2] = kind
        self.streamed += count
        first, first_ns = len(stream.kinds), time.monotonic_ns() - AGE_NS[kind]
        stream.sent.append(ticks)
        stream.kinds += kinds
        if client is not None:
            client.publish(ticks, written_ns=first_ns)
            return
        states = np.array(STATES[stream.number], np.int64)
        refused = engine.publish_ticks(
            stream.number, frozen(ticks), first, False, stream.ids, states, first_ns, assist=True
        )
        assert refused == kinds.count("unknown")

    def fill(self, stream: Stream) -> None:
        """Send until nobody takes any more, and the engine sleeps over it."""
        sent = -1
        while sent < len(stream.kinds):
            sent = len(stream.kinds)
            self.send(stream, SIZES.slots, "plain")
            self.until(lambda: self.engine.buffers.words[memory.SLEEPING] == 1)

    def read(self, stream: Stream, count: int) -> None:
        """Read what is there, at most *count*."""
        engine, number, client = self.engine, stream.number, stream.client
        if client is not None:
            ready = min(client.ready(), count)
            slots, first = client.prediction_slots, client.consumed
            found = slots[(first + np.arange(ready)) & (len(slots) - 1)].copy()
            client.consumed += ready
            self.hold_answers(stream, found)
            client.set_word(layout.PREDICTION_CONSUMED_AT, client.consumed)
            return
        place, ready, _ = engine.answers(number, count)
        self.hold_answers(stream, engine.buffers.prediction_slots[number, place : place + ready].copy())
        repeated = min(max(stream.most - stream.read + ready, 0), ready)
        engine.release_answers(number, PATHS[number], False, ready, repeated=repeated)
        stream.most = max(stream.most, stream.read)

    def hold_answers(self, stream: Stream, found: NDArray[np.void]) -> None:
        """Take in the next answers; one that comes again is the same one."""
        known = sum(map(len, stream.answers)) - stream.read
        if known > 0:
            again = np.concatenate(stream.answers)[stream.read : stream.read + len(found)]
            assert found[: len(again)].tobytes() == again.tobytes(), "an answer given again is the same answer"
            event("given again")
        stream.answers.append(found[max(known, 0) :])
        stream.read += len(found)

    def finish(self, stream: Stream) -> None:
        """Wait, rung and not by time-outs, until all is answered."""
        while not stream.held and stream.read < len(stream.kinds):
            if stream.client is not None and stream.client.ready() == 0:
                assert stream.client.sleep(PATIENCE_S), f"{stream.number}: nobody rings, and no answer is there"
            elif stream.client is None:
                self.engine.arm_loop()
                if self.engine.answers(stream.number, 1)[1] == 0:
                    poll = select.poll()
                    poll.register(self.engine.loop_event, select.POLLIN)
                    assert poll.poll(PATIENCE_S * 1000), (
                        f"{stream.number}: the loop is not woken, and no answer is there"
                    )
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self.engine.loop_event)
            self.read(stream, SIZES.slots)

    def hold(self, stream: Stream) -> None:
        self.engine.wait_applied(self.engine.command(Command.HOLD_SOURCE, stream.number))
        stream.held = True

    def bind(self, stream: Stream, swap: bool) -> None:
        """End the hold; through another model if *swap*."""
        if not stream.held:
            self.hold(stream)
        model = stream.begun[-1][1]
        if swap:
            model = 1 - model
            for state in STATES[stream.number]:
                self.engine.command(Command.REBUILD_STATE, state, model)
            stream.begun.append((self.engine.cursor(stream.number, memory.PREDICTION_PUBLISHED), model))
            event("swapped")
        self.engine.command(Command.BIND_MODEL, stream.number, model)
        stream.held = False

    def resume(self, stream: Stream, back: int) -> None:
        """Lose the connection, and go on where the strategy says that it stands."""
        self.detach(stream)
        published = self.engine.cursor(stream.number, memory.TICK_PUBLISHED)
        assert stream.read >= published - SIZES.slots, "every answer that was not read can be given again"
        stream.read = max(stream.read - back, published - SIZES.slots, 0)
        self.engine.rewind_answers(stream.number, stream.read)
        self.attach(stream)

    def spoil(self, stream: Stream, at: int, value: int) -> None:
        """Write a word that the strategy has no business to write, or not so."""
        assert stream.client is not None
        stream.spoiled = self.spoiled = True
        stream.client.set_word(at, value)
        os.eventfd_write(stream.client.bell, 1)
        event(f"spoiled, {fault(self.engine, stream.number).name}")

    def until(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline_s, "it never came true"
            time.sleep(0.0002)

    # --- The end ------------------------------------------------------------------------------------------------------

    def collect(self, stream: Stream, first: int, end: int, slots: NDArray[np.void]) -> None:
        """Take in the answers of the places *first* to *end* as the daemon's ring holds them."""
        self.hold_answers(stream, slots[np.arange(first, end) & (len(slots) - 1)].copy())

    def end(self) -> None:
        """Close everything, and count."""
        for stream in self.streams.values():
            if not stream.spoiled:
                if stream.held:
                    self.bind(stream, False)
                self.finish(stream)
                assert stream.read == len(stream.kinds)
            self.close(stream)
        self.engine.use_cycles(0)
        self.engine.buffers.settings[memory.OLD_TICK_POLICY] = OldTick.PREDICT
        words = self.engine.buffers.words - self.words
        assert words[memory.SEGMENTS] == 0
        assert words[memory.TICKS] == sum(len(stream.kinds) for stream in self.ended)
        if self.spoiled:
            return
        answers = [one for stream in self.ended for one in stream.answers]
        flags = np.concatenate([np.zeros(0, np.uint32), *(one["flags"] for one in answers)])
        flags = flags[(flags & REFUSED) == 0]
        assert words[memory.PREDICTIONS] == np.count_nonzero((flags & SKIPPED) == 0)
        assert words[memory.SKIPPED] == np.count_nonzero(flags & SKIPPED)
        assert words[memory.LATE] == np.count_nonzero(flags & np.uint32(PredictionFlag.LATE))
        assert words[memory.STALE] == np.count_nonzero(flags & np.uint32(PredictionFlag.STALE))
        rows = self.engine.buffers.histograms[:, 0].sum(axis=2) - self.rows
        for path in range(memory.PATHS):
            own = [stream for stream in self.ended if PATHS[stream.number] == path]
            made = sum(len(stream.kinds) - stream.kinds.count("unknown") for stream in own)
            given = sum(stream.most - stream.kinds[: stream.most].count("unknown") for stream in own)
            assert rows[path, [Stage.RECEIVE, Stage.RING]].tolist() == [made, made]
            assert rows[path, [Stage.EGRESS, Stage.TOTAL]].tolist() == [given, given]


def check(stream: Stream, answers: NDArray[np.void]) -> None:
    """Hold all answers of a source, in order, against plain runs of the kernels."""
    sent = np.concatenate([np.zeros(0, TICK_DTYPE), *stream.sent])
    assert len(sent) == len(answers)
    assert answers["sequence"].tolist() == list(range(len(answers)))
    known = np.array(stream.kinds, "U8") != "unknown"
    assert (((answers["flags"] & REFUSED) == 0) == known).all()
    places = np.arange(len(answers))
    ends = [begin for begin, _ in stream.begun[1:]] + [len(answers)]
    for instrument in stream.ids:
        own = known & (sent["instrument_id"] == instrument)
        for (begin, model), end in zip(stream.begun, ends, strict=True):
            before = sent[own & (places < begin)][-MODELS[model].rebuild_ticks :]
            part = own & (places >= begin) & (places < end)
            seen = np.count_nonzero(own & (places < begin)) - len(before)
            forecasts, flags = driven(PACKED[model], np.concatenate([before, sent[part]]), seen=seen)
            skipped = (answers[part]["flags"] & SKIPPED) != 0
            found, wanted = answers[part]["forecasts"], forecasts[len(before) :]
            assert found[~skipped].tobytes() == wanted[~skipped].tobytes()
            assert not any(found[skipped].tobytes())
            assert (answers[part]["flags"] & ~TIMED).tolist() == flags[len(before) :].tolist()
            assert (answers[part]["model_serial"] == 100 + model).all()


def check_any_order(engine: Engine, steps: list[tuple[object, ...]], policy: OldTick) -> None:
    """Do *steps* on an engine, then check everything."""
    world = World(engine, policy)
    for what, number, *how in steps:
        world.step(str(what), int(str(number)), *how)
    world.end()
