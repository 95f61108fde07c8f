"""MoldUDP64 packets: what is packed is unpacked, to the byte, and whatever else comes is refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1 import moldudp64 as mold

SESSION = mold.session_bytes("TEST")
sessions = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=10)
messages = st.lists(st.binary(max_size=200), max_size=40)


def test_header_bytes_are_those_of_the_specification() -> None:
    packet = mold.pack_packet(mold.session_bytes("000000001A"), 0x0102030405060708, [b"AB", b""])
    assert packet == b"000000001A" + bytes([1, 2, 3, 4, 5, 6, 7, 8]) + b"\0\2" + b"\0\2AB" + b"\0\0"


@given(sessions, st.integers(0, 2**63), messages)
def test_packets_come_back_as_they_were_packed(name: str, sequence: int, contents: list[bytes]) -> None:
    packet = mold.pack_packet(mold.session_bytes(name), sequence, contents)
    header, found = mold.unpack_packet(packet)
    assert (header.name, header.sequence, header.count) == (name, sequence, len(contents))
    assert [bytes(one) for one in found] == contents


@given(st.lists(st.binary(max_size=120), max_size=80), st.integers(143, 1472))
def test_builder_packets_hold_every_message_once_in_order_and_are_never_too_large(
    contents: list[bytes], bytes_max: int
) -> None:
    builder = mold.PacketBuilder(SESSION, bytes_max)
    packets, left = [], contents
    while left:
        added = builder.fill(left)
        left = left[added:]
        assert not left or not builder.fits(left[0]), "a packet was closed that had room"
        packets.append(builder.take())
    assert all(len(packet) <= bytes_max for packet in packets)
    found, expected = [], mold.FIRST_SEQUENCE
    for packet in packets:
        header, inside = mold.unpack_packet(packet)
        assert header.sequence == expected
        expected += header.messages
        found += [bytes(one) for one in inside]
    assert found == contents
    end = mold.unpack_header(builder.end())
    assert (end.sequence, end.count, end.messages) == (expected, mold.END_OF_SESSION, 0)
    heartbeat = mold.unpack_header(builder.take())
    assert (heartbeat.sequence, heartbeat.count) == (expected, mold.HEARTBEAT)


@given(messages, st.data())
def test_a_packet_that_is_cut_or_followed_by_bytes_is_refused(contents: list[bytes], data: st.DataObject) -> None:
    packet = mold.pack_packet(SESSION, 1, contents)
    cut = data.draw(st.integers(0, len(packet) - 1))
    with pytest.raises(mold.MoldError, match=r"; "):
        mold.unpack_packet(packet[:cut])
    with pytest.raises(mold.MoldError, match="follow"):
        mold.unpack_packet(packet + b"x")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_packet_that_packs_to_the_same_bytes(noise: bytes) -> None:
    try:
        header, found = mold.unpack_packet(noise)
    except mold.MoldError:
        return
    if header.count == mold.END_OF_SESSION:
        assert mold.pack_header(header.session, header.sequence, header.count) == noise
    else:
        assert mold.pack_packet(header.session, header.sequence, found) == noise


@given(messages, st.data())
def test_a_packet_with_bytes_changed_never_gives_more_than_it_holds(contents: list[bytes], data: st.DataObject) -> None:
    packet = bytearray(mold.pack_packet(SESSION, 7, contents))
    for place in data.draw(st.lists(st.integers(0, len(packet) - 1), min_size=1, max_size=4)):
        packet[place] = data.draw(st.integers(0, 255))
    try:
        header, found = mold.unpack_packet(packet)
    except mold.MoldError:
        return
    assert header.messages == len(found)
    assert mold.HEADER_BYTES + sum(2 + len(one) for one in found) == len(packet)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: mold.session_bytes("ELEVEN CHAR"), "session"),
        (lambda: mold.session_bytes(""), "session"),
        (lambda: mold.session_bytes("naïve"), "session"),
        (lambda: mold.pack_header(b"SHORT", 1, 1), "session"),
        (lambda: mold.pack_header(SESSION, 2**64, 1), "sequence"),
        (lambda: mold.pack_header(SESSION, 1, 2**16), "count"),
        (lambda: mold.pack_packet(SESSION, 1, [b""] * 65_535), "count"),
        (lambda: mold.pack_packet(SESSION, 1, [bytes(65_536)]), "message"),
        (lambda: mold.unpack_header(SESSION + b"\xff" * 8 + b"\0\2"), "sequence"),
        (lambda: mold.unpack_header(b"\0" * 20), "session"),
        (lambda: mold.PacketBuilder(SESSION, 22), "payload_bytes_max"),
        (lambda: mold.PacketBuilder(SESSION, 70_000), "payload_bytes_max"),
        (lambda: mold.PacketBuilder(SESSION, 100).add(bytes(79)), "message"),
    ],
)
def test_what_no_packet_can_hold_is_a_sentence(wrong: object, named: str) -> None:
    assert callable(wrong)
    with pytest.raises(mold.MoldError, match=f"^{named} .*; "):
        wrong()
