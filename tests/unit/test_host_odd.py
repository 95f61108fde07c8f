"""Hosts that are not as most are, and writes that do not become what they should: found, said, and put back all the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_host.change.apply import Deed, Step, apply
from penstock_host.change.journal import Lock, open_journal, read_journal
from penstock_host.change.plan import plan
from penstock_host.change.revert import revert
from penstock_host.check import examine
from penstock_host.checklist.catalogue import BY_ID
from penstock_host.checklist.items import Finding, Status
from penstock_host.cpu_lists import parse_cpus, parse_mask
from penstock_host.host import Host
from penstock_host.profile import Profile
from support.host_trees import CPU, Tree, bare_metal, laptop

INTERVAL = "/proc/sys/vm/stat_interval"
PARTITION = "/sys/fs/cgroup/penstock-hot"


def found(tree: Tree, item: str) -> Finding:
    host = Host(tree.root)
    return examine(host, BY_ID[item], read_journal(host))


def applied(tree: Tree, *only: str, step: Callable[[str], None] | None = None) -> list[Deed]:
    host = Host(tree.root, profile=Profile(only=only), on_step=step)
    with Lock(host), open_journal(host) as journal:
        return list(apply(host, journal).deeds)


def reverted(tree: Tree, step: Callable[[str], None] | None = None) -> tuple[list[Deed], int]:
    host = Host(tree.root, on_step=step)
    with Lock(host), open_journal(host) as journal:
        done = revert(host, journal)
    return list(done.deeds), done.exit_status


def test_strong_cores_are_chosen_where_a_processor_has_weak_ones_too(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    assert Host(tmp_path).topology.hot == {6, 7}
    tree.write("/sys/devices/cpu_core/cpus", "0-5\n")
    assert Host(tmp_path).topology.hot == {4, 5}
    (tmp_path / "sys/devices/cpu_core/cpus").unlink()
    for cpu in range(8):
        tree.write(f"{CPU}/cpu{cpu}/cpu_capacity", "1024\n" if cpu in {2, 3, 4} else "446\n")
    assert Host(tmp_path).topology.hot == {2, 4}, "one thread of each strong core"


def test_entry_per_kernel_is_changed_by_grubby_and_read_for_what_is_set_already(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    (tmp_path / "etc/debian_version").unlink()
    assert "run grub2-mkconfig -o /boot/grub2/grub.cfg" in found(tree, "C3").telling[0].mend
    tree.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\nGRUB_ENABLE_BLSCFG=true\n')
    tree.write("/proc/cmdline", "ro idle=poll\n")
    tree.write("/boot/loader/entries/abc-5.14.0.conf", "title Linux\noptions root=/dev/sda1 ro idle=poll\n")
    [last] = [line for line in plan(Host(tmp_path, profile=Profile(only=("C3", "C8")))) if line.item_id == "BOOT"]
    assert last.setting.mend == (
        'run grubby --update-kernel=ALL --args="rcu_nocbs=7" --remove-args="idle" (it writes /boot/loader/entries), and reboot'
    )
    tree.write("/boot/loader/entries/abc-5.14.0.conf", "title Linux\noptions root=/dev/sda1 ro rcu_nocbs=7\n")
    assert found(tree, "C3").status is found(tree, "C8").status is Status.NEEDS_REBOOT


def test_default_affinity_that_is_refused_is_not_called_an_interrupt_of_the_kernels(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.refuse(write={"/proc/irq/default_smp_affinity": "EPERM"})
    assert [deed.step for deed in applied(tree, "I3")] == [Step.FAILED]
    assert found(tree, "I3").status is Status.DRIFT


def test_sleep_states_are_known_without_root_where_each_hot_cpu_says_so(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.refuse(read={"/dev/cpu_dma_latency": "EACCES"})
    assert found(tree, "C7").status is Status.UNREADABLE
    tree.write(f"{CPU}/cpu7/power/pm_qos_resume_latency_us", "n/a\n")
    assert found(tree, "C7").status is Status.OK


@pytest.mark.parametrize(
    ("words", "sets"),
    [
        ("sfptpd -f /etc/sfptpd.cfg", True),
        ("ptpd2 -i eth1", True),
        ("ptp4l -i eth1", False),
        ("ptp4l -S -i eth1", True),
    ],
)
def test_whoever_else_sets_the_clock_is_a_second_writer(tmp_path: Path, words: str, sets: bool) -> None:
    tree = bare_metal(tmp_path)
    tree.process(960, *words.split(), allowed="0-15")
    assert (found(tree, "N5").status is Status.DRIFT) is sets


def test_partition_is_not_taken_apart_while_a_process_is_in_it(tmp_path: Path) -> None:
    """Half taken apart it would be nobody's value, and a CONFLICT once the process has ended."""
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    assert {deed.step for deed in applied(tree, "C1")} == {Step.SET}
    tree.write(f"{PARTITION}/cgroup.procs", "812\n813\n")
    isolated = tree.snapshot()
    deeds, status = reverted(tree)
    refused = next(deed for deed in deeds if deed.step is Step.FAILED)
    assert status == 2
    assert "must be empty, was the group of process 812, 813; end it, or write it into" in refused.reason
    assert tree.read(f"{PARTITION}/cpuset.cpus.partition") == "isolated\n"
    assert {name: isolated[name] for name in isolated if "penstock-hot" in name}.items() <= tree.snapshot().items()
    tree.write(f"{PARTITION}/cgroup.procs", "\n")
    assert reverted(tree)[1] == 0
    assert tree.snapshot() == before


