"""From scores to probabilities: a logistic curve fitted to held-out scores, by their histograms.

    probability = logistic(slope score + offset)        of a move; the offset holds how rare moves are
    probability = logistic(slope score)                 of up among moves

A direction has no offset, because it would be the drift of the stretch that it was fitted on: on recorded markets the
curve without one foretold the next stretch better in most cases, and never much worse.

The curve maximises the likelihood of the counted outcomes plus an imagined negative that scored high and a positive
that scored low, so that outcomes which scores part perfectly do not drive it to infinity. A slope below 0 would say
that the score misleads: it becomes 0, and the offset alone gives the share of positives.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np

from penstock_kernels.compiled import Float64s, compiled
from penstock_kernels.elementary import log, logistic
from penstock_tuning.model.ordered_histogram import OrderedHistogram, middles

_STEPS_MAX: Final = 50
_STEP_MAX: Final = 2.0  # Of a Newton step in standardised units: far scores must not throw it off.
_CONVERGED: Final = 1e-10
_DIGITS: Final = 7  # A float32 holds no more.


def fit_logistic(negatives: OrderedHistogram, positives: OrderedHistogram) -> tuple[float, float]:
    """Return slope and offset; (0, 0) where nothing was counted."""
    scores, misses, hits = _counted(negatives, positives)
    weights = misses + hits
    if not len(scores):
        return 0.0, 0.0
    # NumPy's sums; what they say is rounded, since they decide only in which units Newton works.
    mean = _rounded(float(np.sum(weights * scores) / np.sum(weights)))
    scale = _rounded(sqrt(float(np.sum(weights * (scores - mean) ** 2) / np.sum(weights))))
    base = log((float(hits.sum()) + 1.0) / (float(misses.sum()) + 1.0))
    if not scale > 0.0:
        return 0.0, _rounded(base)
    slope, offset = newton((scores - mean) / scale, misses, hits, base, True)
    if slope <= 0.0:
        return 0.0, _rounded(base)
    return _rounded(slope / scale), _rounded(offset - slope * mean / scale)


def fit_slope(negatives: OrderedHistogram, positives: OrderedHistogram) -> float:
    """Return the slope of the curve through one half at score 0; 0 where nothing was counted."""
    scores, misses, hits = _counted(negatives, positives)
    weights = misses + hits
    scale = _rounded(sqrt(float(np.sum(weights * scores**2) / np.sum(weights)))) if len(scores) else 0.0
    if not scale > 0.0:
        return 0.0
    slope, _ = newton(scores / scale, misses, hits, 0.0, False)
    return _rounded(max(0.0, slope) / scale)


def _counted(negatives: OrderedHistogram, positives: OrderedHistogram) -> tuple[Float64s, Float64s, Float64s]:
    """Return scores, counts of negatives and counts of positives of the bins in use, shape (bins,) each."""
    used = np.flatnonzero(negatives.counts + positives.counts)
    return middles(used), negatives.counts[used].astype(np.float64), positives.counts[used].astype(np.float64)


def _rounded(value: float) -> float:
    """Return *value* to the digits that a model keeps, so that nothing below them differs between machines."""
    return float(f"{value:.{_DIGITS}g}")


@compiled
def newton(scores: Float64s, misses: Float64s, hits: Float64s, base: float, with_offset: bool) -> tuple[float, float]:
    """Return the slope and offset of the likeliest curve, by Newton's method from slope 0 and offset *base*, which stays without *with_offset*.

    Args:
        scores: of the bins, mean 0 and deviation 1, shape (bins,).
        misses: counts of the negatives, shape (bins,).
        hits: counts of the positives, shape (bins,).
        base: log odds of the positives.
        with_offset: whether the offset is to be found too.
    """
    slope, offset = 0.0, base
    for _ in range(_STEPS_MAX):
        # The imagined negative at score 1 and positive at score -1.
        up, down = logistic(slope + offset), logistic(offset - slope)
        gradient_slope = -up - (1.0 - down)
        gradient_offset = -up + (1.0 - down)
        curve_ss = up * (1.0 - up) + down * (1.0 - down)
        curve_so = up * (1.0 - up) - down * (1.0 - down)
        curve_oo = curve_ss
        for index in range(len(scores)):
            probability = logistic(slope * scores[index] + offset)
            count = misses[index] + hits[index]
            residual = hits[index] - count * probability
            curve = count * probability * (1.0 - probability)
            gradient_slope += residual * scores[index]
            gradient_offset += residual
            curve_ss += curve * scores[index] * scores[index]
            curve_so += curve * scores[index]
            curve_oo += curve
        if not with_offset:
            gradient_offset, curve_so, curve_oo = 0.0, 0.0, 1.0
        determinant = curve_ss * curve_oo - curve_so * curve_so
        if not determinant > 0.0:
            break
        step_slope = (gradient_slope * curve_oo - gradient_offset * curve_so) / determinant
        step_offset = (gradient_offset * curve_ss - gradient_slope * curve_so) / determinant
        longest = max(abs(step_slope), abs(step_offset))
        if longest > _STEP_MAX:
            step_slope *= _STEP_MAX / longest
            step_offset *= _STEP_MAX / longest
        slope += step_slope
        offset += step_offset
        if longest < _CONVERGED:
            break
    return slope, offset
