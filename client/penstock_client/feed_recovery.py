"""Re-requests of a feed: a handler asks for what it has missed, by sequence, and gets it by unicast.

    asked        session, first sequence, count             20 bytes of UDP
    answered     one packet with as many of them as fit     only what was sent before

A request for another session, for nothing, or for what is not sent yet gets no answer and is counted: the handler asks
again, and its own patience ends it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from penstock.v1 import moldudp64
from penstock.v1.moldudp64 import FIRST_SEQUENCE, HEADER_BYTES, MoldError
from penstock_client.errors import LocalUsageError

REQUESTS_AT_ONCE: Final = 64  # Between two looks at the clock: who asks a lot does not hold up the feed.


class RecoveryServer:
    """Answers re-requests on a socket of its own; to be called when that is readable.

    Args:
        host: to listen at.
        port: to listen at; 0 for any that is free.
        session: 10 bytes, whose messages these are.
        packet_of: returns one packet with the messages from an index on, as many as fit and at most a count.
        sent: returns how many messages were sent so far.

    Attributes:
        requests: that came.
        answered: packets that were sent for them.
        messages: in those packets.
        refused: requests that got no answer.

    Raises:
        LocalUsageError: the port can't be had.
    """

    def __init__(
        self, host: str, port: int, session: bytes, packet_of: Callable[[int, int], bytes], sent: Callable[[], int]
    ) -> None:
        self._session = session
        self._packet_of = packet_of
        self._sent = sent
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        try:
            self.socket.bind((host, port))
        except OSError as error:
            self.socket.close()
            raise LocalUsageError(
                f"--recovery-port can't be listened at: was {host}:{port} ({error.strerror}); take another, or 0"
            ) from error
        self.requests = self.answered = self.messages = self.refused = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def answer(self) -> None:
        """Answer what has come, a bounded number of requests."""
        for _ in range(REQUESTS_AT_ONCE):
            try:
                request, asker = self.socket.recvfrom(HEADER_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # An earlier answer found nobody: that is the asker's affair.
            self.requests += 1
            packet = self._answer_to(request)
            if packet is None:
                self.refused += 1
                continue
            try:
                self.socket.sendto(packet, asker)
            except OSError:
                self.refused += 1
                continue
            self.answered += 1
            self.messages += moldudp64.unpack_header(packet).count

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()

    def _answer_to(self, request: bytes) -> bytes | None:
        try:
            header = moldudp64.unpack_header(request)
        except MoldError:
            return None
        first = header.sequence - FIRST_SEQUENCE
        count = min(header.messages, self._sent() - first)
        if len(request) != HEADER_BYTES or header.session != self._session or first < 0 or count < 1:
            return None
        return self._packet_of(first, count)
