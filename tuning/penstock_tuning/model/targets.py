"""What came after each tick: the labels of training, and when each became known.

For the ticks of one instrument, in order, with mid the last known one (as the features have it):

    NEXT_MOVE  ends at the first change of the mid whose ts_recv is after the tick's own plus the latency allowed
    EVENTS     ends n ticks later
    TIME       ends at the last tick stamped up to ts_recv plus the duration, once the recording goes beyond it

    a label of row t depends on rows up to its end alone, and known_ns[t] is the stamp at which that end is reached
    rows without a mid, and rows whose end is past the recording, have no label

All rows between two changes of the mid wait for the same change, so their labels of NEXT_MOVE are one outcome told many
times. A fit that counts each row once listens to the quietest stretches most; ``weights`` say how much a row counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import UNDEFINED_PRICE
from penstock_kernels.model import Horizon, HorizonKind

NEVER_NS: Final = 2**63 - 1  # known_ns of a row without a label.
PRICE_MAX: Final = 2**61  # Above it a price is taken for undefined: twice the mid stays an int64.


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels of one instrument's ticks for one horizon; where known_ns is NEVER_NS the others mean nothing.

    Attributes:
        returns: of the mid until the end, as a fraction, shape (ticks,), float64.
        direction: of the mid's move, -1, 0 or 1, shape (ticks,), int8. Of NEXT_MOVE never 0: the next change itself.
        known_ns: Unix time at which the label is known, shape (ticks,), int64.
        weights: of a row in a fit, shape (ticks,), float64. Of NEXT_MOVE 1 / sqrt(rows that wait for the same change),
            between counting rows and counting changes; 1 of the others.
    """

    returns: NDArray[np.float64]
    direction: NDArray[np.int8]
    known_ns: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows have a label, shape (ticks,)."""
        return self.known_ns != NEVER_NS


@dataclass(frozen=True, eq=False)
class Timeline:
    """What labels are made of, for all ticks of one instrument; may lie in a file that is mapped into memory.

    Attributes:
        stamp: ts_recv where a clock that steps back counts as no time, shape (ticks,), int64, never decreasing.
        mid: twice the mid of the last two-sided book in 1e-9, 0 before the first one, shape (ticks,), int64.
        changes: the ticks at which the mid became another, shape (any,), int64, growing.
    """

    stamp: NDArray[np.int64]
    mid: NDArray[np.int64]
    changes: NDArray[np.int64]


def timeline(ticks: NDArray[np.void]) -> Timeline:
    """Return the timeline of all *ticks* of one instrument, in order, shape (ticks,), dtype TICK_DTYPE."""
    mid = doubled_mid(ticks)
    return Timeline(stamps(ticks), mid, changes_of(mid))


def doubled_mid(ticks: NDArray[np.void], before: int = 0) -> NDArray[np.int64]:
    """Return bid + ask of the last two-sided book at each tick, in 1e-9; *before* the first one, shape (ticks,)."""
    bid, ask = ticks["bid_px"], ticks["ask_px"]
    stands = (bid != UNDEFINED_PRICE) & (ask != UNDEFINED_PRICE) & _in_range(bid) & _in_range(ask)
    last = np.where(stands, np.arange(len(ticks)), -1)
    np.maximum.accumulate(last, out=last)
    sums = np.where(stands, bid, 0) + np.where(stands, ask, 0)
    return np.where(last >= 0, sums[np.maximum(last, 0)], before).astype(np.int64)


def changes_of(mid: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where *mid* became another after it was known, shape (any,)."""
    return np.flatnonzero((mid[1:] != mid[:-1]) & (mid[:-1] > 0)) + 1


def stamps(ticks: NDArray[np.void], before: int = 0) -> NDArray[np.int64]:
    """Return ts_recv where a clock that steps back counts as no time, shape (ticks,), never decreasing.

    No stamp is earlier than *before*: the last one of the ticks that came first.
    """
    if not len(ticks):
        return np.empty(0, dtype=np.int64)
    return np.maximum(np.maximum.accumulate(ticks["ts_recv"].astype(np.int64)), before)


def make_targets(ticks: NDArray[np.void], horizon: Horizon) -> Targets:
    """Return the labels of *horizon* for *ticks* of one instrument, in order, shape (ticks,), dtype TICK_DTYPE."""
    return targets_of(timeline(ticks), horizon, 0, len(ticks))


def targets_of(line: Timeline, horizon: Horizon, start: int, stop: int) -> Targets:
    """Return the labels of the rows from *start* to before *stop*; memory for those alone, wherever they end."""
    count = len(line.mid)
    if count == 0 or start >= stop:
        return Targets(np.empty(0), np.empty(0, dtype=np.int8), np.empty(0, dtype=np.int64), np.empty(0))
    rows = np.arange(start, stop)
    mid, stamp = line.mid[start:stop], line.stamp[start:stop]
    later = np.minimum(stamp, NEVER_NS - 1 - horizon.duration_ns) + horizon.duration_ns
    weights = np.ones(len(rows))
    if horizon.kind == HorizonKind.NEXT_MOVE:
        changes = line.changes
        first_later = np.searchsorted(line.stamp, later, side="right")
        which = np.searchsorted(changes, np.maximum(first_later, rows + 1), side="left")
        has_end = which < len(changes)
        end = np.where(has_end, changes[np.minimum(which, len(changes) - 1)] if len(changes) else 0, 0)
        before = line.mid[np.maximum(end - 1, 0)]
        known_ns = line.stamp[end]
        waited = _rows_before(line, horizon.duration_ns, end)
        if len(changes):
            before_that = np.where(which > 0, changes[which - 1], 0)
            waited -= np.where(which > 0, _rows_before(line, horizon.duration_ns, before_that), 0)
        weights = 1.0 / np.sqrt(np.maximum(waited, 1))
    elif horizon.kind == HorizonKind.EVENTS:
        has_end = rows + horizon.events < count
        end = np.minimum(rows + horizon.events, count - 1)
        before = mid
        known_ns = line.stamp[end]
    else:
        has_end = line.stamp[-1] - stamp > horizon.duration_ns
        end = np.searchsorted(line.stamp, later, side="right") - 1
        before = mid
        known_ns = later
    final = line.mid[end]
    labelled = has_end & (mid > 0) & (final > 0)
    direction = np.where(labelled, np.sign(final - before), 0).astype(np.int8)
    returns = np.zeros(len(rows))
    np.divide(final - mid, mid, out=returns, where=labelled)
    return Targets(returns, direction, np.where(labelled, known_ns, NEVER_NS), weights)


def _rows_before(line: Timeline, latency_ns: int, change: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many rows wait for no later change than *change*, the row of one; shape and type as that."""
    return np.minimum(change, np.searchsorted(line.stamp, line.stamp[change] - latency_ns, side="left"))


def _in_range(prices: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (prices > -PRICE_MAX) & (prices < PRICE_MAX)
