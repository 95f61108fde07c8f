"""The parts of penstock-tune by themselves: CPU sets, programs, topology, profile, knobs behind programs, latency."""

from __future__ import annotations

import dataclasses
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_host.change.apply import Applied, Step, apply
from penstock_host.change.journal import Lock, open_journal, read_journal
from penstock_host.change.revert import Reverted, revert
from penstock_host.check import check
from penstock_host.checklist.boot import parameters
from penstock_host.checklist.items import Status
from penstock_host.checklist.knobs import KINDS, FileKnob, knob_of
from penstock_host.cpu_lists import format_cpus, format_mask, parse_cpus, parse_mask
from penstock_host.faults import AbsentError, HostError, ProfileError, TopologyError, UnreadableError, WriteRefusedError
from penstock_host.host import Host
from penstock_host.latency import no_sleep_states
from penstock_host.profile import Profile, load_profile
from penstock_host.runner import RealRunner, RecordedRunner
from support.host_tools import GPU, Tools
from support.host_trees import Tree, bare_metal, cloud_guest, laptop

IDS = ("C1", "C5", "I2", "N7")
CPU_SETS = st.frozensets(st.integers(0, 300), max_size=40)


def apply_to(tree: Tree, tools: Tools, *, force: bool = False, **choices: object) -> Applied:
    host = Host(tree.root, profile=Profile(**choices), runner=tools)
    with Lock(host), open_journal(host) as journal:
        return apply(host, journal, force=force)


def revert_of(tree: Tree, tools: Tools) -> Reverted:
    host = Host(tree.root, runner=tools)
    with Lock(host), open_journal(host) as journal:
        return revert(host, journal)


