"""The table of orders: as good after millions of orders as a new one, full at its size, and without an allocation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from penstock.v1.records import TICK_DTYPE
from penstock_daemon.feed.book_memory import EMPTY, ORDER_OWNER, ORDER_REFERENCE, ORDERS_HELD, TABLE_SHIFT, table_slots
from penstock_daemon.feed.order_table import NO_SLOT, find_order, home_of, insert_order, remove_order
from support.book_runs import ITCH, apply_all, begin, outcome, packed, run, small_books, tops
from support.itch_orders import add, delete, directory, executed, replace, start_of_messages

_compile = njit(nogil=True, cache=True, error_model="numpy")


@_compile
def insert_all(books: Any, references: Any) -> None:
    for index in range(references.shape[0]):
        insert_order(books, references[index], 1, 1, 0)


@_compile
def churn(books: Any, references: Any, rounds: int, apart: int) -> int:
    """Replace random orders by new ones, whose references count up. Returns how many were not found."""
    draw = np.uint64(88172645463325252)
    newest = references[-1]
    missing = 0
    for _ in range(rounds):
        draw ^= draw << np.uint64(13)
        draw ^= draw >> np.uint64(7)
        draw ^= draw << np.uint64(17)
        chosen = np.int64(draw % np.uint64(references.shape[0]))
        slot = find_order(books, references[chosen])
        if slot == NO_SLOT:
            missing += 1
            continue
        remove_order(books, slot)
        newest += apart
        references[chosen] = newest
        insert_order(books, newest, 1, 1, 0)
    return missing


@_compile
def displacement(books: Any) -> int:
    """Return how many slots all orders together stand behind their homes."""
    total = 0
    for slot in range(books.orders.shape[0]):
        if books.orders[slot, ORDER_OWNER] != EMPTY:
            home = home_of(books.orders[slot, ORDER_REFERENCE], books.words[TABLE_SHIFT])
            total += (slot - home) & (books.orders.shape[0] - 1)
    return total


@pytest.mark.parametrize("apart", [1, 7, 0x9E3779B97F4A7C1])
def test_table_after_millions_of_orders_is_as_a_new_one_with_the_same_orders(apart):
    """The displacement of linear probing does not depend on the order of insertion: any trace of a deletion shows."""
    books = small_books(["A"], [1], orders_max=1 << 12)
    references = np.arange(1, (1 << 12) + 1, dtype=np.int64) * apart
    insert_all(books, references)
    assert churn(books, references, 1_000_000, apart) == 0
    assert books.words[ORDERS_HELD] == len(references)
    fresh = small_books(["A"], [1], orders_max=1 << 12)
    insert_all(fresh, references)
    assert displacement(books) == displacement(fresh)
    held = books.orders[books.orders[:, ORDER_OWNER] != EMPTY, ORDER_REFERENCE]
    assert sorted(held.tolist()) == sorted(references.tolist())


@pytest.mark.parametrize(("orders_max", "slots"), [(1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (1 << 18, 1 << 19)])
def test_at_least_half_of_the_slots_stay_free(orders_max, slots):
    assert table_slots(orders_max) == slots


@pytest.mark.parametrize("orders_max", [1, 2, 5, 1024])
def test_full_table_refuses_one_more_order_and_keeps_all_others(orders_max):
    books = small_books(["AAPL", "B"], [1, 2], orders_max=orders_max)
    fill = [add("AAPL", reference, "B", 100, 1000) for reference in range(orders_max)]
    run(books, [start_of_messages(), directory("AAPL"), directory("B"), *fill])
    assert not books.unsound.any()
    codes, _ = run(books, [add("AAPL", orders_max, "B", 1, 2000), delete("AAPL", orders_max)])
    assert [outcome([], code) for code in codes.tolist()] == ["ORDERS_FULL", "UNKNOWN_ORDER"]
    assert books.unsound.tolist() == [1, 0]
    codes, _ = run(books, [replace("AAPL", 0, 9999, 7, 1100), *(delete("AAPL", one) for one in range(1, orders_max))])
    assert codes.min() >= -1, "a replacement needs no more room, and all are there"
    assert tops(books)[0][:3] == (110_000_000, 7, 1)


@pytest.fixture
def counted_allocations() -> Iterator[None]:
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


@_compile
def allocate(words: int) -> float:
    return np.zeros(words)[words - 1]


@pytest.mark.usefixtures("counted_allocations")
def test_messages_allocate_nothing():
    books = small_books(["AAPL"], [1])
    some = [add("AAPL", 1, "B", 5, 900), add("AAPL", 2, "S", 5, 1000), executed("AAPL", 1, 5), delete("AAPL", 2)]
    data, starts, lengths = packed([start_of_messages(), b"?"] + some * 1000)
    ticks = np.zeros(len(starts), dtype=TICK_DTYPE)
    codes = np.zeros(len(starts), dtype=np.int64)

    def allocations(count: int) -> int:
        before = rtsys.get_allocation_stats().alloc
        apply_all(books, ITCH, data, starts[:count], lengths[:count], 0, ticks, codes)
        begin(books)
        return rtsys.get_allocation_stats().alloc - before

    entering = allocations(0)  # One per array that is handed over.
    assert allocations(len(starts)) == entering
    before = rtsys.get_allocation_stats().alloc
    allocate(10)
    assert rtsys.get_allocation_stats().alloc > before, "the counter must count"
