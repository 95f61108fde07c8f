"""Runs of Python's garbage collector while the daemon serves, and the longest pause: each holds the event loop up.

The start ends with a freeze, so what is collected later is young and small. Two attributes are written per run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


class CollectorWatch:
    """Counts from ``open`` to ``close``.

    Args:
        now_ns: the clock; monotonic.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.runs = 0
        self.paused_ns = 0  # All together.
        self.longest_ns = 0
        self._now_ns = now_ns
        self._began_ns = 0

    def open(self) -> None:
        """Begin to count; to be called once everything that lives long is frozen."""
        gc.callbacks.append(self._called)

    def close(self) -> None:
        """Stop counting. May be called twice."""
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    def _called(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began_ns = self._now_ns()
        elif self._began_ns:
            pause_ns = self._now_ns() - self._began_ns
            self.runs += 1
            self.paused_ns += pause_ns
            self.longest_ns = max(self.longest_ns, pause_ns)
