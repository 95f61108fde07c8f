"""The resident kernel, compiled for the host: bells in, the bits of the CPU out; and how it is left."""

from __future__ import annotations

import time

import numpy as np
import pytest

from penstock_kernels.cuda import layout
from penstock_kernels.cuda.resident import plan_resident
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.half_weights import nearest_half
from penstock_kernels.packed import MEMORY_COLUMNS, UNITS, pack, padded
from support.host_device import LAST_TO_FIRST, SHUFFLED, host_device
from support.kernel_rig import Batch
from support.models import HORIZONS, random_model
from support.resident_rig import ResidentRig
from support.tick_arrays import quotes

FEW = 64  # Threads that own units, so that small models take several of each.
REGISTERS = pack(
    random_model(
        3,
        units=140,
        fan_in=8,
        horizons=HORIZONS[:1],
        products=32,
        memory_gains=(0.1,),
        memory_lags=1,
        time_base="seconds",
    )
)
EVERYWHERE = {
    "units": 140,
    "fan_in": 20,
    "horizons": HORIZONS[:1],
}  # One of three rounds in registers, most of the rest
EVERYWHERE_BYTES, HALF_BYTES = 18 * 1024, 13 * 1024  # in shared memory, and 12 units in the cache.
MODELS = {
    "cyclic in registers": (REGISTERS, None),
    "cyclic in every place": (pack(random_model(3, **EVERYWHERE)), EVERYWHERE_BYTES),
    "sparse": (pack(random_model(3, units=140, topology="sparse", fan_in=3)), None),
    "dense in the cache": (pack(random_model(3, units=50, topology="dense")), 9 * 1024),
}
OTHER = pack(random_model(4, units=50, horizons=HORIZONS[:1]))


@pytest.fixture
def device():
    with host_device() as opened:
        yield opened


def resident_rig(device, *models, **settings):
    return ResidentRig(device, *models, unit_threads_max=FEW, **settings)


def cpu(packed, ticks):
    place, flags = new_place(packed), np.empty(len(ticks), np.int64)
    return run_predictions(packed, ticks, place, flags), flags, place


def assert_same_bits(packed, ticks, results):
    forecasts, flags, _ = cpu(packed, ticks)
    assert (results["fault"] == 0).all()
    np.testing.assert_array_equal(results["flags"], flags)
    np.testing.assert_array_equal(results["forecasts"].view(np.uint32), forecasts.view(np.uint32))


def assert_same_state(packed, ticks, rig, state=0):
    place = cpu(packed, ticks)[2]
    states, running = rig.read_states()
    units, memory = int(packed.header[UNITS]), int(packed.header[MEMORY_COLUMNS])
    np.testing.assert_array_equal(running[state].view(np.int64), place.running.view(np.int64))
    np.testing.assert_array_equal(states[state, :units].view(np.uint32), place.state[:units].view(np.uint32))
    kept = states[state, padded(units) : padded(units) + memory]
    np.testing.assert_array_equal(kept.view(np.uint32), place.state[2 * units + 16 :].view(np.uint32))


@pytest.mark.parametrize("name", MODELS)
def test_calls_have_the_bits_of_the_cpu_and_leave_its_state(device, name):
    (packed, shared_bytes), ticks = MODELS[name], quotes(30, seed=2)
    with ResidentRig(device, packed, shared_bytes_max=shared_bytes, unit_threads_max=FEW) as rig:
        results = [rig.call([Batch(0, part)]) for part in np.split(ticks, [1, 2, 3, 14])]
    assert_same_bits(packed, ticks, np.concatenate(results))
    assert_same_state(packed, ticks, rig)


def test_half_weights_have_the_bits_of_the_cpus_rounded_ones(device):
    packed, ticks = pack(nearest_half(random_model(3, **EVERYWHERE))), quotes(6)
    with ResidentRig(device, packed, half=True, shared_bytes_max=HALF_BYTES, unit_threads_max=FEW) as rig:
        results = [rig.call([Batch(0, part)]) for part in np.split(ticks, [1])]
    assert_same_bits(packed, ticks, np.concatenate(results))


