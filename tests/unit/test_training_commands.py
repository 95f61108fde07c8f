"""penstock-train at the shell: files in, files out, sentences for mistakes, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock_client.files import open_ticks, write_dbn
from penstock_client.instruments import Instrument
from penstock_kernels.model_file import load_model
from penstock_tuning.model.cli import main
from support.simulated import market
from support.tick_arrays import quotes

FIT = ["--units", "32", "--fan-in", "4"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "market.dbn.zst"
    assert main(["simulate", "--seconds", "60", "--seed", "1", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def model(recording: Path) -> Path:
    path = recording.with_name("model.safetensors")
    assert main(["fit", str(recording), "--out", str(path), *FIT, "--name", "tried"]) == 0
    return path


def test_simulate_writes_the_market_of_its_seed(recording: Path) -> None:
    file = open_ticks(recording)
    assert file.ticks.tobytes() == market().ticks.tobytes()
    assert file.dataset == "PENSTOCK.SIM"
    assert [(one.symbol, one.size_scale) for one in file.instruments] == [("SIMA", 1000), ("SIMB", 1000)]


def test_simulate_tells_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seconds", "2", "--instruments", "3", "--out", str(tmp_path / "m.dbn"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["instruments"] == ["SIMA", "SIMB", "SIMC"]
    assert told["ticks"] == len(open_ticks(tmp_path / "m.dbn").ticks)


def test_model_trained_on_simulated_ticks_is_always_a_demonstration(model: Path) -> None:
    loaded = load_model(model).model
    assert loaded.name == "tried"
    assert loaded.demonstration
    assert "never trade on it" in loaded.notice


def test_fit_gives_the_same_bytes_in_other_processes_with_other_threads(recording: Path, model: Path) -> None:
    command = ["fit", str(recording), *FIT, "--name", "tried", "--out"]
    for threads in ("1", "2"):
        again = model.with_name(f"again{threads}.safetensors")
        subprocess.run(
            [sys.executable, "-m", "penstock_tuning.model.cli", *command, str(again)],
            check=True,
            capture_output=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        assert again.read_bytes() == model.read_bytes()


def test_order_of_files_does_not_matter_and_time_does(tmp_path: Path) -> None:
    ticks, instruments = market().ticks, market().instruments
    half = len(ticks) // 2
    write_dbn(tmp_path / "a.dbn", ticks[half:], instruments, "PENSTOCK.SIM")
    write_dbn(tmp_path / "b.dbn", ticks[:half], instruments, "PENSTOCK.SIM")
    for name, order in (("one", "ab"), ("two", "ba")):
        files = [str(tmp_path / f"{letter}.dbn") for letter in order]
        assert main(["fit", *files, "--out", str(tmp_path / f"{name}.safetensors"), *FIT]) == 0
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    data = load_model(tmp_path / "one.safetensors").model.training["data"]
    assert [one["name"] for one in data] == ["b.dbn", "a.dbn"]


def test_fit_prints_skill_with_the_imbalance_beside_it(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(recording), "--out", str(tmp_path / "m.safetensors"), *FIT, "--instruments", "SIMB"]) == 0
    told = capsys.readouterr().out
    assert "imbalance" in told
    assert "No figure includes costs" in told
    assert load_model(tmp_path / "m.safetensors").model.training["data"][0]["instruments"] == ["PENSTOCK.SIM:SIMB"]


def test_describe_tells_data_skill_and_notice(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(model)]) == 0
    told = capsys.readouterr().out
    for part in ("tried", "never trade on it", "32 units", "market.dbn.zst", "imbalance", "next", "100ms", "50ev"):
        assert part in told
    assert main(["describe", str(model), "--json"]) == 0
    told_json = json.loads(capsys.readouterr().out)
    assert told_json["content_hash"] == load_model(model).content_hash.hex()
    assert told_json["training"]["skill"]["next"]["direction_auc"]["queue_imbalance"] > 0.5


def test_help_has_examples_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["simulate"], ["fit"], ["search"], ["describe"], ["default"]):
        assert main([*command, "--help"]) == 0
        assert "penstock-train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "none.dbn", "--out", "m.safetensors"], "none.dbn: can't be read"),
        (["fit", "MARKET", "--out", "m.bin"], "out must end in .safetensors: out=m.bin"),
        (["fit", "MARKET", "--out", "none/m.safetensors"], "make the folder first"),
        (["fit", "MARKET", "--out", "m.safetensors", "--horizons", "soon"], "'soon' is not understood"),
        (["fit", "MARKET", "--out", "m.safetensors", "--units", "4"], "units must be 16 to 8192: units=4"),
        (["fit", "MARKET", "--out", "m.safetensors", "--instruments", "XYZ"], "no instrument has this name"),
        (["fit", "MARKET", "MARKET", "--out", "m.safetensors"], "two files hold the same bytes"),
        (["fit", "MARKET", "--out", "m.safetensors", "--name", ""], "name must be 1 to 64 printable characters"),
        (["fit", "SHORT", "--out", "m.safetensors"], "no tick has a label for every horizon"),
        (
            ["fit", "MARKET", "--out", "m.safetensors", "--spectral-radius", "0"],
            "--no-recurrence gives the baseline W0",
        ),
        (["fit", "MARKET", "--out", "m.safetensors", "--fan-in", "32", "--units", "32"], "fan-in=32, units=32"),
        (["fit", "MARKET", "--out", "m.safetensors", "--leak", "1.5"], "leak must be above 0 and at most 1: leak=1.5"),
        (
            ["fit", "MARKET", "--out", "m.safetensors", "--penalty", "1,-1"],
            "penalty must not be negative: penalty=1,-1",
        ),
        (["fit", "MARKET", "--out", "m.safetensors", "--penalty", "x"], "penalty must be numbers"),
        (["fit", "MARKET", "--out", "m.safetensors", "--horizons", "1s,100ms"], "horizons of one kind must grow"),
        (["fit", "MARKET", "--out", "m.safetensors", "--time-constants", "3"], "time constants must be two numbers"),
        (["fit", "MARKET", "--out", "m.safetensors", "--settings", "CUT"], "can't be read as JSON"),
        (["search", "MARKET", "--out", "best.txt"], "out must end in .json: out=best.txt"),
        (["search", "MARKET", "--out", "best.json", "--trials", "0"], "trials must be 1 to 100000: trials=0"),
        (["search", "MARKET", "--out", "best.json", "--workers", "0"], "workers must be 1 to 256: workers=0"),
        (["search", "MARKET", "--out", "best.json", "--units-tried", "8"], "units tried must be 16 to 8192"),
        (["fit", "CUT", "--out", "m.safetensors"], "cut"),
        (["describe", "MARKET"], "model file is refused"),
        (["describe", "none.safetensors"], "model file can't be read"),
        (["simulate", "--out", "m.csv"], "end the name in .dbn or .dbn.zst"),
        (["simulate", "--out", "none/m.dbn"], "make the folder first"),
        (["simulate", "--out", "m.dbn", "--seconds", "0"], "seconds must be above 0"),
        (["simulate", "--out", "m.dbn", "--signal", "2"], "signal must be from 0"),
        (["simulate", "--out", "m.dbn", "--instruments", "99"], "instruments must be from 1 to 64: instruments=99"),
        (["simulate", "--out", "m.dbn", "--seed", "x"], "invalid int value: 'x'"),
        (["teach"], "invalid choice: 'teach'"),
        ([], "COMMAND"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2_and_leaves_no_file(
    arguments: list[str],
    sentence: str,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dbn("short.dbn", quotes(500), [Instrument(1, "ONE")], "TEST")
    Path("cut.dbn.zst").write_bytes(recording.read_bytes()[:-1000])
    there = set(tmp_path.iterdir())
    names = {"MARKET": str(recording), "SHORT": "short.dbn", "CUT": "cut.dbn.zst"}
    assert main([names.get(one, one) for one in arguments]) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert "Traceback" not in told.err
    assert set(tmp_path.iterdir()) == there


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert main(["describe", "any.safetensors"]) == 2
    assert "numba, which is not installed: pip install 'penstock[train]'" in capsys.readouterr().err


def test_csv_with_a_column_mapping_can_be_trained_on(tmp_path: Path) -> None:
    ticks = market().ticks[market().ticks["instrument_id"] == 1]
    ticks = ticks[(ticks["bid_sz"] > 0) & (ticks["ask_sz"] > 0)]
    rows = ["time,bid,ask,bidsize,asksize"]
    rows += [
        f"{one['ts_recv']},{one['bid_px'] / 1e9},{one['ask_px'] / 1e9},{one['bid_sz']},{one['ask_sz']}" for one in ticks
    ]
    (tmp_path / "quotes.csv").write_text("\n".join(rows) + "\n")
    mapping = "ts_recv=time,price_unit=decimal,bid_px=bid,ask_px=ask,bid_sz=bidsize,ask_sz=asksize"
    out = tmp_path / "quotes.safetensors"
    assert main(["fit", str(tmp_path / "quotes.csv"), "--columns", mapping, "--out", str(out), *FIT]) == 0
    model = load_model(out).model
    assert "trade" not in model.features
    assert not model.demonstration
    assert model.training["skill"]["next"]["direction_auc"]["model"] > 0.55


def test_output_that_nobody_reads_on_is_no_error(model: Path) -> None:
    command = f"{sys.executable} -m penstock_tuning.model.cli describe {model} --json | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_recorded_binance_file_is_foretold_better_than_by_its_imbalance(recorded_file, tmp_path: Path) -> None:
    path = recorded_file("binance_usdm_20240808.mbp-1.dbn.zst")
    out = tmp_path / "binance.safetensors"
    assert main(["fit", str(path), "--out", str(out), "--units", "128", "--horizons", "next,100ms"]) == 0
    model = load_model(out).model
    assert not model.demonstration
    for one in model.training["skill"]["next"]["direction_auc_by_instrument"].values():
        assert one["model"] > one["queue_imbalance"] + 0.01
    assert model.training["skill"]["100ms"]["return_r2"]["model"] > 0.2
    assert np.isfinite(model.readout).all()
