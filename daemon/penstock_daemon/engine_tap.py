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

# Words, each on a cache line of its own.
PUBLISHED: Final = 0 * CACHE_LINE_BYTES // 8  # Who writes ticks.
CONSUMED: Final = 1 * CACHE_LINE_BYTES // 8  # Event loop.
TAP_WORDS: Final = 2 * CACHE_LINE_BYTES // 8

# Columns of a slot: the tick, whose it is, and its number.
TICK_COLUMNS: Final = TICK_BYTES // 8
RECORDING: Final = TICK_COLUMNS
NUMBER: Final = TICK_COLUMNS + 1
SLOT_COLUMNS: Final = TICK_COLUMNS + 2


class Tap(NamedTuple):
    """The arrays of a tap, in the form that compiled code takes as a part of its one argument."""

    words: NDArray[np.int64]  # (TAP_WORDS,)
    slots: NDArray[np.int64]  # (ticks, SLOT_COLUMNS); a power of two, or none where nothing is recorded
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
    size = 0
    size += TAP_WORDS * 8
    size += ticks * SLOT_COLUMNS * 8
    size += rows * 2 * 8
    return size


def make_tap(take: Callable[..., NDArray[Any]], ticks: int, rows: int) -> Tap:
    """Take a tap from an arena; see ``tap_bytes``. take: ``Arena.take``. ticks: a power of two, or 0."""
    assert ticks & (ticks - 1) == 0, "a tap is a power of two"
    return Tap(
        words=take("tap_words", (TAP_WORDS,), np.int64, holds="cursors of the tap"),
        slots=take("tap_slots", (ticks, SLOT_COLUMNS), np.int64, holds="ticks on their way to the recorder"),
        recordings=take("tap_recordings", (rows,), np.int64, holds="which sources are recorded"),
        counts=take("tap_counts", (rows,), np.int64, holds="how many ticks each was to leave"),
    )


@_part
def leave_ticks(tap: Any, row: int, slots: Any, words: Any, first: int, count: int) -> None:
    """Leave copies of *count* ticks that have just been published, those that were not refused.

    Args:
        tap: Tap; free slots, PUBLISHED and the row of counts are overwritten.
        row: whose ticks; it is recorded.
        slots: shape (slots,), TICK_SLOT_DTYPE: the ring that they stand in.
        words: the same memory as (slots, words).
        first: the first one's number in that ring.
        count: how many.
    """
    published = tap.words[PUBLISHED]
    end = load_acquire(tap.words, CONSUMED) + tap.slots.shape[0]
    recording = tap.recordings[row]
    number = tap.counts[row]
    for index in range(count):
        place = (first + index) & (slots.shape[0] - 1)
        if slots[place].refusal != 0:
            continue
        if published < end:
            copy = tap.slots[published & (tap.slots.shape[0] - 1)]
            for column in range(TICK_COLUMNS):
                copy[column] = words[place, column]
            copy[RECORDING] = recording
            copy[NUMBER] = number
            published += 1
        number += 1
    tap.counts[row] = number
    store_release(tap.words, PUBLISHED, published)
