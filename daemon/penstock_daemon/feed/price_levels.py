"""The prices of one side of one book, each with its shares and its orders, the best one always at hand.

    keys ascend strictly; the key of a bid is its price, that of an ask minus its price: the last level is the best
    a level's shares and orders are the sums over the orders at its price, and it goes when its last order goes

Nearly all that happens in a book happens near its best price, so levels are a plain sorted array with the best at its
end: finding a level looks at the last few first, and a new or empty level moves only those that are better.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from penstock.v1.records import UNDEFINED_PRICE
from penstock_daemon.feed.book_memory import ASK, LEVEL_KEY, LEVEL_ORDERS, LEVEL_SHARES, LEVEL_WORDS

PRICE_UNIT: Final = 100_000  # The venue's 1e-4 in ticks' 1e-9.
_NEAR: Final = 8  # Levels looked at one by one before the rest is searched by halves.

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_part
def key_of(owner: int, price: int) -> int:
    """Return the key of a price on the side of *owner*."""
    if owner & 1 == ASK:
        return -price
    return price


@_part
def place_of(books: Any, owner: int, key: int) -> int:
    """Return the first place whose key is not below *key*: the level's own, or where it would be put."""
    levels = books.levels
    high = books.level_counts[owner]
    near = 0
    while high > 0 and near < _NEAR:
        if levels[owner, high - 1, LEVEL_KEY] < key:
            return high
        high -= 1
        near += 1
    low = 0
    while low < high:
        middle = (low + high) >> 1
        if levels[owner, middle, LEVEL_KEY] < key:
            low = middle + 1
        else:
            high = middle
    return low


@_part
def add_to_level(books: Any, owner: int, price: int, shares: int) -> bool:
    """Count one more order at a price. Returns False, with nothing changed, where a new level has no room."""
    levels = books.levels
    key = key_of(owner, price)
    count = books.level_counts[owner]
    place = place_of(books, owner, key)
    if place < count and levels[owner, place, LEVEL_KEY] == key:
        levels[owner, place, LEVEL_SHARES] += shares
        levels[owner, place, LEVEL_ORDERS] += 1
        return True
    if count == levels.shape[1]:
        return False
    for moved in range(count, place, -1):
        for word in range(LEVEL_WORDS):
            levels[owner, moved, word] = levels[owner, moved - 1, word]
    levels[owner, place, LEVEL_KEY] = key
    levels[owner, place, LEVEL_SHARES] = shares
    levels[owner, place, LEVEL_ORDERS] = 1
    books.level_counts[owner] = count + 1
    return True


@_part
def take_from_level(books: Any, owner: int, price: int, shares: int, orders: int) -> None:
    """Count shares off a price, and *orders* (0 or 1) orders; the level goes with its last. The level is there."""
    levels = books.levels
    count = books.level_counts[owner]
    place = place_of(books, owner, key_of(owner, price))
    levels[owner, place, LEVEL_SHARES] -= shares
    levels[owner, place, LEVEL_ORDERS] -= orders
    if levels[owner, place, LEVEL_ORDERS] == 0:
        for moved in range(place, count - 1):
            for word in range(LEVEL_WORDS):
                levels[owner, moved, word] = levels[owner, moved + 1, word]
        books.level_counts[owner] = count - 1


@_part
def best_level(books: Any, owner: int) -> tuple[int, int, int]:
    """Return price in 1e-9, shares as 32 bits hold them, and orders of the best level; UNDEFINED_PRICE, 0, 0 of none."""
    count = books.level_counts[owner]
    if count == 0:
        return UNDEFINED_PRICE, 0, 0
    best = books.levels[owner, count - 1]
    return key_of(owner, best[LEVEL_KEY]) * PRICE_UNIT, min(best[LEVEL_SHARES], 0xFFFFFFFF), best[LEVEL_ORDERS]
