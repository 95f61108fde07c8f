"""An engine over a device in any order of opens, closes, bursts, swaps, resets and idle times, with a fault anywhere.

Every tick that was taken is answered once, in order. An answer has the CPU's bits: of all ticks since the state was
reset or, from a swap or the device's loss on, of the last rebuild_ticks before it. DEGRADED is said from the loss on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_DTYPE, TICK_DTYPE, PredictionFlag
from penstock_daemon import engine_memory as memory
from penstock_daemon.device import memory as device_memory
from penstock_daemon.device.memory import DeviceFault, Mode, Transfer
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from penstock_kernels import online_layout
from penstock_kernels.cuda import layout
from penstock_kernels.online_drive import new_online_place, run_online
from penstock_kernels.predictor import pack
from support.device_engines import DEVICE_SIZES, device_engine, device_settings, kept_asleep
from support.engines import Source, close_source, driven, open_source, publish, take
from support.host_device import HostDevice
from support.models import random_model
from support.tick_stream import tick_stream

# So few that a state which is rebuilt differs from one that went on; the first one's take two parts.
MODELS = (
    random_model(1, units=24, rebuild_ticks=90),
    random_model(2, units=32, rebuild_ticks=20, topology="sparse", memory_gains=(0.1,), memory_lags=1, products=16),
)
PACKED = tuple(pack(model) for model in MODELS)
STREAM = tick_stream(90, 4000)
NOBODY = 99
HURRIED_NS = 20_000_000
UNTIMED = ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)
DEGRADED = np.uint32(PredictionFlag.DEGRADED)
REFUSED, REBUILT = np.uint32(memory.ANSWER_REFUSED), np.uint32(memory.ANSWER_REBUILT)

NUMBERS = st.sampled_from([1, 2, 3])
BURSTS = st.tuples(
    st.just("burst"), NUMBERS, st.integers(1, 70), st.sampled_from(["plain", "plain", "rebuild", "unknown"])
)
STEPS = st.lists(
    st.one_of(
        BURSTS,
        st.tuples(st.just("together"), st.integers(1, 40)),
        st.tuples(st.just("open"), NUMBERS, st.integers(1, 3), st.sampled_from([0, 1]), st.booleans()),
        st.tuples(st.just("close"), NUMBERS),
        st.tuples(st.just("swap"), NUMBERS),
        st.tuples(st.just("take"), NUMBERS),
        st.tuples(st.just("idle")),
    ),
    min_size=8,
    max_size=24,
)
FAULTS = st.tuples(
    st.sampled_from(["die", "refuse", "hang", "lose", "give up", "leave", "none"]),
    st.integers(0, 23),
    st.integers(0, 3),
)
WAYS = st.sampled_from(
    [
        (Mode.GRAPH, Transfer.STAGED),
        (Mode.GRAPH, Transfer.IN_PLACE),
        (Mode.GRAPH, Transfer.COPIED),
        (Mode.RESIDENT, Transfer.STAGED),
        (Mode.RESIDENT, Transfer.IN_PLACE),
    ]
)


@dataclass
class Session:
    """A source, what it was sent, and what it was answered."""

    source: Source
    model: int
    online: int  # Its readout; NO_ONLINE for none.
    first: int  # Of its ticks in the stream.
    swaps: list[int] = field(default_factory=list)  # Models asked for, whose first answer was not seen yet.
    sent: list[NDArray[np.void]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # Of each tick.
    answers: list[NDArray[np.void]] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return len(self.kinds) - sum(map(len, self.answers))


class World:
    """The engine, and what is to be expected of it."""

    def __init__(self, engine: Engine, host: HostDevice) -> None:
        assert engine.device is not None
        self.engine, self.host, self.device = engine, host, engine.device
        self.open: dict[int, Session] = {}
        self.injected = False
        self.streamed = 0
        self.states = list(range(1, DEVICE_SIZES.states))
        self.counts = {"ticks": 0, "predictions": 0}
        self.degraded = False
        self.before = engine.buffers.words.copy()

    def step(self, what: str, *how: int | str | bool) -> None:
        if what == "together":
            with kept_asleep(self.engine):
                for session in self.open.values():
                    self.burst(session, int(how[0]), "plain", patient=False)
        elif what == "idle":
            time.sleep(0.002)
        elif what == "open":
            if int(how[0]) not in self.open:
                self.begin(int(how[0]), int(how[1]), int(how[2]), online=bool(how[3]))
        else:
            number = int(how[0])
            if number not in self.open:
                self.begin(number, 2, number % 2, online=False)
            session = self.open[number]
            if what == "burst":
                self.burst(session, int(how[1]), str(how[2]))
            elif what == "close":
                self.end(session)
            elif what == "swap":
                self.swap(session)
            else:
                self.take(session)

    def begin(self, number: int, states: int, model: int, *, online: bool) -> None:
        taken = [self.states.pop(0) for _ in range(states)]
        readout = memory.NO_ONLINE
        if online and all(session.online == memory.NO_ONLINE for session in self.open.values()):
            taken, self.states = taken[:1], taken[1:] + self.states
            readout, held = 0, self.engine.buffers.online
            assert held is not None
            held.words[0] = 0
            online_layout.lay_out(MODELS[model], DEVICE_SIZES.online, held.words[0], held.values[0])
            self.engine.buffers.online_of[taken[0]] = readout
        source = open_source(self.engine, number, states=taken, model_slot=model)
        self.open[number] = Session(source, model, readout, self.streamed)

    def burst(self, session: Session, count: int, kind: str, *, patient: bool = True) -> None:
        if session.waiting + count > self.engine.sizes.slots // 2:
            if not patient:
                return
            self.take(session)
        ticks = STREAM[np.arange(self.streamed, self.streamed + count) % len(STREAM)].copy()
        ticks["instrument_id"] = session.source.ids[(np.arange(count) // 3 + count) % len(session.source.ids)]
        kinds = ["plain"] * count
        if kind == "unknown":
            ticks["instrument_id"][:: max(count // 3, 1)] = NOBODY
            kinds = ["unknown" if one == NOBODY else "plain" for one in ticks["instrument_id"]]
        if kind == "rebuild" and session.online == memory.NO_ONLINE:
            kinds = ["rebuild"] * count
        self.streamed += count
        rebuild = kinds[0] == "rebuild"
        refused = publish(self.engine, session.source, ticks, first=len(session.kinds), rebuild=rebuild)
        assert refused == kinds.count("unknown")
        session.sent.append(ticks)
        session.kinds += kinds

    def take(self, session: Session, *, all_of_it: bool = True) -> None:
        ready = session.waiting if all_of_it else self.engine.cursor(session.source.number, memory.PREDICTION_PUBLISHED)
        if not all_of_it:
            ready -= sum(map(len, session.answers))
        answers = take(self.engine, session.source, ready)
        session.answers.append(answers)
        if not self.injected:
            assert not (answers["flags"] & DEGRADED).any()

    def swap(self, session: Session) -> None:
        """Ask for the other model, while ticks wait; where it begins is seen by the answers' serials."""
        if session.online != memory.NO_ONLINE:
            return
        if session.swaps:
            self.settle(session)
        model = 1 - session.model if not session.swaps else 1 - session.swaps[-1]
        self.engine.command(Command.HOLD_SOURCE, session.source.number)
        for state in session.source.states:
            self.engine.command(Command.REBUILD_STATE, int(state), model)
        self.engine.command(Command.BIND_MODEL, session.source.number, model)
        session.swaps.append(model)

    def settle(self, session: Session) -> None:
        """Have one tick of it answered by the model that was asked for last: then every swap is seen."""
        self.engine.wait_applied(self.engine.command_state()[0])
        self.burst(session, 1, "plain")
        self.take(session)

    def end(self, session: Session) -> None:
        """Close it, whatever waits; then check its answers."""
        close_source(self.engine, session.source)
        self.take(session, all_of_it=False)
        del self.open[session.source.number]
        self.states += session.source.states.tolist()
        for state in session.source.states:
            self.engine.buffers.online_of[state] = memory.NO_ONLINE
        answers = np.concatenate([np.zeros(0, PREDICTION_DTYPE), *session.answers])
        check(session, answers, failed=self.injected)
        self.counts["ticks"] += len(answers)
        self.degraded |= bool((answers["flags"] & DEGRADED).any())
        self.counts["predictions"] += session.kinds[: len(answers)].count("plain")

    def inject(self, kind: str, after: int) -> None:
        if kind == "none" or (kind == "leave" and not self.device.resident):
            return
        self.injected = True
        event(kind)
        if kind == "leave":
            calls = self.device.buffers.bells.reshape(-1, layout.BELL_WORDS)
            calls[:, layout.BELL_CALL] = layout.BELL_STOP
        elif kind == "hang":
            self.device.buffers.settings[device_memory.TIMEOUT_NS] = HURRIED_NS
            self.host.hang(after=after)
        else:
            {
                "refuse": lambda: self.host.fail_launch(after=after),
                "die": lambda: self.host.die(after=after),
                "lose": self.host.lose,
                "give up": self.device.give_up,
            }[kind]()

    def finish(self) -> None:
        for session in list(self.open.values()):
            self.take(session)
            self.end(session)
        words, buffers = self.engine.buffers.words, self.engine.buffers
        for name, word in (("ticks", memory.TICKS), ("predictions", memory.PREDICTIONS)):
            assert words[word] - self.before[word] == self.counts[name]
        assert buffers.histograms[memory.PATH_GRPC, 0, 0].sum() == self.counts["predictions"]
        assert self.injected or self.device.fault == DeviceFault.NONE
        counters = self.device.counters
        assert (counters.eager_launches, counters.allocations) == (0, 0)
        assert self.host.overruns() == []


