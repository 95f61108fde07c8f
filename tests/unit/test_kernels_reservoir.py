"""The cyclic reservoir: the formula, to the bit of plain float32; drawn the same each time; with the memory of theory."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels import reference
from penstock_kernels.compiled import Float32s, Int64s, compiled
from penstock_kernels.drawing import draw
from penstock_kernels.elementary import tanh_lanes
from penstock_kernels.lanes import LANES, load, store
from penstock_kernels.model import ModelError
from penstock_kernels.packed import PackedModel, pack, padded
from penstock_kernels.predictor import state_words
from penstock_kernels.reservoir import reservoir_step
from penstock_kernels.spectral import dense_matrix, spectral_radius_of
from support.models import random_model


@compiled
def tanh_in_place(values: Float32s) -> None:
    for position in range(0, len(values), LANES):
        store(values, position, tanh_lanes(load(values, position)))


@compiled
def run_reservoir(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, states: Float32s) -> None:
    for row in range(len(inputs)):
        reservoir_step(header, weights, state, inputs[row], states[row])


def states_of(packed: PackedModel, units: int, inputs: np.ndarray) -> np.ndarray:
    states = np.zeros((len(inputs), padded(units)), dtype=np.float32)
    state = np.zeros(state_words(packed.header), dtype=np.float32)
    run_reservoir(packed.header, packed.weights, state, inputs, states)
    assert np.array_equal(state[:units], state[units : 2 * units])
    return states[:, :units]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("units", [16, 37, 64, 100])
def test_a_step_has_the_bits_of_separate_float32_operations_in_order(units):
    model = random_model(1, units=units)
    inputs = noise(1, 20, model.inputs)
    x = np.zeros(units, dtype=np.float32)
    for u, state in zip(inputs, states_of(pack(model), units, inputs), strict=True):
        activation = np.zeros(padded(units), dtype=np.float32)
        activation[:units] = model.bias
        for row, value in zip(model.input_weights, u, strict=True):
            activation[:units] += row * value
        for diagonal, shift in zip(model.recurrent, model.connections, strict=True):
            activation[:units] += diagonal * np.roll(x, -shift)
        tanh_in_place(activation)
        x = x + model.leak * (activation[:units] - x)
        assert np.array_equal(x, state)


def test_states_follow_the_float64_reference():
    model = random_model(2, units=50)
    inputs = noise(2, 300, model.inputs)
    x = np.zeros(50)
    for u, state in zip(inputs, states_of(pack(model), 50, inputs), strict=True):
        x = reference.reservoir_step(model, x, u)
        assert np.max(np.abs(x - state)) < 1e-5


def test_the_same_seed_draws_the_same_reservoir_and_another_one_another():
    first, again, other = (draw("cyclic", seed, units=40, inputs=3) for seed in (5, 5, 6))
    for name in ("recurrent", "connections", "input_weights", "bias", "leak"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_a_drawn_reservoir_has_the_radius_shifts_scales_and_leaks_asked_for():
    reservoir = draw("cyclic", 8, units=300, inputs=9, fan_in=6, spectral_radius=0.9, bias_scale=0.25)
    eigenvalues = np.linalg.eigvals(dense_matrix("cyclic", reservoir.recurrent, reservoir.connections))
    assert np.abs(eigenvalues).max() == pytest.approx(0.9, rel=1e-5)
    assert len(set(reservoir.connections.tolist())) == 6
    assert 0.6 < np.abs(reservoir.input_weights).max() <= 1 / np.sqrt(9 / 4)
    assert 0.2 < np.abs(reservoir.bias).max() <= 0.25
    assert reservoir.leak.min() >= np.float32(1 - np.exp(-1 / 30))
    assert reservoir.leak.max() <= np.float32(1 - np.exp(-1 / 0.2))
    assert np.median(reservoir.leak) == pytest.approx(1 - np.exp(-1 / np.sqrt(0.2 * 30)), abs=0.05)


def test_the_spectral_radius_of_many_units_is_that_of_the_dense_matrix():
    reservoir = draw("cyclic", 9, units=700, inputs=1, fan_in=4)
    eigenvalues = np.linalg.eigvals(dense_matrix("cyclic", reservoir.recurrent, reservoir.connections))
    assert spectral_radius_of("cyclic", reservoir.recurrent, reservoir.connections) == pytest.approx(
        np.abs(eigenvalues).max(), rel=1e-5
    )


def test_the_spectral_radius_has_six_digits_so_that_no_library_reaches_the_weights():
    for units in (30, 700):
        radius = spectral_radius_of(
            "cyclic", *(getattr(draw("cyclic", 3, units=units, inputs=1), n) for n in ("recurrent", "connections"))
        )
        assert radius == float(f"{radius:.6g}")


def test_dense_matrix_is_the_sum_of_shifted_diagonals():
    reservoir = draw("cyclic", 4, units=20, inputs=1, fan_in=3)
    x = np.random.default_rng(4).normal(size=20)
    heard = sum(d * np.roll(x, -s) for d, s in zip(reservoir.recurrent, reservoir.connections, strict=True))
    assert np.allclose(dense_matrix("cyclic", reservoir.recurrent, reservoir.connections) @ x, heard)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fan_in", {"fan_in": 20}),
        ("units", {"units": 1}),
        ("seed", {"seed": -1}),
        ("inputs", {"inputs": 0}),
        ("spectral_radius", {"spectral_radius": -0.1}),
        ("input_scale", {"input_scale": float("nan")}),
        ("time constants", {"time_constant_events_min": 50.0}),
    ],
)
def test_impossible_settings_are_refused_by_name(name, changes):
    with pytest.raises(ModelError, match=name):
        draw(**{"topology": "cyclic", "seed": 1, "units": 20, "inputs": 2, "fan_in": 3, **changes})


def test_a_simple_cycle_has_the_linear_memory_of_theory():
    """N = 100 units in one ring, weight .9, leak 1, inputs small enough to be linear: capacity 99.0 (100 - .9^200...)."""
    units, ticks, washout, lags = 100, 6_000, 500, 200
    model = random_model(
        3,
        units=units,
        fan_in=1,
        features=("imbalance",),
        recurrent=np.full((1, units), 0.9, dtype=np.float32),
        connections=np.array([units - 1]),
        input_weights=1e-3 * np.sign(noise(7, 1, units)),
        bias=np.zeros(units, dtype=np.float32),
        leak=np.ones(units, dtype=np.float32),
    )
    signal = np.random.default_rng(11).uniform(-1, 1, size=(ticks, 1)).astype(np.float32)
    states = states_of(pack(model), units, signal).astype(np.float64)[washout:]
    half = len(states) // 2
    targets = np.stack([signal[washout - lag : ticks - lag, 0] for lag in range(lags + 1)], axis=1).astype(np.float64)
    train, test = states[:half], states[half:]
    weights = np.linalg.solve(train.T @ train + 1e-14 * np.eye(units), train.T @ targets[:half])
    forecast = test @ weights
    capacity = sum(np.corrcoef(forecast[:, lag], targets[half:, lag])[0, 1] ** 2 for lag in range(1, lags + 1))
    assert capacity == pytest.approx(99.0, abs=0.6)
