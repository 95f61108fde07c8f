"""What every model is printed beside, from nothing fitted to the strongest that is easily had.

QI   the queue imbalance of the tick, unfitted
c    ridge on the features of the tick
d2   ridge on the features, their exponential averages of 2, 5, 10 and 30 events, and their last 5 values
f    d2 and 512 random tanh units of its columns, without memory of their own
W0   the model itself with its recurrence set to 0
GB   scikit-learn's histogram gradient boosting on the columns of d2, fitted anew for each block

every design has the same standardised, clipped features as the model, made by the same kernel
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.extras import require
from penstock_kernels.compiled import Float32s, Float64s, compiled
from penstock_kernels.drive import new_place, run_design, run_features
from penstock_kernels.model import Model
from penstock_kernels.predictor import pack
from penstock_tuning.model.history import PIECE_TICKS, Target
from penstock_tuning.model.settings import FIRST_FOLD

BASELINES: Final = ("QI", "c", "d2", "f", "W0", "GB")
AVERAGES_EVENTS: Final = (2.0, 5.0, 10.0, 30.0)
LAGS: Final = 5
RANDOM_UNITS: Final = 512
BOOSTING_ROUNDS: Final = 100
BOOSTING_ROWS_MAX: Final = 500_000  # That it is fitted on, the latest: all that stands in memory at once.
BOOSTING_SEED: Final = 0
_RANDOM_UNITS_SEED: Final = 1


class FeatureRows:
    """Design of c: the features and 1."""

    def __init__(self, model: Model) -> None:
        """Take features and scales from *model*."""
        self._packed = pack(model)
        self.columns = model.inputs + 1
        self.restart()

    def restart(self) -> None:
        """Begin at the first tick of a recording."""
        self._place = new_place(self._packed)

    def rows(self, ticks: NDArray[np.void]) -> Float32s:
        """Return rows [features, 1]."""
        features = run_features(self._packed, ticks, self._place)
        return np.concatenate([features, np.ones((len(ticks), 1), dtype=np.float32)], axis=1)


class LinearMemoryRows:
    """Design of d2: the features, averages and lags of them, and 1."""

    def __init__(self, model: Model) -> None:
        """Take features and scales from *model*."""
        self._packed = pack(model)
        self._inputs = model.inputs
        self._gains = 1.0 - np.exp(-1.0 / np.array(AVERAGES_EVENTS))
        self.columns = model.inputs * (1 + len(AVERAGES_EVENTS) + LAGS) + 1
        self.restart()

    def restart(self) -> None:
        """Begin at the first tick of a recording."""
        self._place = new_place(self._packed)
        self._averages = np.zeros((len(self._gains), self._inputs))
        self._past = np.zeros((LAGS, self._inputs), dtype=np.float32)

    def rows(self, ticks: NDArray[np.void]) -> Float32s:
        """Return rows [features, averages by length, lag 1 .. LAGS, 1]."""
        features = run_features(self._packed, ticks, self._place)
        found = np.empty((len(ticks), self.columns), dtype=np.float32)
        averages = slice(self._inputs, self._inputs * (1 + len(self._gains)))
        found[:, : self._inputs] = features
        average_loop(features, self._gains, self._averages, found[:, averages])
        both = np.concatenate([self._past, features])
        for lag in range(1, LAGS + 1):
            first = averages.stop + (lag - 1) * self._inputs
            found[:, first : first + self._inputs] = both[LAGS - lag : LAGS - lag + len(ticks)]
        found[:, -1] = 1.0
        self._past = both[len(both) - LAGS :].copy()
        return found


@compiled
def average_loop(features: Float32s, gains: Float64s, averages: Float64s, found: Float32s) -> None:
    """Write the exponential averages after each row of *features*.

        average <- average + gain (feature - average)

    Args:
        features: shape (rows, inputs).
        gains: shape (averages,).
        averages: where to go on, shape (averages, inputs). Overwritten.
        found: shape (rows, averages * inputs), average by average. Overwritten.
    """
    inputs = features.shape[1]
    for row in range(len(features)):
        for which in range(len(gains)):
            for one in range(inputs):
                averages[which, one] += gains[which] * (features[row, one] - averages[which, one])
                found[row, which * inputs + one] = averages[which, one]


class RandomUnitRows:
    """Design of f: random tanh units of d2's columns, d2's columns, and 1."""

    def __init__(self, model: Model) -> None:
        """Take features and scales from *model*; the units' weights are the same for every model with as many."""
        self._linear = LinearMemoryRows(model)
        heard = self._linear.columns - 1
        noise = np.random.default_rng(_RANDOM_UNITS_SEED)
        scale = 2.0 / np.sqrt(heard)
        self._weights = (scale * (2.0 * noise.random((heard, RANDOM_UNITS)) - 1.0)).astype(np.float32)
        self._bias = (2.0 * noise.random(RANDOM_UNITS) - 1.0).astype(np.float32)
        self.columns = RANDOM_UNITS + self._linear.columns

    def restart(self) -> None:
        """Begin at the first tick of a recording."""
        self._linear.restart()

    def rows(self, ticks: NDArray[np.void]) -> Float32s:
        """Return rows [units, columns of d2 and 1]."""
        linear = self._linear.rows(ticks)
        return np.concatenate([np.tanh(linear[:, :-1] @ self._weights + self._bias), linear], axis=1)


