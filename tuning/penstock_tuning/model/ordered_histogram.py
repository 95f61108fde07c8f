"""Counts of float32 values in bins that keep their order: quantiles and rank statistics in constant memory.

The bits of a float32, with the sign's bit flipped for positive values and all bits for negative ones, order as the
values do. A bin is the top BITS of that key: fine near 0, about 2**-8 of the value wide everywhere, the same on every
machine, and never in need of a range to be guessed.

    key(a) < key(b)  =>  a < b
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 16
BINS: Final = 2**BITS
_SIGN: Final = np.uint32(0x80000000)
_ALL: Final = np.uint32(0xFFFFFFFF)
_SHIFT: Final = np.uint32(32 - BITS)


def bins_of(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the bin of each value, same shape, from 0 to BINS - 1; values must be finite."""
    bits = (np.ascontiguousarray(values, dtype=np.float32) + np.float32(0.0)).view(np.uint32)  # -0 becomes 0.
    key = np.where(bits & _SIGN, bits ^ _ALL, bits | _SIGN)
    return (key >> _SHIFT).astype(np.int64)


def middles(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a value of each bin, near its middle, as float64."""
    key = (bins.astype(np.uint32) << _SHIFT) | np.uint32(1 << (31 - BITS))
    bits = np.where(key & _SIGN, key ^ _SIGN, key ^ _ALL).astype(np.uint32)
    return bits.view(np.float32).astype(np.float64)


class OrderedHistogram:
    """Counts per bin, int64, shape (BINS,)."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)

    def add(self, values: NDArray[np.floating]) -> None:
        """Count *values*, shape (any,), finite."""
        self.counts += np.bincount(bins_of(values), minlength=BINS)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Return a value with *share* of the counted ones at or below its bin.

        Raises:
            ValueError: nothing was counted.
        """
        total = self.total
        if total == 0:
            raise ValueError("a quantile needs values: counted=0")
        rank = min(total, max(1, int(share * total) + 1))
        found = int(np.searchsorted(np.cumsum(self.counts), rank, side="left"))
        return float(middles(np.array([found]))[0])


def area_under_curve(negatives: OrderedHistogram, positives: OrderedHistogram) -> float | None:
    """Return the probability that a positive scores above a negative, equal bins counting half; None without both."""
    total = negatives.total * positives.total
    if total == 0:
        return None
    below = np.cumsum(negatives.counts) - negatives.counts
    # float64 holds these sums exactly up to 2**53 pairs and well enough beyond.
    wins = float(np.dot(positives.counts.astype(np.float64), below.astype(np.float64)))
    ties = float(np.dot(positives.counts.astype(np.float64), negatives.counts.astype(np.float64)))
    return (wins + 0.5 * ties) / total
