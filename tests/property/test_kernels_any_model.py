"""Any topology, shape, time base and memory: right by the float64 reference, and the same bits one by one or batched."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels import predictor, reference
from penstock_kernels.batch import advance_batch, predict_batch
from penstock_kernels.compiled import compiled
from penstock_kernels.drive import run_design, run_features, run_predictions
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.model import Model
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream

few = settings(deadline=None, max_examples=25)


@st.composite
def models(draw: Any) -> Model:
    units = draw(st.integers(2, 90))
    return random_model(
        draw(st.integers(0, 2**32)),
        units=units,
        fan_in=draw(st.integers(1, min(9, units - 1))),
        topology=draw(st.sampled_from(["cyclic", "sparse", "dense"])),
        time_base=draw(st.sampled_from(["events", "seconds"])),
        memory_gains=tuple(draw(st.lists(st.floats(0.01, 1.0), max_size=8))),
        memory_lags=draw(st.integers(0, 16)),
        products=16 * draw(st.integers(0, units // 32)),
        horizons=HORIZONS[: draw(st.integers(1, 4))],
        features=FEATURE_NAMES[: draw(st.integers(1, len(FEATURE_NAMES)))],
    )


@few
@given(models(), st.integers(0, 2**32))
def test_any_model_follows_the_float64_reference(model, seed):
    ticks = tick_stream(seed, 25)
    packed = predictor.pack(model)
    forecasts, expected = run_predictions(packed, ticks), reference.predictions(model, ticks)
    assert np.max(np.abs(forecasts - expected)[:, :, 2:]) < 5e-5
    assert np.max(np.abs(forecasts - expected)[:, :, 0]) < 5e-5 * model.calibration[0].return_scale
    rows, inputs = run_design(packed, ticks), run_features(packed, ticks)
    assert rows.shape == (25, model.columns)
    memory = reference.memory_columns(model, inputs.astype(np.float64))
    end = model.units + model.products
    x = rows[:, : model.units]
    assert np.array_equal(
        rows[:, model.units : end], x[:, : model.products] * x[:, model.products : 2 * model.products]
    )
    assert np.allclose(rows[:, end : end + model.memory_columns], memory, atol=1e-5)
    assert np.array_equal(rows[:, -model.inputs - 1 : -1], inputs)


@compiled
def one_by_one(
    header: Any, weights: Any, states: Any, places: Any, inputs: Any, scratch: Any, forecasts: Any, forecast: bool
) -> None:
    for tick in range(len(places)):
        state = states[places[tick]]
        if forecast:
            predictor.predict_step(header, weights, state, inputs[tick], scratch[tick], forecasts[tick])
        else:
            predictor.advance_step(header, weights, state, inputs[tick], scratch[tick])


@few
@given(models(), st.integers(0, 2**32), st.integers(0, 7), st.booleans())
def test_a_batch_has_the_bits_of_single_steps(model, seed, count, forecast):
    packed = predictor.pack(model)
    header, noise = packed.header, np.random.default_rng(seed)
    rooms = 9
    first = np.zeros((rooms, predictor.state_words(header)), dtype=np.float32)
    other = first.copy()
    for _ in range(4):
        places = noise.permutation(rooms)[:count]
        inputs = noise.normal(size=(count, predictor.input_words(header))).astype(np.float32)
        inputs[:, -1] = np.abs(inputs[:, -1])
        rows = [np.full((count, predictor.scratch_words(header)), np.nan, np.float32) for _ in range(2)]
        forecasts = [np.full((count, HORIZONS_MAX, 4), np.nan, np.float32) for _ in range(2)]
        one_by_one(header, packed.weights, first, places, inputs, rows[0], forecasts[0], forecast)
        if forecast:
            predict_batch(header, packed.weights, other, places, inputs, rows[1], forecasts[1])
        else:
            advance_batch(header, packed.weights, other, places, inputs, rows[1])
        assert first.tobytes() == other.tobytes()
        assert rows[0].tobytes() == rows[1].tobytes()
        assert forecasts[0].tobytes() == forecasts[1].tobytes()
    assert count == 0 or np.any(first != 0.0), "the states must have moved for this to say anything"
