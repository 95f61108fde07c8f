"""One DBN ``mbp-1`` record as a message of a feed: checked, its instrument looked up, copied.

    a record carries the whole top, so it makes its instrument's book sound again, unless it says MAYBE_BAD_BOOK itself

Little-endian throughout. All that is not length, type and instrument is data, and is copied as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1.records import TICK_BYTES, TICK_LENGTH_WORDS, TICK_RTYPE, BookFlag
from penstock_daemon.feed.book_memory import mark_unsound
from penstock_daemon.feed.memory import FIRST_REFUSAL, MESSAGE_BYTES, NO_TICK, Refusal

_MAYBE_BAD_BOOK = int(BookFlag.MAYBE_BAD_BOOK)
_WRONG_LENGTH = FIRST_REFUSAL - int(Refusal.WRONG_LENGTH)
_UNKNOWN_TYPE = FIRST_REFUSAL - int(Refusal.UNKNOWN_TYPE)
_FLAGS_AT = 30

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_part
def _u16(data: Any, at: int) -> Any:
    return np.int64(data[at]) | (np.int64(data[at + 1]) << 8)


@_part
def _u32(data: Any, at: int) -> Any:
    return _u16(data, at) | (_u16(data, at + 2) << 16)


@_part
def _u64(data: Any, at: int) -> Any:
    return _u32(data, at) | (_u32(data, at + 4) << 32)


@_part
def _i32(data: Any, at: int) -> Any:
    value = _u32(data, at)
    return value - ((value >> 31) << 32)


@_part
def _wanted(books: Any, instrument_id: int) -> int:
    """Return the index of the instrument with this id, or NO_TICK."""
    ids = books.sorted_ids
    low = 0
    high = ids.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if ids[middle] < instrument_id:
            low = middle + 1
        else:
            high = middle
    if low < ids.shape[0] and ids[low] == instrument_id:
        return books.sorted_indices[low]
    return NO_TICK


@_part
def apply_dbn(books: Any, data: Any, at: int, length: int, midnight_ns: int, out: Any) -> int:  # noqa: ARG001 - as apply_itch.
    """Take one record.

    Args:
        books: Books, of make_books; ``unsound`` is overwritten.
        data: uint8, 1-D, what the record lies in.
        at: where it begins.
        length: its bytes.
        midnight_ns: nothing to a record, whose times are whole.
        out: TICK_DTYPE, 1-D; record 0 is overwritten with the record as it is.

    Returns:
        The index of its instrument; NO_TICK for one that is not wanted; WRONG_LENGTH, after which all books are in
        doubt until their next record; UNKNOWN_TYPE for a whole record of another schema, which is no loss.

    Allocates nothing. Source: databento/dbn, ``record.rs``.
    """
    if at < 0 or length < 4 or at + min(length, MESSAGE_BYTES) > data.shape[0] or np.int64(data[at]) * 4 != length:
        mark_unsound(books)
        return _WRONG_LENGTH
    if data[at + 1] != TICK_RTYPE:
        return _UNKNOWN_TYPE
    if length != TICK_BYTES:
        mark_unsound(books)
        return _WRONG_LENGTH
    instrument = _wanted(books, _u32(data, at + 4))
    if instrument < 0:
        return instrument
    books.unsound[instrument] = 1 if data[at + _FLAGS_AT] & _MAYBE_BAD_BOOK else 0
    tick = out[0]
    tick.length = TICK_LENGTH_WORDS
    tick.rtype = TICK_RTYPE
    tick.publisher_id = _u16(data, at + 2)
    tick.instrument_id = books.instrument_ids[instrument]
    tick.ts_event = _u64(data, at + 8)
    tick.price = _u64(data, at + 16)
    tick.size = _u32(data, at + 24)
    tick.action = data[at + 28]
    tick.side = data[at + 29]
    tick.flags = data[at + _FLAGS_AT]
    tick.depth = data[at + 31]
    tick.ts_recv = _u64(data, at + 32)
    tick.ts_in_delta = _i32(data, at + 40)
    tick.sequence = _u32(data, at + 44)
    tick.bid_px = _u64(data, at + 48)
    tick.ask_px = _u64(data, at + 56)
    tick.bid_sz = _u32(data, at + 64)
    tick.ask_sz = _u32(data, at + 68)
    tick.bid_ct = _u32(data, at + 72)
    tick.ask_ct = _u32(data, at + 76)
    return instrument
