"""A tap: a ring beside the way of ticks, where the thread that has taken them leaves a copy of each for the recorder.

    claim, copy, publish       by the one thread that writes the tick slots: the engine for segments, the feed's for its feed
    a full tap                 the tick is left out, and counted; nobody waits
    nobody records a source    one compare for each batch that was taken

A copy has the number of its tick among those that its source was to leave, so whoever empties the tap sees where some are
missing. What is copied is the daemon's own slot, after it was checked: refused ticks are no part of a recording.

    0 <= CONSUMED <= PUBLISHED <= CONSUMED + ticks of the tap
    counts[row] == copies left + copies left out, of that row
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES
from penstock_daemon.arena import CACHE_LINE_BYTES
from penstock_daemon.native import load_acquire, store_release

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

NOT_RECORDED: Final = 0  # In ``recordings``.

# A tap is one array of words, so that it costs compiled code one argument: each on a cache line of its own, what never
# changes on one together, then RECORDINGS and counts by row, then slots.
_LINE: Final = CACHE_LINE_BYTES // 8
PUBLISHED: Final = 0 * _LINE  # Who writes ticks.
CONSUMED: Final = 1 * _LINE  # Event loop.
TICKS: Final = 2 * _LINE  # That it holds: a power of two, or 0 where nothing is recorded.
ROWS: Final = TICKS + 1
RECORDINGS: Final = 3 * _LINE

# Columns of a slot: the tick, whose it is, and its number.
TICK_COLUMNS: Final = TICK_BYTES // 8
RECORDING: Final = TICK_COLUMNS
NUMBER: Final = TICK_COLUMNS + 1
SLOT_COLUMNS: Final = TICK_COLUMNS + 2

TapMemory = NDArray[np.int64]  # (words,), as ``make_tap`` gives it.


class Tap(NamedTuple):
    """The parts of a tap, as views of its memory."""

    words: NDArray[np.int64]  # (words,): all of it
    slots: NDArray[np.int64]  # (ticks, SLOT_COLUMNS)
    recordings: NDArray[
        np.int64
    ]  # (rows,): written by the event loop while a row leaves nothing; NOT_RECORDED for none
    counts: NDArray[np.int64]  # (rows,): ticks that each row was to leave so far; only grows


def tap_bytes(ticks: int, rows: int) -> int:
    """Return what ``make_tap`` takes, without alignment.

    Args:
        ticks: that the tap holds.
        rows: sources that may leave some.
    """
    return (RECORDINGS + 2 * rows + ticks * SLOT_COLUMNS) * 8


def make_tap(take: Callable[..., NDArray[Any]], ticks: int, rows: int) -> TapMemory:
    """Take a tap from an arena; see ``tap_bytes``. take: ``Arena.take``. ticks: a power of two, or 0."""
    assert ticks & (ticks - 1) == 0, "a tap is a power of two"
    memory = take("tap", (tap_bytes(ticks, rows) // 8,), np.int64, holds="ticks on their way to the recorder")
    memory[TICKS], memory[ROWS] = ticks, rows
    return memory


def tap_parts(memory: TapMemory) -> Tap:
    """Return the parts of a tap."""
    ticks, rows = int(memory[TICKS]), int(memory[ROWS])
    recordings, counts, slots = np.split(memory[RECORDINGS:], [rows, 2 * rows])
    return Tap(memory, slots.reshape(ticks, SLOT_COLUMNS), recordings, counts)


@_part
def is_recorded(tap: Any, row: int) -> Any:
    """Whether what *row* takes is left in the tap."""
    return tap[RECORDINGS + row] != NOT_RECORDED


@_part
def leave_ticks(tap: Any, row: int, slots: Any, words: Any, first: int, count: int) -> None:
    """Leave copies of *count* ticks that have just been published, those that were not refused.

    Args:
        tap: TapMemory; free slots, PUBLISHED and the row's count are overwritten.
        row: whose ticks; it is recorded.
        slots: shape (slots,), TICK_SLOT_DTYPE: the ring that they stand in.
        words: the same memory as (slots, words).
        first: the first one's number in that ring.
        count: how many.
    """
    ticks, rows = tap[TICKS], tap[ROWS]
    published = tap[PUBLISHED]
    end = load_acquire(tap, CONSUMED) + ticks
    recording = tap[RECORDINGS + row]
    number = tap[RECORDINGS + rows + row]
    for index in range(count):
        place = (first + index) & (slots.shape[0] - 1)
        if slots[place].refusal != 0:
            continue
        if published < end:
            copy = RECORDINGS + 2 * rows + (published & (ticks - 1)) * SLOT_COLUMNS
            for column in range(TICK_COLUMNS):
                tap[copy + column] = words[place, column]
            tap[copy + RECORDING] = recording
            tap[copy + NUMBER] = number
            published += 1
        number += 1
    tap[RECORDINGS + rows + row] = number
    store_release(tap, PUBLISHED, published)
