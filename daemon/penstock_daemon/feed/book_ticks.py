"""How a book becomes a tick: an mbp-1 record with the top after the event, written only when it says something new.

    a trade always gives a tick; anything else, if the top or its soundness is not what the last tick told

What was told is compared, not what stood before the message: a change made by a message that was refused half-way is
told with the next one of its instrument.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE, BookFlag
from penstock_daemon.feed.book_memory import ASK, BID, TOLD_ASK, TOLD_BID, TOLD_FLAGS
from penstock_daemon.feed.memory import NO_TICK
from penstock_daemon.feed.price_levels import best_level

ACTION_ADD: Final = ord("A")
ACTION_CANCEL: Final = ord("C")
ACTION_MODIFY: Final = ord("M")
ACTION_TRADE: Final = ord("T")
SIDE_ASK: Final = ord("A")  # Of a trade: the aggressor sold.
SIDE_BID: Final = ord("B")  # Of a trade: the aggressor bought.
SIDE_NONE: Final = ord("N")
PUBLISHER_ID: Final = 2  # As Databento numbers Nasdaq's ITCH.
_NOT_TOLD: Final = -1  # In the place of the flags: no top is like it.
_LAST = int(BookFlag.LAST)
_MAYBE_BAD_BOOK = int(BookFlag.MAYBE_BAD_BOOK)

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_part
def untell(books: Any, instrument: int) -> None:
    """Forget what the last tick told: nobody got it, so the next event tells the top. books: ``told`` is overwritten."""
    books.told[instrument, TOLD_FLAGS] = _NOT_TOLD


@_part
def tell(books: Any, instrument: int, action: int, side: int, price: int, size: int, ts_event: int, out: Any) -> int:
    """Write the tick of one event, if it says anything.

    Args:
        books: Books; the row of ``told`` is overwritten.
        instrument: index of the book.
        action: ACTION_TRADE, or what the event was.
        side: of the aggressor, or of the order.
        price: of the trade, 1e-9; else UNDEFINED_PRICE.
        size: of the trade; else 0.
        ts_event: Unix ns.
        out: TICK_DTYPE; record 0 is overwritten but for ``ts_recv``, which is the caller's. ``sequence`` and ``ts_in_delta``
            become 0.

    Returns:
        *instrument*, or NO_TICK.
    """
    bid_px, bid_sz, bid_ct = best_level(books, 2 * instrument + BID)
    ask_px, ask_sz, ask_ct = best_level(books, 2 * instrument + ASK)
    flags = _LAST
    if books.unsound[instrument] != 0:
        flags = _LAST | _MAYBE_BAD_BOOK
    told = books.told
    if (
        action != ACTION_TRADE
        and told[instrument, TOLD_BID] == bid_px
        and told[instrument, TOLD_BID + 1] == bid_sz
        and told[instrument, TOLD_BID + 2] == bid_ct
        and told[instrument, TOLD_ASK] == ask_px
        and told[instrument, TOLD_ASK + 1] == ask_sz
        and told[instrument, TOLD_ASK + 2] == ask_ct
        and told[instrument, TOLD_FLAGS] == flags & _MAYBE_BAD_BOOK
    ):
        return NO_TICK
    told[instrument, TOLD_BID] = bid_px
    told[instrument, TOLD_BID + 1] = bid_sz
    told[instrument, TOLD_BID + 2] = bid_ct
    told[instrument, TOLD_ASK] = ask_px
    told[instrument, TOLD_ASK + 1] = ask_sz
    told[instrument, TOLD_ASK + 2] = ask_ct
    told[instrument, TOLD_FLAGS] = flags & _MAYBE_BAD_BOOK
    tick = out[0]
    tick.length = TICK_LENGTH_WORDS
    tick.rtype = TICK_RTYPE
    tick.publisher_id = PUBLISHER_ID
    tick.instrument_id = books.instrument_ids[instrument]
    tick.ts_event = ts_event
    tick.price = price
    tick.size = size
    tick.action = action
    tick.side = side
    tick.flags = flags
    tick.depth = 0
    tick.ts_in_delta = 0
    tick.sequence = 0
    tick.bid_px = bid_px
    tick.ask_px = ask_px
    tick.bid_sz = bid_sz
    tick.ask_sz = ask_sz
    tick.bid_ct = bid_ct
    tick.ask_ct = ask_ct
    return instrument
