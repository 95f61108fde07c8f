"""What a model file tells about its own making: data, protocol, skill beside its baselines.

plain JSON numbers, texts, lists and objects; nothing of the clock, the machine or the folder it was made in
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock_kernels.model import HorizonKind
from penstock_tuning.model.calibrate import fit_slope
from penstock_tuning.model.labelled import SEGMENT_NAMES
from penstock_tuning.model.readouts import Readouts
from penstock_tuning.model.rebuild import REBUILD_TICKS_MAX, TOLERANCE
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.scores import SegmentScores
from penstock_tuning.model.settings import (
    PENALTIES,
    TRAIN_SHARE,
    VALIDATION_SHARE,
    WASHOUT_TICKS,
    WINSORISED,
    FitSettings,
)
from penstock_tuning.model.survey import Survey

CAVEAT: Final = "No figure includes costs, latency or market impact: none of them is a profit."
PROTOCOL: Final = (
    "Rows in order of time, never shuffled: the first part is fitted on, the next chooses the penalties, the last is the "
    "test. A row whose label was known only after its part ended is left out. Skill is that of the test rows, by a "
    "readout fitted on all rows before them; the model's own readout is then fitted on all rows with the same penalties."
)


def make_report(
    recordings: Recordings,
    settings: FitSettings,
    boundaries_ns: Sequence[int],
    found: Survey,
    readouts: Readouts,
    scores: Sequence[tuple[SegmentScores, SegmentScores]],
    rebuild: Mapping[str, float | None],
) -> dict[str, Any]:
    """Return the training report of a model."""
    outputs = len(readouts.penalties) // len(settings.horizons)
    return {
        "caveat": CAVEAT,
        "data": [
            {
                "name": one.name,
                "sha256": one.sha256,
                "ticks": one.ticks,
                "first_ns": one.first_ns,
                "last_ns": one.last_ns,
                "instruments": list(one.instruments),
            }
            for one in recordings.all
        ],
        "protocol": {
            "text": PROTOCOL,
            "shares": [TRAIN_SHARE, VALIDATION_SHARE, _round(1.0 - TRAIN_SHARE - VALIDATION_SHARE)],
            "boundaries_ns": list(boundaries_ns),
            "washout_ticks": WASHOUT_TICKS,
            "winsorised_quantiles": list(WINSORISED),
            "penalties_tried": list(PENALTIES),
        },
        "rows": dict(zip(SEGMENT_NAMES, found.rows, strict=True)),
        "reservoir": {
            "spectral_radius": settings.spectral_radius,
            "time_constant_events": [settings.time_constant_events_min, settings.time_constant_events_max],
        },
        "rebuild": {
            "tolerance": TOLERANCE,
            "ticks_max": REBUILD_TICKS_MAX,
            "ticks_needed": rebuild["ticks_needed"],
            "probability_difference": _round(rebuild["probability_difference"]),
        },
        "skill": {
            horizon.name: _skill(
                found, index, scores[index], readouts.penalties[index * outputs : (index + 1) * outputs], horizon.kind
            )
            for index, horizon in enumerate(settings.horizons)
        },
    }


def _skill(
    found: Survey,
    index: int,
    scores: tuple[SegmentScores, SegmentScores],
    penalties: Sequence[float],
    kind: HorizonKind,
) -> dict[str, Any]:
    validation, test = scores
    slope = fit_slope(validation.direction.negatives, validation.direction.positives)
    always = kind == HorizonKind.NEXT_MOVE
    return {
        "direction_auc": {
            "model": _round(test.direction.auc),
            "features_ridge": _round(test.linear_direction.auc),
            "queue_imbalance": _round(test.imbalance.auc),
        },
        "direction_auc_by_instrument": {
            name: {"model": _round(direction.auc), "queue_imbalance": _round(imbalance.auc)}
            for name, (direction, imbalance) in sorted(test.by_stream.items())
        },
        "direction_log_loss": {
            "model": _round(test.direction.log_loss(slope, 0.0)),
            "fair_coin": _round(test.direction.log_loss(0.0, 0.0)),
        },
        "moved_auc": None if always else _round(test.moved.auc),
        "return_r2": {
            "model": _round(test.returns.explained),
            "features_ridge": _round(test.linear_returns.explained),
        },
        "test_rows": test.returns.rows,
        "test_moves": test.direction.total,
        "moved_share": _round(found.moved[index]),
        "up_share": _round(found.up[index]),
        "winsorised": [_round(found.ranges[index].low), _round(found.ranges[index].high)],
        "penalties": list(penalties),
    }


def _round(value: float | None) -> float | None:
    """Return *value* to six digits: enough to read, and nothing below them to differ by."""
    return None if value is None else float(f"{value:.6g}")
