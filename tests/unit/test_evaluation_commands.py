"""penstock-train evaluate as a person runs it: tables, JSON, the page, a model file as it is, and bad input."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from penstock_client.files import write_dbn
from penstock_client.instruments import Instrument
from penstock_kernels.model_file import save_model
from penstock_tuning.model.baselines import BASELINES
from penstock_tuning.model.cli import _parser, main
from penstock_tuning.model.evaluate import EvaluateSettings, evaluate
from penstock_tuning.model.evaluate_command import run_evaluate
from penstock_tuning.model.evaluation_page import page
from penstock_tuning.model.evaluation_text import evaluation_lines
from penstock_tuning.model.recordings import open_recordings
from penstock_tuning.model.settings import FitSettings
from support.simulated import market, of_instrument, small_model
from support.tick_arrays import quotes

SMALL = [
    "--units",
    "16",
    "--fan-in",
    "3",
    "--memory-averages",
    "3",
    "--memory-lags",
    "1",
    "--penalty",
    "1",
    "--threads",
    "1",
]
TICKS = 4_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "market.dbn.zst"
    write_dbn(path, market().ticks[: 2 * TICKS], market().instruments, "PENSTOCK.SIM")
    return path


@pytest.fixture(scope="module")
def model(recording: Path) -> Path:
    path = recording.with_name("small.safetensors")
    save_model(replace(small_model(), demonstration=True, notice="Made of a market: never trade on it."), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def report(recording: Path) -> dict[str, Any]:
    """Give an evaluation with every baseline."""
    settings = FitSettings(units=16, fan_in=3, memory_averages=(3.0,), memory_lags=1, penalties=(0.01, 1.0))
    recordings = open_recordings([str(recording)], wanted=["SIMA"])
    asked = EvaluateSettings(fit=settings, targets="next,50ev", seeds=(1, 2))
    with threadpool_limits(1):  # Threads that wait for each other on a busy machine take minutes.
        return json.loads(json.dumps(evaluate(recordings, asked), allow_nan=False))


def test_every_baseline_stands_beside_the_model_with_an_interval(report) -> None:
    (instrument,) = report["instruments"]
    assert list(instrument["targets"]) == ["next", "50ev"]
    for name, target in instrument["targets"].items():
        expected = set(BASELINES) if name == "next" else set(BASELINES) - {"QI"}
        assert set(target["skill"]) == {"model", *expected}
        assert set(target["differences"]) == expected
        for one in target["skill"].values():
            assert one["interval"][0] < one["value"] < one["interval"][1]
            assert ("log_loss" in one) == (name == "next")
        for other, one in target["differences"].items():
            assert one["interval"][0] < one["interval"][1]
            assert one["value"] == pytest.approx(
                target["skill"]["model"]["value"] - target["skill"][other]["value"], abs=1e-5
            )
            assert set(one["seeds"]) == {"1", "2"}
        values = target["skill"]["model"]["seeds"].values()
        assert target["skill"]["model"]["value"] == pytest.approx(sum(values) / 2, abs=1e-5)
        assert target["skill"]["model"]["spread"] == pytest.approx(max(values) - min(values), abs=1e-5)
        assert target["skill"]["W0"]["seeds"].keys() == {"1", "2"}
        assert [one["block"] for one in target["blocks"]] == list(range(3, 10))
        assert sum(one["rows"] for one in target["blocks"]) == target["rows"]
        assert len(target["course"]["model"]) == 60
        assert target["course"]["model"][-1] == pytest.approx(target["skill"]["model"]["value"], abs=2e-3)
        for groups in target["bursts"].values():
            assert sum(one["rows"] for one in groups) == target["rows"]
        assert sum(one["rows"] for one in target["calibration"]) == target["rows"]
        assert np.isfinite(list(instrument["weights"][name]["groups"].values())).all()
    assert report["data"][0]["name"] == "market.dbn.zst"


def test_text_and_page_tell_all_of_it_and_that_none_is_profit(report) -> None:
    text = "\n".join(evaluation_lines(report))
    made = page(report)
    for found in (text, made):
        assert "No figure includes costs" in found
        assert "profit" in found
        for name in (*BASELINES, "model", "next", "50ev", "PENSTOCK.SIM:SIMA"):
            assert name in found
    tags = Tags(made)
    assert tags.outside == []
    assert tags.found.count("figure") == 2
    assert tags.found.count("source") == 2, "each figure is there by day and by night"
    assert tags.found.count("table") == 2


def test_page_takes_names_for_text_not_markup(report) -> None:
    instrument = report["instruments"][0]
    targets = {"next": instrument["targets"]["next"]}
    odd = {**report, "instruments": [{**instrument, "name": "<b>A</b> & B", "targets": targets, "weights": {}}]}
    assert "b" not in Tags(page(odd)).found


class Tags(HTMLParser):
    """Collects tags, and what the page would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset") and not (value or "").startswith("data:"):
                self.outside.append(str(value))


