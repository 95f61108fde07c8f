"""Two lines become one sequence: duplicates, reordering, gaps, sessions, and packets that nobody should believe."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from penstock.v1 import moldudp64
from penstock.v1.records import BookFlag, Clock
from penstock_daemon.engine_memory import PREDICTION_CONSUMED
from penstock_daemon.feed import memory
from penstock_daemon.feed.arbitration import CONFIRM
from penstock_daemon.feed.memory import LINE_A, LINE_B, LINE_RECOVERY, Malformed, Payload
from support.feed_rig import ON_THE_WAY_NS, SESSION, UNIX_NS, WAIT_NS, WINDOW, FeedRig, packet, record
from support.itch_orders import add, directory, start_of_messages

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


def test_messages_of_one_line_are_applied_in_order(rig):
    for first in range(1, 30, 3):
        rig.offer(packet(first, 3))
    assert rig.bids() == list(range(1, 31))
    assert rig.word(memory.GAPS) == 0


def test_the_first_copy_is_taken_and_the_other_counted(rig):
    for first in range(1, 11):
        rig.offer(packet(first), LINE_A if first % 2 else LINE_B)
        rig.offer(packet(first), LINE_B if first % 2 else LINE_A)
    assert rig.bids() == list(range(1, 11))
    assert rig.word(memory.DUPLICATES) == rig.word(memory.DUPLICATE_PACKETS) == 10
    assert rig.word(memory.CONFLICTS) == 0


def test_packets_that_overlap_are_taken_message_by_message(rig):
    rig.offer(packet(1, 5))
    rig.offer(packet(3, 6), LINE_B)
    assert rig.bids() == list(range(1, 9))
    assert rig.word(memory.DUPLICATES) == 3
    assert rig.word(memory.DATA_PACKETS) == 2


def test_what_comes_too_early_waits_for_its_turn(rig):
    for first in (1, 4, 3, 7, 6, 5, 2):
        rig.offer(packet(first))
    assert rig.bids() == list(range(1, 8))
    assert rig.word(memory.REORDERED) == 5  # All but 1 and 2.
    assert (rig.word(memory.LOST), rig.word(memory.GAPS_UNRECOVERED)) == (0, 0)


def test_a_tick_has_the_stamps_of_its_own_packet_however_long_it_waited(rig: FeedRig):
    for first in (1, 3, 2):
        rig.offer(packet(first), after_ns=5_000)
    ticks = rig.ticks()
    received_ns = ticks["received_ns"].tolist()
    assert received_ns == [rig.now_ns - 10_000, rig.now_ns, rig.now_ns - 5_000]
    assert ticks["first_ns"].tolist() == [one - ON_THE_WAY_NS for one in received_ns]
    assert ticks["wire_ns"].tolist() == [UNIX_NS + one for one in ticks["first_ns"].tolist()]
    assert ticks["ts_recv"].tolist() == ticks["wire_ns"].tolist(), "an undefined time of a record becomes the packet's"
    assert set(ticks["clock"].tolist()) == {Clock.KERNEL}


def test_a_loss_on_one_line_is_no_loss(rig):
    for first in range(1, 20):
        if first % 3:
            rig.offer(packet(first), LINE_A)
        if first % 3 == 0 or first % 2:
            rig.offer(packet(first), LINE_B)
    assert rig.bids() == list(range(1, 20))


def test_without_a_server_a_gap_is_given_up_after_its_wait_and_the_books_are_unsound(rig):
    rig.offer(packet(1))
    rig.offer(packet(4, 2))
    rig.pass_time(WAIT_NS - 2_000)
    assert rig.bids() == [1]
    rig.pass_time(2_000)
    assert rig.bids() == [1, 4, 5]
    assert (rig.word(memory.LOST), rig.word(memory.GAPS_UNRECOVERED)) == (2, 1)


def test_ticks_after_a_loss_say_that_the_book_may_be_wrong():
    rig = FeedRig(names=("A", "B"), ids=(1, 2))
    rig.offer(packet(1))
    rig.offer(packet(3))
    assert not rig.books.unsound.any()
    rig.pass_time(WAIT_NS)
    assert rig.books.unsound.tolist() == [0, 1], "a record is whole; the other's book waits for one"


def test_a_message_that_comes_after_it_was_given_up_is_not_applied(rig):
    for first in (1, 3):
        rig.offer(packet(first))
    rig.pass_time(WAIT_NS)
    rig.offer(packet(2))
    assert rig.bids() == [1, 3]
    assert rig.word(memory.DUPLICATES) == 1


def test_a_hole_behind_a_hole_waits_no_longer_than_from_its_own_start(rig):
    for first in (1, 3, 5, 7, 9):
        rig.offer(packet(first))
    rig.pass_time(WAIT_NS)
    assert rig.bids() == [1, 3, 5, 7, 9]
    assert rig.word(memory.GAPS_UNRECOVERED) == 4


def test_a_heartbeat_reveals_a_gap(rig):
    rig.offer(packet(1))
    rig.offer(packet(4, 0))
    assert rig.word(memory.GAPS) == 1
    rig.offer(packet(2, 2))
    assert (rig.word(memory.GAPS_CLOSED), rig.word(memory.HEARTBEATS)) == (1, 1)


def test_what_is_missing_is_asked_for_and_a_part_of_the_answer_asked_on_from(rig):
    rig.ask()
    rig.offer(packet(1))
    rig.offer(packet(10))
    rig.pass_time(WAIT_NS)
    assert rig.request() == moldudp64.Header(SESSION, 2, 8)
    rig.offer(packet(2, 3), LINE_RECOVERY)
    rig.pass_time(1)
    assert rig.request() == moldudp64.Header(SESSION, 5, 5)
    rig.offer(packet(5, 5), LINE_RECOVERY)
    assert rig.bids() == list(range(1, 11))
    assert (rig.word(memory.RECOVERED), rig.word(memory.GAPS_RECOVERED)) == (8, 1)
    assert not rig.books.unsound.any()


def test_a_gap_beyond_16_bits_is_asked_for_as_far_as_a_request_may_go():
    rig = FeedRig(window=2**17)  # A count of 0xFFFF says something else in every other packet, so no request has it.
    rig.ask()
    rig.offer(packet(1))
    rig.offer(moldudp64.pack_header(SESSION, 2 + 2**16 + 5, moldudp64.HEARTBEAT))
    rig.pass_time(WAIT_NS)
    assert rig.request() == moldudp64.Header(SESSION, 2, 0xFFFE)
    rig.assert_accounted()
    rig.close()


def test_a_server_that_does_not_answer_is_asked_again_and_then_given_up(rig):
    rig.ask()
    rig.offer(packet(1))
    rig.offer(packet(3))
    rig.pass_time(WAIT_NS + 3 * 20_000_000)
    assert [rig.request().sequence for _ in range(3)] == [2, 2, 2]
    assert (rig.word(memory.REQUESTS), rig.word(memory.GAPS_UNRECOVERED), rig.word(memory.LOST)) == (3, 1, 1)
    assert rig.bids() == [1, 3]


def test_gaps_do_not_wait_behind_each_other_for_a_server_that_does_not_answer(rig):
    rig.ask()
    patience_ns = WAIT_NS + 3 * 20_000_000
    for first in range(1, 100, 2):
        rig.offer(packet(first), after_ns=1_000_000)
    rig.pass_time(patience_ns)
    assert rig.bids() == list(range(1, 100, 2)), "the last gap is as old as one may become"
    assert rig.word(memory.REQUESTS) >= 3
    rig.offer(packet(101), after_ns=0)
    rig.offer(packet(103), after_ns=0)
    rig.pass_time(WAIT_NS)
    while rig.request().sequence != 100:
        pass
    rig.offer(packet(100), LINE_RECOVERY)
    assert rig.word(memory.GAPS_RECOVERED) == 1, "a server that is back is heard"


def test_a_server_that_answers_slowly_is_asked_for_every_gap(rig):
    rig.ask()
    for first in range(1, 20, 2):
        rig.offer(packet(first))
    for missing in range(2, 20, 2):
        rig.pass_time(19_000_000)
        while rig.request().sequence != missing:
            pass
        rig.offer(packet(missing), LINE_RECOVERY)
    assert rig.bids() == list(range(1, 20))


def test_a_line_that_closes_a_gap_while_it_is_asked_for_is_told_apart(rig):
    rig.ask()
    rig.offer(packet(1))
    rig.offer(packet(3))
    rig.pass_time(WAIT_NS)
    rig.offer(packet(2), LINE_B)
    assert (rig.word(memory.GAPS_CLOSED), rig.word(memory.GAPS_RECOVERED)) == (1, 0)
    rig.offer(packet(2), LINE_RECOVERY)
    assert rig.word(memory.DUPLICATES) == 1


def test_a_full_window_gives_up_the_oldest_gap(rig):
    rig.offer(packet(1))
    for first in range(3, WINDOW + 10):
        rig.offer(packet(first), after_ns=0)
    assert rig.bids()[:2] == [1, 3]
    assert rig.word(memory.LOST) == 1


def test_a_copy_with_other_bytes_makes_books_unsound(rig):
    rig.offer(packet(1, 3))
    forged = moldudp64.pack_packet(SESSION, 2, [record(99)])
    rig.offer(forged, LINE_B)
    assert rig.word(memory.CONFLICTS) == 1
    assert rig.books.unsound.all()
    assert rig.bids() == [1, 2, 3]


def test_a_forged_message_that_came_first_is_found_out_by_the_true_one(rig):
    rig.offer(packet(1))
    rig.offer(moldudp64.pack_packet(SESSION, 3, [record(99)]), LINE_B)
    rig.offer(packet(2, 2))
    assert rig.bids() == [1, 2, 99]
    assert rig.word(memory.CONFLICTS) == 1


def test_the_last_slot_of_the_window_holds_a_message_and_the_next_message_is_beyond_it(rig: FeedRig):
    rig.offer(packet(1))
    rig.offer(packet(1 + WINDOW))
    assert (rig.word(memory.HELD), rig.word(memory.FAR_PACKETS)) == (1, 0)
    rig.pass_time(WAIT_NS)
    assert rig.bids() == [1, 1 + WINDOW], "what is missing is given up as far as that slot"
    assert rig.word(memory.LOST) == WINDOW - 1
    other = FeedRig()
    other.offer(packet(1))
    other.offer(packet(2 + WINDOW))
    assert (other.word(memory.HELD), other.word(memory.FAR_PACKETS)) == (0, 1)
    other.close()


def test_a_packet_far_beyond_is_not_believed_alone(rig):
    rig.offer(packet(1))
    rig.offer(moldudp64.pack_packet(SESSION, 10**12, [record(5)]))
    rig.offer(moldudp64.pack_header(SESSION, 10**15, moldudp64.HEARTBEAT))
    rig.offer(packet(2))
    assert rig.bids() == [1, 2]
    assert (rig.word(memory.FAR_PACKETS), rig.word(memory.LOST)) == (2, 0)


def test_packets_far_beyond_that_go_on_from_each_other_are_believed(rig):
    rig.offer(packet(1))
    for number in range(CONFIRM):
        rig.offer(moldudp64.pack_packet(SESSION, 10**12 + number, [record(number + 5)]))
    assert rig.bids() == [1, 4 + CONFIRM]
    assert rig.word(memory.LOST) == 10**12 + CONFIRM - 1 - 2


@pytest.mark.parametrize("behind", [0, 1, 5])
def test_a_jump_on_both_lines_is_believed_however_they_interleave(rig, behind):
    rig.offer(packet(1))
    far = [moldudp64.pack_packet(SESSION, 10**6 + number, [record(number)]) for number in range(20)]
    for number in range(20 + behind):
        if number < 20:
            rig.offer(far[number], LINE_A)
        if number >= behind:
            rig.offer(far[number - behind], LINE_B)
    assert rig.bids() == [1, *range(CONFIRM - 1, 20)]
    assert rig.word(memory.FAR_PACKETS) == CONFIRM - 1 + max(0, CONFIRM - 1 - behind)


def test_a_slower_line_takes_nothing_back(rig):
    for first in range(1, 2 * WINDOW, 8):
        rig.offer(packet(first, 8))
    for first in range(1, 2 * WINDOW, 8):
        rig.offer(packet(first, 8), LINE_B)
    assert rig.bids() == list(range(1, 2 * WINDOW + 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Malformed.SHORT),
        (packet(1)[:19], Malformed.SHORT),
        (packet(1, 3)[:-1], Malformed.CUT),
        (packet(1, 3)[:21], Malformed.CUT),
        (packet(1, 3) + b"x", Malformed.TRAILING),
        (packet(1, 0) + b"x", Malformed.TRAILING),
        (end_of(1) + b"x", Malformed.TRAILING),
        (moldudp64.pack_packet(SESSION, 1, [b"", record(1)]), Malformed.EMPTY_MESSAGE),
        (moldudp64.pack_packet(SESSION, 0, [record(1)]), Malformed.BAD_SEQUENCE),
        (SESSION + struct.pack(">QH", 2**63, 0), Malformed.BAD_SEQUENCE),
        (SESSION + struct.pack(">QH", 2**62, 0), Malformed.BAD_SEQUENCE),
        (bytes(memory.PACKET_BYTES + 1), Malformed.TRUNCATED),
    ],
)
def test_a_malformed_packet_is_dropped_whole_and_counted_by_its_fault(rig, data, reason):
    rig.offer(data)
    assert rig.word(memory.MALFORMED + reason) == 1
    assert rig.malformed == 1
    assert (rig.word(memory.SESSIONS), rig.word(memory.APPLIED)) == (0, 0)


def test_a_full_ring_drops_ticks_and_counts_them():
    rig = FeedRig(slots=4)
    rig.offer(packet(1, 10))
    assert rig.bids() == [1, 2, 3, 4]
    assert (rig.word(memory.RING_DROPS), rig.word(memory.APPLIED)) == (6, 10)
    assert not BookFlag.MAYBE_BAD_BOOK & int(rig.ticks()["flags"][0])


def test_a_top_that_found_no_room_is_told_with_the_next_message():
    rig = FeedRig(Payload.ITCH, ("AAPL",), slots=4)
    bids = [add("AAPL", number, "B", 100, 1_000 + number) for number in range(5)]
    rig.offer(moldudp64.pack_packet(SESSION, 1, [start_of_messages(), directory("AAPL"), *bids]))
    assert (rig.word(memory.TICKS), rig.word(memory.RING_DROPS)) == (4, 1)
    rig.ring.cursors[PREDICTION_CONSUMED] = 4
    rig.offer(moldudp64.pack_packet(SESSION, 8, [add("AAPL", 9, "B", 100, 900)]))
    assert rig.word(memory.TICKS) == 5
    assert rig.ring.tick_slots[0, 0]["bid_px"] == 1_004 * 100_000
