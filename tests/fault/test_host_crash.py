"""A penstock-tune that is killed in the middle of its work, for real: what it leaves on disk is enough to go back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_host.change.journal import Lock, read_journal
from penstock_host.cli import main
from penstock_host.host import Host
from support.host_trees import bare_metal

# Applies as the command does, and at the given step kills itself, as no handler and no finally can stop.
KILLED = """
import os, signal, sys
from pathlib import Path
from penstock_host.change.apply import apply
from penstock_host.host import Host
from penstock_host.change.journal import Lock, open_journal
left = int(sys.argv[2])
def step(name):
    global left
    left -= 1
    if left < 0:
        print(name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
host = Host(Path(sys.argv[1]), on_step=step)
with Lock(host), open_journal(host) as journal:
    apply(host, journal)
"""


def environment(repository_root: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(repository_root / "tuning")}


@pytest.mark.parametrize("count", [3, 71, 105])
def test_apply_that_is_killed_is_taken_back_by_revert(tmp_path: Path, repository_root: Path, count: int) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, str(count)],
        env=environment(repository_root),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if count > 30:
        assert tree.snapshot() != before
    assert main(["revert", "--root", str(tmp_path)]) == 0
    assert tree.snapshot() == before
    assert read_journal(Host(tmp_path)).entries == {}


def test_journal_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    assert main(["apply", "--root", str(tmp_path), "--only", "C5,C12"]) == 0
    [journal] = (tmp_path / "run/penstock-tune").glob("journal-*.jsonl")
    with journal.open("ab") as opened:
        opened.write(b'{"event": "intent", "number": 99, "item": "C13", "kn')
    assert main(["apply", "--root", str(tmp_path), "--only", "C17"]) == 0
    assert main(["revert", "--root", str(tmp_path)]) == 0
    assert tree.snapshot() == before
    good = [line for line in journal.read_text().splitlines() if not line.endswith('"kn')]
    assert [json.loads(line)["event"] for line in good].count("undone") == 4


def test_journal_of_another_boot_is_left_alone(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    assert main(["apply", "--root", str(tmp_path), "--only", "C5"]) == 0
    tree.write("/proc/sys/kernel/random/boot_id", "99999999-1111-2222-3333-444455556666\n")
    applied = tree.snapshot()
    assert main(["revert", "--root", str(tmp_path)]) == 0
    assert tree.snapshot() == applied


def test_second_penstock_tune_waits_outside(
    tmp_path: Path, repository_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    script = "import sys\nfrom pathlib import Path\nfrom penstock_host.host import Host\nfrom penstock_host.change.journal import Lock\nwith Lock(Host(Path(sys.argv[1]))):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        env=environment(repository_root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for verb in ("apply", "revert"):
            assert main([verb, "--root", str(tmp_path)]) == 2
            assert f"(process {holder.pid})" in capsys.readouterr().err
        assert tree.snapshot() == before
        assert main(["check", "--root", str(tmp_path), "--only", "C5"]) == 1
        holder.kill()
    with Lock(Host(tmp_path)):
        pass
