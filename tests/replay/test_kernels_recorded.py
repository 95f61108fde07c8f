"""Features on the recorded markets: those of the reference, with the flags that the files are known for."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1.records import UNDEFINED_TIME, PredictionFlag
from penstock_client.files import open_ticks
from penstock_kernels import reference
from penstock_kernels.drive import run_predictions, run_raw_features
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.predictor import pack
from support.models import random_model

BINANCE_USDM = "binance_usdm_20240808.mbp-1.dbn.zst"
BINANCE_SPOT = "binance_spot_btcusdt_20240808.mbp-1.dbn.zst"
EURUSD = "fxcm_eurusd_20140508.mbp-1.dbn.zst"

pytestmark = pytest.mark.recorded


def ticks_of(recorded_file, name, instrument_id):
    ticks = open_ticks(recorded_file(name)).ticks
    return ticks[ticks["instrument_id"] == instrument_id]


def auc(score, positive):
    """Return the area under the curve, ties counted half."""
    values, inverse = np.unique(score, return_inverse=True)
    ups = np.bincount(inverse, weights=positive, minlength=len(values))
    downs = np.bincount(inverse, weights=~positive, minlength=len(values))
    return float((ups * (np.cumsum(downs) - downs / 2)).sum() / (ups.sum() * downs.sum()))


@pytest.mark.parametrize(
    ("name", "instrument_id"), [(BINANCE_USDM, 1), (BINANCE_USDM, 2), (BINANCE_SPOT, 1), (EURUSD, 1)]
)
def test_features_of_recorded_ticks_are_those_of_the_reference(recorded_file, name, instrument_id):
    ticks = ticks_of(recorded_file, name, instrument_id)
    features = run_raw_features(ticks)
    assert np.all(np.isfinite(features))
    assert np.max(np.abs(features[:4_000] - reference.raw_features(ticks[:4_000]))) < 1e-9


@pytest.mark.parametrize(("instrument_id", "expected"), [(1, 0.75), (2, 0.77)])
def test_queue_imbalance_tells_the_next_move_as_well_as_published(recorded_file, instrument_id, expected):
    ticks = ticks_of(recorded_file, BINANCE_USDM, instrument_id)
    imbalance = run_raw_features(ticks)[:, FEATURE_NAMES.index("imbalance")]
    moves = np.append(np.diff(ticks["bid_px"] + ticks["ask_px"]), 0)
    places = np.flatnonzero(moves)
    following = np.searchsorted(places, np.arange(len(ticks)))
    known = following < len(places)
    rises = moves[places[following[known]]] > 0
    assert auc(imbalance[known], rises) == pytest.approx(expected, abs=0.01)


def test_every_crossed_row_of_the_currency_file_has_its_flag(recorded_file):
    ticks = ticks_of(recorded_file, EURUSD, 1)
    flags = np.zeros(len(ticks), dtype=np.int64)
    forecasts = run_predictions(pack(random_model(1, units=16, fan_in=2)), ticks, flags=flags)
    assert np.all(np.isfinite(forecasts))
    assert np.count_nonzero(ticks["bid_px"] > ticks["ask_px"]) == 18_285
    assert np.array_equal(flags & PredictionFlag.BOOK_CROSSED != 0, ticks["bid_px"] >= ticks["ask_px"])
    assert np.count_nonzero(flags & ~int(PredictionFlag.BOOK_CROSSED)) == 0


def test_undefined_event_times_change_no_feature(recorded_file):
    ticks = ticks_of(recorded_file, BINANCE_SPOT, 1)
    assert np.any(ticks["ts_event"] == UNDEFINED_TIME)
    dated = ticks.copy()
    dated["ts_event"] = ticks["ts_recv"]
    assert np.array_equal(run_raw_features(dated), run_raw_features(ticks))
