"""Hosts as trees of files, made by hand from the kernel's documented formats: what penstock-tune sees with --root.

Each builder gives a folder; the programs of the host are in ``host_tools``, and their outputs recorded in the tree.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.host_tools import Tools

CPU = "/sys/devices/system/cpu"
NO_LIMIT_US = 2_000_000_000
STATE = "run/penstock-tune"

STAT = "{pid} ({name}) S 1 {pid} {pid} 0 -1 {flags} 120 0 {major} 0 5 3 0 0 20 0 1 0 100 0 0 184467 0 0 0 0 0 0 0 0 0 0 0 0 17 {cpu} 0 0 0 0 0\n"


@dataclass
class Tree:
    """A host's files under a root."""

    root: Path

    def write(self, name: str, text: str | bytes) -> None:
        path = f"{self.root}{name}" if name.startswith("/") else f"{self.root}/{name}"
        data = text if isinstance(text, bytes) else text.encode()
        try:
            opened = open(path, "wb")  # noqa: PTH123, SIM115 (hundreds of files per test: a Path each takes longer)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True)
            opened = open(path, "wb")  # noqa: PTH123, SIM115
        with opened:
            opened.write(data)

    def files(self, **texts: str) -> None:
        """Write files whose names have ``__`` for ``/``, under the folder ``at``."""
        folder = texts.pop("at")
        for name, text in texts.items():
            self.write(f"{folder}/{name.replace('__', '/')}", f"{text}\n")

    def read(self, name: str) -> str:
        return (self.root / name.lstrip("/")).read_text()

    def link(self, name: str, target: str) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def refuse(self, **rules: object) -> None:
        """Let files refuse: see the tree module of the host tools."""
        self.write("/.refusals.json", json.dumps(rules))

    def process(
        self, pid: int, *words: str, comm: str | None = None, cpu: int = 0, allowed: str = "0", kernel: bool = False
    ) -> None:
        """Add a process with one thread."""
        name = comm or words[0].rsplit("/", 1)[-1][:15]
        self.write(f"/proc/{pid}/cmdline", "".join(f"{word}\0" for word in words))
        self.write(f"/proc/{pid}/comm", f"{name}\n")
        self.write(f"/proc/{pid}/status", f"Name:\t{name}\nVmLck:\t       0 kB\n")
        self.thread(pid, pid, name, cpu=cpu, allowed=allowed, kernel=kernel)

    def thread(
        self,
        pid: int,
        thread: int,
        name: str,
        *,
        cpu: int,
        allowed: str,
        kernel: bool = False,
        major: int = 0,
        switches: int = 0,
    ) -> None:
        folder = f"/proc/{pid}/task/{thread}"
        flags = 0x00208040 if kernel else 0x00400040
        self.write(f"{folder}/stat", STAT.format(pid=thread, name=name, flags=flags, major=major, cpu=cpu))
        self.write(
            f"{folder}/status",
            f"Name:\t{name}\nCpus_allowed_list:\t{allowed}\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t{switches}\n",
        )

    def daemon(self, pid: int = 4242, *, engine_cpus: str = "7", holds_latency: bool = True) -> None:
        """Let a penstockd serve here."""
        self.process(
            pid,
            "/opt/penstock/bin/python",
            "/opt/penstock/bin/penstockd",
            "--config",
            "x.toml",
            comm="penstockd",
            allowed="0-3",
        )
        self.thread(
            pid, pid + 1, "penstock-engine", cpu=int(engine_cpus.split("-", maxsplit=1)[0]), allowed=engine_cpus
        )
        self.write(
            f"/proc/{pid}/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \nMax locked memory         unlimited            unlimited            bytes     \n",
        )
        self.write(f"/proc/{pid}/status", "Name:\tpenstockd\nVmLck:\t   65536 kB\n")
        self.write("/run/penstock/penstockd.sock.lock", f"{pid}\n")
        if holds_latency:
            self.link(f"/proc/{pid}/fd/7", "/dev/cpu_dma_latency")
            self.write("/dev/cpu_dma_latency", struct.pack("=i", 0))

    def snapshot(self) -> dict[str, bytes]:
        """Return every file with its bytes, but penstock-tune's own, and where the kernel delivers an interrupt."""
        return {
            name: path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if not path.is_symlink() and path.is_file() and path.name != "effective_affinity_list"
            if not (name := str(path.relative_to(self.root))).startswith(STATE)
        }


