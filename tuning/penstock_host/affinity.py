"""Which CPUs there are, which of them a thread may use, and where the threads of this process really run.

What was asked for and what holds are two things: ``threads()`` reads /proc/self/task, after the fact.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ThreadPlace:
    """A thread of this process and the CPUs that the kernel lets it use."""

    thread_id: int
    name: str
    cpus: frozenset[int]


def online_cpus() -> frozenset[int]:
    """Return the CPUs that this process may use."""
    return frozenset(os.sched_getaffinity(0))


def pin_this_thread(cpus: frozenset[int]) -> None:
    """Let the calling thread use only *cpus*; threads that it starts inherit this.

    Raises:
        OSError: the kernel refused, such as for a CPU that is offline.
    """
    os.sched_setaffinity(0, cpus)


def pin_all_threads(cpus: frozenset[int]) -> None:
    """Let every thread that this process has now use only *cpus*; threads that they start inherit this.

    Libraries start threads when they are imported (NumPy's linear algebra one per CPU), before anybody can be pinned.

    Raises:
        OSError: the kernel refused, such as for a CPU that is offline.
    """
    pin_this_thread(cpus)
    for entry in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # It ended while we looked.
            os.sched_setaffinity(int(entry.name), cpus)


def threads() -> list[ThreadPlace]:
    """Return every thread of this process with its CPUs, by thread id, as the kernel says now."""
    places = []
    for entry in sorted(Path("/proc/self/task").iterdir(), key=lambda path: int(path.name)):
        try:
            name = (entry / "comm").read_text().strip()
            cpus = frozenset(os.sched_getaffinity(int(entry.name)))
        except (OSError, ProcessLookupError):  # It ended while we looked.
            continue
        places.append(ThreadPlace(int(entry.name), name, cpus))
    return places


def name_this_thread(name: str) -> None:
    """Give the calling thread a name that tools show; the kernel keeps 15 characters."""
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15])
    except OSError:
        return  # A name is a convenience.


def format_cpus(cpus: frozenset[int]) -> str:
    """Return CPUs as the kernel writes them: ``0-3,8``."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
