"""The checklist's C10, C22 and P1: whose threads run on the hot cores, and how the daemon's own stand.

The daemon is asked through /proc alone: what it was told to do is not what counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.cpu import ISOLATION, MUST, R, hot_cpus
from penstock_host.checklist.items import Item, Persistence, Setting, judge, report
from penstock_host.cpu_lists import format_cpus, parse_cpus
from penstock_host.faults import AbsentError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host

P: Final = Persistence.PROCESS
ENGINE: Final = "penstock-engine"
# The kernel's own threads of a CPU: they belong there.
_OF_THE_CPU: Final = ("cpuhp/", "migration/", "ksoftirqd/", "irq/", "idle_inject/", "rcuc/", "rcuop/", "rcuog/", "watchdog/", "posixcputmr/", "irq_work/", "stopper/", "ktimers/", "swapper/", "backlog_napi/")  # fmt: skip
_KERNEL_THREAD: Final = 0x00200000  # PF_KTHREAD
_SHOWN_MAX: Final = 5


@dataclass(frozen=True)
class Thread:
    """A thread as /proc tells of it."""

    process: int
    thread: int
    name: str
    of_kernel: bool
    last_cpu: int
    allowed: frozenset[int]
    minor_faults: int
    major_faults: int
    involuntary: int


def read_thread(host: Host, folder: str) -> Thread | None:
    """Return the thread of ``/proc/PID/task/TID``, or None where it has ended meanwhile.

    Raises:
        ValueError: its files make no sense.
    """
    try:
        stat, status = host.read(f"{folder}/stat"), host.read(f"{folder}/status")
    except (AbsentError, UnreadableError):
        return None
    # The name may hold blanks and brackets; the last bracket ends it.
    head, _, tail = stat.rpartition(")")
    name = head.partition("(")[2]
    fields = tail.split()
    if len(fields) < 37:
        raise ValueError(f"{folder}/stat is too short")
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    parts = folder.split("/")
    return Thread(
        int(parts[2]),
        int(parts[4]),
        name,
        bool(int(fields[6]) & _KERNEL_THREAD),
        int(fields[36]),
        parse_cpus(values.get("Cpus_allowed_list", "")),
        int(fields[7]),
        int(fields[9]),
        int(values.get("nonvoluntary_ctxt_switches", "0")),
    )


def threads_of(host: Host, process: int) -> list[Thread]:
    """Return the threads of *process*."""
    found = (read_thread(host, folder) for folder in host.names(f"/proc/{process}/task/[0-9]*"))
    return [thread for thread in found if thread is not None]


def daemons(host: Host) -> list[int]:
    """Return the processes of the daemon.

    Raises:
        AbsentError: none runs.
    """
    found = host.daemons()
    if not found:
        raise AbsentError("no penstockd runs on this host")
    return found


def _foreign(host: Host) -> Iterable[Setting]:
    hot = frozenset(hot_cpus(host))
    ours = {*host.daemons(), *(() if host.is_tree else (os.getpid(),))}
    seen = everybody = False
    foreign = []
    for process, _ in host.processes():
        for thread in threads_of(host, process):
            seen, everybody = True, everybody or process == 1
            belongs = thread.of_kernel and (thread.name.startswith(_OF_THE_CPU) or len(thread.allowed) == 1)
            if process not in ours and not belongs and thread.last_cpu in hot and thread.allowed & hot:
                foreign.append(thread)
    if not seen:
        raise AbsentError("/proc shows no threads")
    if not everybody and not foreign:
        raise UnreadableError("/proc hides other users' processes (hidepid, or ProtectProc of a unit)")
    named = ", ".join(f"{one.name} ({one.thread}) on {one.last_cpu}" for one in foreign[:_SHOWN_MAX])
    more = f" and {len(foreign) - _SHOWN_MAX} more" if len(foreign) > _SHOWN_MAX else ""
    first = foreign[0].thread if foreign else "TID"
    rest = format_cpus(host.topology.housekeeping)
    yield judge(
        "threads on hot cores", not foreign, "none but the daemon's and the kernel's own", f"{named}{more}" or "none",
        f"taskset -pc {rest} {first}, and so on; C1 and C11 keep new ones away",
    )  # fmt: skip


def _locked_memory(host: Host) -> Iterable[Setting]:
    for process in daemons(host):
        limits = host.read(f"/proc/{process}/limits")
        line = next((line for line in limits.splitlines() if line.startswith("Max locked memory")), "")
        if not line:
            raise UnreadableError(f"/proc/{process}/limits has no line of locked memory")
        soft = line.removeprefix("Max locked memory").split()[0]
        status = host.read(f"/proc/{process}/status")
        locked = next((line.split(":")[1].strip() for line in status.splitlines() if line.startswith("VmLck")), "0 kB")
        size = int(locked.split()[0]) * 1024
        # Whatever the limit: the kernel has locked what it says, and does not hold a privileged process to it.
        yield judge(
            f"locked memory of process {process}", size > 0, "the arena locked, for which the limit must be as large",
            f"limit {soft}, locked {locked}", "set LimitMEMLOCK=infinity in penstockd's unit and start it again",
        )  # fmt: skip


def _self(host: Host) -> Iterable[Setting]:
    running = daemons(host)
    hot = host.topology.hot
    own = f"hot cores {format_cpus(hot)} alone" if hot else "a core of its own"
    before = {process: {one.thread: one for one in threads_of(host, process)} for process in running}
    host.wait()
    for process in running:
        threads = threads_of(host, process)
        if not threads:
            raise UnreadableError(f"/proc/{process}/task shows no threads")
        for one in (one for one in threads if one.name.startswith(ENGINE)):
            yield judge(
                f"{one.name} ({one.thread}) may use", bool(hot) and one.allowed <= hot, own,
                format_cpus(one.allowed), "set engine.cores in penstockd's configuration",
            )  # fmt: skip
        major = minor = involuntary = 0
        for one in threads:
            old = before[process].get(one.thread, one)
            major += one.major_faults - old.major_faults
            minor += one.minor_faults - old.minor_faults
            if one.last_cpu in hot:
                involuntary += one.involuntary - old.involuntary
        yield judge(
            f"page faults of process {process}", major == 0, "0 major while watched", f"{major} major, {minor} minor",
            "lock memory (C22), and let the warm-up end before ticks come",
        )  # fmt: skip
        yield judge(
            f"involuntary switches of process {process} on hot cores", involuntary == 0, "0 while watched", str(involuntary),
            "see C1, C10 and I2 for who interrupts",
        )  # fmt: skip
        places = "; ".join(f"{one.name} {format_cpus(one.allowed)}" for one in threads[:_SHOWN_MAX])
        yield report(f"threads of process {process}", f"{len(threads)}: {places}", wanted="as configured")


ITEMS: Final = (
    Item(
        "C10", "foreign threads", "process", MUST, R, "none on hot cores but the kernel's own",
        "each of them takes the core from the daemon for milliseconds", "moving kernel threads can fail",
        "nothing is moved: taskset with the old list", ISOLATION, _foreign,
    ),
    Item(
        "C22", "locked memory", "process", MUST, P, "unlimited or at least the arena, and the arena locked",
        "memory that is not locked can be taken away, and comes back by a page fault", "none",
        "LimitMEMLOCK of the unit, and a restart", "setrlimit(2)", _locked_memory,
    ),
    Item(
        "P1", "the daemon's threads", "process", MUST, P, "pinned as configured; no major fault, no involuntary switch on hot cores",
        "these are the ticks that came late", "none: it is only read", "nothing to undo", "proc(5)", _self,
    ),
)  # fmt: skip
