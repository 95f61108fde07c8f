"""What a starting daemon says of its host, and when it refuses: on trees of files that stand for hosts."""

from __future__ import annotations

import logging
import shutil
import struct
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from penstock_daemon import host_care
from penstock_daemon.config_fields import TuningConfig
from penstock_daemon.derived import StartError
from penstock_daemon.host_care import HostCare
from penstock_host.change.apply import apply
from penstock_host.change.journal import Lock, open_journal
from penstock_host.check import check
from penstock_host.checklist.catalogue import BY_ID
from penstock_host.checklist.items import Severity, Status
from penstock_host.daemon_checks import (
    GPU_ITEMS,
    HOST_ITEMS,
    PORT_ITEMS,
    PROCESS_ITEMS,
    DaemonHost,
    Deadline,
    Look,
    Question,
    TooLateError,
)
from penstock_host.host import Host
from penstock_host.profile import Profile
from penstock_host.runner import Outcome
from support.host_tools import GPU, Tools
from support.host_trees import TREES, Tree, bare_metal, cloud_guest, container

DAEMON = 4242
PATIENCE_S = 60.0


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    logger = CapturingLogger()
    monkeypatch.setattr(host_care, "_log", logger)
    monkeypatch.setattr(host_care, "WAIT_S", PATIENCE_S)  # A busy machine is no failure.
    return logger


def lines(log: CapturingLogger) -> list[dict[str, object]]:
    """Return what was said to cost latency, with its level."""
    return [{"level": call.args[0], **call.kwargs} for call in log.calls if "host_costs_latency" in call.args]


def summary(log: CapturingLogger) -> dict[str, object]:
    (call,) = (call for call in log.calls if call.args == ("host_checked",))
    return call.kwargs


def started(tree: Tree, cpus: set[int], *, gpu: str = "", **config: object) -> HostCare:
    """Return the care of a daemon that has got through its start on *tree*."""
    care = HostCare(TuningConfig(**config), frozenset(cpus), root=tree.root, process=DAEMON)
    try:
        care.open()
        care.begin(gpu)
        care.finish()
    except BaseException:
        care.close()
        raise
    return care


def tuned(root: Path) -> Tree:
    """Return a bare-metal host on which penstock-tune was applied for a daemon on CPU 7, and its operator did the rest."""
    tree = bare_metal(root)
    tree.daemon(DAEMON, engine_cpus="7")
    host = Host(tree.root, profile=Profile(hot_cores=frozenset({7})), runner=Tools())
    with Lock(host), open_journal(host) as journal:
        apply(host, journal, force=True)
    tree.thread(900, 900, "a (b) c", cpu=0, allowed="0-6")
    tree.write("/proc/700/environ", "IRQBALANCE_BANNED_CPULIST=7\0")
    return tree


# --- What is said -----------------------------------------------------------------------------------------------------


