"""A device that fails while it serves: every tick is answered once, in order, by the CPU, and says DEGRADED."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.v1.records import PredictionFlag
from penstock_daemon.device import memory
from penstock_daemon.device.backend import LaunchShape
from penstock_daemon.device.device import DeviceSettings
from penstock_daemon.device.memory import DeviceFault, Transfer
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from penstock_kernels.cuda import layout
from penstock_kernels.predictor import pack
from support.device_engines import HURRIED_NS, device_engine, device_settings, kept_asleep
from support.engines import close_source, driven, open_source, predict, publish, take
from support.host_device import LOST, HostDevice
from support.models import random_model
from support.tick_stream import tick_stream

MODELS = (random_model(1, rebuild_ticks=200), random_model(2, units=48, rebuild_ticks=100))
HURRIED = device_settings(timeout_ns=HURRIED_NS)
PATIENT = device_settings()
UNTIMED = ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)
DEGRADED = np.uint32(PredictionFlag.DEGRADED)

Injection = Callable[[HostDevice, int], None]


def refuse_launch(host: HostDevice, after: int) -> None:
    host.fail_launch(after=after)


def never_complete(host: HostDevice, after: int) -> None:
    host.hang(after=after)


def die(host: HostDevice, after: int) -> None:
    host.die(after=after)


def whole_streams(engine: Engine, lengths: dict[int, int]) -> None:
    """Send a stream to each of two sources in bursts, answers taken as they come, and check all of them."""
    sources = {number: open_source(engine, number, states=[number]) for number in lengths}
    streams = {number: tick_stream(50 + number, length) for number, length in lengths.items()}
    found: dict[int, list[NDArray[np.void]]] = {number: [] for number in lengths}
    for first in range(0, max(lengths.values()), 30):
        parts = {number: stream[first : first + 30] for number, stream in streams.items()}
        for number, part in parts.items():
            assert publish(engine, sources[number], part, first=first) == 0
        for number, part in parts.items():
            found[number].append(take(engine, sources[number], len(part)))
    for number, stream in streams.items():
        answers = np.concatenate(found[number])
        assert answers["sequence"].tolist() == list(range(len(stream)))
        forecasts, flags = driven(pack(MODELS[0]), stream)
        degraded = (answers["flags"] & DEGRADED) != 0
        assert degraded[-1]
        assert (np.diff(degraded.astype(int)) >= 0).all(), "once degraded, for good"
        assert (answers["flags"] & UNTIMED & ~DEGRADED).tolist() == flags.tolist()
        lost_at = int(np.argmax(degraded))
        kept = min(lost_at, MODELS[0].rebuild_ticks)
        rebuilt, _ = driven(pack(MODELS[0]), stream[lost_at - kept :])
        assert answers["forecasts"][:lost_at].tobytes() == forecasts[:lost_at].tobytes()
        assert answers["forecasts"][lost_at:].tobytes() == rebuilt[kept:].tobytes(), "as its last ticks make it"
        close_source(engine, sources[number])


@pytest.mark.parametrize("after", [0, 3, 11])
@pytest.mark.parametrize(
    ("inject", "settings", "fault", "detail"),
    [
        (refuse_launch, PATIENT, DeviceFault.LAUNCH, LOST),
        (never_complete, HURRIED, DeviceFault.TIMEOUT, None),
        (die, PATIENT, DeviceFault.QUERY, LOST),
    ],
    ids=["launch", "never-completes", "dies"],
)
def test_every_tick_is_answered_once_and_in_order_by_whoever_is_left(
    inject: Injection, settings: DeviceSettings, fault: DeviceFault, detail: int | None, after: int
) -> None:
    with device_engine(*MODELS, device=settings) as (engine, host):
        device = engine.device
        assert device is not None
        inject(host, after)
        whole_streams(engine, {1: 450, 2: 450})
        assert device.fault == fault
        assert detail is None or f"error {detail}" in device.fault_text
        assert device.launches <= after + 1, "it was never asked again"
        launches = host.launches()
        # What comes after: commands, swaps and new sessions, all on the CPU.
        ticks = tick_stream(60, 200)
        source = open_source(engine, 3, states=[4])
        predict(engine, source, ticks[:120])
        engine.command(Command.HOLD_SOURCE, 3)
        engine.command(Command.REBUILD_STATE, 4, 1)
        engine.wait_applied(engine.command(Command.BIND_MODEL, 3, 1))
        found = predict(engine, source, ticks[120:], first=120)
        forecasts, _ = driven(pack(MODELS[1]), ticks[20:])
        assert found["forecasts"].tobytes() == forecasts[100:].tobytes()
        assert ((found["flags"] & DEGRADED) != 0).all()
        assert host.launches() == launches


def test_device_that_dies_in_a_rebuild_leaves_the_state_to_the_cpu() -> None:
    ticks = tick_stream(61, 300)
    with device_engine(*MODELS) as (engine, host):
        source = open_source(engine, 1, states=[3])
        predict(engine, source, ticks[:250])
        host.die(after=1)
        engine.command(Command.HOLD_SOURCE, 1)
        engine.command(Command.REBUILD_STATE, 3, 1)
        engine.wait_applied(engine.command(Command.BIND_MODEL, 1, 1))
        found = predict(engine, source, ticks[250:], first=250)
        assert engine.device is not None
        assert engine.device.fault == DeviceFault.QUERY
    forecasts, _ = driven(pack(MODELS[1]), ticks[150:])
    assert found["forecasts"].tobytes() == forecasts[100:].tobytes()


def test_state_whose_next_tick_comes_long_after_is_rebuilt_for_it() -> None:
    ticks = tick_stream(62, 120)
    with device_engine(*MODELS) as (engine, host):
        quiet, busy = open_source(engine, 1, states=[1]), open_source(engine, 2, states=[2])
        found = [predict(engine, quiet, ticks[:100])]
        host.lose()
        predict(engine, busy, tick_stream(63, 50))
        found.append(predict(engine, quiet, ticks[100:], first=100))
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert np.concatenate(found)["forecasts"].tobytes() == forecasts.tobytes()


def test_lost_states_are_rebuilt_in_parts_while_others_go_on() -> None:
    """One source has states to rebuild; another, opened after, has none, and is answered between their parts."""
    with device_engine(*MODELS) as (engine, host):
        many = open_source(engine, 1, states=[1, 2, 3, 4, 5, 6])
        streams = [tick_stream(70 + one, 201, instrument_id=one) for one in range(1, 7)]
        for first in range(0, 200, 40):
            predict(engine, many, np.concatenate([stream[first : first + 40] for stream in streams]), first=6 * first)
        fresh = open_source(engine, 2, states=[7])
        for source in (many, fresh):
            engine.command(Command.HOLD_SOURCE, source.number)
        engine.wait_applied(engine.command_state()[0])
        host.lose()
        with kept_asleep(engine):
            publish(engine, many, np.concatenate([stream[200:] for stream in streams]), first=1200)
            publish(engine, fresh, tick_stream(80, 1))
            for source in (many, fresh):
                engine.command(Command.BIND_MODEL, source.number, 0)
        last, other = take(engine, many, 6), take(engine, fresh, 1)
    forecasts = np.concatenate([driven(pack(MODELS[0]), stream)[0][200:] for stream in streams])
    assert last["forecasts"].tobytes() == forecasts.tobytes()
    done_ns = [
        one["received_ns"].astype(np.int64) + one["stage_ns"].sum(axis=1, dtype=np.int64) for one in (last, other)
    ]
    assert done_ns[1][0] < done_ns[0].max()


@pytest.mark.parametrize("transfer", [Transfer.IN_PLACE, Transfer.COPIED], ids=["in-place", "copied"])
def test_other_transfers_fall_back_too(transfer: Transfer) -> None:
    with device_engine(*MODELS, device=device_settings(transfer)) as (engine, host):
        host.die(after=1)
        whole_streams(engine, {1: 90, 2: 60})


def test_model_that_a_dying_device_refuses_is_served_by_the_cpu() -> None:
    with device_engine(*MODELS) as (engine, host):
        device = engine.device
        assert device is not None
        host.lose()
        engine.load_model(2, pack(MODELS[1]), serial=7)
        ticks = tick_stream(64, 40)
        found = predict(engine, open_source(engine, 1, model_slot=2), ticks)
        assert device.fault == DeviceFault.ASKED
        assert device.fault_text == "it was given up from outside"
    forecasts, _ = driven(pack(MODELS[1]), ticks)
    assert found["forecasts"].tobytes() == forecasts.tobytes()
    assert ((found["flags"] & DEGRADED) != 0).all()


def test_kernel_that_refuses_its_work_is_not_believed() -> None:
    ticks = tick_stream(66, 90)
    with device_engine(*MODELS, device=device_settings(Transfer.IN_PLACE)) as (engine, _):
        device = engine.device
        assert device is not None
        source = open_source(engine)
        found = [predict(engine, source, ticks[:40])]
        device.buffers.settings[memory.TICKS_AT] = 1 << 40
        found.append(predict(engine, source, ticks[40:], first=40))
        assert device.fault == DeviceFault.KERNEL
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert np.concatenate(found)["forecasts"].tobytes() == forecasts.tobytes()


def test_launch_that_ends_without_a_word_is_not_waited_for() -> None:
    ticks = tick_stream(67, 90)
    with device_engine(*MODELS) as (engine, host):
        device = engine.device
        assert device is not None
        source = open_source(engine)
        found = [predict(engine, source, ticks[:40])]
        plan, elsewhere = device.plan, host.take_pinned(layout.DONE_WORDS * 8).device_address
        arguments = dict(zip(layout.ARGUMENTS, device.memory.arguments(), strict=True)) | {"done": elsewhere}
        kernel = host.build(plan.source, plan.options, plan.name, plan.shared_bytes)
        shape = LaunchShape(1, plan.threads, plan.shared_bytes)
        device.buffers.graphs[0] = host.capture(kernel, shape, tuple(arguments.values()))
        found.append(predict(engine, source, ticks[40:], first=40))
        assert device.fault == DeviceFault.VANISHED
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert np.concatenate(found)["forecasts"].tobytes() == forecasts.tobytes()


def test_launch_that_the_driver_hands_over_late_is_not_lost() -> None:
    ticks = tick_stream(68, 3)
    with device_engine(*MODELS, device=HURRIED) as (engine, host):
        device = engine.device
        assert device is not None
        launch_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        launch = launch_type(device.backend.launch_address)

        def kept(executable: int, stream: int) -> int:
            time.sleep(1.5 * HURRIED_NS / 1e9)
            return int(launch(executable, stream))

        late = launch_type(kept)
        host.delay(2_000_000)  # So that it is not complete at the first look.
        device.buffers.settings[memory.LAUNCH_ADDRESS] = ctypes.cast(late, ctypes.c_void_p).value
        found = predict(engine, open_source(engine), ticks)
        assert device.fault == DeviceFault.NONE
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert found["forecasts"].tobytes() == forecasts.tobytes()


def test_start_has_more_time_for_a_launch_than_serving() -> None:
    ticks = tick_stream(69, 3)
    settings = device_settings(timeout_ns=5_000_000)
    with device_engine(*MODELS, device=settings, late_ns=10_000_000) as (engine, host):
        device = engine.device
        assert device is not None
        assert device.fault == DeviceFault.NONE
        host.delay(500_000_000)  # Time counts from when the engine looks, which a busy machine may keep it from.
        found = predict(engine, open_source(engine), ticks)
        assert device.fault == DeviceFault.TIMEOUT
    assert ((found["flags"] & DEGRADED) != 0).all()


@pytest.mark.parametrize(("together", "fault"), [(15, DeviceFault.TIMEOUT), (48, DeviceFault.NONE)])
def test_launch_of_many_ticks_has_more_time(together: int, fault: DeviceFault) -> None:
    settings = device_settings(timeout_ns=200_000_000)
    with device_engine(*MODELS, device=settings) as (engine, host):
        device = engine.device
        assert device is not None
        source = open_source(engine)
        with kept_asleep(engine):
            host.delay(500_000_000)
            publish(engine, source, tick_stream(70, together))
        take(engine, source, together)
        assert device.fault == fault


def test_engine_stops_while_a_launch_hangs() -> None:
    with device_engine(*MODELS, device=HURRIED) as (engine, host):
        host.hang()
        publish(engine, open_source(engine), tick_stream(65, 5))
    assert not engine.alive


def test_device_given_up_while_a_launch_hangs_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the configuration would have the engine wait; its stop gives up a device that keeps it."""
    monkeypatch.setattr("penstock_daemon.engine._STOP_TIMEOUT_S", 0.3)
    with device_engine(*MODELS, device=PATIENT) as (engine, host):
        device = engine.device
        assert device is not None
        host.hang()
        publish(engine, open_source(engine), tick_stream(65, 5))
        deadline_s = time.monotonic() + 60
        while device.launches == 0:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        engine.stop()
        assert device.fault == DeviceFault.ASKED
