"""Reservoir weights in half precision: what is rounded, what that moves, and which models are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock_daemon.model_table import ModelTable
from penstock_kernels.drive import run_predictions
from penstock_kernels.half_weights import RETURN_SHARE_MAX, ROUNDING, check_ticks, forecasts_moved, round_to_half
from penstock_kernels.model import ModelError
from penstock_kernels.model_file import default_model
from penstock_kernels.packed import pack
from support.models import random_model


@pytest.mark.parametrize("topology", ["cyclic", "sparse", "dense"])
def test_every_weight_of_the_reservoir_becomes_a_half_and_nothing_else_moves(topology):
    model = random_model(3, topology=topology, products=16)
    rounded = round_to_half(model)
    for name in ("bias", "input_weights", "recurrent"):
        before, after = getattr(model, name), getattr(rounded, name)
        assert np.array_equal(after, after.astype(np.float16))
        assert not np.array_equal(after, before)
        assert np.all(np.abs(after - before) <= np.maximum(ROUNDING * np.abs(before), 2.0**-25))
    for name in ("leak", "readout", "connections", "memory_gains"):
        assert np.array_equal(getattr(rounded, name), getattr(model, name))


def test_rounding_again_changes_nothing():
    once = round_to_half(random_model(4))
    assert np.array_equal(pack(round_to_half(once)).weights, pack(once).weights)


def test_default_model_moves_by_a_few_roundings_of_its_spread():
    model = default_model().model
    shares, probabilities = forecasts_moved(model, round_to_half(model))
    assert np.all(shares > 0.0)
    assert np.all(shares < 4 * ROUNDING)
    assert np.all(probabilities < 1e-3)


def test_model_whose_readout_cancels_large_terms_is_refused():
    """Its readout takes the difference of two units that differ by less than their rounding."""
    model = random_model(5)
    bias, inputs, recurrent, readout, leak = (
        getattr(model, name).copy() for name in ("bias", "input_weights", "recurrent", "readout", "leak")
    )
    inputs[:, 1], recurrent[:, :2], bias[:2], leak[:2] = inputs[:, 0] * 1.0001, 0.0, 0.1, leak[0]
    readout[:] = 0.0
    readout[0, :2] = 1e4, -1e4
    model = replace(model, bias=bias, input_weights=inputs, recurrent=recurrent, readout=readout, leak=leak)
    with pytest.raises(
        ModelError, match=r"the expected return of horizon 'next' moves by .* may be; set engine\.device_w"
    ):
        round_to_half(model)


def test_model_whose_probabilities_move_is_refused():
    model = random_model(6)
    steep = tuple(replace(calibration, direction_slope=1e4) for calibration in model.calibration)
    with pytest.raises(ModelError, match=r"a probability of horizon .* moves by"):
        round_to_half(replace(model, calibration=steep))


def test_weight_beyond_half_precision_is_refused():
    model = random_model(7)
    inputs = model.input_weights.copy()
    inputs[0, 0] = 70_000.0
    with pytest.raises(ModelError, match="input_weights reaches 70000, float16 ends at 65504"):
        round_to_half(replace(model, input_weights=inputs))


def test_check_ticks_move_every_forecast_of_a_model():
    forecasts = run_predictions(pack(random_model(8)), check_ticks())[256:, :3]
    assert np.all(np.std(forecasts[:, :, [0, 2, 3]], axis=0) > [1e-6, 1e-2, 1e-2])
    assert RETURN_SHARE_MAX == 1 / 64


def test_half_weights_reach_the_slot_and_the_hash_stays_the_file_s():
    loaded = default_model()
    table = ModelTable(engine := _Slots(), "", half=True)
    entry = table.load_first("")
    assert np.array_equal(engine.packed.weights, pack(round_to_half(loaded.model)).weights)
    assert entry.content_hash == loaded.content_hash
    ModelTable(engine, "").load_first("")
    assert np.array_equal(engine.packed.weights, pack(loaded.model).weights)


class _Slots:
    """The part of an engine that a table of models writes to."""

    class sizes:  # noqa: N801 - Stands where an engine has its sizes.
        model_slots = 2
        units_max = 4096
        inputs_max = 64
        fan_in_max = 64
        journal_ticks = 1_000_000
        weight_words = 10_000_000

    def load_model(self, slot, packed, serial):
        del slot, serial
        self.packed = packed
