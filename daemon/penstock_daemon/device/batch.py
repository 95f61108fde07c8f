"""A micro-batch: ticks of all open sources, grouped by state, and their answers in the order of each source.

    gather     sources in turn, the first of a batch last in the next; so many ticks of each as their answers find room for
    place      items of one state lie together, in the order in which they came: a block walks them
    describe   what an answer says whoever predicts it, written while the device works
    publish    forecasts and stages into the answers, ticks into the journals, then the cursors

Until publish nothing is taken from a ring, journalled or counted, so a micro-batch that fails can be predicted again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1.records import PredictionFlag, Stage
from penstock_daemon import engine_memory
from penstock_daemon.device import memory
from penstock_daemon.engine_attachments import attached
from penstock_daemon.engine_stages import age_flags, count_old, is_old, record_duration, skips_old, write_stages
from penstock_daemon.engine_ticks import (
    count_ticks,
    describe,
    hand_over,
    leave_out_forecasts,
    refuse,
    take_in,
    takeable,
    write_forecasts,
)
from penstock_daemon.engine_turns import turns_up
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.native import clock_ns, load_acquire
from penstock_kernels import predictor
from penstock_kernels.compiled import inlined
from penstock_kernels.cuda import layout

# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_MONOTONIC = np.int32(1)
_IN_PLACE = int(memory.Transfer.IN_PLACE)
_RECEIVE, _RING, _UPLOAD, _PREDICT, _DOWNLOAD = (
    int(Stage.RECEIVE),
    int(Stage.RING),
    int(Stage.UPLOAD),
    int(Stage.PREDICT),
    int(Stage.DOWNLOAD),
)
_TICK_SLOT_BYTES = engine_memory.TICK_SLOT_BYTES
_HORIZONS = predictor.HORIZONS
_SKIPPED = int(PredictionFlag.SKIPPED)
_NOBODY = -1


@_part
def gather(m: Any, d: Any) -> int:
    """Choose the ticks of the next micro-batch, and write its blocks. Returns how many ticks, refused ones included.

    Args:
        m: Buffers; nothing but high_water is written.
        d: DeviceBuffers; the batch and the work's blocks are overwritten.
    """
    sources = m.source_table.shape[0]
    first = d.words[memory.FIRST_SOURCE]
    d.words[memory.GATHERED_NS] = clock_ns(_MONOTONIC)
    number = d.words[memory.NUMBER] + 1
    slots = m.tick_slots.shape[1]
    entries, items, blocks, taken_from = 0, 0, 0, 0
    for turn in range(sources):
        source = (first + turn) % sources
        if not turns_up(m, source):
            continue
        room = d.entry_item.shape[0] - entries
        count = takeable(m, source, min(m.settings[engine_memory.BATCH_MAX], room))
        if count <= 0:
            continue
        model = m.source_table[source, engine_memory.SOURCE_MODEL]
        consumed = m.cursors[source * engine_memory.CURSOR_WORDS + engine_memory.TICK_CONSUMED]
        taken = 0
        for offset in range(count):
            tick = m.tick_slots[source, (consumed + offset) & (slots - 1)]
            block = np.int64(_NOBODY)
            if tick.refusal == 0:
                state = tick.state
                if m.online_of[state] != engine_memory.NO_ONLINE:
                    break  # The CPU's.
                if d.block_number[state] != number:
                    d.block_number[state] = number
                    d.block_of[state] = blocks
                    _begin_block(d, blocks, state, model)
                    blocks += 1
                block = d.block_of[state]
                row = d.work_halves[1 + block]
                if row[memory.BLOCK_MODEL] != model:
                    break  # A state that two sources share waits for the next micro-batch.
                row[memory.BLOCK_COUNT] += 1
                items += 1
            d.entry_item[entries + taken] = block
            taken += 1
        if taken > 0:
            d.batch_source[taken_from] = source
            d.batch_taken[taken_from] = taken
            if taken_from == 0:  # Who came first comes last next time, however many closed sources lie between.
                d.words[memory.FIRST_SOURCE] = (source + 1) % sources
            taken_from += 1
            entries += taken
    d.words[memory.BATCH_SOURCES] = taken_from
    d.words[memory.BATCH_ENTRIES] = entries
    d.words[memory.BATCH_ITEMS] = items
    d.words[memory.BATCH_BLOCKS] = blocks
    return entries


@inlined
def _begin_block(d: Any, block: int, state: int, model: int) -> None:
    row = d.work_halves[1 + block]
    row[memory.BLOCK_STATE] = state
    row[memory.BLOCK_MODEL] = model
    row[memory.BLOCK_COUNT] = 0
    row[memory.BLOCK_FLAGS] = layout.BLOCK_COLD if d.cold[state] != 0 else 0


@_part
def place(m: Any, d: Any) -> None:
    """Give each tick that was gathered its item, and write the work's items.

    Args:
        m: Buffers; nothing of it is written.
        d: DeviceBuffers; entry_item names blocks before and items after; the work's items are overwritten.
    """
    item = 0
    for block in range(d.words[memory.BATCH_BLOCKS]):
        row = d.work_halves[1 + block]
        row[memory.BLOCK_FIRST] = item
        d.block_next[block] = item
        item += row[memory.BLOCK_COUNT]
    slots = m.tick_slots.shape[1]
    entry = 0
    for turn in range(d.words[memory.BATCH_SOURCES]):
        source = d.batch_source[turn]
        consumed = m.cursors[source * engine_memory.CURSOR_WORDS + engine_memory.TICK_CONSUMED]
        bulk = m.source_table[source, engine_memory.SOURCE_BULK]
        for offset in range(d.batch_taken[turn]):
            block = d.entry_item[entry]
            if block != _NOBODY:
                item = d.block_next[block]
                d.block_next[block] = item + 1
                d.entry_item[entry] = item
                slot = (consumed + offset) & (slots - 1)
                tick = m.tick_slots[source, slot]
                skipped = skips_old(m) and is_old(m, bulk, tick, d.words[memory.GATHERED_NS])
                advance = tick.rebuild != 0 or skipped
                at = d.settings[memory.TICKS_AT] + (source * slots + slot) * _TICK_SLOT_BYTES
                write_item(d, item, m.tick_words[source, slot], at, advance)
            entry += 1


@inlined
def write_item(d: Any, item: int, tick_words: Any, at: int, advance: bool) -> None:
    """Write an item of the work.

    Args:
        d: DeviceBuffers.
        item: which.
        tick_words: the tick, as int64 words.
        at: where the tick lies, in bytes from the address that IN_PLACE ticks count from.
        advance: True where no forecast is wanted.
    """
    row = d.work_words[1 + item]
    d.work_halves[1 + item, memory.ITEM_FLAGS] = layout.ITEM_ADVANCE if advance else 0
    if d.settings[memory.TRANSFER] == _IN_PLACE:
        row[memory.ITEM_OFFSET] = at
    else:
        row[memory.ITEM_OFFSET] = (1 + item) * layout.SLOT_BYTES + layout.TICK_IN_SLOT
        for word in range(engine_memory.TICK_WORDS):
            row[memory.TICK_WORD + word] = tick_words[word]


@_part
def describe_answers(m: Any, d: Any) -> None:
    """Write into the answers what is known of them already. m: Buffers; prediction slots nobody sees yet."""
    unix_offset_ns = load_acquire(m.words, engine_memory.UNIX_OFFSET_NS)
    slots = m.tick_slots.shape[1]
    for turn in range(d.words[memory.BATCH_SOURCES]):
        source = d.batch_source[turn]
        base = source * engine_memory.CURSOR_WORDS
        consumed = m.cursors[base + engine_memory.TICK_CONSUMED]
        published = m.cursors[base + engine_memory.PREDICTION_PUBLISHED]
        serial = np.uint32(m.serials[m.source_table[source, engine_memory.SOURCE_MODEL]])
        for offset in range(d.batch_taken[turn]):
            tick = m.tick_slots[source, (consumed + offset) & (slots - 1)]
            answer = m.prediction_slots[source, (published + offset) & (slots - 1)]
            describe(answer, tick, serial, d.words[memory.BATCH_ENTRIES], unix_offset_ns)


@_part
def publish(m: Any, d: Any) -> None:
    """Hand the answers over and count the ticks; the launch is complete, or the micro-batch has no items.

    Args:
        m: Buffers; answers, journals, cursors and figures are overwritten.
        d: DeviceBuffers; the states of the micro-batch are no longer cold.
    """
    for block in range(d.words[memory.BATCH_BLOCKS]):
        d.cold[d.work_halves[1 + block, memory.BLOCK_STATE]] = 0
    entry = np.int64(0)
    for turn in range(d.words[memory.BATCH_SOURCES]):
        publish_source(m, d, d.batch_source[turn], d.batch_taken[turn], entry)
        entry += d.batch_taken[turn]
        if not attached(m, d.batch_source[turn]):
            wake_loop(m)


@_part
def publish_source(m: Any, d: Any, source: int, count: int, entry: int) -> None:
    """Hand the answers of one source over. entry: of its first tick; other arguments as of publish."""
    base = source * engine_memory.CURSOR_WORDS
    consumed = m.cursors[base + engine_memory.TICK_CONSUMED]
    published = m.cursors[base + engine_memory.PREDICTION_PUBLISHED]
    slots = m.tick_slots.shape[1]
    path = m.source_table[source, engine_memory.SOURCE_PATH]
    bulk = m.source_table[source, engine_memory.SOURCE_BULK]
    header = m.headers[m.source_table[source, engine_memory.SOURCE_MODEL]]
    gathered_ns, seen_ns = d.words[memory.GATHERED_NS], d.words[memory.SEEN_NS]
    ahead_ns = (d.words[memory.CLOCK_LOW_NS] + d.words[memory.CLOCK_HIGH_NS]) >> 1
    predicted = 0
    for offset in range(count):
        slot = (consumed + offset) & (slots - 1)
        tick = m.tick_slots[source, slot]
        answer = m.prediction_slots[source, (published + offset) & (slots - 1)]
        item = d.entry_item[entry + offset]
        if item == _NOBODY:
            refuse(answer, tick)
            continue
        receive_ns = tick.ringed_ns - tick.first_ns
        ring_ns = gathered_ns - tick.ringed_ns
        started_ns = d.result_words[item, memory.RESULT_STARTED_NS] - ahead_ns
        done_ns = d.result_words[item, memory.RESULT_DONE_NS] - ahead_ns
        flags = np.int64(d.result_halves[item, memory.RESULT_FLAGS]) | predictor.book_flags(tick)
        flags |= take_in(m, header, source, slot, tick.state)
        answer.horizons = header[_HORIZONS]
        rebuild = tick.rebuild != 0
        advance = rebuild
        if is_old(m, bulk, tick, gathered_ns):
            count_old(m)
            advance = skips_old(m)
        if advance:
            leave_out_forecasts(answer)
        else:
            write_forecasts(answer, d.forecasts[item])
            predicted += 1
        upload_ns, predict_ns, download_ns = started_ns - gathered_ns, done_ns - started_ns, seen_ns - done_ns
        if rebuild:
            flags |= engine_memory.ANSWER_REBUILT
        else:
            if advance:
                flags |= _SKIPPED
            sequence = np.int64(tick.session_sequence)
            flags |= age_flags(m, path, bulk, seen_ns - tick.first_ns, seen_ns)
            record_duration(m, path, bulk, _RECEIVE, sequence, receive_ns)
            record_duration(m, path, bulk, _RING, sequence, ring_ns)
            record_duration(m, path, bulk, _UPLOAD, sequence, upload_ns)
            record_duration(m, path, bulk, _PREDICT, sequence, predict_ns)
            record_duration(m, path, bulk, _DOWNLOAD, sequence, download_ns)
        answer.flags = flags
        write_stages(answer, receive_ns, ring_ns, 0, upload_ns, predict_ns, download_ns)
    hand_over(m, base, consumed + count, published + count)
    count_ticks(m, count, predicted)
