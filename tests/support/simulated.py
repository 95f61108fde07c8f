"""Simulated markets and models trained on them, made once per test run."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.model import Model
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import Market, simulate
from penstock_tuning.model.fit import fit
from penstock_tuning.model.recordings import market_recording
from penstock_tuning.model.settings import FitSettings

SMALL = FitSettings(units=64, fan_in=4, name="small")


@cache
def market(seed: int = 1, seconds: float = 60.0, signal: float = 1.0) -> Market:
    """Return a market; nobody may write into its ticks."""
    made = simulate(MarketSettings(seed=seed, signal=signal), seconds)
    made.ticks.setflags(write=False)
    return made


@cache
def small_model() -> Model:
    """Return a model of 64 units trained on ``market()``."""
    return fit(market_recording(market(), "market 1"), SMALL)


def of_instrument(ticks: NDArray[np.void], instrument_id: int) -> NDArray[np.void]:
    """Return the ticks of one instrument, in order."""
    return ticks[ticks["instrument_id"] == instrument_id]


def pairwise_auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive scores above a negative, ties counting half, by ranks."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.bincount(inverse, weights=ranks) / counts
    ups, downs = int(positive.sum()), int((~positive).sum())
    return float((mean_rank[inverse][positive].sum() - ups * (ups + 1) / 2) / (ups * downs))
