"""Training a model: recordings in, a model with its report out.

    equal recordings, settings and version give equal bytes, whatever the files' order, the cores or the BLAS library

Time is cut twice, never shuffled: the penalty is chosen and the probabilities are calibrated on rows that came after
the ones fitted on, and the skill in the report is that of the last rows, foretold by a readout that saw none of them.
The model's own readout is then fitted once more on all rows, with the penalties found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, Float64s
from penstock_kernels.drawing import draw
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Calibration, Horizon, HorizonKind, Model
from penstock_kernels.predictor import pack
from penstock_tuning.model import readouts as passes
from penstock_tuning.model.calibrate import fit_logistic, fit_slope
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.rebuild import REBUILD_TICKS_MAX, measured_agreement, rebuild_ticks_of
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.scores import SegmentScores
from penstock_tuning.model.settings import TRAIN_SHARE, VALIDATION_SHARE, FitSettings
from penstock_tuning.model.survey import Survey, survey
from penstock_tuning.model.training_report import make_report

_DIGITS: Final = 7


def fit(recordings: Recordings, settings: FitSettings, on_progress: Progress = silent) -> Model:
    """Train a model on *recordings*.

    Args:
        recordings: what to train on.
        settings: of the model.
        on_progress: told how far the work is.

    Raises:
        TrainingError: the recordings are too short, or nothing in them moves.
        TickFileError: a file can no longer be read.
        ModelError: the settings make no reservoir.
    """
    boundaries = recordings.quantile_times_ns((TRAIN_SHARE, TRAIN_SHARE + VALIDATION_SHARE))
    found = survey(recordings, settings.horizons, boundaries, on_progress)
    model = untrained(settings, found.features, found.mean, found.scale)
    first_streams = recordings.first_streams()
    rebuild_ticks, needed = rebuild_ticks_of(model, first_streams)
    model = replace(model, rebuild_ticks=rebuild_ticks)
    task = passes.Task(
        recordings=recordings,
        horizons=settings.horizons,
        boundaries_ns=tuple(boundaries),
        survey=found,
        packed=pack(model),
        units=model.units,
        columns=model.columns,
    )
    readouts = passes.fit(task, passes.gather(task, on_progress), on_progress)
    scores = passes.score(task, readouts, on_progress)
    model = replace(
        model,
        readout=_readout(readouts.all, settings.horizons),
        calibration=tuple(
            _calibration(horizon, found, index, scores[index]) for index, horizon in enumerate(settings.horizons)
        ),
    )
    longest = max(first_streams, key=lambda stream: len(stream.ticks))
    rebuild = {"ticks_needed": needed, "probability_difference": measured_agreement(model, longest.ticks)}
    return replace(model, training=make_report(recordings, settings, boundaries, found, readouts, scores, rebuild))


def untrained(settings: FitSettings, features: tuple[str, ...], mean: Float64s, scale: Float64s) -> Model:
    """Return the model with its reservoir and the features' scale, and a readout of zeros: what evaluate fits too."""
    reservoir = draw(
        "cyclic",
        settings.seed,
        units=settings.units,
        inputs=len(features),
        fan_in=settings.fan_in,
        spectral_radius=settings.spectral_radius,
        time_constant_events_min=settings.time_constant_events_min,
        time_constant_events_max=settings.time_constant_events_max,
    )
    outputs = OUTPUTS_PER_HORIZON * len(settings.horizons)
    return Model(
        name=settings.name,
        version=settings.version,
        topology="cyclic",
        seed=settings.seed,
        recurrent=reservoir.recurrent,
        connections=reservoir.connections,
        input_weights=reservoir.input_weights,
        bias=reservoir.bias,
        leak=reservoir.leak,
        features=features,
        feature_mean=mean,
        feature_scale=scale,
        clip=settings.clip,
        horizons=settings.horizons,
        readout=np.zeros((outputs, settings.units + len(features) + 1), dtype=np.float32),
        calibration=(Calibration(),) * len(settings.horizons),
        rebuild_ticks=REBUILD_TICKS_MAX,
        demonstration=settings.demonstration,
        notice=settings.notice,
    )


def _readout(weights: Float64s, horizons: tuple[Horizon, ...]) -> Float32s:
    """Return *weights* as the model keeps them; a horizon that always moves needs no moved output."""
    kept = weights.astype(np.float32)
    for index, horizon in enumerate(horizons):
        if horizon.kind == HorizonKind.NEXT_MOVE:
            kept[index * OUTPUTS_PER_HORIZON + 2] = 0.0
    return kept


def _calibration(
    horizon: Horizon, found: Survey, index: int, scores: tuple[SegmentScores, SegmentScores]
) -> Calibration:
    """Return how a horizon's outputs become a forecast, from all rows that were foretold."""
    validation, test = scores
    direction = validation.direction.plus(test.direction)
    moved_slope, moved_offset = 0.0, 0.0
    if horizon.kind != HorizonKind.NEXT_MOVE:
        moved = validation.moved.plus(test.moved)
        moved_slope, moved_offset = fit_logistic(moved.negatives, moved.positives)
        moved_offset -= moved_slope * found.moved[index]
    rows = validation.raw_returns.rows + test.raw_returns.rows
    squared = validation.raw_returns.squared + test.raw_returns.squared
    scale = found.ranges[index].scale
    return Calibration(
        return_scale=_rounded(scale),
        deviation=_rounded(scale * (squared / rows) ** 0.5),
        direction_slope=fit_slope(direction.negatives, direction.positives),
        direction_offset=0.0,
        moved_slope=moved_slope,
        moved_offset=_rounded(moved_offset),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
