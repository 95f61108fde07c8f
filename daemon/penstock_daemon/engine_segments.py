"""The engine's ends of the segments that strategies on this host share with the daemon.

    take    ticks from a segment's ring into the source's own, each word loaded once, copied, then checked
    give    answers from the source's own ring into the segment's

Ticks are predicted from the source's own ring and journalled from there, whatever the strategy does to its segment
meanwhile. What the engine relies on is its own copy (``Buffers.segments``): the strategy's words are compared with it,
and never become an address, an index or the bound of a loop.

    TAKEN <= TICK_PUBLISHED <= TAKEN + slots           else the segment has ended: SegmentEnd.CURSOR
    READ <= PREDICTION_CONSUMED <= GIVEN               likewise; READ is what the strategy is known to have read
    taken and not yet read <= slots of the source      so that every answer not read can be given again after a loss

Nothing here waits for a strategy: no lock, no descriptor that it could make block, no page that it could take away (a
punched hole reads as zeros, and zeros are no tick; shared_memory/segment.py says on which host it is worse). Nothing
allocates or logs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1 import shared_ring as layout
from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE, Clock
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_stages import record_handed_over
from penstock_daemon.engine_tap import is_recorded, leave_ticks
from penstock_daemon.native import clock_ns, fence, store_release
from penstock_daemon.native_memory import hang_up, load_at, send_byte, set_word_at, store_at, word_at

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
_TICK_CONSUMED_AT = layout.TICK_CONSUMED_AT
_PREDICTION_PUBLISHED_AT = layout.PREDICTION_PUBLISHED_AT
_PREDICTION_CONSUMED_AT = layout.PREDICTION_CONSUMED_AT
_CLIENT_WAITING_AT = layout.CLIENT_WAITING_AT
_CLOSED_AT = layout.CLOSED_AT
_HEADER_BYTES = layout.HEADER_BYTES
_TICK_SLOT_BYTES = layout.TICK_SLOT_BYTES
_PREDICTION_SLOT_BYTES = layout.PREDICTION_SLOT_BYTES
_PREDICTION_WORDS = layout.PREDICTION_SLOT_BYTES // 8
_WRITTEN_NS_IN_SLOT = 80
_MALFORMED_TICK = int(layout.SegmentEnd.MALFORMED_TICK)
_CURSOR = int(layout.SegmentEnd.CURSOR)

# The first 8 bytes of a tick: length, rtype, publisher_id, instrument_id; ts_recv is its fifth word.
_HEAD_MASK = 0xFFFF
_HEAD = TICK_LENGTH_WORDS | TICK_RTYPE << 8
_INSTRUMENT_SHIFT = 32
_INSTRUMENT_MASK = 0xFFFFFFFF
_TS_RECV_WORD = 4

_UNKNOWN_INSTRUMENT, _TIME_OUT_OF_RANGE = memory.UNKNOWN_INSTRUMENT, memory.TIME_OUT_OF_RANGE
_USER = int(Clock.USER)
_MONOTONIC = np.int32(1)


@_part
def end_segment(m: Any, source: int, end: int, at: int, value: int) -> None:
    """Serve a segment no longer, because of what stands in it; its socket tells both the strategy and the event loop.

    Args:
        m: Buffers; the source's row of m.segments is overwritten.
        source: whose.
        end: which SegmentEnd.
        at: the number of a tick, or where a cursor stands in the header.
        value: what was found there.
    """
    row = m.segments[source]
    row[memory.SEGMENT_FAULT_AT] = at
    row[memory.SEGMENT_FAULT_VALUE] = value
    row[memory.SEGMENT_FAULT] = end
    store_at(row[memory.SEGMENT_ADDRESS] + _CLOSED_AT, end)
    hang_up(np.int32(row[memory.SEGMENT_BELL]))


# --- Taking -------------------------------------------------------------------------------------------------------------


@_inline
def in_flight(m: Any, source: int) -> int:
    """Return how many ticks were taken whose answers the strategy is not known to have read."""
    base = source * memory.CURSOR_WORDS
    row = m.segments[source]
    kept = m.cursors[base + memory.TICK_PUBLISHED] - m.cursors[base + memory.PREDICTION_CONSUMED]
    return kept + row[memory.SEGMENT_GIVEN] - row[memory.SEGMENT_READ]


@_part
def _note_read(m: Any, source: int) -> bool:
    """See how far the strategy has read; False, and the segment ended, where its cursor can't be."""
    row = m.segments[source]
    read = load_at(row[memory.SEGMENT_ADDRESS] + _PREDICTION_CONSUMED_AT)
    if read < row[memory.SEGMENT_READ] or read > row[memory.SEGMENT_GIVEN]:
        end_segment(m, source, _CURSOR, _PREDICTION_CONSUMED_AT, read)
        return False
    row[memory.SEGMENT_READ] = read
    return True


