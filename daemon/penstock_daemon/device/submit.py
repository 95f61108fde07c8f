"""Handing a micro-batch to the device, and waiting for it: the only two places that know how that is done.

    submit    bells are rung if a resident kernel is for all of its models (``bells.py``); else the head of the work is
              written, and the smallest graph that holds the blocks is launched
    wait      the loop looks at the done word until it is the launch's number, and asks the driver now and then

A launch may have more blocks than the head says; the extra ones only arrive. What a launch writes is visible once
DONE_NUMBER is its number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon.device import memory
from penstock_daemon.device.bells import forget_kept, ring, suits_resident, wait_for_bells
from penstock_daemon.device.patience import IDLE, LOOKS, begin_waiting, still_waits
from penstock_daemon.native import call_with_two, clock_ns, fence, load_acquire, store_release
from penstock_kernels.cuda import layout

_compile = njit(nogil=True, cache=True, error_model="numpy")
# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_MONOTONIC = np.int32(1)
_COPIED = int(memory.Transfer.COPIED)
_NONE = int(memory.DeviceFault.NONE)
_LAUNCH = int(memory.DeviceFault.LAUNCH)
_VANISHED = int(memory.DeviceFault.VANISHED)
_KERNEL = int(memory.DeviceFault.KERNEL)


@_part
def submit(d: Any) -> int:
    """Hand BATCH_BLOCKS blocks of BATCH_ITEMS items to the device; returns a DeviceFault.

    Args:
        d: DeviceBuffers; the work's slots are written. NUMBER, LAUNCHED_NS and the counters are overwritten.
    """
    if suits_resident(d):
        return ring(d)
    fault = forget_kept(d)
    if fault != _NONE:
        return fault
    held = d.words[memory.BATCH_BLOCKS]
    if d.settings[memory.TRANSFER] == _COPIED:
        held = max(held, d.words[memory.BATCH_ITEMS])  # The copy must reach the last item.
    bucket = 0
    while 1 << bucket < held:
        bucket += 1
    return launch_graph(d, bucket)


@_part
def launch_graph(d: Any, bucket: int) -> int:
    """Write the head of the work and launch the graph of 2^bucket blocks; returns a DeviceFault. As submit."""
    number = d.words[memory.NUMBER] + 1
    d.words[memory.NUMBER] = number
    d.words[memory.RUNG] = 0
    d.work_words[0, memory.HEAD_NUMBER] = number
    d.work_halves[0, memory.HEAD_BLOCKS] = d.words[memory.BATCH_BLOCKS]
    d.words[memory.LAUNCHED_NS] = clock_ns(_MONOTONIC)
    fence()
    code = call_with_two(d.settings[memory.LAUNCH_ADDRESS], d.graphs[bucket], d.settings[memory.STREAM])
    if code != 0:
        d.words[memory.FAULT_DETAIL] = code
        return _LAUNCH
    store_release(d.words, memory.LAUNCHES, d.words[memory.LAUNCHES] + 1)
    store_release(d.words, memory.ITEMS, d.words[memory.ITEMS] + d.words[memory.BATCH_ITEMS])
    return _NONE


@_compile
def run_empty(d: Any, bucket: int) -> int:
    """Launch the graph of 2^bucket blocks without any work, and wait for it; returns a DeviceFault. For start-up."""
    d.words[memory.BATCH_BLOCKS] = 0
    d.words[memory.BATCH_ITEMS] = 0
    fault = launch_graph(d, bucket)
    return wait(d) if fault == _NONE else fault


@_part
def wait(d: Any) -> int:
    """Wait until the last launch is complete; returns a DeviceFault.

    Args:
        d: DeviceBuffers; SEEN_NS and the bounds of the device's clock are overwritten.
    """
    if d.words[memory.RUNG] != 0:
        fault = wait_for_bells(d)
        return _judge(d) if fault == _NONE else fault
    number = d.words[memory.NUMBER]
    begin_waiting(d)
    looks = 0
    while load_acquire(d.done, layout.DONE_NUMBER) != number:
        looks += 1
        if looks % LOOKS != 0:
            continue
        fault = still_waits(d, d.settings[memory.STREAM])
        if fault != _NONE and load_acquire(d.done, layout.DONE_NUMBER) != number:  # It may have come meanwhile.
            if fault != IDLE:
                return fault
            d.words[memory.FAULT_DETAIL] = number
            return _VANISHED
    d.words[memory.SEEN_NS] = clock_ns(_MONOTONIC)
    return _judge(d)


@_part
def _judge(d: Any) -> int:
    """Return KERNEL if a block or an item of the launch was refused; else take in what it says of the device's clock."""
    fault = d.done[layout.DONE_FAULT]
    first_ns = d.done[layout.DONE_CLOCK_NS]
    for item in range(d.words[memory.BATCH_ITEMS]):
        if d.result_halves[item, memory.RESULT_FAULT] != 0:
            fault = d.result_halves[item, memory.RESULT_FAULT]
        first_ns = min(first_ns, d.result_words[item, memory.RESULT_STARTED_NS])
    if fault != 0:
        d.words[memory.FAULT_DETAIL] = fault
        return _KERNEL
    # No block began before the launch, and its end was not seen before it was: both bound how the clocks differ. What
    # was known before is let go by 1 part in 4,096 of the time since, more than two clocks drift apart.
    seen_ns = d.words[memory.SEEN_NS]
    low_ns = d.done[layout.DONE_CLOCK_NS] - seen_ns
    high_ns = first_ns - d.words[memory.LAUNCHED_NS]
    slack_ns = (seen_ns - d.words[memory.CLOCK_AT_NS]) >> 12
    known_low_ns = max(low_ns, d.words[memory.CLOCK_LOW_NS] - slack_ns)
    known_high_ns = min(high_ns, d.words[memory.CLOCK_HIGH_NS] + slack_ns)
    if known_low_ns <= known_high_ns:
        low_ns, high_ns = known_low_ns, known_high_ns
    d.words[memory.CLOCK_LOW_NS] = low_ns
    d.words[memory.CLOCK_HIGH_NS] = high_ns
    d.words[memory.CLOCK_AT_NS] = seen_ns
    return _NONE
