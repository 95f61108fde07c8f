"""Search: past blocks alone decide, hopeless trials are pruned, workers share one file, a stopped search goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from penstock_client.files import write_dbn
from penstock_kernels.model_file import load_model
from penstock_tuning.model.block_pass import block_boundaries
from penstock_tuning.model.cli import main
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.recordings import Recordings, market_recording
from penstock_tuning.model.search_space import MEMORIES, Space, draw_settings, draws_of, settings_of_draws
from penstock_tuning.model.setting_options import fields_of, settings_as_json
from penstock_tuning.model.settings import FIRST_TEST, SEARCH_BLOCKS, FitSettings
from penstock_tuning.model.trial import held_out, past_of, run_trial
from support.simulated import market

SMALL = FitSettings(units=16, fan_in=2, horizons=parse_horizons("next"), penalties=(0.1, 10.0))
SEARCH = ["--horizons", "next", "--units-tried", "16,32", "--units", "16", "--fan-in", "2", "--penalty", "0.1,10"]


def recordings(ticks: np.ndarray | None = None) -> Recordings:
    return market_recording(market() if ticks is None else replace(market(), ticks=ticks), "market 1")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "market.dbn.zst"
    write_dbn(path, market().ticks, market().instruments, "PENSTOCK.SIM")
    return str(path)


def test_trial_never_looks_past_the_blocks_of_the_search() -> None:
    boundary = block_boundaries(recordings())[SEARCH_BLOCKS - 1]
    late = market().ticks["ts_recv"] >= boundary
    ticks = market().ticks.copy()
    noise = np.random.default_rng(0)
    ticks["bid_px"][late] += noise.integers(-5, 5, np.count_nonzero(late)) * 10**9
    ticks["ask_px"][late] = ticks["bid_px"][late] + 10**9
    ticks["bid_sz"][late] = noise.integers(1, 9, np.count_nonzero(late))
    blocks: list[list[tuple[int, float]]] = []
    for one in (recordings(), recordings(ticks)):
        blocks.append([])
        value = run_trial(SMALL, past_of(one, SMALL.horizons), lambda block, so_far: blocks[-1].append((block, so_far)))
        assert blocks[-1][-1] == (SEARCH_BLOCKS - 1, value)
    assert blocks[0] == blocks[1]
    assert [block for block, _ in blocks[0]] == list(range(FIRST_TEST, SEARCH_BLOCKS))
    assert held_out(SMALL, recordings(), 10) != held_out(SMALL, recordings(ticks), 10)
    early = market().ticks.copy()
    early["bid_sz"][(early["ts_recv"] < boundary) & (np.arange(len(early)) % 3 == 0)] = 1
    assert run_trial(SMALL, past_of(recordings(early), SMALL.horizons)) != blocks[0][-1][1]


def test_draws_become_settings_and_settings_draws() -> None:
    space = Space((16, 32), 16)
    draws = draws_of(SMALL, space)
    assert settings_of_draws(draws, SMALL, space) == replace(SMALL, input_scale=0.5)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = [draw_settings(study.ask(), SMALL, space) for _ in range(30)]
    assert {one.units for one in found} == {16, 32}
    assert {one.memory_averages for one in found} == set(MEMORIES.values())
    assert {one.topology for one in found} == {"cyclic", "sparse"}
    assert all(one.horizons == SMALL.horizons and one.penalties == SMALL.penalties for one in found)
    for one in found[:5]:
        assert FitSettings(**fields_of(settings_as_json(one), "here")) == one


def test_workers_search_together_prune_and_their_best_can_be_fitted(file: str, tmp_path: Path) -> None:
    best = tmp_path / "best.json"
    assert main(["search", file, *SEARCH, "--trials", "12", "--workers", "2", "--out", str(best)]) == 0
    found = json.loads(best.read_bytes())
    counts = found["trials"]
    assert counts["complete"] + counts["pruned"] == 12
    assert counts["pruned"] > 0
    assert found["protocol"]["searched_blocks"] == [4, 7]
    assert found["protocol"]["held_out_blocks"] == [8, 10]
    study = optuna.load_study(
        study_name="penstock",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(f"{best}.study")),
    )
    assert study.best_value == pytest.approx(found["value"], rel=1e-5)
    assert study.trials[0].params["units"] == 16  # The settings given are tried first.
    pruned = [one for one in study.trials if one.state.name == "PRUNED"]
    assert all(max(one.intermediate_values) < SEARCH_BLOCKS for one in study.trials)
    assert any(max(one.intermediate_values) < SEARCH_BLOCKS - 1 for one in pruned)
    out = tmp_path / "m.safetensors"
    assert main(["fit", file, "--settings", str(best), "--seed", "5", "--out", str(out)]) == 0
    model = load_model(out).model
    assert (model.units, model.seed) == (found["settings"]["units"], 5)
    assert model.memory_lags == found["settings"]["memory_lags"]


def test_interrupted_search_keeps_its_trials_and_goes_on(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best.json"
    study = Path(f"{best}.study")
    command = ["search", file, *SEARCH, "--out", str(best)]
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock_tuning.model.cli", *command, "--trials", "10000"],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while process.poll() is None and not (study.exists() and study.read_bytes().count(b'"values":') >= 2):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # As Ctrl-C does.
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert b"Traceback" not in told
    assert f"{study} is kept: --resume goes on from it".encode() in told
    assert not best.exists()
    assert main([*command, "--trials", "4"]) == 2
    assert "give --resume to go on with it, or remove it" in capsys.readouterr().err
    assert main([*command, "--trials", "4", "--resume", "--penalty", "1"]) == 2
    assert "is of other files, settings or another version" in capsys.readouterr().err
    assert main([*command, "--trials", "4", "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trials"]["complete"] + found["trials"]["pruned"] >= 4
    assert json.loads(best.read_bytes())["value"] == found["value"]


@pytest.mark.parametrize("by", ["flag", "file"])
def test_first_trial_has_the_units_that_were_given(by: str, file: str, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    told.write_text(json.dumps({"units": 24, "fan_in": 2}))
    given = ["--units", "24", "--fan-in", "2"] if by == "flag" else ["--settings", str(told)]
    best = tmp_path / "best.json"
    arguments = ["--horizons", "next", "--units-tried", "16,32", "--penalty", "1", "--trials", "1", *given]
    assert main(["search", file, *arguments, "--out", str(best)]) == 0
    assert json.loads(best.read_bytes())["settings"]["units"] == 24


def test_missing_optuna_is_named_with_its_extra(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["search", file, "--out", str(tmp_path / "best.json")]) == 2
    assert "optuna, which is not installed: pip install 'penstock[train]'" in capsys.readouterr().err


def test_search_on_what_cannot_be_trained_on_is_refused_before_any_trial(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best.json"
    assert main(["search", file, "--horizons", "10min", "--out", str(best)]) == 2
    assert "no tick has a label for every horizon" in capsys.readouterr().err
    assert not best.exists()
    assert not Path(f"{best}.study").exists()