def test_same_command_gives_the_same_figures_and_writes_its_page(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(recording), *SMALL, "--horizons", "next", "--baselines", "QI,c", "--seeds", "4", "--json"]
    first = run(capsys, *arguments, "--report", str(tmp_path / "page.html"))
    assert run(capsys, *arguments) == first
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
    told = json.loads(first)
    assert [one["name"] for one in told["instruments"]] == ["PENSTOCK.SIM:SIMA", "PENSTOCK.SIM:SIMB"]
    assert told["settings"]["seeds"] == [4]
    assert told["settings"]["model"]["units"] == 16
    assert set(told["instruments"][0]["targets"]["next"]["skill"]) == {"QI", "c", "model"}


def test_settings_file_says_horizons_and_seed_where_no_flag_does(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps({"settings": {"horizons": "next_1ms,20ev", "seed": 7, "units": 16, "fan_in": 3}}))
    arguments = [str(recording), "--instruments", "SIMA", "--settings", str(path), "--baselines", "c", "--json"]
    told = json.loads(run(capsys, *arguments, "--penalty", "1", "--threads", "1"))
    assert (told["settings"]["seeds"], list(told["instruments"][0]["targets"])) == ([7], ["next_1ms", "20ev"])
    flags = ["--penalty", "1", "--threads", "1", "--horizons", "20ev", "--seed", "2"]
    told = json.loads(run(capsys, *arguments, *flags))
    assert (told["settings"]["seeds"], list(told["instruments"][0]["targets"])) == ([2], ["20ev"])


