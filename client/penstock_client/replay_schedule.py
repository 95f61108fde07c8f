"""When each tick of a replay is due: pure arithmetic, so that open loop means the same in every run.

    due[i] = (ts_recv[i] - ts_recv[0]) / speed        never before the tick in front of it

A tick is due when the market would have sent it, however late the ones before it were answered: a sender that falls
behind is measured, not forgiven.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import LocalUsageError

MAX_SPEED: Final = math.inf  # Every tick is due at once; the daemon's in_flight_max holds the sender back.
FOREVER_NS: Final = 2**62  # 146 years: later than that is never, and sums with it fit an int64.
SPLIT_TICKS_MAX: Final = 200


def parse_speed(text: str) -> float:
    """Return a speed as a person writes it: a number above 0, or "max".

    Raises:
        LocalUsageError: neither.
    """
    if text == "max":
        return MAX_SPEED
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise LocalUsageError(f"speed must be a number above 0, or max: speed={text!r}")
    return speed


def due_offsets_ns(ts_recv: NDArray[np.uint64], speed: float) -> NDArray[np.int64]:
    """Return when each tick is due, in nanoseconds after the first one.

    Args:
        ts_recv: shape (ticks,), Unix nanoseconds below 2**63, in the order of the replay; may run backwards.
        speed: how many times faster than the market; MAX_SPEED for all at once.

    Returns:
        Shape (ticks,), ascending, the first 0, none above FOREVER_NS.
    """
    if speed == MAX_SPEED or not len(ts_recv):
        return np.zeros(len(ts_recv), dtype=np.int64)
    market_ns = np.maximum.accumulate(ts_recv.astype(np.int64))
    market_ns -= market_ns[0]
    if speed == 1:
        return np.minimum(market_ns, FOREVER_NS)
    return np.rint(np.minimum(market_ns / speed, FOREVER_NS)).astype(np.int64)


def duration_ns(seconds: float) -> int:
    """Return *seconds* in nanoseconds, at most FOREVER_NS."""
    return round(min(seconds * 1e9, FOREVER_NS))


def cut(ts_recv: NDArray[np.uint64], skip: int, seconds: float | None) -> slice:
    """Return the ticks from record *skip* on, for *seconds* of market time; None for all of them.

    Args:
        ts_recv: shape (ticks,), Unix nanoseconds, in the order of the replay.
        skip: a record.
        seconds: from the first tick that is kept; a tick exactly then is left out, the first one never.
    """
    if seconds is None or skip >= len(ts_recv):
        return slice(skip, len(ts_recv))
    market_ns = np.maximum.accumulate(ts_recv[skip:])
    end = int(np.searchsorted(market_ns, market_ns[0] + np.uint64(duration_ns(seconds)), side="left"))
    return slice(skip, skip + max(end, 1))


def random_splits(ticks: int, seed: int) -> NDArray[np.int64]:
    """Return where to cut *ticks* into batches of 1 to SPLIT_TICKS_MAX, ascending, the last one *ticks*."""
    noise = np.random.Generator(np.random.Philox(seed))
    sizes = noise.integers(1, SPLIT_TICKS_MAX + 1, size=max(ticks, 1))
    sizes[noise.random(len(sizes)) < 0.5] = 1  # Single ticks are the usual case at true speed.
    ends = np.cumsum(sizes)
    return np.append(ends[ends < ticks], ticks).astype(np.int64)
