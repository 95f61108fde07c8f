"""How long the loop waits for a device, and how: a look at the clock, a question to the driver, a nap where that is meant.

A word that does not come may be late, may never come, or may not come any more: the timeout, the driver's error and its
idle stream tell them apart. Time counts from when the loop begins to look: a driver or a scheduler that kept it longer
than that before is no fault of the launch. A large model takes milliseconds for a burst on one state, which a block walks
tick by tick: so the timeout is granted once more for every so many ticks. Who gives the device up ends the wait.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock_daemon.device import memory
from penstock_daemon.device.backend import NOT_READY
from penstock_daemon.native import call_with_one, clock_ns, load_acquire, nap_ns

TICKS_PER_TIMEOUT: Final = 16
LOOKS: Final = 64  # At the word between two at the clock.
IDLE: Final = -1  # The stream has nothing to do any more: the word is there by now, or never comes.

# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_MONOTONIC = np.int32(1)
_NONE = int(memory.DeviceFault.NONE)
_QUERY = int(memory.DeviceFault.QUERY)
_TIMEOUT = int(memory.DeviceFault.TIMEOUT)
_ASKED = int(memory.DeviceFault.ASKED)
_NAP_NS = 20_000


@_part
def begin_waiting(d: Any) -> None:
    """Begin to wait for what is handed over. d: DeviceBuffers; AWAITED_NS and ASKED_NS are overwritten."""
    d.words[memory.AWAITED_NS] = d.words[memory.ASKED_NS] = clock_ns(_MONOTONIC)


@_part
def still_waits(d: Any, stream: int) -> int:
    """Say whether it is worth while to look on; returns NONE for yes, IDLE, or a DeviceFault.

    Args:
        d: DeviceBuffers; ASKED_NS is overwritten. The wait was begun.
        stream: what the word is awaited from runs there.
    """
    awaited_ns, now_ns = d.words[memory.AWAITED_NS], clock_ns(_MONOTONIC)
    if load_acquire(d.words, memory.GIVE_UP) != 0:
        return _ASKED
    if now_ns - awaited_ns > d.settings[memory.TIMEOUT_NS] * (1 + d.words[memory.BATCH_ITEMS] // TICKS_PER_TIMEOUT):
        d.words[memory.FAULT_DETAIL] = now_ns - awaited_ns
        return _TIMEOUT
    if now_ns - d.words[memory.ASKED_NS] > d.settings[memory.QUERY_NS]:
        d.words[memory.ASKED_NS] = now_ns
        code = call_with_one(d.settings[memory.QUERY_ADDRESS], stream)
        if code == 0:
            return IDLE
        if code != NOT_READY:
            d.words[memory.FAULT_DETAIL] = code
            return _QUERY
    if now_ns - awaited_ns > d.settings[memory.SPIN_NS]:
        nap_ns(_NAP_NS)
    return _NONE
