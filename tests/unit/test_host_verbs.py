"""Every verb of penstock-tune over hosts of every kind: what it finds, sets, refuses and puts back; the plan that can be pasted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock_host.checklist.catalogue import ITEM_IDS, ITEMS
from penstock_host.cli import main
from support.host_runs import items_of, run_json
from support.host_trees import TREES, Tree, bare_metal, cloud_guest, container, laptop

PAGE = (
    *(f"C{number}" for number in range(1, 26)), *(f"I{number}" for number in range(1, 11)),
    *(f"N{number}" for number in range(1, 9)), *(f"G{number}" for number in range(1, 10)), "F1", "F2", "P1",
)  # fmt: skip


def test_checklist_has_each_entry_of_the_page_once() -> None:
    assert ITEM_IDS == PAGE


def test_each_item_says_what_why_risk_undo_and_source() -> None:
    for item in ITEMS:
        assert all((item.title, item.wanted, item.why, item.risk, item.undo, item.source)), item.item_id


@pytest.mark.parametrize("name", TREES)
def test_every_verb_runs_on_every_host(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    tree = TREES[name](tmp_path)
    root = ("--root", str(tmp_path))
    before = tree.snapshot()
    for verb in ("check", "plan"):
        status, document = run_json(capsys, verb, *root)
        assert status == document["exit_status"] == 1
        assert [item["id"] for item in document["items"]] == list(PAGE)
        for item in document["items"]:
            assert item["status"] in {"OK", "DRIFT", "UNSUPPORTED", "UNREADABLE", "NEEDS_REBOOT", "REPORT_ONLY"}
            assert item["wanted"] or item["status"] == "UNSUPPORTED"
            assert item["found"]
            assert item["mend"] or item["status"] not in {"DRIFT", "UNREADABLE"}
        assert main([verb, *root]) == 1
    assert tree.snapshot() == before
    status, document = run_json(capsys, "apply", *root)
    # A container's kernel refuses; the programs of the bare-metal host are only recorded.
    assert status == {"bare_metal": 2, "container": 2, "cloud_guest": 1, "laptop": 1}[name]
    assert [item["id"] for item in document["items"]] == list(PAGE)
    status, document = run_json(capsys, "revert", *root)
    assert (status, document["outstanding"]) == (0, 0)
    assert tree.snapshot() == before
    for item_id in ("C1", "i2", "G2"):
        assert main(["explain", item_id, *root]) == 0


def test_apply_makes_runtime_items_as_wanted_and_says_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_metal(tmp_path)
    status, document = run_json(
        capsys, "apply", "--root", str(tmp_path), "--only", "C1,C4,C5,C6,C9,C12,C13,C14,C17,C18,I3,I6,I10,N7"
    )
    assert status == 0
    assert {item["status"] for item in document["items"] if item["id"] != "C6"} == {"OK"}
    assert items_of(document)["C6"]["found"] == "turbo on"
    assert {deed["step"] for deed in document["deeds"]} == {"SET"}
    tree = Tree(tmp_path)
    assert tree.read("/sys/kernel/mm/transparent_hugepage/enabled") == "always [madvise] never\n"
    assert tree.read("/sys/fs/cgroup/penstock-hot/cpuset.cpus") == "7\n"
    assert tree.read("/sys/fs/cgroup/penstock-hot/cpuset.cpus.partition") == "isolated\n"
    assert tree.read("/sys/devices/system/cpu/cpu15/online") == "0\n"
    assert tree.read("/sys/devices/virtual/workqueue/cpumask") == "00007f7f\n"
    assert main(["check", "--root", str(tmp_path), "--only", "C1,C4,C5"]) == 0


def test_interrupt_that_did_not_move_is_pending_and_one_of_the_kernels_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bare_metal(tmp_path)
    # Kernels before 6.11 say EIO, later ones EPERM.
    tree.refuse(write={"/proc/irq/0/*": "EIO", "/proc/irq/26/*": "EPERM"}, pending=["/proc/irq/9/*"])
    root = ("--root", str(tmp_path))
    _, document = run_json(capsys, "apply", *root, "--only", "I2")
    targets = {target["target"]: target for target in items_of(document)["I2"]["targets"]}
    assert targets["/proc/irq/9/smp_affinity_list"]["status"] == "PENDING"
    assert targets["/proc/irq/0/smp_affinity_list"]["status"] == "REPORT_ONLY"
    assert targets["/proc/irq/26/smp_affinity_list"]["status"] == "REPORT_ONLY"
    assert "isolcpus=managed_irq" in targets["/proc/irq/0/smp_affinity_list"]["mend"]
    assert targets["/proc/irq/24/smp_affinity_list"]["status"] == "OK"
    assert tree.read("/proc/irq/24/smp_affinity_list") == "4-6,12-14\n"
    assert {deed["step"] for deed in document["deeds"]} == {"SET", "MANAGED"}
    # The next check still knows, and the interrupt has come meanwhile.
    tree.write("/proc/irq/9/effective_affinity_list", "3\n")
    status, document = run_json(capsys, "check", *root, "--only", "I2")
    assert (status, document["items"][0]["status"]) == (0, "REPORT_ONLY")


def test_unsafe_items_are_refused_while_a_daemon_serves_and_forced_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon()
    root = ("--root", str(tmp_path), "--only", "C4,C5")
    status, document = run_json(capsys, "apply", *root)
    assert status == 3
    steps = {deed["id"]: deed["step"] for deed in document["deeds"]}
    assert steps == {"C4": "UNSAFE", "C5": "SET"}
    assert tree.read("/sys/devices/system/cpu/cpu15/online") == "1\n"
    assert run_json(capsys, "apply", *root, "--force")[0] == 0
    assert tree.read("/sys/devices/system/cpu/cpu15/online") == "0\n"
    status, document = run_json(capsys, "revert", "--root", str(tmp_path))
    assert (status, document["outstanding"]) == (3, 1)
    assert main(["revert", "--root", str(tmp_path), "--force"]) == 0
    assert tree.read("/sys/devices/system/cpu/cpu15/online") == "1\n"


def test_lock_beside_a_socket_counts_as_a_daemon_only_while_its_process_lives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/run/penstock/a.sock.lock", "900\n")
    tree.write("/run/penstock/b.sock.lock", "12345\n")
    _, document = run_json(capsys, "check", "--root", str(tmp_path), "--only", "C5")
    assert document["host"]["daemons"] == [900]


def test_daemon_is_asked_for_its_threads_memory_and_sleep_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bare_metal(tmp_path)
    tree.daemon()
    root = ("--root", str(tmp_path), "--only", "C7,C22,P1")
    status, document = run_json(capsys, "check", *root)
    assert status == 0
    assert items_of(document)["C7"]["found"] == "0 us, held by penstockd 4242"
    shutil.rmtree(tmp_path / "proc/4242")
    tree.daemon(engine_cpus="0-3", holds_latency=False)
    tree.write("/proc/4242/limits", "Max locked memory         65536                65536                bytes\n")
    tree.write("/proc/4242/status", "Name:\tpenstockd\nVmLck:\t   0 kB\n")
    (tmp_path / "dev/cpu_dma_latency").write_bytes((2_000_000_000).to_bytes(4, "little"))
    status, document = run_json(capsys, "check", *root)
    found = items_of(document)
    assert {item["status"] for item in found.values()} == {"DRIFT"}
    assert "not held by penstockd" in found["C7"]["found"]
    assert found["C22"]["mend"].startswith("set LimitMEMLOCK=infinity")
    assert found["P1"]["wanted"] == "hot cores 7 alone"


def test_boot_items_print_the_exact_line_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, build in (("a", bare_metal), ("b", cloud_guest), ("c", laptop)):
        (tmp_path / name).mkdir()
        build(tmp_path / name)
    _, document = run_json(capsys, "check", "--root", str(tmp_path / "a"), "--only", "C3")
    assert (
        'in /etc/default/grub write GRUB_CMDLINE_LINUX="quiet rcu_nocbs=7", run update-grub'
        in document["items"][0]["mend"]
    )
    _, document = run_json(capsys, "check", "--root", str(tmp_path / "b"), "--only", "C1")
    assert (
        "in /etc/kernel/cmdline write console=ttyS0 root=/dev/vda1 isolcpus=managed_irq,domain,2,"
        in document["items"][0]["mend"]
    )
    _, document = run_json(capsys, "check", "--root", str(tmp_path / "c"), "--only", "C8")
    assert 'write GRUB_CMDLINE_LINUX_DEFAULT="rcu_nocbs=6-7"' in document["items"][0]["mend"]
    (tmp_path / "a/etc/default/grub").write_text('GRUB_CMDLINE_LINUX="quiet rcu_nocbs=7"\n')
    status, document = run_json(capsys, "check", "--root", str(tmp_path / "a"), "--only", "C3")
    assert (status, document["items"][0]["status"]) == (1, "NEEDS_REBOOT")


def test_plan_puts_all_boot_parameters_into_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laptop(tmp_path)
    main(["plan", "--root", str(tmp_path), "--only", "C"])
    said = capsys.readouterr().out
    assert 'write GRUB_CMDLINE_LINUX_DEFAULT="rcu_nocbs=6-7 isolcpus=managed_irq,domain,6-7 nohz_full=6-7"' in said


def test_irqbalance_is_told_the_union_of_hot_isolated_and_full_dynticks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = laptop(tmp_path)
    tree.write("/sys/devices/system/cpu/isolated", "0,5\n")  # Not usable as hot cores, but somebody's.
    _, document = run_json(capsys, "check", "--root", str(tmp_path), "--only", "I1")
    assert "IRQBALANCE_BANNED_CPULIST=0-1,5-7 " in document["items"][0]["mend"]
    tree.write("/etc/default/irqbalance", "#IRQBALANCE_BANNED_CPULIST=\n")
    _, document = run_json(capsys, "check", "--root", str(tmp_path), "--only", "I1")
    drop_in = "/etc/systemd/system/irqbalance.service.d/penstock.conf"
    assert (
        f"as {drop_in} write [Service] and, below, Environment=IRQBALANCE_BANNED_CPULIST=0-1,5-7 "
        in document["items"][0]["mend"]
    )
    # What the process runs with counts, not what its file says by now.
    tree.write("/proc/200/environ", "HOME=/\0IRQBALANCE_BANNED_CPULIST=0-1,5-7\0")
    assert main(["check", "--root", str(tmp_path), "--only", "I1"]) == 0


def test_closed_files_are_unreadable_and_refused_writes_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = container(tmp_path)
    before = tree.snapshot()
    status, document = run_json(capsys, "apply", "--root", str(tmp_path))
    found = items_of(document)
    assert status == 2
    assert found["C18"]["status"] == "UNREADABLE"
    assert found["C12"]["status"] == "DRIFT"
    assert {deed["step"] for deed in document["deeds"]} == {"FAILED"}
    assert all("Read-only file system" in deed["reason"] for deed in document["deeds"])
    assert tree.snapshot() == before


def test_plan_can_be_pasted_and_does_what_apply_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pasted, applied = tmp_path / "pasted", tmp_path / "applied"
    pasted.mkdir()
    applied.mkdir()
    only = ("--only", "C4,C5,C6,C7,C9,C12,C13,C14,C17,C20,I3,I6,I10,N7")
    bare_metal(pasted)
    bare_metal(applied)
    capsys.readouterr()
    assert main(["plan", "--root", str(pasted), *only]) == 1
    script = re.sub(r"> /", f"> {pasted}/", capsys.readouterr().out)
    done = subprocess.run(["/bin/sh", "-eu"], input=script, text=True, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    main(["apply", "--root", str(applied), *only])
    assert Tree(pasted).snapshot() == Tree(applied).snapshot()
    assert main(["plan", "--root", str(applied), *only, "--skip", "C7"]) == 0


def test_whole_plan_is_valid_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, build in TREES.items():
        (tmp_path / name).mkdir()
        build(tmp_path / name)
        capsys.readouterr()
        main(["plan", "--root", str(tmp_path / name)])
        script = capsys.readouterr().out
        done = subprocess.run(["/bin/sh", "-n"], input=script, text=True, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert not re.search(r"^[^#\n].*/etc/", script, re.MULTILINE), "files under /etc are others': remarks alone"


def test_value_of_somebody_else_is_a_conflict_until_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = bare_metal(tmp_path)
    name = "/proc/sys/vm/stat_interval"
    root = ("--root", str(tmp_path), "--only", "C13")
    assert main(["apply", *root]) == 0
    tree.write(name, "3\n")
    status, document = run_json(capsys, "check", *root)
    assert (status, document["items"][0]["status"]) == (1, "CONFLICT")
    assert document["items"][0]["mend"] == "somebody changed it since penstock-tune set 10; --force overrides"
    assert main(["plan", *root]) == 1
    assert f"\n# echo 10 > {name}\n" in capsys.readouterr().out + "\n"
    assert (main(["apply", *root]), tree.read(name)) == (1, "3\n")
    assert (main(["revert", *root]), tree.read(name)) == (1, "3\n")
    assert (main(["apply", *root, "--force"]), tree.read(name)) == (0, "10\n")
    assert (main(["revert", *root]), tree.read(name)) == (0, "1\n")


def test_same_cpus_in_another_form_are_as_wanted(tmp_path: Path) -> None:
    tree = bare_metal(tmp_path)
    tree.write("/sys/devices/virtual/workqueue/cpumask", "7F7F\n")
    tree.write("/sys/bus/workqueue/devices/writeback/cpumask", "0,00007f7f\n")
    before = tree.snapshot()
    assert main(["apply", "--root", str(tmp_path), "--only", "C9"]) == 0
    assert tree.snapshot() == before


def test_original_of_several_applies_is_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = bare_metal(tmp_path)
    root = ("--root", str(tmp_path))
    before = tree.snapshot()
    for cores in ("7", "6", "5-6"):
        main(["apply", *root, "--hot-cores", cores])
    capsys.readouterr()
    assert tree.read("/proc/irq/default_smp_affinity") == "00009f9f\n"
    [journal] = (tmp_path / "run/penstock-tune").glob("journal-*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    originals = [line["original"] for line in lines if line["event"] == "intent" and "default_smp" in line["knob"][1]]
    assert originals == ["0000ffff\n"] * 3
    assert main(["revert", *root, "--only", "C5"]) == 0
    assert tree.read("/sys/devices/system/cpu/cpu7/cpufreq/scaling_governor") == "powersave\n"
    assert tree.read("/proc/irq/default_smp_affinity") == "00009f9f\n"
    assert main(["revert", *root]) == 0
    assert tree.snapshot() == before
