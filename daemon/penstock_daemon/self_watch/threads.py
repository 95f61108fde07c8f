"""A thread as /proc tells of it: how often it lost its CPU, its page faults, where it ran last and for how long.

Read with one system call per file and no parsing beyond the fields that count: a host has thousands of threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

FILE_BYTES_MAX: Final = 4096
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD: Final = 0x00200000  # PF_KTHREAD
# Fields of stat behind the name, from 0. Source: proc_pid_stat(5).
_FLAGS, _MINOR, _MAJOR, _USER, _SYSTEM, _CPU = 6, 7, 9, 11, 12, 36


@dataclass(frozen=True, slots=True)
class ThreadStat:
    """One look at a thread's ``stat``.

    Attributes:
        name: as the kernel has it; any bytes but a zero, made readable.
        of_kernel: no process of anybody.
        minor_faults, major_faults: since it began.
        ran_ns: on CPUs since it began, in steps of TICK_NS.
        last_cpu: where it ran last.
    """

    name: str
    of_kernel: bool
    minor_faults: int
    major_faults: int
    ran_ns: int
    last_cpu: int


@dataclass(frozen=True, slots=True)
class Switches:
    """How often a thread gave its CPU away, and had it taken."""

    voluntary: int
    involuntary: int


def read_file(path: str) -> bytes:
    """Return the first FILE_BYTES_MAX bytes of a file of /proc or /sys.

    Raises:
        OSError: it is not there, not ours to read, or its thread has ended.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def read_stat(folder: str) -> ThreadStat:
    """Return the stat of the thread of *folder*, such as /proc/self/task/TID.

    Raises:
        OSError: it has ended, or is hidden.
        ValueError: the file makes no sense.
    """
    text = read_file(f"{folder}/stat").decode("utf-8", "replace")
    head, bracket, tail = text.rpartition(")")  # The name may hold blanks and brackets; the last bracket ends it.
    fields = tail.split()
    if not bracket or len(fields) <= _CPU:
        raise ValueError(f"{folder}/stat is too short: {text[:80]!r}")
    return ThreadStat(
        head.partition("(")[2],
        bool(int(fields[_FLAGS]) & _KERNEL_THREAD),
        int(fields[_MINOR]),
        int(fields[_MAJOR]),
        (int(fields[_USER]) + int(fields[_SYSTEM])) * TICK_NS,
        int(fields[_CPU]),
    )


def read_switches(folder: str) -> Switches:
    """Return the context switches of the thread of *folder*.

    Raises:
        OSError: it has ended, or is hidden.
    """
    voluntary = involuntary = 0
    for line in read_file(f"{folder}/status").splitlines():
        if line.startswith(b"voluntary_ctxt_switches:"):
            voluntary = int(line.rpartition(b":")[2])
        elif line.startswith(b"nonvoluntary_ctxt_switches:"):
            involuntary = int(line.rpartition(b":")[2])
    return Switches(voluntary, involuntary)


def read_ran_ns(folder: str) -> int | None:
    """Return how long the thread of *folder* ran, to the nanosecond; None where this kernel does not count that."""
    try:
        return int(read_file(f"{folder}/schedstat").split()[0])
    except (OSError, ValueError, IndexError):
        return None
