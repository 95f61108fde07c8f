"""Recorded ticks have one prediction hash: in any client and daemon process, hash seed, batch split and speed.

Each stretch of about 20,000 ticks is replayed by commands in processes of their own that differ in all of these at
once; a hash that depended on any would show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support.daemon import RunningDaemon, running_daemon, small_model

pytestmark = pytest.mark.recorded

RecordedFile = Callable[[str], Path]

USDM = "binance_usdm_20240808.mbp-1.dbn.zst"
SPOT = "binance_spot_btcusdt_20240808.mbp-1.dbn.zst"
EURUSD = "fxcm_eurusd_20140508.mbp-1.dbn.zst"
TICKS_MIN = 15_000


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningDaemon, RunningDaemon]]:
    """Two daemons that serve one model, with different hash seeds and ways to idle."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    sets = (f"models.active={small_model(folders[0], 11)}", "models.units_max=64")
    with (
        running_daemon(folders[0], *sets, environment={"PYTHONHASHSEED": "0"}) as first,
        running_daemon(
            folders[1], *sets, "engine.idle=spin_then_sleep", environment={"PYTHONHASHSEED": "12345"}
        ) as second,
    ):
        assert first.pid != second.pid
        yield first, second


def replayed(daemon: RunningDaemon, seed: str, *arguments: str) -> dict[str, object]:
    """Run ``penstock replay`` in a process of its own with a hash seed, check its account and return its figures."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock_client.cli", "replay", "--json", "--to", daemon.address, *arguments],
        capture_output=True, text=True, check=False, timeout=90, env=os.environ | {"PYTHONHASHSEED": seed},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert figures["ticks"] == figures["predictions"]
    assert (figures["errors"], figures["lost"]) == (0, 0)
    return figures


def one_hash(
    daemons: tuple[RunningDaemon, RunningDaemon], speed: str, folder: Path, *arguments: str
) -> dict[str, object]:
    """Replay in ways that differ in everything that must not matter, and return the figures of the first."""
    first, second = daemons
    paths = [str(folder / f"{number}.npy") for number in range(3)]
    runs = [
        replayed(first, "0", *arguments, "--speed", "max", "--out", paths[0]),
        replayed(second, "12345", *arguments, "--speed", "max", "--batch-splits", "1", "--out", paths[1]),
        replayed(first, "12345", *arguments, "--speed", speed, "--batch-splits", "2", "--out", paths[2]),
    ]
    assert len({run["prediction_hash"] for run in runs}) == 1
    assert len({run["ticks"] for run in runs}) == 1
    predictions = [np.load(path, allow_pickle=False) for path in paths]
    for name in ("sequence", "instrument_id", "ts_event", "ts_recv", "forecasts"):
        assert all((other[name] == predictions[0][name]).all() for other in predictions[1:]), name
    assert len(np.unique(predictions[0]["forecasts"]["expected_return"][:, 0])) > 1000, "they say something"
    return runs[0]


@pytest.mark.parametrize(
    ("name", "seconds", "speed"),
    [(USDM, "30", "50"), (SPOT, "160", "50"), (EURUSD, "900", "600")],  # EUR/USD at 50x would take 18 s.
    ids=["usdm", "spot", "eurusd"],
)
def test_a_recorded_stretch_has_one_hash_everywhere(
    daemons, recorded_file: RecordedFile, tmp_path, name, seconds, speed
):
    figures = one_hash(daemons, speed, tmp_path, str(recorded_file(name)), "--start-busiest", "--seconds", seconds)
    assert figures["ticks"] > TICKS_MIN


def test_a_filtered_stretch_has_one_hash_everywhere(daemons, recorded_file: RecordedFile, tmp_path):
    path = str(recorded_file(USDM))
    arguments = (path, "--instruments", "ETHUSDT", "--start-busiest", "--seconds", "90")
    figures = one_hash(daemons, "50", tmp_path, *arguments)
    assert figures["ticks"] > TICKS_MIN
    assert [one["symbol"] for one in figures["instruments"]] == ["ETHUSDT"]


def test_merged_files_have_one_hash_everywhere(daemons, recorded_file: RecordedFile, tmp_path):
    paths = (str(recorded_file(USDM)), str(recorded_file(SPOT)))
    datasets = ("--dataset", "BINANCE.USDM", "--dataset", "BINANCE.SPOT")
    figures = one_hash(daemons, "50", tmp_path, *paths, *datasets, "--start-busiest", "--seconds", "30")
    assert figures["ticks"] > TICKS_MIN
    assert [one["symbol"] for one in figures["instruments"]] == ["BTCUSDT", "ETHUSDT", "BTCUSDT"]
