"""How right the predictions of a replay were, beside the unfitted baseline: what a trader asks after the latency.

    outcome   +1 or -1: the direction of the first change of the mid after a tick, of the same instrument
    score     probability up - probability down                      baseline   (bid_sz - ask_sz) / (bid_sz + ask_sz)
    AUC       the chance that a tick before a rise has a higher score than one before a fall; 0.5 is a coin

Ticks after which the mid never moves in the replay, without a prediction, or predicted while warming count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PROBABILITY_ONE, UNDEFINED_PRICE, PredictionFlag
from penstock_client.replay import ReplayRun

BINS: Final = 10
SCORED_MIN: Final = 50  # Fewer say nothing.


@dataclass(frozen=True)
class Skill:
    """Of the next move, over one replay.

    Attributes:
        horizon: the horizon's name.
        scored: how many ticks count.
        auc: of the model.
        baseline_auc: of queue imbalance on the same ticks.
        said_up: shape (bins,), mean probability of "up, given a move" that was said.
        was_up: shape (bins,), share of them that went up.
        counts: shape (bins,).
    """

    horizon: str
    scored: int
    auc: float
    baseline_auc: float
    said_up: NDArray[np.float64]
    was_up: NDArray[np.float64]
    counts: NDArray[np.int64]


def mids(ticks: NDArray[np.void]) -> NDArray[np.float64]:
    """Return the mid after each tick of one instrument, shape (ticks,): the last known one, NaN before the first."""
    defined = (ticks["bid_px"] != UNDEFINED_PRICE) & (ticks["ask_px"] != UNDEFINED_PRICE)
    known = np.maximum.accumulate(np.where(defined, np.arange(len(ticks)), -1))
    mid = (ticks["bid_px"] / 2e9) + (ticks["ask_px"] / 2e9)
    return np.where(known >= 0, mid[known], np.nan)


def next_moves(mid: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return the direction of the first change of *mid* after each tick, shape (ticks,): +1, -1, or 0 for none."""
    moves = np.zeros(len(mid), dtype=np.int8)
    if len(mid) < 2:
        return moves
    change = np.nan_to_num(np.sign(np.diff(mid))).astype(np.int8)
    at = np.flatnonzero(change)
    following = np.searchsorted(at, np.arange(len(mid)))
    found = following < len(at)
    moves[found] = change[at[following[found]]]
    return moves


def area_under_curve(score: NDArray[np.float64], rose: NDArray[np.bool_]) -> float:
    """Return the AUC of *score* for *rose*, ties counting half; NaN where one of the two never happened."""
    positives = int(np.count_nonzero(rose))
    negatives = len(rose) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((mean_rank[inverse][rose].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def measure_skill(run: ReplayRun) -> Skill | None:
    """Return the skill of the horizon that predicts the next move; None without one, or with too few ticks."""
    positions = [index for index, one in enumerate(run.welcome.horizons) if one.kind == pb.Horizon.KIND_NEXT_MOVE]
    if not positions:
        return None
    ticks, predictions = run.plan.ticks[: run.sent], run.predictions[: run.sent]
    usable = run.predicted[: run.sent] & ((predictions["flags"] & PredictionFlag.WARMING) == 0)
    moves = np.zeros(run.sent, dtype=np.int8)
    for one in run.plan.instruments:
        (of_it,) = np.nonzero(ticks["instrument_id"] == one.instrument_id)
        moves[of_it] = next_moves(mids(ticks[of_it]))
    forecast = predictions["forecasts"][:, positions[0]]
    up, down = forecast["probability_up"] / PROBABILITY_ONE, forecast["probability_down"] / PROBABILITY_ONE
    (scored,) = np.nonzero(usable & (moves != 0) & (up + down > 0))
    if len(scored) < SCORED_MIN:
        return None
    rose = moves[scored] > 0
    up, down = up[scored], down[scored]
    bid, ask = ticks["bid_sz"][scored].astype(np.float64), ticks["ask_sz"][scored].astype(np.float64)
    given_move = up / (up + down)
    which = np.minimum((given_move * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    with np.errstate(invalid="ignore"):
        said = np.bincount(which, given_move, BINS) / counts
        was = np.bincount(which, rose, BINS) / counts
    return Skill(
        horizon=run.welcome.horizons[positions[0]].name,
        scored=len(scored),
        auc=area_under_curve(up - down, rose),
        baseline_auc=area_under_curve((bid - ask) / np.maximum(bid + ask, 1), rose),
        said_up=said,
        was_up=was,
        counts=counts,
    )
