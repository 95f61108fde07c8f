"""The prequential protocol: no row of the future, purging, penalties of the past, intervals that cover, hand-made baselines."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from penstock_client.instruments import Instrument
from penstock_kernels.drive import run_features
from penstock_kernels.model import Model
from penstock_kernels.predictor import pack
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import Market, simulate
from penstock_tuning.model.baselines import (
    AVERAGES_EVENTS,
    LAGS,
    RANDOM_UNITS,
    BoostingLearner,
    FeatureRows,
    LinearMemoryRows,
    ModelRows,
    RandomUnitRows,
    without_recurrence,
)
from penstock_tuning.model.bootstrap import Explained, Ranked, area, interval, make_draws
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.evaluate import EvaluateSettings, evaluate
from penstock_tuning.model.evaluation import burst_rates, calibrated
from penstock_tuning.model.evaluation_weights import column_groups, feature_columns
from penstock_tuning.model.fit import untrained
from penstock_tuning.model.history import History, Target, histories, make_target, scales
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.prequential import RidgeLearner, walk
from penstock_tuning.model.recordings import Recordings, market_recording
from penstock_tuning.model.settings import BLOCKS, FIRST_FOLD, FIRST_TEST, FitSettings
from penstock_tuning.model.targets import NEVER_NS, make_targets
from support.simulated import of_instrument, pairwise_auc

SMALL = FitSettings(units=24, fan_in=3, memory_averages=(3.0,), memory_lags=1)
NEXT, LATER = parse_horizons("next,100ms")


@cache
def ticks():
    found = np.ascontiguousarray(of_instrument(simulate(MarketSettings(seed=3, instruments=1), 15.0).ticks, 1))
    found.setflags(write=False)
    return found


def on_rows(_rows: int) -> None:
    """Tell nobody."""


def history_of(*parts) -> History:
    """Return the history of recordings of one instrument that follow each other."""
    recordings = [market_recording(Market(MarketSettings(), [Instrument(1, "ONE", "TEST")], one), "m") for one in parts]
    (found,) = histories(Recordings([one._sources[0] for one in recordings]))
    return found


def model_of(history: History, seed: int = 1) -> Model:
    return untrained(FitSettings(**{**vars(SMALL), "seed": seed}), *scales(history))


def test_pieces_are_all_rows_in_order_cut_at_blocks_and_recordings() -> None:
    history = history_of(ticks()[:2_500], ticks()[2_500:6_000])
    pieces = list(history.pieces())
    assert [row for one in pieces for row in range(6_000)[one.rows]] == list(range(6_000))
    for one in pieces:
        np.testing.assert_array_equal(history.segments[one.segment][one.ticks], ticks()[one.rows])
        assert history.edges[one.block] <= one.rows.start < one.rows.stop <= history.edges[one.block + 1]
    assert [one.rows.start for one in pieces if one.opens_segment] == [0, 2_500]
    assert [one.rows.start for one in pieces if one.opens_block] == list(history.edges[:-1])


def test_rows_after_the_start_of_each_recording_are_in_no_figure() -> None:
    target = make_target(history_of(ticks()[:2_500], ticks()[2_500:6_000]), LATER)
    for start in (0, 2_500):
        assert not target.labelled[start : start + 256].any()
        assert target.labelled[start + 256 : start + 300].all()


def test_recordings_that_overlap_are_not_laid_end_to_end() -> None:
    recordings = [
        market_recording(Market(MarketSettings(), [Instrument(1, "ONE", "TEST")], one), name)._sources[0]
        for one, name in ((ticks()[:4_000], "a"), (ticks()[1_000:], "b"))
    ]
    assert [one.name for one in histories(Recordings(recordings))] == ["TEST:ONE of a", "TEST:ONE of b"]


def test_files_that_overlap_only_in_other_instruments_are_laid_end_to_end() -> None:
    """The first file has the later ticks of ONE, beside ticks of TWO from before and after."""
    other = ticks()[[0, -1]].copy()
    other["instrument_id"] = 2
    instruments = [Instrument(1, "ONE", "TEST"), Instrument(2, "TWO", "TEST")]
    made = np.concatenate([other[:1], ticks()[4_000:], other[1:]])
    sources = [
        market_recording(Market(MarketSettings(), named, one), name)._sources[0]
        for one, name, named in ((made, "a", instruments), (ticks()[:4_000], "b", instruments[:1]))
    ]
    kept = [replace(one, recording=replace(one.recording, instruments=("TEST:ONE",))) for one in sources]
    (found,) = histories(Recordings(kept))
    assert [one.name for one in found.recordings] == ["b", "a"]
    np.testing.assert_array_equal(np.concatenate(found.segments), ticks())


@pytest.mark.parametrize("horizon", [NEXT, LATER])
def test_rows_train_only_if_their_label_was_known_when_their_block_ended(horizon) -> None:
    history = history_of(ticks())
    target = make_target(history, horizon)
    labels = make_targets(ticks(), horizon)
    purged = 0
    for number in range(BLOCKS):
        rows = history.block(number)
        ends_ns = history.stamp[rows.stop] if rows.stop < history.rows else NEVER_NS
        for row in range(rows.start, rows.stop):
            expected = row >= 256 and labels.known_ns[row] < ends_ns
            assert target.trains[row] == expected
            purged += bool(labels.known[row]) and not expected and row >= 256
    assert purged > BLOCKS, "some labels reach into the next block"
    np.testing.assert_array_equal(
        target.tested, [row for row in range(history.edges[FIRST_TEST], history.rows) if labels.known[row]]
    )


def test_returns_are_limited_by_rows_before_the_first_tested_block() -> None:
    history = history_of(ticks())
    target = make_target(history, LATER)
    early = slice(0, int(history.edges[FIRST_TEST]))
    returns = make_targets(ticks(), LATER).returns
    low, high = np.quantile(returns[early][target.trains[early]], (0.005, 0.995))
    assert target.limits is not None
    assert (target.limits.low, target.limits.high) == (low, high)
    expected = np.clip(returns, low, high) / max(-low, high)
    np.testing.assert_allclose(target.outcome[target.tested], expected[target.tested])


@pytest.mark.parametrize("make", [FeatureRows, LinearMemoryRows, RandomUnitRows, ModelRows])
def test_another_future_gives_the_same_past(make) -> None:
    first = history_of(ticks())
    cut = int(first.edges[6])
    changed = ticks().copy()
    for side in ("bid", "ask"):  # Later prices are mirrored, sizes swapped.
        changed[f"{side}_px"][cut:] = 2 * changed[f"{side}_px"][cut] - changed[f"{side}_px"][cut:]
        changed[f"{side}_sz"][cut:] = ticks()["ask_sz" if side == "bid" else "bid_sz"][cut:]
    both = []
    for history in (first, history_of(changed)):
        targets = (make_target(history, NEXT), make_target(history, LATER))
        design = make(model_of(history))
        both.append(walk(history, design, RidgeLearner(targets, design.columns), 2, on_rows))
    known = slice(int(first.edges[FIRST_FOLD]), cut)
    np.testing.assert_array_equal(both[0][:, known], both[1][:, known])
    assert not np.array_equal(both[0][:, cut + 500 :], both[1][:, cut + 500 :])


def test_penalties_and_scores_are_those_of_past_blocks_alone() -> None:
    history = history_of(ticks())
    targets = (make_target(history, NEXT), make_target(history, LATER))
    grid, shares, from_column = (1e-3, 1.0, 30.0), (0.1, 1.0), 5
    design = FeatureRows(model_of(history))
    learner = RidgeLearner(targets, design.columns, grid, shares=shares, share_from=from_column)
    scores = walk(history, design, learner, 2, on_rows)
    rows = FeatureRows(model_of(history)).rows(ticks()).astype(float)
    chosen_pairs = set()
    for index, target in enumerate(targets):
        count = np.ones(history.rows) if target.weights is None else target.weights
        errors: dict[int, list[float]] = {}
        for number in range(1, BLOCKS):
            past = np.flatnonzero(target.trains[: history.edges[number]])
            here = np.arange(history.edges[number], history.edges[number + 1])
            trials = []
            for penalty in grid:
                for share in shares:
                    ridge = np.full(design.columns, penalty * count[past].sum())
                    ridge[from_column:] *= share
                    ridge[-1] = 0.0
                    weighted = rows[past].T * count[past]
                    weights = np.linalg.solve(weighted @ rows[past] + np.diag(ridge), weighted @ target.outcome[past])
                    trials.append(((penalty, share), rows[here] @ weights))
            if number >= FIRST_FOLD:
                seen = [one for block, one in errors.items() if block >= FIRST_FOLD or number == FIRST_FOLD]
                best = int(np.argmin(np.sum(seen, axis=0)))
                assert tuple(learner.penalties[number, index]) == trials[best][0]
                np.testing.assert_allclose(scores[index, here], trials[best][1], rtol=1e-6, atol=1e-8)
                chosen_pairs.add(trials[best][0])
            trained = target.trains[here]
            errors[number] = [
                float((count[here] * (one - target.outcome[here]) ** 2)[trained].sum()) for _, one in trials
            ]
    assert len(chosen_pairs) > 1


def test_probabilities_are_calibrated_on_earlier_blocks_alone() -> None:
    history = history_of(ticks())
    labels = make_target(history, NEXT)
    noise = np.random.default_rng(1)
    coins = np.where(noise.random(history.rows) < 0.5, 1.0, -1.0)
    scores = 0.3 * coins + noise.normal(size=history.rows)
    cut = int(history.edges[7])
    later = np.where(np.arange(history.rows) < cut, 1.0, -1.0)
    target, turned = (
        Target(NEXT, outcome, labels.labelled, labels.trains, labels.tested, None) for outcome in (coins, later * coins)
    )
    said = calibrated(history, target, scores)
    again = calibrated(history, turned, scores)
    np.testing.assert_array_equal(said[: history.edges[8]], again[: history.edges[8]])
    assert not np.array_equal(said[history.edges[8] :], again[history.edges[8] :])
    assert np.isnan(said[: history.edges[FIRST_TEST]]).all()
    unknown = Target(NEXT, np.where(labels.trains, coins, -coins), labels.labelled, labels.trains, labels.tested, None)
    np.testing.assert_array_equal(calibrated(history, unknown, scores), said)
    likely = target.tested[(said[target.tested] > 0.6) & (said[target.tested] < 0.7)]
    assert (target.outcome[likely] > 0).mean() == pytest.approx(0.65, abs=0.07)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """R2 of half of x minus R2 of nothing, where y is 0.3 x + noise, x and noise remembering about ten rows."""
    rows, times, memory = 3_000, 120, 0.9
    noise = np.random.default_rng(7)
    draws = make_draws(rows)
    truth = (2 * 0.5 * 0.3 - 0.5**2) / (0.3**2 + 1.0)
    held, found, widths = 0, [], []
    for _ in range(times):
        x, e = noise.normal(size=(2, rows + 100)) * np.sqrt(1 - memory**2)
        for row in range(1, rows + 100):
            x[row] += memory * x[row - 1]
            e[row] += memory * e[row - 1]
        x, y = x[100:], (0.3 * x + e)[100:]
        better, nothing = Explained(y, 0.5 * x, draws.edges), Explained(y, 0.0 * x, draws.edges)
        low, high = interval(better.values(draws.counts) - nothing.values(draws.counts))
        held += low <= truth <= high
        widths.append(high - low)
        found.append(better.value - nothing.value)
    assert held >= 0.85 * times
    assert 0.7 < np.mean(widths) / (2 * 1.96 * np.std(found)) < 1.4


def test_draws_are_stretches_of_neighbouring_rows_as_long_as_all_rows_together() -> None:
    draws = make_draws(4_000)
    np.testing.assert_array_equal(draws.counts.sum(axis=1), draws.counts.shape[1])
    assert draws.counts.shape == (2_000, 960)
    assert draws.edges[0] == 0
    assert draws.edges[-1] == 4_000
    np.testing.assert_array_equal(make_draws(4_000).counts, draws.counts)
    assert make_draws(61).counts.shape == (2_000, 60)


def test_area_is_exact_and_its_draws_nearly_so() -> None:
    noise = np.random.default_rng(2)
    up = noise.random(3_000) < 0.4
    score = np.round(up + noise.normal(size=3_000), 2)  # With ties.
    draws = make_draws(3_000)
    ranked = Ranked(up, score, draws.edges)
    assert ranked.value == area(score, up) == pytest.approx(pairwise_auc(score, up), abs=1e-12)
    drawn = np.repeat(np.arange(3_000), np.repeat(draws.counts[0], np.diff(draws.edges)).astype(int))
    assert ranked.values(draws.counts[:1])[0] == pytest.approx(pairwise_auc(score[drawn], up[drawn]), abs=1e-3)


def test_linear_memory_is_averages_and_lags_however_the_ticks_are_cut() -> None:
    history = history_of(ticks())
    model = model_of(history)
    features = run_features(pack(model), ticks()[:700]).astype(float)
    design = LinearMemoryRows(model)
    found = np.concatenate([design.rows(ticks()[:3]), design.rows(ticks()[3:500]), design.rows(ticks()[500:700])])
    inputs = model.inputs
    np.testing.assert_array_equal(found[:, :inputs], features.astype(np.float32))
    for which, events in enumerate(AVERAGES_EVENTS):
        weights = np.exp(-np.arange(700) / events) * (1 - np.exp(-1 / events))
        expected = [np.convolve(column, weights)[:700] for column in features.T]
        part = slice(inputs * (1 + which), inputs * (2 + which))
        np.testing.assert_allclose(found[:, part], np.array(expected).T, atol=1e-5)
    for lag in range(1, LAGS + 1):
        part = slice(inputs * (len(AVERAGES_EVENTS) + lag), inputs * (len(AVERAGES_EVENTS) + lag + 1))
        np.testing.assert_array_equal(found[lag:, part], found[:-lag, :inputs])
        assert not found[:lag, part].any()
    assert (found[:, -1] == 1).all()
    assert found.shape[1] == design.columns == inputs * 10 + 1
    wide = RandomUnitRows(model).rows(ticks()[:700])
    np.testing.assert_array_equal(wide[:, RANDOM_UNITS:], found)
    assert np.abs(wide[:, :RANDOM_UNITS]).max() <= 1.0


def test_model_without_recurrence_differs_in_nothing_else() -> None:
    model = model_of(history_of(ticks()))
    bare = without_recurrence(model)
    assert not bare.recurrent.any()
    assert model.recurrent.any()
    np.testing.assert_array_equal(bare.input_weights, model.input_weights)
    rows, bare_rows = (ModelRows(one).rows(ticks()[:300]) for one in (model, bare))
    np.testing.assert_array_equal(rows[:, model.units :], bare_rows[:, model.units :])
    assert not np.array_equal(rows[:, : model.units], bare_rows[:, : model.units])


def test_boosting_finds_a_product_that_no_ridge_finds() -> None:
    noise = np.random.default_rng(4)
    rows = 3_000
    design = np.concatenate([noise.normal(size=(rows, 2)), np.ones((rows, 1))], axis=1).astype(np.float32)
    outcome = np.sign(design[:, 0] * design[:, 1]).astype(float)
    every = np.ones(rows, dtype=bool)
    target = Target(NEXT, outcome, every, every, np.arange(rows), None)
    found = []
    for learner in (BoostingLearner([target]), RidgeLearner([target], 3)):
        learner.learn(design[:1_000], slice(0, 1_000))
        learner.open_block(1)
        learner.learn(design[1_000:2_000], slice(1_000, 2_000))
        learner.open_block(FIRST_FOLD)
        scores = learner.foretell(design[2_000:])
        assert scores is not None
        found.append(area(scores[0], outcome[2_000:] > 0))
    assert found[0] > 0.95
    assert found[1] < 0.6


def test_burst_rates_count_the_ticks_of_the_last_window() -> None:
    assert burst_rates(np.array([0, 5, 5, 14, 15, 40]), 10).tolist() == [1, 2, 3, 3, 2, 1]


def test_every_weight_but_the_constants_is_in_one_group() -> None:
    model = model_of(history_of(ticks()))
    columns = np.concatenate(list(column_groups(model).values()))
    assert sorted(columns) == list(range(model.columns - 1))
    linear = np.concatenate(list(feature_columns(model).values()))
    assert sorted(linear) == list(range(model.units, model.columns - 1))
    rows = ModelRows(model).rows(ticks()[:50])
    name = model.features[2]
    now, lag = feature_columns(model)[name][-1], feature_columns(model)[name][-2]
    np.testing.assert_array_equal(rows[1:, lag], rows[:-1, now])


def test_difference_of_two_that_are_one_is_nothing_in_every_draw() -> None:
    settings = EvaluateSettings(
        fit=FitSettings(**{**vars(SMALL), "recurrence": False}), targets="next,100ms", seeds=(1, 2), baselines=("W0",)
    )
    market = market_recording(Market(MarketSettings(), [Instrument(1, "ONE", "TEST")], ticks()), "m")
    (report,) = evaluate(market, settings)["instruments"]
    for target in report["targets"].values():
        low, high = target["skill"]["model"]["interval"]
        assert low < high
        assert target["differences"]["W0"]["value"] == 0.0
        assert target["differences"]["W0"]["interval"] == [0.0, 0.0]


def test_market_without_signal_is_not_foretold() -> None:
    """Rows between two moves share their label, so about as many labels as moves are independent."""
    market = simulate(MarketSettings(seed=11, signal=0.0, instruments=1), 40.0)
    settings = EvaluateSettings(fit=SMALL, targets="next", seeds=(1,), baselines=("QI", "d2"))
    (report,) = evaluate(market_recording(market, "free"), settings)["instruments"]
    (history,) = histories(market_recording(market, "free"))
    tested = make_target(history, NEXT)
    runs = 1 + np.count_nonzero(np.diff(history.lines[0].mid[history.edges[FIRST_TEST] :]))
    deviation = np.sqrt((4 / runs) / 12)  # Of the AUC of as many independent labels, half of them up.
    assert deviation < 0.03
    for one in report["targets"]["next"]["skill"].values():
        assert abs(one["value"] - 0.5) < 3.5 * deviation
    assert report["targets"]["next"]["rows"] == len(tested.tested)


def test_market_that_stands_still_has_a_sentence() -> None:
    still = ticks().copy()
    still["bid_px"], still["ask_px"] = 10**9, 2 * 10**9
    with pytest.raises(TrainingError, match=r"too few ticks have a label for horizon 'next'.*give more ticks"):
        make_target(history_of(still), NEXT)
    with pytest.raises(TrainingError, match=r"the mid hardly moves (up|down) within horizon '100ms'.*ups=0, downs=0"):
        make_target(history_of(still), LATER)
