"""The engine's thread: its life, its idle strategies, its helpers, and that it never leaves compiled code."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

from penstock_daemon import engine_loop, engine_ticks, engine_turns, rings
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineError, EngineSettings
from penstock_daemon.engine_memory import Command, Idle
from penstock_kernels.predictor import pack
from support.engines import SIZES, close_source, driven, open_source, predict, publish, running_engine, take
from support.models import random_model
from support.tick_stream import tick_stream

MODELS = (random_model(1), random_model(2, units=48, rebuild_ticks=200))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine with two models that all tests of this file may use."""
    with running_engine(*MODELS) as engine:
        yield engine


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(idle=Idle.BLOCK),
        EngineSettings(idle=Idle.SPIN_THEN_SLEEP, spin_ns=20_000, nap_ns=20_000),
        EngineSettings(idle=Idle.SPIN),
    ],
    ids=["block", "spin-then-sleep", "spin"],
)
def test_every_idle_strategy_answers_after_a_pause(settings: EngineSettings) -> None:
    ticks = tick_stream(21, 60)
    with running_engine(MODELS[0], settings=settings) as engine:
        source = open_source(engine)
        found = [predict(engine, source, ticks[:20])]
        time.sleep(0.05)  # Long enough to sleep, where it sleeps.
        found.append(predict(engine, source, ticks[20:40], first=20))
        time.sleep(0.3)  # Longer than it sleeps without a signal.
        found.append(predict(engine, source, ticks[40:], first=40))
        slept = engine.buffers.words[memory.SLEEPS]
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert np.concatenate(found)["forecasts"].tobytes() == forecasts.tobytes()
    assert (slept > 0) == (settings.idle == Idle.BLOCK)


def test_answers_that_find_no_room_come_when_there_is_room(engine: Engine) -> None:
    source = open_source(engine)
    ticks = tick_stream(22, 2 * SIZES.slots)
    publish(engine, source, ticks[: SIZES.slots])
    deadline_s = time.monotonic() + 60
    while engine.cursor(1, memory.TICK_CONSUMED) < SIZES.slots:
        assert time.monotonic() < deadline_s
    publish(engine, source, ticks[SIZES.slots :], first=SIZES.slots)
    time.sleep(0.02)
    assert engine.cursor(1, memory.PREDICTION_PUBLISHED) == SIZES.slots, "nobody took an answer yet"
    found = take(engine, source, 2 * SIZES.slots)
    close_source(engine, source)
    assert found["sequence"].tolist() == list(range(2 * SIZES.slots))
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert found["forecasts"].tobytes() == forecasts.tobytes()


@pytest.mark.parametrize("awake", [False, True], ids=["asleep", "awake"])
def test_few_ticks_are_predicted_where_they_arrive_while_the_engine_sleeps(awake: bool) -> None:
    ticks = tick_stream(28, 400)
    settings = EngineSettings(assist_max=8, idle=Idle.SPIN if awake else Idle.BLOCK)
    assisted, found = 0, []
    with running_engine(*MODELS, settings=settings) as engine:
        source = open_source(engine)
        position = 0
        for size in itertools.cycle([1, 8, 9, 3]):
            if position + size > len(ticks):
                break
            part = ticks[position : position + size]
            assert publish(engine, source, part, first=position, assist=True) == 0
            assert engine.assisted in ((0,) if size > 8 or awake else (0, size))
            assisted += engine.assisted
            found.append(take(engine, source, size))
            position += size
            time.sleep(0.0005)
        assert engine.buffers.words[memory.ASSISTED] == assisted
        assert engine.buffers.words[memory.TICKS] == position + 4, "and four to warm up"
    assert (assisted == 0) == awake, "an engine that sleeps is helped at least once"
    forecasts, _ = driven(pack(MODELS[0]), ticks[:position])
    assert np.concatenate(found)["forecasts"].tobytes() == forecasts.tobytes()


def test_helper_leaves_held_and_commanded_engines_alone(engine: Engine) -> None:
    source = open_source(engine, 3, states=[7])
    engine.wait_applied(engine.command(Command.HOLD_SOURCE, 3))
    time.sleep(0.005)
    publish(engine, source, tick_stream(29, 4), assist=True)
    assert engine.assisted == 0
    assert engine.answers(3, 10)[1] == 0
    engine.command(Command.BIND_MODEL, 3, 0)
    publish(engine, source, tick_stream(29, 4), assist=True)
    assert len(take(engine, source, 8)) == 8
    close_source(engine, source)


