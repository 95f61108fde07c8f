"""A plain listener on multicast groups of the loopback interface: what a feed really puts onto the wire.

with FeedListener() as line:
    ... play to line.group ...
    packets = line.until_end()
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Self

from penstock.v1 import moldudp64 as mold

GROUP = "239.255.77.1"
PATIENCE_S = 60.0
_END = object()


def join_group(group: str = GROUP) -> socket.socket:
    """Return a socket that hears *group* on lo, on a free port."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    listening.bind((group, 0))
    member = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex("lo"))
    listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return listening


@dataclass
class Heard:
    """What came over one line, in its order; the repeated ends of the session left out."""

    packets: list[bytes] = field(default_factory=list)

    @property
    def headers(self) -> list[mold.Header]:
        return [mold.unpack_header(packet) for packet in self.packets]

    @property
    def by_sequence(self) -> dict[int, bytes]:
        """Every message, by sequence; that those heard twice are the same is checked."""
        found: dict[int, bytes] = {}
        for packet in self.packets:
            header, messages = mold.unpack_packet(packet)
            for index, message in enumerate(messages):
                assert found.setdefault(header.sequence + index, bytes(message)) == bytes(message)
        return found


class FeedListener:
    """Hears one group, in a thread that does nothing else."""

    def __init__(self, group: str = GROUP) -> None:
        self._socket = join_group(group)
        self._socket.settimeout(PATIENCE_S)
        self.group = "{}:{}".format(*self._socket.getsockname())
        self._packets: queue.SimpleQueue[bytes | object] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_MULTICAST_IF,
            struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex("lo")),
        )
        sender.sendto(b"", self._socket.getsockname())
        sender.close()
        self._thread.join(PATIENCE_S)
        self._socket.close()

    def _listen(self) -> None:
        try:
            while packet := self._socket.recv(65_536):
                self._packets.put(packet)
        finally:
            self._packets.put(_END)

    def next(self) -> bytes:
        """Return the next packet."""
        packet = self._packets.get(timeout=PATIENCE_S)
        assert isinstance(packet, bytes), "nothing more was heard"
        return packet

    def until_end(self) -> Heard:
        """Return everything up to the first end of session."""
        heard = Heard()
        while True:
            heard.packets.append(self.next())
            if heard.headers[-1].count == mold.END_OF_SESSION:
                return heard
