"""Where the two sides of a measurement run: on halves of the machine, or wherever the kernel likes.

A side gets its processors by inheritance: they are set on the calling thread while its process is started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from penstock_host.affinity import format_cpus, online_cpus
from penstock_tuning.bench.errors import BenchError

SPLIT = "split"
FREE = "free"
CHOICES = (SPLIT, FREE)


@dataclass(frozen=True)
class Placement:
    """Processors of the strategy's side and of the daemon's; empty: all that this process may use."""

    name: str
    strategy: frozenset[int]
    daemon: frozenset[int]

    def words(self) -> str:
        """Return it for people and for JSON."""
        if not self.strategy:
            return "free: the kernel places both sides"
        return f"split: strategy on CPU {format_cpus(self.strategy)}, daemon on CPU {format_cpus(self.daemon)}"


def choose(name: str) -> Placement:
    """Return the placement called *name* for the processors of this process; one processor can't be split.

    Raises:
        BenchError: there is no such placement.
    """
    if name not in CHOICES:
        raise BenchError(f"placement must be one of {', '.join(CHOICES)}: placement={name!r}")
    processors = sorted(online_cpus())
    half = len(processors) // 2
    if name == FREE or not half:
        return Placement(FREE, frozenset(), frozenset())
    return Placement(SPLIT, frozenset(processors[:half]), frozenset(processors[half:]))


@contextlib.contextmanager
def on_processors(processors: frozenset[int]) -> Iterator[None]:
    """Let the calling thread, and all that it starts meanwhile, use only *processors*; empty changes nothing."""
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
