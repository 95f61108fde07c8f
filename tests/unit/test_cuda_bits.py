"""The CUDA kernel of a micro-batch, compiled for the host: its bits are the CPU engine's."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1.records import UNDEFINED_PRICE
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.packed import MEMORY_COLUMNS, UNITS, pack, padded
from support.host_device import host_device
from support.kernel_rig import Batch, KernelRig
from support.models import HORIZONS, random_model
from support.tick_arrays import quotes

MODELS = {
    "cyclic of 64": {"units": 64},
    "cyclic of 50 units": {"units": 50, "horizons": HORIZONS},
    "cyclic of 100, products and memory": {
        "units": 100,
        "fan_in": 9,
        "products": 32,
        "memory_gains": (0.1, 0.02),
        "memory_lags": 2,
    },
    "sparse of 50": {"units": 50, "topology": "sparse", "horizons": HORIZONS[:1]},
    "sparse of 140": {"units": 140, "topology": "sparse", "fan_in": 3},
    "dense of 50": {"units": 50, "topology": "dense"},
    "cyclic by seconds": {"units": 70, "time_base": "seconds", "memory_lags": 1},
    "sparse of three features": {"units": 33, "topology": "sparse", "features": ("trade", "imbalance", "depth_log")},
}


@pytest.fixture(scope="module")
def device():
    with host_device() as opened:
        yield opened


def market_ticks(count, seed=1):
    """Quotes with trades, one-sided, crossed and empty books and a clock that steps back."""
    ticks = quotes(count, seed=seed)
    noise = np.random.default_rng(seed)
    kind = noise.integers(0, 12, count)
    trades = kind < 4
    ticks["action"][trades] = ord("T")
    ticks["side"][trades] = noise.choice([ord("A"), ord("B"), ord("N")], trades.sum())
    ticks["size"][trades] = noise.integers(0, 900, trades.sum())
    ticks["bid_px"][kind == 4] = UNDEFINED_PRICE
    ticks["ask_px"][kind == 5] = UNDEFINED_PRICE
    ticks["bid_px"][kind == 6] += 30_000_000
    ticks["bid_sz"][kind == 7] = ticks["ask_sz"][kind == 7] = 0
    ticks["ts_recv"][kind == 8] -= np.uint64(9_000_000)
    return ticks


def assert_same_bits(results, forecasts, flags):
    assert (results["fault"] == 0).all()
    np.testing.assert_array_equal(results["flags"], flags)
    np.testing.assert_array_equal(results["forecasts"].view(np.uint32), forecasts.view(np.uint32))


def cpu(packed, ticks):
    place, flags = new_place(packed), np.empty(len(ticks), np.int64)
    return run_predictions(packed, ticks, place, flags), flags, place


@pytest.mark.parametrize("name", MODELS)
def test_forecasts_and_states_have_the_bits_of_the_cpu(device, name):
    packed = pack(random_model(3, **MODELS[name]))
    ticks = market_ticks(70)
    rig = KernelRig(device, [packed], items_max=32)
    parts = np.split(ticks, [1, 2, 12, 40])
    results = np.concatenate([rig.launch([Batch(0, part)]) for part in parts])
    forecasts, flags, place = cpu(packed, ticks)
    assert_same_bits(results, forecasts, flags)
    states, running = rig.read_states()
    units, memory = int(packed.header[UNITS]), int(packed.header[MEMORY_COLUMNS])
    np.testing.assert_array_equal(running[0].view(np.int64), place.running.view(np.int64))
    np.testing.assert_array_equal(states[0, :units].view(np.uint32), place.state[:units].view(np.uint32))
    assert (states[0, units : padded(units)] == 0).all()
    kept = states[0, padded(units) : padded(units) + memory]
    np.testing.assert_array_equal(kept.view(np.uint32), place.state[2 * units + 16 :].view(np.uint32))
