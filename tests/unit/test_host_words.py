"""Names on a host are anybody's: whatever bytes they hold, each finding stays one line that any terminal can show."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from penstock_host.cli import main
from penstock_host.printable import one_line, printable
from support.host_trees import Tree, bare_metal


def with_odd_names(root: Path) -> Tree:
    tree = bare_metal(root)
    tree.process(901, "/usr/bin/x", cpu=7, allowed="0-15", comm="a\x1b[31m\nOK  x")
    stat = root / "proc/901/task/901/stat"
    stat.write_bytes(stat.read_bytes().replace(b"OK  x", b"caf\xe9\xff"))
    tree.write("/proc/sys/vm/swappiness", b"\xff\xfe\n")
    tree.write("/proc/sys/vm/stat_interval", b"1\n")
    return tree


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_bytes_of_the_host_are_shown_as_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    with_odd_names(tmp_path)
    root = ("--root", str(tmp_path), "--only", "C10,C13,C19")
    for verb in ("check", "plan", "apply", "revert"):
        raw = io.BytesIO()
        with monkeypatch.context() as patched:
            stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
            patched.setattr("sys.stdout", stream)
            main([verb, *root])
        said = raw.getvalue().decode(encoding)
        assert "\x1b" not in said
        if verb == "check":
            assert r"a\x1b[31m\ncaf\xe9\xff (901) on 7" in said


def test_json_has_no_half_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_odd_names(tmp_path)
    main(["check", "--root", str(tmp_path), "--json"])
    said = capsys.readouterr().out
    json.dumps(json.loads(said), ensure_ascii=False).encode()


def test_plain_words_stay_as_they_are() -> None:
    assert printable("a\n\tcaf\u00e9") == "a\n\tcaf\u00e9"
    assert one_line("a\nb\x07\u2028\udcff") == r"a\nb\x07\u2028\xff"


def test_large_host_is_told_in_few_lines_of_a_readable_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/sys/devices/system/cpu/online", "0-511\n")
    tree.write("/sys/devices/system/node/node0/cpulist", "0-3,8-11,16-511\n")
    for number in range(100, 160):
        tree.write(f"/proc/irq/{number}/smp_affinity_list", f"{number}\n")
    assert main(["check", "--root", str(tmp_path), "--only", "I2", "--hot-cores", "7"]) == 1
    for number in (0, 9, 24, 25, 26, 27, 40):
        tree.write(f"/proc/irq/{number}/smp_affinity_list", "1\n")
        tree.write(f"/proc/irq/{number}/effective_affinity_list", "1\n")
    capsys.readouterr()
    assert main(["check", "--root", str(tmp_path), "--only", "I2", "--hot-cores", "7"]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines()) < 260
    assert said.count("\nOK ") == 1
    assert "and 65 more: 1, 0-3, 100 and so on (want none of 7,15)" in said
