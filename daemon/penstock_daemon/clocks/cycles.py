"""The CPU's cycle counter between two looks at CLOCK_MONOTONIC_RAW, in compiled code: the narrowest of many.

Nothing here runs unless ``tsc.refusal`` found the counter sound: elsewhere it may be another one, or none.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from penstock_daemon.native import clock_ns, cycles

LOOKS: Final = 64
ORDER_NS: Final = 20  # The counter may be read this much before or after the instruction's place in the program.
_CLOCK_MONOTONIC_RAW = np.int32(4)
_compile = njit(cache=True, error_model="numpy")


class Anchor(NamedTuple):
    """One look at the counter and the clock at once.

    Attributes:
        cycles: the counter.
        raw_ns: CLOCK_MONOTONIC_RAW at that moment.
        error_ns: by how much raw_ns is off from that moment at most.
    """

    cycles: int
    raw_ns: int
    error_ns: int


@_compile
def _look(looks: int) -> Any:
    """Return (before, cycles, after) of the narrowest of *looks*."""
    best_before = best_cycles = best_after = np.int64(0)
    after = clock_ns(_CLOCK_MONOTONIC_RAW)
    for turn in range(looks):
        before = after
        seen = cycles()
        after = clock_ns(_CLOCK_MONOTONIC_RAW)
        if turn == 0 or after - before < best_after - best_before:
            best_before, best_cycles, best_after = before, seen, after
    return best_before, best_cycles, best_after


def read_anchor() -> Anchor:
    """Look at both, LOOKS times, and return the narrowest: some 10 us, and once the time to compile it."""
    before_ns, seen, after_ns = _look(LOOKS)
    return Anchor(int(seen), int(before_ns + after_ns) // 2, int(after_ns - before_ns) // 2 + 1 + ORDER_NS)
