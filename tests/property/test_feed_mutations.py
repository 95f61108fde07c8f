"""Whatever becomes of packets on their way, no book is wrong without saying so, and every packet is accounted for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.v1 import moldudp64
from penstock_daemon.feed import memory
from penstock_daemon.feed.memory import LINE_A, LINE_B, Payload
from support.book_runs import tops
from support.feed_rig import SESSION, WAIT_NS, FeedRig
from support.itch_orders import STOCKS, Flow

IDS = (1, 2, 3)
FLOW_BYTES = 6 * 160


@dataclass(frozen=True)
class Sent:
    """A packet on a line, at a place in the order of arrival."""

    line: int
    data: bytes


def rig_of(packets: list[Sent], gap_ns: int = 1_000) -> FeedRig:
    rig = FeedRig(Payload.ITCH, tuple(STOCKS), IDS)
    for sent in packets:
        rig.offer(sent.data, sent.line, after_ns=gap_ns)
    return rig


def packets_of(choices: bytes, noise: random.Random) -> list[bytes]:
    """Return the packets of a session: a flow of orders, some messages to a packet."""
    flow = Flow()
    messages = [*flow.opening(), *flow.messages(choices)]
    made, at = [], 0
    while at < len(messages):
        count = noise.choice((1, 1, 2, 3, 7))
        made.append(moldudp64.pack_packet(SESSION, at + 1, messages[at : at + count]))
        at += count
    return [*made, moldudp64.pack_header(SESSION, len(messages) + 1, moldudp64.END_OF_SESSION)]


def on_both_lines(packets: list[bytes], noise: random.Random) -> list[Sent]:
    """Return every packet on both lines, each line in its order, one of them a little behind."""
    behind = noise.randrange(4)
    made = []
    for place in range(len(packets) + behind):
        if place < len(packets):
            made.append(Sent(LINE_A, packets[place]))
        if place >= behind:
            made.append(Sent(LINE_B, packets[place - behind]))
    return made


def lose_and_disorder(sent: list[Sent], noise: random.Random) -> list[Sent]:
    """Lose, double, cut, lengthen and reorder packets: what a network does."""
    made = []
    for one in sent:
        what = noise.random()
        if what < 0.12:
            continue
        if what < 0.16:
            made.append(Sent(one.line, one.data[: noise.randrange(len(one.data))]))
            continue
        if what < 0.19:
            made.append(Sent(one.line, one.data + bytes(noise.randrange(1, 5))))
            continue
        made.append(one)
        if what < 0.27:
            made.append(one)
    for _ in range(len(made) // 6):
        at = noise.randrange(len(made))
        made.insert(min(len(made), at + noise.randrange(8)), made.pop(at))
    return made


def forge(sent: list[Sent], noise: random.Random) -> list[Sent]:
    """Add packets with some bytes changed; the true ones come too, sooner or later."""
    made = list(sent)
    for _ in range(noise.randrange(1, 12)):
        one = noise.choice(sent)
        data = bytearray(one.data)
        for _ in range(noise.choice((1, 1, 2, 5))):
            data[noise.randrange(len(data))] = noise.randrange(256)
        made.insert(noise.randrange(len(made) + 1), Sent(noise.choice((LINE_A, LINE_B)), bytes(data)))
    return made


def assert_never_silently_wrong(packets: list[bytes], arrived: list[Sent], gap_ns: int) -> FeedRig:
    whole = rig_of([Sent(LINE_A, one) for one in packets])
    assert not whole.books.unsound.any()
    rig = rig_of(arrived, gap_ns)
    rig.pass_time(2 * WAIT_NS)
    rig.assert_accounted()
    right = tops(whole.books)
    for place, top in enumerate(tops(rig.books)):
        reached = rig.word(memory.EXPECTED) == whole.word(memory.EXPECTED)
        assert top == right[place] or rig.books.unsound[place] or not reached
    if (
        rig.word(memory.LOST) == 0
        and rig.word(memory.EXPECTED) == whole.word(memory.EXPECTED)
        and not rig.books.unsound.any()
    ):
        assert [int(one) for one in rig.ticks()["bid_px"]] == [int(one) for one in whole.ticks()["bid_px"]]
    return rig


@settings(max_examples=120)
@given(st.binary(min_size=60, max_size=FLOW_BYTES), st.integers(0, 2**32), st.sampled_from([0, 1_000, WAIT_NS // 3]))
def test_lost_doubled_reordered_and_cut_packets_give_no_wrong_book_silently(choices, seed, gap_ns):
    noise = random.Random(seed)
    packets = packets_of(choices, noise)
    arrived = lose_and_disorder(on_both_lines(packets, noise), noise)
    assert_never_silently_wrong(packets, arrived, gap_ns)


@settings(max_examples=120)
@given(st.binary(min_size=60, max_size=FLOW_BYTES), st.integers(0, 2**32))
def test_forged_packets_give_no_wrong_book_silently(choices, seed):
    noise = random.Random(seed)
    packets = packets_of(choices, noise)
    arrived = forge(on_both_lines(packets, noise), noise)
    assert_never_silently_wrong(packets, arrived, 0)


@settings(max_examples=60)
@given(st.binary(min_size=60, max_size=FLOW_BYTES), st.integers(0, 2**32))
def test_two_lines_that_lose_different_packets_lose_nothing(choices, seed):
    noise = random.Random(seed)
    packets = packets_of(choices, noise)
    lost = {place: noise.choice((LINE_A, LINE_B)) for place in range(len(packets)) if noise.random() < 0.4}
    arrived = [
        Sent(line, one) for place, one in enumerate(packets) for line in (LINE_A, LINE_B) if lost.get(place) != line
    ]
    rig = assert_never_silently_wrong(packets, arrived, 1_000)
    assert (rig.word(memory.LOST), rig.word(memory.GAPS)) == (0, 0)
    assert not rig.books.unsound.any()


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=120), st.integers(0, 3 * WAIT_NS)), max_size=60))
def test_any_bytes_are_accounted_for(parcels):
    rig = FeedRig()
    for line, data, after_ns in parcels:
        rig.offer(data, line, after_ns=after_ns)
        rig.assert_accounted()


_HEADERS = st.builds(
    moldudp64.pack_header,
    st.sampled_from([SESSION, moldudp64.session_bytes("B"), moldudp64.session_bytes("C")]),
    st.integers(0, 40) | st.integers(1000, 4000) | st.integers(0, 2**64 - 1),
    st.just(0),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2), _HEADERS, st.integers(0, 6), st.integers(0, 3 * WAIT_NS)), max_size=80))
def test_any_sessions_and_sequences_are_accounted_for(parcels):
    rig = FeedRig()
    for line, header, count, after_ns in parcels:
        messages = b"".join(b"\0\1" + bytes([place]) for place in range(count))
        data = header[:18] + (count if count < 6 else 0xFFFF).to_bytes(2, "big") + (messages if count < 6 else b"")
        rig.offer(data, line, after_ns=after_ns)
        rig.assert_accounted()
