"""The memory of the order books: who owns which order, what each price holds, and which books may be wrong.

    every order in the table that has a limit is counted in exactly one level; every level has at least one order
    orders held <= orders_max <= half of the table's slots
    a book that may be wrong has 1 in ``unsound``, and its ticks carry BookFlag.MAYBE_BAD_BOOK

Books have one writer, the thread that applies messages. What a message does is in ``itch.py`` and ``dbn_payload.py``;
the table and the levels are in ``order_table.py`` and ``price_levels.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from penstock.v1.records import UNDEFINED_PRICE
from penstock_daemon.arena import CACHE_LINE_BYTES
from penstock_daemon.feed.memory import Take

# A row of ``orders``.
ORDER_REFERENCE: Final = 0  # The venue's 64 bits.
ORDER_PRICE: Final = 1  # In the venue's unit, 1e-4.
ORDER_SHARES: Final = 2  # Not yet executed or cancelled.
ORDER_OWNER: Final = 3  # OWNER_BASE + 2 * instrument + side; less than OWNER_BASE in a free slot.
ORDER_WORDS: Final = 4  # 32 bytes: half a cache line, so that looking at an order is one miss.
EMPTY: Final = -1

BID: Final = 0
ASK: Final = 1

# A row of ``levels``.
LEVEL_KEY: Final = 0  # The price of bids, minus the price of asks: the best is the greatest.
LEVEL_SHARES: Final = 1
LEVEL_ORDERS: Final = 2
LEVEL_WORDS: Final = 3

# Of ``words``.
ORDERS_HELD: Final = 0
ORDERS_MAX: Final = 1
TABLE_SHIFT: Final = 2  # 64 less the logarithm of the table's slots.
OWNER_BASE: Final = 3  # Grows with each session: so the orders of those before it stand in free slots.
LOCATES_LEARNT: Final = 4
WORDS: Final = 5

# A row of ``told``: the top as the last tick told it.
TOLD_BID: Final = 0  # Price, size and orders of the bid,
TOLD_ASK: Final = 3  # and of the ask.
TOLD_FLAGS: Final = 6
TOLD_WORDS: Final = 8

LOCATES: Final = 1 << 16
NO_INSTRUMENT: Final = -1
NO_LOCATE: Final = -1

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Books(NamedTuple):
    """All arrays of the books; shapes by (instruments, orders_max, levels_max). All int64."""

    orders: NDArray[np.int64]  # (slots, ORDER_WORDS), a hash table.
    levels: NDArray[np.int64]  # (2 * instruments, levels_max, LEVEL_WORDS), ascending by key: the best is the last.
    level_counts: NDArray[np.int64]  # (2 * instruments,), how many levels of a side are in use.
    told: NDArray[np.int64]  # (instruments, TOLD_WORDS).
    unsound: NDArray[np.int64]  # (instruments,), 1 where the book may be wrong.
    instrument_ids: NDArray[np.int64]  # (instruments,), as ticks carry them.
    instrument_names: NDArray[np.int64]  # (instruments,), the 8 characters of the symbol, as ``name_bits`` reads them.
    instrument_locates: NDArray[np.int64]  # (instruments,), this session's code, or NO_LOCATE.
    sorted_ids: NDArray[np.int64]  # (instruments,), instrument_ids ascending.
    sorted_indices: NDArray[np.int64]  # (instruments,), whose they are.
    locate_names: NDArray[np.int64]  # (LOCATES,), the stock that a code stands for, 0 while unknown.
    locate_instruments: NDArray[np.int64]  # (LOCATES,), its index, or NO_INSTRUMENT.
    words: NDArray[np.int64]  # (WORDS,).


def name_bits(symbol: str) -> int:
    """Return the 8 characters of *symbol* in ITCH, padded with spaces, as the signed big-endian number they are."""
    return int.from_bytes(symbol.encode("ascii", "replace")[:8].ljust(8), "big", signed=True)


def table_slots(orders_max: int) -> int:
    """Return how many slots a table for *orders_max* orders has: a power of two, at most half of it ever in use."""
    return 1 << max(1, (2 * orders_max - 1).bit_length())


def books_bytes(instruments: int, orders_max: int, levels_max: int) -> int:
    """Return what ``make_books`` takes, as the sum of what needs it, in bytes, alignment included."""
    words = 0
    words += table_slots(orders_max) * ORDER_WORDS  # Orders, and as many free slots.
    words += 2 * instruments * levels_max * LEVEL_WORDS  # Prices of both sides.
    words += 2 * instruments  # How many of them are in use.
    words += instruments * TOLD_WORDS  # The top as last told.
    words += 6 * instruments  # Soundness, id, name, locate code, and the ids once more in order, with their indices.
    words += 2 * LOCATES  # Each locate code's stock, and its index.
    words += WORDS
    return 8 * words + len(Books._fields) * CACHE_LINE_BYTES


def make_books(
    take: Take, names: Sequence[str], instrument_ids: Sequence[int], *, orders_max: int, levels_max: int
) -> Books:
    """Take the books' memory from an arena, all books empty and sound.

    Args:
        take: ``Arena.take``.
        names: the stock of each instrument, as ITCH names it, without padding; any text for DBN.
        instrument_ids: of each, as ticks carry it (and DBN records name it); no two alike.
        orders_max: orders of all books together, at one time; at least 1.
        levels_max: prices of one side of one book, at one time; at least 1.
    """
    count = len(names)
    assert count == len(set(instrument_ids)) == len(instrument_ids) > 0, "each instrument has a name and its own id"
    slots = table_slots(orders_max)
    books = Books(
        orders=take("orders", (slots, ORDER_WORDS), np.int64, holds="orders of all books, by reference"),
        levels=take("levels", (2 * count, levels_max, LEVEL_WORDS), np.int64, holds="prices of each side of each book"),
        level_counts=take("level_counts", (2 * count,), np.int64, holds="how many of them there are"),
        told=take("told", (count, TOLD_WORDS), np.int64, holds="each book's top as last told"),
        unsound=take("unsound", (count,), np.int64, holds="books that may be wrong"),
        instrument_ids=take("book_ids", (count,), np.int64, holds="their instruments"),
        instrument_names=take("book_names", (count,), np.int64, holds="their stocks"),
        instrument_locates=take("book_locates", (count,), np.int64, holds="their locate codes"),
        sorted_ids=take("sorted_ids", (count,), np.int64, holds="the ids in ascending order"),
        sorted_indices=take("sorted_indices", (count,), np.int64, holds="whose they are"),
        locate_names=take("locate_names", (LOCATES,), np.int64, holds="the stock of each locate code"),
        locate_instruments=take("locate_instruments", (LOCATES,), np.int64, holds="its book"),
        words=take("book_words", (WORDS,), np.int64, holds="the order table's measures"),
    )
    books.instrument_ids[:] = instrument_ids
    books.instrument_names[:] = [name_bits(name) for name in names]
    books.sorted_indices[:] = np.argsort(books.instrument_ids, kind="stable")
    books.sorted_ids[:] = books.instrument_ids[books.sorted_indices]
    books.words[ORDERS_MAX] = orders_max
    books.words[TABLE_SHIFT] = 64 - (slots.bit_length() - 1)
    books.orders[:, ORDER_OWNER] = EMPTY
    books.words[LOCATES_LEARNT] = 1  # Whatever the arena has is no code.
    _empty(books)
    return books


def _empty(books: Any) -> None:
    """Empty every book; all are sound. Locate codes are forgotten too.

    To be called where every message of a session will be seen, its first one included; who joins later calls
    ``mark_unsound`` after it. Writes no order, since a packet can ask for it a hundred times over: the table may be a
    gigabyte. books: overwritten.
    """
    books.words[OWNER_BASE] += books.level_counts.shape[0]
    books.level_counts[:] = 0
    books.told[:] = 0
    books.told[:, TOLD_BID] = UNDEFINED_PRICE
    books.told[:, TOLD_ASK] = UNDEFINED_PRICE
    books.unsound[:] = 0
    books.instrument_locates[:] = NO_LOCATE
    if books.words[LOCATES_LEARNT] != 0:
        books.locate_names[:] = 0
        books.locate_instruments[:] = NO_INSTRUMENT
        books.words[LOCATES_LEARNT] = 0
    books.words[ORDERS_HELD] = 0


new_session = _part(_empty)


@_part
def mark_unsound(books: Any) -> None:
    """Note that messages are missing: every book may be wrong. books: ``unsound`` is overwritten."""
    books.unsound[:] = 1


@_part
def doubt_locate(books: Any, locate: int) -> None:
    """Doubt the book that a locate code stands for, whichever that may be.

    A code that no message has named yet may be that of any wanted stock without a code; 0 is no stock's.
    """
    if books.locate_names[locate] != 0:
        instrument = books.locate_instruments[locate]
        if instrument != NO_INSTRUMENT:
            books.unsound[instrument] = 1
    elif locate != 0:
        for instrument in range(books.unsound.shape[0]):
            if books.instrument_locates[instrument] == NO_LOCATE:
                books.unsound[instrument] = 1
