"""Which session two lines are in: a new one, one that ended, one on one line alone, and one that was never true."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.v1 import moldudp64
from penstock_daemon.feed import memory
from penstock_daemon.feed.arbitration import CONFIRM, LEFT_CONFIRM, QUIET_NS
from penstock_daemon.feed.memory import LINE_A, LINE_B, LINE_RECOVERY
from support.feed_rig import SESSION, WAIT_NS, WINDOW, FeedRig, packet

OTHER = moldudp64.session_bytes("DAY2")
THIRD = moldudp64.session_bytes("DAY3")


@pytest.fixture
def rig() -> Iterator[FeedRig]:
    made = FeedRig()
    yield made
    made.assert_accounted()
    made.close()


def end_of(sequence: int, session: bytes = SESSION) -> bytes:
    return moldudp64.pack_header(session, sequence, moldudp64.END_OF_SESSION)


def test_the_end_of_a_session_reveals_a_gap(rig):
    rig.offer(packet(1))
    rig.offer(end_of(3))
    rig.pass_time(WAIT_NS)
    assert (rig.word(memory.LOST), rig.word(memory.ENDS), rig.word(memory.ENDED)) == (1, 1, 1)


def test_another_session_on_both_lines_begins_however_they_interleave(rig):
    rig.offer(packet(1))
    for first in range(1, 10):
        rig.offer(packet(first, 1, OTHER), LINE_A)
        rig.offer(packet(first, 1, OTHER), LINE_B)
    rig.pass_time(WAIT_NS)
    assert rig.word(memory.SESSIONS) == 2
    assert rig.bids() == [1, *range(CONFIRM, 10)]


def test_two_lines_that_were_led_astray_find_back(rig):
    rig.offer(moldudp64.pack_header(SESSION, 10**9, moldudp64.HEARTBEAT))
    for first in range(1, 3 + LEFT_CONFIRM):
        rig.offer(packet(first), LINE_A, after_ns=QUIET_NS // LEFT_CONFIRM)
        rig.offer(packet(first), LINE_B)
    assert rig.bids()[-1] == 2 + LEFT_CONFIRM


def test_a_recovery_server_that_is_still_in_the_old_session_holds_up_no_new_one(rig):
    rig.offer(packet(1))
    for first in range(1, 2 * CONFIRM):
        rig.offer(packet(first, 1, OTHER))
        rig.offer(packet(1), LINE_RECOVERY)
    assert rig.word(memory.SESSIONS) == 2


def test_a_feed_that_was_led_astray_by_its_first_packet_finds_back(rig):
    rig.offer(moldudp64.pack_header(SESSION, 10**9, moldudp64.HEARTBEAT))
    for first in range(1, 3 + LEFT_CONFIRM):
        rig.offer(packet(first), after_ns=QUIET_NS // LEFT_CONFIRM)
    assert rig.bids()[-1] == 2 + LEFT_CONFIRM
    assert rig.word(memory.SESSIONS) == 2


def test_a_session_joined_late_has_unsound_books(rig):
    rig.offer(packet(WINDOW + 100, 0))
    assert (rig.word(memory.LATE_JOINS), rig.word(memory.EXPECTED)) == (1, WINDOW + 100)
    assert rig.books.unsound.all()


def test_a_session_joined_a_little_late_asks_for_its_start(rig):
    rig.ask()
    rig.offer(packet(6))
    rig.pass_time(WAIT_NS)
    assert rig.request() == moldudp64.Header(SESSION, 1, 5)
    rig.offer(packet(1, 5), LINE_RECOVERY)
    assert rig.bids() == [1, 2, 3, 4, 5, 6]
    assert not rig.books.unsound.any()


def test_after_its_end_another_session_begins_at_once(rig):
    rig.offer(packet(1, 2))
    rig.offer(end_of(3))
    rig.offer(packet(1, 1, OTHER))
    assert rig.bids() == [1, 2, 1]
    assert rig.word(memory.SESSIONS) == 2


def test_another_session_on_one_line_is_dropped_while_the_other_line_goes_on(rig):
    for first in range(1, 50):
        rig.offer(packet(first), LINE_A)
        rig.offer(packet(first, 1, OTHER), LINE_B)
    assert rig.bids() == list(range(1, 50))
    assert (rig.word(memory.OTHER_SESSION), rig.word(memory.SESSIONS)) == (49, 1)


def test_another_session_that_is_all_that_comes_begins(rig):
    rig.offer(packet(1))
    for first in range(1, CONFIRM + 2):
        rig.offer(packet(first, 1, OTHER))
    assert rig.word(memory.SESSIONS) == 2
    rig.pass_time(WAIT_NS)
    assert rig.bids() == [1, CONFIRM, CONFIRM + 1]
    assert rig.word(memory.LOST) == CONFIRM - 1


def test_another_session_begins_at_once_where_this_one_is_quiet(rig):
    rig.offer(packet(1))
    rig.offer(packet(1, 1, OTHER), after_ns=QUIET_NS + 1)
    assert rig.word(memory.SESSIONS) == 2


def test_the_slower_line_does_not_bring_the_old_session_back(rig):
    rig.offer(packet(1, 2))
    rig.offer(end_of(3))
    rig.offer(packet(1, 1, OTHER))
    for first in range(1, LEFT_CONFIRM):
        rig.offer(packet(first), LINE_B)
    rig.offer(packet(2, 1, OTHER))
    assert rig.bids() == [1, 2, 1, 2]
    assert rig.word(memory.SESSIONS) == 2


def test_a_recovery_server_begins_no_session(rig):
    for first in range(1, 10):
        rig.offer(packet(first), LINE_RECOVERY)
    assert (rig.word(memory.SESSIONS), rig.word(memory.OTHER_SESSION)) == (0, 9)


def test_what_is_held_when_a_session_ends_is_counted_as_discarded(rig):
    rig.offer(packet(1))
    rig.offer(packet(3, 4))
    rig.offer(end_of(7))
    rig.offer(packet(1, 1, THIRD))
    assert (rig.word(memory.DISCARDED), rig.word(memory.LOST)) == (4, 1)
