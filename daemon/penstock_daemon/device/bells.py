"""Work for the resident kernel: bells rung in the place of a launch, answers awaited in the place of the done word.

    a state belongs to resident block   state % blocks
    a call of a resident block          the slots of its states, hung together by each slot's "next"

Both kernels work on the same states. A resident block keeps the state that it walked last, so before a graph touches a
kept one its block is told to forget it; what the block has is in memory by then. The heartbeat is every pass's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon.device import memory
from penstock_daemon.device.patience import IDLE, LOOKS, begin_waiting, still_waits
from penstock_daemon.native import clock_ns, load_acquire, store_release
from penstock_kernels.cuda import layout

# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_MONOTONIC = np.int32(1)
_NONE = int(memory.DeviceFault.NONE)
_VANISHED = int(memory.DeviceFault.VANISHED)
_LEFT = int(memory.DeviceFault.LEFT)
_FIRST, _LAST, _HELD, _NOBODY = memory.CHAIN_FIRST, memory.CHAIN_LAST, memory.HELD_STATE, memory.NOBODY
_BELL, _BELL_WORDS = layout.BELL_CALL, layout.BELL_WORDS
_ANSWER, _ANSWER_WORDS = layout.ANSWER_CALL, layout.ANSWER_WORDS


@_part
def suits_resident(d: Any) -> bool:
    """Say whether every block of the micro-batch is the resident kernel's. d: DeviceBuffers."""
    model = load_acquire(d.words, memory.RESIDENT_MODEL)
    if model == _NOBODY or d.words[memory.BATCH_BLOCKS] == 0:
        return False
    for block in range(d.words[memory.BATCH_BLOCKS]):  # noqa: SIM110  # Compiled: a loop, no generator.
        if d.work_halves[1 + block, memory.BLOCK_MODEL] != model:
            return False
    return True


@_part
def ring(d: Any) -> int:
    """Ring for the micro-batch; returns NONE. d: DeviceBuffers; as of submit, and the resident blocks' notes."""
    for block in range(d.words[memory.BATCH_BLOCKS]):
        row = d.work_halves[1 + block]
        row[memory.BLOCK_NEXT] = layout.LAST_SLOT
        state = row[memory.BLOCK_STATE]
        notes = d.resident[state % d.settings[memory.RESIDENT_BLOCKS]]
        if notes[_LAST] == _NOBODY:
            notes[_FIRST] = block
        else:
            d.work_halves[1 + notes[_LAST], memory.BLOCK_NEXT] = block
        notes[_LAST] = block
        notes[_HELD] = state
    d.words[memory.RUNG] = 1
    _call(d)
    store_release(d.words, memory.LAUNCHES, d.words[memory.LAUNCHES] + 1)
    store_release(d.words, memory.ITEMS, d.words[memory.ITEMS] + d.words[memory.BATCH_ITEMS])
    return _NONE


@_part
def forget_kept(d: Any) -> int:
    """Have resident blocks forget the states of the micro-batch that they keep; returns a DeviceFault.

    Args:
        d: DeviceBuffers; as of ring.
    """
    blocks = d.settings[memory.RESIDENT_BLOCKS]
    if blocks == 0:
        return _NONE
    kept = 0
    for block in range(d.words[memory.BATCH_BLOCKS]):
        state = d.work_halves[1 + block, memory.BLOCK_STATE]
        notes = d.resident[state % blocks]
        if notes[_HELD] == state:
            notes[_FIRST] = layout.CALL_FORGET
            notes[_LAST] = 0
            notes[_HELD] = _NOBODY
            kept += 1
    if kept == 0:
        return _NONE
    _call(d)
    return wait_for_bells(d)


@_part
def _call(d: Any) -> None:
    """Ring the bells of all blocks whose notes have a chain."""
    number = d.words[memory.NUMBER] + 1
    d.words[memory.NUMBER] = number
    call = (number & (layout.CALL_NUMBERS - 1)) << layout.CALL_NUMBER_SHIFT
    d.words[memory.LAUNCHED_NS] = clock_ns(_MONOTONIC)
    for block in range(d.settings[memory.RESIDENT_BLOCKS]):
        if d.resident[block, _LAST] != _NOBODY:
            store_release(d.bells, block * _BELL_WORDS + _BELL, call | d.resident[block, _FIRST])


@_part
def wait_for_bells(d: Any) -> int:
    """Wait until all blocks that were called have answered; returns a DeviceFault.

    Args:
        d: DeviceBuffers; SEEN_NS and DONE_CLOCK_NS are overwritten, the notes have no chains any more.
    """
    begin_waiting(d)
    last_ns = np.int64(0)
    looks = 0
    for block in range(d.settings[memory.RESIDENT_BLOCKS]):
        if d.resident[block, _LAST] == _NOBODY:
            continue
        call = d.bells[block * _BELL_WORDS + _BELL]
        place = block * _ANSWER_WORDS
        while load_acquire(d.answers, place + _ANSWER) != call:
            looks += 1
            fault = _NONE
            if looks % LOOKS == 0:
                fault = still_waits(d, d.settings[memory.RESIDENT_STREAM])
            answer = load_acquire(d.answers, place + _ANSWER)  # It may have come meanwhile.
            if answer == layout.ANSWER_ENDED:
                d.words[memory.FAULT_DETAIL] = d.answers[place + layout.ANSWER_REASON]
                return _LEFT
            if fault != _NONE and answer != call:
                if fault != IDLE:
                    return fault
                d.words[memory.FAULT_DETAIL] = d.words[memory.NUMBER]
                return _VANISHED
        last_ns = max(last_ns, d.answers[place + layout.ANSWER_CLOCK_NS])
        d.resident[block, _LAST] = _NOBODY
    d.words[memory.SEEN_NS] = clock_ns(_MONOTONIC)
    d.done[layout.DONE_CLOCK_NS] = last_ns
    return _NONE


@_part
def beat(d: Any) -> None:
    """Let the resident kernel hear that the engine lives. d: DeviceBuffers; the bells."""
    if d.settings[memory.RESIDENT_BLOCKS] > 0:
        store_release(d.bells, layout.BELL_HEARTBEAT, d.bells[layout.BELL_HEARTBEAT] + 1)


@_part
def stop_resident(d: Any) -> None:
    """Ask the resident kernel to leave; it answers by ANSWER_ENDED. d: DeviceBuffers; the bells, and no model is its."""
    store_release(d.words, memory.RESIDENT_MODEL, _NOBODY)
    for block in range(d.settings[memory.RESIDENT_BLOCKS]):
        store_release(d.bells, block * _BELL_WORDS + _BELL, layout.BELL_STOP)