def check(session: Session, answers: NDArray[np.void], *, failed: bool) -> None:
    """Hold a session's answers against what its ticks ask for."""
    sent = np.concatenate([np.zeros(0, TICK_DTYPE), *session.sent])[: len(answers)]
    kinds = np.array([*session.kinds, ""])[: len(answers)]
    assert answers["sequence"].tolist() == list(range(len(answers)))
    assert ((answers["flags"] & REFUSED) != 0).tolist() == (kinds == "unknown").tolist()
    taken = kinds != "unknown"
    answers, sent, kinds = answers[taken], sent[taken], kinds[taken]
    assert ((answers["flags"] & REBUILT) != 0).tolist() == (kinds == "rebuild").tolist()
    degraded = ((answers["flags"] & DEGRADED) != 0).astype(int)
    if session.online != memory.NO_ONLINE:
        assert not degraded.any()
        online = new_online_place(MODELS[session.model], DEVICE_SIZES.online)
        expected = run_online(PACKED[session.model], sent, online)
        found = answers["forecasts"]["expected_return"][:, : expected.shape[1]]
        assert found.tobytes() == expected[:, :, 0].tobytes()
        return
    assert (np.diff(degraded) >= 0).all()
    assert failed or not degraded.any()
    models = answers["model_serial"].astype(int) - 100
    asked = [session.model, *session.swaps]
    begun = [int(models[index]) for index in range(len(models)) if index == 0 or models[index] != models[index - 1]]
    assert begun == asked[: len(begun)] or begun == asked[1:][: len(begun)]
    rebuilds = np.cumsum(np.abs(np.diff(models, prepend=models[:1])) + np.diff(degraded, prepend=degraded[:1]))
    for one in session.source.ids:
        own = np.flatnonzero(answers["instrument_id"] == one)
        check_state(sent[own], answers[own], models[own], rebuilds[own])


