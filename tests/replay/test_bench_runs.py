"""Every benchmark once, with a few ticks of a simulated market: its JSON has the promised keys, its raw times agree."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock_kernels.predictor  # noqa: F401 - Fills the cache of compiled kernels, which the start-up test copies.
from penstock_tuning.bench import cli, shm, startup
from penstock_tuning.bench.figures import latency_figures
from penstock_tuning.bench.processes import scratch_folder
from penstock_tuning.bench.settings import Bench
from penstock_tuning.market.recording import write_market
from penstock_tuning.market.settings import MarketSettings

LATENCY_KEYS = {"p50_us", "p95_us", "p99_us", "p999_us", "max_us", "share_within_5ms"}
LOAD_KEYS = LATENCY_KEYS | {
    *("ticks", "predictions", "refused", "lost", "share_within_5ms_outside_stalls", "probe_max_us", "repeats"),
}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "market.dbn"
    write_market(path, MarketSettings(ticks_per_second=1000), 2.0)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = cli.main([*arguments, "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    assert found["benchmark"] == arguments[0]
    assert found["machine"]["processor"]
    assert found["machine"]["date"]
    return found


def test_grpc_compares_both_sides_in_turn(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "grpc.npy"
    few = ("--trips", "70", "--block", "20", "--repeat", "2")
    found = run(capsys, "grpc", "--ticks", str(market), *few, "--raw", str(raw))
    rows = np.load(raw)
    assert [np.count_nonzero(rows["series"] == series) for series in range(4)] == [70] * 4
    for number, repeat in enumerate(found["repeats"]):
        for side, name in enumerate(("bare", "penstock")):
            mine = rows[rows["series"] == 2 * number + side]
            figures = latency_figures(mine["scheduled"], mine["received"])
            assert repeat[f"{name}_p50_us"] == figures["p50_us"]
            assert repeat[f"{name}_p99_us"] == figures["p99_us"]
        assert repeat["p50_ratio"] == round(repeat["penstock_p50_us"] / repeat["bare_p50_us"], 4)
        assert repeat["p99_ratio"] == round(repeat["penstock_p99_us"] / repeat["bare_p99_us"], 4)
    assert found["p50_ratio"] == np.mean([repeat["p50_ratio"] for repeat in found["repeats"]])
    assert found["trips"] == 140
    rows = rows[:140]
    order = np.argsort(rows["sent"], kind="stable")
    turns = np.flatnonzero(np.diff(rows["series"][order])) + 1
    assert turns.tolist() == [20, 60, 100, 130]  # 20 of one side, then pairs of blocks in turn, then the short ones.


def test_load_gives_the_figures_of_its_raw_times(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "load.npy"
    found = run(
        capsys, "load", "--ticks", str(market), "--seconds", "0.3", "--speed", "1", "--repeat", "2", "--raw", str(raw)
    )
    assert found.keys() >= LOAD_KEYS
    rows = np.load(raw)
    assert found["ticks"] == found["predictions"] == len(rows) > 0
    assert (found["refused"], found["lost"]) == (0, 0)
    assert len(found["repeats"]) == 2
    for number, repeat in enumerate(found["repeats"]):
        mine = rows[rows["series"] == number]
        figures = latency_figures(mine["scheduled"], mine["received"])
        assert {key: repeat[key] for key in LATENCY_KEYS} == {key: figures[key] for key in LATENCY_KEYS}
        outside = mine[mine["stalled"] == 0]
        assert repeat["ticks_in_stalls"] == len(mine) - len(outside)
        share = np.count_nonzero(outside["received"] - outside["scheduled"] <= 5_000_000) / max(len(outside), 1)
        assert repeat["share_within_5ms_outside_stalls"] == share
    assert found["p50_us"] == np.median([repeat["p50_us"] for repeat in found["repeats"]])


def test_feed_gives_the_figures_of_its_raw_times(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "feed.npy"
    found = run(capsys, "feed", "--ticks", str(market), "--seconds", "0.3", "--repeat", "1", "--raw", str(raw))
    assert found.keys() >= LATENCY_KEYS | {f"delivery_{key}" for key in LATENCY_KEYS} | {"player_late_p99_us", "stalls"}
    rows = np.load(raw)
    assert found["messages"] == found["predictions"] == len(rows) > 0
    assert (found["lost"], found["gaps"], found["unstamped"], found["unsound"]) == (0, 0, 0, 0)
    for prefix, end in (("", "sent"), ("delivery_", "received")):
        figures = latency_figures(rows["scheduled"], rows[end])
        assert {key: found[f"{prefix}{key}"] for key in LATENCY_KEYS} == {key: figures[key] for key in LATENCY_KEYS}
    assert found["payload"] == "dbn"


def test_shm_compares_every_side_in_one_run(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "shm.npy"
    few = ("--trips", "50", "--count", "5000", "--seconds", "0.2", "--repeat", "1")
    found = run(capsys, "shm", "--ticks", str(market), *few, "--raw", str(raw))
    assert (found["lost"], found["replay_lost"]) == (0, 0)
    assert found["predictions_per_s"] > 0
    rows = np.load(raw)
    for series, side in enumerate(shm.SIDES):
        mine = rows[rows["series"] == series]
        assert len(mine) == (10 if side in {"grpc", "blocking"} else 50)
        assert found[f"{side}_p50_us"] == latency_figures(mine["scheduled"], mine["received"])["p50_us"]
    assert found["speedup_p50"] == round(found["grpc_p50_us"] / found["rtt_p50_us"], 2)
    assert found["ratio_to_floor"] == round(found["rtt_p50_us"] / (found["echo_p50_us"] + found["step_us"]), 3)


def test_throughput_counts_every_prediction(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "throughput.npy"
    found = run(capsys, "throughput", "--ticks", str(market), "--count", "9000", "--repeat", "2", "--raw", str(raw))
    assert found["ticks"] == found["predictions"] == 18_000
    assert (found["refused"], found["lost"]) == (0, 0)
    assert min(found["grpc_predictions_per_s"], found["in_process_predictions_per_s"]) > 0
    rows = np.load(raw)
    assert np.all(rows["received"] >= rows["sent"])
    rates = []
    for number in range(2):
        mine = rows[rows["series"] == number]
        rates.append(len(mine) / ((mine["received"].max() - mine["sent"].min()) / 1e9))
    assert found["grpc_predictions_per_s"] == pytest.approx(np.median(rates), rel=0.05)


def test_memory_names_what_it_counted(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "memory", "--ticks", str(market), "--count", "3000")
    assert found["engine_allocations"] == 0
    assert found["engine_ticks_counted"] == 3000
    assert found["loop_messages_counted"] == 3000
    assert found["loop_blocks_kept_per_message"] < 0.5
    assert found["lost"] == 0
    assert found["bytes_per_state"] > found["bytes_per_state_used_by_model"] > 4096
    assert found["resident_mib"] > 10


def test_startup_tells_the_first_start_from_the_cached_ones() -> None:
    with scratch_folder() as folder:
        compiled = Path(os.environ["NUMBA_CACHE_DIR"])
        shutil.copytree(compiled, folder / "cache" / "compiled" / compiled.name)  # Else this test would compile.
        outcome = startup.measure(startup.StartupSettings(repeat=1), Bench(folder))
    figures = outcome.figures
    assert 0 < figures["first_serving_s"] <= figures["first_prediction_s"]
    assert 0 < figures["second_serving_s"] <= figures["second_prediction_s"]
    assert len(figures["repeats"]) == len(outcome.raw[0]) == 2
