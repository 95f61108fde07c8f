"""A model trained on a small market: the same bytes again, better than chance on what came later, calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock_client.instruments import Instrument
from penstock_kernels.drive import run_predictions
from penstock_kernels.model import HorizonKind
from penstock_kernels.model_file import default_model, model_from_bytes, model_to_bytes
from penstock_kernels.predictor import pack
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import Market, simulate
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.fit import fit
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.rebuild import REBUILD_TICKS_MAX, STEP, measured_agreement, rebuild_ticks_of
from penstock_tuning.model.recordings import market_recording
from penstock_tuning.model.settings import FitSettings
from penstock_tuning.model.targets import make_targets
from support.simulated import SMALL, market, of_instrument, pairwise_auc, small_model
from support.tick_arrays import quotes


def of_ticks(ticks: np.ndarray) -> Market:
    return Market(MarketSettings(), [Instrument(1, "ONE", "TEST")], ticks)


def test_same_ticks_and_settings_give_the_same_bytes() -> None:
    again = fit(market_recording(market(), "market 1"), SMALL)
    assert model_to_bytes(again) == model_to_bytes(small_model())


def test_other_seed_or_other_ticks_give_another_model() -> None:
    first = model_to_bytes(small_model())
    assert model_to_bytes(fit(market_recording(market(), "market 1"), replace(SMALL, seed=2))) != first
    assert model_to_bytes(fit(market_recording(market(2), "market 1"), SMALL)) != first


def test_trained_model_survives_its_file() -> None:
    data = model_to_bytes(small_model())
    assert model_to_bytes(model_from_bytes(data)) == data


def test_model_beats_chance_on_rows_that_it_never_saw() -> None:
    skill = small_model().training["skill"]
    for name in ("next", "100ms", "50ev"):
        assert skill[name]["direction_auc"]["model"] > 0.6
        assert skill[name]["direction_auc"]["queue_imbalance"] > 0.55
    assert skill["100ms"]["return_r2"]["model"] > 0.02
    assert skill["100ms"]["moved_auc"] > 0.6
    assert skill["next"]["moved_auc"] is None


def test_served_forecasts_foretell_another_market_with_calibrated_probabilities() -> None:
    model = small_model()
    for index, horizon in enumerate(model.horizons):
        parts = []
        for instrument in (1, 2):
            ticks = np.ascontiguousarray(of_instrument(market(2, 200.0).ticks, instrument))
            targets = make_targets(ticks, horizon)
            rows = targets.known & (np.arange(len(ticks)) >= model.rebuild_ticks)
            forecasts = run_predictions(pack(model), ticks)[rows, index].astype(float)
            parts.append(np.column_stack([forecasts, targets.direction[rows], targets.returns[rows]]))
        expected, deviation, up, down, direction, returns = np.concatenate(parts).T
        moved = direction != 0
        assert pairwise_auc((up - down)[moved], direction[moved] > 0) > 0.63
        # Of the moves that were given 60 to 70 % to go up, about as many did.
        likely = moved & (up > 0.6 * (up + down)) & (up < 0.7 * (up + down))
        assert (direction[likely] > 0).mean() == pytest.approx(0.65, abs=0.1)
        if horizon.kind == HorizonKind.NEXT_MOVE:
            np.testing.assert_allclose(up + down, 1.0, atol=1e-6)
        else:
            assert (up + down).mean() == pytest.approx(moved.mean(), abs=0.05)
        assert ((returns - expected) ** 2).sum() < (returns**2).sum()
        assert deviation[0] == pytest.approx(np.sqrt(((returns - expected) ** 2).mean()), rel=0.2)


def test_market_without_signal_is_not_foretold() -> None:
    free = simulate(MarketSettings(seed=5, signal=0.0), 600.0)
    skill = fit(market_recording(free, "free"), SMALL).training["skill"]
    assert abs(skill["next"]["direction_auc"]["model"] - 0.5) < 0.05
    assert skill["next"]["return_r2"]["model"] < 0.01


def test_rows_are_foretold_only_by_readouts_of_earlier_rows() -> None:
    """A reservoir far too large for its rows learns them by heart; that must show in no figure and no curve."""
    free = simulate(MarketSettings(seed=5, signal=0.0, instruments=1), 30.0)
    settings = replace(SMALL, units=512, penalties=(1e-9,), horizons=parse_horizons("next,20ev"))
    model = fit(market_recording(free, "free"), settings)
    for index, name in enumerate(("next", "20ev")):
        assert abs(model.training["skill"][name]["direction_auc"]["model"] - 0.5) < 0.15
        assert model.training["skill"][name]["return_r2"]["model"] < 0.0
        assert model.calibration[index].direction_slope < 0.3  # Above 3 for rows learnt by heart.


def test_report_says_what_was_trained_on_and_how() -> None:
    training = small_model().training
    (data,) = training["data"]
    assert data["name"] == "market 1"
    assert data["ticks"] == len(market().ticks)
    assert len(data["sha256"]) == 64
    assert data["instruments"] == ["PENSTOCK.SIM:SIMA", "PENSTOCK.SIM:SIMB"]
    assert "profit" in training["caveat"]
    assert "never shuffled" in training["protocol"]["text"]
    boundaries = training["protocol"]["boundaries_ns"]
    assert [data["first_ns"], *boundaries, data["last_ns"]] == sorted({data["first_ns"], *boundaries, data["last_ns"]})
    rows = training["rows_by_block"]
    assert len(rows) == len(boundaries) + 1 == 10
    assert max(rows) < 2 * min(rows)
    assert set(training["skill"]["next"]["direction_auc_by_instrument"]) == set(data["instruments"])


def test_later_ticks_leave_the_scale_of_the_features_alone() -> None:
    ticks = market().ticks.copy()
    late = ticks["ts_recv"] > np.quantile(ticks["ts_recv"], 0.85)
    ticks["bid_sz"][late] *= 1000
    changed = fit(market_recording(replace(market(), ticks=ticks), "market 1"), SMALL)
    assert changed.feature_scale.tobytes() == small_model().feature_scale.tobytes()
    assert changed.training["data"] != small_model().training["data"]


def test_features_that_never_vary_are_left_out() -> None:
    ticks = market().ticks.copy()
    ticks["bid_sz"] = ticks["ask_sz"] = ticks["size"] = 0
    model = fit(market_recording(replace(market(), ticks=ticks), "no sizes"), SMALL)
    assert "imbalance" not in model.features
    assert "depth_log" not in model.features
    assert "last_move" in model.features
    assert model.training["skill"]["next"]["direction_auc"]["queue_imbalance"] == 0.5


def test_four_horizons_of_every_kind_can_be_trained() -> None:
    settings = replace(SMALL, horizons=parse_horizons("next,next_1ms,1s,200ev"))
    model = fit(market_recording(market(), "market 1"), settings)
    assert [one.name for one in model.horizons] == ["next", "next_1ms", "1s", "200ev"]
    assert model.readout.shape == (12, model.columns)


def test_too_few_ticks_are_refused_with_what_is_missing() -> None:
    with pytest.raises(TrainingError, match=r"too few ticks .* blocks of time: rows=\d+, needed=500, ticks=900"):
        fit(market_recording(of_ticks(quotes(900)), "short"), replace(SMALL, horizons=parse_horizons("5ev")))


def test_mid_that_never_moves_is_refused() -> None:
    ticks = quotes(5_000)
    ticks["bid_px"], ticks["ask_px"] = 10**12, 10**12 + 10**7
    with pytest.raises(TrainingError, match="the mid never moves"):
        fit(market_recording(of_ticks(ticks), "flat"), SMALL)
    with pytest.raises(TrainingError, match="never moves up within horizon '50ev'"):
        fit(market_recording(of_ticks(ticks), "flat"), replace(SMALL, horizons=parse_horizons("50ev")))


def test_horizon_longer_than_the_recording_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"leave out the longest horizon|shorter horizons"):
        fit(market_recording(market(), "short"), replace(SMALL, horizons=parse_horizons("next,10min")))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units": 8}, "units must be 16 to 8192: units=8"),
        ({"fan_in": 64}, "fan-in must be 1 to units - 1, at most 64: fan-in=64, units=64"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"fan_in": 0}, "fan-in must be 1 to units - 1, at most 64: fan-in=0, units=64"),
        ({"units": 256, "fan_in": 65}, "at most 64: fan-in=65"),
        ({"spectral_radius": -0.1}, "spectral radius must be above 0 and at most 2: spectral-radius=-0.1"),
        ({"spectral_radius": 0.0}, "--no-recurrence gives the baseline W0"),
        ({"spectral_radius": float("nan")}, "spectral-radius=nan"),
        ({"topology": "ring"}, "topology must be one of cyclic, sparse, dense: topology='ring'"),
        ({"leak": 0.0}, "leak must be above 0 and at most 1: leak=0.0"),
        ({"leak": 1.01}, "leak must be above 0 and at most 1: leak=1.01"),
        ({"leak": 0.3, "time_base": "seconds"}, "leak is counted per event: leak=0.3, time-base=seconds"),
        ({"time_base": "hours"}, "time base must be one of events, seconds: time-base='hours'"),
        ({"time_constant_events_min": 5.0, "time_constant_events_max": 2.0}, "time-constants=5,2"),
        ({"input_scale": 0.0}, "input-scale=0.0"),
        ({"bias_scale": -1.0}, "bias-scale=-1.0"),
        ({"memory_averages": (10.0, 2.0)}, "memory-averages=10,2"),
        ({"memory_averages": (0.5,)}, "of at least 1 event that grow: memory-averages=0.5"),
        ({"memory_lags": -1}, "memory lags must be 0 to"),
        ({"penalties": (0.1, -1.0)}, "penalty must not be negative: penalty=0.1,-1"),
        ({"penalties": ()}, "penalty must be 1 to 32 numbers"),
        ({"linear_penalties": (-0.5,)}, "linear penalty must not be negative: linear-penalty=-0.5"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"horizons": ()}, "horizons must be 1 to 4"),
        (
            {"horizons": tuple(reversed(parse_horizons("100ms,1s")))},
            "horizons of one kind must grow: horizons='1s,100ms'",
        ),
    ],
)
def test_impossible_settings_are_refused_by_name(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(TrainingError) as caught:
        FitSettings(**{"units": 64, **changes})
    assert sentence in str(caught.value)


def test_rebuild_ticks_are_those_that_restore_the_state() -> None:
    model, ticks = small_model(), of_instrument(market().ticks, 1)
    rebuild = model.training["rebuild"]
    assert model.rebuild_ticks == min(REBUILD_TICKS_MAX, -(-rebuild["ticks_needed"] // STEP) * STEP)
    assert rebuild["ticks_needed"] > 300
    assert rebuild["probability_difference"] < 1e-3
    hasty = replace(model, rebuild_ticks=8)
    assert measured_agreement(hasty, ticks) > 10 * measured_agreement(model, ticks)


def test_rebuild_ticks_are_capped_where_memory_is_long_or_ticks_are_few() -> None:
    streams = market_recording(market(), "market 1").first_streams()
    lasting = replace(small_model(), leak=np.full(64, 1e-4))
    assert rebuild_ticks_of(lasting, streams) == (REBUILD_TICKS_MAX, None)
    short = [replace(one, ticks=one.ticks[:5]) for one in streams]
    assert rebuild_ticks_of(small_model(), short) == (REBUILD_TICKS_MAX, None)
    assert measured_agreement(small_model(), short[0].ticks) is None


def test_default_model_is_a_demonstration_of_todays_simulator() -> None:
    loaded = default_model()
    model = loaded.model
    assert model.demonstration
    assert "never trade on it" in model.notice
    assert (model.units, model.fan_in, model.seed, model.name) == (1024, 8, 1, "default")
    assert [one.name for one in model.horizons] == ["next", "100ms", "50ev"]
    assert model.training["skill"]["next"]["direction_auc"]["model"] > 0.7
