"""Warnings that come again and again are written once a while, with how many were not.

the first of a kind is written at once; then one per period at most, which says how many it stands for
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PERIOD_S: Final = 60.0


class LogLimit:
    """Decides for each kind of warning whether it is due.

    Args:
        period_s: between two of one kind.
        now_s: the clock; monotonic.
    """

    def __init__(self, period_s: float = PERIOD_S, now_s: Callable[[], float] = time.monotonic) -> None:
        self._period_s = period_s
        self._now_s = now_s
        self._written_s: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def due(self, kind: str) -> int | None:
        """Return how many of *kind* were held back since the last one, or None where this one is held back too.

        Args:
            kind: from a bounded set.
        """
        now_s = self._now_s()
        written_s = self._written_s.get(kind)
        if written_s is not None and now_s - written_s < self._period_s:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return None
        self._written_s[kind] = now_s
        return self._held_back.pop(kind, 0)