def test_daemon_outside_the_partition_is_told_to_start_inside(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    applied(tree, "C1")
    tree.daemon()
    assert found(tree, "C1").status is Status.OK, "who does not say where it is, is not judged"
    tree.write("/proc/4242/cgroup", "0::/system.slice/penstockd.service\n")
    outside = found(tree, "C1")
    assert (outside.status, outside.telling[0].found) == (Status.DRIFT, "/system.slice/penstockd.service")
    assert f"echo $$ > {PARTITION}/cgroup.procs" in outside.telling[0].mend
    tree.write("/proc/4242/cgroup", "0::/penstock-hot\n")
    assert found(tree, "C1").status is Status.OK


@pytest.mark.parametrize(
    ("file", "theirs", "item", "who"),
    [
        (
            INTERVAL,
            "3\n",
            "C13",
            "somebody, perhaps tuned (process 970: stop it, or change its profile), changed it since",
        ),
        ("/proc/irq/24/smp_affinity_list", "7\n", "I2", "somebody, perhaps irqbalance (process 700: stop it,"),
    ],
)
def test_conflict_names_who_is_known_to_set_such_things(
    tmp_path: Path, file: str, theirs: str, item: str, who: str
) -> None:
    tree = bare_metal(tmp_path)
    tree.process(970, "/usr/bin/python3", "-Es", "/usr/sbin/tuned", "-l", allowed="0-15")
    applied(tree, item)
    tree.write(file, theirs)
    contested = found(tree, item)
    assert contested.status is Status.CONFLICT
    assert contested.telling[0].mend.startswith(who)


def test_plan_says_what_apply_would_refuse_while_a_daemon_serves(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    profile = Profile(only=("C4",))
    assert [line.reason for line in plan(Host(tmp_path, profile=profile))] == [""]
    tree.daemon()
    [line] = plan(Host(tmp_path, profile=profile))
    assert line.reason.startswith("unsafe while penstockd 4242 serves: taking a CPU offline stops all CPUs")
    assert plan(Host(tmp_path, profile=profile), force=True)[0].reason == ""


def test_value_that_the_kernel_makes_of_ours_is_said_and_still_taken_back(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()

    def kernel(step: str) -> None:
        if step == f"after {INTERVAL}":
            tree.write(INTERVAL, "5\n")

    [deed] = applied(tree, "C13", step=kernel)
    assert (deed.step, deed.after) == (Step.SET_OTHERWISE, "5")
    assert deed.reason == "wrote 10: the kernel made another value of it"
    deeds, status = reverted(tree, kernel)
    assert ([deed.step for deed in deeds], status) == ([Step.FAILED], 2)
    assert deeds[0].reason == "wrote 1: the kernel made another value of it"
    assert reverted(tree)[1] == 0
    assert tree.snapshot() == before


def test_write_that_was_refused_and_changed_something_all_the_same_is_taken_back(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    tree.refuse(write={INTERVAL: "EIO"})

    def kernel(step: str) -> None:
        if step == f"before {INTERVAL}":
            tree.write(INTERVAL, "10\n")

    assert [deed.step for deed in applied(tree, "C13", step=kernel)] == [Step.FAILED]
    tree.write("/.refusals.json", before[".refusals.json"])
    assert [deed.step for deed in reverted(tree)[0]] == [Step.RESTORED]
    assert tree.snapshot() == before


def test_journal_is_on_disk_before_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = bare_metal(tmp_path)
    synced: dict[str, int] = {}
    really = os.fsync

    def sync(descriptor: int) -> None:
        really(descriptor)
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size  # noqa: PTH115 (no file)

    writes = []

    def look(step: str) -> None:
        if step.startswith("before /"):
            [journal] = (tmp_path / "run/penstock-tune").glob("journal-*")
            assert str(journal.parent) in synced, "nor is its name"
            assert journal.stat().st_size == synced.get(str(journal))
            assert INTERVAL in journal.read_text()
            writes.append(step)

    monkeypatch.setattr(os, "fsync", sync)
    applied(tree, "C13", step=look)
    assert writes == [f"before {INTERVAL}"]


def test_text_that_no_kernel_writes_is_refused_and_not_read_for_ever(tmp_path: Path) -> None:
    for parse in (parse_cpus, parse_mask):
        with pytest.raises(ValueError, match="at most 65536 characters, was 3000000"):
            parse("7," * 1_500_000)
    tree = bare_metal(tmp_path)
    choices = "/sys/kernel/mm/transparent_hugepage/enabled"
    tree.write(choices, b"[always] madvise never \xff\n")
    before = tree.snapshot()
    assert Step.SET in {deed.step for deed in applied(tree, "C18")}
    assert reverted(tree)[1] == 0
    assert tree.snapshot() == before
