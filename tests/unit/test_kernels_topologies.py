"""Sparse and dense reservoirs, time in seconds, linear memory: drawn as asked, bounded, forgetting at the rate measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels import predictor
from penstock_kernels.batch import predict_batch
from penstock_kernels.compiled import Float32s, compiled
from penstock_kernels.drawing import draw
from penstock_kernels.drive import run_design, run_features
from penstock_kernels.elementary import fading_lanes
from penstock_kernels.forgetting import measured_forgetting
from penstock_kernels.lanes import LANES, load, store
from penstock_kernels.model import ModelError
from penstock_kernels.spectral import dense_matrix, product_of, spectral_radius_of
from support.models import random_model
from support.tick_stream import tick_stream

TOPOLOGIES = ("cyclic", "sparse", "dense")
MODEL = random_model(1, units=20, fan_in=3)
SPARSE = random_model(1, units=20, fan_in=3, topology="sparse")


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("units", [40, 620])
def test_a_drawn_reservoir_has_the_spectral_radius_asked_for(topology, units):
    """620 units are past the limit from which ARPACK looks for it."""
    drawn = draw(topology, 7, units=units, inputs=2, fan_in=4, spectral_radius=0.85)
    matrix = dense_matrix(topology, drawn.recurrent, drawn.connections)
    assert np.abs(np.linalg.eigvals(matrix)).max() == pytest.approx(0.85, rel=1e-5)
    radius = spectral_radius_of(topology, drawn.recurrent, drawn.connections)
    assert radius == float(f"{radius:.6g}") == pytest.approx(0.85, rel=1e-5)
    x = np.random.default_rng(1).normal(size=units)
    assert np.allclose(product_of(topology, drawn.recurrent, drawn.connections)(x), matrix @ x)


def test_a_sparse_unit_hears_as_many_others_as_asked_for_and_never_itself():
    for units, fan_in in ((200, 8), (9, 8), (3, 1)):
        heard = draw("sparse", 3, units=units, inputs=1, fan_in=fan_in).connections
        assert heard.shape == (fan_in, units)
        assert all(len(set(column)) == fan_in for column in heard.T.tolist())
        assert not np.any(heard == np.arange(units))
    assert len(set(draw("sparse", 3, units=200, inputs=1).connections.flat)) > 190, "anybody may be heard"


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("topology must be one of cyclic, sparse, dense", {"topology": "ring"}),
        ("time_base must be one of events, seconds", {"time_base": "hours"}),
        ("fan_in must be in 1 to 19: fan_in=20", {"fan_in": 20}),
        ("time constants must be above 0", {"time_base": "seconds", "time_constant_s_min": 0.0}),
    ],
)
def test_impossible_drawings_are_refused_by_name(sentence, arguments):
    with pytest.raises(ModelError, match=sentence):
        draw(**{"topology": "sparse", "seed": 1, "units": 20, "inputs": 2, **arguments})


def test_time_constants_in_seconds_become_rates():
    leak = draw("cyclic", 5, units=400, inputs=2, time_base="seconds").leak
    assert 1 / 10.0 <= leak.min() < 0.2
    assert 5e3 < leak.max() <= np.float32(1 / 1e-4)


@compiled
def fading(values: Float32s) -> None:
    for position in range(0, len(values), LANES):
        store(values, position, fading_lanes(load(values, position)))


def test_fading_is_within_its_bound_from_nothing_to_everything():
    values = np.concatenate([[0.0], np.geomspace(1e-37, 1e3, 400_000), np.linspace(0.0, 45.0, 400_000)])
    values = np.resize(values, -(-len(values) // LANES) * LANES).astype(np.float32)
    found, expected = values.copy(), -np.expm1(-values.astype(np.float64))
    fading(found)
    assert np.max(np.abs(found - expected) / np.maximum(expected, 1e-300)) < 3e-7
    assert found.min() == 0.0
    assert found.max() == 1.0


def test_by_seconds_a_state_stands_still_while_no_time_passes_and_is_new_after_long():
    model = random_model(3, units=33, time_base="seconds")
    ticks = tick_stream(3, 40)
    ticks["ts_recv"][20:30] = ticks["ts_recv"][20]
    ticks["ts_recv"][25] -= 10**9  # A clock that steps back counts as no time; the next tick as a second.
    ticks["ts_recv"][39] = ticks["ts_recv"][38] + 10**15
    x = run_design(predictor.pack(model), ticks)[:, :33]
    for row in (21, 22, 23, 24, 25, 27, 28, 29):
        assert np.array_equal(x[row], x[row - 1])
    assert not np.array_equal(x[26], x[25])
    assert np.array_equal(x[0], np.zeros(33))
    alone = run_design(predictor.pack(replace(model, time_base="events", leak=np.ones(33, np.float32))), ticks)
    assert np.abs(x[39]).max() > 0.5
    assert alone.shape[1] == model.columns


def test_linear_memory_is_averages_then_past_inputs():
    model = random_model(4, units=20, features=("imbalance", "spread_ticks"), memory_gains=(0.5, 1.0), memory_lags=2)
    packed, ticks = predictor.pack(model), tick_stream(4, 30)
    inputs, rows = run_features(packed, ticks), run_design(packed, ticks)
    assert np.allclose(rows[:, 22:24], inputs, atol=1e-6), "an average of gain 1 is the input"
    assert np.array_equal(rows[1:, 24:26], inputs[:-1])
    assert np.array_equal(rows[2:, 26:28], inputs[:-2])
    assert np.all(rows[:2, 26:28] == 0.0)
    average = np.zeros(2, dtype=np.float32)
    for u, row in zip(inputs, rows, strict=True):
        average = average + np.float32(0.5) * (u - average)
        assert np.array_equal(row[20:22], average)


@pytest.mark.parametrize(
    ("sentence", "model", "changes"),
    [
        ("time_base must be one of: events, seconds: time_base='hours'", MODEL, {"time_base": "hours"}),
        ("leak must be above 0: leak=0.0; by seconds", MODEL, {"time_base": "seconds", "leak": np.zeros(20, np.float32)}),
        ("memory_gains must be 0 to 8 in a row", MODEL, {"memory_gains": np.ones(9, np.float32)}),
        ("memory_gains must be above 0 and at most 1: memory_gain=1.5", MODEL, {"memory_gains": np.full(1, 1.5, np.float32)}),
        ("memory_lags must be an integer of 0 to 16: memory_lags=17", MODEL, {"memory_lags": 17}),
        ("products must be an integer of 0 to 10: products=16", MODEL, {"products": 16}),
        ("products must be whole times 16: products=8; half the units is usual", MODEL, {"products": 8}),
        ("connections must have shape (fan_in, units), fan_in in 1 to 64", SPARSE, {"connections": np.arange(3)}),
        ("connections must be in 0 to units - 1 = 19: connection=-1", SPARSE, {"connections": np.full((3, 20), -1)}),
        ("connections must have shape (0,) in a dense reservoir", SPARSE, {"topology": "dense"}),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_topology_is_refused_with_name_and_value(sentence, model, changes):
    with pytest.raises(ModelError) as caught:
        replace(model, **changes)
    assert sentence in str(caught.value)


def test_one_leaky_unit_forgets_at_the_rate_of_its_leak():
    """Without recurrence a difference shrinks by (1 - leak) a tick."""
    model = random_model(5, units=4, fan_in=1)
    model = replace(model, recurrent=np.zeros((1, 4), np.float32), leak=np.full(4, 0.1, np.float32))
    assert measured_forgetting(predictor.pack(model), tick_stream(5, 600)) == pytest.approx(math.log(0.9), rel=0.02)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_reservoir_of_small_radius_forgets_faster_than_one_of_large(topology):
    ones = np.ones(50, dtype=np.float32)
    model, ticks = random_model(6, units=50, topology=topology, leak=ones, bias=0 * ones), tick_stream(6, 2_000)
    strong = replace(model, recurrent=model.recurrent * np.float32(1.5))
    rates = [measured_forgetting(predictor.pack(one), ticks) for one in (model, strong)]
    assert rates[0] < rates[1] < 0.0


def test_a_memory_that_does_not_fade_has_no_rate():
    model = random_model(8, units=2, fan_in=1, features=("imbalance",))
    stuck = replace(
        model,
        recurrent=np.full((1, 2), 5.0, dtype=np.float32),
        bias=np.full(2, 0.0, dtype=np.float32),
        input_weights=np.full((1, 2), 1e-9, dtype=np.float32),
        leak=np.full(2, 0.5, dtype=np.float32),
    )
    with pytest.raises(ModelError, match=r"memory does not fade: .*rate=.*choose a smaller spectral radius"):
        measured_forgetting(predictor.pack(stuck), tick_stream(8, 400))
    with pytest.raises(ModelError, match="ticks must be at least 16: ticks=15"):
        measured_forgetting(predictor.pack(stuck), tick_stream(8, 15))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("time_base", ["events", "seconds"])
def test_no_topology_allocates_in_a_step_or_a_batch(topology, time_base):
    model = random_model(9, units=40, topology=topology, time_base=time_base, memory_gains=(0.1,), memory_lags=2)
    packed = predictor.pack(model)
    header = packed.header
    states = np.zeros((3, predictor.state_words(header)), dtype=np.float32)
    inputs = np.full((3, predictor.input_words(header)), 0.5, dtype=np.float32)
    scratch = np.zeros((3, predictor.scratch_words(header)), dtype=np.float32)
    forecasts = np.zeros((3, HORIZONS_MAX, 4), dtype=np.float32)
    arrays = (header, packed.weights, states, np.arange(3), inputs, scratch, forecasts)
    _nrt_python.memsys_enable_stats()
    try:
        counts = []
        for steps in (0, 1_000):
            before = rtsys.get_allocation_stats().alloc
            many_steps(*arrays, steps)
            counts.append(rtsys.get_allocation_stats().alloc - before)
    finally:
        _nrt_python.memsys_disable_stats()
    assert counts[0] == counts[1]


@compiled
def many_steps(header, weights, states, places, inputs, scratch, forecasts, steps):
    for _ in range(steps):
        predictor.predict_step(header, weights, states[0], inputs[0], scratch[0], forecasts[0])
        predict_batch(header, weights, states, places, inputs, scratch, forecasts)
