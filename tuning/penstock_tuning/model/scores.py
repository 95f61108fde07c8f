"""How well held-out rows were foretold: counts and sums, row by row, in constant memory.

every score comes from a readout that was fitted on earlier rows alone
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import UNDEFINED_PRICE
from penstock_kernels.compiled import Float64s
from penstock_kernels.elementary import log, logistic
from penstock_tuning.model.ordered_histogram import OrderedHistogram, area_under_curve, middles


@dataclass
class Ranking:
    """Scores of rows that came out one way (positives) and the other (negatives)."""

    negatives: OrderedHistogram = field(default_factory=OrderedHistogram)
    positives: OrderedHistogram = field(default_factory=OrderedHistogram)

    def add(self, scores: Float64s, positive: NDArray[np.bool_]) -> None:
        """Count *scores*, shape (rows,), by whether they are *positive*."""
        self.negatives.add(scores[~positive])
        self.positives.add(scores[positive])

    def plus(self, other: Ranking) -> Ranking:
        """Return the counts of both."""
        both = Ranking()
        both.negatives.counts = self.negatives.counts + other.negatives.counts
        both.positives.counts = self.positives.counts + other.positives.counts
        return both

    @property
    def total(self) -> int:
        """How many scores were counted."""
        return self.negatives.total + self.positives.total

    @property
    def auc(self) -> float | None:
        """Probability that a positive scores above a negative; None without both."""
        return area_under_curve(self.negatives, self.positives)

    def log_loss(self, slope: float, offset: float) -> float | None:
        """Return the mean of -ln of the probability that logistic(slope score + offset) gave to what came; None of none."""
        loss, total = 0.0, self.total
        for histogram, sign in ((self.positives, 1.0), (self.negatives, -1.0)):
            used = np.flatnonzero(histogram.counts)
            for score, count in zip(middles(used), histogram.counts[used], strict=True):
                loss -= float(count) * log(max(1e-15, logistic(sign * (slope * float(score) + offset))))
        return loss / total if total else None


@dataclass
class Errors:
    """Sums over rows for the share of variance explained."""

    rows: int = 0
    squared: float = 0.0  # Of outcome minus forecast.
    total: float = 0.0  # Of the outcome: the error of a forecast of no change.

    def add(self, outcomes: Float64s, forecasts: Float64s) -> None:
        """Add rows, shape (rows,) each."""
        self.rows += len(outcomes)
        self.squared += float(np.sum((outcomes - forecasts) ** 2))
        self.total += float(np.sum(outcomes**2))

    @property
    def explained(self) -> float | None:
        """R2 against a forecast of no change; None where nothing changed."""
        return 1.0 - self.squared / self.total if self.total > 0.0 else None

    @property
    def deviation(self) -> float:
        """Root of the mean squared error; 0 of no rows."""
        return sqrt(self.squared / self.rows) if self.rows else 0.0


def queue_imbalance(ticks: NDArray[np.void]) -> Float64s:
    """Return (bid size - ask size) / (bid size + ask size) of each tick, shape (ticks,).

    It is 0 where the feature is: no sizes, a side without a price, a crossed book.
    """
    bid, ask = ticks["bid_sz"].astype(np.float64), ticks["ask_sz"].astype(np.float64)
    total = bid + ask
    sound = (ticks["bid_px"] < ticks["ask_px"]) & (ticks["ask_px"] != UNDEFINED_PRICE) & (total > 0.0)
    return np.divide(bid - ask, total, out=np.zeros(len(ticks)), where=sound)