@_part
def take_from_segment(m: Any, source: int, looked_ns: int) -> int:
    """Take ticks from an attached segment into the source's ring, as many as a pass may and as there is room for.

    Args:
        m: Buffers; the source's tick slots, its cursor TICK_PUBLISHED, its row of m.segments and m.tap are overwritten.
        source: whose; it is not held.
        looked_ns: as of quiet.

    Returns:
        How many. A segment whose cursor can't be, or with a record that is no mbp-1 record, has ended after this.
    """
    row = m.segments[source]
    if row[memory.SEGMENT_FAULT] != 0:
        return 0
    address = row[memory.SEGMENT_ADDRESS]
    taken = row[memory.SEGMENT_TAKEN]
    published = load_at(address + _TICK_PUBLISHED_AT)
    if published == taken:
        return 0
    if published < taken or published > taken + row[memory.SEGMENT_SLOTS]:
        end_segment(m, source, _CURSOR, _TICK_PUBLISHED_AT, published)
        return 0
    base = source * memory.CURSOR_WORDS
    slots = m.tick_slots.shape[1]
    wanted = min(published - taken, m.settings[memory.BATCH_MAX])
    if slots - in_flight(m, source) < wanted and not _note_read(m, source):
        return 0
    place = m.cursors[base + memory.TICK_PUBLISHED]
    room = slots - in_flight(m, source)
    if room <= 0:
        if m.cursors[base + memory.TICK_CONSUMED] == place:  # All are predicted: the strategy holds itself up.
            row[memory.SEGMENT_FLOOR_NS] = looked_ns
        return 0
    count = copy_ticks(m, source, min(wanted, room), place)
    store_release(m.cursors, base + memory.TICK_PUBLISHED, place + count)
    if is_recorded(m.tap, source):
        leave_ticks(m.tap, source, m.tick_slots[source], m.tick_words[source], place, count)
    row[memory.SEGMENT_TAKEN] = taken + count
    store_at(address + _TICK_CONSUMED_AT, taken + count)
    if taken + count == published:
        row[memory.SEGMENT_FLOOR_NS] = looked_ns
    return count


@_part
def copy_ticks(m: Any, source: int, wanted: int, place: int) -> int:
    """Copy ticks out of a segment and check them, *wanted* of them from TAKEN on, into the ring from *place* on.

    Returns:
        How many: fewer where one is no mbp-1 record, which ends the segment. One of an instrument that the session did not
        name, or of a time out of range, is refused in its place.
    """
    row = m.segments[source]
    taken = row[memory.SEGMENT_TAKEN]
    ring_at = row[memory.SEGMENT_ADDRESS] + _HEADER_BYTES
    mask = row[memory.SEGMENT_SLOTS] - 1
    ids = m.segment_ids[source]
    instruments = row[memory.SEGMENT_INSTRUMENTS]
    slots = m.tick_slots.shape[1]
    floor_ns = row[memory.SEGMENT_FLOOR_NS]
    now_ns = clock_ns(_MONOTONIC)
    for index in range(wanted):
        at = ring_at + ((taken + index) & mask) * _TICK_SLOT_BYTES
        head = word_at(at)
        if head & _HEAD_MASK != _HEAD:
            end_segment(m, source, _MALFORMED_TICK, taken + index, head & _HEAD_MASK)
            return index
        words = m.tick_words[source, (place + index) & (slots - 1)]
        words[0] = head
        for word in range(1, memory.TICK_WORDS):
            words[word] = word_at(at + word * 8)
        written_ns = word_at(at + _WRITTEN_NS_IN_SLOT)
        # Not before the ring was last seen empty, and not after now: a false stamp harms only its own session's figures.
        first_ns = now_ns if written_ns <= 0 else min(max(written_ns, floor_ns), now_ns)
        state = np.int64(-1)
        refusal = 0
        known = _find(ids, instruments, (head >> _INSTRUMENT_SHIFT) & _INSTRUMENT_MASK)
        if known < 0:
            refusal = _UNKNOWN_INSTRUMENT
            row[memory.SEGMENT_UNKNOWN] += 1
        elif words[_TS_RECV_WORD] < 0:  # As unsigned: 2^63 or later.
            refusal = _TIME_OUT_OF_RANGE
            row[memory.SEGMENT_OUT_OF_RANGE] += 1
        else:
            state = m.segment_states[source, known]
        slot = m.tick_slots[source, (place + index) & (slots - 1)]
        slot.session_sequence = row[memory.SEGMENT_FIRST] + taken + index
        slot.received_ns = now_ns
        slot.first_ns = first_ns
        slot.ringed_ns = first_ns  # Its wait in the segment is the stage RING.
        slot.wire_ns = 0
        slot.state = state
        slot.refusal = refusal
        slot.rebuild = 0
        slot.clock = _USER
    return wanted


