"""Who else runs on the engine's CPU: threads whose last CPU it was, and that ran since the look before.

    foreign   another process's thread: an interruption that can be avoided
    own       a thread of this daemon that is not the engine
    kernel    the kernel's own; some of them belong to a CPU, and are only counted

A look reads one file for each thread of the host, some 10 us each, and gives way between them; so it is taken seldom, and
never on the event loop. A thread that ran there and elsewhere counts with all of its time. In a container only the
container's processes are seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock_daemon.self_watch.threads import ThreadStat, read_ran_ns, read_stat

_SLICE_THREADS: Final = 32
_PAUSE_S: Final = 0.0005


class Kind(StrEnum):
    """Whose thread it is."""

    FOREIGN = "foreign"
    OWN = "own"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class Intruder:
    """A thread that ran on the engine's CPU.

    Attributes:
        process, thread: its ids.
        name: as the kernel has it.
        kind: whose it is.
        cpu: where it ran last, one of the engine's.
        ran_ns: since the look before, wherever it ran.
    """

    process: int
    thread: int
    name: str
    kind: Kind
    cpu: int
    ran_ns: int


class ForeignThreads:
    """Looks at all threads of the host.

    Args:
        cpus: the engine's own; not empty.
        engine_thread: its thread id.
        root: the folder of /proc; tests give a tree.
    """

    def __init__(self, cpus: frozenset[int], engine_thread: int, root: str = "/proc") -> None:
        assert cpus, "an engine that may run anywhere has no CPU of its own"
        self._cpus = cpus
        self._engine_thread = engine_thread
        self._root = root
        self._process = os.getpid()
        self._ran_ns: dict[int, int] = {}  # Of every thread, by its clock ticks;
        self._exact_ns: dict[int, int] = {}  # of those on the engine's CPU to the nanosecond.
        self.looks = 0

    def look(self) -> list[Intruder]:
        """Return who ran on the engine's CPUs since the look before, longest first; nobody at the first look."""
        ran, exact, found = {}, {}, []
        for number, (process, thread, folder) in enumerate(self._threads()):
            if number % _SLICE_THREADS == 0:
                time.sleep(_PAUSE_S)  # The event loop goes first.
            try:
                stat = read_stat(folder)
            except (OSError, ValueError):  # It ended while we looked, or is hidden.
                continue
            ran[thread] = stat.ran_ns
            if stat.last_cpu not in self._cpus or thread == self._engine_thread:
                continue
            now_ns = read_ran_ns(folder)
            if now_ns is not None:
                exact[thread] = now_ns
            ran_ns = self._since(thread, stat.ran_ns, now_ns)
            if ran_ns > 0 and self.looks:
                found.append(Intruder(process, thread, stat.name, self._kind(process, stat), stat.last_cpu, ran_ns))
        self._ran_ns, self._exact_ns = ran, exact
        self.looks += 1
        return sorted(found, key=lambda one: -one.ran_ns)

    def _since(self, thread: int, ran_ns: int, exact_ns: int | None) -> int:
        """Return how long a thread ran since the look before, as well as that is known."""
        before_ns = self._exact_ns.get(thread)
        if before_ns is not None and exact_ns is not None:
            return exact_ns - before_ns
        if thread in self._ran_ns:
            return ran_ns - self._ran_ns[thread]
        return exact_ns if exact_ns is not None else ran_ns  # It began since.

    def _kind(self, process: int, stat: ThreadStat) -> Kind:
        if stat.of_kernel:
            return Kind.KERNEL
        return Kind.OWN if process == self._process else Kind.FOREIGN

    def _threads(self) -> Iterator[tuple[int, int, str]]:
        """Yield (process, thread, folder) of every thread that /proc shows."""
        for process in _numbers(self._root):
            tasks = f"{self._root}/{process}/task"
            for thread in _numbers(tasks):
                yield process, thread, f"{tasks}/{thread}"


def _numbers(folder: str) -> list[int]:
    """Return the names of *folder* that are numbers; none where it has gone."""
    try:
        return [int(name) for name in os.listdir(folder) if name.isdigit()]  # noqa: PTH208 - a path object per thread is what this avoids.
    except OSError:
        return []
