"""Intervals for scores of rows that follow each other: the paired moving-block bootstrap.

A draw is BOOTSTRAP_BLOCKS stretches of neighbouring rows, each 1/60 of all, begun anywhere, laid end to end. Every
forecaster is scored on the same draws, so that the difference of two has an interval of its own: what a busy minute
does to both cancels out.

    rows are summed up once, in parts of 1/16 stretch; a stretch is 16 neighbouring parts; a draw is a sum of parts

AUC in a draw ranks scores in SCORE_BINS bins of equal counts, ties counting half; the AUC that is printed is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_kernels.philox import Stream

BOOTSTRAP_BLOCKS: Final = 60
DRAWS: Final = 2_000
COVERAGE: Final = 0.95
PARTS_PER_BLOCK: Final = 16
SCORE_BINS: Final = 256
_SEED: Final = 3


@dataclass(frozen=True, eq=False)
class Draws:
    """Which parts each draw holds.

    Attributes:
        edges: first row of each part and the end, shape (parts + 1,).
        counts: how often each draw holds each part, shape (DRAWS, parts), float64.
    """

    edges: NDArray[np.int64]
    counts: Float64s


class Sums(Protocol):
    """A forecaster's rows, summed up by part."""

    value: float  # Over all rows.

    def values(self, counts: Float64s) -> Float64s:
        """Return the score over parts counted so often, *counts* of shape (any, parts); NaN where there is none."""


def make_draws(rows: int, seed: int = _SEED) -> Draws:
    """Return the draws for so many rows, at least BOOTSTRAP_BLOCKS; equal arguments give equal draws."""
    assert rows >= BOOTSTRAP_BLOCKS, "a bootstrap needs a row for each block"
    per_block = min(PARTS_PER_BLOCK, rows // BOOTSTRAP_BLOCKS)
    parts = per_block * BOOTSTRAP_BLOCKS
    words = Stream(seed, 0).words(DRAWS * BOOTSTRAP_BLOCKS)  # Raw ones: the same draws with every NumPy.
    starts = (words % np.uint64(parts - per_block + 1)).astype(np.int64).reshape(DRAWS, BOOTSTRAP_BLOCKS)
    steps = np.zeros((DRAWS, parts + 1))
    draw = np.arange(DRAWS)[:, np.newaxis]
    np.add.at(steps, (draw, starts), 1.0)
    np.add.at(steps, (draw, starts + per_block), -1.0)
    return Draws(np.linspace(0, rows, parts + 1).astype(np.int64), np.cumsum(steps, axis=1)[:, :-1])


def interval(values: Float64s) -> tuple[float, float]:
    """Return the middle COVERAGE of *values*."""
    tail = (1.0 - COVERAGE) / 2.0
    low, high = np.quantile(values[np.isfinite(values)], (tail, 1.0 - tail))
    return float(low), float(high)


class Explained:
    """R2 against a forecast of 0: 1 - sum (outcome - score)^2 / sum outcome^2."""

    def __init__(self, outcome: Float64s, score: Float64s, edges: NDArray[np.int64]) -> None:
        """Sum up rows, shape (rows,) each, by the parts between *edges*."""
        self._missed = np.add.reduceat((outcome - score) ** 2, edges[:-1])
        self._total = np.add.reduceat(outcome**2, edges[:-1])
        self.value = float(self.values(np.ones((1, len(self._total))))[0])

    def values(self, counts: Float64s) -> Float64s:
        """Return R2 over parts counted so often, shape (any,)."""
        total = counts @ self._total
        missed = counts @ self._missed
        return 1.0 - np.divide(missed, total, out=np.full(len(total), np.nan), where=total > 0.0)


class Ranked:
    """AUC: the chance that a row that went up scores above one that went down."""

    def __init__(self, up: NDArray[np.bool_], score: Float64s, edges: NDArray[np.int64]) -> None:
        """Count rows, shape (rows,) each, by score and by the parts between *edges*."""
        self.value = area(score, up)
        borders = np.unique(np.quantile(score, np.linspace(0.0, 1.0, SCORE_BINS + 1)[1:-1]))
        which = np.searchsorted(borders, score, side="right")
        bins, parts = len(borders) + 1, len(edges) - 1
        cell = np.repeat(np.arange(parts), np.diff(edges)) * bins + which
        self._ups = np.bincount(cell[up], minlength=parts * bins).reshape(parts, bins).astype(np.float64)
        self._downs = np.bincount(cell[~up], minlength=parts * bins).reshape(parts, bins).astype(np.float64)

    def values(self, counts: Float64s) -> Float64s:
        """Return the AUC over parts counted so often, shape (any,)."""
        ups, downs = counts @ self._ups, counts @ self._downs
        wins = (ups * (np.cumsum(downs, axis=1) - 0.5 * downs)).sum(axis=1)
        pairs = ups.sum(axis=1) * downs.sum(axis=1)
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0.0)


def area(score: Float64s, up: NDArray[np.bool_]) -> float:
    """Return the exact AUC of *score* for *up*, shape (rows,) each, ties counting half; NaN without both outcomes."""
    ups = int(np.count_nonzero(up))
    downs = len(up) - ups
    if not ups or not downs:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((mean_rank[inverse][up].sum() - ups * (ups + 1) / 2) / (ups * downs))


def explained(outcome: Float64s, score: Float64s) -> float:
    """Return R2 against a forecast of 0, shape (rows,) each; NaN where nothing moved."""
    total = float(np.sum(outcome**2))
    return 1.0 - float(np.sum((outcome - score) ** 2)) / total if total > 0.0 else float("nan")
