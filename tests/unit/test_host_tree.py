"""A tree of files that stands for a host: links that lead out of it reach nothing, whatever reads or writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_host.change.journal import Lock
from penstock_host.cli import main
from penstock_host.faults import AbsentError, HostError
from penstock_host.host import Host
from support.host_trees import Tree, bare_metal


def test_link_out_of_the_tree_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/swappiness").write_text("60\n")
    tree = Tree(tmp_path / "host")
    tree.link("/proc/sys/vm", str(tmp_path / "outside"))
    tree.write("/sys/inside", "7\n")
    tree.link("/sys/link", "inside")
    host = Host(tree.root)
    assert not host.exists("/proc/sys/vm/swappiness")
    with pytest.raises(AbsentError):
        host.read("/proc/sys/vm/swappiness")
    assert host.read("/sys/link") == "7\n"


def test_link_out_of_the_tree_is_not_where_the_journal_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = bare_metal(tmp_path / "host")
    tree.link("/run", str(outside))
    with pytest.raises(HostError, match="out of the tree"):
        Lock(Host(tree.root))
    assert main(["apply", "--root", str(tree.root)]) == 2
    assert "a link leads out of the tree" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_link_out_of_the_tree_is_no_place_for_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    tree = Tree(tmp_path / "host")
    tree.link("/sys/fs/cgroup", str(tmp_path / "outside"))
    with pytest.raises(HostError, match="out of the tree"):
        Host(tree.root).make_folder("/sys/fs/cgroup/penstock-hot")
    assert list((tmp_path / "outside").iterdir()) == []
