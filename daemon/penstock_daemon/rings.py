"""The event loop's ends of the rings: ticks go in, answers come out, one compiled call per batch.

    claim, write in place, publish: a slot is written only when it is free, and seen only when it is whole

Full is a value (NO_SLOT), never a wait. These functions keep the GIL on purpose: they take a microsecond, and a thread
that gives the GIL away can wait for the switch interval to get it back.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_loop import assist
from penstock_daemon.engine_stages import record_handed_over
from penstock_daemon.native import clock_ns, eventfd_signal, fence, load_acquire, store_release

# What publish_ticks returns instead of a count of refusals.
NO_SLOT: Final = -1  # The ring has no room for the batch: nothing was written.
MALFORMED: Final = -2  # MALFORMED - index: that record is no mbp-1 record; nothing was written.

# TickError.Reason, in the tick slot and in the answer.
UNKNOWN_INSTRUMENT: Final = memory.UNKNOWN_INSTRUMENT
TIME_OUT_OF_RANGE: Final = memory.TIME_OUT_OF_RANGE

_compile = njit(cache=True, error_model="numpy")

_MONOTONIC = np.int32(1)
_SPECIAL = memory.ANSWER_REFUSED | memory.ANSWER_REBUILT
TIME_END: Final = 2**63  # ts_recv from here on is undefined, or after the year 2262.


@_compile
def wake_engine(m: Any) -> None:
    """Signal the engine if it sleeps; to be called after publishing. m: Buffers."""
    fence()
    if load_acquire(m.words, memory.SLEEPING) != 0:
        store_release(m.words, memory.SLEEPING, 0)
        eventfd_signal(np.int32(m.settings[memory.ENGINE_EVENT]))


@_compile
def publish_ticks(
    m: Any,
    source: int,
    records: Any,
    first_sequence: int,
    rebuild: int,
    instrument_ids: Any,
    instrument_states: Any,
    received_ns: int,
    wire_ns: int,
    clock: int,
    assist_max: int,
) -> tuple[int, int]:
    """Put a batch of ticks into a source's ring, and see that they are predicted.

    Args:
        m: Buffers; the source's slots and its cursor TICK_PUBLISHED are overwritten.
        source: whose ring.
        records: shape (ticks,), TICK_DTYPE.
        first_sequence: of the first tick; the others follow.
        rebuild: 1 for ticks that restore a state.
        instrument_ids: int64, ascending, those that the session named.
        instrument_states: int64, the state of each.
        received_ns: first stamp, monotonic.
        wire_ns: stamp of kernel or NIC, Unix, 0 for none.
        clock: which clock the first stamp is of.
        assist_max: a batch of at most this many is predicted here and now, if the engine sleeps.

    Returns:
        First, how many of the ticks are refused, each of which is answered with its reason; or NO_SLOT; or MALFORMED
        minus the index of the first record that is no mbp-1 record. Second, how many are answered already.
    """
    count = records.shape[0]
    for index in range(count):
        if records[index].rtype != TICK_RTYPE or records[index].length != TICK_LENGTH_WORDS:
            return MALFORMED - index, 0
    base = source * memory.CURSOR_WORDS
    published = m.cursors[base + memory.TICK_PUBLISHED]
    slots = m.tick_slots.shape[1]
    if published + count - load_acquire(m.cursors, base + memory.TICK_CONSUMED) > slots:
        return NO_SLOT, 0
    refused = 0
    for index in range(count):
        record = records[index]
        slot = m.tick_slots[source, (published + index) & (slots - 1)]
        slot.record_length = record.length
        slot.rtype = record.rtype
        slot.publisher_id = record.publisher_id
        slot.instrument_id = record.instrument_id
        slot.ts_event = record.ts_event
        slot.price = record.price
        slot.size = record.size
        slot.action = record.action
        slot.side = record.side
        slot.flags = record.flags
        slot.depth = record.depth
        slot.ts_recv = record.ts_recv
        slot.ts_in_delta = record.ts_in_delta
        slot.sequence = record.sequence
        slot.bid_px = record.bid_px
        slot.ask_px = record.ask_px
        slot.bid_sz = record.bid_sz
        slot.ask_sz = record.ask_sz
        slot.bid_ct = record.bid_ct
        slot.ask_ct = record.ask_ct
        refusal = 0
        state = -1
        wanted = np.int64(record.instrument_id)
        low = 0
        high = instrument_ids.shape[0]
        while low < high:
            middle = (low + high) >> 1
            if instrument_ids[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        if low < instrument_ids.shape[0] and instrument_ids[low] == wanted:
            state = instrument_states[low]
        else:
            refusal = UNKNOWN_INSTRUMENT
        if refusal == 0 and record.ts_recv >= TIME_END:
            refusal = TIME_OUT_OF_RANGE
        if refusal != 0:
            refused += 1
        slot.session_sequence = first_sequence + index
        slot.received_ns = received_ns
        slot.first_ns = received_ns
        slot.wire_ns = wire_ns
        slot.state = state
        slot.refusal = refusal
        slot.rebuild = rebuild
        slot.clock = clock
    ringed_ns = clock_ns(_MONOTONIC)
    for index in range(count):
        m.tick_slots[source, (published + index) & (slots - 1)].ringed_ns = ringed_ns
    store_release(m.cursors, base + memory.TICK_PUBLISHED, published + count)
    if count <= assist_max:
        return refused, assist(m, source)
    wake_engine(m)
    return refused, 0


@_compile
def waiting_answers(m: Any, source: int, limit: int) -> tuple[int, int, bool]:
    """Look at the answers that wait in a source's ring.

    Returns:
        The place in the ring of the first, how many there are up to *limit* and up to the ring's end, and whether any of
        them is not a prediction (a refusal, or a rebuild tick).
    """
    base = source * memory.CURSOR_WORDS
    consumed = m.cursors[base + memory.PREDICTION_CONSUMED]
    slots = m.prediction_slots.shape[1]
    place = consumed & (slots - 1)
    count = min(load_acquire(m.cursors, base + memory.PREDICTION_PUBLISHED) - consumed, limit, slots - place)
    special = False
    for index in range(count):
        if m.prediction_slots[source, place + index].flags & _SPECIAL:
            special = True
    return place, count, special


@_compile
def release_answers(m: Any, source: int, path: int, bulk: int, count: int, repeated: int) -> int:
    """Give *count* answers' slots back to the engine and count their EGRESS and TOTAL stages as ended now.

    Args:
        m: AnswerBuffers; the source's cursor PREDICTION_CONSUMED and the histogram rows EGRESS and TOTAL are overwritten. A
            tick's slot is not used again before its answer is gone.
        source, path, bulk: whose, and which rows.
        count: how many.
        repeated: of these, how many from the first on were handed over before: they are not counted again.

    Returns:
        The monotonic time at which they were handed over, in nanoseconds.
    """
    now_ns = clock_ns(_MONOTONIC)
    base = source * memory.CURSOR_WORDS
    consumed = m.cursors[base + memory.PREDICTION_CONSUMED]
    slots = m.prediction_slots.shape[1]
    for index in range(repeated, count):
        place = (consumed + index) & (slots - 1)
        answer = m.prediction_slots[source, place]
        if answer.flags & _SPECIAL:
            continue
        record_handed_over(m, path, bulk, answer, m.tick_slots[source, place], now_ns)
    store_release(m.cursors, base + memory.PREDICTION_CONSUMED, consumed + count)
    if load_acquire(m.cursors, base + memory.TICK_CONSUMED) < m.cursors[base + memory.TICK_PUBLISHED]:
        wake_engine(m)  # It may have had no room for the answers.
    return now_ns


@_compile
def arm_loop(words: Any) -> None:
    """Ask the engine to signal the loop at its next answer; look at the rings after this, not before."""
    store_release(words, memory.LOOP_WAITING, 1)
    fence()


@_compile
def sources_with_answers(m: Any, found: Any) -> int:
    """List the sources whose rings hold answers. found: int64, overwritten from its start. Returns how many."""
    count = 0
    for source in range(found.shape[0]):
        base = source * memory.CURSOR_WORDS
        published = load_acquire(m.cursors, base + memory.PREDICTION_PUBLISHED)
        if published > m.cursors[base + memory.PREDICTION_CONSUMED]:
            found[count] = source
            count += 1
    return count


@_compile
def publish_command(m: Any, row: Any) -> int:
    """Append a command for the engine. row: int64, (CONTROL_COLUMNS,). Returns its number, or NO_SLOT."""
    published = m.words[memory.CONTROL_PUBLISHED]
    if published - load_acquire(m.words, memory.CONTROL_CONSUMED) >= m.control.shape[0]:
        return NO_SLOT
    place = published & (m.control.shape[0] - 1)
    for column in range(m.control.shape[1]):
        m.control[place, column] = row[column]
    store_release(m.words, memory.CONTROL_PUBLISHED, published + 1)
    wake_engine(m)
    return published


@_compile
def shared_word(words: Any, index: int) -> int:
    """Return a shared word, with what its writer stored before."""
    return load_acquire(words, index)


@_compile
def set_shared_word(words: Any, index: int, value: int) -> None:
    """Store a shared word, after everything stored before."""
    store_release(words, index, value)
