"""Which segments the engine serves, and what it tells them beside answers: that it sleeps, and that it lives.

    attach, detach      commands of the event loop; between them the engine serves the source's ends of the rings
    quiet               the look at an idle segment, in every pass: two cache lines
    sleeping            stored, then a fence, then one more look; a strategy publishes, then a fence, then reads it

An engine that sleeps while segments are attached looks at them ten times a second, whether or not a bell rings: that
is their sign of life, and no strategy can make it look less often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1 import shared_ring as layout
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_segments import in_flight
from penstock_daemon.native import clock_ns, load_acquire, store_release
from penstock_daemon.native_memory import load_at, store_at

# As in engine_turns and engine_ticks: what compiled code alone calls, and what becomes part of its callers.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_inline = njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    forceinline=True,
    _nrt=False,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)

_TICK_PUBLISHED_AT = layout.TICK_PUBLISHED_AT
_PREDICTION_CONSUMED_AT = layout.PREDICTION_CONSUMED_AT
_ENGINE_SLEEPING_AT = layout.ENGINE_SLEEPING_AT
_DAEMON_BEAT_NS_AT = layout.DAEMON_BEAT_NS_AT
_CLOSED_AT = layout.CLOSED_AT
_MONOTONIC = np.int32(1)
_BEAT_NS = 50_000_000
_SERVED_TIMEOUT_MS = 100  # A sleeping engine looks this often while segments are attached: each look is a beat.
_HELD_UP_TIMEOUT_MS = 1  # And this often while a strategy has left no room for what waits: room comes without a bell.


@_part
def attach_segment(m: Any, command: Any) -> None:
    """Begin to serve a segment, as a command of ATTACH_SEGMENT says. Overwrites the source's row of m.segments."""
    source = command[1]
    base = source * memory.CURSOR_WORDS
    row = m.segments[source]
    row[memory.SEGMENT_SLOTS] = command[3]
    row[memory.SEGMENT_BELL] = command[4]
    row[memory.SEGMENT_INSTRUMENTS] = command[5]
    row[memory.SEGMENT_FIRST] = command[6]
    row[memory.SEGMENT_REPEATED] = command[7]
    row[memory.SEGMENT_TAKEN] = 0
    row[memory.SEGMENT_GIVEN] = 0
    row[memory.SEGMENT_READ] = 0
    row[memory.SEGMENT_OWED] = (
        m.cursors[base + memory.TICK_PUBLISHED] - m.cursors[base + memory.PREDICTION_CONSUMED]
    )  # Of an earlier attachment.
    row[memory.SEGMENT_FLOOR_NS] = clock_ns(_MONOTONIC)
    row[memory.SEGMENT_FAULT] = 0
    row[memory.SEGMENT_UNKNOWN] = 0
    row[memory.SEGMENT_OUT_OF_RANGE] = 0
    row[memory.SEGMENT_ADDRESS] = command[2]
    store_at(command[2] + _DAEMON_BEAT_NS_AT, clock_ns(_MONOTONIC))
    store_release(m.words, memory.SEGMENTS, m.words[memory.SEGMENTS] + 1)


@_part
def detach_segment(m: Any, command: Any) -> None:
    """Let go of a source's segment for good, as a command of DETACH_SEGMENT says; the loop may unmap it after."""
    row = m.segments[command[1]]
    address = row[memory.SEGMENT_ADDRESS]
    if address == 0:
        return
    if row[memory.SEGMENT_FAULT] == 0:
        store_at(address + _CLOSED_AT, command[2])
    row[memory.SEGMENT_ADDRESS] = 0
    store_release(m.words, memory.SEGMENTS, m.words[memory.SEGMENTS] - 1)


@_inline
def attached(m: Any, source: int) -> bool:
    """Return whether the engine serves a source's ends of its rings, and not the event loop."""
    return m.segments[source, memory.SEGMENT_ADDRESS] != 0


@_inline
def quiet(m: Any, source: int, looked_ns: int) -> bool:
    """Return whether an attached segment holds no tick, and nothing is owed to it: two cache lines for an idle one.

    Args:
        m: Buffers.
        source: whose.
        looked_ns: monotonic, read before this: no tick that comes later is older.
    """
    row = m.segments[source]
    taken = row[memory.SEGMENT_TAKEN]
    if load_at(row[memory.SEGMENT_ADDRESS] + _TICK_PUBLISHED_AT) != taken:
        return False
    row[memory.SEGMENT_FLOOR_NS] = looked_ns
    return taken + row[memory.SEGMENT_OWED] == row[memory.SEGMENT_GIVEN]


@_part
def segment_ready(m: Any, source: int, turn: bool) -> bool:
    """Return whether a pass would do something for an attached segment. turn: whether its ticks may be taken now."""
    row = m.segments[source]
    if row[memory.SEGMENT_FAULT] != 0:
        return False
    base = source * memory.CURSOR_WORDS
    answers = load_acquire(m.cursors, base + memory.PREDICTION_PUBLISHED) > m.cursors[base + memory.PREDICTION_CONSUMED]
    ticks = turn and _ticks_wait(m, source)
    if answers and row[memory.SEGMENT_GIVEN] - row[memory.SEGMENT_READ] < row[memory.SEGMENT_SLOTS]:
        return True
    if ticks and in_flight(m, source) < m.tick_slots.shape[1]:
        return True
    # There is room if the strategy has read on; a cursor that can't be is found by the pass.
    moved = load_at(row[memory.SEGMENT_ADDRESS] + _PREDICTION_CONSUMED_AT) != row[memory.SEGMENT_READ]
    return moved and (answers or ticks)


@_inline
def _ticks_wait(m: Any, source: int) -> bool:
    row = m.segments[source]
    return load_at(row[memory.SEGMENT_ADDRESS] + _TICK_PUBLISHED_AT) != row[memory.SEGMENT_TAKEN]


@_part
def tell_sleeping(m: Any, sleeping: int) -> None:
    """Store in every attached segment whether a bell is needed. Look at the rings after a fence that follows a 1."""
    for place in range(m.words[memory.OPEN_SOURCES]):
        address = m.segments[m.open_sources[place], memory.SEGMENT_ADDRESS]
        if address != 0:
            store_at(address + _ENGINE_SLEEPING_AT, sleeping)


@_part
def sleep_ms(m: Any) -> int:
    """Return how long the engine may sleep while segments are attached; it has just seen that nothing can be done."""
    for place in range(m.words[memory.OPEN_SOURCES]):
        source = m.open_sources[place]
        if not attached(m, source) or m.segments[source, memory.SEGMENT_FAULT] != 0:
            continue
        if m.segments[source, memory.SEGMENT_TAKEN] + m.segments[source, memory.SEGMENT_OWED] != (
            m.segments[source, memory.SEGMENT_GIVEN]
        ) or _ticks_wait(m, source):
            return _HELD_UP_TIMEOUT_MS
    return _SERVED_TIMEOUT_MS


@_part
def beat_segments(m: Any, now_ns: int) -> None:
    """Tell every attached segment that the engine lives, 20 times a second."""
    if now_ns - m.words[memory.SEGMENTS_BEAT_NS] < _BEAT_NS:
        return
    m.words[memory.SEGMENTS_BEAT_NS] = now_ns
    for place in range(m.words[memory.OPEN_SOURCES]):
        address = m.segments[m.open_sources[place], memory.SEGMENT_ADDRESS]
        if address != 0:
            store_at(address + _DAEMON_BEAT_NS_AT, now_ns)
