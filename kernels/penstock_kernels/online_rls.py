"""Recursive least squares that cannot wind up: what an online readout learns with, one labelled row at a time.

The weights minimise the squared error over all rows so far, a row of n updates ago counted forgetting^n times, and
start with a penalty that holds them near 0. The inverse of the weighted Gram matrix, P, is kept as its root:

    P = S S^T      S upper triangular with a positive diagonal, so P is positive definite whatever rounding does
    trace(P) <= trace_max      after each update: quiet inputs, which carry nothing, would else let P grow for ever

Plain recursive least squares fails at both: in float32 P loses its definiteness, and a market that goes quiet makes P
grow by 1 / forgetting a row until the first real input throws the weights away. Storage is float32, sums go by the
sixteen lanes of lanes.py, so the same rows give the same bits on any machine. Nothing is allocated.

    root       shape (count, padded(count)): row j holds column j of S, elements 0 .. j, zeros after
    weights    shape (outputs, padded(count))
"""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, compiled
from penstock_kernels.lanes import LANES, load, splat, store, total

MEMORY_PER_REGRESSOR_MIN: Final = 8  # 1 / (1 - forgetting), in rows, over the number of regressors.
ROOT_FLOOR: Final = 1e-6  # Least value of the root's diagonal: no direction is ever closed to learning.
_OVERFLOW: Final = 1e30  # A trace beyond it is not one of numbers that mean anything.


class OnlineError(ValueError):
    """Settings that an online readout cannot learn with; the message names field, value and mend."""


def check_forgetting(forgetting: float, count: int, *, field: str = "forgetting") -> None:
    """Refuse a memory too short for *count* regressors.

    Args:
        forgetting: weight of the rows before, per row.
        count: of regressors.
        field: its name where the value comes from, for the sentence.

    Raises:
        OnlineError: 1 / (1 - forgetting) is not at least MEMORY_PER_REGRESSOR_MIN times *count*, or not a number.
    """
    least = 1.0 - 1.0 / (MEMORY_PER_REGRESSOR_MIN * count)
    if not least <= forgetting <= 1.0:
        raise OnlineError(
            f"{field} must be {least:.6f} to 1 for {count} regressors, so that a memory of 1 / (1 - {field}) rows holds "
            f"at least {MEMORY_PER_REGRESSOR_MIN} rows of each: {field}={forgetting}; raise it, or take fewer units"
        )


@compiled
def rls_reset(root: Float32s, weights: Float32s, count: int, trace_max: float) -> None:
    """Begin anew: weights 0, and P = trace_max / count times the identity, a penalty of count / trace_max.

    Args:
        root: shape (at least count, padded(count)). Overwritten.
        weights: shape (outputs, padded(count)). Overwritten.
        count: of regressors.
        trace_max: bound of trace(P), above 0.
    """
    for row in range(len(root)):
        for column in range(root.shape[1]):
            root[row, column] = 0.0
    for row in range(count):
        root[row, row] = sqrt(trace_max / count)
    for output in range(len(weights)):
        for column in range(weights.shape[1]):
            weights[output, column] = 0.0


@compiled
def rls_predict(weights: Float32s, output: int, regressors: Float32s) -> float:
    """Return weights[output] . regressors, both padded with zeros to whole lanes."""
    sums = splat(0.0)
    row = weights[output]
    for column in range(0, len(regressors), LANES):
        sums = sums + load(row, column) * load(regressors, column)
    return total(sums)


@compiled
def rls_step(
    root: Float32s,
    weights: Float32s,
    regressors: Float32s,
    targets: Float32s,
    gain: Float32s,
    count: int,
    weight: float,
    forgetting: float,
    trace_max: float,
) -> float:
    """Learn one row: all outputs share its regressors, and so one P.

        f = S^T z,   a_j = forgetting / weight + sum of f_i^2 for i <= j,   g = S f = P z
        S_j <- (S_j sqrt(a_(j-1) / a_j) - f_j / sqrt(a_(j-1) a_j) sum of f_i S_i for i < j) / sqrt(forgetting)
        weights <- weights + g (targets - weights . z) / a_n
        S <- S sqrt(trace_max / trace(P))      where the trace would be larger

    Args:
        root: S, shape (count, padded(count)). Overwritten.
        weights: shape (outputs, padded(count)). Overwritten.
        regressors: z, shape (padded(count),), zeros from count on; finite, of a size that squares don't overflow.
        targets: shape (outputs,), finite.
        gain: shape (padded(count),). Overwritten: g.
        count: of regressors.
        weight: of the row, above 0; 1 counts it once.
        forgetting: in (0, 1].
        trace_max: bound of trace(P).

    Returns:
        trace(P) after the update.

    Allocates nothing. Source: Carlson, AIAA Journal 11 (1973), with exponential forgetting; the cap is ours.
    """
    width = len(regressors)
    for column in range(0, width, LANES):
        store(gain, column, splat(0.0))
    growth = 1.0 / sqrt(forgetting)
    variance = forgetting / weight
    squares = splat(0.0)
    for row in range(count):
        column_of_root = root[row]
        sums = splat(0.0)
        for column in range(0, row + 1, LANES):
            sums = sums + load(column_of_root, column) * load(regressors, column)
        projected = np.float64(total(sums))
        before = variance
        variance = before + projected * projected
        shrink = sqrt(before / variance)
        kept = splat(shrink * growth)
        taken = splat(projected * shrink / before * growth)
        step = splat(projected)
        for column in range(0, row + 1, LANES):
            lanes = load(column_of_root, column)
            sums = load(gain, column)
            updated = kept * lanes - taken * sums
            store(column_of_root, column, updated)
            store(gain, column, sums + step * lanes)
            squares = squares + updated * updated
        column_of_root[row] = max(column_of_root[row], ROOT_FLOOR)

    for output in range(len(weights)):
        row_of_weights = weights[output]
        change = splat((targets[output] - rls_predict(weights, output, regressors)) / variance)
        for column in range(0, width, LANES):
            store(row_of_weights, column, load(row_of_weights, column) + change * load(gain, column))

    trace = np.float64(total(squares))
    if not trace < _OVERFLOW:
        rls_reset(root, weights, count, trace_max)
        return trace_max
    if trace <= trace_max:
        return trace
    _scale_root(root, count, sqrt(trace_max / trace))
    return trace_max


@compiled
def _scale_root(root: Float32s, count: int, factor: float) -> None:
    scale = splat(factor)
    for row in range(count):
        column_of_root = root[row]
        for column in range(0, row + 1, LANES):
            store(column_of_root, column, scale * load(column_of_root, column))
        column_of_root[row] = max(column_of_root[row], ROOT_FLOOR)
