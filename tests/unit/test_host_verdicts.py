"""Verdicts that are easily wrong: a host that is called well though it is not costs more than one that is doubted."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_host.check import check
from penstock_host.checklist.items import Finding, Status
from penstock_host.faults import ProfileError
from penstock_host.host import Host
from penstock_host.profile import Profile, load_profile
from support.host_trees import Tree, bare_metal, cloud_guest

PORT = "/recorded/pmc -u -b 0 GET PORT_DATA_SET"
STATUS = "/recorded/pmc -u -b 0 GET TIME_STATUS_NP"
JOURNAL = "/recorded/journalctl _COMM=phc2sys -n 20 -o short-unix --no-pager"


def found(tree: Tree, item: str) -> Finding:
    return check(Host(tree.root, profile=Profile(only=(item,))))[0]


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("/recorded/now", "1731000001.0", "1731003600.0", "phc2sys age"),
        (PORT, "SLAVE", "LISTENING", "portState"),
        (STATUS, "true", "false", "gmPresent"),
    ],
)
def test_distance_from_utc_is_not_known_from_old_words_or_without_a_master(
    tmp_path: Path, file: str, old: str, new: str, why: str
) -> None:
    tree = bare_metal(tmp_path)
    tree.write(file, tree.read(file).replace(old, new))
    utc = found(tree, "N6")
    assert utc.status is Status.DRIFT
    assert utc.settings[0].found == f"26 ns, and can't be trusted: {why}"


def test_phc2sys_that_runs_and_says_nothing_is_not_unsupported(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.write(JOURNAL, "-- No entries --\n")
    assert found(tree, "N4").status is Status.UNREADABLE


def test_one_clock_discipline_is_one_though_it_has_a_helper_and_others_only_look(tmp_path: Path) -> None:
    tree = cloud_guest(tmp_path)
    tree.process(301, "/usr/sbin/chronyd", allowed="0-3")
    assert found(tree, "N5").status is Status.DRIFT
    tree.write("/proc/301/status", "Name:\tchronyd\nPPid:\t300\n")
    assert found(tree, "N5").status is Status.OK
    tree.process(310, "/usr/sbin/phc2sys", "-a", "-m", allowed="0-3")
    assert found(tree, "N5").status is Status.OK
    tree.process(310, "/usr/sbin/phc2sys", "-a", "-rr", allowed="0-3")
    assert found(tree, "N5").status is Status.DRIFT
    tree.process(300, "/usr/sbin/chronyd", "-x", allowed="0-3")
    tree.process(301, "/usr/sbin/chronyd", "-x", allowed="0-3")
    assert found(tree, "N5").status is Status.OK


@pytest.mark.parametrize("text", ["[global]\n[eth0]\nnetwork_transport L2\n", None])
def test_ptp4l_keeps_the_filter_of_a_port_that_its_file_names_or_may_name(tmp_path: Path, text: str | None) -> None:
    tree = bare_metal(tmp_path)
    assert found(tree, "N2").settings[0].knob is not None
    if text is None:
        (tmp_path / "etc/ptp4l.conf").unlink()
    else:
        tree.write("/etc/ptp4l.conf", text)
    stamps = found(tree, "N2")
    assert stamps.status is Status.DRIFT
    assert stamps.settings[0].knob is None
    assert "ptp4l (process 710) owns this" in stamps.settings[0].mend


def test_irqbalance_is_judged_by_what_it_was_started_with_or_not_at_all(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/etc/default/irqbalance", "IRQBALANCE_BANNED_CPULIST=0-15\n")
    assert found(tree, "I1").status is Status.OK
    tree.write("/proc/700/environ", "")
    assert found(tree, "I1").status is Status.DRIFT
    tree.refuse(read={"/proc/700/environ": "EACCES"})
    assert found(tree, "I1").status is Status.UNREADABLE


def test_kernel_work_that_no_cpu_owns_is_foreign_on_a_hot_core(tmp_path: Path) -> None:
    tree = cloud_guest(tmp_path)
    tree.process(60, comm="kworker/3:1", cpu=3, allowed="3", kernel=True)
    assert found(tree, "C10").status is Status.OK
    tree.process(61, comm="kworker/u8:1", cpu=2, allowed="0-3", kernel=True)
    assert "kworker/u8:1 (61) on 2" in found(tree, "C10").settings[0].found


def test_link_that_is_down_is_no_matter_of_taste(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/sys/class/net/eth0/operstate", "down\n")
    tree.write("/sys/class/net/eth0/speed", "-1\n")
    down = check(Host(tmp_path, profile=Profile(only=("N8",), nic="eth0")))[0]
    assert (down.status, down.telling[0].found) == (Status.DRIFT, "down")


def test_root_is_asked_for_only_where_it_helps(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.refuse(read={"/dev/cpu_dma_latency": "EACCES", "/proc/sys/vm/stat_interval": "EINVAL"})
    closed = [one for one in found(tree, "C7").settings if one.status is Status.UNREADABLE]
    assert closed[0].mend.endswith("needs root; run as root to see it")
    assert found(tree, "C13").settings[0].mend == "/proc/sys/vm/stat_interval: Invalid argument"


def test_absurd_choices_are_refused_or_need_a_decision(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:  8388608 kB\n")
    for pages, forced in ((2048, False), (2049, True)):
        setting = check(Host(tmp_path, profile=Profile(only=("C21",), hugepages=pages)))[0].settings[0]
        assert bool(setting.force) is forced
    for key in ("offset_ns_max", "rx_usecs_max", "link_mbps"):
        with pytest.raises(ProfileError, match=f"{key}: must be a whole number, 0 or more"):
            load_profile(None, {key: -1}, ())
    assert load_profile(None, {"hugepages_node": -1}, ()).hugepages_node == -1


@pytest.mark.parametrize(
    ("command", "often"),
    [
        ("nvidia-smi -l 60", False), ("nvidia-smi --loop=9", True), ("nvidia-smi -lms 500", True), ("nvidia-smi -l", True),
        ("nvidia-smi dmon", True), ("nvidia-smi dmon -d 30", False), ("nvidia-smi -L", False), ("nvidia-smi -q -d CLOCK", False),
        ("watch nvidia-smi", True), ("watch -n 30 nvidia-smi", False), ("watch -n.5 nvidia-smi", True), ("watch -n 1.2.3 nvidia-smi", True),
    ],
)  # fmt: skip
def test_who_watches_the_gpu_seldom_is_left_alone(tmp_path: Path, command: str, often: bool) -> None:
    tree = bare_metal(tmp_path)
    tree.process(800, *command.split(), allowed="0")
    assert (found(tree, "G8").status is Status.DRIFT) is often


@pytest.mark.parametrize("item", ["C10", "N5", "G8"])
def test_nobody_is_said_to_be_there_only_where_all_can_be_seen(tmp_path: Path, item: str) -> None:
    tree = bare_metal(tmp_path)
    tree.process(900, "/usr/bin/x", allowed="0")
    assert found(tree, item).status is Status.OK
    tree.refuse(read={"/proc/1/*": "EPERM"})
    hidden = found(tree, item)
    assert hidden.status is Status.UNREADABLE
    assert "/proc hides other users' processes" in hidden.settings[0].mend


def test_last_cpu_may_be_called_n_on_the_command_line(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/proc/cmdline", "ro rcu_nocbs=1-N\n")
    assert (found(tree, "C3").status, found(tree, "C3").settings[0].found) == (Status.OK, "1-15")
