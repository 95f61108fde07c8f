"""The readout: sums in the stated order, calibrated into probabilities that are probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels import reference
from penstock_kernels.lanes import LANES
from penstock_kernels.model import Model
from penstock_kernels.packed import pack, padded
from penstock_kernels.readout import readout_step
from support.models import HORIZONS, random_model


def forecasts_of(model: Model, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Run the readout over the row [x, u, 1]; memory starts as rubbish, since all of it must be overwritten."""
    packed = pack(model)
    first = padded(model.units)
    design = np.zeros(first + padded(model.inputs + 1), dtype=np.float32)
    design[: model.units], design[first : first + model.inputs], design[first + model.inputs] = x, u, 1.0
    forecasts = np.full((HORIZONS_MAX, 4), np.nan, dtype=np.float32)
    readout_step(packed.header, packed.weights, design, forecasts)
    return forecasts


def row_of(model: Model, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed)
    return noise.uniform(-1, 1, model.units).astype(np.float32), noise.normal(size=model.inputs).astype(np.float32)


@pytest.mark.parametrize("units", [16, 37, 100])
@pytest.mark.parametrize("horizons", [1, 3, 4])
def test_forecasts_follow_the_float64_reference(units, horizons):
    model = random_model(3, units=units, horizons=HORIZONS[:horizons])
    x, u = row_of(model)
    expected = reference.forecasts_of(model, x.astype(np.float64), u.astype(np.float64))
    assert np.allclose(forecasts_of(model, x, u), expected, rtol=2e-5, atol=2e-7)


def test_rows_past_the_horizons_are_zero():
    model = random_model(3, horizons=HORIZONS[:1])
    assert np.all(forecasts_of(model, *row_of(model))[1:] == 0.0)


def test_an_output_is_summed_over_sixteen_lanes_in_order():
    model = random_model(4, units=160, horizons=HORIZONS[:1])
    x, u = row_of(model)
    lanes = np.zeros(LANES, dtype=np.float32)
    row = np.concatenate([x, u, np.ones(1, np.float32), np.zeros(-(model.inputs + 1) % LANES, np.float32)])
    weights = np.zeros_like(row)
    weights[: model.readout.shape[1]] = model.readout[0]
    for start in range(0, len(row), LANES):
        lanes = lanes + weights[start : start + LANES] * row[start : start + LANES]
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    expected = np.float32(np.float64(np.float32(model.calibration[0].return_scale)) * np.float64(lanes[0]))
    assert forecasts_of(model, x, u)[0, 0] == expected


def test_a_next_move_is_up_or_down_and_a_time_horizon_may_be_neither():
    model = random_model(5, horizons=(HORIZONS[0], HORIZONS[2]))
    up, down = forecasts_of(model, *row_of(model))[:2, 2:].T
    assert up[0] + down[0] == pytest.approx(1.0, abs=1e-7)
    assert 0.0 < up[1] + down[1] < 0.95


@pytest.mark.parametrize("slope", [0.0, 3.0, -1e9, 1e9])
@pytest.mark.parametrize("offset", [0.0, -1e9, 1e9])
def test_probabilities_stay_probabilities_under_any_calibration(slope, offset):
    model = random_model(6)
    extreme = [
        replace(c, direction_slope=slope, direction_offset=offset, moved_slope=-slope, moved_offset=-offset)
        for c in model.calibration
    ]
    up, down = forecasts_of(replace(model, calibration=tuple(extreme)), *row_of(model))[:, 2:].T
    assert np.all(up >= 0.0)
    assert np.all(down >= 0.0)
    assert np.all(up.astype(np.float64) + down <= 1.0 + 1e-7)


def test_the_largest_weights_allowed_still_give_finite_forecasts():
    model = random_model(7)
    largest = np.full_like(model.readout, 1e9)
    largest[:, ::2] = -1e9
    model = replace(model, readout=largest, calibration=tuple(replace(c, return_scale=1e9) for c in model.calibration))
    assert np.all(np.isfinite(forecasts_of(model, *row_of(model))))
