"""The checklist's C11 to C16 and C23 to C25: services, timers, watchdogs, clock, and what the kernel was built for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.cpu import INFO, ISOLATION, MUST, SHOULD, TUNED, WRITTEN_BACK, B, R, hot_cpus
from penstock_host.checklist.items import Item, Setting, Status, file, report, turn
from penstock_host.checklist.knobs_command import PropertyKnob
from penstock_host.cpu_lists import format_cpus, parse_cpus
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.topology import CPU

if TYPE_CHECKING:
    from penstock_host.host import Host

DAEMON_UNIT: Final = "penstockd.service"
SYSCTL: Final = "/proc/sys"
_CLOCK: Final = "/sys/devices/system/clocksource/clocksource0"
_GUEST_CLOCKS: Final = ("kvm-clock", "xen", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr")
_FINE_CLOCKS: Final = ("tsc", "arch_sys_counter")


def _services(host: Host) -> Iterable[Setting]:
    hot_cpus(host)
    rest = host.topology.housekeeping
    ours = _slice_of_daemon(host)
    for unit in ("system.slice", "user.slice"):
        yield turn(
            host,
            PropertyKnob(unit, "AllowedCPUs"),
            format_cpus(rest),
            accept=lambda found: bool(found.strip()) and parse_cpus(",".join(found.split())) <= rest,
            force=f"{DAEMON_UNIT} is in {unit} and would lose the hot cores: give it Slice=penstock.slice first"
            if unit == ours
            else "",
        )


def _slice_of_daemon(host: Host) -> str:
    """Return the slice of the daemon's unit; empty where systemd knows no such unit."""
    try:
        said = host.outcome("systemctl", "show", "-p", "LoadState", "-p", "Slice", DAEMON_UNIT).output.splitlines()
    except (AbsentError, UnreadableError):
        return ""
    return (
        next((line.partition("=")[2] for line in said if line.startswith("Slice=")), "")
        if "LoadState=loaded" in said
        else ""
    )


def _timers(host: Host) -> Iterable[Setting]:
    yield file(host, f"{SYSCTL}/kernel/timer_migration", "0", form="number")


def _statistics(host: Host) -> Iterable[Setting]:
    yield file(
        host,
        f"{SYSCTL}/vm/stat_interval",
        "10",
        form="number",
        accept=lambda found: 10 <= int(found) <= 120,
        shown="10 to 120",
    )


def _watchdogs(host: Host) -> Iterable[Setting]:
    hot_cpus(host)
    rest = host.topology.housekeeping
    off = all(host.read_or(f"{SYSCTL}/kernel/{name}", "0") == "0" for name in ("nmi_watchdog", "soft_watchdog"))
    name = f"{SYSCTL}/kernel/watchdog_cpumask"
    if off and host.exists(name):
        yield Setting(name, Status.OK, format_cpus(rest), "both watchdogs are off")
        return
    yield file(host, name, format_cpus(rest), form="list", accept=lambda found: parse_cpus(found) <= rest)


def _throttling(host: Host) -> Iterable[Setting]:
    yield file(host, f"{SYSCTL}/kernel/sched_rt_runtime_us", "-1" if host.profile.fifo else "950000", form="number")


def _scan(host: Host) -> Iterable[Setting]:
    names = host.names("/sys/devices/system/machinecheck/machinecheck*/ignore_ce")
    if not names:
        raise AbsentError("this kernel has no machine check files")
    for name in names:
        yield file(host, name, "0", form="number")


def _clock_source(host: Host) -> Iterable[Setting]:
    name = f"{_CLOCK}/current_clocksource"
    current = host.read(name).strip()
    choices = host.read_or(f"{_CLOCK}/available_clocksource").split()
    best = next((one for one in _FINE_CLOCKS if one in choices), None)
    if current in _FINE_CLOCKS or (current in _GUEST_CLOCKS and current in choices):
        yield Setting(name, Status.OK, best or current, current)
    elif best is None:
        yield Setting(
            name, Status.DRIFT, "tsc", current, "the kernel found the TSC unstable (dmesg says why): mend the firmware; it is not forced here",
        )  # fmt: skip
    else:
        yield file(host, name, best)


