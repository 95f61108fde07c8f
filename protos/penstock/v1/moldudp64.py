"""MoldUDP64: numbered messages in UDP packets, as Nasdaq's feeds send them and as ``penstock feed`` does.

    packet = header (20 bytes) + count times (length u16 + message)         big-endian throughout

The header names the session, the sequence of the packet's first message and how many messages follow; the others count
on from there. Two counts are no counts:

    0         HEARTBEAT: nothing follows, and the sequence is the one that the next message will have
    0xFFFF    END_OF_SESSION: nothing follows, and the sequence is one past the session's last message

A re-request is a header alone, sent to a server by unicast: the first sequence that is missing, and how many. An ordinary
packet answers it, with as many of them as fit. Source: Nasdaq, MoldUDP64 protocol specification, version 1.00.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 20
SESSION_AT: Final = 0
SESSION_BYTES: Final = 10  # ASCII, filled up with spaces on the right.
SEQUENCE_AT: Final = 10
COUNT_AT: Final = 18
LENGTH_BYTES: Final = 2  # Before each message.

HEARTBEAT: Final = 0
END_OF_SESSION: Final = 0xFFFF
MESSAGES_MAX: Final = 0xFFFE  # In one packet.
MESSAGE_BYTES_MAX: Final = 0xFFFF
FIRST_SEQUENCE: Final = 1  # Of a session's first message.
SEQUENCE_END: Final = 2**64

PAYLOAD_BYTES_MAX: Final = 1472  # Of UDP in an Ethernet frame of 1,500 bytes, with IPv4.
UDP_PAYLOAD_BYTES_MAX: Final = 65_507  # Of any UDP packet over IPv4.

_HEADER: Final = struct.Struct(">10sQH")
_LENGTH: Final = struct.Struct(">H")


class MoldError(ValueError):
    """Bytes that are no MoldUDP64 packet, or a value that none can hold; the sentence names field, value and mend."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a packet says about itself.

    Attributes:
        session: its 10 bytes, with the spaces.
        sequence: of the first message; of the next one where there is none.
        count: how many messages follow; HEARTBEAT or END_OF_SESSION for none.
    """

    session: bytes
    sequence: int
    count: int

    @property
    def name(self) -> str:
        """The session without the spaces that fill it up."""
        return self.session.decode("ascii", "replace").rstrip(" ")

    @property
    def messages(self) -> int:
        """How many messages follow."""
        return 0 if self.count == END_OF_SESSION else self.count


def session_bytes(name: str) -> bytes:
    """Return *name* as a header holds it.

    Raises:
        MoldError: not 1 to 10 printable ASCII characters, or one that begins or ends with a space.
    """
    if not 1 <= len(name) <= SESSION_BYTES or not name.isascii() or not name.isprintable() or name.strip() != name:
        raise MoldError(
            f"session must be 1 to {SESSION_BYTES} printable ASCII characters: was {name!r}; choose another name"
        )
    return name.encode("ascii").ljust(SESSION_BYTES)


def pack_header(session: bytes, sequence: int, count: int) -> bytes:
    """Return the 20 bytes of a header: a heartbeat, an end of session, a re-request, or the start of a packet.

    Args:
        session: 10 bytes, as session_bytes() makes them.
        sequence: of the first message, or the next one's.
        count: of messages, HEARTBEAT or END_OF_SESSION.

    Raises:
        MoldError: a value that its field can't hold.
    """
    if len(session) != SESSION_BYTES:
        raise MoldError(f"session must be {SESSION_BYTES} bytes: has {len(session)}; make it with session_bytes()")
    if not 0 <= sequence < SEQUENCE_END:
        raise MoldError(f"sequence must be in 0 to 2**64 - 1: was {sequence}; begin another session")
    if not 0 <= count <= END_OF_SESSION:
        raise MoldError(f"count must be in 0 to {END_OF_SESSION}: was {count}; send fewer messages in a packet")
    return _HEADER.pack(session, sequence, count)


def unpack_header(packet: bytes | bytearray | memoryview) -> Header:
    """Return the header at the start of *packet*.

    Raises:
        MoldError: fewer than 20 bytes, a session that is no printable ASCII, or sequences past the end of u64.
    """
    size = len(packet)
    if size < HEADER_BYTES:
        raise MoldError(
            f"packet must have a header of {HEADER_BYTES} bytes: has {size}; it was cut, or is no MoldUDP64"
        )
    header = Header(*_HEADER.unpack_from(packet))
    if not all(0x20 <= one < 0x7F for one in header.session):
        raise MoldError(f"session must be printable ASCII: was {header.session!r}; this is no MoldUDP64")
    if header.sequence + header.messages > SEQUENCE_END:
        raise MoldError(
            f"sequence must leave room for count={header.count} in 64 bits: was {header.sequence}; this is no MoldUDP64"
        )
    return header


def pack_packet(session: bytes, sequence: int, messages: Sequence[bytes | memoryview]) -> bytes:
    """Return one packet of *messages*; of none, a heartbeat.

    Args:
        session: 10 bytes, as session_bytes() makes them.
        sequence: of the first message.
        messages: 0 to MESSAGES_MAX, each of at most MESSAGE_BYTES_MAX; the packet's whole size is the caller's to bound.

    Raises:
        MoldError: too many or too long messages, or a value that its field can't hold.
    """
    if len(messages) > MESSAGES_MAX:
        raise MoldError(f"count must be at most {MESSAGES_MAX}: was {len(messages)}; send fewer messages in a packet")
    parts: list[bytes | memoryview] = [pack_header(session, sequence, len(messages))]
    for message in messages:
        parts += (_packed_length(message), message)
    return b"".join(parts)


def unpack_packet(packet: bytes | bytearray | memoryview) -> tuple[Header, list[memoryview]]:
    """Return the header of *packet* and its messages, which view *packet* without a copy.

    Raises:
        MoldError: as unpack_header(); a message that is cut; or bytes after the last one. Nothing of it is to be used.
    """
    header = unpack_header(packet)
    view = memoryview(packet)
    messages: list[memoryview] = []
    place, size = HEADER_BYTES, len(view)
    for index in range(header.messages):
        if place + LENGTH_BYTES > size:
            raise MoldError(f"packet must hold count={header.count} messages: ends before message {index}; it was cut")
        (length,) = _LENGTH.unpack_from(view, place)
        place += LENGTH_BYTES
        if place + length > size:
            raise MoldError(f"message {index} must have {length} bytes: {size - place} are there; the packet was cut")
        messages.append(view[place : place + length])
        place += length
    if place != size:
        raise MoldError(
            f"packet must end after count={header.count} messages: {size - place} bytes follow; it is forged"
        )
    return header, messages


class PacketBuilder:
    """Fills packets: add messages until one does not fit, take the packet, go on.

    Args:
        session: 10 bytes, as session_bytes() makes them.
        payload_bytes_max: of one packet, header included.
        sequence: of the first message.

    Raises:
        MoldError: a bound that leaves no room for a message.
    """

    def __init__(
        self, session: bytes, payload_bytes_max: int = PAYLOAD_BYTES_MAX, sequence: int = FIRST_SEQUENCE
    ) -> None:
        if not HEADER_BYTES + LENGTH_BYTES < payload_bytes_max <= UDP_PAYLOAD_BYTES_MAX:
            raise MoldError(
                f"payload_bytes_max must be in {HEADER_BYTES + LENGTH_BYTES + 1} to {UDP_PAYLOAD_BYTES_MAX}: was "
                f"{payload_bytes_max}; {PAYLOAD_BYTES_MAX} fills an Ethernet frame"
            )
        pack_header(session, sequence, HEARTBEAT)  # Refuses what no header holds.
        self.session = session
        self.payload_bytes_max = payload_bytes_max
        self.next_sequence = sequence  # Of the next message that is added.
        self._parts: list[bytes | memoryview] = []
        self.bytes = HEADER_BYTES  # Of the packet as it stands.
        self.count = 0

    def fits(self, message: bytes | memoryview) -> bool:
        """Return whether the packet has room for *message*."""
        return self.count < MESSAGES_MAX and self.bytes + LENGTH_BYTES + len(message) <= self.payload_bytes_max

    def add(self, message: bytes | memoryview) -> bool:
        """Add *message*, which must not change until the packet is taken; False where it has no room for it.

        Raises:
            MoldError: no packet of this size can hold it.
        """
        if not self.fits(message):
            if HEADER_BYTES + LENGTH_BYTES + len(message) > self.payload_bytes_max:
                raise MoldError(
                    f"message must have at most {self.payload_bytes_max - HEADER_BYTES - LENGTH_BYTES} bytes: has "
                    f"{len(message)}; allow larger packets"
                )
            return False
        self._parts += (_packed_length(message), message)
        self.bytes += LENGTH_BYTES + len(message)
        self.count += 1
        self.next_sequence += 1
        return True

    def fill(self, messages: Iterable[bytes | memoryview]) -> int:
        """Add *messages* as far as there is room and return how many. Raises as add()."""
        added = 0
        for message in messages:
            if not self.add(message):
                break
            added += 1
        return added

    def take(self) -> bytes:
        """Return the packet and begin the next one; without a message it is a heartbeat.

        Raises:
            MoldError: the session has come to the end of its sequences.
        """
        header = pack_header(self.session, self.next_sequence - self.count, self.count)
        packet = b"".join((header, *self._parts))
        self._parts.clear()
        self.bytes, self.count = HEADER_BYTES, 0
        return packet

    def end(self) -> bytes:
        """Return the packet that ends the session; messages that were added must have been taken."""
        assert not self.count, "messages that nobody took"
        return pack_header(self.session, self.next_sequence, END_OF_SESSION)


def _packed_length(message: bytes | memoryview) -> bytes:
    if len(message) > MESSAGE_BYTES_MAX:
        raise MoldError(f"message must have at most {MESSAGE_BYTES_MAX} bytes: has {len(message)}; send it in parts")
    return _LENGTH.pack(len(message))
