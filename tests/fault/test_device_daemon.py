"""penstockd on a GPU, which is lost while it serves: the kernels run on this host in the GPU's place."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1.records import PredictionFlag
from penstock_kernels.model_file import load_model
from penstock_kernels.predictor import pack
from support.daemon import RunningDaemon, launch_daemon, running_daemon, small
from support.engines import driven
from support.raw_stream import RawStream
from support.scrape import scrape
from support.tick_stream import tick_stream

TICKS = tick_stream(83, 240)
HALF = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def daemon(folder: Path, repository_root: Path) -> Iterator[RunningDaemon]:
    sets = (
        "engine.device=cuda",
        "engine.device_batch_max=4",
        "engine.device_timeout_ms=10000",  # A busy host must not look like a lost GPU.
        "sessions.max=2",
        "sessions.states_max=2",
        "metrics.address=127.0.0.1:0",
    )
    environment = {"PYTHONPATH": str(repository_root / "tests")}
    with running_daemon(folder, *small(folder, *sets), module="support.host_gpus", environment=environment) as daemon:
        yield daemon


def test_gpu_serves_the_cpu_s_bits_and_its_loss_costs_no_tick(daemon, folder):
    (serving,) = daemon.events("serving")
    assert (serving["engine"], serving["device"]) == ("cuda", "host shim (cuda:0)")
    assert serving["device_why"] == 'engine.device is "cuda", and a trial gave the CPU\'s bits'

    packed = pack(load_model(folder / "random-1.safetensors").model)
    forecasts, _ = driven(packed, TICKS)
    with RawStream(daemon.address) as stream:
        stream.hello()
        stream.ticks(TICKS[:HALF])
        first = stream.predictions(HALF)
        shown = scrape(daemon)
        assert shown["penstock_device_degraded"] == 0
        assert shown["penstock_device_ticks_total"] == HALF
        assert shown["penstock_device_eager_launches_total"] == shown["penstock_device_allocations_total"] == 0

        os.kill(daemon.pid, signal.SIGUSR1)
        stream.ticks(TICKS[HALF:])
        second = stream.predictions(len(TICKS) - HALF)
    answers = np.concatenate([first, second])
    assert list(answers["sequence"]) == list(range(len(TICKS)))
    horizons = 3
    assert np.array_equal(first["forecasts"][:, :horizons], forecasts[:HALF, :horizons])
    assert not np.any(first["flags"] & PredictionFlag.DEGRADED)
    assert np.all(second["flags"] & PredictionFlag.DEGRADED)
    # The states are rebuilt from the journal, whose ticks are few here: what they forgot fades with each further tick.
    expected, got = (one[-40:]["expected_return"][:, :horizons] for one in (forecasts, second["forecasts"]))
    assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()

    deadline_s = time.monotonic() + 60
    while not daemon.events("device_lost"):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    shown = scrape(daemon)
    assert (shown["penstock_device_degraded"], shown["penstock_serving"]) == (1, 1)
    (lost,) = daemon.events("device_lost")
    assert lost["level"] == "warning"


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_gpu_that_dies_while_it_warms_up_is_the_cpus_turn_or_ends_the_start_where_it_was_named(
    tmp_path, repository_root, wanted
):
    environment = {"PYTHONPATH": str(repository_root / "tests"), "HOST_GPU_DIES_AFTER": "60"}
    arguments = (*small(tmp_path, f"engine.device={wanted}", "engine.device_batch_max=4"),)
    daemon = launch_daemon(tmp_path, *arguments, module="support.host_gpus", environment=environment)
    if wanted == "cuda":
        assert daemon.process.wait(300) == 2
        assert "penstockd: engine.device: the device failed while it warmed up" in daemon.output()
        return
    try:
        deadline_s = time.monotonic() + 300
        while not daemon.events("device_lost"):
            assert time.monotonic() < deadline_s
            assert daemon.process.poll() is None
            time.sleep(0.02)
        (refused,) = daemon.events("device_refused")
        assert "while it warmed up" in refused["detail"]
        packed = pack(load_model(tmp_path / "random-1.safetensors").model)
        with RawStream(daemon.events("serving")[0]["address"]) as stream:
            stream.hello()
            stream.ticks(TICKS)
            answers = stream.predictions(len(TICKS))
        horizons = 3
        assert np.array_equal(answers["forecasts"][:, :horizons], driven(packed, TICKS)[0][:, :horizons])
        assert np.all(answers["flags"] & PredictionFlag.DEGRADED)
    finally:
        daemon.process.terminate()
        daemon.process.wait(60)


def test_gpu_that_is_not_there_is_refused_at_the_start_in_one_sentence(tmp_path):
    daemon = launch_daemon(tmp_path, *small(tmp_path, "engine.device=cuda:99"))
    assert daemon.process.wait(60) == 2
    (sentence,) = [line for line in daemon.output().splitlines() if line.startswith("penstockd: ")]
    assert sentence.startswith("penstockd: engine.device: ")
    assert "install" in sentence or "must be a GPU of this host" in sentence
    assert "Traceback" not in daemon.output()