def test_states_have_one_owner_whoever_predicts() -> None:
    """Two producers and an engine that falls asleep between any two ticks: every state sees its ticks once, in order."""
    streams = {number: tick_stream(30 + number, 1500) for number in (1, 2)}
    found: dict[int, list[np.ndarray]] = {1: [], 2: []}
    with running_engine(MODELS[0], settings=EngineSettings(assist_max=4)) as engine:
        sources = {number: open_source(engine, number, states=[number]) for number in streams}

        def produce(number: int) -> None:
            sizes = np.random.default_rng(number).integers(1, 8, 2000)
            position = 0
            for size in sizes:
                part = streams[number][position : position + size]
                if len(part) == 0:
                    return
                publish(engine, sources[number], part, first=position, assist=number == 1)
                found[number].append(take(engine, sources[number], len(part)))
                position += len(part)

        threads = [threading.Thread(target=produce, args=(number,)) for number in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, stream in streams.items():
        forecasts, _ = driven(pack(MODELS[0]), stream)
        assert np.concatenate(found[number])["forecasts"].tobytes() == forecasts.tobytes()


def test_engine_signals_the_loop_once_for_each_arming(engine: Engine) -> None:
    source = open_source(engine)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(engine.loop_event)
    engine.arm_loop()
    predict(engine, source, tick_stream(23, 50))
    predict(engine, source, tick_stream(23, 50))
    assert os.eventfd_read(engine.loop_event) == 1
    assert engine.buffers.words[memory.LOOP_WAITING] == 0
    close_source(engine, source)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(engine.loop_event)


def test_nothing_is_allocated_and_the_interpreter_not_entered_while_ticks_flow() -> None:
    """A call from Python unpacks arrays, which allocates; so a call that leaves the engine idle is the measure."""
    ticks = tick_stream(24, 10_000)
    with running_engine(MODELS[0], sizes=replace(SIZES, slots=16_384)) as engine:
        idle, busy = open_source(engine, 1), open_source(engine, 2, states=[2])
        engine.wait_applied(engine.command(Command.HOLD_SOURCE, idle.number))
        engine.buffers.words[memory.LOOP_WAITING] = 1
        thread = next(one for one in threading.enumerate() if one.name == "penstock-engine")
        frame = sys._current_frames()[thread.ident]
        where = (frame.f_code.co_name, frame.f_lasti)
        _nrt_python.memsys_enable_stats()
        try:
            stats = [rtsys.get_allocation_stats()]
            publish(engine, idle, ticks)
            stats.append(rtsys.get_allocation_stats())
            publish(engine, busy, ticks)
            consumed = memory.cursor(busy.number, memory.TICK_CONSUMED)
            deadline_s = time.monotonic() + 60
            while engine.buffers.cursors[consumed] < len(ticks):
                assert time.monotonic() < deadline_s
                time.sleep(0.001)
            stats.append(rtsys.get_allocation_stats())
        finally:
            _nrt_python.memsys_disable_stats()
        assert sys._current_frames()[thread.ident] is frame
        assert (frame.f_code.co_name, frame.f_lasti) == where
        assert engine.buffers.words[memory.WAKES] > 0, "it signalled, too"
    idle_call, busy_call = (np.subtract(after, before) for before, after in itertools.pairwise(stats))
    assert busy_call.tolist() == idle_call.tolist()


def test_nothing_is_compiled_once_it_is_warm(engine: Engine) -> None:
    def compiled() -> dict[str, int]:
        return {
            name: len(function.signatures)
            for module in (engine_loop, engine_ticks, engine_turns, rings)
            for name, function in vars(module).items()
            if hasattr(function, "signatures")
        }

    before = compiled()
    odd = tick_stream(25, 40)
    odd["instrument_id"][3] = 77
    source = open_source(engine, bulk=True)
    predict(engine, source, odd, rebuild=True)
    predict(engine, source, odd, first=2**62)
    engine.rewind_answers(source.number, 60)
    assert len(take(engine, source, 20, bulk=True)) == 20
    engine.cursor(source.number, memory.TICK_PUBLISHED)
    engine.command(Command.HOLD_SOURCE, source.number)
    engine.command(Command.REBUILD_STATE, 1, 1)
    engine.wait_applied(engine.command(Command.BIND_MODEL, source.number, 1))
    close_source(engine, source)
    assert compiled() == before


def test_engine_starts_warms_up_and_stops() -> None:
    engine = Engine(SIZES, EngineSettings())
    try:
        engine.load_model(0, pack(MODELS[0]), serial=1)
        engine.compile()
        assert not engine.alive
        engine.start()
        assert engine.alive
        assert engine.thread_id in {int(task.name) for task in Path("/proc/self/task").iterdir()}
        slowest_ns = engine.warm_up(0, ticks=8)
        assert 0 < slowest_ns < 10**10
        assert not engine.buffers.histograms.any(), "warm-up leaves no figures"
        assert not engine.buffers.totals.any()
        assert engine.cursor(0, memory.TICK_PUBLISHED) == 0
        with pytest.raises(AssertionError, match="started before"):
            engine.start()
    finally:
        engine.stop()
    assert not engine.alive
    with pytest.raises(EngineError, match="applied no command"):
        engine.wait_applied(engine.command(Command.RESET_STATE, 1), timeout_s=0.1)
    engine.close()


def test_engine_that_may_not_have_its_cpu_says_so() -> None:
    engine = Engine(SIZES, EngineSettings(cpus=frozenset({4095})))
    try:
        with pytest.raises(
            EngineError, match=r"engine.cores: CPUs \[4095\] can't be used \(Invalid argument\); name CPUs"
        ):
            engine.start()
    finally:
        engine.stop()
        engine.close()


def test_stop_ends_an_engine_that_waits_for_room() -> None:
    with running_engine(MODELS[0], sizes=replace(SIZES, slots=4)) as engine:
        source = open_source(engine)
        publish(engine, source, tick_stream(26, 4))
        deadline_s = time.monotonic() + 60
        while engine.cursor(1, memory.TICK_CONSUMED) < 4:
            assert time.monotonic() < deadline_s
        publish(engine, source, tick_stream(26, 4))
    assert not engine.alive
