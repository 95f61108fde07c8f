"""The checklist's C1 to C9: isolation, siblings, frequency, sleep states, and the kernel's own work.

Wanted values follow from the topology alone: hot cores get no timer, no thread and no work of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.boot import boot_mend, boot_setting, booted
from penstock_host.checklist.items import (
    Item,
    Persistence,
    Setting,
    Severity,
    Status,
    absent,
    file,
    judge,
    report,
    turn,
)
from penstock_host.checklist.knobs import ControllerKnob, PartitionKnob
from penstock_host.cpu_lists import format_cpus, format_mask, parse_cpus, parse_mask
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.latency import DEVICE, NO_LIMIT_US, holders, latency_limit_us
from penstock_host.topology import CPU

if TYPE_CHECKING:
    from penstock_host.host import Host

R, B = Persistence.RUNTIME, Persistence.BOOT
MUST, SHOULD, INFO = Severity.MUST, Severity.SHOULD, Severity.INFO
GROUPS: Final = "/sys/fs/cgroup"
PARTITION: Final = f"{GROUPS}/penstock-hot"
ISOLATION: Final = "kernel documentation, admin-guide/cpu-isolation.rst"
TUNED: Final = "TuneD profiles latency-performance, network-latency, cpu-partitioning"
WRITTEN_BACK: Final = "the value from the journal is written back"


def hot_cpus(host: Host) -> list[int]:
    """Return the hot CPUs in order.

    Raises:
        AbsentError: this host can't set a core aside.
    """
    hot = sorted(host.topology.hot)
    if not hot:
        raise AbsentError("no core can be set aside on this host")
    return hot


def isolated_cpus(host: Host) -> frozenset[int]:
    """Return the CPUs that are out of the scheduler's balancing, by boot parameter or by partition.

    Raises:
        ValueError: the kernel's list makes no sense.
    """
    isolated = parse_cpus(host.read_or(f"{CPU}/isolated")) | parse_cpus(host.read_or(f"{GROUPS}/cpuset.cpus.isolated"))
    for pattern in (f"{GROUPS}/*/cpuset.cpus.partition", f"{GROUPS}/*/*/cpuset.cpus.partition"):
        for name in host.names(pattern):
            if host.read_or(name) == "isolated":
                isolated |= parse_cpus(host.read_or(name.removesuffix(".partition")))
    return isolated


def _isolation(host: Host) -> Iterable[Setting]:
    hot = frozenset(hot_cpus(host))
    words = format_cpus(hot)
    isolated = isolated_cpus(host)
    partition = PartitionKnob(PARTITION)
    ours = host.exists(PARTITION)
    if hot <= isolated and not ours:
        yield Setting("isolcpus", Status.OK, words, format_cpus(isolated))
        return
    parameter = f"isolcpus=managed_irq,domain,{words}"
    if "cpuset" not in host.read_or(f"{GROUPS}/cgroup.controllers").split():
        yield boot_setting(host, "isolcpus", False, words, format_cpus(isolated) or "none", parameter)
        return
    yield turn(host, ControllerKnob(GROUPS, "cpuset"), "on")
    yield turn(
        host,
        partition,
        f"{words} isolated",
        mend=f"{partition.shell(f'{words} isolated')}; then start penstockd in it (its cgroup.procs) with every "
        f"thread pinned; or {boot_mend(host, parameter)}",
    )
    if ours:
        yield from _members(host)


def _members(host: Host) -> Iterable[Setting]:
    """Yield where each daemon is, as far as it is told: from outside our partition nobody can use its CPUs."""
    name = PARTITION.removeprefix(GROUPS)
    for process in host.daemons():
        group = re.search(r"^0::(.*)$", host.read_or(f"/proc/{process}/cgroup"), re.MULTILINE)
        if group:
            yield judge(
                f"control group of penstockd {process}", f"{group[1]}/".startswith(f"{name}/"), name, group[1],
                f"start it there, as root: echo $$ > {PARTITION}/cgroup.procs, and exec penstockd in the same shell",
            )  # fmt: skip


def _nohz(host: Host) -> Iterable[Setting]:
    hot = frozenset(hot_cpus(host))
    full = parse_cpus(host.read(f"{CPU}/nohz_full"))
    yield boot_setting(
        host, "nohz_full", full <= hot, f"none, or within {format_cpus(hot)}", format_cpus(full) or "none",
        f"nohz_full={format_cpus(hot)}",
    )  # fmt: skip


def _rcu(host: Host) -> Iterable[Setting]:
    hot = frozenset(hot_cpus(host))
    given = booted(host)
    if not given:
        raise AbsentError("/proc/cmdline is absent")
    # The kernel takes N for the last CPU.
    listed = re.sub(r"-N\b", f"-{max(host.topology.online)}", given.get("rcu_nocbs", ""))
    offloaded = host.topology.online if listed == "all" or ("rcu_nocbs" in given and not listed) else parse_cpus(listed)
    offloaded |= parse_cpus(host.read_or(f"{CPU}/nohz_full"))
    yield boot_setting(
        host, "rcu_nocbs", hot <= offloaded, format_cpus(hot), format_cpus(offloaded) or "none",
        f"rcu_nocbs={format_cpus(hot)}",
    )  # fmt: skip


def _siblings(host: Host) -> Iterable[Setting]:
    hot_cpus(host)
    how = host.profile.smt
    control = host.read_or(f"{CPU}/smt/control")
    if how == "off" and control:
        alike = ("off", "forceoff", "notsupported", "notimplemented")
        yield file(host, f"{CPU}/smt/control", "off", accept=lambda found: found.strip() in alike)
        return
    siblings = sorted(host.topology.siblings)
    if not siblings:
        yield Setting("siblings of hot cores", Status.OK, "none online", "none online")
    for cpu in siblings:
        if how == "keep":
            yield report(f"CPU {cpu}", "online beside a hot core", mend="keep everything off it")
        else:
            yield file(host, f"{CPU}/cpu{cpu}/online", "0", form="number")


def _governor(host: Host) -> Iterable[Setting]:
    for cpu in hot_cpus(host):
        folder = f"{CPU}/cpu{cpu}/cpufreq"
        # Before the governor: under "performance" the driver sets the preference itself, and refuses another.
        preference = f"{folder}/energy_performance_preference"
        if host.exists(preference):
            yield file(host, preference, "performance", accept=lambda found: found.strip() == "0")
        choices = host.read_or(f"{folder}/scaling_available_governors").split()
        if choices and "performance" not in choices:
            yield absent(f"{folder}/scaling_governor", "the driver has no performance governor")
        else:
            yield file(host, f"{folder}/scaling_governor", "performance")


def _frequency(host: Host) -> Iterable[Setting]:
    folder = f"{CPU}/intel_pstate"
    turbo = host.profile.turbo
    if host.exists(folder):
        yield file(host, f"{folder}/min_perf_pct", "100", form="number")
    inverted = host.exists(f"{folder}/no_turbo")
    name = f"{folder}/no_turbo" if inverted else f"{CPU}/cpufreq/boost"
    if not host.exists(name):
        yield absent(name, "the driver has no switch for turbo")
    elif turbo == "keep":
        on = (host.read(name).strip() == "0") is inverted
        yield report(name, f"turbo {'on' if on else 'off'}", mend="measure both, and keep one: turbo = in the profile")
    else:
        yield file(host, name, "1" if (turbo == "on") is not inverted else "0", form="number")


def _sleep(host: Host) -> Iterable[Setting]:
    hot = hot_cpus(host)
    per_cpu = [
        file(host, f"{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us", "n/a", shown="n/a (no latency allowed)")
        for cpu in hot
    ]
    narrow = all(setting.status is Status.OK for setting in per_cpu)
    wanted = "0 us, held open by penstockd, or n/a on each hot CPU"
    try:
        limit_us = latency_limit_us(host)
    except AbsentError as fault:
        yield absent(DEVICE, str(fault), wanted=wanted)
        yield from per_cpu
        return
    except UnreadableError:
        if not narrow:
            raise
        yield from per_cpu
        return
    held = sorted(holders(host, host.daemons()))
    by = f", held by penstockd {held[0]}" if held else ", not held by penstockd"
    found = f"{'no limit' if limit_us >= NO_LIMIT_US else f'{limit_us} us'}{by}"
    if held or limit_us == 0:
        yield judge(DEVICE, limit_us == 0, wanted, found, "set tuning.cpu_dma_latency_us = 0 for penstockd")
    elif narrow:
        yield report(DEVICE, found, wanted=wanted)
    elif all(setting.status is Status.UNSUPPORTED for setting in per_cpu) and not host.names(
        f"{CPU}/cpu*/cpuidle/state*"
    ):
        # A guest without sleep states of its own sleeps in the hypervisor's.
        yield report(DEVICE, found, wanted=wanted, mend="this kernel has no sleep states; the hypervisor's are its own")
    else:
        yield Setting(
            DEVICE,
            Status.DRIFT,
            wanted,
            found,
            "set tuning.cpu_dma_latency_us = 0 for penstockd, or apply C7 to the hot CPUs alone",
        )
    if limit_us != 0:
        yield from per_cpu


def _idle(host: Host) -> Iterable[Setting]:
    polls = booted(host).get("idle") == "poll"
    driver = host.read_or(f"{CPU}/cpuidle/current_driver", "none")
    if polls:
        yield boot_setting(host, "idle", False, "not poll", "poll", "idle=poll", drop=True)
    else:
        yield report(f"{CPU}/cpuidle/current_driver", driver)


def _workqueues(host: Host) -> Iterable[Setting]:
    rest = host.topology.housekeeping
    hot_cpus(host)
    for name in ("/sys/devices/virtual/workqueue/cpumask", "/sys/bus/workqueue/devices/writeback/cpumask"):
        yield file(
            host, name, format_mask(rest), form="mask", shown=format_cpus(rest),
            accept=lambda found: bool(parse_mask(found)) and parse_mask(found) <= rest,
        )  # fmt: skip


ITEMS: Final = (
    Item(
        "C1", "isolation of hot cores", "cpu", MUST, R, "hot cores are isolated",
        "the scheduler balances other threads onto a core that looks idle, and each visit costs a tick milliseconds",
        "other threads lose these CPUs; nothing balances on them: a thread that is not pinned piles up on one CPU",
        "the partition becomes a member again and its folder is removed", ISOLATION, _isolation,
        "the daemon's threads lose the hot cores until the daemon is started in the partition",
    ),
    Item(
        "C2", "full dynticks", "cpu", INFO, B, "hot spin cores alone, or none",
        "it takes the timer tick off a core that runs one thread; each entry into the kernel costs 300 ns more",
        "slower system calls: useless for threads that make them", "remove nohz_full= and reboot",
        "kernel mailing list, 2026-03, Nechita: cyclictest average from 1.93 to 2.27 us", _nohz,
    ),
    Item(
        "C3", "RCU callbacks elsewhere", "cpu", SHOULD, B, "hot cores are covered",
        "the kernel's deferred frees otherwise run on the hot core, in bursts",
        "housekeeping cores take the load", "remove rcu_nocbs= and reboot", ISOLATION, _rcu,
    ),
    Item(
        "C4", "siblings of hot cores", "cpu", SHOULD, R, "offline, or idle",
        "two threads of a core share its units and its caches: a busy sibling halves a tick's speed",
        "fewer CPUs; kubelet's CPU manager and cpusets do not expect CPUs to go", "the siblings go online again",
        "rigtorp, low latency tuning guide", _siblings,
        "taking a CPU offline stops all CPUs for a moment, and confuses kubelet and cpusets",
        1,  # The kernel rewrites masks of CPUs that go: they have to be known before, and put back after.
    ),
    Item(
        "C5", "frequency governor", "cpu", MUST, R, "performance on every hot core",
        "a governor that saves power lowers the clock between ticks, and the next tick pays milliseconds",
        "heat and power", WRITTEN_BACK, TUNED, _governor,
    ),
    Item(
        "C6", "least frequency and turbo", "cpu", SHOULD, R, "100 %; turbo as measured, and constant",
        "a clock that ramps up takes its time; turbo varies with temperature, and what is fixed can beat what is fast",
        "heat; without turbo, a lower clock", WRITTEN_BACK, TUNED, _frequency,
    ),
    Item(
        "C7", "sleep states", "cpu", MUST, R, "no latency allowed while the daemon serves",
        "a core that sleeps deeply wakes in 100 us and more, just when the first tick of a burst comes",
        "power; less head-room for turbo; /dev/cpu_dma_latency counts for all CPUs, the files of each for one",
        "the daemon closes /dev/cpu_dma_latency and the kernel forgets it; " + WRITTEN_BACK,
        "kernel documentation, power/pm_qos_interface.rst", _sleep,
    ),
    Item(
        "C8", "idle driver", "cpu", INFO, B, "any, but not idle=poll",
        "idle=poll burns every core, and takes the power that turbo and siblings need",
        "none: it is only read", "nothing to undo", ISOLATION, _idle,
    ),
    Item(
        "C9", "kernel work queues", "cpu", MUST, R, "housekeeping CPUs",
        "work that no CPU owns otherwise runs where it was queued, on a hot core too",
        "none known", WRITTEN_BACK, ISOLATION, _workqueues,
    ),
)  # fmt: skip
