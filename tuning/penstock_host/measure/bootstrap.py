"""Intervals by a block bootstrap over slices of time, seeded, so that the same files always give the same verdict.

Neighbouring slices resemble each other (a noisy minute is noisy for a minute), so runs of consecutive slices are drawn,
around the end to the start, each an eighth of a run long: a busy guest's stalls come in spells of ten seconds and more,
of which shorter blocks would make many chances out of one. So few blocks vary too little by themselves: the interval is
widened as Student's t is for as many. What is asked is the difference of two sides that were measured apart: each is drawn
anew on its own. A side of several runs has its runs drawn first, and then their slices, so that what differs from run to
run widens the interval too.

    low <= high, and both are found again from the same slices and seed
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, TypeVar

RESAMPLES: Final = 1_000
SLICES_MIN: Final = 20  # Ten seconds; fewer say little of chance, and nothing of a host that drifts.
_BLOCKS: Final = 8
_SEED: Final = 20_240_808

_Piece = TypeVar("_Piece")
Statistic = Callable[[Sequence[_Piece]], float]


@dataclass(frozen=True)
class Interval:
    """Where a difference lies with the confidence that was asked for, beside its plain value."""

    value: float
    low: float
    high: float


def differences(
    before: Sequence[Sequence[_Piece]],
    after: Sequence[Sequence[_Piece]],
    statistics: Sequence[Statistic[_Piece]],
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = _SEED,
) -> list[Interval] | None:
    """Return after minus before for each of *statistics*, with its interval; None where there are too few slices.

    Args:
        before: runs, each its slices in order of time.
        after: the same of the other side.
        statistics: each takes slices and returns a figure.
        resamples: how many draws.
        confidence: of the interval.
        seed: of the draws.
    """
    if min(len(run) for run in (*before, *after)) < SLICES_MIN:
        return None
    whole_before, whole_after = ([piece for run in runs for piece in run] for runs in (before, after))
    draws = random.Random(seed)  # noqa: S311 - statistics, and it must repeat.
    found: list[list[float]] = [[] for _ in statistics]
    for _ in range(resamples):
        drawn_before, drawn_after = _drawn_runs(before, draws), _drawn_runs(after, draws)
        for values, statistic in zip(found, statistics, strict=True):
            values.append(statistic(drawn_after) - statistic(drawn_before))
    tail = (1.0 - confidence) / 2
    wider = widening(min(_blocks(before), _blocks(after)), tail)
    intervals = []
    for values, statistic in zip(found, statistics, strict=True):
        values.sort()
        value = statistic(whole_after) - statistic(whole_before)
        low, high = order_quantile(values, tail), order_quantile(values, 1.0 - tail)
        intervals.append(Interval(value, value + wider * (low - value), value + wider * (high - value)))
    return intervals


def order_quantile(ordered: Sequence[float], share: float) -> float:
    """Return the *share* quantile of ascending values, between two neighbours in proportion.

    Args:
        ordered: ascending, at least one.
        share: in 0 to 1.
    """
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    if ordered[low] == ordered[high]:
        return ordered[low]
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def block_length(slices: int) -> int:
    """Return how many consecutive slices are drawn at once."""
    return max(-(-slices // _BLOCKS), 1)


def widening(blocks: float, tail: float) -> float:
    """Return how many times too narrow an interval of so few *blocks* is.

        t(tail; blocks - 1) / z(tail) * sqrt(blocks / (blocks - 1))

    Args:
        blocks: more than 2.
        tail: the share of draws beyond the interval on one side, in 0 to 0.5.

    Source: Cornish and Fisher's expansion of Student's t, Abramowitz and Stegun 26.7.5; at 6 blocks it is half a per cent short.
    """
    z, free = NormalDist().inv_cdf(1.0 - tail), blocks - 1.0
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    return t / z * math.sqrt(blocks / free)


def _blocks(runs: Sequence[Sequence[_Piece]]) -> float:
    return sum(len(run) / block_length(len(run)) for run in runs)


def _drawn_runs(runs: Sequence[Sequence[_Piece]], draws: random.Random) -> list[_Piece]:
    if len(runs) == 1:
        return _drawn(runs[0], draws)
    return [piece for _ in runs for piece in _drawn(runs[int(draws.random() * len(runs))], draws)]


def _drawn(pieces: Sequence[_Piece], draws: random.Random) -> list[_Piece]:
    number = len(pieces)
    length = block_length(number)
    drawn: list[_Piece] = []
    while len(drawn) < number:
        first = int(draws.random() * number)
        block = pieces[first : first + length]
        drawn.extend(block)
        if len(block) < length:
            drawn.extend(pieces[: length - len(block)])
    del drawn[number:]
    return drawn
