"""``measure`` and ``report`` from the command line: what is kept, what is refused beside a daemon, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_host import cli
from penstock_host.measure.result import load, save
from penstock_host.measure.tools import TOOLS
from support.measured import jitter

CPU = min(os.sched_getaffinity(0))
OUTPUTS = Path(__file__).parents[1] / "support" / "tool_outputs"


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch) -> Path:
    """Keep results in a folder of the test's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "penstock" / "measurements"


@pytest.fixture
def host(tmp_path) -> Path:
    """A host of four CPUs where penstockd serves, pinned to CPU 2 and 3."""
    root = tmp_path / "host"
    files = {
        "sys/devices/system/cpu/online": "0-3\n",
        "proc/812/cmdline": "/opt/penstock/bin/python\0/opt/penstock/bin/penstockd\0",
        "proc/812/task/812/status": "Name:\tpenstockd\nCpus_allowed_list:\t2\n",
        "proc/812/task/813/status": "Name:\tengine\nCpus_allowed_list:\t3\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_jitter_is_printed_and_kept(results, capsys) -> None:
    assert cli.main(["measure", "jitter", "--cpus", str(CPU), "--seconds", "0.2", "--label", "before", "--force"]) == 0
    output = capsys.readouterr()
    assert f"CPU {CPU}" in output.out
    assert "\x1b" not in output.err, "no bar where nobody looks"
    (path,) = results.iterdir()
    assert f"saved: {path}" in output.out
    assert load(path).label == "before"
    assert load(path).host["python"]


def test_jitter_as_json_names_its_file(tmp_path, capsys) -> None:
    arguments = ["measure", "jitter", "--cpus", str(CPU), "--seconds", "0.2", "--json", "--out", str(tmp_path / "kept")]
    assert cli.main([*arguments, "--force"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verb"] == "measure jitter"
    assert Path(found["saved"]).parent == tmp_path / "kept"
    assert 1 <= len(found["series"][0]["slices"]["max_ns"]) <= 10, "a stall longer than a slice leaves the next one out"


def test_result_that_can_not_be_kept_is_still_printed(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    arguments = [
        "measure",
        "jitter",
        "--cpus",
        str(CPU),
        "--seconds",
        "0.1",
        "--out",
        str(tmp_path / "file"),
        "--force",
    ]
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert f"CPU {CPU}" in output.out
    assert "--out: must be a folder that can be written" in output.err


def test_mode_that_stops_cpus_is_refused_beside_a_daemon_even_forced(host, capsys) -> None:
    for force in ([], ["--force"]):
        assert cli.main(["measure", "hwlatdetect", "--root", str(host), "--cpus", "0", *force]) == 3
        assert "measure hwlatdetect: it stops CPUs, and penstockd serves (process 812)" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["jitter", "oslat", "rtla-osnoise"])
def test_mode_that_fills_cpus_keeps_off_those_of_a_daemon(host, mode, capsys) -> None:
    arguments = ["measure", mode, "--root", str(host), "--seconds", "1"]
    assert cli.main([*arguments, "--cpus", "0-3"]) == 3
    assert f"measure {mode}: it takes all of CPU 2-3, where penstockd serves (process 812)" in capsys.readouterr().err
    for allowed in (["--cpus", "0-1"], ["--cpus", "0-3", "--force"]):
        assert cli.main([*arguments, *allowed]) == 2, "it goes on, to a tree that has nothing to measure"
        assert "refused" not in capsys.readouterr().err


def test_wake_ups_may_be_measured_beside_a_daemon(host, results) -> None:
    command = " ".join(TOOLS["cyclictest"].command("2-3", 2, 5)).replace("/", "_")
    (host / "recorded").mkdir()
    (host / "recorded" / command).write_text((OUTPUTS / "cyclictest.json").read_text())
    assert cli.main(["measure", "cyclictest", "--root", str(host), "--cpus", "2-3", "--seconds", "5"]) == 0
    assert [load(path).kind for path in results.iterdir()] == ["cyclictest"]


def test_daemon_that_has_gone_refuses_nothing(host) -> None:
    for path in sorted((host / "proc/812").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert cli.main(["measure", "hwlatdetect", "--root", str(host), "--cpus", "0"]) == 2, "not installed there"


def test_compare_takes_the_two_latest_draws_them_and_says_worse_by_its_exit_code(results, capsys) -> None:
    earlier, later = jitter("before"), jitter("after", scale=5.0, seed=2)
    save(earlier, results)
    save(later, results)
    (results / "notes.json").write_text("{}")
    assert cli.main(["measure", "compare"]) == 1
    text = capsys.readouterr().out
    assert "it made things WORSE" in text
    assert "penstock-tune revert" in text
    (drawing,) = results.glob("*.svg")
    assert f"drawn: {drawing}" in text
    assert drawing.read_text().startswith("<svg")


def test_all_runs_of_the_two_latest_labels_are_compared_and_older_ones_left_out(results, capsys) -> None:
    taken = iter(
        f"2026-11-{day:02}T{hour:02}:00:00+00:00"
        for day, hour in [(1, 9), (19, 9), (20, 9), (20, 10), (20, 11), (20, 12)]
    )
    for seed, label in enumerate(("older", "before", "before", "after", "before", "after")):
        save(replace(jitter(label, scale=1.0 if label != "after" else 0.2, seed=seed), taken=next(taken)), results)
    assert cli.main(["measure", "compare", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(path).stem.rpartition("-")[2] for path in found["files"]] == ["before", "after", "before", "after"]
    (comparison,) = found["comparisons"]
    assert (comparison["before"], comparison["after"], comparison["verdict"]) == ("before", "after", "better")


def test_compare_names_files_and_answers_as_json(tmp_path, capsys) -> None:
    paths = [str(save(one, tmp_path)) for one in (jitter("a"), jitter("b", scale=0.2, seed=2), jitter("c", seed=3))]
    assert cli.main(["measure", "compare", *paths, "--json", "--svg", str(tmp_path / "x.svg")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in found["comparisons"]] == ["better", "no difference"]
    assert found["drawings"] == [str(tmp_path / "x-1.svg"), str(tmp_path / "x-2.svg")]
    assert found["exit_status"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measure", "compare"], "want 2 measurements of one kind"),
        (["measure", "compare", "absent.json"], "want two files or more, was 1"),
        (["measure", "compare", "absent.json", "absent.json"], "can't be read"),
        (["measure", "jitter", "--cpus", "x"], "--cpus: want CPUs such as 2-5,8, was x"),
        (["measure", "jitter", "--cpus", "0", "--seconds", "0", "--force"], "--seconds: want"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_exit_2(arguments, said, capsys) -> None:
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_report_of_a_tree_is_one_page_with_its_measurements(host, results, tmp_path, capsys) -> None:
    save(jitter("before"), results)
    save(jitter("after", scale=0.2, seed=2), results)
    page = tmp_path / "host.html"
    assert cli.main(["report", "--root", str(host), "--out", str(page)]) == 0
    text = page.read_text()
    assert "it helped" in text
    assert "How the host stands" in text
    assert "What apply would do" in text
    assert f"written: {page}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "host.html", "state"], "no scratch file is left"
    assert cli.main(["report", "--root", str(host), "--out", str(tmp_path / "none" / "x.html")]) == 2
    assert "--out: want a file that can be written" in capsys.readouterr().err


def test_interrupted_measurement_leaves_nobody_spinning(tmp_path) -> None:
    command = [
        sys.executable,
        "-m",
        "penstock_host",
        "measure",
        "jitter",
        "--cpus",
        str(CPU),
        "--seconds",
        "60",
        "--force",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    children: list[int] = []
    deadline = time.monotonic() + 60
    while not children and time.monotonic() < deadline:
        children = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        time.sleep(0.02)
    assert children
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (output, errors) == (b"", b"")
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not (tmp_path / "state").exists(), "half a measurement is none"
