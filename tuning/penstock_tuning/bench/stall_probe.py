"""The stall probe: one sleeper process on each processor, that notes when it woke too late.

    with StallProbe(processors) as probe:
        ... what is measured ...
    probe.stalls

A sleeper asks for a millisecond at a time and costs its processor about one per cent. Where the system allows, it runs
at a real-time priority: then no ordinary thread can hold it up, and what it oversleeps is the machine's.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from penstock_client.replay_timer import tighten_timer_slack
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.stalls import STALL_NS, Stalls

PERIOD_NS: Final = 1_000_000
STALLS_MAX: Final = 100_000  # Per sleeper.
_STOP_TIMEOUT_S: Final = 10.0
_LOOK_FOR_PARENT: Final = 1024  # Sleeps between two looks.


class StallProbe:
    """Sleepers on *processors* while entered; ``stalls`` holds what they saw afterwards."""

    def __init__(self, processors: Iterable[int]) -> None:
        self._processors = sorted(processors)
        self._sleepers: list[subprocess.Popen[str]] = []
        self.stalls = Stalls(np.zeros((0, 2), dtype=np.int64), 0, "off")

    def __enter__(self) -> Self:
        """Start the sleepers and wait until all sleep.

        Raises:
            BenchError: one did not start.
        """
        for processor in self._processors:
            self._sleepers.append(
                subprocess.Popen(  # noqa: S603 - Ourselves.
                    [sys.executable, "-m", "penstock_tuning.bench.stall_probe", str(processor)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for sleeper in self._sleepers:
            assert sleeper.stdout is not None, "asked for a pipe"
            if sleeper.stdout.readline().strip() != "asleep":
                self._end()
                raise BenchError(f"the stall probe did not start: exit={sleeper.wait()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wake the sleepers up and gather what they saw."""
        reports = self._end()
        if len(reports) == len(self._processors):
            windows = [window for report in reports for window in report["windows_ns"]]
            self.stalls = Stalls(
                np.array(windows, dtype=np.int64).reshape(-1, 2),
                max(report["worst_ns"] for report in reports),
                "fifo" if all(report["fifo"] for report in reports) else "ordinary",
            )
        elif kind is None:
            raise BenchError(f"the stall probe was ended by others: {len(reports)} of {len(self._processors)} reported")

    def _end(self) -> list[dict[str, Any]]:
        """Stop every sleeper and return the reports of those that gave one."""
        for sleeper in self._sleepers:
            with contextlib.suppress(ProcessLookupError):
                sleeper.send_signal(signal.SIGTERM)
        reports = []
        for sleeper in self._sleepers:
            try:
                said, _ = sleeper.communicate(timeout=_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                sleeper.kill()
                said, _ = sleeper.communicate()
            if said.strip().startswith("{"):
                reports.append(json.loads(said))
        return reports


def sleep_and_note(processor: int) -> None:
    """Be the sleeper of *processor* until SIGTERM, or until the parent is gone; then print what was seen as JSON."""
    os.sched_setaffinity(0, {processor})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        fifo = True
    except OSError:
        fifo = False
    tighten_timer_slack()
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then asks for the report.
    gc.disable()
    print("asleep", flush=True)
    windows: list[tuple[int, int]] = []
    worst_ns = sleeps = 0
    parent = os.getppid()
    due_ns = time.monotonic_ns() + PERIOD_NS
    while not stopped:
        time.sleep(max(due_ns - time.monotonic_ns(), 0) / 1e9)
        woke_ns = time.monotonic_ns()
        overslept_ns = woke_ns - due_ns
        worst_ns = max(worst_ns, overslept_ns)
        if overslept_ns > STALL_NS and len(windows) < STALLS_MAX:
            windows.append((due_ns, woke_ns))
        due_ns = woke_ns + PERIOD_NS
        sleeps += 1
        if sleeps % _LOOK_FOR_PARENT == 0 and os.getppid() != parent:
            return
    print(json.dumps({"windows_ns": windows, "worst_ns": worst_ns, "fifo": fifo}))


if __name__ == "__main__":
    sleep_and_note(int(sys.argv[1]))
