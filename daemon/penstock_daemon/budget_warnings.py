"""What the log says of stages over their bounds: a line per path and stage, at most one in so long, with how many.

    counts told in all lines of a row + counts not told yet = the engine's own count

The engine counts and notes the last breach of each row; nobody warns from the hot path. The keeper looks a few times a
second: the first breach is told at once, those of the next ``every_ns`` together after it, however few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.v1.records import PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.budgets import PATH_NAMES
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_stages import EXCEEDED

REALTIME: Final = 0  # The pace that is measured against the budget.


@dataclass(frozen=True, slots=True)
class StageOverBudget:
    """Durations of one stage that were over its bound, since the line before.

    Attributes:
        path, stage: whose.
        elapsed_ns: how long the last of them was.
        budget_ns: the bound.
        sequence: of the last one's tick in its session.
        count: how many, the last one included.
    """

    path: str
    stage: Stage
    elapsed_ns: int
    budget_ns: int
    sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class FlaggedPredictions:
    """Predictions that were flagged since the line before; *flag* is LATE or STALE."""

    flag: PredictionFlag
    count: int


class _Row:
    """One count that only grows, and when it was told last."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._told_ns: int | None = None

    def due(self, count: int, now_ns: int, every_ns: int) -> int:
        """Return how many are to be told now; 0 for nothing, or not yet."""
        added = count - self._told
        if added <= 0 or (self._told_ns is not None and now_ns - self._told_ns < every_ns):
            return 0
        self._told, self._told_ns = count, now_ns
        return added


class BudgetWarnings:
    """Finds what is to be told.

    Args:
        buffers: the engine's; only read.
        every_ns: the least time between two lines of a row.
    """

    def __init__(self, buffers: Buffers, every_ns: int) -> None:
        self._buffers = buffers
        self._every_ns = every_ns
        over = buffers.totals[:, REALTIME, :, EXCEEDED]
        self._stages = [[_Row(int(over[path, stage])) for stage in Stage] for path in range(memory.PATHS)]
        self._flags = [
            (flag, word, _Row(int(buffers.words[word])))
            for flag, word in ((PredictionFlag.LATE, memory.LATE), (PredictionFlag.STALE, memory.STALE))
        ]

    def look(self, now_ns: int) -> Iterator[StageOverBudget | FlaggedPredictions]:
        """Yield what is to be told at *now_ns*, monotonic."""
        buffers = self._buffers
        over = buffers.totals[:, REALTIME, :, EXCEEDED]
        for path, stage in np.argwhere(over > 0).tolist():
            count = self._stages[path][stage].due(int(over[path, stage]), now_ns, self._every_ns)
            if count:
                breach = buffers.breaches[path, stage]
                yield StageOverBudget(
                    path=PATH_NAMES[path],
                    stage=Stage(stage),
                    elapsed_ns=int(breach[memory.BREACH_NS]),
                    budget_ns=int(buffers.bounds[path, stage]),
                    sequence=int(breach[memory.BREACH_SEQUENCE]),
                    count=count,
                )
        for flag, word, row in self._flags:
            count = row.due(int(buffers.words[word]), now_ns, self._every_ns)
            if count:
                yield FlaggedPredictions(flag, count)
