"""A model is valid by construction: whatever does not fit is named with its value and a mend."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from penstock_kernels.model import Calibration, Horizon, HorizonKind, Model, ModelError
from support.models import HORIZONS, random_model

MODEL = random_model(1, units=20, fan_in=3)


def changed(name: str, position: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    array = getattr(MODEL, name).copy()
    array[position] = value
    return {name: array}


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("name must be 1 to 64 printable characters: name=''", {"name": ""}),
        ("name must be 1 to 64", {"name": "a\nb"}),
        ("version must be 0 to 64", {"version": "v" * 65}),
        ("notice must say why the model is a demonstration", {"notice": ""}),
        ("demonstration must be true or false: demonstration=1", {"demonstration": 1}),
        ("training must be a JSON object", {"training": []}),
        ("training must be JSON without NaN", {"training": {"auc": float("nan")}}),
        ("training must be JSON", {"training": {"array": np.zeros(2)}}),
        ("topology must be one of: cyclic, sparse, dense: topology='ring'", {"topology": "ring"}),
        ("topology must be a text", {"topology": []}),
        ("seed must be an integer of 0 to", {"seed": -1}),
        ("rebuild_ticks must be an integer of 1 to 1000000: rebuild_ticks=0", {"rebuild_ticks": 0}),
        ("rebuild_ticks must be an integer", {"rebuild_ticks": 2.0}),
        ("bias must have shape (units,)", {"bias": np.zeros((2, 2), np.float32)}),
        ("bias must have shape (units,)", {"bias": np.float32(1)}),
        ("connections must have shape (fan_in,)", {"connections": np.arange(65)}),
        ("connections must be in 0 to units - 1 = 19: connection=20", {"connections": np.array([1, 2, 20])}),
        ("connections must be int64: connections.dtype=float64", {"connections": np.array([1.0, 2.0, 3.0])}),
        ("recurrent must have shape (fan_in, units) = (3, 20)", {"recurrent": np.zeros((3, 19), np.float32)}),
        ("recurrent must be finite and at most 1e+09 in size: recurrent[1, 4]=nan", changed("recurrent", (1, 4), np.nan)),
        ("input_weights must be finite", changed("input_weights", (0, 0), np.inf)),
        ("readout must be finite and at most 1e+09 in size: readout[2, 3]=2e+09", changed("readout", (2, 3), 2e9)),
        ("leak must be above 0 and at most 1: leak=0.0", changed("leak", (7,), 0.0)),
        ("leak must be above 0 and at most 1: leak=1.5", changed("leak", (7,), 1.5)),
        ("features must be a tuple of names", {"features": list(MODEL.features)}),
        ("features must be 1 to 64", {"features": ()}),
        ("features must be of this version's list", {"features": ("vibes", *MODEL.features[1:])}),
        ("features must be named once each", {"features": (*MODEL.features[:-1], MODEL.features[0])}),
        ("feature_scale must be above 0: feature_scale=0.0 for microprice_ticks", changed("feature_scale", (1,), 0.0)),
        ("feature_mean must be finite", changed("feature_mean", (1,), np.nan)),
        ("feature_mean must have shape (inputs,) = (16,)", {"feature_mean": np.zeros(3)}),
        ("clip must be above 0: clip=0.0", {"clip": 0.0}),
        ("clip must be a number of at most 1e+09 in size: clip=nan", {"clip": float("nan")}),
        ("horizons must be 1 to 4", {"horizons": ()}),
        ("horizons must have different names", {"horizons": (HORIZONS[0],) * 3}),
        ("horizon must be a Horizon", {"horizons": ("next",) * 3}),
        ("events of horizon '50ev' must be an integer of 1 to", {"horizons": (Horizon("50ev", HorizonKind.EVENTS),)}),
        ("duration_ns of horizon '1s' must be an integer of 1 to", {"horizons": (Horizon("1s", HorizonKind.TIME),)}),
        (
            "duration_ns of horizon '5ev' must be an integer of 0 to 0",
            {"horizons": (Horizon("5ev", HorizonKind.EVENTS, events=5, duration_ns=1),)},
        ),
        (
            "events of horizon 'next' must be an integer of 0 to 0",
            {"horizons": (Horizon("next", HorizonKind.NEXT_MOVE, events=1),)},
        ),
        ("readout must have shape (3 * horizons, columns) = (9, 37)", {"readout": np.zeros((9, 36), np.float32)}),
        ("readout must have shape", {"horizons": HORIZONS}),
        ("calibration must be one per horizon: calibrations=1, horizons=3", {"calibration": (Calibration(),)}),
        ("deviation of horizon 'next' must not be negative: -1.0", {"calibration": (Calibration(deviation=-1.0),) * 3}),
        ("moved_slope of horizon 'next'", {"calibration": (Calibration(moved_slope=float("inf")),) * 3}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_name_and_value(sentence, changes):
    with pytest.raises(ModelError, match=re.escape(sentence)):
        replace(MODEL, **changes)


def test_arrays_are_copies_that_cannot_be_written():
    bias = np.zeros(20, dtype=np.float32)
    model: Model = replace(MODEL, bias=bias)
    bias[0] = 1.0
    assert model.bias[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        model.bias[0] = 1.0


def test_sizes_follow_from_the_arrays():
    assert (MODEL.units, MODEL.fan_in, MODEL.inputs, MODEL.outputs) == (20, 3, 16, 9)
