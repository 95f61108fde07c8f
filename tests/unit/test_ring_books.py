"""The books of a session over rings: claims and answers stay within the ring, whatever the daemon's words say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_DTYPE, TICK_BYTES
from penstock_client.errors import DaemonProtocolError, LocalUsageError, SessionLost
from penstock_client.shared_memory.attach import attach
from penstock_client.shared_memory.books import NO_ROOM, RingBooks
from penstock_client.shared_memory.rings import Rings
from penstock_client.shared_memory.segment import Segment
from penstock_client.shared_memory.session import RingMailbox
from penstock_client.shared_memory.words import fences
from support.client_runs import ticks_of
from support.ring_stand_in import RingStandIn, echo

SLOTS = 64
PUBLISHED = layout.PREDICTION_PUBLISHED_AT // 8


class Silent(RingStandIn):
    """A daemon that does nothing by itself: a test writes its words and records."""

    def _serve(self) -> None:
        self._stop.wait()

    def answer(self, first: int, ticks: np.ndarray) -> None:
        count = len(ticks)
        self._predictions[np.arange(self.given, self.given + count) & (self.slots - 1)] = echo(first, ticks)
        self.given += count
        self.words[PUBLISHED] = self.given


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Silent]:
    with Silent(tmp_path / "a.sock", SLOTS) as stand_in:
        yield stand_in


def books_on(silent: Silent, in_flight_max: int = SLOTS) -> tuple[RingBooks, Segment]:
    books = RingBooks([1, 2])
    books.open_first(0, in_flight_max, 4)
    segment = attach(str(silent.path), silent.token, 10.0, fences())
    books.attach(segment)
    return books, segment


def test_a_full_ring_is_seen_by_the_writer_and_room_comes_with_answers(silent: Silent):
    books, segment = books_on(silent)
    records = ticks_of(100).tobytes()
    assert books.accept(records) == SLOTS
    assert books.accept(records) == books.room == 0
    assert books.accept_one(records[:TICK_BYTES]) == NO_ROOM
    assert segment.words[layout.TICK_PUBLISHED_AT // 8] == SLOTS
    silent.answer(0, ticks_of(3))
    assert len(books.drain().predictions) == 3
    assert books.accept_one(records[:TICK_BYTES]) == SLOTS
    assert books.accept(records) == 2


def test_ticks_and_answers_go_round_the_rings_in_order_whatever_the_batch(silent: Silent):
    books, _ = books_on(silent)
    ticks = ticks_of(1000)
    draw = np.random.Generator(np.random.Philox(5))
    sent, seen, got = 0, 0, []
    while len(got) < len(ticks):
        wanted = min(int(draw.integers(1, SLOTS)), len(ticks) - sent)
        sent += books.accept(ticks[sent : sent + wanted].tobytes()) if wanted else 0
        count = int(draw.integers(0, sent - seen + 1))
        slots = np.arange(seen, seen + count) & (SLOTS - 1)
        assert silent._ticks["tick"][slots].tolist() == ticks[seen : seen + count].tolist()
        silent.answer(seen, ticks[seen : seen + count])
        seen += count
        while (batch := books.drain()) is not None:
            got += batch.predictions["ts_event"].tolist()
    assert got == list(range(1000))
    assert books.unanswered == 0


@pytest.mark.parametrize("cursor", [-1, SLOTS + 1, 1 << 62, -(1 << 63), 5])
@pytest.mark.parametrize("look", [RingBooks.drain, RingBooks.set_aside, RingBooks.peek, RingBooks.detach])
def test_a_cursor_that_lies_ends_in_an_error_and_not_in_a_read(silent: Silent, cursor: int, look):
    books, _ = books_on(silent)
    books.accept(ticks_of(10).tobytes())
    silent.answer(0, ticks_of(10))
    books.drain()
    silent.words[PUBLISHED] = cursor if cursor != SLOTS + 1 else 10 + SLOTS + 1
    with pytest.raises(DaemonProtocolError, match="PREDICTION_PUBLISHED must be in 10 to 74"):
        look(books)


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("look", [RingBooks.drain, RingBooks.set_aside, RingBooks.peek])
def test_an_answer_out_of_order_is_refused(silent: Silent, count: int, look):
    books, _ = books_on(silent)
    books.accept(ticks_of(40).tobytes())
    answers = echo(0, ticks_of(count))
    answers["sequence"][-1] += 1
    silent._predictions[:count] = answers
    silent.words[PUBLISHED] = count
    with pytest.raises(DaemonProtocolError, match=f"go on at sequence {count - 1}, .* got {count}"):
        look(books)


def test_refused_ticks_are_errors_in_order_and_enter_no_history(silent: Silent):
    books, segment = books_on(silent)
    books.accept(ticks_of(4).tobytes())
    silent.answer(0, ticks_of(4))
    silent._predictions["flags"][[1, 3]] = layout.REFUSED_FLAG
    silent._predictions["horizons"][[1, 3]] = 1, 9
    batch = books.drain()
    assert batch.predictions["sequence"].tolist() == [0, 2]
    assert [(error.sequence, int(error.reason)) for error in batch.errors] == [(1, 1), (3, 9)]
    assert batch.errors[0].message == "instrument_id: was 2; name it in Hello.instruments"
    segment.leave()
    books.detach()
    books.reopen_cold(4, SLOTS, 4)
    assert len(books.take(100).records) == 2 * TICK_BYTES


def test_a_peek_is_in_place_and_goes_no_further_than_the_rings_end(silent: Silent):
    books, segment = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    ticks = ticks_of(SLOTS + 10)
    books.accept(ticks[:60].tobytes())
    silent.answer(0, ticks[:60])
    assert len(rings.peek()) == 60
    rings.release(60)
    claimed = rings.claim(14)
    assert len(claimed) == 4
    claimed[:] = ticks[60:64]
    assert rings.publish(4) == 4
    claimed = rings.claim(6)
    assert np.shares_memory(claimed, segment.tick_words)
    claimed[:] = ticks[64:70]
    rings.publish(6)
    silent.answer(60, ticks[60:70])
    first = rings.peek()
    assert np.shares_memory(first, segment.predictions)
    assert not first.flags.writeable
    assert first["sequence"].tolist() == [60, 61, 62, 63]
    rings.release(1)
    assert rings.peek()["sequence"].tolist() == [61, 62, 63]
    rings.release(3)
    assert rings.peek()["sequence"].tolist() == list(range(64, 70))
    rings.release(6)
    assert len(rings.peek()) == 0
    assert silent.words[layout.PREDICTION_CONSUMED_AT // 8] == 70


def test_misuse_of_the_rings_is_an_assertion(silent: Silent):
    books, _ = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    with pytest.raises(AssertionError, match="publish without a claim"):
        rings.publish(1)
    rings.claim(2)
    with pytest.raises(AssertionError, match="more than was claimed"):
        rings.publish(3)
    with pytest.raises(AssertionError, match="more than was peeked"):
        rings.release(1)
    with pytest.raises(AssertionError, match="at least one"):
        rings.claim(0)


async def test_a_reader_for_whom_there_is_always_an_answer_lets_other_tasks_run(silent: Silent):
    books, _ = books_on(silent)
    mailbox = RingMailbox(books, 0.0)
    others = asyncio.Event()
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, others.set)
    for number in range(20_000):
        tick = ticks_of(1, first=number)
        books.accept_one(tick.tobytes())
        silent.answer(number, tick)
        await mailbox.get()
        if others.is_set():
            return
    raise AssertionError("nobody else had a turn")


def test_the_rings_of_a_session_that_is_over_take_nothing_and_their_views_stay(silent: Silent):
    def over() -> None:
        raise LocalUsageError("over")

    books, _ = books_on(silent)
    rings = Rings(books, over, over)
    claimed = rings.claim(2)
    books.detach()
    claimed[:] = ticks_of(2)
    for verb in (rings.claim, rings.publish):
        with pytest.raises(LocalUsageError, match="over"):
            verb(2)
    assert books.unanswered == 0


def test_ticks_that_were_sent_into_a_claim_are_not_published_as_it(silent: Silent):
    books, _ = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    rings.claim(2)[:] = ticks_of(2)
    books.accept(ticks_of(1, first=7).tobytes())
    with pytest.raises(AssertionError, match="claim again"):
        rings.publish(2)
    assert silent.words[layout.TICK_PUBLISHED_AT // 8] == 1


def test_answers_that_were_received_after_a_peek_are_not_released_twice(silent: Silent):
    books, _ = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    books.accept(ticks_of(4).tobytes())
    silent.answer(0, ticks_of(2))
    assert len(rings.peek()) == 2
    assert len(books.drain().predictions) == 2
    with pytest.raises(AssertionError, match="after the peek"):
        rings.release(2)
    silent.answer(2, ticks_of(2, first=2))
    books.detach()  # And they are not taken for those of the peek.
    assert books.drain().predictions["sequence"].tolist() == [2, 3]


@pytest.mark.parametrize("lost", [False, True])
def test_what_is_peeked_at_may_be_set_aside_before_it_is_released(silent: Silent, *, lost: bool):
    books, _ = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    books.accept(ticks_of(SLOTS).tobytes())
    silent.answer(0, ticks_of(3))
    assert len(rings.peek()) == 3
    silent.answer(3, ticks_of(1, first=3))
    assert books.set_aside() == 4  # As a send does that finds the ring full.
    assert books.accept_one(ticks_of(1, first=SLOTS).tobytes()) == SLOTS
    if lost:
        books.detach()
    rings.release(2)
    assert rings.peek()["sequence"].tolist() == [2, 3]
    rings.release(1)
    assert books.drain().predictions["sequence"].tolist() == [3]
    assert books.next_answer == 4


def test_a_claim_that_outlives_its_segment_is_published_in_the_next(silent: Silent, tmp_path: Path):
    books, segment = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    books.accept(ticks_of(3).tobytes())
    claimed = rings.claim(2)
    claimed[:] = ticks_of(2, first=3)
    books.detach()
    books.reopen_resumed(2, SLOTS, 4)
    with Silent(tmp_path / "b.sock", SLOTS, first_sequence=2) as another:
        books.attach(attach(str(another.path), another.token, 10.0, fences()))
        assert rings.publish(2) == 2
        assert another.words[layout.TICK_PUBLISHED_AT // 8] == 3  # Of five ticks the daemon had two.
        assert another._ticks["tick"]["ts_event"][:3].tolist() == [2, 3, 4]
        assert segment.hung_up
    del books, rings, claimed


def test_what_was_peeked_at_counts_as_read_when_the_daemon_is_lost(silent: Silent):
    books, _ = books_on(silent)
    rings = Rings(books, lambda: None, lambda: None)
    books.accept(ticks_of(5).tobytes())
    silent.answer(0, ticks_of(2))
    peeked = rings.peek()
    silent.answer(2, ticks_of(2, first=2))
    books.detach()
    assert peeked["sequence"].tolist() == [0, 1]  # The memory is still there.
    rings.release(2)
    assert rings.peek()["sequence"].tolist() == [2, 3]
    rings.release(1)
    assert books.drain().predictions["sequence"].tolist() == [3]
    assert books.next_answer == 4


def test_a_smaller_ring_than_the_unanswered_ticks_need_loses_the_session(tmp_path: Path):
    with Silent(tmp_path / "a.sock", 128) as wide, Silent(tmp_path / "b.sock", SLOTS) as narrow:
        books, _ = books_on(wide, 128)
        books.accept(ticks_of(100).tobytes())
        books.detach()
        books.reopen_cold(0, SLOTS, 4)
        with pytest.raises(SessionLost, match="100 ticks are unanswered"):
            books.attach(attach(str(narrow.path), narrow.token, 10.0, fences()))
        del books


def test_answers_over_the_stream_are_refused(silent: Silent):
    books, _ = books_on(silent)
    with pytest.raises(DaemonProtocolError, match="in its ring"):
        books.answer(np.zeros(2, PREDICTION_DTYPE)["sequence"], [])
