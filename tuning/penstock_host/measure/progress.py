"""A bar that says how far a measurement is, on a terminal alone.

What measures is disturbed by whoever draws: the bar moves once a second, and not at all where nobody looks.
"""

from __future__ import annotations

import sys
import time
from typing import Final, Self, TextIO

DRAW_S: Final = 1.0
_CELLS: Final = 30


class Progress:
    """A bar over *seconds*, that is drawn on *stream* if it is a terminal; to be used with ``with``."""

    def __init__(self, title: str, seconds: float, stream: TextIO | None = None) -> None:
        self._title = title
        self._seconds = max(seconds, 1e-9)
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self.shown = self._stream.isatty()

    def __enter__(self) -> Self:
        """Draw the empty bar."""
        self.draw()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the line."""
        if self.shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    @property
    def wait_s(self) -> float | None:
        """How long to sleep before the next draw; None where nobody looks."""
        return DRAW_S if self.shown else None

    def draw(self) -> None:
        """Draw how far it is now."""
        if self.shown:
            self._stream.write("\r" + self.line(time.monotonic() - self._started) + "\x1b[K")
            self._stream.flush()

    def line(self, elapsed_s: float) -> str:
        """Return the bar's text after *elapsed_s*."""
        share = min(elapsed_s / self._seconds, 1.0)
        full = int(share * _CELLS)
        left_s = max(self._seconds - elapsed_s, 0.0)
        return f"{self._title} [{'#' * full}{'.' * (_CELLS - full)}] {share:4.0%}  {left_s:,.0f} s left"
