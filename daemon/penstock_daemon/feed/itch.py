"""One message of Nasdaq TotalView-ITCH 5.0, applied to the books.

    a message either does to its book what the specification says, or is refused
    after a refusal, no book that may be wrong is called sound

A book is emptied and becomes sound at the start of messages (S with event O, the first message of a day) and in
``new_session``; nothing else proves that no order is missing, an empty book included. Big-endian throughout; sizes and
offsets are those of Nasdaq's specification of version 5.0.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock.v1 import itch
from penstock.v1.records import UNDEFINED_PRICE, UNDEFINED_TIME
from penstock_daemon.feed.book_memory import (
    ASK,
    BID,
    LOCATES_LEARNT,
    NO_INSTRUMENT,
    NO_LOCATE,
    ORDER_PRICE,
    ORDER_SHARES,
    ORDERS_HELD,
    ORDERS_MAX,
    doubt_locate,
    mark_unsound,
    new_session,
)
from penstock_daemon.feed.book_ticks import (
    ACTION_ADD,
    ACTION_CANCEL,
    ACTION_MODIFY,
    ACTION_TRADE,
    SIDE_ASK,
    SIDE_BID,
    SIDE_NONE,
    tell,
)
from penstock_daemon.feed.memory import FIRST_REFUSAL, MESSAGE_BYTES, NO_TICK, Refusal
from penstock_daemon.feed.order_table import NO_SLOT, find_order, insert_order, owner_of, remove_order
from penstock_daemon.feed.price_levels import PRICE_UNIT, add_to_level, take_from_level

NO_LIMIT: Final = 1_999_999_900  # 199,999.9900: from here on, and at 0, a price is no limit but "at any price".

_SIZES = np.array([itch.MESSAGE_BYTES.get(chr(kind), 0) for kind in range(256)], dtype=np.int64)
_SYSTEM, _DIRECTORY, _ADD, _ADD_ATTRIBUTED = ord("S"), ord("R"), ord("A"), ord("F")
_EXECUTED, _EXECUTED_AT, _CANCEL, _DELETE = ord("E"), ord("C"), ord("X"), ord("D")
_REPLACE, _TRADE = ord("U"), ord("P")
_START_OF_MESSAGES = ord("O")
_BUY, _SELL, _YES, _NO = ord("B"), ord("S"), ord("Y"), ord("N")
_LOCATE_END: Final = 3  # Bytes up to which a message must go for its locate code to be known.

_UNKNOWN_TYPE = FIRST_REFUSAL - int(Refusal.UNKNOWN_TYPE)
_WRONG_LENGTH = FIRST_REFUSAL - int(Refusal.WRONG_LENGTH)
_WRONG_VALUE = FIRST_REFUSAL - int(Refusal.WRONG_VALUE)
_UNKNOWN_ORDER = FIRST_REFUSAL - int(Refusal.UNKNOWN_ORDER)
_ORDERS_FULL = FIRST_REFUSAL - int(Refusal.ORDERS_FULL)
_LEVELS_FULL = FIRST_REFUSAL - int(Refusal.LEVELS_FULL)
_TOO_LARGE = FIRST_REFUSAL - int(Refusal.TOO_LARGE)
_DUPLICATE_ORDER = FIRST_REFUSAL - int(Refusal.DUPLICATE_ORDER)
_UNDEFINED_TIME_BITS = UNDEFINED_TIME - 2**64

_Event = tuple[int, int, int, int, int]  # Refusal's code or 0; then action, side, price and size of the tick.

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_part
def _u16(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@_part
def _u32(data: Any, at: int) -> Any:
    return (_u16(data, at) << 16) | _u16(data, at + 2)


@_part
def _u64(data: Any, at: int) -> Any:
    return (_u32(data, at) << 32) | _u32(data, at + 4)


@_part
def _is_limit(price: int) -> bool:
    return 0 < price < NO_LIMIT


@_part
def _trade_price(price: int) -> int:
    return price * PRICE_UNIT if _is_limit(price) else UNDEFINED_PRICE


@_part
def _named_instrument(books: Any, locate: int, name: int) -> int:
    """Return the index of the stock that a message names, NO_TICK for an unwanted one, or WRONG_VALUE.

    A code is learnt from the first message that names its stock: the directory's, or an order's where that was missed.
    """
    if name != 0 and books.locate_names[locate] == name:
        return books.locate_instruments[locate]
    found = NO_INSTRUMENT
    for instrument in range(books.instrument_names.shape[0]):
        if books.instrument_names[instrument] == name:
            found = instrument
            break
    if (
        name == 0
        or books.locate_names[locate] != 0
        or (found != NO_INSTRUMENT and books.instrument_locates[found] != NO_LOCATE)
    ):
        doubt_locate(books, locate)
        if found != NO_INSTRUMENT:
            books.unsound[found] = 1
        return _WRONG_VALUE
    books.words[LOCATES_LEARNT] += 1
    books.locate_names[locate] = name
    books.locate_instruments[locate] = found
    if found != NO_INSTRUMENT:
        books.instrument_locates[found] = locate
    return found


@_part
def _add(books: Any, instrument: int, owner: int, reference: int, price: int, shares: int) -> int:
    """Put a new order into the book. Returns 0, or the code of its refusal."""
    code = 0
    if shares == 0:
        code = _WRONG_VALUE
    elif find_order(books, reference) != NO_SLOT:
        code = _DUPLICATE_ORDER
    elif books.words[ORDERS_HELD] >= books.words[ORDERS_MAX]:
        code = _ORDERS_FULL
    elif _is_limit(price) and not add_to_level(books, owner, price, shares):
        code = _LEVELS_FULL
    if code != 0:
        books.unsound[instrument] = 1
        return code
    insert_order(books, reference, price, shares, owner)
    return 0


@_part
def _take(books: Any, slot: int, shares: int) -> None:
    """Take shares from the order in *slot*, at most what it has; without shares it goes."""
    owner = owner_of(books, slot)
    price = books.orders[slot, ORDER_PRICE]
    left = books.orders[slot, ORDER_SHARES] - shares
    books.orders[slot, ORDER_SHARES] = left
    if _is_limit(price):
        take_from_level(books, owner, price, shares, 1 if left == 0 else 0)
    if left == 0:
        remove_order(books, slot)


@_part
def _apply_add(books: Any, data: Any, at: int, instrument: int) -> _Event:
    """Apply A or F."""
    side = data[at + 19]
    if side not in (_BUY, _SELL):
        books.unsound[instrument] = 1
        return _WRONG_VALUE, 0, 0, 0, 0
    owner = 2 * instrument + (BID if side == _BUY else ASK)
    code = _add(books, instrument, owner, _u64(data, at + 11), _u32(data, at + 32), _u32(data, at + 20))
    return code, ACTION_ADD, SIDE_BID if side == _BUY else SIDE_ASK, UNDEFINED_PRICE, 0


@_part
def _apply_to_order(books: Any, data: Any, at: int, kind: int, instrument: int) -> _Event:
    """Apply E, C, X, D or U, which name an order of *instrument*."""
    slot = find_order(books, _u64(data, at + 11))
    if slot == NO_SLOT:
        books.unsound[instrument] = 1
        return _UNKNOWN_ORDER, 0, 0, 0, 0
    owner = owner_of(books, slot)
    if owner >> 1 != instrument:
        books.unsound[instrument] = 1
        books.unsound[owner >> 1] = 1
        return _WRONG_VALUE, 0, 0, 0, 0
    price = books.orders[slot, ORDER_PRICE]
    held = books.orders[slot, ORDER_SHARES]
    shares = held
    if kind not in (_DELETE, _REPLACE):
        shares = _u32(data, at + 19)
    if shares == 0:
        books.unsound[instrument] = 1
        return _WRONG_VALUE, 0, 0, 0, 0
    _take(books, slot, min(shares, held))
    if shares > held:
        books.unsound[instrument] = 1
        return _TOO_LARGE, 0, 0, 0, 0
    side = SIDE_ASK if owner & 1 == ASK else SIDE_BID
    if kind == _REPLACE:
        code = _add(books, instrument, owner, _u64(data, at + 19), _u32(data, at + 31), _u32(data, at + 27))
        return code, ACTION_MODIFY, side, UNDEFINED_PRICE, 0
    if kind == _EXECUTED_AT:
        printable = data[at + 31]
        if printable not in (_YES, _NO):
            return _WRONG_VALUE, 0, 0, 0, 0
        price = _u32(data, at + 32)
        kind = _EXECUTED if printable == _YES else _CANCEL
    if kind != _EXECUTED:
        return 0, ACTION_CANCEL, side, UNDEFINED_PRICE, 0
    return 0, ACTION_TRADE, SIDE_BID if owner & 1 == ASK else SIDE_ASK, _trade_price(price), shares


@_part
def _apply_hidden_trade(data: Any, at: int) -> _Event:
    """Apply P, a trade with an order that is not shown. Its side has been B for all since 2014: the tick has none."""
    shares = _u32(data, at + 20)
    if data[at + 19] not in (_BUY, _SELL) or shares == 0:
        return _WRONG_VALUE, 0, 0, 0, 0
    return 0, ACTION_TRADE, SIDE_NONE, _trade_price(_u32(data, at + 32)), shares


@_part
def apply_itch(books: Any, data: Any, at: int, length: int, midnight_ns: int, out: Any) -> int:
    """Apply one message.

    Args:
        books: Books, of make_books. Overwritten.
        data: uint8, 1-D, what the message lies in.
        at: where it begins.
        length: its bytes, type included. No byte past MESSAGE_BYTES is looked at: a longer one is of the wrong length.
        midnight_ns: Unix ns of the venue's last midnight; negative where the day is unknown: ``ts_event`` is undefined.
        out: TICK_DTYPE, 1-D; record 0 is overwritten but for ``ts_recv`` when a tick is told, and is else as it was.
            ``ts_in_delta`` and ``sequence`` become 0: ITCH has neither.

    Returns:
        The index of the instrument that a tick was written for, NO_TICK, or FIRST_REFUSAL minus a Refusal, which the caller counts.

    Allocates nothing. Source: Nasdaq TotalView-ITCH 5.0 specification.
    """
    if at < 0 or length < 1 or at + min(length, MESSAGE_BYTES) > data.shape[0]:
        mark_unsound(books)
        return _WRONG_LENGTH
    kind = data[at]
    type_bytes = _SIZES[kind]
    if type_bytes != length:
        if length < _LOCATE_END:
            mark_unsound(books)
        else:
            doubt_locate(books, _u16(data, at + 1))
        return _UNKNOWN_TYPE if type_bytes == 0 else _WRONG_LENGTH
    if kind == _SYSTEM:
        if data[at + 11] == _START_OF_MESSAGES:
            new_session(books)
        return NO_TICK
    named = 0
    if kind in (_ADD, _ADD_ATTRIBUTED, _TRADE):
        named = 24
    elif kind == _DIRECTORY:
        named = 11
    elif kind not in (_EXECUTED, _EXECUTED_AT, _CANCEL, _DELETE, _REPLACE):
        return NO_TICK
    locate = _u16(data, at + 1)
    if named != 0:
        instrument = _named_instrument(books, locate, _u64(data, at + named))
    elif books.locate_names[locate] == 0:
        doubt_locate(books, locate)
        return _UNKNOWN_ORDER
    else:
        instrument = books.locate_instruments[locate]
    if instrument < 0:
        return instrument  # NO_INSTRUMENT is NO_TICK; the other is WRONG_VALUE.
    if kind == _DIRECTORY:
        return NO_TICK
    if kind == _TRADE:
        code, action, side, price, size = _apply_hidden_trade(data, at)
    elif named != 0:
        code, action, side, price, size = _apply_add(books, data, at, instrument)
    else:
        code, action, side, price, size = _apply_to_order(books, data, at, kind, instrument)
    if code != 0:
        return code
    ts_event = _UNDEFINED_TIME_BITS
    if midnight_ns >= 0:
        ts_event = midnight_ns + ((_u16(data, at + 5) << 32) | _u32(data, at + 7))
    return tell(books, instrument, action, side, price, size, ts_event, out)
