"""Rebuild ticks on their way to a daemon: given in order, once each, and never believed to be there before they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1.records import TICK_BYTES
from penstock_client.errors import DaemonProtocolError
from penstock_client.rebuild_ticks import RebuildTicks


def records(count: int) -> bytes:
    """Return *count* ticks that differ."""
    return b"".join(bytes([number % 251]) * TICK_BYTES for number in range(count))


@given(st.integers(0, 300), st.lists(st.integers(1, 50), max_size=40))
def test_ticks_are_given_in_order_each_once(count: int, rooms: list[int]) -> None:
    """Whatever the room of each message; what is acknowledged is no longer waited for."""
    books, sent = RebuildTicks(), b""
    books.begin(records(count))
    for room in rooms:
        part = books.give(room)
        assert len(part) <= room * TICK_BYTES
        sent += part
        assert books.waiting == len(part) // TICK_BYTES
        books.progress(len(sent) // TICK_BYTES)
        assert (books.waiting, books.left) == (0, count - len(sent) // TICK_BYTES)
    assert sent == records(count)[: len(sent)]
    assert books.whole == (len(sent) == count * TICK_BYTES)


def test_progress_beyond_what_was_given_is_refused_though_there_are_more() -> None:
    """A daemon can't have taken in what it was not sent."""
    books = RebuildTicks()
    books.begin(records(10))
    books.give(4)
    with pytest.raises(DaemonProtocolError, match="at most the 4 that were sent: was 5"):
        books.progress(5)
    books.progress(4)
    books.progress(3)  # Late news.
    assert books.waiting == 0
    assert not books.whole


def test_an_answer_says_that_the_rebuild_is_over() -> None:
    """Ticks are taken in order, and the answered one came after all of them."""
    books = RebuildTicks()
    assert books.whole
    books.begin(records(3))
    assert not books.whole
    books.give(3)
    books.answered()
    assert books.whole