@pytest.mark.parametrize(
    ("given", "expected"), [([], max(1, len(os.sched_getaffinity(0)) // 2)), (["--threads", "1"], 1)]
)
def test_half_the_cores_work_where_no_threads_are_given(
    given: list[str], expected: int, recording: Path, model: Path
) -> None:
    seen: set[int] = set()

    def on_progress(_stage: str, _done: int, _total: int) -> None:
        seen.update(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")

    options = _parser().parse_args(["evaluate", str(recording), "--model", str(model), *given])
    assert run_evaluate(options, lambda: nullcontext(on_progress)) == 0
    assert seen == {expected}


def test_model_file_is_scored_as_it_is_beside_the_imbalance(
    recording: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(run(capsys, str(recording), "--model", str(model), "--json"))
    skill = told["instruments"][0]["targets"]["next"]["skill"]
    assert set(skill) == {"model", "QI"}
    assert skill["model"]["value"] > 0.6
    assert set(told["instruments"][0]["targets"]["100ms"]["skill"]) == {"model"}
    assert "never trade on it" in " ".join(told["notices"])
    text = run(capsys, str(recording), "--model", str(model))
    assert "never trade on it" in text
    assert "No figure includes costs" in text


def test_ticks_that_a_model_was_trained_on_are_told_of(
    recording: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = recording.with_name("known.safetensors")
    arguments = ["--units", "16", "--fan-in", "3", "--horizons", "next", "--out", str(known)]
    assert main(["fit", str(recording), *arguments]) == 0
    capsys.readouterr()
    assert "is what this model was trained on" in run(capsys, str(recording), "--model", str(known))
    assert "is what this model was trained on" not in run(capsys, str(recording), "--model", str(model))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.dbn"], "none.dbn: can't be read"),
        (["MARKET", "--instruments", "SIMA,XYZ"], "no instrument has this name"),
        (["SHORT"], "TEST:ONE is too short for 10 blocks: ticks=500, needed=2560"),
        (["STILL", "--horizons", "next"], "give more ticks or a shorter horizon"),
        (["STILL", "--horizons", "100ms"], "the mid hardly moves"),
        (["RISING", "--horizons", "20ev"], "the mid hardly moves down within horizon '20ev'"),
        (["MARKET", "--horizons", "30s"], "too few ticks have a label for horizon '30s'"),
        (["MARKET", "--horizons", "soon"], "'soon' is not understood"),
        (["MARKET", "--horizons", ",".join(f"{one}ev" for one in range(1, 15))], "horizons must be 1 to 12"),
        (["MARKET", "--units", "4"], "units must be 16 to 8192: units=4"),
        (["MARKET", "--seeds", "1,1"], "seeds must be 1 to 20 different numbers: seeds=1,1"),
        (["MARKET", "--seeds", "one"], "seeds must be whole numbers, separated by commas: seeds='one'"),
        (["MARKET", "--seeds", "-1"], "seed must be a whole number"),
        (["MARKET", "--baselines", "c,best"], "baselines must be different ones of QI, c, d2, f, W0, GB"),
        (["MARKET", "--threads", "-1"], "threads must be 0 to 256: threads=-1"),
        (["MARKET", "--report", "page.pdf"], "report must end in .html: report=page.pdf"),
        (["MARKET", "--report", "none/page.html"], "make the folder first"),
        (["MARKET", "--model", "none.safetensors"], "model file can't be read"),
        (["MARKET", "--model", "MODEL", "--units", "32"], "a model file has settings of its own: units=32"),
        (["SIZELESS", "--model", "MODEL"], "features=imbalance,microprice_ticks,"),
        (["SIZELESS", "--model", "MODEL"], "give ticks with sizes and trades, or train a model on ticks such as these"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2_and_leaves_no_file(
    arguments: list[str],
    sentence: str,
    recording: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, made in (("short", quotes(500)), ("still", _still()), ("rising", _rising()), ("sizeless", _sizeless())):
        write_dbn(f"{name}.dbn", made, [Instrument(1, "ONE")], "TEST")
    there = set(tmp_path.iterdir())
    names = {name.upper(): f"{name}.dbn" for name in ("short", "still", "rising", "sizeless")}
    names |= {"MARKET": str(recording), "MODEL": str(model)}
    asked = [names.get(one, one) for one in arguments]
    assert main(["evaluate", *asked, *([] if "--report" in arguments else ["--report", "page.html"])]) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    assert set(tmp_path.iterdir()) == there


def _still() -> np.ndarray[Any, Any]:
    ticks = quotes(4_000)
    ticks["bid_px"], ticks["ask_px"] = 10**9, 2 * 10**9
    return ticks


def _rising() -> np.ndarray[Any, Any]:
    ticks = quotes(4_000)
    ticks["bid_px"] = 10**12 + 10**7 * (np.arange(4_000) // 7)
    ticks["ask_px"] = ticks["bid_px"] + 10**7
    return ticks


def _sizeless() -> np.ndarray[Any, Any]:
    ticks = of_instrument(market().ticks, 1).copy()
    ticks = ticks[ticks["action"] != ord("T")]
    ticks["bid_sz"], ticks["ask_sz"] = 0, 0
    return ticks


def test_missing_library_is_named_with_its_extra(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["evaluate", str(recording)]) == 2
    assert "the gradient boosting baseline needs sklearn, which is not installed" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    told = capsys.readouterr().out
    assert "penstock-train evaluate day.dbn.zst" in told
    assert "none is a profit" in told
