"""Ridge regression from sums alone: an own Cholesky factorisation, so that a model has the same bytes everywhere.

    weights = (X'X + penalty rows D)^-1 X'Y        D is the identity without the constant's row
    rows = the sum of the rows' weights, which is what the square of the constant's column adds up to

The penalty is relative to the number of rows, so that one grid fits any length of recording. LAPACK gives other
last bits with another processor, library or number of threads.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, Float64s, compiled
from penstock_tuning.model.gram import TILE, Gram, add_products, in_tiles, padded

_PANEL: Final = 4 * TILE  # Rows factored before the rest of the matrix is updated.


class RidgeError(ArithmeticError):
    """The sums have no positive definite matrix, whatever the penalty: the design holds no information."""


def solve(
    gram: Gram, inputs: int, penalty: float, *, first: int = 0, linear_from: int | None = None, linear: float = 1.0
) -> Float64s:
    """Return the ridge weights of every target.

    Args:
        gram: sums over columns [design (inputs), targets (the rest)]; the design's last column is the constant 1.
        inputs: how many columns are the design.
        first: leave out the design's columns before this one.
        penalty: relative to the rows; at least 0.
        linear_from: the design's columns from this one on have another penalty; None for the same.
        linear: their penalty, as a share of the others'.

    Returns:
        Shape (targets, inputs), float64; 0 in the columns left out.

    Raises:
        RidgeError: the matrix is not positive definite.
    """
    kept = inputs - first
    size = padded(kept)
    matrix = np.zeros((size, size))
    matrix[:kept, :kept] = gram.sums[first:inputs, first:inputs]
    diagonal = np.arange(kept - 1)
    shares = np.ones(kept - 1)
    if linear_from is not None:
        shares[max(0, linear_from - first) :] = linear
    matrix[diagonal, diagonal] += penalty * gram.sums[inputs - 1, inputs - 1] * shares
    spare = np.arange(kept, size)
    matrix[spare, spare] = 1.0
    _factor(matrix)
    right = np.zeros((size, gram.columns - inputs))
    right[:kept] = gram.sums[first:inputs, inputs : gram.columns]
    substitute(matrix, right)
    weights = np.zeros((gram.columns - inputs, inputs))
    weights[:, first:] = right[:kept].T
    return weights


def squared_error(gram: Gram, inputs: int, weights: Float64s) -> Float64s:
    """Return each target's sum of squared errors over the rows of *gram*, shape (targets,), without seeing the rows.

    The sum is y'y - 2 w'X'y + w'X'X w; *weights* has shape (targets, inputs).
    """
    errors = np.empty(len(weights))
    sum_squares(gram.sums, inputs, np.ascontiguousarray(weights), errors)
    return errors


@compiled
def sum_squares(sums: Float64s, inputs: int, weights: Float64s, errors: Float64s) -> None:
    """Write the sums of squared errors into *errors*, shape (targets,); see squared_error."""
    for target in range(len(errors)):
        column = inputs + target
        error = sums[column, column]
        for i in range(inputs):
            inner = 0.5 * sums[i, i] * weights[target, i] - sums[i, column]
            for j in range(i + 1, inputs):
                inner += sums[i, j] * weights[target, j]
            error += 2.0 * weights[target, i] * inner
        errors[target] = error


@compiled
def apply(rows: Float32s, weights: Float64s, outputs: Float64s) -> None:
    """Write the outputs of each of *rows*, shape (rows, inputs), into *outputs*, shape (rows, targets), in fixed order.

    Args:
        rows: of the design.
        weights: transposed, shape (inputs, targets).
        outputs: overwritten.
    """
    for row in range(len(rows)):
        for target in range(outputs.shape[1]):
            outputs[row, target] = 0.0
        for i in range(rows.shape[1]):
            value = float(rows[row, i])
            for target in range(outputs.shape[1]):
                outputs[row, target] += value * weights[i, target]


def _factor(matrix: Float64s) -> None:
    """Overwrite the upper triangle of *matrix* with U, U'U = matrix."""
    size = matrix.shape[0]
    for start in range(0, size, _PANEL):
        end = min(start + _PANEL, size)
        failed = factor_panel(matrix, start, end)
        if failed >= 0:
            raise RidgeError(
                f"the design's sums are not positive definite: column={failed}; add ticks or raise the penalty"
            )
        if end < size:
            panel = in_tiles(matrix[start:end])
            add_products(-panel, panel, matrix, end // TILE)


@compiled
def factor_panel(matrix: Float64s, start: int, end: int) -> int:
    """Factor the rows *start* to *end* of *matrix*, overwritten, whose earlier rows have been taken off already.

    Returns:
        The column at which the matrix proved not positive definite, or -1.
    """
    columns = matrix.shape[1]
    for k in range(start, end):
        row = matrix[k]
        for earlier in range(start, k):
            factor = matrix[earlier, k]
            above = matrix[earlier]
            for j in range(k, columns):
                row[j] -= factor * above[j]
        pivot = row[k]
        if not pivot > 0.0:
            return k
        root = sqrt(pivot)
        for j in range(k, columns):
            row[j] /= root
    return -1


@compiled
def substitute(upper: Float64s, right: Float64s) -> None:
    """Solve U'U x = right for every column: *right*, shape (columns, targets), is overwritten with x."""
    size = upper.shape[0]
    for i in range(size):
        for target in range(right.shape[1]):
            right[i, target] /= upper[i, i]
        for j in range(i + 1, size):
            for target in range(right.shape[1]):
                right[j, target] -= upper[i, j] * right[i, target]
    for i in range(size - 1, -1, -1):
        for j in range(i + 1, size):
            for target in range(right.shape[1]):
                right[i, target] -= upper[i, j] * right[j, target]
        for target in range(right.shape[1]):
            right[i, target] /= upper[i, i]