def _cpus(tree: Tree, cores: list[tuple[int, ...]], nodes: dict[int, str], package_of: Callable[[int], int]) -> None:
    online = sorted(cpu for core in cores for cpu in core)
    tree.files(at=CPU, online=f"0-{online[-1]}" if len(online) > 1 else "0", possible=f"0-{online[-1]}", isolated="")
    for core in cores:
        for cpu in core:
            tree.files(
                at=f"{CPU}/cpu{cpu}", topology__thread_siblings_list=",".join(map(str, core)),
                topology__physical_package_id=str(package_of(cpu)),
            )  # fmt: skip
            if cpu:
                tree.write(f"{CPU}/cpu{cpu}/online", "1\n")
    for node, cpus in nodes.items():
        tree.files(at=f"/sys/devices/system/node/node{node}", cpulist=cpus)
        tree.files(
            at=f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB", nr_hugepages="0", free_hugepages="0"
        )


def _kernel(tree: Tree, *, mask: str, cpus: str, clock: str, clocks: str, version: str) -> None:
    tree.files(
        at="/proc/sys/kernel", random__boot_id="0f0e0d0c-1111-2222-3333-444455556666", osrelease="6.8.0-45-generic",
        version=version, timer_migration="1", nmi_watchdog="1", soft_watchdog="1", watchdog_cpumask=cpus,
        sched_rt_runtime_us="950000", numa_balancing="1",
    )  # fmt: skip
    tree.files(at="/proc/sys/vm", stat_interval="1", swappiness="60", compaction_proactiveness="20")
    tree.files(at="/proc/sys/net/core", busy_read="0", busy_poll="0", rmem_max="212992", wmem_max="4194304")
    tree.files(at="/proc/sys/net/ipv4", tcp_slow_start_after_idle="1", tcp_autocorking="1")
    tree.files(
        at="/sys/kernel/mm", transparent_hugepage__enabled="[always] madvise never",
        transparent_hugepage__defrag="always defer defer+madvise [madvise] never",
        transparent_hugepage__khugepaged__defrag="1", ksm__run="0",
    )  # fmt: skip
    tree.files(
        at="/sys/devices/system/clocksource/clocksource0", current_clocksource=clock, available_clocksource=clocks
    )
    tree.files(at="/sys/devices/virtual/workqueue", cpumask=mask)
    tree.files(at="/sys/bus/workqueue/devices/writeback", cpumask=mask)
    tree.files(
        at=f"{CPU}/vulnerabilities", meltdown="Not affected", spectre_v2="Mitigation: Enhanced IBRS", mds="Vulnerable"
    )
    tree.write("/proc/irq/default_smp_affinity", f"{mask}\n")
    tree.write("/proc/modules", "nvme 53248 2 - Live 0x0\n")
    tree.write("/dev/cpu_dma_latency", struct.pack("=i", NO_LIMIT_US))


def _irq(tree: Tree, number: int, cpus: str, effective: str) -> None:
    tree.files(at=f"/proc/irq/{number}", smp_affinity_list=cpus, effective_affinity_list=effective)