class ModelRows:
    """Design of a model's own readout: what run_design gives, as it is served."""

    def __init__(self, model: Model) -> None:
        """Take all but the readout from *model*."""
        self._packed = pack(model)
        self.columns = model.readout.shape[1]
        self._memory = np.empty((PIECE_TICKS, self.columns), dtype=np.float32)
        self.restart()

    def restart(self) -> None:
        """Begin at the first tick of a recording."""
        self._place = new_place(self._packed)

    def rows(self, ticks: NDArray[np.void]) -> Float32s:
        """Return the readout's rows; overwritten by the next call."""
        return run_design(self._packed, ticks, self._place, self._memory[: len(ticks)])


def without_recurrence(model: Model) -> Model:
    """Return *model* with every recurrent weight 0: units remember by their leak alone."""
    return replace(model, recurrent=np.zeros_like(model.recurrent))


class BoostingLearner:
    """Histogram gradient boosting on the blocks so far, one ensemble per target, fitted anew for each block."""

    def __init__(self, targets: Sequence[Target]) -> None:
        """Get ready for *targets*; the design is that of d2.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        ensemble = require("sklearn.ensemble", extra="train", purpose="the gradient boosting baseline")
        self._classifier = ensemble.HistGradientBoostingClassifier
        self._regressor = ensemble.HistGradientBoostingRegressor
        self._targets = targets
        self._designs: list[Float32s] = []  # Without the constant.
        self._rows: list[slice] = []
        self._fitted: list[Any] = []

    def open_block(self, block: int) -> None:
        """Fit on the latest BOOSTING_ROWS_MAX rows."""
        if block < FIRST_FOLD:
            return
        design = np.concatenate(self._designs)
        rows = slice(self._rows[0].start, self._rows[-1].stop)
        self._fitted = []
        for target in self._targets:
            kept = target.trains[rows]
            outcome = target.outcome[rows][kept]
            settings = {"max_iter": BOOSTING_ROUNDS, "random_state": BOOSTING_SEED}
            if target.is_direction:
                self._fitted.append(self._classifier(**settings).fit(design[kept], outcome > 0.0))
            else:
                self._fitted.append(self._regressor(**settings).fit(design[kept], outcome))

    def foretell(self, design: Float32s) -> Float64s | None:
        """Return scores, shape (targets, rows): log odds of up, or the return; None before the first fit."""
        if not self._fitted:
            return None
        heard = design[:, :-1]
        return np.stack(
            [
                one.decision_function(heard) if target.is_direction else one.predict(heard)
                for one, target in zip(self._fitted, self._targets, strict=True)
            ]
        )

    def learn(self, design: Float32s, rows: slice) -> None:
        """Keep the rows, and let go of the earliest beyond BOOSTING_ROWS_MAX."""
        self._designs.append(design[:, :-1].copy())
        self._rows.append(rows)
        while rows.stop - self._rows[0].stop >= BOOSTING_ROWS_MAX:
            del self._designs[0], self._rows[0]
