"""What a person sees while a benchmark runs: one line, redrawn once a second, that costs the measurement nothing.

A bar that is drawn often, or by a library, would take its milliseconds from the processors that are measured.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

REDRAW_S = 1.0


class Progress:
    """Shows steps on standard error.

    Args:
        enabled: False for nothing at all.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._on_terminal = sys.stderr.isatty()

    @contextmanager
    def step(self, title: str, expected_s: float = 0.0) -> Iterator[None]:
        """Show *title* and the seconds gone while the block runs.

        Args:
            title: what is being done.
            expected_s: how long it takes; 0 where nobody knows.
        """
        if not self._enabled:
            yield
            return
        if not self._on_terminal:
            sys.stderr.write(f"{title}\n")
            yield
            return
        started_s = time.monotonic()
        done = threading.Event()
        drawer = threading.Thread(target=self._draw, args=(title, expected_s, started_s, done), daemon=True)
        drawer.start()
        try:
            yield
        finally:
            done.set()
            drawer.join()
            sys.stderr.write(f"\r\x1b[K{title}: {time.monotonic() - started_s:.0f} s\n")
            sys.stderr.flush()

    @staticmethod
    def _draw(title: str, expected_s: float, started_s: float, done: threading.Event) -> None:
        of = f" of about {expected_s:.0f}" if expected_s else ""
        while True:
            sys.stderr.write(f"\r\x1b[K{title}: {time.monotonic() - started_s:.0f}{of} s")
            sys.stderr.flush()
            if done.wait(REDRAW_S):
                return
