"""The artificial ITCH file: after every message, every stock has the top of the slow reference, and the ticks stay as they are."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools

import numpy as np
import pytest

from penstock.v1.records import TICK_DTYPE
from penstock_client.feed_file import open_feed_file
from support.book_runs import as_dict, begin, outcome, run, small_books, tops
from support.reference_books import ReferenceBooks

STOCKS = ["ALC", "BOB", "CHAR"]
MIDNIGHT_NS = 1_293_166_800_000_000_000  # 2010-12-24 in New York.
TICKS_SHA256 = "615ed581a248ee99b4edd85e8706b7ad1c2def86ab5403ca8e8616782812c7b2"


@pytest.fixture(scope="module")
def messages(recorded_file) -> list[bytes]:
    file = open_feed_file(recorded_file("itch/ex20101224.TEST_ITCH_50.gz"), dt.date(2010, 12, 24))
    ends = file.starts.tolist()
    return [bytes(file.blocks[start + 2 : end]) for start, end in itertools.pairwise(ends)]


@pytest.mark.recorded
def test_tops_ticks_and_refusals_are_the_references_after_every_message(messages):
    books = small_books(STOCKS, [1, 2, 3], orders_max=4000, levels_max=300)
    reference = ReferenceBooks(STOCKS, [1, 2, 3], orders_max=4000, levels_max=300)
    expected = [reference.top(name) for name in STOCKS]
    refused = 0
    for index, message in enumerate(messages):
        codes, ticks = run(books, [message], midnight_ns=MIDNIGHT_NS)
        name, tick = reference.apply(message, MIDNIGHT_NS)
        assert outcome(STOCKS, int(codes[0])) == name, index
        if tick is not None:
            assert as_dict(ticks[0]) == tick, index
        locate = message[2]
        if 1 <= locate <= 3 and message[0] != ord("P"):  # A hidden trade: all tops stay.
            expected[locate - 1] = reference.top(STOCKS[locate - 1])
        assert tops(books) == expected, index
        refused += name == "UNKNOWN_ORDER"
    assert refused == 117, "orders that the file never adds"
    assert books.unsound.all(), "each stock has such an order"


@pytest.mark.recorded
def test_the_files_ticks_are_the_same_for_ever(messages):
    books = small_books(STOCKS, [1, 2, 3], orders_max=4000, levels_max=300)
    digests = set()
    for _ in range(2):  # The second time the books have been in use: nothing of a session is left.
        codes, ticks = run(books, messages, midnight_ns=MIDNIGHT_NS)
        told = np.ascontiguousarray(ticks[codes >= 0], dtype=TICK_DTYPE)
        digests.add(hashlib.sha256(told.tobytes()).hexdigest())
        begin(books)
    assert len(told) == 5559
    assert digests == {TICKS_SHA256}
