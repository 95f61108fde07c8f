"""The engine over a real card: the CPU's bits, graphs from before its start, and counters that stay 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock.v1.records import PredictionFlag
from penstock_daemon.config import Config
from penstock_daemon.device.backend import DeviceBackend
from penstock_daemon.device.device import DeviceSettings
from penstock_daemon.device.memory import DeviceFault, Mode, Transfer
from penstock_daemon.device.select import make_engine
from penstock_daemon.engine import EngineSettings
from penstock_kernels.half_weights import round_to_half
from support import device_runs, engines
from support.models import random_model
from support.tick_stream import tick_stream

pytestmark = pytest.mark.gpu

LATE = int(PredictionFlag.LATE | PredictionFlag.STALE)  # What depends on how busy the machine is.
MODELS = (random_model(1, units=200, rebuild_ticks=64), random_model(2, units=130, topology="sparse", rebuild_ticks=64))


@pytest.mark.parametrize("transfer", Transfer)
def test_engine_gives_the_bits_of_the_cpu_and_launches_graphs_alone(
    own_cuda: DeviceBackend, transfer: Transfer
) -> None:
    settings = DeviceSettings(transfer=transfer, batch_max=64, timeout_ns=2_000_000_000)
    with device_runs.device_engine(own_cuda, MODELS, settings) as engine:
        device = engine.device
        assert device is not None
        assert device.buffers.graphs.all(), "a graph for each bucket, before there is a tick"
        sources = [engines.open_source(engine, 1 + slot, states=(1 + slot,), model_slot=slot) for slot in range(2)]
        ticks = [tick_stream(20 + slot, 600) for slot in range(2)]
        for source, model, some in zip(sources, MODELS, ticks, strict=True):
            device_runs.assert_cpu_bits(model, some, engines.predict(engine, source, some), but_flags=LATE)
        assert device.fault == DeviceFault.NONE
        assert device.items >= 1200
        assert 0 < device.launches <= device.items
        assert (device.counters.eager_launches, device.counters.allocations) == (0, 0)


def test_a_burst_on_one_instrument_is_few_launches(own_cuda: DeviceBackend) -> None:
    with device_runs.device_engine(own_cuda, MODELS[:1]) as engine:
        assert engine.device is not None
        source = engines.open_source(engine)
        before = engine.device.launches
        ticks = tick_stream(30, 128)
        assert engines.publish(engine, source, ticks) >= 0
        device_runs.assert_cpu_bits(MODELS[0], ticks, engines.take(engine, source, 128), but_flags=LATE)
        assert engine.device.launches - before < 64


def test_stages_of_the_device_are_stamped_and_fit_into_the_whole(own_cuda: DeviceBackend) -> None:
    with device_runs.device_engine(own_cuda, MODELS[:1]) as engine:
        source = engines.open_source(engine)
        answers = engines.predict(engine, source, tick_stream(40, 200))
        elapsed_ns = answers["stage_ns"].astype(np.int64).sum(axis=1)
        assert np.all(elapsed_ns > 0)
        assert np.all(elapsed_ns < 1_000_000_000)


@pytest.mark.parametrize("transfer", [Transfer.STAGED, Transfer.IN_PLACE])
def test_resident_kernel_serves_its_model_and_graphs_the_other(own_cuda: DeviceBackend, transfer: Transfer) -> None:
    settings = DeviceSettings(transfer=transfer, mode=Mode.RESIDENT, batch_max=64, timeout_ns=2_000_000_000)
    ticks = {model: tick_stream(60 + model, 300) for model in (0, 1)}
    with device_runs.device_engine(own_cuda, MODELS, settings) as engine:
        device = engine.device
        assert device is not None
        assert device.resident, device.not_resident
        sources = {
            model: engines.open_source(engine, 1 + model, states=[1 + model], model_slot=model) for model in ticks
        }
        for model, source in sources.items():
            found = engines.predict(engine, source, ticks[model])
            device_runs.assert_cpu_bits(MODELS[model], ticks[model], found, but_flags=LATE)
        assert device.fault == DeviceFault.NONE
        assert (device.counters.eager_launches, device.counters.allocations) == (0, 0)


def test_half_weights_give_the_bits_of_the_rounded_model(own_cuda: DeviceBackend) -> None:
    rounded = round_to_half(random_model(3, units=100, rebuild_ticks=64))
    settings = DeviceSettings(half=True, batch_max=64, timeout_ns=2_000_000_000)
    with device_runs.device_engine(own_cuda, [rounded], settings) as engine:
        source = engines.open_source(engine)
        ticks = tick_stream(50, 200)
        device_runs.assert_cpu_bits(rounded, ticks, engines.predict(engine, source, ticks), but_flags=LATE)


@pytest.mark.usefixtures("cuda")
def test_auto_takes_the_card_and_says_so() -> None:
    config = replace(Config.defaults().engine, device_batch_max=64, device_timeout_ms=2_000)
    assert config.device == "auto"
    engine, choice = make_engine(config, device_runs.SIZES, EngineSettings())
    engine.close()
    assert choice.engine == "cuda"
    assert choice.device.endswith("(cuda:0)")
    assert "gave the CPU's bits" in choice.why
