"""make gpu-check without a card: it fails, says why in its last table, keeps to its limits, and loses nothing found."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
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
    part = Part("engine")
    gpu_check.judge_tests(part, list(cases), code, "tests/gpu/test_a.py::test_two \n1 passed", 210.0)
    return part


def test_all_passed_is_no_failure() -> None:
    part = judged(PASSED)
    assert (part.failures, part.rows) == ([], [("engine: tests passed", "1")])


def test_tests_that_found_no_card_fail_it_and_are_told_of_once() -> None:
    why = "no GPU can be measured: CuPy is not installed"
    part = judged(*({"name": f"test_{number}", "outcome": "skipped", "why": why} for number in range(3)))
    assert part.failures == [f"3 tests, the first test_0: {why}"]
    assert part.no_card
    assert not judged(PASSED).no_card


def test_a_test_that_needs_a_library_more_is_shown_and_fails_nothing() -> None:
    part = judged(PASSED, {"name": "test_daemon", "outcome": "skipped", "why": "needs structlog"})
    assert part.failures == []
    assert ("test_daemon", "skipped: needs structlog") in part.rows


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (judged({"name": "test_x", "outcome": "failed", "why": "bits"}, code=1), "test_x: bits"),
        (judged(PASSED, code=None), "engine: the tests took longer than 210 s; see their last lines above"),
        (judged(PASSED, code=3), "engine: pytest ended with 3: tests/gpu/test_a.py::test_two  | 1 passed"),
        (judged(code=0), "engine: no test ran"),
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
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"  # As one that hangs in a driver.
    child = f"{ignoring}; import time; pipe = open({str(pipe)!r}, 'w'); print('found', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('never')"
    log = tmp_path / "log"
    for limit_s in (0.5, 2.0, 10.0, 60.0):  # A busy machine starts both of them late.
        log.write_text("of the part before\n")
        code, said = gpu_check.run([sys.executable, "-c", parent], limit_s, log)
        assert code is None
        if said:
            break
    assert said == "found\n"
    assert log.read_text() == "of the part before\nfound\n"
    hung_up = select.poll()
    hung_up.register(reader, 0)
    assert hung_up.poll(60_000), "nobody holds the other end any more"
    os.close(reader)


def test_limits_of_the_parts_leave_the_whole_within_eight_minutes() -> None:
    assert gpu_check.TOTAL_S + 2 * gpu_check._STOP_TIMEOUT_S < 480.0
    assert list(gpu_check.PARTS)[:2] == ["agreement", "figures"], "what tells most comes first"


def test_every_test_of_a_card_belongs_to_one_part(repository_root: Path) -> None:
    modules = {path.stem.removeprefix("test_cuda_") for path in (repository_root / "tests" / "gpu").glob("test_*.py")}
    of_parts = [gpu_check.MODULES.get(name, name) for name in gpu_check.PARTS if name != gpu_check.FIGURES]
    assert modules == set(of_parts)
    shared = [name for name in gpu_check.CHOSEN if of_parts.count(gpu_check.MODULES.get(name, name)) == 2]
    assert shared == ["agreement", "resident"]
    assert gpu_check.CHOSEN["agreement"] == f"not {gpu_check.CHOSEN['resident']}"


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Part]) -> tuple[int, list[dict[str, Any]]]:
    """Check with *parts* in the place of those that need a card; returns the exit code and each JSON that was written."""
    written: list[dict[str, Any]] = []
    save, given = gpu_check.save, iter(parts)

    def saved(*arguments: Any, **named: Any) -> None:
        save(*arguments, **named)
        written.append(json.loads((folder / "gpu-check.json").read_text()))

    monkeypatch.setattr(gpu_check, "save", saved)
    monkeypatch.setattr(gpu_check, "check_part", lambda *_: next(given))
    return gpu_check.main(["--out", str(folder)]), written


def test_every_part_is_in_the_json_as_soon_as_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [Part(name, found={"cases": [PASSED]}) for name in gpu_check.PARTS]
    parts[2].failures.append("test_two: bits")
    code, written = checked(tmp_path, monkeypatch, parts)
    assert code == 1
    assert [found["verdict"] for found in written] == ["under way"] * 2 + ["failed"] * 5
    assert written[1]["passed"] == ["test_one", "test_one"]
    assert "resident" not in written[1]
    assert written[-1]["resident"] == {"cases": [PASSED], "failures": ["test_two: bits"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-check.json", "gpu-check.log"]
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("| gpu-check failed |")


def test_without_a_card_one_part_says_so_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, written = checked(tmp_path, monkeypatch, [Part("agreement", ["no GPU can be measured"], no_card=True)])
    assert (code, len(written)) == (1, 1)
    assert "no GPU can be measured" in capsys.readouterr().out


@pytest.mark.parametrize("first", gpu_check._STOPS)
def test_who_stops_it_early_gets_the_table_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: int
) -> None:
    ended = []

    def stopped(name: str, _limit_s: float, _place: object) -> Part:
        if name != "agreement":
            try:
                os.kill(os.getpid(), first)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # Whoever asks twice.
                ended.append(name)
        return judged(PASSED)

    monkeypatch.setattr(gpu_check, "check_part", stopped)
    before = {number: signal.getsignal(number) for number in gpu_check._STOPS}
    assert gpu_check.main(["--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    assert found["failures"] == ["figures: stopped from outside"]
    assert ended == ["figures"]
    assert "| FAILED | figures: stopped from outside |" in capsys.readouterr().out
    assert {number: signal.getsignal(number) for number in gpu_check._STOPS} == before


def test_who_stops_it_between_two_parts_gets_the_table_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = gpu_check.save

    def saved(place: gpu_check.Place, parts: list[Part], elapsed_s: float, *, ended: bool) -> None:
        if not ended:
            os.kill(os.getpid(), signal.SIGTERM)
        save(place, parts, elapsed_s, ended=ended)

    monkeypatch.setattr(gpu_check, "save", saved)
    monkeypatch.setattr(gpu_check, "check_part", lambda name, *_: Part(name, found={"cases": [PASSED]}))
    assert gpu_check.main(["--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    assert (found["passed"], found["failures"]) == (["test_one"], ["figures: stopped from outside"])
    assert "| gpu-check failed |" in capsys.readouterr().out


def test_a_python_that_lacks_what_every_part_needs_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "NEEDED", (("numpy", "numpy"), ("no_such.part", "no-such")))
    assert gpu_check.main([]) == 2
    assert f"{sys.executable} lacks no-such: " in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert gpu_check.main(["--out", str(tmp_path / "file")]) == 2
    assert "--out must be a folder that can be written, was" in capsys.readouterr().err


def test_a_part_for_which_no_time_is_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "TOTAL_S", 0.0)
    assert gpu_check.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("not begun, since no time was left") == len(gpu_check.PARTS)


def test_figures_of_a_benchmark_that_was_stopped_are_those_found_by_then(tmp_path: Path) -> None:
    findings = tmp_path / "found.jsonl"
    cell = {"kind": "trip", "mode": "graph", "units": 1024, "states": 1, "p50_us": 9.5, "p99_us": 11.5}
    rows = [cell | {"p999_us": None, "max_us": 20.0, "trips": 500}, {"kind": "device", "name": "NVIDIA Example"}]
    findings.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"kind": "tri\n', encoding="utf-8")
    part = Part("figures")
    gpu_check.judge_bench(part, None, "", 210.0, findings)
    assert part.failures == ["penstock-bench gpu took longer than 210 s: "]
    assert part.found["graph_1_1024_p99_us"] == 11.5
    assert ("graph_1_1024_p50_us", "9.5000") in part.rows
    assert part.found["table"]


def test_results_go_to_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[gpu_check.Place] = []
    monkeypatch.setattr(gpu_check, "check", lambda place: places.append(place) or 0)
    monkeypatch.setenv("OUT", str(tmp_path / "from environment"))
    assert gpu_check.main(["--quick"]) == 0
    assert gpu_check.main(["--out", str(tmp_path / "named")]) == 0
    monkeypatch.delenv("OUT")
    assert gpu_check.main([]) == 0
    assert [(place.folder.name, place.quick) for place in places[:2]] == [("from environment", True), ("named", False)]
    assert not places[2].folder.exists()


def test_the_tests_of_a_card_are_skipped_for_its_want_alone(repository_root: Path, tmp_path: Path) -> None:
    """They are collected with the settings of a bare machine, every one marked; none passes or fails without a card."""
    code, said = gpu_check.run(
        [sys.executable, "-m", "pytest", "-c", "tests/gpu/bare.ini", "--rootdir=.", "tests/gpu", "-q", "-m", "not gpu"],
        60,
        tmp_path / "log",
    )
    assert code == 5, said
    assert "deselected" in said
    assert (repository_root / "tests" / "gpu" / "bare.ini").is_file()