def check_state(
    ticks: NDArray[np.void], answers: NDArray[np.void], models: NDArray[np.int64], rebuilds: NDArray[np.int64]
) -> None:
    """Hold one state's answers against the kernels; *rebuilds* grows where the model changed or the device was lost."""
    starts = np.flatnonzero(np.diff(rebuilds, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(ticks)] if starts else [], strict=True):
        model = int(models[start])
        kept = min(start, MODELS[model].rebuild_ticks)
        forecasts, flags = driven(PACKED[model], ticks[start - kept : end], seen=start - kept)
        wanted = (answers["flags"][start:end] & REBUILT) == 0
        assert (answers["flags"][start:end] & UNTIMED & ~DEGRADED & ~REBUILT).tolist() == flags[kept:].tolist()
        assert answers["forecasts"][start:end][wanted].tobytes() == forecasts[kept:][wanted].tobytes()


@settings(max_examples=60)
@given(way=WAYS, steps=STEPS, fault=FAULTS)
def test_every_tick_is_answered_once_in_order_by_whoever_is_left(way, steps, fault):
    (mode, transfer), (kind, place, after) = way, fault
    with device_engine(*MODELS, device=replace(device_settings(transfer), mode=mode)) as running:
        world = World(*running)
        world.begin(1, 2, 0, online=False)
        for index, step in enumerate(steps):
            if index == place % len(steps):
                world.inject(kind, after)
            world.step(*step)
        world.finish()
        event(f"{mode.name}, fault {world.device.fault.name}, degraded {world.degraded}")
