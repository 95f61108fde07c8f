"""Training a model: recordings in, a model with its report out.

    equal recordings, settings and version give equal bytes, whatever the files' order, the cores, the BLAS library, or
    whether the work was stopped and resumed

Time is cut into ten blocks, never shuffled: each is foretold by readouts of the blocks before it, which gives the
penalties, the calibration and the skill in the report. The model's own readout is then fitted once more on all rows.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np

from penstock_kernels.compiled import Float32s, Float64s
from penstock_kernels.drawing import draw
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Calibration, Horizon, HorizonKind, Model
from penstock_tuning.model.block_pass import BlockPass, Task, block_boundaries, part_boundaries
from penstock_tuning.model.calibrate import fit_logistic, fit_slope
from penstock_tuning.model.checkpoint import Checkpoint, key_of
from penstock_tuning.model.ordered_histogram import OrderedHistogram
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.readouts import baselines_of, families_of
from penstock_tuning.model.rebuild import REBUILD_TICKS_MAX, forgetting_of, measured_agreement, rebuild_ticks_of
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.settings import BLOCKS, D2_AVERAGES, D2_LAGS, UNITS_MIN, FitSettings
from penstock_tuning.model.skill import HorizonSkill
from penstock_tuning.model.survey import ReturnRange, Survey, survey
from penstock_tuning.model.training_report import make_report
from penstock_tuning.model.walk import Cursor

_DIGITS: Final = 7


def fit(
    recordings: Recordings,
    settings: FitSettings,
    on_progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> Model:
    """Train a model on *recordings*.

    Args:
        recordings: what to train on.
        settings: of the model.
        on_progress: told how far the work is.
        checkpoint: where to keep the state of the work, and to go on from; None to keep nothing.

    Raises:
        TrainingError: the recordings are too short, or nothing in them moves.
        TickFileError: a file can no longer be read.
        ModelError: the settings make no reservoir, or one whose memory does not fade.
        RidgeError: a penalty of 0 where columns depend on each other.
    """
    key = key_of(recordings, settings)
    kept = checkpoint.load(key) if checkpoint else None
    boundaries = block_boundaries(recordings)
    found = _survey_of(kept[0]["survey"]) if kept else survey(recordings, settings.horizons, boundaries, on_progress)
    model = untrained(settings, found.features, found.mean, found.scale)
    first_streams = recordings.first_streams()
    forgetting = forgetting_of(model, max(first_streams, key=lambda stream: len(stream.ticks)).ticks)
    rebuild_ticks, needed = rebuild_ticks_of(model, first_streams)
    model = replace(model, rebuild_ticks=rebuild_ticks)
    baseline = untrained(_linear(settings), found.features, found.mean, found.scale)
    task = Task(recordings, found, model, boundaries, part_boundaries(recordings), baseline)
    work = BlockPass(task, families_of(settings), baselines_of(settings, baseline))
    if kept:
        work.restore(Cursor(**kept[0]["cursor"]), kept[1])

    def after_part() -> None:
        on_progress("foretelling, adding up", work.ticks_done, recordings.ticks)
        if checkpoint and checkpoint.due():
            about = {"survey": _survey_as_json(found), "cursor": asdict(work.cursor)}
            checkpoint.save(key, about, work.arrays())

    for block in range(work.cursor.block, BLOCKS):
        work.run_block(block, after_part, scored=True)
    readout, _ = work.readouts.final(work.readouts.families[0])
    model = replace(
        model,
        readout=_readout(readout, settings.horizons),
        calibration=tuple(
            _calibration(horizon, found, index, work.skills[index]) for index, horizon in enumerate(settings.horizons)
        ),
    )
    longest = max(recordings.first_streams(), key=lambda stream: len(stream.ticks))
    rebuild = {
        "forgetting_rate": forgetting,
        "ticks_needed": needed,
        "probability_difference": measured_agreement(model, longest.ticks),
    }
    return replace(model, training=make_report(settings, work, rebuild))


def _linear(settings: FitSettings) -> FitSettings:
    """Return settings whose memory is that of the baseline d2; the few units play no part in it."""
    return FitSettings(
        horizons=settings.horizons,
        units=UNITS_MIN,
        fan_in=1,
        recurrence=False,
        memory_averages=D2_AVERAGES,
        memory_lags=D2_LAGS,
        products=0,
        clip=settings.clip,
    )


def untrained(settings: FitSettings, features: tuple[str, ...], mean: Float64s, scale: Float64s) -> Model:
    """Return the model with its reservoir and the features' scale, and a readout of zeros: what evaluate fits too."""
    shortest, longest = settings.time_constant_events_min, settings.time_constant_events_max
    reservoir = draw(
        settings.topology,
        settings.seed,
        units=settings.units,
        inputs=len(features),
        fan_in=settings.fan_in,
        spectral_radius=settings.drawn_radius,
        input_scale=settings.input_scale,
        bias_scale=settings.bias_scale,
        time_constant_events_min=shortest,
        time_constant_events_max=longest,
        time_base=settings.time_base,
        time_constant_s_min=shortest,
        time_constant_s_max=longest,
    )
    leak = reservoir.leak if settings.leak is None else np.full(settings.units, settings.leak, dtype=np.float32)
    linear = len(features) * (len(settings.memory_averages) + settings.memory_lags + 1) + 1
    columns = settings.units + settings.made_products + linear
    outputs = OUTPUTS_PER_HORIZON * len(settings.horizons)
    return Model(
        name=settings.name,
        version=settings.version,
        topology=settings.topology,
        seed=settings.seed,
        recurrent=reservoir.recurrent,
        connections=reservoir.connections,
        input_weights=reservoir.input_weights,
        bias=reservoir.bias,
        leak=leak,
        features=features,
        feature_mean=mean,
        feature_scale=scale,
        clip=settings.clip,
        horizons=settings.horizons,
        readout=np.zeros((outputs, columns), dtype=np.float32),
        calibration=(Calibration(),) * len(settings.horizons),
        rebuild_ticks=REBUILD_TICKS_MAX,
        demonstration=settings.demonstration,
        time_base=settings.time_base,
        memory_gains=np.array(settings.memory_gains, dtype=np.float32),
        memory_lags=settings.memory_lags,
        products=settings.made_products,
        notice=settings.notice,
    )


