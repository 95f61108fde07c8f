"""A model beside its baselines on recorded ticks, by the prequential protocol: one instrument at a time.

    the model is what fit would train, with its readout refitted before each tested block, for each of several seeds
    every contender has the same features, rows, labels and limits; differences are taken on the same bootstrap draws

No figure includes costs, and none is a profit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np

from penstock_kernels.compiled import Float64s
from penstock_kernels.model import Model
from penstock_tuning.model.baselines import (
    BASELINES,
    BoostingLearner,
    FeatureRows,
    LinearMemoryRows,
    ModelRows,
    RandomUnitRows,
    without_recurrence,
)
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.evaluation import MODEL, Contender, history_report
from penstock_tuning.model.evaluation_weights import weight_sizes
from penstock_tuning.model.fit import untrained
from penstock_tuning.model.history import History, Target, histories, make_target, scales
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.prequential import Design, Learner, RidgeLearner, walk
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.scores import queue_imbalance
from penstock_tuning.model.setting_options import settings_as_json
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST, FitSettings

DEFAULT_TARGETS: Final = "next,next_1ms,100ms,50ev,1s"
TARGETS_MAX: Final = 12
SEEDS_MAX: Final = 20
CAVEAT: Final = "No figure includes costs, queues or the market's answer to an order: none of this is profit."


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated.

    Raises:
        TrainingError: a value is out of range.
    """

    fit: FitSettings = field(default_factory=FitSettings)  # Its seed and horizons play no part.
    targets: str = DEFAULT_TARGETS
    seeds: tuple[int, ...] = (1, 2, 3)
    baselines: tuple[str, ...] = BASELINES

    def __post_init__(self) -> None:
        """Refuse what can't be evaluated."""
        parse_horizons(self.targets, TARGETS_MAX)
        if not 1 <= len(self.seeds) <= SEEDS_MAX or len(set(self.seeds)) < len(self.seeds):
            raise TrainingError(
                f"seeds must be 1 to {SEEDS_MAX} different numbers: seeds={_list(self.seeds)}; write 1,2,3"
            )
        for seed in self.seeds:
            replace(self.fit, seed=seed)
        for name in self.baselines:
            if name not in BASELINES or self.baselines.count(name) > 1:
                raise TrainingError(
                    f"baselines must be different ones of {', '.join(BASELINES)}: baselines={_list(self.baselines)}; "
                    f"write {','.join(BASELINES)}"
                )


def evaluate(recordings: Recordings, settings: EvaluateSettings, on_progress: Progress = silent) -> dict[str, Any]:
    """Return the skill of the model and its baselines on every instrument, as plain JSON; see docs/evaluation.md.

    Args:
        recordings: to evaluate on.
        settings: of the model and of what it is compared with.
        on_progress: told how many rows were walked.

    Raises:
        TrainingError: an instrument is too short, or nothing in it moves.
        TickFileError: a file can no longer be read.
        ModelError: the settings make no reservoir.
        MissingExtraError: scikit-learn is asked for and not installed.
    """
    horizons = parse_horizons(settings.targets, TARGETS_MAX)
    for history in histories(recordings):  # Whatever is wrong is told before the long work.
        for horizon in horizons:
            make_target(history, horizon)
        scales(history)
    reports = []
    for history in histories(recordings):
        targets = tuple(make_target(history, horizon) for horizon in horizons)
        reports.append(_evaluate_one(history, targets, settings, on_progress))
    return {
        "caveat": CAVEAT,
        "protocol": protocol(settings),
        "settings": settings_report(settings),
        "data": [
            {"name": one.name, "sha256": one.sha256, "ticks": one.ticks, "instruments": list(one.instruments)}
            for one in recordings.all
        ],
        "instruments": reports,
    }


