"""The walk: each block is foretold by what was learnt from the blocks before it, and only then learnt from.

    for every piece, in order of time:   scores = learner.foretell(rows)   then   learner.learn(rows)

so that no score can depend on a later row. The ridge learner keeps sums alone, whatever the length: X'X of all rows,
X'X of the rows that a target may not learn from, and X'y; a target that weighs its rows has an X'X of its own. Its
penalty for a block is the one with the least squared error over the blocks before it, each foretold in its turn.

    errors of blocks FIRST_FOLD .. b - 1 choose the penalty of block b     (of block 1, for block FIRST_FOLD)

BLAS does the sums: figures are the same again on one machine with one number of threads, and not to the last bit on
another. A model is never made of them; fit has sums of its own for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from penstock_kernels.compiled import Float32s, Float64s
from penstock_tuning.model.defaults import LINEAR_PENALTIES, PENALTIES
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.history import History, Target
from penstock_tuning.model.settings import BLOCKS, FIRST_FOLD


class Design(Protocol):
    """Makes rows of numbers of the ticks of one instrument, in order; the last column is the constant 1."""

    @property
    def columns(self) -> int:
        """Of a row."""

    def restart(self) -> None:
        """Forget all ticks: another recording begins."""

    def rows(self, ticks: NDArray[np.void]) -> Float32s:
        """Return the rows of the next *ticks*, shape (ticks, columns); overwritten by the next call."""


class Learner(Protocol):
    """Learns from rows, and foretells later ones."""

    def open_block(self, block: int) -> None:
        """Fit on all rows learnt so far, to foretell *block*."""

    def foretell(self, design: Float32s) -> Float64s | None:
        """Return scores, shape (targets, rows); None while there is too little to go by."""

    def learn(self, design: Float32s, rows: slice) -> None:
        """Take in *rows* of the history with their outcomes."""


def walk(history: History, design: Design, learner: Learner, targets: int, on_rows: Callable[[int], None]) -> Float64s:
    """Return the scores of every row.

    Args:
        history: whose rows.
        design: makes them.
        learner: learns from them; goes through them once.
        targets: how many scores a row has.
        on_rows: told how many rows were walked.

    Returns:
        Shape (targets, rows); NaN before block FIRST_FOLD.
    """
    scores = np.full((targets, history.rows), np.nan)
    for piece in history.pieces():
        if piece.opens_block:
            learner.open_block(piece.block)
        if piece.opens_segment:
            design.restart()
        rows = design.rows(history.segments[piece.segment][piece.ticks])
        foretold = learner.foretell(rows)
        if foretold is not None and piece.block >= FIRST_FOLD:
            scores[:, piece.rows] = foretold
        learner.learn(rows, piece.rows)
        on_rows(len(rows))
    return scores


class RidgeLearner:
    """Ridge regression on the blocks so far, for every target at once.

    Attributes:
        penalties: chosen for each block and target, with its share, shape (BLOCKS, targets, 2); NaN where none was.
        weights: of the last block opened, shape (targets, columns).
        deviations: of the design's columns over the rows learnt from by then, shape (columns,).
    """

    def __init__(
        self,
        targets: Sequence[Target],
        columns: int,
        penalties: Sequence[float] = PENALTIES,
        *,
        shares: Sequence[float] = LINEAR_PENALTIES,
        share_from: int = 0,
    ) -> None:
        """Begin with nothing.

        Args:
            targets: what to foretell.
            columns: of the design.
            penalties: to choose from, relative to the number of rows.
            shares: of a penalty, to choose from too: what the columns from *share_from* on pay.
            share_from: a column.
        """
        self.penalties = np.full((BLOCKS, len(targets), 2), np.nan)
        self.weights = np.zeros((len(targets), columns))
        self.deviations = np.zeros(columns)
        self._targets = targets
        self._grid = [(penalty, share) for penalty in penalties for share in shares]
        self._share_from = share_from
        self._sums = np.zeros((columns, columns))  # X'X of all rows.
        # X'X of the rows that a target does not learn from; of those that it does learn from where it weighs them.
        self._own_sums = [np.zeros((columns, columns)) for _ in targets]
        self._products = np.zeros((len(targets), columns))  # X'y.
        self._rows = np.zeros(len(targets))  # Sums of the rows' weights.
        self._errors = np.zeros((BLOCKS, len(targets), len(self._grid)))
        self._block = 0
        self._trials: Float64s | None = None  # Weights, shape (columns, targets * penalties).
        self._foretold: Float64s | None = None  # Of the last piece, shape (rows, targets, penalties).
        self._chosen = np.zeros(len(targets), dtype=np.int64)

    def open_block(self, block: int) -> None:
        """Solve for every penalty, and choose the one that foretold earlier blocks best."""
        self._block = block
        if block == 0:
            return
        self._trials = np.stack(
            [self._solved(target, penalty) for target in range(len(self._targets)) for penalty in self._grid], axis=1
        )
        if block < FIRST_FOLD:
            return
        past = slice(min(FIRST_FOLD, block - 1), block)
        self._chosen = np.argmin(self._errors[past].sum(axis=0), axis=1)
        self.penalties[block] = np.array(self._grid)[self._chosen]
        by_target = self._trials.reshape(-1, len(self._targets), len(self._grid))
        self.weights = np.stack([by_target[:, target, best] for target, best in enumerate(self._chosen)])
        rows = max(self._sums[-1, -1], 1.0)
        variance = np.diagonal(self._sums) / rows - (self._sums[-1] / rows) ** 2
        self.deviations = np.sqrt(np.maximum(variance, 0.0))

    def foretell(self, design: Float32s) -> Float64s | None:
        """Return the scores under the penalties chosen, shape (targets, rows); None in the first block."""
        if self._trials is None:
            return None
        scores = design.astype(np.float64) @ self._trials
        self._foretold = scores.reshape(len(design), len(self._targets), len(self._grid))
        return np.stack([self._foretold[:, target, best] for target, best in enumerate(self._chosen)])

    def learn(self, design: Float32s, rows: slice) -> None:
        """Add the rows to the sums, and their errors under every penalty to the block's."""
        exact = design.astype(np.float64)
        self._sums += exact.T @ exact
        for index, target in enumerate(self._targets):
            kept = target.trains[rows]
            outcome = target.outcome[rows][kept]
            weights = np.ones(len(outcome)) if target.weights is None else target.weights[rows][kept]
            learnt = exact[kept]
            if target.weights is not None:
                scaled = learnt * np.sqrt(weights)[:, np.newaxis]
                self._own_sums[index] += scaled.T @ scaled  # BLAS halves the work where both are one.
            elif not kept.all():
                purged = exact[~kept]
                self._own_sums[index] += purged.T @ purged
            self._products[index] += (weights * outcome) @ learnt
            self._rows[index] += weights.sum()
            if self._foretold is not None:
                missed = self._foretold[kept, index] - outcome[:, np.newaxis]
                self._errors[self._block, index] += np.einsum("i,ij,ij->j", weights, missed, missed)

    def _solved(self, target: int, penalty: tuple[float, float]) -> Float64s:
        weighs = self._targets[target].weights is not None
        matrix = self._own_sums[target].copy() if weighs else self._sums - self._own_sums[target]
        inner = np.arange(len(matrix) - 1)
        shares = np.where(inner < self._share_from, 1.0, penalty[1])
        matrix[inner, inner] += penalty[0] * shares * self._rows[target]
        try:
            factors = cho_factor(matrix, overwrite_a=True, check_finite=False)
        except LinAlgError as exc:
            raise TrainingError(
                f"the readout of horizon {self._targets[target].horizon.name!r} can't be solved: "
                f"rows={self._rows[target]:g}, columns={len(matrix)}, penalty={penalty[0]:g}; give more ticks"
            ) from exc
        return cho_solve(factors, self._products[target], check_finite=False)