def test_everything_that_costs_latency_is_one_line_with_its_mend(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7", holds_latency=False)
    care = started(tree, {7})
    (governor,) = (line for line in lines(log) if line["item"] == "C5" and "governor" in str(line["target"]))
    assert governor == {
        "level": logging.WARNING,
        "item": "C5",
        "what": "frequency governor",
        "severity": "must",
        "status": "DRIFT",
        "target": "/sys/devices/system/cpu/cpu7/cpufreq/scaling_governor",
        "want": "performance",
        "was": "powersave",
        "mend": "echo performance > /sys/devices/system/cpu/cpu7/cpufreq/scaling_governor",
    }
    assert {"C1", "C5", "C7", "C9", "C10", "C17", "C18", "I1", "I2"} <= {line["item"] for line in lines(log)}
    levels = {"must": logging.WARNING, "should": logging.INFO, "info": logging.DEBUG}
    assert all(line["level"] == levels[str(line["severity"])] for line in lines(log))
    assert all(line["mend"] and line["want"] and line["was"] for line in lines(log))
    assert str(summary(log)["costly"]).split() == list(dict.fromkeys(line["item"] for line in lines(log)))
    assert (summary(log)["hot_cores"], summary(log)["missed"]) == ("7", "none")
    assert sum(care.looked.counts().values()) == len(care.looked.findings) == len(HOST_ITEMS) + len(PROCESS_ITEMS)


@pytest.mark.parametrize("kind", TREES)
def test_daemon_and_penstock_tune_check_say_the_same(kind: str, tmp_path: Path, log: CapturingLogger) -> None:
    tree = TREES[kind](tmp_path)
    cpu = 1 if kind == "container" else 3
    tree.daemon(DAEMON, engine_cpus=str(cpu))
    looked = started(tree, {cpu}).looked
    host = Host(tree.root, profile=Profile(hot_cores=frozenset({cpu})))
    checked = {finding.item.item_id: finding.settings for finding in check(host)}
    # The daemon runs no systemctl: it sees whether irqbalance runs by its process.
    own = {one.item.item_id: one.settings for one in looked.findings if one.item.item_id != "I1"}
    assert own == {item_id: checked[item_id] for item_id in own}
    assert set(own) == {*HOST_ITEMS, *PROCESS_ITEMS} - {"I1"}
    assert summary(log)["missed"] == "none"


def test_items_that_are_named_exist() -> None:
    assert {*HOST_ITEMS, *PORT_ITEMS, *GPU_ITEMS, *PROCESS_ITEMS} <= set(BY_ID)
    assert all(item_id not in PROCESS_ITEMS for item_id in (*HOST_ITEMS, *PORT_ITEMS, *GPU_ITEMS))


def test_another_daemon_on_the_engines_core_is_a_foreign_thread(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7")
    tree.daemon(5000, engine_cpus="7")
    started(tree, {7})
    (line,) = (line for line in lines(log) if line["item"] == "C10")
    assert "penstock-engine (5001) on 7" in str(line["was"])
    assert "(4243)" not in str(line["was"])


def test_engine_without_a_core_of_its_own_is_told_to_have_one(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="0-15")
    care = started(tree, set())
    (line,) = (line for line in lines(log) if line["item"] == "P1")
    assert (line["want"], line["was"]) == ("a core of its own", "0-15")
    assert line["mend"] == "set engine.cores in penstockd's configuration"
    assert "C1" in care.looked.ids(Status.UNSUPPORTED), "nothing is said of cores that nobody asked for"


@pytest.mark.usefixtures("log")
def test_threads_that_proc_hides_are_not_said_to_be_none(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7")
    for process in (tree.root / "proc").glob("[0-9]*"):
        if process.name != str(DAEMON):
            shutil.rmtree(process)
    care = started(tree, {7})
    (finding,) = (one for one in care.looked.findings if one.item.item_id == "C10")
    assert finding.status is Status.UNREADABLE
    assert "hides other users' processes" in finding.settings[0].mend


@pytest.mark.usefixtures("log")
def test_memory_that_is_locked_above_a_limit_is_locked(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7")
    tree.write(f"/proc/{DAEMON}/limits", "Max locked memory         65536                65536                bytes\n")
    assert "C22" in started(tree, {7}).looked.ids(Status.OK), "a privileged process is above limits"
    tree.write(f"/proc/{DAEMON}/status", "Name:\tpenstockd\nVmLck:\t       0 kB\n")
    assert "C22" in started(tree, {7}).looked.ids(Status.DRIFT)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_must_refuses_an_untuned_host_and_names_items_and_the_plan(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7")
    with pytest.raises(StartError) as refused:
        started(tree, {7}, require="must")
    said = str(refused.value)
    assert said.startswith('tuning.require: must be "none" on this host, was "must": ')
    assert "C5 frequency governor" in said
    assert "penstock-tune plan --hot-cores 7 --only C1,C5," in said
    assert "\n" not in said
    assert lines(log), "the log has the lines all the same"
    severities = {BY_ID[name].severity for name in said.split("--only ")[1].split(maxsplit=1)[0].split(",")}
    assert severities == {Severity.MUST}


def test_host_that_penstock_tune_was_applied_to_is_good_enough(tmp_path: Path, log: CapturingLogger) -> None:
    tree = tuned(tmp_path)
    care = started(tree, {7}, require="must")
    assert not care.looked.costly((Severity.MUST,)), lines(log)
    assert "I2" in str(summary(log)["pending"]).split(), "an interrupt that has not come yet keeps nobody waiting"


def test_should_refuses_what_must_lets_pass(tmp_path: Path, log: CapturingLogger) -> None:
    tree = tuned(tmp_path)
    tree.write("/proc/sys/vm/swappiness", "60\n")
    started(tree, {7}, require="must")
    assert "C19" in {line["item"] for line in lines(log)}
    with pytest.raises(StartError, match="C19 page merging and swap"):
        started(tree, {7}, require="should")


def test_what_a_host_lacks_or_hides_is_no_failure(tmp_path: Path, log: CapturingLogger) -> None:
    tree = container(tmp_path)
    tree.daemon(DAEMON, engine_cpus="1", holds_latency=False)
    skipped = "C1 C3 C9 C10 C12 C13 C14 C17 C19 I2 I3"  # Of what this host shows, and is not.
    (tmp_path / "tune.toml").write_text(f'skip = "{skipped}"\n')
    care = started(tree, {1}, require="should", profile=str(tmp_path / "tune.toml"))
    assert {"C7", "C18"} <= set(care.looked.ids(Status.UNREADABLE))
    assert care.looked.ids(Status.UNSUPPORTED)
    assert "C18" in str(summary(log)["unreadable"]).split()


def test_guest_without_frequencies_is_not_refused_for_them(tmp_path: Path, log: CapturingLogger) -> None:
    tree = cloud_guest(tmp_path)
    tree.daemon(DAEMON, engine_cpus="3")
    care = started(tree, {3})
    assert "C5" in care.looked.ids(Status.UNSUPPORTED)
    assert "C5" not in {line["item"] for line in lines(log)}


def test_engine_on_a_core_that_cannot_be_set_aside_is_said_and_refused(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="0")
    started(tree, {0})
    (said,) = (call.kwargs["detail"] for call in log.calls if call.args == ("host_not_divided",))
    assert said == "hot cores must not include CPU 0, which the kernel itself needs, was 0"
    assert "C17" in {line["item"] for line in lines(log)}, "the rest is looked at all the same"
    assert "C1" not in {line["item"] for line in lines(log)}, "no other core is chosen for it"
    (tmp_path / "tune.toml").write_text('only = "C23"\n')
    with pytest.raises(StartError, match=r"was \"must\": hot cores must not include CPU 0"):
        started(tree, {0}, require="must", profile=str(tmp_path / "tune.toml"))


def test_host_that_tells_of_no_cpus_is_served_on(tmp_path: Path, log: CapturingLogger) -> None:
    care = started(Tree(tmp_path), {1}, require="should")
    assert care.looked.findings == ()
    assert summary(log)["costly"] == "none"


# --- The profile ------------------------------------------------------------------------------------------------------


def test_profile_chooses_items_and_hot_cores_beside_the_engines(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7")
    (tmp_path / "tune.toml").write_text('hot_cores = "6-7"\nonly = "C5,P1"\n')
    care = started(tree, {7}, profile=str(tmp_path / "tune.toml"))
    assert [one.item.item_id for one in care.looked.findings] == ["C5", "P1"]
    assert {"cpu6", "cpu7"} <= {part for line in lines(log) for part in str(line["target"]).split("/")}


def test_faults_of_the_profile_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tune.toml").write_text('hot_core = "6"\nseverity = "urgent"\n')
    with pytest.raises(StartError) as refused:
        started(Tree(tmp_path), {7}, profile=str(tmp_path / "tune.toml"))
    said = str(refused.value)
    assert said.startswith("tuning.profile: hot_core: no such key")
    assert "severity: must be one of must, should, info" in said
    assert "\n" not in said
    with pytest.raises(StartError, match=r"tuning\.profile: must be a file that can be read"):
        started(Tree(tmp_path), {7}, profile=str(tmp_path / "absent.toml"))


# --- /dev/cpu_dma_latency ---------------------------------------------------------------------------------------------


def open_here(path: Path) -> bool:
    """Whether this process has *path* open."""
    return any(link.is_symlink() and link.resolve() == path for link in Path("/proc/self/fd").iterdir())


def test_latency_is_held_from_open_to_close(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7", holds_latency=False)
    device = tmp_path / "dev/cpu_dma_latency"
    before = device.read_bytes()
    care = started(tree, {7})
    assert device.read_bytes() == before
    assert "C7" in {one.item.item_id for one in care.looked.costly((Severity.MUST,))}
    held = started(tree, {7}, cpu_dma_latency_us=0)
    assert device.read_bytes() == struct.pack("=i", 0)
    assert open_here(device)
    assert "C7" in held.looked.ids(Status.OK), "what the daemon does itself is seen"
    held.close()
    held.close()
    assert not open_here(device)


def test_latency_that_cannot_be_held_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"tuning\.cpu_dma_latency_us: must be -1 .*No such file.*deploy/README\.md"):
        started(Tree(tmp_path), {7}, cpu_dma_latency_us=5)


# --- Time -------------------------------------------------------------------------------------------------------------


class Stuck:
    """Programs that end only when they are let go, as one that hangs in its driver."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.leave = threading.Event()

    def has(self, program: str) -> bool:
        return bool(program)

    def run(self, command: object, *, timeout_s: float = 30.0) -> Outcome:
        assert timeout_s <= 5.0
        self.asked.append(command[0])
        self.leave.wait(PATIENCE_S)
        return Outcome(1, "")


def test_program_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    tree, stuck = bare_metal(tmp_path), Stuck()
    profile = Profile(only=("C12", "G1", "G4"))
    look = Look(Question(DAEMON, frozenset({7}), profile, GPU, tree.root, stuck))
    started_s = time.monotonic()
    looked = look.looked(0.05)
    assert time.monotonic() - started_s < 5.0
    stuck.leave.set()
    assert stuck.asked == ["nvidia-smi"]
    assert ([one.item.item_id for one in looked.findings], looked.missed) == (["C12"], ("G1", "G4"))
    later = look.looked(0.0)
    assert "G4" in later.missed, "it looks at nothing more once nobody waits"


def test_no_program_is_run_but_of_devices_that_are_used(tmp_path: Path) -> None:
    tree, stuck = bare_metal(tmp_path), Stuck()
    stuck.leave.set()
    Look(Question(DAEMON, frozenset({7}), Profile(), "", tree.root, stuck)).looked(PATIENCE_S)
    assert stuck.asked == []
    Look(Question(DAEMON, frozenset({7}), Profile(nic="eth0"), GPU, tree.root, stuck)).looked(PATIENCE_S)
    assert {"ethtool", "nvidia-smi"} <= set(stuck.asked) <= {"ethtool", "nvidia-smi", "dmesg"}


def test_gpu_that_predicts_is_looked_at(tmp_path: Path, log: CapturingLogger) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon(DAEMON, engine_cpus="7")
    care = started(tree, {7}, gpu=GPU.upper())
    assert "G1" in {line["item"] for line in lines(log)}
    unseen = started(tree, {7}, gpu="0000:99:00.0")
    assert not unseen.looked.fault, "a container need not show its GPU"
    ids = {one.item.item_id for one in care.looked.findings} - {one.item.item_id for one in unseen.looked.findings}
    assert ids == set(GPU_ITEMS)


def test_nothing_is_said_of_an_item_that_ran_out_of_time(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    times = iter(range(10_000))
    deadline = Deadline(lambda: float(next(times)))
    host = DaemonHost(tree.root, profile=Profile(), process=DAEMON, deadline=deadline)
    host.read("/proc/sys/vm/swappiness")
    deadline.set(20.0)
    with pytest.raises(TooLateError):
        list(BY_ID["C10"].examine(host))