def bare_metal(root: Path) -> Tree:
    """Two sockets of four cores with two threads each; NIC and GPU on the second; everything as a distribution has it."""
    tree = Tree(root)
    cores = [(core, core + 8) for core in range(8)]
    _cpus(tree, cores, {0: "0-3,8-11", 1: "4-7,12-15"}, lambda cpu: cpu % 8 // 4)
    _kernel(
        tree,
        mask="0000ffff",
        cpus="0-15",
        clock="tsc",
        clocks="tsc hpet acpi_pm",
        version="#45-Ubuntu SMP PREEMPT_DYNAMIC",
    )
    tree.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz-6.8.0-45 root=UUID=1234 ro quiet\n")
    tree.write("/etc/default/grub", 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX="quiet"\n')
    tree.write("/etc/debian_version", "12.5\n")
    tree.write("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu constant_tsc nonstop_tsc\n")
    tree.files(at=f"{CPU}/smt", control="on", active="1")
    tree.write(f"{CPU}/nohz_full", "(null)\n")
    for cpu in range(16):
        tree.files(
            at=f"{CPU}/cpu{cpu}", cpufreq__scaling_governor="powersave",
            cpufreq__scaling_available_governors="performance powersave",
            cpufreq__energy_performance_preference="balance_performance", power__pm_qos_resume_latency_us="0",
            cpuidle__state0__name="POLL", cpuidle__state3__name="C6",
        )  # fmt: skip
    tree.files(at=f"{CPU}/intel_pstate", min_perf_pct="25", no_turbo="0", status="active")
    tree.files(at=f"{CPU}/cpuidle", current_driver="intel_idle")
    for number in range(2):
        tree.write(f"/sys/devices/system/machinecheck/machinecheck{number}/ignore_ce", "0\n")
    tree.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    tree.write("/sys/fs/cgroup/cgroup.subtree_control", "cpu io memory pids\n")
    tree.write("/sys/fs/cgroup/cpuset.cpus.isolated", "\n")
    tree.write(
        "/proc/swaps",
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/nvme0n1p3                          partition\t8388604\t\t0\t\t-2\n",
    )
    _irq(tree, 0, "0-15", "0")
    _irq(tree, 9, "0-15", "7")
    for number in range(24, 28):
        _irq(tree, number, "0-15", str(number - 20))
    _irq(tree, 40, "0-15", "6")
    _irq(tree, 41, "0-3", "2")
    nic = "/sys/class/net/eth0"
    tree.files(at=nic, operstate="up", speed="25000", device__numa_node="1")
    for number in range(24, 28):
        tree.write(f"{nic}/device/msi_irqs/{number}", "msix\n")
    for queue in range(4):
        tree.files(
            at=f"{nic}/queues", **{f"rx-{queue}__rps_cpus": "0000", f"tx-{queue}__xps_cpus": f"{1 << (queue + 4):04x}"}
        )
    tree.files(at="/sys/class/net/eno1", operstate="up", speed="1000", device__numa_node="0")
    tree.files(at="/sys/class/net/lo", operstate="unknown")
    gpu = "/sys/bus/pci/devices/0000:81:00.0"
    tree.files(at=gpu, vendor="0x10de", **{"class": "0x030200"}, numa_node="1", local_cpulist="4-7,12-15")
    tree.write(f"{gpu}/msi_irqs/40", "msi\n")
    tree.files(at="/sys/bus/pci/devices/0000:00:1f.0", vendor="0x8086", **{"class": "0x060100"})
    tree.files(at="/sys/module/pcie_aspm/parameters", policy="[default] performance powersave powersupersave")
    tree.files(
        at="/sys/class/dmi/id",
        sys_vendor="Dell Inc.",
        product_name="PowerEdge R760",
        bios_version="2.1.5",
        bios_date="03/14/2024",
    )
    for cpu in (0, 4, 6, 7):
        tree.write(f"/dev/cpu/{cpu}/msr", bytes(0x34) + struct.pack("=Q", 17))
    tree.process(1, "/usr/lib/systemd/systemd", comm="systemd", allowed="0-15")
    tree.process(2, comm="kthreadd", allowed="0-15", kernel=True)
    tree.process(50, comm="migration/7", cpu=7, allowed="7", kernel=True)
    tree.process(700, "/usr/sbin/irqbalance", "--foreground", allowed="0-15")
    tree.write("/etc/ptp4l.conf", "[global]\ntwoStepFlag 1\n[eno1]\n")
    tree.process(710, "/usr/sbin/ptp4l", "-f", "/etc/ptp4l.conf", allowed="0-15")
    tree.process(711, "/usr/sbin/phc2sys", "-s", "eth0", "-c", "CLOCK_REALTIME", allowed="0-15")
    tree.process(900, "/usr/bin/node exporter", cpu=7, allowed="0-15", comm="a (b) c")
    tree.refuse(write={"/proc/irq/0/*": "EIO"}, pending=["/proc/irq/9/*"])
    Tools().record(root / "recorded")
    return tree


def cloud_guest(root: Path) -> Tree:
    """Four CPUs of a hypervisor: no frequency, no sleep states, no GPU; virtio; the kernel's own clock of a guest."""
    tree = Tree(root)
    _cpus(tree, [(0, 1), (2, 3)], {0: "0-3"}, lambda _: 0)
    _kernel(tree, mask="f", cpus="0-3", clock="kvm-clock", clocks="kvm-clock tsc acpi_pm", version="#1 SMP")
    tree.write("/proc/cmdline", "console=ttyS0 root=/dev/vda1\n")
    tree.write("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor\n")
    tree.write("/etc/kernel/cmdline", "console=ttyS0 root=/dev/vda1\n")
    tree.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    tree.files(at=f"{CPU}/smt", control="notsupported", active="0")
    tree.files(at=f"{CPU}/cpuidle", current_driver="haltpoll")
    for number in (10, 11, 26):
        _irq(tree, number, "0-3", str(number % 4))
    tree.files(at="/sys/class/net/ens5", operstate="up", device__irq="26")
    tree.files(at="/sys/class/net/ens5/queues", **{"rx-0__rps_cpus": "f", "tx-0__xps_cpus": "f"})
    tree.files(at="/sys/class/dmi/id", sys_vendor="Amazon EC2", product_name="c7i.xlarge")
    tree.process(1, "/sbin/init", allowed="0-3")
    tree.process(300, "/usr/sbin/chronyd", cpu=1, allowed="0-3")
    return tree


def laptop(root: Path) -> Tree:
    """Two kinds of core, one package, wireless; irqbalance that bans nothing; idle=poll by somebody's advice."""
    tree = Tree(root)
    _cpus(tree, [(0, 1), (2, 3), (4,), (5,), (6,), (7,)], {0: "0-7"}, lambda _: 0)
    _kernel(tree, mask="ff", cpus="0-7", clock="hpet", clocks="hpet acpi_pm", version="#1 SMP PREEMPT_RT")
    tree.write("/sys/kernel/realtime", "1\n")
    tree.write("/proc/cmdline", "root=/dev/nvme0n1p2 idle=poll nohz_full=1 rcu_nocbs=6-7\n")
    tree.write(f"{CPU}/nohz_full", "1\n")
    tree.write("/etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT='idle=poll rcu_nocbs=6-7'\n")
    tree.write("/proc/cpuinfo", "vendor_id\t: GenuineIntel\n")
    tree.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 2097148 1024 -2\n")
    tree.files(at=f"{CPU}/cpufreq", boost="1")
    for cpu in range(8):
        tree.files(at=f"{CPU}/cpu{cpu}", cpufreq__scaling_governor="schedutil", power__pm_qos_resume_latency_us="n/a")
    _irq(tree, 1, "0-7", "7")
    _irq(tree, 120, "7", "7")
    tree.files(at="/sys/class/net/wlan0", operstate="up", device__numa_node="-1")
    tree.process(1, "/sbin/init", allowed="0-7")
    tree.process(200, "/usr/sbin/irqbalance", allowed="0-7")
    tree.write("/etc/default/irqbalance", "#IRQBALANCE_ONESHOT=\nIRQBALANCE_BANNED_CPULIST=7\n")
    tree.process(300, "/usr/sbin/chronyd", allowed="0-7")
    tree.process(301, "/lib/systemd/systemd-timesyncd", allowed="0-7")
    return tree


def container(root: Path) -> Tree:
    """Two CPUs; nothing of /sys or /proc/sys may be written, some of it not even read."""
    tree = Tree(root)
    _cpus(tree, [(0,), (1,)], {0: "0-1"}, lambda _: 0)
    _kernel(tree, mask="3", cpus="0-1", clock="tsc", clocks="tsc", version="#1 SMP")
    (tree.root / "proc/cmdline").unlink(missing_ok=True)
    tree.process(1, "/bin/sh", allowed="0-1")
    tree.refuse(write={"/sys/*": "EROFS", "/proc/*": "EROFS"}, read={"/dev/*": "EACCES", "/sys/kernel/mm/*": "EACCES"})
    return tree


TREES: dict[str, Callable[[Path], Tree]] = {
    "bare_metal": bare_metal,
    "cloud_guest": cloud_guest,
    "laptop": laptop,
    "container": container,
}
