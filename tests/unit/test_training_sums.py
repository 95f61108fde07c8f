"""Sums, solves, histograms and curves of training, each against the plain formula."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_tuning.model.calibrate import fit_logistic, fit_slope
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.ordered_histogram import OrderedHistogram, area_under_curve, bins_of, middles
from penstock_tuning.model.ridge import RidgeError, apply, solve, squared_error
from support.simulated import pairwise_auc


def design(rows: int = 500, columns: int = 37, targets: int = 3) -> np.ndarray:
    noise = np.random.default_rng(5)
    made = noise.standard_normal((rows, columns + targets)).astype(np.float32)
    made[:, columns - 1] = 1.0
    made[:, columns:] += made[:, :targets]
    return made


def test_streamed_gram_has_the_bits_of_the_direct_one_whatever_the_blocks() -> None:
    rows = design()
    direct = Gram(rows.shape[1])
    direct.add(rows)
    streamed = Gram(rows.shape[1])
    for start in range(0, len(rows), 77):
        streamed.add(rows[start : start + 77])
    assert streamed.rows == direct.rows == len(rows)
    assert streamed.matrix().tobytes() == direct.matrix().tobytes()


def test_gram_is_the_sum_of_products() -> None:
    rows = design()
    gram = Gram(rows.shape[1])
    gram.add(rows)
    exact = rows.astype(np.float64).T @ rows.astype(np.float64)
    np.testing.assert_allclose(gram.matrix(), exact, rtol=0, atol=1e-11 * len(rows))


def test_grams_add_up_and_refuse_other_columns() -> None:
    rows = design()
    first, second, whole = Gram(rows.shape[1]), Gram(rows.shape[1]), Gram(rows.shape[1])
    first.add(rows[:200])
    second.add(rows[200:])
    whole.add(rows)
    np.testing.assert_allclose(first.plus(second).matrix(), whole.matrix(), rtol=1e-12, atol=1e-9)
    assert first.plus(second).rows == 500
    with pytest.raises(ValueError, match="different columns"):
        first.plus(Gram(3))


@pytest.mark.parametrize("columns", [2, 16, 37, 100, 161])
def test_ridge_solves_the_penalised_normal_equations_and_spares_the_constant(columns: int) -> None:
    rows = design(columns=columns)
    gram = Gram(rows.shape[1])
    gram.add(rows)
    inputs, outputs = rows[:, :columns].astype(np.float64), rows[:, columns:].astype(np.float64)
    penalty = 0.01 * len(rows) * np.eye(columns)
    penalty[-1, -1] = 0.0
    expected = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ outputs).T
    weights = solve(gram, columns, 0.01)
    np.testing.assert_allclose(weights, expected, rtol=1e-9, atol=1e-12)
    errors = ((outputs - inputs @ expected.T) ** 2).sum(axis=0)
    np.testing.assert_allclose(squared_error(gram, columns, weights), errors, rtol=1e-9)
    applied = np.empty((len(rows), 3))
    apply(rows[:, :columns].copy(), weights.T.copy(), applied)
    np.testing.assert_allclose(applied, inputs @ expected.T, rtol=1e-9, atol=1e-12)


def test_ridge_can_leave_out_the_first_columns() -> None:
    rows = design()
    gram, part = Gram(rows.shape[1]), Gram(rows.shape[1] - 20)
    gram.add(rows)
    part.add(rows[:, 20:])
    weights = solve(gram, 37, 0.1, first=20)
    assert not weights[:, :20].any()
    np.testing.assert_allclose(weights[:, 20:], solve(part, 17, 0.1), rtol=1e-12)


def test_ridge_without_information_is_refused_with_a_sentence() -> None:
    rows = design()
    rows[:, 3] = 0.0
    gram = Gram(rows.shape[1])
    gram.add(rows)
    with pytest.raises(RidgeError, match=r"not positive definite: column=3; add ticks or raise the penalty"):
        solve(gram, 37, 0.0)


def test_bins_keep_the_order_of_values_and_their_middles_lie_inside() -> None:
    values = np.concatenate([-np.geomspace(1e30, 1e-30, 500), [-0.0, 0.0], np.geomspace(1e-30, 1e30, 500)])
    bins = bins_of(values)
    assert (np.diff(bins) >= 0).all()
    assert bins[500] == bins[501]
    np.testing.assert_allclose(middles(bins)[values != 0], values[values != 0], rtol=2.0**-7)


def test_quantiles_are_those_of_the_values_to_a_bin() -> None:
    values = np.random.default_rng(1).standard_normal(20_000)
    histogram = OrderedHistogram()
    histogram.add(values[:5_000])
    histogram.add(values[5_000:])
    for share in (0.005, 0.3, 0.995):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.01)
    with pytest.raises(ValueError, match="counted=0"):
        OrderedHistogram().quantile(0.5)


def test_area_under_curve_is_that_of_all_pairs() -> None:
    noise = np.random.default_rng(2)
    scores = noise.standard_normal(4_000)
    positive = noise.random(4_000) < 1.0 / (1.0 + np.exp(-2.0 * scores))
    negatives, positives = OrderedHistogram(), OrderedHistogram()
    negatives.add(scores[~positive])
    positives.add(scores[positive])
    assert area_under_curve(negatives, positives) == pytest.approx(pairwise_auc(scores, positive), abs=1e-3)
    assert area_under_curve(negatives, OrderedHistogram()) is None


def test_logistic_curve_is_found_again() -> None:
    noise = np.random.default_rng(3)
    scores = 0.01 * noise.standard_normal(200_000) + 0.003
    positive = noise.random(len(scores)) < 1.0 / (1.0 + np.exp(-(150.0 * scores - 0.7)))
    negatives, positives = OrderedHistogram(), OrderedHistogram()
    negatives.add(scores[~positive])
    positives.add(scores[positive])
    slope, offset = fit_logistic(negatives, positives)
    assert slope == pytest.approx(150.0, rel=0.03)
    assert offset == pytest.approx(-0.7, abs=0.03)


def test_slope_through_one_half_is_found_again_whatever_the_drift_of_the_scores() -> None:
    noise = np.random.default_rng(4)
    scores = 0.01 * noise.standard_normal(200_000) + 0.003
    positive = noise.random(len(scores)) < 1.0 / (1.0 + np.exp(-150.0 * scores))
    negatives, positives = OrderedHistogram(), OrderedHistogram()
    negatives.add(scores[~positive])
    positives.add(scores[positive])
    assert fit_slope(negatives, positives) == pytest.approx(150.0, rel=0.03)
    assert fit_slope(positives, negatives) == 0.0
    assert fit_slope(OrderedHistogram(), OrderedHistogram()) == 0.0


def test_scores_that_mislead_or_are_missing_give_the_share_alone() -> None:
    low, high = OrderedHistogram(), OrderedHistogram()
    low.add(np.linspace(-2, 0, 300))
    high.add(np.linspace(0, 2, 100))
    slope, offset = fit_logistic(high, low)
    assert slope == 0.0
    assert offset == pytest.approx(np.log(301 / 101))
    assert fit_logistic(OrderedHistogram(), OrderedHistogram()) == (0.0, 0.0)


def test_scores_that_part_outcomes_perfectly_keep_a_finite_slope() -> None:
    low, high = OrderedHistogram(), OrderedHistogram()
    low.add(np.linspace(-2, -1, 300))
    high.add(np.linspace(1, 2, 300))
    slope, _ = fit_logistic(low, high)
    assert 1.0 < slope < 100.0
