"""How large a readout's weights are, by where their columns come from.

    size of a group = root of the sum over its columns of (weight * standard deviation of the column)^2

A weight alone says nothing, because a column may hardly move; times its deviation it is what the column moves the
score by. Columns that say nearly the same share their weight, so a small group is not a useless one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_kernels.model import Model
from penstock_tuning.model.history import Target
from penstock_tuning.model.prequential import RidgeLearner

UNIT_GROUPS: Final = 4  # By the unit's leak, from the fastest to the slowest.


def weight_sizes(model: Model, targets: Sequence[Target], learner: RidgeLearner) -> dict[str, Any]:
    """Return the sizes of the last readout, by horizon: its column groups, and its features over all their columns."""
    groups = column_groups(model)
    features = feature_columns(model)
    return {
        target.horizon.name: {
            "groups": {name: _size(moves, columns) for name, columns in groups.items()},
            "features": {name: _size(moves, columns) for name, columns in features.items()},
        }
        for target, moves in zip(targets, learner.weights * learner.deviations, strict=True)
    }


def column_groups(model: Model) -> dict[str, NDArray[np.int64]]:
    """Return the readout's columns by kind, the constant left out: units, products, averages, lags, features."""
    groups: dict[str, NDArray[np.int64]] = {}
    by_speed = np.argsort(-model.leak, kind="stable")
    names = ("fastest", "fast", "slow", "slowest")
    for name, units in zip(names, np.array_split(by_speed, UNIT_GROUPS), strict=True):
        groups[f"{name} units"] = np.sort(units)
    first = model.units
    if model.products:
        groups["products of units"] = first + np.arange(model.products)
    first += model.products
    memory = len(model.memory_gains)
    for number, gain in enumerate(model.memory_gains):
        groups[f"average of {_events(float(gain))}"] = first + number * model.inputs + np.arange(model.inputs)
    first += memory * model.inputs
    for lag in range(1, model.memory_lags + 1):
        groups[f"lag {lag}"] = first + (lag - 1) * model.inputs + np.arange(model.inputs)
    first += model.memory_lags * model.inputs
    groups["features"] = first + np.arange(model.inputs)
    return groups


def feature_columns(model: Model) -> dict[str, NDArray[np.int64]]:
    """Return each feature's own columns of the readout: its averages, its lags and itself."""
    copies = len(model.memory_gains) + model.memory_lags + 1
    starts = model.units + model.products + model.inputs * np.arange(copies)
    return {name: starts + position for position, name in enumerate(model.features)}


def _events(gain: float) -> str:
    return "1 event" if gain >= 1.0 else f"{-1.0 / np.log1p(-gain):.3g} events"


def _size(moves: Float64s, columns: NDArray[np.int64]) -> float:
    return float(f"{np.sqrt(np.sum(moves[columns] ** 2)):.6g}")
