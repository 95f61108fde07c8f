"""The engine's loop with a resident kernel: the CPU's bits, no launch for a tick, and a way on whatever happens to it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from penstock.v1.records import PredictionFlag
from penstock_daemon.device import memory
from penstock_daemon.device.backend import DeviceError
from penstock_daemon.device.device import Device
from penstock_daemon.device.memory import DeviceFault, Mode, Transfer
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_kernels.cuda import layout
from penstock_kernels.predictor import pack
from support.device_engines import DEVICE_SIZES, device_engine, device_settings, kept_asleep
from support.engines import close_source, driven, open_source, predict, publish, take
from support.host_device import HostDevice
from support.models import random_model
from support.tick_stream import tick_stream

MODELS = (random_model(1, rebuild_ticks=200), random_model(2, units=48, rebuild_ticks=100))
RESIDENT = replace(device_settings(), mode=Mode.RESIDENT)
UNTIMED = ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)
DEGRADED = np.uint32(PredictionFlag.DEGRADED)


def assert_cpu_answers(model, ticks, answers):
    forecasts, flags = driven(pack(model), ticks)
    assert answers["sequence"].tolist() == list(range(len(ticks)))
    assert answers["forecasts"].tobytes() == forecasts.tobytes()
    assert (answers["flags"] & UNTIMED).tolist() == flags.tolist()


@pytest.mark.parametrize("transfer", [Transfer.STAGED, Transfer.IN_PLACE])
def test_sessions_of_several_states_get_the_cpus_bits_without_a_launch(transfer):
    streams = {number: tick_stream(30 + number, 200) for number in (1, 2, 3)}
    with device_engine(*MODELS, device=replace(RESIDENT, transfer=transfer)) as (engine, host):
        launches = host.launches()
        sources = {number: open_source(engine, number, states=[2 * number]) for number in streams}
        found = {number: [] for number in streams}
        for first in range(0, 200, 40):
            for number, stream in streams.items():
                assert publish(engine, sources[number], stream[first : first + 40], first=first) == 0
            for number in streams:
                found[number].append(take(engine, sources[number], 40))
        assert engine.device.resident
        assert (host.launches(), engine.device.counters.eager_launches) == (launches, 0)
        assert engine.device.items == 600
    for number, stream in streams.items():
        assert_cpu_answers(MODELS[0], stream, np.concatenate(found[number]))


def test_a_session_that_swaps_to_another_model_and_back_keeps_the_right_state():
    ticks = tick_stream(40, 360)
    with device_engine(*MODELS, device=RESIDENT) as (engine, host):
        launches = host.launches()
        source = open_source(engine, 1, states=[3])
        found = [predict(engine, source, ticks[:120])]
        for model, first in ((1, 120), (0, 240)):
            engine.command(Command.HOLD_SOURCE, 1)
            engine.command(Command.REBUILD_STATE, 3, model)
            engine.wait_applied(engine.command(Command.BIND_MODEL, 1, model))
            found.append(predict(engine, source, ticks[first : first + 120], first=first))
        assert host.launches() > launches, "the other model goes through graphs"
        assert engine.device.fault == DeviceFault.NONE
    for part, model, kept in ((0, 0, 0), (1, 1, 100), (2, 0, 200)):
        first = 120 * part
        forecasts, _ = driven(pack(MODELS[model]), ticks[first - kept : first + 120])
        assert found[part]["forecasts"].tobytes() == forecasts[kept:].tobytes()


def test_a_state_whose_ticks_share_a_micro_batch_with_another_model_goes_through_a_graph_and_back():
    streams = [tick_stream(45, 90), tick_stream(46, 90)]
    with device_engine(*MODELS, device=RESIDENT) as (engine, host):
        sources = [open_source(engine, 1 + model, states=[1 + model], model_slot=model) for model in (0, 1)]
        found = [[predict(engine, sources[0], streams[0][:30])], []]
        launches = host.launches()
        with kept_asleep(engine):
            for source, ticks, part in zip(sources, streams, (slice(30, 60), slice(0, 30)), strict=True):
                assert publish(engine, source, ticks[part], first=part.start) == 0
        for model, source in enumerate(sources):
            found[model].append(take(engine, source, 30))
        assert host.launches() == launches + 1
        found[0].append(predict(engine, sources[0], streams[0][60:], first=60))
        assert host.launches() == launches + 1
    assert_cpu_answers(MODELS[0], streams[0], np.concatenate(found[0]))
    assert_cpu_answers(MODELS[1], streams[1][:30], np.concatenate(found[1]))


def test_a_state_of_a_closed_session_begins_anew_with_another_model():
    ticks = tick_stream(41, 60)
    with device_engine(*MODELS, device=RESIDENT) as (engine, _):
        for model in (0, 1, 0):
            source = open_source(engine, 1, states=[4], model_slot=model)
            assert_cpu_answers(MODELS[model], ticks, predict(engine, source, ticks))
            close_source(engine, source)


def test_a_model_loaded_over_the_resident_one_goes_through_graphs():
    ticks = tick_stream(42, 60)
    with device_engine(*MODELS, device=RESIDENT) as (engine, host):
        engine.load_model(0, pack(MODELS[1]), serial=200)
        assert not engine.device.resident
        launches = host.launches()
        assert_cpu_answers(MODELS[1], ticks, predict(engine, open_source(engine, 1, states=[2]), ticks))
        assert host.launches() > launches


def test_a_model_that_does_not_fit_goes_through_graphs_and_says_why():
    with device_engine(*MODELS, device=RESIDENT, shared_bytes_max=5000) as (engine, _):
        assert not engine.device.resident
        assert "a model of 64 units can't stay resident" in engine.device.not_resident
        ticks = tick_stream(43, 30)
        assert_cpu_answers(MODELS[0], ticks, predict(engine, open_source(engine, 1, states=[2]), ticks))


class WrongDevice(HostDevice):
    """A device whose compiler gets the resident kernel wrong."""

    def build(self, source, options, name, shared_bytes):
        return super().build(
            source.replace("sum[round] = bias[round]", "sum[round] = -bias[round]"), options, name, shared_bytes
        )


def test_a_resident_kernel_with_other_bits_than_the_graphs_does_not_serve():
    engine = Engine(DEVICE_SIZES, EngineSettings(), Device(WrongDevice(), RESIDENT))
    engine.load_model(0, pack(MODELS[0]), serial=1)
    engine.compile()
    engine.start()
    with pytest.raises(DeviceError, match="other bits than the graphs do"):
        engine.warm_up(0, ticks=4)
    engine.stop()
    engine.close()


def test_the_engines_end_is_a_clean_stop():
    with device_engine(*MODELS, device=RESIDENT) as (engine, _):
        answers = engine.device.buffers.answers.reshape(-1, layout.ANSWER_WORDS)
        engine.stop()
        engine.device.close()
        assert (answers[:, layout.ANSWER_CALL] == layout.ANSWER_ENDED).all()
        assert (answers[:, layout.ANSWER_REASON] == layout.REASON_STOPPED).all()


def test_an_idle_engine_goes_on_with_its_heartbeat():
    with device_engine(*MODELS, device=RESIDENT) as (engine, _):
        bells = engine.device.buffers.bells
        first, give_up_s = int(bells[layout.BELL_HEARTBEAT]), time.monotonic() + 10
        while bells[layout.BELL_HEARTBEAT] < first + 2:
            assert time.monotonic() < give_up_s
            time.sleep(0.01)


def stop_bells(engine, _host):
    """Stop the kernel behind the engine's back, as its watchdog would."""
    engine.device.buffers.bells.reshape(-1, layout.BELL_WORDS)[:, layout.BELL_CALL] = layout.BELL_STOP
    answers = engine.device.buffers.answers.reshape(-1, layout.ANSWER_WORDS)[:, layout.ANSWER_CALL]
    while (answers != layout.ANSWER_ENDED).any():
        time.sleep(0.001)


def lose(_engine, host):
    host.lose()


@pytest.mark.parametrize(("inject", "fault"), [(stop_bells, DeviceFault.LEFT), (lose, DeviceFault.QUERY)])
def test_a_resident_kernel_that_is_gone_leaves_every_tick_to_the_cpu(inject, fault):
    ticks = tick_stream(44, 300)
    with device_engine(*MODELS, device=RESIDENT) as (engine, host):
        source = open_source(engine, 1, states=[2])
        before = predict(engine, source, ticks[:250])
        inject(engine, host)
        after = predict(engine, source, ticks[250:], first=250)
        assert engine.device.fault == fault
        assert fault != DeviceFault.LEFT or "resident kernel left: it was stopped" in engine.device.fault_text
        assert int(engine.device.buffers.words[memory.RESIDENT_MODEL]) == memory.NOBODY
    assert_cpu_answers(MODELS[0], ticks[:250], before)
    assert ((after["flags"] & DEGRADED) != 0).all()
    forecasts, _ = driven(pack(MODELS[0]), ticks[50:])
    assert after["forecasts"].tobytes() == forecasts[200:].tobytes()
