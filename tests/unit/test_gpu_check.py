"""make gpu-check without a card: it fails, says why in its last table, keeps to its limits, and loses nothing found."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock_tuning.bench import gpu, gpu_check
from penstock_tuning.bench.gpu_check import Part

PASSED = {"name": "test_one", "outcome": "passed", "why": ""}
FIGURES: dict[str, Any] = {
    "benchmark": "gpu",
    "device": "NVIDIA Example, sm_90",
    "graph_1_1024_p50_us": 12.5,
    "graph_over_echo": 1.6,
    "aims": {"graph_over_echo": {"aim": "<= 1.5", "met": False}},
    "trips_us": {mode: {} for mode in gpu.MODES},
    "floor_us": {},
    "transfers_us": {},
    "busy_us": {},
    "not_measured": [],
    "incomplete": "",
}


def judged(*cases: dict[str, str], code: int | None = 0) -> Part:
    part = Part("tests")
    gpu_check.judge_tests(part, list(cases), code, "tests/gpu/test_a.py::test_two \n1 passed", 210.0)
    return part


def test_all_passed_is_no_failure() -> None:
    part = judged(PASSED)
    assert (part.failures, part.rows) == ([], [("tests passed", "1")])


def test_tests_that_found_no_card_fail_it_and_are_told_of_once() -> None:
    why = "no GPU can be measured: CuPy is not installed"
    part = judged(*({"name": f"test_{number}", "outcome": "skipped", "why": why} for number in range(3)))
    assert part.failures == [f"3 tests, the first test_0: {why}"]


def test_a_test_that_needs_a_library_more_is_shown_and_fails_nothing() -> None:
    part = judged(PASSED, {"name": "test_daemon", "outcome": "skipped", "why": "needs structlog"})
    assert part.failures == []
    assert ("test_daemon", "skipped: needs structlog") in part.rows


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (judged({"name": "test_x", "outcome": "failed", "why": "bits"}, code=1), "test_x: bits"),
        (judged(PASSED, code=None), "the tests took longer than 210 s; see their last lines above"),
        (judged(PASSED, code=3), "pytest ended with 3: tests/gpu/test_a.py::test_two  | 1 passed"),
        (judged(code=0), "no test ran"),
    ],
)
def test_anything_else_fails_with_what_it_was(part: Part, sentence: str) -> None:
    assert part.failures == [sentence]


def test_stopped_tests_keep_what_had_passed() -> None:
    said = (
        "collecting ...\ntests/gpu/test_a.py::test_one PASSED [ 10%]\n"
        "tests/gpu/test_a.py::test_two[graph, staged] SKIPPED (no) [ 20%]\ntests/gpu/test_a.py::test_three"
    )
    found = gpu_check.read_progress(said)
    assert [(case["name"], case["outcome"]) for case in found] == [
        ("test_one", "passed"),
        ("test_two[graph, staged]", "skipped"),
        ("test_three", "failed"),
    ]
    assert found[2]["why"] == "not finished"


def test_figures_stand_beside_their_aims_and_a_missed_one_fails_nothing() -> None:
    part = Part("figures")
    gpu_check.judge_bench(part, 0, f"a warning\n{json.dumps(FIGURES)}\n", 220.0)
    assert part.failures == []
    assert ("graph_over_echo", "1.6000   aim <= 1.5: MISSED") in part.rows
    assert ("graph_1_1024_p50_us", "12.5") in part.rows
    said = gpu_check.report([part], 12.0).splitlines()
    assert said[-1] == "| gpu-check passed | 12 s |"


@pytest.mark.parametrize(
    ("code", "said", "sentence"),
    [
        (2, "penstock-bench gpu: no GPU", "penstock-bench gpu ended with 2: penstock-bench gpu: no GPU"),
        (None, "", "penstock-bench gpu took longer than 220 s: "),
        (0, "{cut off", "penstock-bench gpu ended with 0: {cut off"),
        (0, json.dumps(FIGURES | {"incomplete": "it is lost"}), "the benchmark is incomplete: it is lost"),
    ],
)
def test_figures_that_are_missing_fail_it(code: int | None, said: str, sentence: str) -> None:
    part = Part("figures")
    gpu_check.judge_bench(part, code, said, 220.0)
    assert part.failures == [sentence]
    assert gpu_check.report([part], 1.0).splitlines()[-1] == "| gpu-check failed | 1 s |"


def test_a_part_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    child = f"import time; time.sleep(1); open({str(tmp_path / 'alive')!r}, 'w').close()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('never')"
    started_s = time.monotonic()
    code, said = gpu_check.run([sys.executable, "-c", f"print('found', flush=True)\n{parent}"], 0.5)
    assert (code, said) == (None, "found\n")
    assert time.monotonic() - started_s < 5.0
    time.sleep(0.8)
    assert not (tmp_path / "alive").exists()


def test_limits_of_the_parts_leave_the_whole_within_eight_minutes() -> None:
    stopping_s = 4 * gpu_check._STOP_TIMEOUT_S
    assert gpu_check.TESTS_TIMEOUT_S + gpu_check.BENCH_TIMEOUT_S + stopping_s < 480.0


def test_results_are_written_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "check_tests", lambda: judged(PASSED))
    monkeypatch.setattr(gpu_check, "check_bench", lambda quick: Part("figures", found={"quick": quick}))
    monkeypatch.setenv("OUT", str(tmp_path / "from environment"))
    assert gpu_check.main(["--quick"]) == 0
    assert gpu_check.main(["--out", str(tmp_path / "named")]) == 0
    for folder, quick in (("from environment", True), ("named", False)):
        found = json.loads((tmp_path / folder / "gpu-check.json").read_text())
        assert found["figures"] == {"quick": quick, "failures": []}
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("| gpu-check passed |")


def test_the_tests_of_a_card_are_skipped_for_its_want_alone(repository_root: Path) -> None:
    """They are collected with the settings of a bare machine, every one marked; none passes or fails without a card."""
    code, said = gpu_check.run(
        [sys.executable, "-m", "pytest", "-c", "tests/gpu/bare.ini", "--rootdir=.", "tests/gpu", "-q", "-m", "not gpu"],
        60,
    )
    assert code == 5, said
    assert "deselected" in said
    assert (repository_root / "tests" / "gpu" / "bare.ini").is_file()
