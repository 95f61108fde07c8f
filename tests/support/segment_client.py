"""One strategy's end of a segment, with nothing of the client library: for what that library never does.

with RawStream(address) as stream:
    segment = attach(stream.hello(shared_memory=True))
    segment.publish(quotes(10))
    predictions = segment.predictions(10)
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_DTYPE
from penstock.v1.shared_ring import TICK_SLOT_DTYPE

PATIENCE_S = 60.0
_WORD = struct.Struct("<q")


class AttachRefusedError(Exception):
    """The daemon refused to attach: its status, and its sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def connect(address: str) -> socket.socket:
    """Connect to a daemon's attach socket and say nothing."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address)  # Waits where too many do.
    connection.settimeout(PATIENCE_S)
    return connection


def request(token: bytes) -> bytes:
    """Return a good request."""
    return layout.ATTACH_REQUEST.pack(layout.ATTACH_MAGIC, layout.LAYOUT_VERSION, 0, token)


def reply_of(connection: socket.socket) -> tuple[int, int, str, list[int]]:
    """Return status, segment bytes, sentence and descriptors of the daemon's reply."""
    data, descriptors, _, _ = socket.recv_fds(connection, layout.ATTACH_REPLY_BYTES_MAX, 2)
    if not data:
        raise ConnectionResetError("the daemon hung up without a word")
    status, version, size_bytes = layout.ATTACH_REPLY.unpack_from(data)
    assert version == layout.LAYOUT_VERSION
    return status, size_bytes, data[layout.ATTACH_REPLY.size :].decode(), descriptors


def attach(welcome: pb.Welcome, *, token: bytes | None = None) -> SegmentClient:
    """Attach to the segment that *welcome* offers.

    Raises:
        AttachRefusedError: the daemon says why not.
    """
    shared = welcome.shared_memory
    connection = connect(shared.address)
    try:
        connection.send(request(shared.token if token is None else token))
        status, size_bytes, sentence, descriptors = reply_of(connection)
    except BaseException:
        connection.close()
        raise
    if status:
        connection.close()
        raise AttachRefusedError(status, sentence)
    return SegmentClient(connection, *descriptors, size_bytes)


class SegmentClient:
    """A segment that was handed over."""

    def __init__(self, connection: socket.socket, memory: int, bell: int, size_bytes: int) -> None:
        self.connection = connection
        self.memory = memory
        self.bell = bell
        self.map = mmap.mmap(memory, size_bytes)
        head = struct.unpack_from("<QIIQQQQQII", self.map, 0)
        magic, version, self.slots, size, ticks_at, predictions_at, self.session_id, self.first_sequence = head[:8]
        assert (magic, version, size) == (layout.MAGIC, layout.LAYOUT_VERSION, size_bytes)
        assert head[8:] == (layout.TICK_SLOT_BYTES, layout.PREDICTION_SLOT_BYTES)
        self.tick_slots = np.frombuffer(self.map, TICK_SLOT_DTYPE, self.slots, ticks_at)
        self.prediction_slots = np.frombuffer(self.map, PREDICTION_DTYPE, self.slots, predictions_at)
        self.published = 0
        self.consumed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up and forget the segment."""
        self.connection.close()
        del self.tick_slots, self.prediction_slots
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self.memory)
        os.close(self.bell)

    def word(self, at: int) -> int:
        """Return a word of the header, such as CLOSED_AT."""
        return int(_WORD.unpack_from(self.map, at)[0])

    def set_word(self, at: int, value: int) -> None:
        """Overwrite a word of the header, whoever's it is."""
        _WORD.pack_into(self.map, at, value)

    def ring(self) -> None:
        """Wake the engine, if it sleeps."""
        if self.word(layout.ENGINE_SLEEPING_AT):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self.bell, 1)

    def write(self, ticks: NDArray[np.void], *, written_ns: int | None = None) -> None:
        """Write *ticks* into the next slots and show them to nobody."""
        places = (self.published + np.arange(len(ticks))) & (self.slots - 1)
        self.tick_slots["tick"][places] = ticks
        self.tick_slots["written_ns"][places] = time.monotonic_ns() if written_ns is None else written_ns

    def publish(self, ticks: NDArray[np.void], *, written_ns: int | None = None) -> None:
        """Publish *ticks*, waiting for room."""
        while len(ticks):
            room = self.slots - (self.published - self.word(layout.TICK_CONSUMED_AT))
            part, ticks = ticks[:room], ticks[room:]
            self.write(part, written_ns=written_ns)
            self.published += len(part)
            self.set_word(layout.TICK_PUBLISHED_AT, self.published)
            self.ring()

    def ready(self) -> int:
        """How many answers wait."""
        return self.word(layout.PREDICTION_PUBLISHED_AT) - self.consumed

    def predictions(self, count: int, *, timeout_s: float = PATIENCE_S) -> NDArray[np.void]:
        """Return the next *count* answers as they stand in the ring, refusals included."""
        found = [np.zeros(0, PREDICTION_DTYPE)]
        deadline_s = time.monotonic() + timeout_s
        while count > 0:
            ready = min(self.ready(), count)
            if ready == 0:
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"{count} answers are missing")
                self.sleep(0.05)
                continue
            places = (self.consumed + np.arange(ready)) & (self.slots - 1)
            found.append(self.prediction_slots[places].copy())
            self.consumed += ready
            self.set_word(layout.PREDICTION_CONSUMED_AT, self.consumed)
            count -= ready
        return np.concatenate(found)

    def sleep(self, timeout_s: float) -> bool:
        """Wait for the daemon's ring; False where none came. An end of the connection counts as one."""
        self.set_word(layout.CLIENT_WAITING_AT, 1)
        if self.ready():
            return True
        readable = self._readable(timeout_s)
        if readable:
            self.connection.recv(64)
        return readable

    def _readable(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def hung_up(self, timeout_s: float = PATIENCE_S) -> bool:
        """Whether the daemon has hung up, or does so in time."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            try:
                if self._readable(0.1) and not self.connection.recv(64):
                    return True
            except ConnectionResetError:  # It left something unread.
                return True
        return False
