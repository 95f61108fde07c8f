"""In which order knobs are turned: what one does to another is known before, so nothing of it is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_host.change.apply import Step, apply
from penstock_host.change.journal import Lock, open_journal
from penstock_host.change.revert import revert
from penstock_host.checklist.knobs_command import SwapKnob
from penstock_host.cli import main
from penstock_host.cpu_lists import format_cpus, parse_cpus
from penstock_host.host import Host
from penstock_host.profile import Profile
from support.host_tools import Tools
from support.host_trees import Tree, bare_metal

CPU7 = "/sys/devices/system/cpu/cpu7/cpufreq"
ONLINE = "/sys/devices/system/cpu/cpu15/online"


class Kernel:
    """What the kernel does by itself after a write: to a clock's preference, to interrupts, to files of a CPU that goes."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.check = "/sys/devices/system/machinecheck/machinecheck15/ignore_ce"

    def __call__(self, step: str) -> None:
        when, _, name = step.partition(" ")
        if when != "after":
            return
        if name.endswith("scaling_governor") and self.tree.read(name) == "performance\n":
            self.tree.write(name.replace("scaling_governor", "energy_performance_preference"), "performance\n")
        elif (
            name.endswith("energy_performance_preference")
            and self.tree.read(f"{CPU7}/scaling_governor") == "performance\n"
        ):
            self.tree.write(name, "performance\n")
        elif name == ONLINE:
            online = self.tree.read(ONLINE) == "1\n"
            self.tree.write("/sys/devices/system/cpu/online", "0-15\n" if online else "0-14\n")
            hidden = self.tree.root / "hidden"
            (hidden if online else self.tree.root / self.check[1:]).rename(
                self.tree.root / self.check[1:] if online else hidden
            )
        if name == ONLINE or name.startswith("/proc/irq"):
            for mask in self.tree.root.glob("proc/irq/*/smp_affinity_list"):
                there = parse_cpus(self.tree.read("/sys/devices/system/cpu/online"))
                if not parse_cpus(mask.read_text()) & there:
                    mask.write_text(f"{format_cpus(there)}\n")


def test_what_the_kernel_changes_by_itself_is_put_back_too(tmp_path: Path) -> None:
    tree, tools = bare_metal(tmp_path), Tools()
    kernel = Kernel(tree)
    tree.write(kernel.check, "1\n")
    tree.write("/proc/irq/41/smp_affinity_list", "15\n")
    before = tree.snapshot()
    only = ("C4", "C5", "C16", "I2")
    host = Host(tree.root, profile=Profile(only=only), runner=tools, on_step=kernel)
    with Lock(host), open_journal(host) as journal:
        steps = {deed.step for deed in apply(host, journal).deeds}
    assert steps == {Step.SET, Step.MANAGED}
    assert tree.read(ONLINE) == "0\n"
    host = Host(tree.root, runner=tools, on_step=kernel)
    with Lock(host), open_journal(host) as journal:
        assert revert(host, journal).exit_status == 0
    assert tree.snapshot() == before


def test_what_would_take_the_hot_cores_from_the_daemon_is_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, tools = bare_metal(tmp_path), Tools()
    tools.state["units"]["penstockd slice"] = "system.slice"
    host = Host(tree.root, profile=Profile(only=("C11",)), runner=tools)
    with Lock(host), open_journal(host) as journal:
        first, second = apply(host, journal).deeds
    assert (first.step, second.step) == (Step.NEEDS_FORCE, Step.SET)
    assert "give it Slice=penstock.slice first" in first.reason
    tree.daemon()
    assert main(["apply", "--root", str(tmp_path), "--only", "C1,C11"]) == 3
    assert capsys.readouterr().out.count("UNSAFE") == 4


def test_swap_comes_back_with_its_priority_whatever_it_is_called(tmp_path: Path) -> None:
    knob = SwapKnob("/my swap")
    tree = Tree(tmp_path)
    tree.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/my\\040swap file 2097148 0 10\n/b file 1 0 -2\n")
    host = Host(tmp_path)
    assert (knob.read(host), SwapKnob("/b").read(host), SwapKnob("/c").read(host)) == ("on 10", "on", "off")
    assert knob.shell("off") == "swapoff '/my swap'"
    assert knob.shell(knob.read(host)) == "swapon -p 10 '/my swap'"


def test_cards_are_set_before_interrupts_and_cpus_go_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare_metal(tmp_path)
    main(["plan", "--root", str(tmp_path), "--json"])
    ids = list(dict.fromkeys(line["id"] for line in json.loads(capsys.readouterr().out)["lines"]))
    assert ids[:2] == ["I4", "I8"]
    assert ids[-1] == "C4"
    assert ids.index("I4") < ids.index("I2")
