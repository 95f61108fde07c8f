"""Ridge readouts by the prequential protocol, from sums alone: each block is foretold by what came before it.

    begin(block)    readouts of all earlier blocks, one for each penalty on trial
    add             the block's own rows to a sum of their own, of columns [x, p, m, u, 1, targets]
    end(block)      each trial's squared error on the block, from its sum; then it joins the past

An output's penalty in a block is the one with the least squared error over the earlier blocks from FIRST_FOLD on, and
in the end over all of them: no row takes part in the choice that foretells it. Memory is two sums for each way to weigh
rows, however many rows: horizons that end with the next move weigh them (see targets.py), the others count them.

Targets of a horizon, in the order of the model's outputs: return (winsorised, in units of its range), direction
(-1, 0, 1) and moved (0, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float32s, Float64s
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Horizon, HorizonKind, Model
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.ridge import solve, squared_error
from penstock_tuning.model.settings import BLOCKS, FIRST_FOLD, FitSettings
from penstock_tuning.model.survey import ReturnRange
from penstock_tuning.model.targets import Targets

MODEL: Final = "model"
LINEAR_MEMORY: Final = "linear_memory_ridge"
FEATURES: Final = "features_ridge"
THREADS_MAX: Final = 4  # Each solves for one penalty, in memory of its own.


@dataclass(frozen=True)
class Penalty:
    """Relative to the rows."""

    units: float
    linear_share: float = 1.0  # Of the columns [m, u]: a share of the units' penalty.

    @property
    def linear(self) -> float:
        """The penalty of the columns [m, u]."""
        return self.units * self.linear_share


@dataclass(frozen=True)
class Family:
    """Readouts of the same columns: the model's, or a baseline's that sees the last ones alone."""

    name: str
    first: int  # Column.
    trials: tuple[Penalty, ...]


def families_of(settings: FitSettings) -> tuple[Family, ...]:
    """Return the model's family."""
    trials = tuple(Penalty(one, share) for one in settings.penalties for share in settings.linear_penalties)
    return (Family(MODEL, 0, trials),)


