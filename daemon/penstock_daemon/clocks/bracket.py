"""How far two clocks are apart, by looking at one between two looks at the other: the narrowest of several wins.

    before <= when `of` was read <= after      so  of - against  lies in  [of - after, of - before]

The bound is half the width, and holds however long a look was held up; being held up only makes it wide. So it is
`against` that must never step: CLOCK_MONOTONIC, or CLOCK_MONOTONIC_RAW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock_daemon.clocks.seam import Base, Offset

LOOKS: Final = 5


def bracketed(before_ns: int, of_ns: int, after_ns: int) -> tuple[int, int]:
    """Return (of - against, by how much that is off at most), nanoseconds, of one look between two."""
    assert before_ns <= after_ns, "the clock that is compared with never runs backwards"
    middle_ns = (before_ns + after_ns) // 2
    return of_ns - middle_ns, max(after_ns - middle_ns, middle_ns - before_ns)


def measure(
    of: Base, against: Base, read_of_ns: Callable[[], int], read_against_ns: Callable[[], int], looks: int = LOOKS
) -> Offset:
    """Look *looks* times and return the offset with the least error.

    Args:
        of, against: what the readers read.
        read_of_ns, read_against_ns: return nanoseconds; the latter of a clock that never steps.
        looks: at least 1.
    """
    best: Offset | None = None
    after_ns = read_against_ns()
    for _ in range(looks):
        before_ns = after_ns
        of_ns = read_of_ns()
        after_ns = read_against_ns()
        offset_ns, error_ns = bracketed(before_ns, of_ns, after_ns)
        if best is None or error_ns < best.error_ns:
            best = Offset(of, against, offset_ns, error_ns, before_ns)
    assert best is not None, "looks is at least 1"
    return best
