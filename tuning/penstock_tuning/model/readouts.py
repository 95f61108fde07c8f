"""Two passes over the design: sums for the readouts, then the scores of rows that came after those fitted on.

    gather    one Gram per segment, of columns [x, features, 1, targets]
    fit       penalties by the validation rows' squared error; readouts of train, train + validation, and all rows
    score     validation rows by the readout of train, test rows by the readout of train + validation

Targets of a horizon, in the order of the model's outputs: return (winsorised, in units of its range), direction
(-1, 0, 1) and moved (0, 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float32s, Float64s
from penstock_kernels.drive import new_place, run_design
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Horizon
from penstock_kernels.packed import PackedModel
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.labelled import TEST, TRAIN, VALIDATION, Labelled, label
from penstock_tuning.model.progress import Progress
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.ridge import apply, solve, squared_error
from penstock_tuning.model.scores import Ranking, SegmentScores, queue_imbalance
from penstock_tuning.model.settings import PENALTIES
from penstock_tuning.model.survey import ReturnRange, Survey

BLOCK_TICKS: Final = 2_048
STREAMS_NAMED_MAX: Final = 8  # Scores are kept per stream up to so many instruments.


@dataclass(frozen=True, eq=False)
class Task:
    """What both passes need."""

    recordings: Recordings
    horizons: tuple[Horizon, ...]
    boundaries_ns: tuple[int, ...]
    survey: Survey
    packed: PackedModel  # With the reservoir and the features' scale; its readout plays no part.
    units: int
    columns: int  # Of the design: units + inputs + 1.


@dataclass(frozen=True, eq=False)
class Readouts:
    """Weights of shape (outputs, columns) by what they were fitted on."""

    penalties: tuple[float, ...]  # One per output.
    train: Float64s
    earlier: Float64s  # Train and validation.
    all: Float64s
    linear_train: Float64s  # On the features of the tick alone: the baseline.
    linear_earlier: Float64s


def blocks(task: Task, stage: str, on_progress: Progress) -> Iterator[tuple[Labelled, int, Float32s]]:
    """Yield each stream's design block by block: its labels, the first row of the block, rows of shape (any, columns).

    A block is overwritten by the next one.
    """
    memory = np.empty((BLOCK_TICKS, task.columns), dtype=np.float32)
    done = 0
    for stream in task.recordings.streams():
        labelled = label(stream, task.horizons, task.boundaries_ns)
        place = new_place(task.packed)
        for start in range(0, len(stream.ticks), BLOCK_TICKS):
            ticks = stream.ticks[start : start + BLOCK_TICKS]
            yield labelled, start, run_design(task.packed, ticks, place, memory[: len(ticks)])
            done += len(ticks)
            on_progress(stage, done, task.recordings.ticks)


def target_columns(labelled: Labelled, rows: slice, ranges: Sequence[ReturnRange]) -> Float32s:
    """Return the targets of *rows*, shape (rows, OUTPUTS_PER_HORIZON * horizons)."""
    columns = []
    for targets, limits in zip(labelled.targets, ranges, strict=True):
        direction = targets.direction[rows].astype(np.float32)
        limited = np.clip(targets.returns[rows], limits.low, limits.high) / limits.scale
        columns += [limited.astype(np.float32), direction, np.abs(direction)]
    return np.stack(columns, axis=1)


def gather(task: Task, on_progress: Progress) -> tuple[Gram, Gram, Gram]:
    """Return the sums of the train, validation and test rows."""
    outputs = OUTPUTS_PER_HORIZON * len(task.horizons)
    grams = tuple(Gram(task.columns + outputs) for _ in range(3))
    for labelled, start, design in blocks(task, "adding up", on_progress):
        rows = slice(start, start + len(design))
        segment = labelled.segment[rows]
        targets = target_columns(labelled, rows, task.survey.ranges)
        for which in (TRAIN, VALIDATION, TEST):
            kept = segment == which
            if kept.any():
                grams[which].add(np.concatenate([design[kept], targets[kept]], axis=1))
    return grams[0], grams[1], grams[2]


def fit(task: Task, grams: tuple[Gram, Gram, Gram], on_progress: Progress) -> Readouts:
    """Choose each output's penalty on the validation rows and solve for all readouts."""
    train, validation, test = grams
    earlier = train.plus(validation)
    steps = 2 * len(PENALTIES) + 1
    trials = {}
    for step, penalty in enumerate(PENALTIES):
        trials[penalty] = solve(train, task.columns, penalty)
        on_progress("solving", step + 1, steps)
    penalties, chosen = _best(trials, validation, task.columns)
    linear_trials = {penalty: solve(train, task.columns, penalty, first=task.units) for penalty in PENALTIES}
    linear_penalties, linear_chosen = _best(linear_trials, validation, task.columns)
    readouts = Readouts(
        penalties=penalties,
        train=chosen,
        earlier=_solve_each(earlier, task, penalties),
        all=_solve_each(earlier.plus(test), task, penalties),
        linear_train=linear_chosen,
        linear_earlier=_solve_each(earlier, task, linear_penalties, first=task.units),
    )
    on_progress("solving", steps, steps)
    return readouts


