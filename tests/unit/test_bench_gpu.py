"""penstock-bench gpu without a card: its measuring code over the host device, its figures, its table, its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_kernels.features import RUNNING_WORDS
from penstock_kernels.packed import pack
from penstock_tuning.bench import cli, gpu, gpu_part, gpu_sides
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.kernel_sides import drawn_model
from penstock_tuning.bench.settings import Bench
from support.host_device import HostDevice, host_device
from support.tick_stream import tick_stream

PLAN = {"units": (32,), "states": (1, 3), "middle_units": 32, "cell_s": 0.002, "market_s": 0.2}


@pytest.fixture(scope="module")
def findings() -> list[dict[str, Any]]:
    """Measure for real, small, with NumPy in CuPy's place."""
    found: list[dict[str, Any]] = []
    with host_device() as device:
        plan = PLAN | {"copied_bytes": 4096, "trips_least": 3, "pause_ns": 20_000}
        gpu_part.Bench(device, np, plan, found.append, HostDevice).run(context_s=0.25)
        assert device.counters.eager_launches > 0
    return json.loads(json.dumps(found))


def test_every_mode_is_measured_at_every_size(findings: list[dict[str, Any]]) -> None:
    cells = {(row["mode"], row["units"], row["states"]) for row in findings if row["kind"] == "trip"}
    modes = ("graph", "resident", "eager", "cpu", "cupy_take", "cupy_dense", "engine", "engine_cpu")
    assert cells >= {(mode, units, states) for mode in modes for units in (32,) for states in (1, 3)}
    for row in findings:
        if row["kind"] in ("trip", "transfer", "echo", "busy", "burst"):
            assert 0.0 < row["p50_us"] <= row["max_us"]
            assert row["trips"] >= 3
    transfers = {(row["transfer"], row["states"]) for row in findings if row["kind"] == "transfer"}
    assert transfers == {(way, states) for way in ("staged", "in_place", "copied") for states in (1, 3)}
    assert {(row["loop"], row["busy_thread"]) for row in findings if row["kind"] == "busy"} == {
        (loop, busy) for loop in ("compiled", "interpreter") for busy in (False, True)
    }
    assert {row["kind"] for row in findings} >= {"device", "start", "echo", "burst", "memory", "bandwidth"}


def test_start_is_split_and_memory_is_counted(findings: list[dict[str, Any]]) -> None:
    start = next(row for row in findings if row["kind"] == "start")
    assert start["context_s"] == 0.25
    parts = ("context_s", "compile_s", "first_launch_s", "capture_s", "memory_and_replay_s")
    assert start["ready_s"] == pytest.approx(sum(start[part] for part in parts))
    assert all(start[part] > 0 for part in parts)
    assert start["graphs"] == 2
    memory = next(row for row in findings if row["kind"] == "memory")
    assert (memory["units"], memory["states"]) == (32, 3)
    assert memory["state_bytes"] == 4 * 32 + 8 * RUNNING_WORDS
    assert memory["device_bytes"] > 3 * memory["state_bytes"] + memory["weight_bytes"]


def test_figures_follow_from_the_findings() -> None:
    def row(mode: str, states: int, p50: float) -> dict[str, Any]:
        times = {"p50_us": p50, "p99_us": 2 * p50, "p999_us": None, "max_us": 3 * p50, "trips": 500}
        return {"kind": "trip", "mode": mode, "units": 1024, "states": states} | times

    echo = row("", 1, 10.0) | {"kind": "echo"}
    memory = {"kind": "memory", "units": 1024, "state_bytes": 4096, "weight_bytes": 100_000, "device_bytes": 2**21}
    found = [row("graph", 1, 14.0), row("graph", 1024, 128.0), row("cpu", 1, 1.0), echo, memory]
    found.append({"kind": "bandwidth", "gb_per_s": 100.0})
    figures = gpu.figures_of(found)
    assert figures["graph_over_echo"] == pytest.approx(1.4)
    assert figures["floor_us"]["1024x1"] == pytest.approx(10.0 + (100_000 + 8192) / 100e3)
    assert figures["graph_over_floor"] == pytest.approx(14.0 / figures["floor_us"]["1024x1"])
    assert figures["graph_ticks_per_s"] == pytest.approx(1024 / 128e-6)
    assert (figures["graph_1_1024_p99_us"], figures["graph_1_1024_p999_us"]) == (28.0, None)
    assert figures["device_memory_mib"] == 2.0
    assert figures["resident_1_1024_p99_us"] is None
    outcome = gpu.outcome_of(found, quick=False)
    aims = {aim.key: aim.met(outcome.figures) for aim in outcome.aims}
    assert aims == {
        "graph_over_echo": True,
        "graph_1_1024_p99_us": False,
        "graph_1024_1024_p99_us": False,
        "device_memory_mib": True,
    }
    said = outcome.as_text()
    assert "| 1024 units, 1024 states | 128 / 256 / - |  | " in said
    json.dumps(outcome.as_json({}), allow_nan=False)


