"""Own log, asinh, exp, logistic, tanh, and the sixteen lanes: within their stated bounds, and in the stated order."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from penstock_kernels.compiled import Float32s, Float64s, compiled
from penstock_kernels.elementary import _TANH_P, _TANH_Q, asinh, exp, log, logistic, tanh_lanes
from penstock_kernels.lanes import LANES, clamp, load, splat, store, total


@compiled
def apply_log(values: Float64s, results: Float64s) -> None:
    for position in range(len(values)):
        results[position] = log(values[position])


@compiled
def apply_exp(values: Float64s, results: Float64s) -> None:
    for position in range(len(values)):
        results[position] = exp(values[position])


@compiled
def apply_tanh(values: Float32s, results: Float32s) -> None:
    for position in range(0, len(values), LANES):
        store(results, position, tanh_lanes(load(values, position)))


@compiled
def apply_total(values: Float32s) -> float:
    return total(load(values, 0))


@compiled
def apply_arithmetic(left: Float32s, right: Float32s, results: Float32s) -> None:
    store(results, 0, load(left, 0) + load(right, 0))
    store(results, 16, load(left, 0) - load(right, 0))
    store(results, 32, load(left, 0) * load(right, 0))
    store(results, 48, load(left, 0) / load(right, 0))
    store(results, 64, clamp(load(left, 0), 1.5))
    store(results, 80, splat(right[0]))


def tanh_of(values: np.ndarray) -> np.ndarray:
    padded = np.zeros(-(-len(values) // LANES) * LANES, dtype=np.float32)
    padded[: len(values)] = values
    results = np.empty_like(padded)
    apply_tanh(padded, results)
    return results[: len(values)]


def test_log_is_within_its_bound_over_all_magnitudes():
    values = np.concatenate([np.geomspace(2.3e-308, 1.7e308, 200_001), np.linspace(0.5, 2.0, 100_001)])
    results = np.empty_like(values)
    apply_log(values, results)
    expected = np.log(values.astype(np.longdouble))
    assert np.max(np.abs(results - expected) / np.maximum(1, np.abs(expected))) < 1e-15
    assert log(1.0) == 0.0


def test_exp_is_within_its_bound_and_limited_beyond():
    values = np.linspace(-700, 700, 200_001)
    results = np.empty_like(values)
    apply_exp(values, results)
    expected = np.exp(values.astype(np.longdouble))
    assert np.max(np.abs(results - expected) / expected) < 4e-15
    assert exp(0.0) == 1.0
    assert exp(1e300) == exp(700.0) < math.inf
    assert exp(-math.inf) == exp(math.nan) == exp(-700.0) > 0.0


def test_asinh_is_within_its_bound_and_odd():
    for value in [0.0, 1e-12, 1e-3, 0.5, 1.0, 7.25, 1e6, 1e149, 3.0e-7]:
        assert asinh(value) == pytest.approx(math.asinh(value), abs=1e-15, rel=1e-15)
        assert asinh(-value) == -asinh(value)
    assert asinh(1e300) == asinh(1e150)


def test_logistic_is_within_its_bound_and_saturates():
    for value in np.linspace(-40, 40, 4_001):
        assert abs(logistic(value) - 1 / (1 + math.exp(-value))) < 4e-15
    assert logistic(math.inf) == 1.0
    assert 0.0 <= logistic(-math.inf) < 1e-300


def test_tanh_is_within_its_bound_everywhere():
    values = np.concatenate([np.linspace(-10, 10, 2_000_000), np.geomspace(1e-30, 1e30, 100_000)]).astype(np.float32)
    results = tanh_of(values)
    assert np.max(np.abs(results - np.tanh(values.astype(np.float64)))) < 6e-7
    assert np.max(np.abs(results)) <= 1.0
    assert np.array_equal(tanh_of(-values), -results)


def test_tanh_of_infinity_is_one_and_of_nan_is_nan():
    assert np.all(np.abs(tanh_of(np.array([np.inf, -np.inf]))) > 1 - 6e-7)
    assert np.isnan(tanh_of(np.array([np.nan]))[0])


def test_tanh_has_the_bits_of_separate_float32_operations():
    x = np.linspace(-8, 8, 160_000).astype(np.float32)
    square = x * x
    above = _TANH_P[3] * square + _TANH_P[2]
    below = _TANH_Q[4] * square + _TANH_Q[3]
    for coefficient in (_TANH_P[1], _TANH_P[0]):
        above = above * square + coefficient
    for coefficient in (_TANH_Q[2], _TANH_Q[1], _TANH_Q[0]):
        below = below * square + coefficient
    assert np.array_equal(tanh_of(x), x * above / below)


def test_lanes_compute_like_numpy_float32():
    noise = np.random.default_rng(5)
    left, right = noise.normal(size=LANES).astype(np.float32), noise.normal(size=LANES).astype(np.float32)
    left[3] = np.nan
    results = np.empty(96, dtype=np.float32)
    apply_arithmetic(left, right, results)
    expected = [left + right, left - right, left * right, left / right, np.clip(left, -1.5, 1.5), np.full(16, right[0])]
    assert np.array_equal(results, np.concatenate(expected), equal_nan=True)


def test_total_adds_by_halves():
    values = np.random.default_rng(9).normal(size=LANES).astype(np.float32)
    parts = list(values)
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [parts[lane] + parts[lane + half] for lane in range(half)]
    assert np.float32(apply_total(values)) == parts[0]
    in_order = np.float32(0)
    for value in values:
        in_order += value
    assert parts[0] != in_order, "the values must tell the two orders apart"


def test_log_never_falls_as_its_argument_grows():
    values = 1.0 + np.arange(2_000) * 2.0**-52
    assert all(log(low) <= log(high) for low, high in pairwise(values))
