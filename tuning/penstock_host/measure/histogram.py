"""A histogram of durations in the log-linear buckets of the daemon's own latencies, with the standard library alone.

1 ns steps below 1,000 ns, then 900 equal steps per decade up to 100 s: three significant digits everywhere. Only
buckets that hold something are kept, so a quiet CPU costs nothing.

    bucket_of(lower_edge_ns(b)) == b     for every bucket b
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

LINEAR_BUCKETS: Final = 1_000
BUCKETS_PER_DECADE: Final = 900
DECADES: Final = 8  # 1 us to 100 s.
OVERFLOW_BUCKET: Final = LINEAR_BUCKETS + DECADES * BUCKETS_PER_DECADE

QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}


def bucket_of(duration_ns: int) -> int:
    """Return the bucket of *duration_ns*; negative durations fall into bucket 0."""
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
    if not 0 <= bucket <= OVERFLOW_BUCKET:
        raise ValueError(f"bucket must be in 0 to {OVERFLOW_BUCKET}: bucket={bucket}")
    if bucket < LINEAR_BUCKETS:
        return bucket
    decade, step = divmod(bucket - LINEAR_BUCKETS, BUCKETS_PER_DECADE)
    return (100 + step) * int(10 ** (decade + 1))


def counted(durations_ns: Iterable[int]) -> dict[int, int]:
    """Return how many of *durations_ns* fall into each bucket that gets any."""
    counts: dict[int, int] = {}
    for duration_ns in durations_ns:
        bucket = bucket_of(duration_ns)
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Return the sum of *histograms*."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile_ns(counts: Mapping[int, int], share: float) -> int:
    """Return the lower edge of the bucket that holds the *share* quantile, in nanoseconds; 0 for no counts.

    Args:
        counts: of each bucket.
        share: in 0 to 1.
    """
    total = sum(counts.values())
    if total == 0:
        return 0
    whole = int(share * total)
    rank = min(max(whole if whole == share * total else whole + 1, 1), total)
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return lower_edge_ns(bucket)
    raise AssertionError("the rank is at most the total")


def count_from(counts: Mapping[int, int], bound_ns: int) -> int:
    """Return how many durations were *bound_ns* or longer, exact where that is a bucket's edge."""
    first = bucket_of(bound_ns)
    return sum(count for bucket, count in counts.items() if bucket >= first)
