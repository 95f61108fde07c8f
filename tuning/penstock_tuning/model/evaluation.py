"""What walked scores are worth: skill, differences with intervals, and how they change with time and with bursts.

    direction   AUC, and log-loss of a probability calibrated on earlier blocks alone     of rows whose mid moves
    return      R2 against a forecast of no change, on returns within the target's limits

A contender with several seeds counts with the mean of its seeds' figures; each seed's own stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_tuning.model.bootstrap import (
    BOOTSTRAP_BLOCKS,
    Draws,
    Explained,
    Ranked,
    Sums,
    area,
    explained,
    interval,
    make_draws,
)
from penstock_tuning.model.calibrate import fit_slope
from penstock_tuning.model.history import History, Target
from penstock_tuning.model.scores import Ranking
from penstock_tuning.model.settings import BLOCKS, FIRST_FOLD, FIRST_TEST

MODEL: Final = "model"
BURST_WINDOWS_MS: Final = (10, 100)
BURST_GROUPS: Final = 5
CALIBRATION_BINS: Final = 10
_LOSS_FLOOR: Final = 1e-15


@dataclass(frozen=True, eq=False)
class Contender:
    """One walk.

    Attributes:
        name: MODEL or one of BASELINES.
        seed: of its weights; None where it has none.
        scores: shape (targets, rows); NaN where it has none.
        penalties: shape (blocks, targets, 2); None where it has none.
        probabilities: of up, given a move, where it says them itself, shape (targets, rows); else they are calibrated.
    """

    name: str
    seed: int | None
    scores: Float64s
    penalties: Float64s | None = None
    probabilities: Float64s | None = None


@dataclass(frozen=True, eq=False)
class _Run:
    """A contender on one target: its tested scores, summed up, and its score in every draw."""

    seed: int | None
    score: Float64s  # Shape (tested,).
    sums: Sums
    draws: Float64s
    probability: Float64s | None  # Of up, shape (tested,); None of a return.


def history_report(history: History, targets: Sequence[Target], contenders: Sequence[Contender]) -> dict[str, Any]:
    """Return what one instrument's walks are worth, as plain JSON."""
    report: dict[str, Any] = {
        "name": history.name,
        "recordings": [one.name for one in history.recordings],
        "ticks": history.rows,
        "seconds": round(float(history.stamp[-1] - history.stamp[0]) / 1e9, 3),
        "targets": {},
    }
    for index, target in enumerate(targets):
        report["targets"][target.horizon.name] = _target_report(history, target, index, contenders)
    return report


def _target_report(history: History, target: Target, index: int, contenders: Sequence[Contender]) -> dict[str, Any]:
    draws = make_draws(len(target.tested))
    runs: dict[str, list[_Run]] = {}
    penalties: dict[str, dict[str, Any]] = {}
    for one in contenders:
        if np.isnan(one.scores[index, target.tested]).any():
            continue
        runs.setdefault(one.name, []).append(_run(history, target, draws, one, index))
        if one.penalties is not None:
            chosen = one.penalties[FIRST_TEST:, index].tolist()
            penalties.setdefault(one.name, {})[_seed_name(one.seed)] = chosen
    outcome = target.outcome[target.tested]
    report: dict[str, Any] = {
        "metric": "auc" if target.is_direction else "r2",
        "rows": len(target.tested),
        "up_share": _figure(float((outcome > 0).mean())),
        "limits": None if target.limits is None else [_figure(target.limits.low), _figure(target.limits.high)],
        "skill": {name: _skill(target, several) for name, several in runs.items()},
        "penalties": penalties,
    }
    if MODEL in runs:
        report["differences"] = {
            name: _difference(runs[MODEL], several) for name, several in runs.items() if name != MODEL
        }
        report["calibration"] = _calibration(target, runs[MODEL][0])
    report["blocks"] = _by_block(history, target, runs)
    report["course"] = _course(draws, runs)
    report["bursts"] = {f"{window}ms": _by_burst(history, target, runs, window) for window in BURST_WINDOWS_MS}
    return report


def _run(history: History, target: Target, draws: Draws, one: Contender, index: int) -> _Run:
    score, outcome = one.scores[index, target.tested], target.outcome[target.tested]
    sums: Sums
    if target.is_direction:
        sums = Ranked(outcome > 0.0, score, draws.edges)
        own = one.probabilities
        said = calibrated(history, target, one.scores[index]) if own is None else own[index]
        probability = said[target.tested]
    else:
        sums, probability = Explained(outcome, score, draws.edges), None
    return _Run(one.seed, score, sums, sums.values(draws.counts), probability)


def calibrated(history: History, target: Target, scores: Float64s) -> Float64s:
    """Return the probability of up that *scores* stand for, shape (rows,); NaN before the first tested block.

    A block's slope is fitted to the scores of the blocks before it, of rows whose label was known by then.
    """
    found = np.full(history.rows, np.nan)
    past = Ranking()
    for number in range(FIRST_FOLD, BLOCKS):
        rows = history.block(number)
        if number >= FIRST_TEST:
            slope = fit_slope(past.negatives, past.positives)
            found[rows] = 1.0 / (1.0 + np.exp(-np.clip(slope * scores[rows], -60.0, 60.0)))
        kept = target.trains[rows]
        past.add(scores[rows][kept], target.outcome[rows][kept] > 0.0)
    return found


