"""apply and revert over any host: every byte comes back, nothing of somebody else's is lost, and twice is once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_host.change.apply import Applied, Step, apply
from penstock_host.change.journal import Lock, open_journal
from penstock_host.change.revert import Reverted, revert
from penstock_host.checklist.catalogue import ITEM_IDS
from penstock_host.host import Host
from penstock_host.profile import Profile
from support.host_tools import Tools
from support.host_trees import TREES, Tree

# What any of these may hold instead: numbers of all sizes, other formats, and what makes no sense.
VALUES = st.sampled_from(
    ["0\n", "1\n", "2\n", "10\n", "100\n", "-1\n", "18446744073709551616\n", "", "\n", "garbage\n", "0-3\n", "7\n", "ff\n",
     "00000000,0000ffff\n", "[always] madvise never\n", "always [madvise\n", "performance\n", "n/a\n", "\udcff\udcfe\n", " 1 2 \n", "off\n"]
)  # fmt: skip
# Hundreds of fsyncs on a disk take seconds; what they are for, test_host_crash proves.
MEMORY = Path("/dev/shm")
FIXED = (
    "online",
    "topology",
    "cpulist",
    "isolated",
    "boot_id",
    "recorded",
    ".refusals",
    "cgroup",
    "class",
    "vendor",
    "mtu",
)
IDS = st.lists(st.sampled_from(ITEM_IDS), unique=True, max_size=len(ITEM_IDS)).map(tuple)


class PowerWentError(Exception):
    """The power went."""


class Power:
    """Goes away after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.went = False

    def __call__(self, step: str) -> None:
        self.left -= 1
        if self.left < 0:
            self.went = True
            raise PowerWentError(step)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    trees = {}
    for name, build in TREES.items():
        root = tmp_path_factory.mktemp(name)
        trees[name] = build(root)
    return trees


@contextmanager
def copied(tree: Tree) -> Iterator[Tree]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        shutil.copytree(tree.root, Path(folder) / "host", symlinks=True)
        yield Tree(Path(folder) / "host")


def changeable(tree: Tree) -> list[str]:
    return [f"/{name}" for name in tree.snapshot() if not any(part in name for part in FIXED)]


def scramble(tree: Tree, data: st.DataObject) -> None:
    """Give any of the files any value."""
    for name in data.draw(st.lists(st.sampled_from(changeable(tree)), max_size=12, unique=True), "changed files"):
        tree.write(name, data.draw(VALUES, name).encode("utf-8", "surrogateescape"))


def another(before: str, after: str) -> str:
    """Return a value that is neither; of a file of choices, another choice."""
    if "[" not in before:
        return "1 4 2\n"
    taken = {before.partition("[")[2].partition("]")[0], after.partition("[")[2].partition("]")[0]}
    words = before.replace("[", "").replace("]", "").split()
    chosen = next(word for word in words if word not in taken)
    return " ".join(f"[{word}]" if word == chosen else word for word in words) + "\n"


def do_apply(
    tree: Tree,
    tools: Tools,
    *,
    only: tuple[str, ...] = (),
    force: bool = False,
    step: Callable[[str], None] | None = None,
) -> Applied:
    host = Host(tree.root, profile=Profile(only=only), runner=tools, on_step=step)
    with Lock(host), open_journal(host) as journal:
        return apply(host, journal, force=force)


def do_revert(tree: Tree, tools: Tools, *, force: bool = False, step: Callable[[str], None] | None = None) -> Reverted:
    host = Host(tree.root, runner=tools, on_step=step)
    with Lock(host), open_journal(host) as journal:
        return revert(host, journal, force=force)


@settings(max_examples=14)
@given(data=st.data(), name=st.sampled_from(sorted(TREES)), only=IDS, force=st.booleans())
def test_apply_then_revert_restores_every_byte(
    built: dict[str, Tree], data: st.DataObject, name: str, only: tuple[str, ...], force: bool
) -> None:
    with copied(built[name]) as tree:
        scramble(tree, data)
        tools = Tools()
        files, state = tree.snapshot(), tools.snapshot()
        do_apply(tree, tools, only=only, force=force)
        do_revert(tree, tools, force=force)
        assert tree.snapshot() == files
        assert tools.snapshot() == state


