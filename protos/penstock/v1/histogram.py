"""The layout of a latency histogram: which bucket a duration falls into, and back.

Log-linear in decimal: 1 ns steps below 1,000 ns, then 900 equal steps per decade up to 100 s, so that every duration
keeps three significant digits (error below 1 %) and every bound people use (1 ms, 2 ms, 5 ms) is exactly a bucket's
edge. A bucket holds ``lower <= duration < upper``; the last one holds all that is 100 s or more.

    bucket_of(lower_edge_ns(b)) == b     for every bucket b
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

LINEAR_BUCKETS: Final = 1_000
BUCKETS_PER_DECADE: Final = 900
DECADES: Final = 8  # 1 us to 100 s.
OVERFLOW_BUCKET: Final = LINEAR_BUCKETS + DECADES * BUCKETS_PER_DECADE
BUCKETS: Final = OVERFLOW_BUCKET + 1


def bucket_of(duration_ns: int) -> int:
    """Return the bucket of *duration_ns*; negative durations fall into bucket 0 (count them apart)."""
    if duration_ns < LINEAR_BUCKETS:
        return max(duration_ns, 0)
    step_ns, first = 10, LINEAR_BUCKETS
    while first < OVERFLOW_BUCKET:
        if duration_ns < step_ns * LINEAR_BUCKETS:
            return first + duration_ns // step_ns - 100
        step_ns *= 10
        first += BUCKETS_PER_DECADE
    return OVERFLOW_BUCKET


def lower_edge_ns(bucket: int) -> int:
    """Return the smallest duration of *bucket*, in nanoseconds.

    Raises:
        ValueError: no such bucket.
    """
    if not 0 <= bucket < BUCKETS:
        raise ValueError(f"bucket must be in 0 to {BUCKETS - 1}: bucket={bucket}")
    if bucket < LINEAR_BUCKETS:
        return bucket
    decade, step = divmod(bucket - LINEAR_BUCKETS, BUCKETS_PER_DECADE)
    return int((100 + step) * 10 ** (decade + 1))


def lower_edges_ns() -> NDArray[np.int64]:
    """Return the lower edge of every bucket, shape (BUCKETS,), nanoseconds, ascending."""
    return np.array([lower_edge_ns(bucket) for bucket in range(BUCKETS)], dtype=np.int64)


def count_below(counts: NDArray[np.int64], bound_ns: int) -> int:
    """Return how many durations were below *bound_ns*, exact where that is a bucket's edge."""
    return int(counts[: bucket_of(bound_ns)].sum())


def percentile_ns(counts: NDArray[np.int64], share: float) -> int:
    """Return the lower edge of the bucket that holds the *share* quantile, in nanoseconds; 0 for no counts.

    Args:
        counts: shape (BUCKETS,).
        share: in 0 to 1.
    """
    total = int(counts.sum())
    if total == 0:
        return 0
    rank = min(max(int(np.ceil(share * total)), 1), total)
    return lower_edge_ns(int(np.searchsorted(np.cumsum(counts), rank)))
