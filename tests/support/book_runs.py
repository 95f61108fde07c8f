"""Messages through the compiled books and through the reference, side by side."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numba import njit

from penstock.v1.records import TICK_DTYPE
from penstock_daemon.arena import Arena
from penstock_daemon.feed.books import (
    Books,
    apply_dbn,
    apply_itch,
    books_bytes,
    make_books,
    mark_unsound,
    new_session,
)
from penstock_daemon.feed.memory import FIRST_REFUSAL, NO_TICK, Refusal
from penstock_daemon.feed.price_levels import best_level
from support.reference_books import ReferenceBooks

ITCH, DBN = 0, 1
COMPARED = [name for name in TICK_DTYPE.names if name != "ts_recv"]

_compile = njit(nogil=True, cache=True, error_model="numpy")


@_compile
def apply_all(
    books: Any, payload: int, data: Any, starts: Any, lengths: Any, midnight_ns: int, ticks: Any, codes: Any
) -> None:
    """Apply messages in turn; codes: what each gave; ticks: (messages,), the tick of each that gave one."""
    for index in range(starts.shape[0]):
        out = ticks[index : index + 1]
        if payload == ITCH:
            codes[index] = apply_itch(books, data, starts[index], lengths[index], midnight_ns, out)
        else:
            codes[index] = apply_dbn(books, data, starts[index], lengths[index], midnight_ns, out)


@_compile
def doubt(books: Any) -> None:
    mark_unsound(books)


@_compile
def begin(books: Any) -> None:
    new_session(books)


@_compile
def read_tops(books: Any, tops: Any) -> None:
    """Write each book's top. tops: (instruments, 6)."""
    for instrument in range(tops.shape[0]):
        for side in range(2):
            price, shares, orders = best_level(books, 2 * instrument + side)
            tops[instrument, 3 * side] = price
            tops[instrument, 3 * side + 1] = shares
            tops[instrument, 3 * side + 2] = orders


def small_books(names: list[str], ids: list[int], *, orders_max: int = 1000, levels_max: int = 100) -> Books:
    arena = Arena(max(books_bytes(len(names), orders_max, levels_max), mmap.PAGESIZE))
    return make_books(arena.take, names, ids, orders_max=orders_max, levels_max=levels_max)


def packed(messages: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return messages as one array with nothing after its last byte, where each starts, and their lengths."""
    lengths = np.array([len(one) for one in messages], dtype=np.int64)
    data = np.frombuffer(bytearray(b"".join(messages)), dtype=np.uint8)
    return data, np.cumsum(lengths) - lengths, lengths


def run(books: Books, messages: list[bytes], *, payload: int = ITCH, midnight_ns: int = 0):
    """Apply messages. Returns codes and ticks, one of each per message."""
    data, starts, lengths = packed(messages)
    ticks = np.zeros(len(messages), dtype=TICK_DTYPE)
    codes = np.zeros(len(messages), dtype=np.int64)
    apply_all(books, payload, data, starts, lengths, midnight_ns, ticks, codes)
    return codes, ticks


def tops(books: Books) -> list[tuple[int, ...]]:
    found = np.zeros((len(books.unsound), 6), dtype=np.int64)
    read_tops(books, found)
    return [tuple(row) for row in found.tolist()]


def outcome(names: list[str], code: int) -> str:
    """Return what a code says in the words of the reference."""
    if code >= 0:
        return names[code]
    return "" if code == NO_TICK else Refusal(FIRST_REFUSAL - code).name


def as_dict(tick: np.void) -> dict[str, int]:
    return {name: int(tick[name]) for name in COMPARED}


def assert_same(books: Books, reference: ReferenceBooks, messages: list[bytes], midnight_ns: int = 0) -> list[str]:
    """Apply messages to both: the same outcomes, ticks, tops and doubts. Returns the outcomes."""
    names = list(reference.stocks)
    codes, ticks = run(books, messages, midnight_ns=midnight_ns)
    outcomes = []
    for index, message in enumerate(messages):
        expected, tick = reference.apply(message, midnight_ns)
        found = outcome(names, int(codes[index]))
        assert found == expected, (index, message, found, expected)
        if tick is not None:
            assert as_dict(ticks[index]) == tick, (index, message)
        outcomes.append(found)
    assert tops(books) == [reference.top(name) for name in names]
    assert books.unsound.tolist() == [int(reference.stocks[name].unsound) for name in names]
    return outcomes
