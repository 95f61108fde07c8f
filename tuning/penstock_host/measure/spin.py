"""Spin on one CPU and write down every gap between two looks at the clock: the child of ``measure jitter``.

It is run as a file, in a process of its own per CPU, and imports nothing of this package: ``python spin.py
'{"cpu": 2, ...}'``. What it found is one JSON object on standard output, written after the last slice, so that nobody
is woken while it measures.

    The loop allocates nothing but the integers of the clock, and enters the kernel for nothing.
    What is not measured (the work between two slices) is in no slice's duration.
    It ends with its parent, at the latest one slice later.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any, Final

_FLOOR_LOOKS: Final = 20_000
_GAPS_MAX: Final = 200_000  # Of one slice; what is full ends its slice early.


def measure(order: dict[str, Any], clock: Callable[[], int] = time.monotonic_ns) -> dict[str, Any]:
    """Return the slices of one CPU: each its duration in ns and its gaps in ns, longest-lived facts first.

    Args:
        order: cpu, start_ns (CLOCK_MONOTONIC), slice_ns, slices, threshold_ns, parent (its process id).
        clock: monotonic, in nanoseconds.
    """
    os.sched_setaffinity(0, {order["cpu"]})
    gc.disable()
    gc.freeze()
    room = array("q", bytes(8 * _GAPS_MAX))  # Zeroed, so every page is there before the first slice.
    floor_ns = _floor(clock)
    threshold_ns = max(order["threshold_ns"], 4 * floor_ns[0])
    slices: list[tuple[int, list[int]]] = []
    orphaned = False
    start_ns = max(order["start_ns"], clock())  # A busy host may have started this process late.
    _wait_until(start_ns, clock)
    for number in range(order["slices"]):
        end_ns = start_ns + (number + 1) * order["slice_ns"]
        found, duration_ns = _spin(clock, end_ns, threshold_ns, room)
        if duration_ns:
            slices.append((duration_ns, room[:found].tolist()))
        if os.getppid() != order["parent"]:
            orphaned = True
            break
        _wait_until(end_ns, clock)
    return {
        "cpu": order["cpu"],
        "threshold_ns": threshold_ns,
        "floor_ns": {"median": floor_ns[0], "p99": floor_ns[1]},
        "orphaned": orphaned,
        "slices": slices,
    }


def _spin(clock: Callable[[], int], end_ns: int, threshold_ns: int, room: Any) -> tuple[int, int]:
    """Look at the clock until *end_ns*; the gaps above the threshold go to *room*. Return their number and the time."""
    found = 0
    full = len(room)
    started = previous = clock()
    while previous < end_ns:
        current = clock()
        if current - previous > threshold_ns:
            room[found] = current - previous
            found += 1
            if found == full:
                previous = current
                break
        previous = current
    return found, previous - started


def _floor(clock: Callable[[], int]) -> tuple[int, int]:
    """Return the median and the 99th percentile of the loop's own step, in nanoseconds: what it cannot see below."""
    steps = array("q", bytes(8 * _FLOOR_LOOKS))
    previous = clock()
    for number in range(_FLOOR_LOOKS):
        current = clock()
        steps[number] = current - previous
        previous = current
    ordered = sorted(steps)
    return ordered[_FLOOR_LOOKS // 2], ordered[_FLOOR_LOOKS * 99 // 100]


def _wait_until(moment_ns: int, clock: Callable[[], int]) -> None:
    while clock() < moment_ns:
        pass  # Sleeping would let the CPU go into an idle state that the first gap would then tell of.


if __name__ == "__main__":
    try:
        answer = measure(json.loads(sys.argv[1]))
    except OSError as refusal:
        answer = {"error": refusal.strerror or str(refusal)}
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.write(json.dumps(answer))