@pytest.mark.parametrize("order", [LAST_TO_FIRST, SHUFFLED])
def test_the_order_of_threads_does_not_matter(order):
    ticks = quotes(12)
    with host_device(order=order) as device, resident_rig(device, REGISTERS, states=2) as rig:
        results = [rig.call([Batch(0, part), Batch(1, part)]) for part in np.split(ticks, [1, 4])]
    for state in (0, 1):
        own = np.concatenate([result[state * len(result) // 2 :][: len(result) // 2] for result in results])
        assert_same_bits(REGISTERS, ticks, own)


def test_states_of_several_blocks_take_turns(device):
    streams = [quotes(6, seed=seed) for seed in range(5)]
    with resident_rig(device, REGISTERS, states=5, blocks=2) as rig:
        found = [[] for _ in streams]
        for first, last in ((0, 1), (1, 3), (3, 6)):
            results = rig.call([Batch(state, ticks[first:last]) for state, ticks in enumerate(streams)])
            for state, part in enumerate(np.split(results, len(streams))):
                found[state].append(part)
    for state, ticks in enumerate(streams):
        assert_same_bits(REGISTERS, ticks, np.concatenate(found[state]))
        assert_same_state(REGISTERS, ticks, rig, state)


def test_a_cold_block_begins_with_zeros_whatever_is_kept(device):
    ticks = quotes(6)
    with resident_rig(device, REGISTERS) as rig:
        rig.call([Batch(0, quotes(4, seed=9))])
        assert_same_bits(REGISTERS, ticks, rig.call([Batch(0, ticks, cold=True)]))


def test_ticks_that_only_advance_have_no_forecast(device):
    ticks = quotes(6)
    with resident_rig(device, REGISTERS) as rig:
        results = rig.call([Batch(0, ticks, advance=(0, 3))])
    assert not results["forecasts"][[0, 3]].any()
    assert results["forecasts"][[1, 2, 4, 5]].any(axis=(1, 2)).all()
    assert_same_state(REGISTERS, ticks, rig)


def test_a_forgotten_state_may_be_walked_by_graphs_and_again_by_the_resident_kernel(device):
    ticks = quotes(9)
    with resident_rig(device, REGISTERS) as rig:
        results = [rig.call([Batch(0, ticks[:3])])]
        rig.forget()
        results.append(rig.launch([Batch(0, ticks[3:6])]))
        results.append(rig.call([Batch(0, ticks[6:])]))
    assert_same_bits(REGISTERS, ticks, np.concatenate(results))


def test_a_state_that_is_kept_is_not_read_again(device):
    ticks = quotes(6)
    with resident_rig(device, REGISTERS) as rig:
        results = [rig.call([Batch(0, ticks[:3])])]
        device.upload(rig.addresses["states"], np.full_like(rig.states, np.nan))
        results.append(rig.call([Batch(0, ticks[3:])]))
    assert_same_bits(REGISTERS, ticks, np.concatenate(results))


def test_another_model_and_a_state_out_of_bounds_are_refused_and_touch_nothing(device):
    with resident_rig(device, REGISTERS, OTHER, states=2) as rig:
        results = rig.call([Batch(0, quotes(2), model=1), Batch(7, quotes(1)), Batch(1, quotes(1))])
        assert results["fault"].tolist() == [layout.FAULT_STATE] * 3 + [0]
        assert rig.done_words[layout.DONE_FAULT] == layout.FAULT_STATE
        states, _ = rig.read_states()
    assert not states[0].any()


def test_a_first_slot_out_of_bounds_is_refused(device):
    with resident_rig(device, REGISTERS) as rig:
        rig.ring_bells({0: rig.items_max})
        assert rig.done_words[layout.DONE_FAULT] == layout.FAULT_STATE


def test_a_stop_says_so(device):
    with resident_rig(device, REGISTERS, blocks=2) as rig:
        rig.stop()
        assert rig.answer_words[:, layout.ANSWER_REASON].tolist() == [layout.REASON_STOPPED] * 2


def test_without_a_heartbeat_every_block_leaves_and_says_so(device):
    rig = resident_rig(device, REGISTERS, blocks=2, watchdog_ns=30_000_000)
    give_up_s = time.monotonic() + 60
    while (rig.answer_words[:, layout.ANSWER_CALL] != layout.ANSWER_ENDED).any():
        assert time.monotonic() < give_up_s
        time.sleep(0.001)
    assert rig.answer_words[:, layout.ANSWER_REASON].tolist() == [layout.REASON_WATCHDOG] * 2


def test_a_heartbeat_keeps_it(device):
    with resident_rig(device, REGISTERS, watchdog_ns=500_000_000) as rig:
        until_s = time.monotonic() + 0.8
        while time.monotonic() < until_s:
            rig.bell_words[0, layout.BELL_HEARTBEAT] += 1
            time.sleep(0.003)
        assert rig.answer_words[0, layout.ANSWER_CALL] == 0


def test_a_kernel_compiled_for_another_model_leaves_at_once(device):
    rig = resident_rig(device, REGISTERS, OTHER, resident_model=1)
    rig.wait(0, layout.ANSWER_ENDED)
    assert rig.answer_words[0, layout.ANSWER_REASON] == layout.REASON_MODEL


def test_a_model_whose_state_does_not_fit_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match=r"a model of 140 units can't stay resident: its state takes \d+ bytes"):
        plan_resident(REGISTERS.header, 4096)
