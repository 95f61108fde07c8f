"""The CUDA kernel of a micro-batch, compiled for the host: its bits are the CPU engine's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from penstock.v1.records import UNDEFINED_PRICE, PredictionFlag
from penstock_kernels.cuda import layout
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.half_weights import nearest_half
from penstock_kernels.packed import MEMORY_COLUMNS, UNITS, pack, padded
from support.host_device import LAST_TO_FIRST, SHUFFLED, host_device
from support.kernel_rig import Batch, KernelRig
from support.models import HORIZONS, random_model
from support.tick_arrays import odd_ticks, quotes

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


@pytest.mark.parametrize("topology", ["cyclic", "sparse"])
def test_a_thread_owns_several_units_of_a_large_state(device, topology):
    packed = pack(random_model(3, units=1100, topology=topology, products=512))
    ticks = market_ticks(6)
    rig = KernelRig(device, [packed], items_max=6, bounds=(1100, 1648, 0))
    assert rig.plan.threads == 512
    assert_same_bits(rig.launch([Batch(0, ticks)]), *cpu(packed, ticks)[:2])


def test_states_of_several_models_share_a_launch_and_never_touch(device):
    models = [pack(random_model(seed, **MODELS[name])) for seed, name in enumerate(list(MODELS)[:5])]
    rig = KernelRig(device, models, states=9, items_max=40)
    streams = {2 * slot: market_ticks(8, seed=slot) for slot in range(5)}
    before = rig.read_states()[0]
    answers = {state: [] for state in streams}
    for part in (slice(0, 1), slice(1, 8)):
        batches = [Batch(state, ticks[part], model=state // 2) for state, ticks in streams.items()]
        results = rig.launch(batches[::-1])
        for batch in batches[::-1]:
            answers[batch.state].append(results[: len(batch.ticks)])
            results = results[len(batch.ticks) :]
    for state, ticks in streams.items():
        forecasts, flags, _ = cpu(models[state // 2], ticks)
        assert_same_bits(np.concatenate(answers[state]), forecasts, flags)
    after, running = rig.read_states()
    np.testing.assert_array_equal(after[1::2], before[1::2])
    assert not running[1::2].any()


def test_a_launch_of_many_gives_the_bits_of_launches_of_one(device):
    packed = pack(random_model(5, **MODELS["cyclic of 100, products and memory"]))
    streams = [market_ticks(11, seed=seed) for seed in range(3)]
    together = KernelRig(device, [packed], states=3, items_max=33)
    alone = KernelRig(device, [packed], states=3, items_max=33)
    results = together.launch([Batch(state, ticks) for state, ticks in enumerate(streams)], blocks=8)
    singly = [alone.launch([Batch(s, ticks[i : i + 1])]) for s, ticks in enumerate(streams) for i in range(11)]
    for name in ("forecasts", "flags", "fault"):
        assert results[name].tobytes() == np.concatenate(singly)[name].tobytes()
    assert together.read_states()[0].tobytes() == alone.read_states()[0].tobytes()


@pytest.mark.parametrize("order", [LAST_TO_FIRST, SHUFFLED, SHUFFLED + 1])
def test_the_order_of_threads_changes_no_bit(device, order):
    packed = pack(random_model(3, **MODELS["cyclic of 100, products and memory"]))
    ticks = market_ticks(20)
    rig = KernelRig(device, [packed], items_max=20)
    device.set_order(order)
    try:
        results = rig.launch([Batch(0, ticks)])
    finally:
        device.set_order(0)
    assert_same_bits(results, *cpu(packed, ticks)[:2])


def test_a_cold_block_begins_with_zeros_whatever_the_memory_holds(device):
    packed = pack(random_model(3, **MODELS["cyclic of 100, products and memory"]))
    ticks = market_ticks(15)
    rig = KernelRig(device, [packed], items_max=16)
    rig.launch([Batch(0, market_ticks(9, seed=4))])
    assert_same_bits(rig.launch([Batch(0, ticks, cold=True)]), *cpu(packed, ticks)[:2])


def test_items_that_only_advance_answer_zeros_and_move_the_state(device):
    packed = pack(random_model(3, **MODELS["cyclic of 64"]))
    ticks = market_ticks(12)
    rig = KernelRig(device, [packed], items_max=16)
    advance = (0, 1, 5, 8, 9)
    results = rig.launch([Batch(0, ticks, advance=advance)])
    forecasts, flags, _ = cpu(packed, ticks)
    forecasts[list(advance)] = 0.0
    assert_same_bits(results, forecasts, flags)


@pytest.mark.parametrize("staged", [True, False])
def test_ticks_come_from_slots_or_from_elsewhere(device, staged):
    packed = pack(random_model(3, **MODELS["sparse of 50"]))
    ticks = market_ticks(19)
    rig = KernelRig(device, [packed], items_max=19, staged=staged)
    assert_same_bits(rig.launch([Batch(0, ticks)]), *cpu(packed, ticks)[:2])


@pytest.mark.parametrize("name", ["cyclic of 100, products and memory", "dense of 50"])
def test_what_shared_memory_has_no_room_for_goes_to_scratch_with_the_same_bits(device, name):
    packed = pack(random_model(3, **MODELS[name]))
    rig = KernelRig(device, [packed], states=2, items_max=20, shared_bytes_max=5_000)
    assert rig.plan.scratch_words > 0
    streams = [market_ticks(10, seed=seed) for seed in (1, 2)]
    results = rig.launch([Batch(state, ticks) for state, ticks in enumerate(streams)])
    for state, ticks in enumerate(streams):
        assert_same_bits(results[10 * state : 10 * state + 10], *cpu(packed, ticks)[:2])


def test_a_readout_that_shared_memory_has_no_room_for_gives_the_same_bits(device):
    packed = pack(random_model(3, **MODELS["cyclic of 50 units"]))
    ticks = market_ticks(9)
    rig = KernelRig(device, [packed], items_max=9, shared_bytes_max=8_000)
    assert rig.plan.scratch_words == 0
    assert_same_bits(rig.launch([Batch(0, ticks)]), *cpu(packed, ticks)[:2])


@pytest.mark.parametrize("name", ["cyclic of 100, products and memory", "sparse of 140", "dense of 50"])
def test_half_weights_give_the_bits_of_the_rounded_model(device, name):
    packed = pack(nearest_half(random_model(3, **MODELS[name])))
    ticks = market_ticks(20)
    rig = KernelRig(device, [packed], items_max=20, half=True)
    assert_same_bits(rig.launch([Batch(0, ticks)]), *cpu(packed, ticks)[:2])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", 2),
        ("state", -1),
        ("model", 1),
        ("model", -7),
        ("tick_offset", -8),
        ("tick_offset", 2),
        ("tick_offset", 2**62),
        ("tick_offset", "end"),
    ],
)
def test_what_is_out_of_bounds_is_answered_and_never_followed(device, field, value):
    packed = pack(random_model(3, units=64))
    rig = KernelRig(device, [packed, packed], states=3, items_max=4)
    rig.addresses |= {"states_count": 2, "models_count": 1}  # What is out of bounds is sound, and still not followed.
    value = rig.addresses["tick_bytes"] - 76 if value == "end" else value
    rig.write([Batch(0, market_ticks(1)), Batch(1, market_ticks(1))])
    rig.slots[0][field] = value
    rig.answers["forecasts"] = 7.0
    rig.ring(2)
    assert rig.answers["fault"][:2].tolist() == [layout.FAULT_STATE, 0]
    assert rig.done_words[layout.DONE_FAULT] == layout.FAULT_STATE
    assert (rig.answers["forecasts"][[0, 2, 3]] == 7.0).all()
    assert_same_bits(rig.answers[1:2], *cpu(packed, market_ticks(1))[:2])
    states, running = rig.read_states()
    assert not states[[0, 2]].any()
    assert not running[[0, 2]].any()


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (3, 2), (4, 1), (0, 0), (0, -3), (2**31 - 1, 2**31 - 1)])
def test_items_out_of_bounds_are_answered_in_the_done_words_alone(device, first, count):
    rig = KernelRig(device, [pack(random_model(3, units=64))], items_max=4)
    rig.write([Batch(0, market_ticks(1))])
    rig.slots[0]["first"], rig.slots[0]["count"] = first, count
    before = rig.results.bytes.copy()
    rig.ring(1)
    assert rig.done_words[layout.DONE_FAULT] == layout.FAULT_STATE
    np.testing.assert_array_equal(rig.results.bytes, before)
    assert not rig.read_states()[0].any()


def test_a_launch_stamps_its_items_and_says_when_it_is_complete(device):
    rig = KernelRig(device, [pack(random_model(3, units=64))], items_max=12)
    for number in (1, 2, 3):
        results = rig.launch([Batch(0, market_ticks(12))])
        assert rig.done_words[layout.DONE_NUMBER] == number
        assert (results["started_ns"] < results["done_ns"]).all()
        assert (np.diff(results["done_ns"]) > 0).all()
        assert rig.done_words[layout.DONE_CLOCK_NS] > results["done_ns"][-1]
    assert rig.done_words[layout.DONE_FAULT] == 0


def test_an_average_of_an_input_long_quiet_becomes_zero(device):
    packed = pack(random_model(3, units=33, features=("trade", "last_move"), memory_gains=(0.9,)))
    ticks = quotes(45, seed=2)
    ticks["action"][0] = ord("T")
    rig = KernelRig(device, [packed], items_max=45)
    rig.launch([Batch(0, ticks[:20])])
    assert 0.0 < rig.read_states()[0][0, padded(33)] < 1e-15
    rig.launch([Batch(0, ticks[20:])])
    assert rig.read_states()[0][0, padded(33)] == 0.0


@settings(max_examples=25, deadline=None)
@given(ticks=odd_ticks(max_size=12))
def test_odd_ticks_have_the_bits_of_the_cpu(device, ticks):
    packed = pack(random_model(3, **MODELS["cyclic by seconds"]))
    if len(ticks) == 0:
        return
    rig = KernelRig(device, [packed], items_max=12)
    forecasts, flags, _ = cpu(packed, ticks)
    by_the_engine = int(PredictionFlag.BOOK_UNSOUND)  # Which reads it from the tick for both.
    assert_same_bits(rig.launch([Batch(0, ticks)]), forecasts, flags & ~by_the_engine)
