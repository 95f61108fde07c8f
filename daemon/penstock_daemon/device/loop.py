"""The engine's loop where a device predicts: one compiled call, as ``engine_loop.run``, that launches captured graphs.

    while not stopped:
        apply a command                           a state's rebuild is replayed on the device, a bounded part per pass
        take                                      ticks of segments that strategies have attached
        gather, submit, describe, wait, publish   ticks of all sources in one micro-batch
        the CPU's share                           online readouts; everything, once the device is lost
        idle, if there was nothing to do

A device that fails once is never asked again: every state that it held is rebuilt from its journal before its next
tick (``fallback.py``), and the micro-batch that failed is predicted there. Nothing here allocates, locks, logs, or
touches the interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon import engine_memory
from penstock_daemon.device import memory
from penstock_daemon.device.batch import describe_answers, gather, place, publish, write_item
from penstock_daemon.device.bells import beat
from penstock_daemon.device.fallback import cpu_share, leave_device
from penstock_daemon.device.submit import submit, wait
from penstock_daemon.engine_attachments import attached
from penstock_daemon.engine_segments import give_to_segment
from penstock_daemon.engine_ticks import drain
from penstock_daemon.engine_turns import (
    REBUILD_PART,
    REBUILD_STATE,
    RESET_STATE,
    command_done,
    commanded,
    end_pass,
    forget,
    journalled,
    own,
    rebuild_part,
    settle_source,
    stirs,
    turns_up,
)
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.native import clock_ns, load_acquire, store_release
from penstock_kernels.cuda import layout

_compile = njit(nogil=True, cache=True, error_model="numpy")
# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_MONOTONIC = np.int32(1)
_NONE = int(memory.DeviceFault.NONE)
_ASKED = int(memory.DeviceFault.ASKED)


@_compile
def run(m: Any, d: Any) -> None:
    """Run the engine until ``m.words[STOP]`` is set. m: Buffers. d: DeviceBuffers."""
    own(m)
    idle_since_ns = clock_ns(_MONOTONIC)
    while load_acquire(m.words, engine_memory.STOP) == 0:
        started_ns = clock_ns(_MONOTONIC)
        work = 0
        beat(d)
        if load_acquire(d.words, memory.GIVE_UP) != 0 and d.words[memory.FAULT] == _NONE:
            leave_device(m, d, _ASKED)
        if commanded(m):
            work += 1
            if apply_command(m, d):
                command_done(m)
        for at in range(m.words[engine_memory.OPEN_SOURCES]):
            if attached(m, m.open_sources[at]):
                stirs(m, m.open_sources[at], started_ns)
        if d.words[memory.FAULT] == _NONE:
            work += predict_batch(m, d)
        for at in range(m.words[engine_memory.OPEN_SOURCES]):
            source = m.open_sources[at]
            shared = attached(m, source)
            if turns_up(m, source):
                ready, marks, parts = cpu_share(m, d, source)
                work += parts
                if ready > 0:
                    work += drain(m, source, ready, marks)
                    if not shared:
                        wake_loop(m)
            if shared:
                work += give_to_segment(m, source)
        idle_since_ns = end_pass(m, work, started_ns, idle_since_ns)
    store_release(m.words, engine_memory.OWNER, 0)


@_part
def predict_batch(m: Any, d: Any) -> int:
    """Predict one micro-batch on the device. Returns how many ticks it answered; 0 if there were none, or it failed."""
    entries = gather(m, d)
    if entries == 0:
        return 0
    if d.words[memory.BATCH_ITEMS] == 0:  # Nothing but refusals.
        describe_answers(m, d)
        publish(m, d)
        return entries
    place(m, d)
    fault = submit(d)
    if fault == _NONE:
        describe_answers(m, d)
        fault = wait(d)
    if fault != _NONE:
        leave_device(m, d, fault)
        return 0
    publish(m, d)
    return entries


@_part
def apply_command(m: Any, d: Any) -> bool:
    """Apply the command whose turn it is; False if it needs another pass."""
    command = m.control[m.words[engine_memory.CONTROL_CONSUMED] & (m.control.shape[0] - 1)]
    state = command[1]
    if command[0] == RESET_STATE:
        forget(m, state)
        m.seen[state] = 0
        d.cold[state] = 1
        d.lost[state] = 0
        return True
    if command[0] == REBUILD_STATE:
        if d.words[memory.FAULT] == _NONE and m.online_of[state] == engine_memory.NO_ONLINE:
            return rebuild_on_device(m, d, state, command[2])
        if not rebuild_part(m, state, command[2]):
            return False
        d.lost[state] = 0
        return True
    settle_source(m, command)
    return True


@_part
def rebuild_on_device(m: Any, d: Any, state: int, model: int) -> bool:
    """Replay the next part of a state's journal through *model*; True once all of it is replayed.

    If the device fails, the CPU begins again at the next pass.
    """
    available = journalled(m, state, model)
    first = m.rebuilt[0]
    count = min(REBUILD_PART, available - first, d.entry_item.shape[0])
    if count > 0:
        row = d.work_halves[1]
        row[memory.BLOCK_STATE] = state
        row[memory.BLOCK_MODEL] = model
        row[memory.BLOCK_FIRST] = 0
        row[memory.BLOCK_COUNT] = count
        row[memory.BLOCK_FLAGS] = layout.BLOCK_COLD if first == 0 else 0
        depth = m.journal_words.shape[1]
        for index in range(count):
            kept = (m.seen[state] - available + first + index) % depth
            at = d.settings[memory.JOURNAL_AT] + (state * depth + kept) * engine_memory.TICK_SLOT_BYTES
            write_item(d, index, m.journal_words[state, kept], at, True)
        d.words[memory.BATCH_BLOCKS] = 1
        d.words[memory.BATCH_ITEMS] = count
        fault = submit(d)
        if fault == _NONE:
            fault = wait(d)
        if fault != _NONE:
            leave_device(m, d, fault)
            return False
    d.cold[state] = 1 if available == 0 else 0
    if first + count < available:
        m.rebuilt[0] = first + count
        return False
    m.rebuilt[0] = 0
    return True
