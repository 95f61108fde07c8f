"""The order books of a feed's instruments: messages in, best bids and offers out.

A stub: it fixes what the feed thread calls. ``apply_itch`` and ``apply_dbn`` apply one message; a book that may be wrong
is unsound, and its ticks carry BookFlag.MAYBE_BAD_BOOK until it is sound again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from penstock_daemon.feed.memory import NO_TICK, Take

_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Books(NamedTuple):
    """The arrays of all books, in the form that compiled code takes as one argument."""

    unsound: NDArray[np.int64]  # (instruments,): 1 while its book may be wrong
    instrument_ids: NDArray[np.int64]  # (instruments,)


def books_bytes(instruments: int, orders_max: int, levels_max: int) -> int:
    """Return what ``make_books`` takes, alignment included."""
    del orders_max, levels_max
    return instruments * 16 + 256


def make_books(
    take: Take, names: Sequence[str], instrument_ids: Sequence[int], *, orders_max: int, levels_max: int
) -> Books:
    """Take the books' memory from an arena, all books empty and sound.

    Args:
        take: ``Arena.take``.
        names: the stock of each instrument, as ITCH names it, without padding; any text for DBN.
        instrument_ids: of each, as ticks carry it (and DBN records name it).
        orders_max: orders of all books together.
        levels_max: price levels of one side of one book.
    """
    del orders_max, levels_max
    count = len(names)
    books = Books(
        unsound=take("unsound", (count,), np.int64, holds="books that may be wrong"),
        instrument_ids=take("book_ids", (count,), np.int64, holds="their instruments"),
    )
    books.instrument_ids[:] = instrument_ids
    return books


@_part
def apply_itch(books: Any, data: Any, at: int, length: int, midnight_ns: int, out: Any) -> int:  # noqa: ARG001 - a stub.
    """Apply one ITCH 5.0 message.

    Args:
        books: Books; overwritten.
        data: uint8, 1-D; the message is ``data[at : at + length]``.
        at: where it begins.
        length: at least 1. No byte past MESSAGE_BYTES is looked at: a longer one is of the wrong length.
        midnight_ns: what its time counts from, Unix.
        out: shape (1,), TICK_DTYPE; overwritten but for ts_recv, where the top of a book changed or a trade took place.

    Returns:
        The index of the instrument that ``out`` is about, NO_TICK, or FIRST_REFUSAL minus a Refusal.
    """
    return NO_TICK


@_part
def apply_dbn(books: Any, data: Any, at: int, length: int, midnight_ns: int, out: Any) -> int:  # noqa: ARG001 - a stub.
    """Apply one DBN mbp-1 record; arguments and result as apply_itch."""
    return NO_TICK


@_part
def mark_unsound(books: Any) -> None:
    """Note that messages are missing: every book may be wrong."""
    books.unsound[:] = 1


@_part
def new_session(books: Any) -> None:
    """Empty every book; all are sound."""
    books.unsound[:] = 0
