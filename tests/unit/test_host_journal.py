"""A journal whose lines were damaged: what is left of it is put back, and what is lost is told, never passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_host.change.journal import read_journal
from penstock_host.cli import main
from penstock_host.host import Host
from support.host_runs import run_json
from support.host_trees import Tree, bare_metal

NAME = "run/penstock-tune/journal-0f0e0d0c-1111-2222-3333-444455556666.jsonl"
INTERVAL = "/proc/sys/vm/stat_interval"


@pytest.fixture
def applied(tmp_path: Path) -> Tree:
    tree = bare_metal(tmp_path)
    assert main(["apply", "--root", str(tmp_path), "--only", "C13,C17"]) == 0
    return tree


@pytest.mark.parametrize(
    "changed",
    [
        {"original": 1}, {"number": 1e400}, {"number": None}, {"knob": ["file", "/x", "bogus"]}, {"knob": ["of tomorrow", "x"]},
        {"knob": [1]}, {"item": []}, {"writing": {}},
    ],
)  # fmt: skip
def test_damaged_event_is_counted_and_the_rest_is_put_back(
    applied: Tree, capsys: pytest.CaptureFixture[str], changed: dict[str, object]
) -> None:
    lines = applied.read(NAME).splitlines()
    applied.write(NAME, "\n".join([json.dumps(json.loads(lines[0]) | changed), *lines[1:]]) + "\n")
    root = ("--root", str(applied.root))
    for verb in ("check", "plan"):
        assert main([verb, *root, "--only", "C13,C17"]) in {0, 1}
    assert main(["apply", *root, "--only", "C12"]) == 2
    assert "1 lines make no sense" in capsys.readouterr().err
    status, document = run_json(capsys, "revert", *root)
    assert status == document["exit_status"] == 2
    assert "can't be put back" in document["fault"]
    assert applied.read("/proc/sys/kernel/numa_balancing") == "1\n"


def test_line_that_is_no_event_is_damage_and_one_that_was_cut_is_not(applied: Tree) -> None:
    whole = applied.read(NAME)
    for added, damaged in (("[" * 5000, 1), ("null", 1), ('{"event": "intent", "numb', 0), ("", 0)):
        applied.write(NAME, f"{whole}{added}\n")
        journal = read_journal(Host(applied.root))
        assert (journal.damaged, len(journal.entries)) == (damaged, 2)