def _skill(target: Target, several: Sequence[_Run]) -> dict[str, Any]:
    values = [one.sums.value for one in several]
    skill: dict[str, Any] = {
        "value": _figure(float(np.mean(values))),
        "interval": _interval(np.mean([one.draws for one in several], axis=0)),
    }
    if several[0].seed is not None:
        skill["seeds"] = {_seed_name(one.seed): _figure(one.sums.value) for one in several}
        skill["spread"] = _figure(max(values) - min(values))
    if target.is_direction:
        skill["log_loss"] = _figure(float(np.mean([_log_loss(target, one) for one in several])))
    return skill


def _log_loss(target: Target, run: _Run) -> float:
    assert run.probability is not None, "a direction has a probability"
    up = target.outcome[target.tested] > 0.0
    given = np.where(up, run.probability, 1.0 - run.probability)
    return float(-np.log(np.maximum(given, _LOSS_FLOOR)).mean())


def _difference(model: Sequence[_Run], other: Sequence[_Run]) -> dict[str, Any]:
    """Return model minus other, each seed by the same seed of a baseline that has one."""
    by_seed = {one.seed: one for one in other}
    pairs = [(one, by_seed.get(one.seed, other[0])) for one in model]
    values = [one.sums.value - against.sums.value for one, against in pairs]
    draws = [one.draws - against.draws for one, against in pairs]
    return {
        "value": _figure(float(np.mean(values))),
        "interval": _interval(np.mean(draws, axis=0)),
        "seeds": {
            _seed_name(one.seed): {"value": _figure(value), "interval": _interval(drawn)}
            for (one, _), value, drawn in zip(pairs, values, draws, strict=True)
        },
    }


def _calibration(target: Target, run: _Run) -> list[dict[str, Any]]:
    """Return, bin by bin, what was said and what came: the probability of up, or the return as a fraction."""
    outcome = target.outcome[target.tested]
    if run.probability is not None:
        said, came, unit = run.probability, (outcome > 0.0).astype(np.float64), 1.0
        which = np.minimum((said * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    else:
        assert target.limits is not None, "a return has limits"
        said, came, unit = run.score, outcome, target.limits.scale
        borders = np.quantile(said, np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)[1:-1])
        which = np.searchsorted(borders, said, side="right")
    return [
        {
            "said": _figure(float(said[which == one].mean()) * unit),
            "came": _figure(float(came[which == one].mean()) * unit),
            "rows": int((which == one).sum()),
        }
        for one in np.unique(which)
    ]


def _by_block(history: History, target: Target, runs: dict[str, list[_Run]]) -> list[dict[str, Any]]:
    cuts = np.searchsorted(target.tested, history.edges[FIRST_TEST:])
    return [
        {
            "block": FIRST_TEST + number,
            "seconds": round(float(history.stamp[history.edges[FIRST_TEST + number]] - history.stamp[0]) / 1e9, 3),
            "rows": int(end - start),
            **_values_of(target, runs, np.arange(start, end)),
        }
        for number, (start, end) in enumerate(pairwise(cuts))
    ]


def _course(draws: Draws, runs: dict[str, list[_Run]]) -> dict[str, Any]:
    """Return the skill over all tested rows so far, at the end of each of BOOTSTRAP_BLOCKS equal stretches."""
    parts = len(draws.edges) - 1
    so_far = np.tri(parts)[parts // BOOTSTRAP_BLOCKS - 1 :: parts // BOOTSTRAP_BLOCKS]
    return {
        name: [_figure(float(value)) for value in np.mean([one.sums.values(so_far) for one in several], axis=0)]
        for name, several in runs.items()
    }


def _by_burst(history: History, target: Target, runs: dict[str, list[_Run]], window_ms: int) -> list[dict[str, Any]]:
    """Return the skill by groups of about equal size, from the calmest rows to those in the densest bursts."""
    rate = burst_rates(history.stamp, window_ms * 1_000_000)[target.tested]
    borders = np.unique(np.quantile(rate, np.linspace(0.0, 1.0, BURST_GROUPS + 1)[1:-1]))
    which = np.searchsorted(borders, rate, side="left")
    groups = []
    for one in np.unique(which):
        rows = np.flatnonzero(which == one)
        limits = {"ticks_min": int(rate[rows].min()), "ticks_max": int(rate[rows].max()), "rows": len(rows)}
        groups.append({**limits, **_values_of(target, runs, rows)})
    return groups


def burst_rates(stamp: NDArray[np.int64], window_ns: int) -> NDArray[np.int64]:
    """Return how many ticks came in the *window_ns* that end with each tick, itself among them, shape (rows,)."""
    return np.arange(1, len(stamp) + 1) - np.searchsorted(stamp, stamp - window_ns, side="right")


def _values_of(target: Target, runs: dict[str, list[_Run]], rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return each contender's exact skill on some of the tested rows."""
    outcome = target.outcome[target.tested[rows]]
    found: dict[str, Any] = {}
    for name, several in runs.items():
        scores = [one.score[rows] for one in several]
        values = [area(one, outcome > 0.0) if target.is_direction else explained(outcome, one) for one in scores]
        found[name] = _figure(float(np.mean(values)))
    return {"skill": found}


def _seed_name(seed: int | None) -> str:
    return "" if seed is None else str(seed)


def _interval(values: Float64s) -> list[float | None]:
    low, high = interval(values)
    return [_figure(low), _figure(high)]


def _figure(value: float) -> float | None:
    """Return *value* to six digits, None for NaN: JSON has none."""
    return None if not np.isfinite(value) else float(f"{value:.6g}")
