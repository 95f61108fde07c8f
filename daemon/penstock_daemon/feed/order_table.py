"""Orders by their reference: an open-addressing hash table that deletes without a trace.

    the slots from an order's home to the slot it stands in are all taken
    at most half of the slots are taken, so every search ends, most at once

Deletion moves later orders of the run back into the hole (Knuth, The Art of Computer Programming, volume 3, 6.4,
algorithm R), so that a table after millions of orders is as good as a new one. The home is the top bits of the reference times
2^64 / golden ratio: references that count up spread evenly.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock_daemon.feed.book_memory import (
    EMPTY,
    ORDER_OWNER,
    ORDER_PRICE,
    ORDER_REFERENCE,
    ORDER_SHARES,
    ORDER_WORDS,
    ORDERS_HELD,
    OWNER_BASE,
    TABLE_SHIFT,
)

NO_SLOT: Final = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_part
def home_of(reference: int, shift: int) -> Any:
    """Return the slot where the search for a reference begins. All in uint64: mixed with int64 it were a float64."""
    return np.int64((np.uint64(reference) * _GOLDEN) >> np.uint64(shift))


@_part
def find_order(books: Any, reference: int) -> int:
    """Return the slot of an order, or NO_SLOT. books: Books."""
    orders = books.orders
    mask = orders.shape[0] - 1
    base = books.words[OWNER_BASE]
    slot = home_of(reference, books.words[TABLE_SHIFT])
    while orders[slot, ORDER_OWNER] >= base:
        if orders[slot, ORDER_REFERENCE] == reference:
            return slot
        slot = (slot + 1) & mask
    return NO_SLOT


@_part
def owner_of(books: Any, slot: int) -> int:
    """Return whose the order in *slot* is: 2 * instrument + side."""
    owner: int = books.orders[slot, ORDER_OWNER] - books.words[OWNER_BASE]
    return owner


@_part
def insert_order(books: Any, reference: int, price: int, shares: int, owner: int) -> None:
    """Put an order in that is not there; the caller has seen that there is room. books: Books, overwritten."""
    orders = books.orders
    mask = orders.shape[0] - 1
    base = books.words[OWNER_BASE]
    slot = home_of(reference, books.words[TABLE_SHIFT])
    while orders[slot, ORDER_OWNER] >= base:
        slot = (slot + 1) & mask
    orders[slot, ORDER_REFERENCE] = reference
    orders[slot, ORDER_PRICE] = price
    orders[slot, ORDER_SHARES] = shares
    orders[slot, ORDER_OWNER] = base + owner
    books.words[ORDERS_HELD] += 1


@_part
def remove_order(books: Any, slot: int) -> None:
    """Take the order in *slot* out, and move back into the hole what stands behind it. books: Books, overwritten."""
    orders = books.orders
    mask = orders.shape[0] - 1
    shift = books.words[TABLE_SHIFT]
    base = books.words[OWNER_BASE]
    hole = slot
    probe = (hole + 1) & mask
    while orders[probe, ORDER_OWNER] >= base:
        home = home_of(orders[probe, ORDER_REFERENCE], shift)
        if ((probe - home) & mask) >= ((probe - hole) & mask):  # Its home is not behind the hole: it may move there.
            for word in range(ORDER_WORDS):
                orders[hole, word] = orders[probe, word]
            hole = probe
        probe = (probe + 1) & mask
    orders[hole, ORDER_OWNER] = EMPTY
    books.words[ORDERS_HELD] -= 1