@settings(max_examples=8)
@given(data=st.data(), name=st.sampled_from(sorted(TREES)), only=IDS)
def test_second_apply_changes_nothing(
    built: dict[str, Tree], data: st.DataObject, name: str, only: tuple[str, ...]
) -> None:
    with copied(built[name]) as tree:
        scramble(tree, data)
        tools = Tools()
        do_apply(tree, tools, only=only)
        files, orders = tree.snapshot(), list(tools.orders)
        again = do_apply(tree, tools, only=only)
        assert tree.snapshot() == files
        assert tools.orders == orders
        assert {deed.step for deed in again.deeds} <= {Step.FAILED, Step.NEEDS_FORCE, Step.MANAGED, Step.ALREADY}


@settings(max_examples=16)
@given(data=st.data(), name=st.sampled_from(["bare_metal", "laptop"]), count=st.integers(0, 260), back=st.booleans())
def test_crash_at_any_write_leaves_a_journal_that_restores_everything(
    built: dict[str, Tree], data: st.DataObject, name: str, count: int, back: bool
) -> None:
    power = Power(count)
    with copied(built[name]) as tree:
        scramble(tree, data)
        tools = Tools()
        files, state = tree.snapshot(), tools.snapshot()
        try:
            do_apply(tree, tools, force=True, step=power)
            if back:
                do_revert(tree, tools, step=power)
        except PowerWentError:
            pass
        reverted = do_revert(tree, tools)
        assert tree.snapshot() == files, [deed for deed in reverted.deeds if deed.step is Step.CONFLICT]
        assert tools.snapshot() == state


def test_crash_at_each_step_of_what_takes_several_is_taken_back(built: dict[str, Tree]) -> None:
    count = 0
    with copied(built["bare_metal"]) as tree:
        tools = Tools()
        files, state = tree.snapshot(), tools.snapshot()
        power = Power(count)
        while power.went or not count:
            power = Power(count)
            with suppress(PowerWentError):
                do_apply(tree, tools, only=("C1", "C18", "G2"), step=power)
            do_revert(tree, tools)
            assert (tree.snapshot(), tools.snapshot()) == (files, state), count
            assert not (tree.root / "sys/fs/cgroup/penstock-hot").exists()
            count += 1
    assert count > 40


@settings(max_examples=8)
@given(data=st.data(), name=st.sampled_from(["bare_metal", "laptop"]))
def test_value_that_somebody_else_changed_is_never_overwritten(
    built: dict[str, Tree], data: st.DataObject, name: str
) -> None:
    with copied(built[name]) as tree:
        tools = Tools()
        before = tree.snapshot()
        do_apply(tree, tools)
        after = tree.snapshot()
        ours = sorted(file for file in before if before[file] != after[file] and "cgroup" not in file)
        theirs = data.draw(st.lists(st.sampled_from(ours), min_size=1, max_size=6, unique=True), "theirs")
        for file in theirs:
            tree.write(file, another(before[file].decode(), after[file].decode()))
        changed = {file: (tree.root / file).read_bytes() for file in theirs}

        do_apply(tree, tools)
        assert {file: (tree.root / file).read_bytes() for file in theirs} == changed

        reverted = do_revert(tree, tools)
        now = tree.snapshot()
        assert {file: now[file] for file in theirs} == changed
        conflicts = {deed.target.lstrip("/") for deed in reverted.deeds if deed.step is Step.CONFLICT}
        assert conflicts == set(theirs)
        assert reverted.exit_status == 1
        assert {file: now[file] for file in now if file not in theirs} == {
            file: before[file] for file in before if file not in theirs
        }

        assert do_revert(tree, tools, force=True).exit_status == 0
        assert tree.snapshot() == before
