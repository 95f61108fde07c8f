"""What settings are worth on past blocks: the one function that search runs, here or anywhere else.

    value after block j = mean over horizons of the R2 of return and direction, pooled over blocks FIRST_TEST .. j

Each block is foretold by a readout of the blocks before it, with penalties chosen on those. All of it comes from sums,
so a row is walked once. Nothing after the last block asked for is labelled or summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock_kernels.compiled import Float64s
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Horizon
from penstock_tuning.model.block_pass import BlockPass, Task, block_boundaries
from penstock_tuning.model.fit import untrained
from penstock_tuning.model.progress import silent
from penstock_tuning.model.readouts import Readouts, families_of
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.settings import FIRST_TEST, SEARCH_BLOCKS, FitSettings
from penstock_tuning.model.survey import Survey, survey


@dataclass(frozen=True, eq=False)
class Past:
    """Recordings up to the end of block number *blocks*, surveyed once for all trials of equal horizons."""

    recordings: Recordings
    horizons: tuple[Horizon, ...]
    boundaries_ns: tuple[int, ...]
    found: Survey
    blocks: int


def past_of(recordings: Recordings, horizons: Sequence[Horizon], blocks: int = SEARCH_BLOCKS) -> Past:
    """Look at the first *blocks* of *recordings*.

    Raises:
        TrainingError: they are too short, or nothing in them moves.
    """
    boundaries = block_boundaries(recordings)
    found = survey(recordings, horizons, boundaries, silent, blocks)
    return Past(recordings, tuple(horizons), boundaries, found, blocks)


def run_trial(settings: FitSettings, past: Past, after_block: Callable[[int, float], None] = lambda *_: None) -> float:
    """Return the value of *settings* on *past*.

    Args:
        settings: with the horizons of *past*.
        past: where nothing but the first blocks is looked at.
        after_block: told the number of each block from FIRST_TEST on and the value up to its end; may raise to stop.

    Raises:
        ModelError: the settings make no reservoir.
        RidgeError: a penalty of 0 where columns depend on each other.
    """
    work = _walked(settings, past, after_block)
    return value_of(work, FIRST_TEST, past.blocks)


def held_out(settings: FitSettings, recordings: Recordings, blocks: int) -> dict[str, float | dict[str, float]]:
    """Return value and R2 by output on the blocks after number *SEARCH_BLOCKS*, foretold one after the other."""
    past = past_of(recordings, settings.horizons, blocks)
    work = _walked(settings, past, lambda *_: None)
    explained = explained_by(work, SEARCH_BLOCKS, blocks)
    names = [f"{what} of {one.name}" for one in settings.horizons for what in ("return", "direction", "moved")]
    wanted = _wanted(len(settings.horizons))
    return {
        "value": _rounded(value_of(work, SEARCH_BLOCKS, blocks)),
        "r2": {names[index]: _rounded(float(explained[index])) for index in wanted},
    }


def value_of(readouts: Readouts, first: int, stop: int) -> float:
    """Return the mean R2 of the returns and directions over the blocks from *first* to before *stop*."""
    explained = explained_by(readouts, first, stop)
    return float(np.mean(explained[_wanted(readouts.outputs // OUTPUTS_PER_HORIZON)]))


def explained_by(readouts: Readouts, first: int, stop: int) -> Float64s:
    """Return R2 of each output over the blocks from *first* to before *stop*, shape (outputs,); 0 where nothing came."""
    family = readouts.families[0]
    missed = np.zeros(readouts.outputs)
    for block in range(first, stop):
        for output, penalty in enumerate(readouts.chosen(block, family)):
            missed[output] += readouts.errors[family.name][block, family.trials.index(penalty), output]
    total = readouts.totals[first:stop].sum(axis=0)
    return np.where(total > 0.0, 1.0 - missed / np.where(total > 0.0, total, 1.0), 0.0)


def _walked(settings: FitSettings, past: Past, after_block: Callable[[int, float], None]) -> Readouts:
    model = untrained(settings, past.found.features, past.found.mean, past.found.scale)
    task = Task(past.recordings, past.found, model, past.boundaries_ns)
    work = BlockPass(task, families_of(settings))
    for block in range(past.blocks):
        work.run_block(block, lambda: None, scored=False)
        if block >= FIRST_TEST:
            after_block(block, value_of(work.readouts, FIRST_TEST, block + 1))
    return work.readouts


def _wanted(horizons: int) -> list[int]:
    """Return the outputs that a value is made of: return and direction of each horizon."""
    return [index * OUTPUTS_PER_HORIZON + which for index in range(horizons) for which in (0, 1)]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