def protocol(settings: EvaluateSettings) -> dict[str, Any]:
    """Return how figures come about, for the report."""
    return {
        "text": (
            f"{BLOCKS} blocks of equal rows in time order per instrument; the last {BLOCKS - FIRST_TEST} are tested, "
            "each by readouts of the blocks before it; rows whose label was not known when their block ended train "
            "nothing; the penalty is the best of the past blocks; returns are limited to the 0.5 and 99.5 % quantiles "
            "of the rows before the first tested block; intervals hold 95 % of 2000 draws of a paired moving-block "
            "bootstrap of 60 blocks"
        ),
        "blocks": BLOCKS,
        "first_tested": FIRST_TEST,
        "penalties": list(settings.fit.penalties),
        "linear_penalties": list(settings.fit.linear_penalties),
    }


def settings_report(settings: EvaluateSettings) -> dict[str, Any]:
    """Return the settings that matter, for the report."""
    plain = {name: value for name, value in settings_as_json(settings.fit).items() if name not in ("seed", "horizons")}
    return {
        "targets": settings.targets,
        "seeds": list(settings.seeds),
        "baselines": list(settings.baselines),
        "model": plain,
    }


def _evaluate_one(
    history: History, targets: Sequence[Target], settings: EvaluateSettings, on_progress: Progress
) -> dict[str, Any]:
    features, mean, scale = scales(history)
    fit_settings = replace(settings.fit, horizons=(targets[0].horizon,))
    models = {seed: untrained(replace(fit_settings, seed=seed), features, mean, scale) for seed in settings.seeds}
    plans = list(_plans(models, targets, settings))
    contenders = [Contender("QI", None, imbalance_scores(history, targets))] if "QI" in settings.baselines else []
    done = 0
    weights: dict[str, Any] = {}

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(f"evaluating {history.name}"[:60], done, history.rows * len(plans))

    for name, seed, make in plans:
        design, learner = make()
        scores = walk(history, design, learner, len(targets), on_rows)
        penalties = learner.penalties if isinstance(learner, RidgeLearner) else None
        contenders.append(Contender(name, seed, scores, penalties))
        if name == MODEL and not weights and isinstance(learner, RidgeLearner):
            weights = weight_sizes(models[settings.seeds[0]], targets, learner)
    return {**history_report(history, targets, contenders), "features": list(features), "weights": weights}


def _plans(
    models: dict[int, Model], targets: Sequence[Target], settings: EvaluateSettings
) -> Iterator[tuple[str, int | None, Callable[[], tuple[Design, Learner]]]]:
    """Yield name, seed, and what makes design and learner when their turn comes."""
    first = next(iter(models.values()))
    baselines, penalties = settings.baselines, settings.fit.penalties

    def linear(design: Design) -> tuple[Design, Learner]:
        return design, RidgeLearner(targets, design.columns, penalties)

    def reservoir(model: Model) -> tuple[Design, Learner]:
        design = ModelRows(model)
        shares = settings.fit.linear_penalties
        return design, RidgeLearner(
            targets, design.columns, penalties, shares=shares, share_from=model.units + model.products
        )

    if "c" in baselines:
        yield "c", None, lambda: linear(FeatureRows(first))
    if "d2" in baselines:
        yield "d2", None, lambda: linear(LinearMemoryRows(first))
    if "f" in baselines:
        yield "f", None, lambda: linear(RandomUnitRows(first))
    for seed, model in models.items():
        if "W0" in baselines:
            yield "W0", seed, partial(reservoir, without_recurrence(model))
        yield MODEL, seed, partial(reservoir, model)
    if "GB" in baselines:
        yield "GB", None, lambda: (LinearMemoryRows(first), BoostingLearner(targets))


def imbalance_scores(history: History, targets: Sequence[Target]) -> Float64s:
    """Return the queue imbalance as the score of each direction, shape (targets, rows); NaN of a return."""
    imbalance = np.concatenate([queue_imbalance(ticks) for ticks in history.segments])
    return np.stack([imbalance if one.is_direction else np.full(history.rows, np.nan) for one in targets])


def _list(values: Sequence[object]) -> str:
    return ",".join(str(one) for one in values)