def _mitigations(host: Host) -> Iterable[Setting]:
    names = host.names(f"{CPU}/vulnerabilities/*")
    if not names:
        raise AbsentError("this kernel lists no vulnerabilities")
    said = {name.rsplit("/", 1)[1]: host.read_or(name, "unreadable") for name in names}
    hit = sorted(name for name, words in said.items() if words.startswith("Vulnerable"))
    mended = sum(words.startswith("Mitigation") for words in said.values())
    named = f" ({', '.join(hit)})" if hit else ""
    yield report("mitigations", f"{mended} on, {len(hit)} vulnerable{named}", wanted="never changed here")


def _preemption(host: Host) -> Iterable[Setting]:
    realtime = host.read_or("/sys/kernel/realtime") == "1"
    version = host.read_or("/proc/sys/kernel/version", host.read_or("/proc/version", "unknown"))
    if not realtime and version == "unknown":
        raise AbsentError("this host does not say what kernel it has")
    kind = "real-time" if realtime else "preemptible" if "PREEMPT" in version else "not preemptible"
    yield report("kernel", f"{kind}: {version}", mend="a real-time kernel trades throughput" if realtime else "")


ITEMS: Final = (
    Item(
        "C11", "services off the hot cores", "host", SHOULD, R, "AllowedCPUs of system.slice and user.slice are housekeeping",
        "services and log-ins otherwise run on hot cores",
        "services starve where housekeeping is too small; penstockd needs a slice of its own for the hot cores",
        "the property from the journal is set again", "systemd.resource-control(5)", _services,
        "a daemon that is in one of these slices loses its hot cores",
    ),
    Item(
        "C12", "timer migration", "host", SHOULD, R, "0",
        "idle housekeeping CPUs otherwise hand their timers to a CPU that is busy, such as a hot one",
        "none known", WRITTEN_BACK, f"{TUNED}; NVIDIA Aerial", _timers,
    ),
    Item(
        "C13", "memory statistics", "host", SHOULD, R, "every 10 to 120 s",
        "each CPU wakes to fold its counters, once a second by default", "stale figures in meminfo", WRITTEN_BACK, TUNED, _statistics,
    ),
    Item(
        "C14", "watchdogs", "host", SHOULD, R, "on housekeeping CPUs alone",
        "a watchdog interrupts each CPU that it watches", "a lock-up on a hot core goes unseen", WRITTEN_BACK, ISOLATION, _watchdogs,
    ),
    Item(
        "C15", "real-time throttling", "host", INFO, R, "950000 us, unless a pinned thread runs under SCHED_FIFO: then -1",
        "throttling takes 5 % of each second from a real-time thread that spins, in one piece",
        "-1 and a spinning SCHED_FIFO thread that is not isolated is a dead host", WRITTEN_BACK,
        "kernel documentation, scheduler/sched-rt-group.rst", _throttling,
    ),
    Item(
        "C16", "scan for corrected errors", "host", INFO, R, "0: scanned",
        "the scan costs a few us every five minutes; hidden memory errors cost more", "none: this is the kernel's default",
        WRITTEN_BACK, "kernel documentation, x86/x86_64/machinecheck.rst", _scan,
    ),
    Item(
        "C23", "clock source", "host", MUST, R, "tsc, or a guest's own",
        "another clock makes each time stamp a trap or a read from the chipset, a microsecond and more",
        "a TSC that is unstable gives wrong times", WRITTEN_BACK, TUNED, _clock_source,
    ),
    Item(
        "C24", "mitigations", "host", INFO, B, "known; never changed here",
        "some of them cost at each entry into the kernel", "none: it is only read", "nothing to undo",
        "kernel documentation, admin-guide/hw-vuln", _mitigations,
    ),
    Item(
        "C25", "preemption", "host", INFO, B, "known",
        "what the kernel was built for bounds the longest wait for it", "none: it is only read", "nothing to undo",
        "kernel documentation, admin-guide/kernel-parameters, preempt=", _preemption,
    ),
)  # fmt: skip
