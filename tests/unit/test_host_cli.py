"""penstock-tune as a command: flags, words, faults, completion, and a folder that is copied to a bare host."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_host.checklist.catalogue import BY_ID
from penstock_host.cli import main
from support.host_runs import items_of, run_json
from support.host_trees import bare_metal


def test_output_has_one_line_per_finding_with_wanted_found_and_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_metal(tmp_path)
    main(["check", "--root", str(tmp_path), "--only", "C5"])
    said = capsys.readouterr().out
    governor = "/sys/devices/system/cpu/cpu7/cpufreq/scaling_governor"
    assert f"{governor}: want performance, was powersave; echo performance > {governor}" in said
    assert "[.. .. .. Hs]  -- NIC eth0  -- GPU 0000:81:00.0" in said


def test_explain_says_why_here_and_all_spellings_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare_metal(tmp_path)
    assert main(["check", "--explain", "c5", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    item = BY_ID["C5"]
    for words in (item.why, item.risk, item.undo, item.source, "hot cores are 7", "was powersave"):
        assert words in said
    assert main(["explain", "C5", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == said
    assert main(["--explain", "C5"]) == 0
    assert item.why in capsys.readouterr().out
    assert main(["explain", "C99", "--root", str(tmp_path)]) == 2
    assert "explain: must be one of C1, " in capsys.readouterr().err
    assert main(["explain", "C5", "--json", "--root", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verb"], told["id"], told["exit_status"]) == ("explain", "C5", 0)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--hot-cores", "0"], 3, "must not include CPU 0"),
        (["--hot-cores", "8"], 3, "must not share a core with CPU 0"),
        (["--hot-cores", "99"], 3, "of which 99 is not"),
        (["--hot-cores", "4-7"], 3, "node 1 must keep a housekeeping core"),
        (["--hot-cores", "x", "--only", "Z9"], 2, "hot_cores: must be a list of CPUs such as"),
        (["--hot-cores", "x", "--only", "Z9"], 2, "only: must be item ids"),
        (["--only", ""], 2, "only: must be item ids such as C5, I2; none would be all of them"),
        (
            ["--nic", "eth9"],
            2,
            "--nic: must be a port of this host with a device behind it, was eth9; there are eno1, eth0, lo",
        ),
        (["--gpu", "1"], 2, "--gpu: must be an NVIDIA GPU of this host, was 1; there are 0000:81:00.0"),
        (["--root", "/nowhere/at/all"], 2, "--root: must be a folder"),
    ],
)
def test_what_is_wrong_or_unsafe_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    for verb in ("check", "plan", "apply"):
        assert main([verb, "--root", str(tmp_path), *arguments]) == status
        assert words in capsys.readouterr().err
    assert tree.snapshot() == before


def test_error_is_json_for_programs_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare_metal(tmp_path)
    status, document = run_json(capsys, "apply", "--root", str(tmp_path), "--hot-cores", "0")
    assert (status, document["exit_status"], document["verb"]) == (3, 3, "apply")
    assert "CPU 0" in document["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "--severity", "bad"], "--severity: invalid choice: 'bad'"),
        (["apply", "--froce"], "unrecognized arguments: --froce"),
        (["measure", "jitter", "--seconds", "x"], "--seconds: invalid float value: 'x'"),
        (["measure", "compare", "--svg"], "--svg: expected one argument"),
        (["verify"], "invalid choice: 'verify'"),
    ],
)
def test_words_that_make_no_sense_are_json_for_programs_as_well(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    status, document = run_json(capsys, *arguments)
    assert (status, document["exit_status"], document["verb"]) == (2, 2, arguments[0])
    assert words in document["error"]
    assert main(arguments) == 2
    out, complaint = capsys.readouterr()
    assert out == ""
    assert complaint.startswith("usage: penstock-tune")
    assert words in complaint


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path, repository_root: Path) -> None:
    bare_metal(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "penstock_host", "check", "--root", tmp_path],
        env=os.environ | {"PYTHONPATH": str(repository_root / "tuning")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 2


@pytest.mark.parametrize("verb", ["check", "plan", "apply", "revert", "explain", "measure", "report", "completion"])
def test_every_verb_has_examples_in_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"penstock-tune {verb}" in capsys.readouterr().out.partition("examples:")[2]


def test_completion_knows_verbs_flags_and_items(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 0
    script = capsys.readouterr().out
    for typed, expected in (
        ("ap", "apply"),
        ("apply --fo", "--force"),
        ("check --only C2", "C2 C20"),
        ("check --severity m", "must"),
    ):
        program = f"{script}\nCOMP_WORDS=(penstock-tune {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _penstock_tune; echo ${{COMPREPLY[*]}}"
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.startswith(expected), done.stderr


def test_items_are_chosen_by_id_group_severity_and_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare_metal(tmp_path)
    root = ("check", "--root", str(tmp_path))
    assert list(items_of(run_json(capsys, *root, "--only", "c5,F")[1])) == ["C5", "F1", "F2"]
    must = items_of(run_json(capsys, *root, "--severity", "must", "--skip", "C")[1])
    assert list(must) == ["I1", "I2", "N5", "G1", "G2", "G5", "G6", "P1"]
    profile = tmp_path / "profile.toml"
    profile.write_text('only = ["C5", "C13", "N7"]\nskip = ["N7"]\nhot_cores = "6"\nseverity = "info"\n')
    _, document = run_json(capsys, *root, "--profile", str(profile), "--skip", "C13")
    assert (list(items_of(document)), document["host"]["hot"]) == (["C5", "N7"], "6")


def test_copied_folder_runs_with_the_standard_library_alone(tmp_path: Path, repository_root: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "host").mkdir()
    shutil.copytree(
        repository_root / "tuning/penstock_host",
        tmp_path / "bare/penstock_host",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    bare_metal(tmp_path / "host")
    # No site packages, no environment; the folder that it was copied to is the only path of ours.
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'bare')!r}); import runpy; sys.argv = ['x', *sys.argv[1:]]; runpy.run_module('penstock_host', run_name='__main__')"
    for arguments, status in ((["check"], 1), (["apply", "--only", "C5"], 0), (["revert"], 0), (["--help"], 0)):
        root = [] if arguments == ["--help"] else ["--root", str(tmp_path / "host")]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, *arguments, *root],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={},
        )
        assert (done.returncode, done.stderr) == (status, "")
    done = subprocess.run(
        [sys.executable, "-m", "penstock_host", "check", "--root", str(tmp_path / "host")],
        cwd=tmp_path / "bare", capture_output=True, text=True, timeout=30, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_python_that_is_too_old_is_told_so_in_one_sentence(repository_root: Path) -> None:
    """An older one is simulated: it must be able to read the file, and go no further."""
    file = repository_root / "tuning/penstock_host/__main__.py"
    tree = ast.parse(file.read_text(), feature_version=(3, 6))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    program = "import sys, runpy; sys.version_info = (3, 9, 18); sys.path.insert(0, sys.argv.pop(1)); "
    program += "runpy.run_module('penstock_host', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(file.parents[1])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"penstock-tune: want Python 3\.11 or newer, was 3\.9; .*\n", done.stderr)