def _readout(weights: Float64s, horizons: tuple[Horizon, ...]) -> Float32s:
    """Return *weights* as the model keeps them; a horizon that always moves needs no moved output."""
    kept = weights.astype(np.float32)
    for index, horizon in enumerate(horizons):
        if horizon.kind == HorizonKind.NEXT_MOVE:
            kept[index * OUTPUTS_PER_HORIZON + 2] = 0.0
    return kept


def _calibration(horizon: Horizon, found: Survey, index: int, skill: HorizonSkill) -> Calibration:
    """Return how a horizon's outputs become a forecast, from all rows that were foretold."""
    downs, ups = OrderedHistogram(), OrderedHistogram()
    for ranking in skill.by_block:
        downs.counts += ranking.negatives.counts
        ups.counts += ranking.positives.counts
    moved_slope, moved_offset = 0.0, 0.0
    if horizon.kind != HorizonKind.NEXT_MOVE:
        moved_slope, moved_offset = fit_logistic(skill.moved.negatives, skill.moved.positives)
        moved_offset -= moved_slope * found.moved[index]
    scale = found.ranges[index].scale
    return Calibration(
        return_scale=_rounded(scale),
        deviation=_rounded(scale * skill.raw_returns.deviation),
        direction_slope=fit_slope(downs, ups),
        direction_offset=0.0,
        moved_slope=moved_slope,
        moved_offset=_rounded(moved_offset),
    )


def _survey_as_json(found: Survey) -> dict[str, Any]:
    """Return *found* as JSON, which holds every bit of a float64."""
    return {**asdict(found), "mean": found.mean.tolist(), "scale": found.scale.tolist()}


def _survey_of(kept: dict[str, Any]) -> Survey:
    return Survey(
        rows=tuple(kept["rows"]),
        features=tuple(kept["features"]),
        mean=np.array(kept["mean"]),
        scale=np.array(kept["scale"]),
        ranges=tuple(ReturnRange(**one) for one in kept["ranges"]),
        moved=tuple(kept["moved"]),
        up=tuple(kept["up"]),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
