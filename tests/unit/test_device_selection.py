"""Which device predicts, and why: the kernels on this host stand for the GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_daemon.config_fields import EngineConfig
from penstock_daemon.device import trial
from penstock_daemon.device.backend import DeviceError
from penstock_daemon.device.memory import Mode, Transfer
from penstock_daemon.device.select import CudaGpus, device_settings, make_engine
from penstock_daemon.engine import EngineSettings
from penstock_daemon.engine_memory import Idle
from support.engines import SIZES
from support.host_device import HostDevice
from support.host_gpus import HostGpus

CONFIG = EngineConfig(device_batch_max=1)


def choose(wanted: str, gpus: HostGpus):
    engine, choice = make_engine(replace(CONFIG, device=wanted), SIZES, EngineSettings(), gpus)
    engine.close()
    assert (engine.device is not None) == (choice.engine == "cuda")
    return choice


def test_cpu_looks_at_no_gpu():
    gpus = HostGpus("")
    assert choose("cpu", gpus).why == 'engine.device is "cpu"'
    assert gpus.opened == []


def test_auto_takes_the_first_gpu_that_works_and_says_why_not_the_others():
    choice = choose("auto", HostGpus("too old", ""))
    assert (choice.engine, choice.device) == ("cuda", "host shim (cuda:1)")
    assert choice.why == "cuda:0 does not work (too old); engine.device is auto, and a trial gave the CPU's bits"


def test_auto_takes_the_cpu_where_no_gpu_works():
    assert choose("auto", HostGpus("too old", "taken")).why == (
        "cuda:0 does not work (too old); cuda:1 does not work (taken)"
    )
    choice = choose("auto", HostGpus())
    assert (choice.engine, choice.device) == ("cpu", "cpu")
    assert choice.why == "no GPU can be used (the driver sees no GPU)"


def test_gpu_asked_for_by_index_is_taken_or_refused():
    assert choose("cuda:1", HostGpus("too old", "")).device == "host shim (cuda:1)"
    with pytest.raises(DeviceError, match="too old"):
        choose("cuda", HostGpus("too old", ""))
    with pytest.raises(DeviceError, match=r'must be a GPU of this host, "cuda:0" alone, was \'cuda:1\''):
        choose("cuda:1", HostGpus(""))
    with pytest.raises(DeviceError, match=r'"cuda:0" to "cuda:2", was \'cuda:9\''):
        choose("cuda:9", HostGpus("", "", ""))


def test_gpu_that_predicts_other_bits_is_not_taken_and_closed(monkeypatch):
    right = trial.run_predictions

    def wrong(*arguments, **keywords):
        forecasts = right(*arguments, **keywords)
        forecasts[-1, 0, 0] += 1e-9
        return forecasts

    monkeypatch.setattr(trial, "run_predictions", wrong)
    gpus = HostGpus("")
    choice = choose("auto", gpus)
    assert choice.engine == "cpu"
    assert "host shim predicts other bits than the CPU, by up to 9.9" in choice.why
    assert gpus.opened[0]._closed


def test_gpu_that_never_completes_is_not_taken(monkeypatch):
    monkeypatch.setattr(trial, "_WAIT_S", 0.05)
    gpus = HostGpus("")
    opened = gpus.open

    def hung(index):
        device = opened(index)
        device.hang()
        return device

    monkeypatch.setattr(gpus, "open", hung)
    assert "did not complete a first micro-batch within 0.05 s" in choose("auto", gpus).why


def test_trial_with_half_weights_agrees_too():
    device = HostDevice()
    trial.prove(device, SIZES, half=True)
    device.close()
    assert device.overruns() == []


def test_settings_are_those_of_the_configuration():
    config = EngineConfig(
        device_mode="resident", device_transfer="in_place", device_weights="float16", device_timeout_ms=7
    )
    settings = device_settings(config, Idle.SPIN)
    assert (settings.mode, settings.transfer, settings.half) == (Mode.RESIDENT, Transfer.IN_PLACE, True)
    assert (settings.timeout_ns, settings.batch_max) == (7_000_000, 1024)
    assert device_settings(config, Idle.BLOCK).spin_ns < settings.spin_ns


def test_host_without_cuda_gets_the_cpu_and_the_reason():
    try:
        CudaGpus().count()
    except DeviceError as error:
        reason = str(error)
    else:
        pytest.skip("this host has a GPU")
    engine, choice = make_engine(CONFIG, SIZES, EngineSettings())
    engine.close()
    assert choice.why == f"no GPU can be used ({reason})"
    assert "install" in reason
