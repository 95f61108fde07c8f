"""What the engine does beside ticks: apply commands, rebuild states from their journals, wake the loop, idle.

    commands    in order, one a pass; a rebuild takes a bounded part of a pass until it is done
    idle        look again, nap, or sleep until somebody signals; who sleeps has given the states away

The CPU's loop and a device's (``engine_loop.py``, ``device/loop.py``) are made of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_attachments import (
    attach_segment,
    attached,
    beat_segments,
    detach_segment,
    quiet,
    segment_ready,
    sleep_ms,
    tell_sleeping,
)
from penstock_daemon.engine_segments import take_from_segment
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.native import (
    clock_ns,
    compare_and_swap,
    fence,
    load_acquire,
    nap_ns,
    store_release,
)
from penstock_daemon.native_memory import wait_for_any
from penstock_kernels import predictor

_compile = njit(nogil=True, cache=True, error_model="numpy")
# For what compiled code alone calls: the way in from Python would cost as much to compile as the function.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

REBUILD_PART = 64  # Journal ticks replayed per pass, about 0.2 ms: other sources wait no longer.
RESET_STATE = int(memory.Command.RESET_STATE)
REBUILD_STATE = int(memory.Command.REBUILD_STATE)
_OPEN_SOURCE = int(memory.Command.OPEN_SOURCE)
_CLOSE_SOURCE = int(memory.Command.CLOSE_SOURCE)
_HOLD_SOURCE = int(memory.Command.HOLD_SOURCE)
_BIND_MODEL = int(memory.Command.BIND_MODEL)
_ATTACH_SEGMENT = int(memory.Command.ATTACH_SEGMENT)
_DETACH_SEGMENT = int(memory.Command.DETACH_SEGMENT)
_REBUILD_TICKS = predictor.REBUILD_TICKS
_SPIN = int(memory.Idle.SPIN)
_BLOCK = int(memory.Idle.BLOCK)
_MONOTONIC = np.int32(1)
_OWN_NAP_NS = 1_000
_BLOCK_TIMEOUT_MS = 200  # The engine looks at its rings this often even if nobody signals it.


# --- Commands ---------------------------------------------------------------------------------------------------------


@_part
def commanded(m: Any) -> bool:
    """Return whether a command waits; it is at the place CONTROL_CONSUMED of the control ring."""
    return load_acquire(m.words, memory.CONTROL_PUBLISHED) > m.words[memory.CONTROL_CONSUMED]


@_part
def command_done(m: Any) -> None:
    """Free the slot of the command that was applied, and tell the loop."""
    store_release(m.words, memory.CONTROL_CONSUMED, m.words[memory.CONTROL_CONSUMED] + 1)
    wake_loop(m)


@_part
def settle_source(m: Any, command: Any) -> None:
    """Apply a command that is about a source. Overwrites its row of m.source_table."""
    kind, row = command[0], m.source_table[command[1]]
    if kind == _OPEN_SOURCE:
        row[memory.SOURCE_MODEL] = command[2]
        row[memory.SOURCE_PATH] = command[3]
        row[memory.SOURCE_BULK] = command[4]
        row[memory.SOURCE_HELD] = 0
        if row[memory.SOURCE_OPEN] == 0:
            row[memory.SOURCE_OPEN] = 1
            list_open_sources(m)
    elif kind == _CLOSE_SOURCE:
        row[memory.SOURCE_OPEN] = 0
        list_open_sources(m)
    elif kind == _HOLD_SOURCE:
        row[memory.SOURCE_HELD] = 1
    elif kind == _BIND_MODEL:
        row[memory.SOURCE_MODEL] = command[2]
        row[memory.SOURCE_HELD] = 0
    elif kind == _ATTACH_SEGMENT:
        attach_segment(m, command)
    elif kind == _DETACH_SEGMENT:
        detach_segment(m, command)


@_part
def list_open_sources(m: Any) -> None:
    """List the sources that are open, so that no pass looks at the others. Overwrites m.open_sources."""
    count = 0
    for source in range(m.source_table.shape[0]):
        if m.source_table[source, memory.SOURCE_OPEN] == 1:
            m.open_sources[count] = source
            count += 1
    store_release(m.words, memory.OPEN_SOURCES, count)


@_compile
def forget(m: Any, state: int) -> None:
    """Make a state cold. Overwrites its rows of m.states and m.running."""
    for index in range(m.states.shape[1]):
        m.states[state, index] = np.float32(0.0)
    for index in range(m.running.shape[1]):
        m.running[state, index] = 0.0


@_part
def journalled(m: Any, state: int, model: int) -> int:
    """Return how many past ticks a rebuild of a state through *model* replays."""
    return min(m.seen[state], m.journal_words.shape[1], m.headers[model, _REBUILD_TICKS])


@_part
def replay_part(m: Any, state: int, model: int, first: int) -> int:
    """Replay a bounded part of a state's journal through *model* on the CPU, the state made cold before its first part.

    Returns:
        Where the next part begins; *first* again is never returned but for an empty journal, and the end is journalled().
    """
    header = m.headers[model]
    depth = m.journal.shape[1]
    available = journalled(m, state, model)
    if first == 0:
        forget(m, state)
    model_inputs = m.inputs
    last = min(first + REBUILD_PART, available)
    for index in range(first, last):
        tick = m.journal[state, (m.seen[state] - available + index) % depth]
        predictor.tick_features(header, m.constants[model], m.running[state], tick, model_inputs)
        predictor.advance_step(header, m.weights[model], m.states[state], model_inputs, m.scratch)
    return last


@_compile
def rebuild_part(m: Any, state: int, model: int) -> bool:
    """Go on with REBUILD_STATE, a part a pass; True once all of the journal is replayed. m.rebuilt: overwritten."""
    last = replay_part(m, state, model, m.rebuilt[0])
    if last < journalled(m, state, model):
        m.rebuilt[0] = last
        return False
    m.rebuilt[0] = 0
    return True


# --- Ownership, waking, idling ------------------------------------------------------------------------------------------


@_part
def own(m: Any) -> None:
    """Take the ownership of all states; who has it now gives it back within microseconds."""
    while not compare_and_swap(m.words, memory.OWNER, 0, 1):
        nap_ns(_OWN_NAP_NS)


@_part
def turns_up(m: Any, source: int) -> bool:
    """Return whether ticks of a source may be taken: it is open, and not held."""
    row = m.source_table[source]
    return row[memory.SOURCE_OPEN] == 1 and row[memory.SOURCE_HELD] == 0


@_part
def has_work(m: Any) -> bool:
    """Return whether any open source has a tick that the engine could take now, or an answer for its segment."""
    for place in range(m.words[memory.OPEN_SOURCES]):
        source = m.open_sources[place]
        if attached(m, source) and segment_ready(m, source, turns_up(m, source)):
            return True
        if turns_up(m, source):
            base = source * memory.CURSOR_WORDS
            waiting = load_acquire(m.cursors, base + memory.TICK_PUBLISHED) - m.cursors[base + memory.TICK_CONSUMED]
            kept = m.cursors[base + memory.PREDICTION_PUBLISHED] - load_acquire(
                m.cursors, base + memory.PREDICTION_CONSUMED
            )
            if waiting > 0 and kept < m.tick_slots.shape[1]:
                return True
    return False


@_part
def stirs(m: Any, source: int, looked_ns: int) -> bool:
    """Take what an attached segment holds. Returns whether there may be anything to do for its source in this pass.

    Args:
        m: Buffers.
        source: whose; it is attached.
        looked_ns: when the pass began.
    """
    if quiet(m, source, looked_ns):
        return False
    if turns_up(m, source):
        take_from_segment(m, source, looked_ns)
    return True


@_part
def end_pass(m: Any, work: int, started_ns: int, idle_since_ns: int) -> int:
    """Count a pass, and idle if it had nothing to do; the states may have another owner while the engine sleeps.

    Args:
        m: Buffers.
        work: what the pass did, 0 for nothing.
        started_ns: when it began.
        idle_since_ns: of the last call; when there was work last.

    Returns:
        When there was work last.
    """
    store_release(m.words, memory.PASSES, m.words[memory.PASSES] + 1)
    if m.words[memory.SEGMENTS] > 0:
        beat_segments(m, started_ns)
    if work > 0:
        now_ns = clock_ns(_MONOTONIC)
        store_release(m.words, memory.BUSY_NS, m.words[memory.BUSY_NS] + now_ns - started_ns)
        return now_ns
    idle = m.settings[memory.IDLE_KIND]
    if idle == _SPIN or started_ns - idle_since_ns < m.settings[memory.SPIN_NS]:
        return idle_since_ns
    if idle != _BLOCK:
        nap_ns(m.settings[memory.NAP_NS])
        return idle_since_ns
    store_release(m.words, memory.SLEEPS, m.words[memory.SLEEPS] + 1)
    served = m.words[memory.SEGMENTS] > 0  # Constant until this thread applies a command.
    store_release(m.words, memory.OWNER, 0)
    store_release(m.words, memory.SLEEPING, 1)
    if served:
        tell_sleeping(m, 1)
    fence()
    if not (commanded(m) or has_work(m)):
        timeout_ms = sleep_ms(m) if served else _BLOCK_TIMEOUT_MS
        wait_for_any(
            np.int32(m.settings[memory.ENGINE_POLL]), np.int32(m.settings[memory.ENGINE_EVENT]), np.int32(timeout_ms)
        )
    store_release(m.words, memory.SLEEPING, 0)
    if served:
        tell_sleeping(m, 0)
        store_release(m.words, memory.WOKE_NS, clock_ns(_MONOTONIC))
    own(m)
    return idle_since_ns
