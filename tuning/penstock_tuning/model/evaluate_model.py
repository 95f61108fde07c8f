"""A model file as it is, on recorded ticks: nothing is fitted, so that the figures are those of the file itself.

    the same blocks, rows, labels and limits as in an evaluation, with the queue imbalance beside

Ticks that the model was trained on flatter it; a file that its training report names is told of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.drive import new_place, run_predictions, run_raw_features
from penstock_kernels.features import FEATURE_NAMES, RUNNING_WORDS
from penstock_kernels.model import Model
from penstock_kernels.model_file import LoadedModel
from penstock_kernels.predictor import pack
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.evaluate import CAVEAT, imbalance_scores
from penstock_tuning.model.evaluation import MODEL, Contender, history_report
from penstock_tuning.model.history import History, Target, histories, make_target
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST

_CONSTANT: Final = 1e-6  # Against its size, as in training: a feature with less range does not vary.


def evaluate_model(loaded: LoadedModel, recordings: Recordings, on_progress: Progress = silent) -> dict[str, Any]:
    """Return the skill of a model file on every instrument, as plain JSON; see docs/evaluation.md.

    Raises:
        TrainingError: a tick file lacks what the model was trained on, is too short, or nothing in it moves.
        TickFileError: a file can no longer be read.
    """
    model = loaded.model
    for history in histories(recordings):
        _check_features(model, history)
        for horizon in model.horizons:
            make_target(history, horizon)
    reports = []
    for history in histories(recordings):
        targets = tuple(make_target(history, horizon) for horizon in model.horizons)
        walked = _walk(model, history, targets, on_progress)
        contenders = [walked, Contender("QI", None, imbalance_scores(history, targets))]
        reports.append({**history_report(history, targets, contenders), "features": list(model.features)})
    return {
        "caveat": CAVEAT,
        "protocol": {
            "text": (
                f"the model file as it is, nothing refitted, on the last {BLOCKS - FIRST_TEST} of {BLOCKS} blocks of equal "
                "rows; returns are limited to the 0.5 and 99.5 % quantiles of the rows before; log-loss is of the "
                "file's own probabilities, and of a calibrated one for the imbalance; intervals hold 95 % of 2000 draws of a paired moving-block "
                "bootstrap of 60 blocks"
            ),
            "blocks": BLOCKS,
            "first_tested": FIRST_TEST,
        },
        "model": {"name": model.name, "version": model.version, "content_hash": loaded.content_hash.hex()},
        "notices": _notices(model, recordings),
        "data": [
            {"name": one.name, "sha256": one.sha256, "ticks": one.ticks, "instruments": list(one.instruments)}
            for one in recordings.all
        ],
        "instruments": reports,
    }


def _walk(model: Model, history: History, targets: Sequence[Target], on_progress: Progress) -> Contender:
    """Return the lean of each direction, up - down, with its probability, and the expected return in the target's unit."""
    packed = pack(model)
    place = new_place(packed)
    scores = np.empty((len(targets), history.rows))
    probabilities = np.full((len(targets), history.rows), 0.5)
    for piece in history.pieces():
        if piece.opens_segment:
            place = new_place(packed)
        ticks = np.ascontiguousarray(history.segments[piece.segment][piece.ticks])
        forecasts = run_predictions(packed, ticks, place)
        for index, target in enumerate(targets):
            expected, _, up, down = forecasts[:, index].T.astype(np.float64)
            scores[index, piece.rows] = up - down if target.limits is None else expected / target.limits.scale
            np.divide(up, up + down, out=probabilities[index, piece.rows], where=up + down > 0.0)
        on_progress(f"evaluating {history.name}"[:60], piece.rows.stop, history.rows)
    return Contender(MODEL, None, scores, probabilities=probabilities)


def _check_features(model: Model, history: History) -> None:
    """Refuse ticks in which a feature that the model hears never varies: it would foretell from what is not there."""
    low, high = np.full(len(FEATURE_NAMES), np.inf), np.full(len(FEATURE_NAMES), -np.inf)
    running: NDArray[np.float64] = np.zeros(RUNNING_WORDS)
    for piece in history.pieces():
        if piece.opens_segment:
            running = np.zeros(RUNNING_WORDS)
        raw = run_raw_features(np.ascontiguousarray(history.segments[piece.segment][piece.ticks]), running)
        low, high = np.minimum(low, raw.min(axis=0)), np.maximum(high, raw.max(axis=0))
    constant = high - low <= _CONSTANT * np.maximum(np.abs(high), _CONSTANT)
    missing = [name for name in model.features if constant[FEATURE_NAMES.index(name)]]
    if missing:
        raise TrainingError(
            f"{history.name} lacks what model {model.name!r} was trained on: these features never vary in it: "
            f"features={','.join(missing)}; give ticks with {_wanted(missing)}, or train a model on ticks such as these"
        )


def _wanted(missing: Sequence[str]) -> str:
    """Return what ticks must hold for the features to vary."""
    sizes = {"imbalance", "microprice_ticks", "depth_log"}
    trades = {"trade_size_signed", "trade", "since_trade_log", "trade_sign"}
    wanted = [text for text, names in (("sizes", sizes), ("trades", trades)) if names & set(missing)]
    return " and ".join(wanted) or "quotes that move"


def _notices(model: Model, recordings: Recordings) -> list[str]:
    notices = [model.notice] if model.notice else []
    known = {one.get("sha256") for one in model.training.get("data", [])}
    seen = [one.name for one in recordings.all if one.sha256 in known]
    return [*notices, *(f"{name} is what this model was trained on: its figures here flatter it." for name in seen)]
