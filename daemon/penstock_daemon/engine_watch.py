"""Whether the engine still turns: its loop counts its passes, and one that has nothing to do makes five a second.

    the same count at STALLED_LOOKS looks running     the engine is held up: in a driver's call that never returns, say

Looks are counted and not time: a daemon that was stopped as a whole has not looked either, and its engine is sound.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_daemon import engine_memory, rings

STALLED_LOOKS: Final = 12  # Of the keeper, four a second.


class EngineWatch:
    """Looks at the count of passes.

    Args:
        words: the engine's shared words.
    """

    def __init__(self, words: NDArray[np.int64]) -> None:
        self._words = words
        self._passes = -1
        self._looks = 0

    def turns(self) -> bool:
        """Look once. Returns False from the look on at which the engine is held up, until it turns again."""
        passes = int(rings.shared_word(self._words, engine_memory.PASSES))
        self._looks = self._looks + 1 if passes == self._passes else 0
        self._passes = passes
        return self._looks < STALLED_LOOKS