def baselines_of(settings: FitSettings, baseline: Model) -> tuple[Family, ...]:
    """Return the families of the linear memory and of the tick's features, on the last columns of *baseline*."""
    trials = tuple(Penalty(one) for one in settings.penalties)
    return (
        Family(LINEAR_MEMORY, baseline.units, trials),
        Family(FEATURES, baseline.units + baseline.memory_columns, trials),
    )


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of rows that are weighed alike."""

    horizon: int  # Whose weights these are.
    outputs: NDArray[np.int64]  # Of the readout, that are fitted from these sums.
    past: Gram  # Of columns [design, these outputs' targets].
    own: Gram


class Readouts:
    """Sums, errors and trials of one walk over the blocks.

    Attributes:
        families: what is fitted.
        errors: of each family, sums of squared errors by block, trial and output, shape (BLOCKS, trials, outputs).
        totals: of the targets' squares by block, shape (BLOCKS, outputs): the errors of a forecast of 0.
        rows: summed by block, shape (BLOCKS,).
    """

    def __init__(self, families: Sequence[Family], units: int, columns: int, horizons: Sequence[Horizon]) -> None:
        """Take how many *columns* the design has, how many of them are *units* and their products, and what is foretold."""
        self.families = tuple(families)
        self.columns = columns
        self.outputs = OUTPUTS_PER_HORIZON * len(horizons)
        self._units = units
        self._sums = _sums_of(horizons, columns)
        self._pool = ThreadPoolExecutor(len(self._sums))  # Each sum is its own thread's: the same bits.
        self.errors = {one.name: np.zeros((BLOCKS, len(one.trials), self.outputs)) for one in self.families}
        self.totals = np.zeros((BLOCKS, self.outputs))
        self.rows = np.zeros(BLOCKS, dtype=np.int64)
        self._weights: dict[str, list[Float64s]] = {}

    def begin(self, block: int) -> None:
        """Solve for every trial, from the rows before *block*."""
        self._weights = {}
        if block >= FIRST_FOLD:
            for family in self.families:
                self._weights[family.name] = self._solved(family)

    def weights(self, block: int, family: Family) -> Float64s:
        """Return the readout that foretells *block*, at least FIRST_FOLD + 1, shape (outputs, columns)."""
        return _picked(self._weights[family.name], self.chosen(block, family), family)

    def add(self, design: Float32s, targets: Float32s, weights: Sequence[Float64s]) -> None:
        """Add rows of the block, shapes (rows, columns) and (rows, outputs), with their weights for each horizon."""

        def one(sums: _Sums) -> None:
            rows = np.concatenate([design, targets[:, sums.outputs]], axis=1)
            scale = np.sqrt(weights[sums.horizon]).astype(np.float32)
            sums.own.add(rows * scale[:, np.newaxis] if (scale != 1.0).any() else rows)

        list(self._pool.map(one, self._sums))

    def end(self, block: int) -> None:
        """Note the errors on the rows of *block*, which become past."""
        for family in self.families:
            for trial, weights in enumerate(self._weights.get(family.name, [])):
                for sums in self._sums:
                    errors = squared_error(sums.own, self.columns, weights[sums.outputs])
                    self.errors[family.name][block, trial, sums.outputs] = errors
        for sums in self._sums:
            targets = np.arange(self.columns, self.columns + len(sums.outputs))
            self.totals[block, sums.outputs] = sums.own.sums[targets, targets]
            self.rows[block] = sums.own.rows
            sums.past.sums += sums.own.sums
            sums.past.rows += sums.own.rows
            sums.own.sums[:] = 0.0
            sums.own.rows = 0

    def chosen(self, block: int, family: Family) -> list[Penalty]:
        """Return each output's penalty, by the errors of the blocks before *block*."""
        errors = self.errors[family.name][FIRST_FOLD:block].sum(axis=0)
        return [family.trials[index] for index in np.argmin(errors, axis=0)]

    def final(self, family: Family) -> tuple[Float64s, list[Penalty]]:
        """Return the readout of all rows, shape (outputs, columns), and its penalties."""
        chosen = self.chosen(BLOCKS, family)
        return _picked(self._solved(family, set(chosen)), chosen, family), chosen

    def _solved(self, family: Family, wanted: set[Penalty] | None = None) -> list[Float64s]:
        """Solve for the *wanted* trials, all of them where None; another one has an empty array."""

        def one(trial: Penalty) -> Float64s:
            if wanted is not None and trial not in wanted:
                return np.empty((0, 0))
            weights = np.empty((self.outputs, self.columns))
            for sums in self._sums:
                weights[sums.outputs] = solve(
                    sums.past,
                    self.columns,
                    trial.units,
                    first=family.first,
                    linear_from=self._units,
                    linear=trial.linear_share if family.first < self._units else 1.0,
                )
            return weights

        with ThreadPoolExecutor(min(THREADS_MAX, cpu_count() or 1)) as pool:
            return list(pool.map(one, family.trials))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a continuation needs, by name."""
        kept: dict[str, NDArray[Any]] = {f"errors.{name}": errors for name, errors in self.errors.items()}
        kept |= {"totals": self.totals, "rows": self.rows}
        for index, sums in enumerate(self._sums):
            kept |= {f"past{index}": sums.past.sums, f"own{index}": sums.own.sums}
            kept[f"gram_rows{index}"] = np.array([sums.past.rows, sums.own.rows], dtype=np.int64)
        return kept

    def restore(self, kept: dict[str, NDArray[Any]]) -> None:
        """Go on from *kept*, which ``arrays`` of equal settings gave."""
        for name, errors in self.errors.items():
            errors[:] = kept[f"errors.{name}"]
        self.totals[:], self.rows[:] = kept["totals"], kept["rows"]
        for index, sums in enumerate(self._sums):
            sums.past.sums[:], sums.own.sums[:] = kept[f"past{index}"], kept[f"own{index}"]
            sums.past.rows, sums.own.rows = (int(one) for one in kept[f"gram_rows{index}"])


def _sums_of(horizons: Sequence[Horizon], columns: int) -> list[_Sums]:
    """Return sums for the horizons that end with the next move, weighed as the first of them says, and for the others."""
    found = []
    for weighs in (False, True):
        alike = [index for index, one in enumerate(horizons) if (one.kind == HorizonKind.NEXT_MOVE) == weighs]
        if alike:
            outputs = (OUTPUTS_PER_HORIZON * np.array(alike)[:, np.newaxis] + np.arange(OUTPUTS_PER_HORIZON)).reshape(
                -1
            )
            size = columns + len(outputs)
            found.append(_Sums(alike[0], outputs, Gram(size), Gram(size)))
    return found


def target_columns(targets: Sequence[Targets], kept: NDArray[np.bool_], ranges: Sequence[ReturnRange]) -> Float32s:
    """Return the targets of the *kept* rows, shape (rows, OUTPUTS_PER_HORIZON * horizons)."""
    columns = []
    for one, limits in zip(targets, ranges, strict=True):
        direction = one.direction[kept].astype(np.float32)
        limited = np.clip(one.returns[kept], limits.low, limits.high) / limits.scale
        columns += [limited.astype(np.float32), direction, np.abs(direction)]
    return np.stack(columns, axis=1)


def _picked(solved: Sequence[Float64s], chosen: Sequence[Penalty], family: Family) -> Float64s:
    """Return each output's weights at its own penalty, shape (outputs, columns)."""
    return np.stack([solved[family.trials.index(penalty)][output] for output, penalty in enumerate(chosen)])