def _best(trials: dict[float, Float64s], validation: Gram, columns: int) -> tuple[tuple[float, ...], Float64s]:
    """Return each output's penalty with the least squared error on the validation rows, and the weights at it."""
    names = list(trials)
    errors = np.array([squared_error(validation, columns, weights) for weights in trials.values()])
    best = np.argmin(errors, axis=0)
    weights = np.stack([trials[names[index]][output] for output, index in enumerate(best)])
    return tuple(names[index] for index in best), weights


def _solve_each(gram: Gram, task: Task, penalties: Sequence[float], first: int = 0) -> Float64s:
    """Solve each output with its own penalty."""
    solved = {penalty: solve(gram, task.columns, penalty, first=first) for penalty in set(penalties)}
    return np.stack([solved[penalty][output] for output, penalty in enumerate(penalties)])


def score(task: Task, readouts: Readouts, on_progress: Progress) -> list[tuple[SegmentScores, SegmentScores]]:
    """Return, per horizon, how the validation and the test rows were foretold."""
    scores = [(SegmentScores(), SegmentScores()) for _ in task.horizons]
    weights = {VALIDATION: readouts.train.T.copy(), TEST: readouts.earlier.T.copy()}
    linear = {VALIDATION: readouts.linear_train.T.copy(), TEST: readouts.linear_earlier.T.copy()}
    names = sorted({name for one in task.recordings.all for name in one.instruments})
    named = len(names) <= STREAMS_NAMED_MAX
    for labelled, start, design in blocks(task, "scoring what came later", on_progress):
        rows = slice(start, start + len(design))
        segment = labelled.segment[rows]
        imbalance = queue_imbalance(labelled.stream.ticks[rows])
        for which in (VALIDATION, TEST):
            kept = segment == which
            if not kept.any():
                continue
            outputs = np.empty((int(kept.sum()), weights[which].shape[1]))
            linear_outputs = np.empty_like(outputs)
            apply(design[kept], weights[which], outputs)
            apply(design[kept], linear[which], linear_outputs)
            for index in range(len(task.horizons)):
                _score_horizon(
                    scores[index][which - VALIDATION],
                    task.survey,
                    index,
                    labelled,
                    np.flatnonzero(kept) + start,
                    outputs[:, index * OUTPUTS_PER_HORIZON :],
                    linear_outputs[:, index * OUTPUTS_PER_HORIZON :],
                    imbalance[kept],
                    labelled.stream.name if named else None,
                )
    return scores


def _score_horizon(
    scores: SegmentScores,
    survey: Survey,
    index: int,
    labelled: Labelled,
    rows: NDArray[np.int64],
    outputs: Float64s,
    linear_outputs: Float64s,
    imbalance: Float64s,
    name: str | None,
) -> None:
    """Add *rows* of one horizon; *outputs* start with its return, direction and moved."""
    targets, limits = labelled.targets[index], survey.ranges[index]
    direction = targets.direction[rows]
    moved = direction != 0
    up = direction[moved] > 0
    raw = targets.returns[rows]
    limited = np.clip(raw, limits.low, limits.high)
    scores.direction.add(outputs[moved, 1], up)
    scores.moved.add(outputs[:, 2] - survey.moved[index], moved)
    scores.returns.add(limited / limits.scale, outputs[:, 0])
    scores.raw_returns.add(raw / limits.scale, outputs[:, 0])
    scores.imbalance.add(imbalance[moved], up)
    scores.linear_direction.add(linear_outputs[moved, 1], up)
    scores.linear_returns.add(limited / limits.scale, linear_outputs[:, 0])
    if name is not None:
        own_direction, own_imbalance = scores.by_stream.setdefault(name, (Ranking(), Ranking()))
        own_direction.add(outputs[moved, 1], up)
        own_imbalance.add(imbalance[moved], up)