@_inline
def _find(ids: Any, count: int, wanted: int) -> int:
    """Return where *wanted* stands in the first *count* of ids, ascending; -1 if nowhere."""
    low = 0
    high = count
    while low < high:
        middle = (low + high) >> 1
        if ids[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < count and ids[low] == wanted else -1


# --- Giving -------------------------------------------------------------------------------------------------------------


@_part
def give_to_segment(m: Any, source: int) -> int:
    """Put answers of a source into its attached segment, as many as a pass may and as the strategy has left room for.

    Args:
        m: Buffers; the source's cursor PREDICTION_CONSUMED, its row of m.segments and the histogram rows EGRESS and TOTAL
            are overwritten.
        source: whose.

    Returns:
        How many. A segment whose cursor can't be has ended after this.
    """
    row = m.segments[source]
    base = source * memory.CURSOR_WORDS
    consumed = m.cursors[base + memory.PREDICTION_CONSUMED]
    ready = m.cursors[base + memory.PREDICTION_PUBLISHED] - consumed
    if ready <= 0 or row[memory.SEGMENT_FAULT] != 0:
        return 0
    given = row[memory.SEGMENT_GIVEN]
    ready = min(ready, m.settings[memory.BATCH_MAX])
    ring_slots = row[memory.SEGMENT_SLOTS]
    if ring_slots - (given - row[memory.SEGMENT_READ]) < ready and not _note_read(m, source):
        return 0
    count = min(ready, ring_slots - (given - row[memory.SEGMENT_READ]))
    if count <= 0:
        return 0
    address = row[memory.SEGMENT_ADDRESS]
    ring_at = address + _HEADER_BYTES + ring_slots * _TICK_SLOT_BYTES
    slots = m.prediction_slots.shape[1]
    for index in range(count):
        words = m.prediction_words[source, (consumed + index) & (slots - 1)]
        at = ring_at + ((given + index) & (ring_slots - 1)) * _PREDICTION_SLOT_BYTES
        for word in range(_PREDICTION_WORDS):
            set_word_at(at + word * 8, words[word])
    handed_ns = clock_ns(_MONOTONIC)
    store_release(m.cursors, base + memory.PREDICTION_CONSUMED, consumed + count)
    row[memory.SEGMENT_GIVEN] = given + count
    store_at(address + _PREDICTION_PUBLISHED_AT, given + count)
    ring(m, source)
    # After the answers are seen: the slots are used again by this thread alone.
    repeated = row[memory.SEGMENT_REPEATED] - given
    count_given(m, source, consumed + max(repeated, 0), consumed + count, handed_ns)
    return count


@_part
def ring(m: Any, source: int) -> None:
    """Wake the strategy if it waits; what was published before is visible to it after."""
    row = m.segments[source]
    waiting_at = row[memory.SEGMENT_ADDRESS] + _CLIENT_WAITING_AT
    fence()
    if load_at(waiting_at) != 0:
        store_at(waiting_at, 0)
        send_byte(np.int32(row[memory.SEGMENT_BELL]))


@_part
def count_given(m: Any, source: int, first: int, end: int, handed_ns: int) -> None:
    """Count the stages EGRESS and TOTAL of the answers *first* to *end* as ended at *handed_ns*."""
    slots = m.prediction_slots.shape[1]
    path = m.source_table[source, memory.SOURCE_PATH]
    bulk = m.source_table[source, memory.SOURCE_BULK]
    for number in range(first, end):
        answer = m.prediction_slots[source, number & (slots - 1)]
        if answer.flags & memory.ANSWER_REFUSED:
            continue
        record_handed_over(m, path, bulk, answer, m.tick_slots[source, number & (slots - 1)], handed_ns)
