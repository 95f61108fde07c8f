"""From times to figures: percentiles of durations that were measured, shares that count lost ticks as late.

latency = received - scheduled        0 received: lost, and never within any bound
a percentile is a measured duration: the smallest that so large a share of all answered ticks don't exceed
the median of repeats is taken figure by figure; counts are summed, so that one lost tick of any repeat shows
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.replay_summary import PERCENTILES, percentile_ns

BOUND_NS: Final = 5_000_000

Figures = dict[str, float]


def latency_figures(scheduled_ns: NDArray[np.int64], received_ns: NDArray[np.int64]) -> Figures:
    """Return p50_us, p95_us, p99_us, p999_us, max_us and share_within_5ms.

    Args:
        scheduled_ns: shape (ticks,), when each was due.
        received_ns: shape (ticks,), when its answer was here; 0 for never.
    """
    answered = received_ns > 0
    ascending = np.sort((received_ns - scheduled_ns)[answered])
    figures = {f"{name}_us": percentile_ns(ascending, share) / 1e3 for name, share in PERCENTILES.items()}
    figures["max_us"] = percentile_ns(ascending, 1.0) / 1e3
    figures["share_within_5ms"] = share_within(scheduled_ns, received_ns, BOUND_NS)
    return figures


def share_within(scheduled_ns: NDArray[np.int64], received_ns: NDArray[np.int64], bound_ns: int) -> float:
    """Return the share of all ticks that were answered within *bound_ns*; 0 for no ticks."""
    if not len(scheduled_ns):
        return 0.0
    within = (received_ns > 0) & (received_ns - scheduled_ns <= bound_ns)
    return int(np.count_nonzero(within)) / len(scheduled_ns)


def median_of(repeats: Sequence[Mapping[str, float]], *, summed: Iterable[str] = ()) -> Figures:
    """Return the median of each figure over *repeats*, and the sum of those named in *summed*.

    Args:
        repeats: at least one; the first one's keys are all figures there are.
        summed: counts.
    """
    counts = frozenset(summed)
    found: Figures = {}
    for name in repeats[0]:
        values = [repeat[name] for repeat in repeats]
        found[name] = sum(values) if name in counts else median(values)
    return found
