"""Recordings that no model can be made of: one sentence with name, value and mend, and no file left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from penstock.v1.records import UNDEFINED_PRICE
from penstock_client.files import write_dbn
from penstock_client.instruments import Instrument
from penstock_kernels.model_file import load_model
from penstock_tuning.model.cli import main
from support.tick_arrays import quotes

SMALL = ["--units", "16", "--fan-in", "2", "--memory-averages", "none", "--memory-lags", "0"]


def refusal(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence of a fit that was refused and left nothing."""
    there = sorted(folder.iterdir())
    assert main(["fit", *arguments, *SMALL, "--out", str(folder / "m.safetensors")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert told.err.count("\n") == 1
    assert sorted(folder.iterdir()) == there
    return told.err


def written(path: Path, ticks: np.ndarray, *symbols: str) -> str:
    write_dbn(path, ticks, [Instrument(index + 1, symbol) for index, symbol in enumerate(symbols)], "TEST")
    return str(path)


def test_file_without_a_wanted_instrument_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = written(tmp_path / "both.dbn", quotes(3_000, (1, 2)), "AAA", "BBB")
    one = written(tmp_path / "one.dbn", quotes(3_000, (1,), seed=1), "AAA")
    told = refusal([both, one, "--instruments", "AAA,BBB"], tmp_path, capsys)
    assert "one.dbn: instruments: no instrument has this name: 'BBB'; take from TEST:AAA" in told


def test_recording_too_short_for_its_horizon_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = written(tmp_path / "short.dbn", quotes(8_000), "AAA")
    told = refusal([ticks, "--horizons", "700ms"], tmp_path, capsys)
    assert "too few ticks with labels" in told
    assert "horizons=700ms; give more or longer files, or shorter horizons" in told
    assert "leave out the longest horizon" in refusal([ticks, "--horizons", "next,10min"], tmp_path, capsys)


def test_quotes_that_never_change_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = quotes(5_000)
    for name in ("bid_px", "ask_px", "bid_sz", "ask_sz"):
        ticks[name] = ticks[name][0]
    flat = written(tmp_path / "flat.dbn", ticks, "AAA")
    assert "the mid never moves" in refusal([flat], tmp_path, capsys)
    assert "the mid never moves up within horizon '50ev'" in refusal([flat, "--horizons", "50ev"], tmp_path, capsys)


def test_label_that_never_moves_one_way_is_refused_by_horizon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = quotes(6_000)
    ticks["bid_px"] = 10**12 + 10**7 * np.arange(len(ticks))
    ticks["ask_px"] = ticks["bid_px"] + 10**7
    rising = written(tmp_path / "rising.dbn", ticks, "AAA")
    told = refusal([rising, "--horizons", "next,5ev"], tmp_path, capsys)
    assert "never moves down within horizon 'next'" in told
    assert "downs=0; give more ticks or a longer horizon" in told


def test_tables_of_nan_are_undefined_prices_and_refused_where_nothing_else_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 5_000
    nothing = np.full(count, np.nan)
    columns = {"ts_recv": np.arange(count) * 10**6 + 10**18, "bid_px": nothing, "ask_px": nothing}
    parquet.write_table(pa.table(columns), tmp_path / "nan.parquet")
    csv.write_csv(pa.table(columns), tmp_path / "nan.csv")
    for name in ("nan.parquet", "nan.csv"):
        told = refusal([str(tmp_path / name), "--columns", "price_unit=decimal"], tmp_path, capsys)
        assert "no tick has a label for every horizon" in told


def test_single_nan_prices_leave_the_model_finite(tmp_path: Path) -> None:
    ticks = quotes(6_000)
    prices = {name: ticks[name] / 1e9 for name in ("bid_px", "ask_px")}
    for column in prices.values():
        column[::7] = np.nan
    columns = {"ts_recv": ticks["ts_recv"], **prices, "bid_sz": ticks["bid_sz"], "ask_sz": ticks["ask_sz"]}
    parquet.write_table(pa.table(columns), tmp_path / "holes.parquet")
    assert np.count_nonzero(np.isnan(columns["bid_px"])) > 800
    out = tmp_path / "m.safetensors"
    arguments = ["--columns", "price_unit=decimal", "--horizons", "5ev", "--out", str(out)]
    assert main(["fit", str(tmp_path / "holes.parquet"), *SMALL, *arguments]) == 0
    assert np.isfinite(load_model(out).model.readout).all()


def test_files_with_one_sided_books_throughout_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = quotes(5_000)
    ticks["ask_px"] = UNDEFINED_PRICE
    told = refusal([written(tmp_path / "bids.dbn", ticks, "AAA")], tmp_path, capsys)
    assert "no tick has a label" in told


def test_penalty_of_nothing_where_columns_depend_on_each_other_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = quotes(6_000)
    ticks["bid_sz"] = ticks["ask_sz"] = 0
    file = written(tmp_path / "a.dbn", ticks, "AAA")
    assert "raise the penalty" in refusal([file, "--penalty", "0", "--no-recurrence"], tmp_path, capsys)


def test_full_disk_under_the_temporary_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "a.dbn", quotes(6_000), "AAA")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    told = refusal([file], tmp_path, capsys)
    assert "can't be laid out in temporary files" in told
    assert "set TMPDIR to a folder with more" in told


def test_reservoir_whose_memory_does_not_fade_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = written(tmp_path / "day.dbn", quotes(6_000), "AAA")
    chaotic = ["--spectral-radius", "2", "--leak", "1", "--bias-scale", "0", "--input-scale", "0.001", "--fan-in", "8"]
    arguments = ["fit", ticks, "--units", "128", *chaotic, "--out", str(tmp_path / "m.safetensors")]
    assert main(arguments) == 2
    assert "memory does not fade" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["day.dbn"]
    assert main([*arguments[:4], *chaotic[2:], *arguments[-2:]]) == 0
    assert "what a state was halves every" in described(tmp_path / "m.safetensors", capsys)


def described(model: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["describe", str(model)]) == 0
    return capsys.readouterr().out
