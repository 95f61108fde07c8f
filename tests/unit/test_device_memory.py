"""The memory of a device engine: what the kernel is told, what lies where, and that sizes are what their parts add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from penstock_daemon.device.backend import DeviceError
from penstock_daemon.device.device import Device
from penstock_daemon.device.graphs import copies
from penstock_daemon.device.memory import DeviceMemory, DeviceSizes, Transfer, take_memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_kernels.cuda import layout
from support.device_engines import DEVICE_SIZES, device_settings
from support.host_device import HostDevice, host_device

SIZES = DeviceSizes(DEVICE_SIZES, items_max=16, state_words=80)


@pytest.fixture
def host() -> Iterator[HostDevice]:
    with host_device() as host:
        yield host


def arguments(held: DeviceMemory, **given: int) -> dict[str, int]:
    """Return the kernel's arguments by name."""
    return dict(zip(layout.ARGUMENTS, held.arguments(**given), strict=True))


def test_kernel_finds_work_and_results_where_the_host_has_them(host: HostDevice) -> None:
    held = take_memory(host, SIZES)
    found = arguments(held)
    assert [found[name] for name in ("work", "results", "done")] == [
        held.host[name] for name in ("work", "results", "done")
    ]
    assert (found["ticks"], found["tick_bytes"]) == (found["work"], 17 * layout.SLOT_BYTES), (
        "staged ticks lie in the work"
    )
    assert found["states"] != 0
    assert (found["halves"], found["half_words"], found["scratch"]) == (0, 0, 0), (
        "nothing is taken for what is not there"
    )
    assert (found["states_count"], found["models_count"], found["items_max"], found["state_words"]) == (9, 3, 16, 80)
    assert found["weight_words"] == DEVICE_SIZES.weight_words


def test_ticks_in_place_are_told_by_their_own_address(host: HostDevice) -> None:
    held = take_memory(host, replace(SIZES, transfer=Transfer.IN_PLACE))
    found = arguments(held, ticks=4096, tick_bytes=8192)
    assert (found["ticks"], found["tick_bytes"]) == (4096, 8192)


def test_copied_work_is_read_from_the_device_and_results_come_before_the_done_word(host: HostDevice) -> None:
    held = take_memory(host, replace(SIZES, transfer=Transfer.COPIED))
    found = arguments(held)
    for name in ("work", "results", "done"):
        assert found[name] == held.device[f"{name}_copy"] != held.host[name]
    assert found["ticks"] == found["work"]
    (copy_in,), (results, done) = copies(held, 4)
    assert (copy_in.destination, copy_in.source, copy_in.size_bytes) == (found["work"], held.host["work"], 5 * 128)
    assert (results.destination, results.size_bytes) == (held.host["results"], 4 * 128)
    assert (done.destination, done.source) == (held.host["done"], found["done"])
    assert copies(take_memory(host, SIZES), 4) == ((), ())


def test_parts_share_no_line_and_views_share_their_memory(host: HostDevice) -> None:
    held = take_memory(host, SIZES)
    buffers = held.buffers
    starts = sorted(held.host.values())
    assert all(address % layout.SLOT_BYTES == 0 for address in starts)
    assert len(set(starts)) == len(starts)
    buffers.work_words[3, 0] = 5 + (7 << 32)
    assert buffers.work_halves[3, :2].tolist() == [5, 7]
    buffers.result_halves[2] = np.arange(32)
    assert buffers.forecasts[2].view(np.int32).tolist() == np.arange(16).reshape(4, 4).tolist()
    assert buffers.result_words[2, 9] == 18 + (19 << 32)
    assert (buffers.cold == 1).all(), "no state was ever on the device"


def test_half_precision_takes_two_bytes_for_each_word_of_a_reservoir() -> None:
    half = replace(SIZES, half=True)
    assert half.device_bytes - SIZES.device_bytes == 2 * DEVICE_SIZES.model_slots * DEVICE_SIZES.reservoir_words
    assert half.pinned_bytes == SIZES.pinned_bytes


def test_every_byte_of_the_device_is_named_in_the_sum(host: HostDevice) -> None:
    before = host.counters.allocations
    held = take_memory(host, replace(SIZES, transfer=Transfer.COPIED, half=True, scratch_words=100))
    assert sum(held.sizes.device_parts.values()) == held.sizes.device_bytes
    assert host.counters.allocations - before == len(held.sizes.device_parts) + 1, "and one for the pinned memory"
    assert held.sizes.device_parts["scratch"] == 16 * 100 * 4


@pytest.mark.parametrize("items_max", [0, 3, 1000])
def test_batch_bound_must_be_a_power_of_two(items_max: int) -> None:
    with pytest.raises(
        ValueError, match=f"engine.device_batch_max must be a power of two: device_batch_max={items_max}"
    ):
        DeviceSizes(DEVICE_SIZES, items_max=items_max, state_words=80)


def test_buckets_reach_from_one_block_to_the_bound() -> None:
    assert SIZES.buckets == (1, 2, 4, 8, 16)


def test_device_that_is_too_small_says_what_to_lower(host: HostDevice) -> None:
    host.facts = replace(host.facts, memory_bytes=1 << 10)
    with pytest.raises(DeviceError, match=r"would take \d+ MiB, host shim has 0; lower sessions.states_max"):
        Engine(DEVICE_SIZES, EngineSettings(), Device(host, device_settings()))