@given(CPU_SETS)
def test_cpu_sets_survive_both_forms(cpus: frozenset[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == cpus
    assert parse_mask(format_mask(cpus)) == cpus


@pytest.mark.parametrize("text", ["x", "3-1", "1-", "-1", "1,,2", "1.5", "99999999999", "0-8192", "²"])
def test_text_that_is_no_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a list"):
        parse_cpus(text)


@pytest.mark.parametrize("text", ["", "x", "0x3", "1,", "123456789", "-1", "f" * 8 + "," + "0," * 300 + "0"])
def test_text_that_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mask"):
        parse_mask(text)


def test_boot_parameters_keep_quotes_and_values() -> None:
    assert parameters('a=1 quiet b="x y" isolcpus=managed_irq,domain,2-5') == {
        "a": "1",
        "quiet": "",
        "b": "x y",
        "isolcpus": "managed_irq,domain,2-5",
    }


def test_real_runner_tells_output_status_absence_and_time() -> None:
    runner = RealRunner()
    done = runner.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"])
    assert (done.exit_status, done.output, done.errors, done.worked) == (3, "out\n", "err\n", False)
    with pytest.raises(AbsentError, match="no-such-program is not installed"):
        runner.run(["no-such-program"])
    with pytest.raises(UnreadableError, match="took more than"):
        runner.run([sys.executable, "-c", "import time; time.sleep(30)"], timeout_s=0.2)
    assert not runner.has("no-such-program")


def test_recorded_runner_starts_nothing_and_knows_what_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "touch _x_y").write_text("said\n")
    (tmp_path / "touch _x_y.exit").write_text("4\n")
    runner = RecordedRunner(tmp_path)
    assert (runner.run(["touch", "/x/y"]).output, runner.run(["touch", "/x/y"]).exit_status) == ("said\n", 4)
    assert runner.has("touch")
    with pytest.raises(AbsentError, match="nothing was recorded"):
        runner.run(["touch", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()


def test_hot_cores_are_the_last_of_the_gpus_node_and_stay_the_same_without_their_siblings(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    first = Host(tmp_path).topology
    assert (first.hot, first.siblings) == ({7}, {15})
    assert first.housekeeping == frozenset(range(16)) - {7, 15}
    assert (first.nic and first.nic.name, first.gpu and first.gpu.name) == ("eth0", GPU)
    tree.write("/sys/devices/system/cpu/online", "0-14\n")
    tree.write("/sys/devices/system/cpu/cpu7/topology/thread_siblings_list", "7\n")
    later = Host(tmp_path).topology
    assert (later.hot, later.siblings, later.housekeeping) == ({7}, frozenset(), first.housekeeping)


def test_cores_isolated_at_boot_are_hot_unless_that_is_unsafe(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    tree.write("/sys/devices/system/cpu/isolated", "4-5\n")
    assert Host(tmp_path).topology.hot == {4, 5}
    tree.write("/sys/devices/system/cpu/isolated", "0,4\n")
    assert Host(tmp_path).topology.hot == {6, 7}


def test_host_without_a_core_to_spare_has_no_hot_cores_and_a_check_all_the_same(tmp_path: Path) -> None:
    tree = cloud_guest(tmp_path)
    tree.write("/sys/devices/system/cpu/online", "0-1\n")
    host = Host(tmp_path)
    assert host.topology.hot == frozenset()
    found = {finding.item.item_id: finding.status for finding in check(host)}
    assert (found["C1"], found["I2"], found["C12"]) == (Status.UNSUPPORTED, Status.UNSUPPORTED, Status.DRIFT)


def test_host_that_does_not_tell_its_cpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="/sys/devices/system/cpu/online"):
        _ = Host(tmp_path).topology


def test_faults_of_profile_and_flags_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('severity = "high"\nnic = "../etc"\nfifo = 1\nhugepages = "many"\nwrong = 1\nsample_s = -1\n')
    with pytest.raises(ProfileError) as caught:
        load_profile(file, {"hot_cores": "", "gpu": "--all", "skip": None}, IDS)
    said = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "severity",
        "nic",
        "fifo",
        "hugepages",
        "wrong",
        "sample_s",
        "hot_cores",
        "gpu",
    ]
    file.write_text("= nonsense")
    with pytest.raises(ProfileError, match="must be TOML"):
        load_profile(file, {}, IDS)


def test_flags_go_before_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('hot_cores = "2-3"\nnic = "eth7"\nonly = "C,N7"\n')
    profile = load_profile(file, {"hot_cores": "4", "nic": None, "skip": "c5"}, IDS)
    assert profile == Profile(hot_cores=frozenset({4}), nic="eth7", only=("C1", "C5", "N7"), skip=("C5",))


def test_each_knob_is_found_again_by_its_words() -> None:
    for kind in KINDS.values():
        knob = kind.of(*("mask" if field.name == "form" else f"a {field.name}" for field in dataclasses.fields(kind)))
        assert knob_of(knob.words) == knob
    for words in (("teleport", "x"), ("file", "/x", "a form of tomorrow"), ("file",), ()):
        with pytest.raises(UnreadableError, match="not known"):
            knob_of(words)


def test_cards_programs_and_units_are_set_by_their_own_commands_and_set_back(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tools = Tools()
    before = tools.snapshot()
    only = ("C11", "I1", "I4", "I7", "I8", "N2", "G1", "G2", "G3")
    applied = apply_to(tree, tools, only=only, gpu_exclusive=True, nic_ring=4096, nic_queues=2, gpu_clock_mhz=1500)
    assert {deed.step for deed in applied.deeds} == {Step.SET}
    assert applied.exit_status == 0
    assert tools.orders == [
        "ethtool -L eth0 combined 2",
        "ethtool -A eth0 rx off",
        "ethtool -G eth0 rx 4096",
        "systemctl set-property --runtime system.slice AllowedCPUs=0-6,8-14",
        "systemctl set-property --runtime user.slice AllowedCPUs=0-6,8-14",
        "systemctl stop irqbalance",
        "ethtool -C eth0 adaptive-rx off",
        "ethtool -C eth0 rx-usecs 0",
        "hwstamp_ctl -i eth0 -t 0 -r 1",
        f"nvidia-smi -i {GPU} -pm 1",
        f"nvidia-smi -i {GPU} -lgc 1500,1500",
        f"nvidia-smi -i {GPU} -c EXCLUSIVE_PROCESS",
    ]
    tools.orders.clear()
    assert revert_of(tree, tools).exit_status == 0
    assert tools.snapshot() == before
    assert tools.orders[0] == f"nvidia-smi -i {GPU} -c DEFAULT"
    assert tools.orders[-1] == "ethtool -L eth0 combined 16"


def test_program_that_refuses_is_told_and_leaves_no_trace_in_the_journal(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tools = Tools()
    tools.run = refusing(tools)  # type: ignore[method-assign]
    applied = apply_to(tree, tools, only=("G1", "I7"))
    assert {deed.step for deed in applied.deeds} == {Step.FAILED}
    assert "Insufficient Permissions" in applied.deeds[0].reason
    assert applied.exit_status == 2
    assert read_journal(Host(tmp_path)).entries == {}


def refusing(tools: Tools):
    run = tools.run

    def refused(command, *, timeout_s: float = 1.0):
        if any(word in {"-pm", "-C"} for word in command):
            return dataclasses.replace(run(["dmesg"]), exit_status=4, output="", errors="Insufficient Permissions\n")
        return run(command, timeout_s=timeout_s)

    return refused


def test_clock_that_stands_lower_than_locked_is_ours_and_one_that_stands_higher_is_not(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tools = Tools()
    apply_to(tree, tools, only=("G2",))
    tools.state["gpu"]["clocks.gr"] = "1700"
    tools.orders.clear()
    # It did not survive the power cap: told, and not written again.
    again = apply_to(tree, tools, only=("G2",))
    assert ([deed.step for deed in again.deeds], tools.orders, again.exit_status) == ([Step.ALREADY], [], 1)
    tools.state["gpu"]["clocks.gr"] = "2100"
    assert [deed.step for deed in revert_of(tree, tools).deeds] == [Step.CONFLICT]


def test_ptp4l_on_the_port_keeps_its_filter(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.process(712, "/usr/sbin/ptp4l", "-i", "eth0", allowed="0-15")
    tools = Tools()
    applied = apply_to(tree, tools, only=("N2",))
    assert (applied.deeds, tools.orders) == ((), [])
    assert "ptp4l (process 712) owns this" in applied.findings[0].settings[0].mend


def test_swap_is_switched_off_only_by_force(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    applied = apply_to(tree, Tools(), only=("C19",))
    assert [deed.step for deed in applied.deeds] == [Step.SET, Step.NEEDS_FORCE]


def test_clock_discipline_distance_and_staleness_are_judged(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    found = {one.item.item_id: one for one in check(Host(tmp_path, profile=Profile(only=("N3", "N4", "N5", "N6"))))}
    assert {one.status for one in found.values()} == {Status.OK}
    assert found["N6"].settings[0].found == "26 ns"
    tree.process(713, "/usr/sbin/chronyd", allowed="0-15")
    tree.write("/recorded/now", "1731000009.0")
    port = "pmc -u -b 0 GET PORT_DATA_SET"
    tree.write(f"/recorded/{port}", tree.read(f"/recorded/{port}").replace("SLAVE", "FAULTY"))
    tight = Profile(only=("N3", "N4", "N5", "N6"), offset_ns_max=10, utc_ns_max=20)
    found = {one.item.item_id: one for one in check(Host(tmp_path, profile=tight))}
    assert {one.status for one in found.values()} == {Status.DRIFT}
    assert [one.target for one in found["N3"].telling] == ["portState", "master_offset"]
    assert [one.target for one in found["N4"].telling] == ["phc2sys age"]


def test_watchers_of_the_gpu_are_named(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    profile = Profile(only=("G8",))
    tree.process(800, "nvidia-smi", "-i", "0", "-lgc", "1000,1000", allowed="0")
    tree.process(801, "dcgm-exporter", "-c", "30000", allowed="0")
    assert check(Host(tmp_path, profile=profile))[0].status is Status.OK
    tree.process(802, "nvidia-smi", "-l", "1", allowed="0")
    tree.process(803, "watch", "-n1", "nvidia-smi", allowed="0")
    tree.process(804, "/usr/bin/dcgm-exporter", "-c", "1000", allowed="0")
    found = check(Host(tmp_path, profile=profile))[0].settings[0].found
    assert [number for number in ("800", "801", "802", "803", "804") if number in found] == ["802", "803", "804"]


def test_hot_cores_away_from_the_gpu_are_told_to_move(tmp_path: Path) -> None:
    bare_metal(tmp_path)
    host = Host(tmp_path, profile=Profile(only=("G5",), hot_cores=frozenset({3})))
    assert check(host)[0].telling[0].mend == "choose --hot-cores among 4-7,12-15"


def test_write_never_leaves_the_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs\n")
    tree = Tree(tmp_path / "host")
    tree.link("/proc/sys/kernel/numa_balancing", str(outside))
    with pytest.raises(WriteRefusedError, match="out of the tree"):
        FileKnob("/proc/sys/kernel/numa_balancing").write(Host(tree.root), "0")
    assert outside.read_text() == "theirs\n"


def test_sleep_states_are_held_off_for_as_long_as_the_file_is_open(tmp_path: Path) -> None:
    device = tmp_path / "cpu_dma_latency"
    device.write_bytes(b"")
    with no_sleep_states(device):
        assert device.read_bytes() == struct.pack("=i", 0)
        links = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        assert device in links
    assert device not in [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    with pytest.raises(WriteRefusedError, match="No such file"), no_sleep_states(tmp_path / "absent"):
        pytest.fail("held nothing")


def test_journal_that_can_not_be_written_stops_apply_before_the_first_write(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    before = tree.snapshot()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run/penstock-tune").write_text("in the way")
    with pytest.raises(HostError, match="can't be made"):
        apply_to(tree, Tools())
    (tmp_path / "run/penstock-tune").unlink()
    assert tree.snapshot() == before


def test_threads_that_ran_on_hot_cores_are_named_but_for_the_daemons_and_the_kernels_own(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon()
    # May run there and did not; the kernel's own of the CPU; the kernel's that could run elsewhere.
    tree.process(901, "/usr/bin/elsewhere", cpu=6, allowed="0-15")
    tree.process(902, comm="kworker/7:1", cpu=7, allowed="7", kernel=True)
    tree.process(903, comm="kswapd0", cpu=7, allowed="0-15", kernel=True)
    [finding] = check(Host(tmp_path, profile=Profile(only=("C10",))))
    assert finding.settings[0].found == "a (b) c (900) on 7, kswapd0 (903) on 7"
    assert finding.settings[0].mend.startswith("taskset -pc 0-6,8-14 900,")