def test_what_was_measured_before_a_fault_is_kept(findings: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in findings[:7]) + '\n{"kind": "tri', encoding="utf-8")
    assert gpu.read_findings(path) == findings[:7]
    outcome = gpu.outcome_of(gpu.read_findings(path), quick=True, incomplete="gpu_part ended with 1: it is lost")
    assert "incomplete: gpu_part ended with 1: it is lost" in outcome.as_text()
    assert gpu.read_findings(tmp_path / "none.jsonl") == []
    with path.open("a", encoding="utf-8") as out:  # The next section, after one that was stopped.
        out.write("\n" + json.dumps(findings[7]) + "\n")
    assert gpu.read_findings(path) == findings[:8]


def test_plain_code_that_its_library_can_not_run_is_left_out_with_the_reason() -> None:
    class Bare:
        def __getattr__(self, name: str) -> Any:
            raise ImportError(f"no library\nfor {name}")

    found: list[dict[str, Any]] = []
    with host_device() as device:
        bench = gpu_part.Bench(device, Bare(), PLAN, found.append)
        bench._plain(drawn_model("cyclic", 32, 5), 32)
    assert [(row["kind"], row["what"]) for row in found] == [
        ("not_measured", "cupy_take, 32 units"),
        ("not_measured", "cupy_dense, 32 units"),
    ]
    assert {row["why"] for row in found} == {"ImportError: no library for asarray"}


def test_percentiles_need_trips_enough() -> None:
    times = np.arange(1, 2001) * 1000
    assert gpu_part.figures_of(times[:50])["p99_us"] is None
    assert gpu_part.figures_of(times[:999])["p999_us"] is None
    figures = gpu_part.figures_of(times[::-1])
    assert (figures["p50_us"], figures["p99_us"], figures["p999_us"], figures["max_us"]) == (1001, 1981, 1999, 2000)


@pytest.mark.parametrize("dense", [False, True])
def test_the_plain_program_computes_what_the_predictor_does(dense: bool) -> None:
    model = drawn_model("cyclic", 48, 5)
    step = gpu_sides.array_step(np, model, 3, dense=dense)
    inputs = np.random.default_rng(1).normal(size=(4, 3, model.inputs)).astype(np.float32)
    x = np.zeros((3, 48))
    for row in inputs:
        outputs = step(row)
        heard = sum(w * x[:, (np.arange(48) + s) % 48] for w, s in zip(model.recurrent, model.connections, strict=True))
        x += model.leak * (np.tanh(heard + row @ model.input_weights + model.bias) - x)
        columns = np.concatenate([x, row, np.ones((3, 1))], axis=1)
        assert np.allclose(outputs, columns @ model.readout.T, atol=1e-5)


def test_the_cpu_side_takes_longer_for_more_states() -> None:
    packed, ticks = pack(drawn_model("cyclic", 256, 8)), tick_stream(1, 64)
    one, many = (np.median(gpu_sides.CpuSide(packed, states).trips_ns(ticks, 50)) for states in (1, 32))
    assert 0 < one * 4 < many


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--index", "64"], "--index must be from 0 to 63: index=64"),
        (["--seconds", "1"], "--seconds must be from 10 to 3,600: seconds=1"),
        (["--found", "/nowhere/f"], "--found must lie in a folder that is there: found='/nowhere/f'"),
    ],
)
def test_mistakes_are_a_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gpu", *arguments, "--quiet"]) == 2
    assert capsys.readouterr().err == f"penstock-bench gpu: {sentence}\n"


def test_a_section_that_breaks_is_named_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, float]] = []

    def run_part(_module: str, plan: dict[str, Any], _folder: Path, timeout_s: float) -> None:
        (section,) = plan["sections"]
        begun.append((section, timeout_s))
        with Path(plan["found"]).open("a", encoding="utf-8") as out:
            out.write(json.dumps({"kind": "device", "name": section}) + "\n")
        if section == "resident":
            raise BenchError("gpu_part took longer than 60 s and was stopped")

    monkeypatch.setattr(gpu, "missing_device", lambda _index: "")
    monkeypatch.setattr(gpu, "run_part", run_part)
    kept = tmp_path / "found.jsonl"
    kept.write_text('{"kind": "device", "name": "of another run"}\n', encoding="utf-8")
    outcome = gpu.measure(gpu.GpuSettings(timeout_s=200.0, found=kept), Bench(folder=tmp_path))
    assert [section for section, _ in begun] == list(gpu.SECTIONS)
    assert all(0.0 < limit_s <= 0.45 * 200.0 for _, limit_s in begun)
    assert outcome.conditions["incomplete"] == "resident: gpu_part took longer than 60 s and was stopped"
    assert [row["name"] for row in gpu.read_findings(kept)] == list(gpu.SECTIONS)


def test_without_a_gpu_it_is_a_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert cli.main(["gpu", "--json", "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("penstock-bench gpu: no GPU can be measured: CuPy is not installed; pip install")
