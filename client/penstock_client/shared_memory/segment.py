"""A segment, attached and checked: its two rings as memory, its words, and the socket and event behind them.

What is constant is read from the header once, checked, and never looked at again. The memory can't be cut short under us:
it is sealed against that, and the seal is checked before anything is mapped. So no word that the daemon may change later
selects an address here.

    slot of record n     n & mask
    left                 the socket is shut down; descriptors and memory go with the last who holds the segment, so that a
                         thread that waits on it never waits on another's descriptor
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_DTYPE, TICK_BYTES, TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client.errors import DaemonProtocolError
from penstock_client.shared_memory.words import WORD_BYTES, Fences, Words

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_HEADER_WORDS: Final = layout.HEADER_BYTES // WORD_BYTES
_BELL_BYTES: Final = 16  # A ring is one byte; of a longer packet the rest is dropped.

# Indexes in a segment's words.
TICK_PUBLISHED: Final = layout.TICK_PUBLISHED_AT // WORD_BYTES
PREDICTION_CONSUMED: Final = layout.PREDICTION_CONSUMED_AT // WORD_BYTES
CLIENT_WAITING: Final = layout.CLIENT_WAITING_AT // WORD_BYTES
TICK_CONSUMED: Final = layout.TICK_CONSUMED_AT // WORD_BYTES
PREDICTION_PUBLISHED: Final = layout.PREDICTION_PUBLISHED_AT // WORD_BYTES
ENGINE_SLEEPING: Final = layout.ENGINE_SLEEPING_AT // WORD_BYTES
DAEMON_BEAT_NS: Final = layout.DAEMON_BEAT_NS_AT // WORD_BYTES
CLOSED: Final = layout.CLOSED_AT // WORD_BYTES
TICK_SLOT_WORDS: Final = layout.TICK_SLOT_BYTES // WORD_BYTES
TICK_WORDS: Final = TICK_BYTES // WORD_BYTES
WRITTEN_WORD: Final = int(dict(layout.TICK_SLOT_DTYPE.fields or {})["written_ns"][1]) // WORD_BYTES
PREDICTION_SLOT_WORDS: Final = layout.PREDICTION_SLOT_BYTES // WORD_BYTES


@dataclass(frozen=True, slots=True)
class Expected:
    """What the daemon's Welcome says of the segment that it will hand over."""

    session_id: int
    slots: int
    first_sequence: int


class Segment:
    """One attached segment; made by map_segment().

    Attributes:
        slots: of each ring.
        mask: slots - 1.
        first_sequence: of tick 0 in the session.
        words: the whole segment as int64 words; see ``words.py``.
        memory: the same as bytes.
        tick_records: shape (slots,), TICK_DTYPE: the ticks of the tick ring, 128 bytes apart.
        tick_words: shape (slots, 16): the tick ring as words.
        predictions: shape (slots,), PREDICTION_DTYPE: the prediction ring. Not writeable.
        tick_word: where the tick ring begins in ``words``.
        prediction_word: where the prediction ring begins in ``words``.
        bell: descriptor of the attachment's socket, on which the daemon rings; -1 where there is none.
        hung_up: the daemon's end of it is closed.
    """

    def __init__(self, mapped: mmap.mmap, slots: int, first_sequence: int, fences: Fences) -> None:
        self.bell = -1
        self.hung_up = False
        self._event = -1
        self.slots = slots
        self.mask = slots - 1
        self.first_sequence = first_sequence
        self.fence = fences.full
        self.memory = memoryview(mapped)
        self.words: Words = fences.over(self.memory)
        at = layout.prediction_ring_at(slots)
        ring = np.frombuffer(mapped, layout.TICK_SLOT_DTYPE, slots, layout.HEADER_BYTES)
        self.tick_records: NDArray[np.void] = ring["tick"]
        self.tick_words: NDArray[np.int64] = np.frombuffer(
            mapped, np.int64, slots * TICK_SLOT_WORDS, layout.HEADER_BYTES
        ).reshape(slots, TICK_SLOT_WORDS)
        self.predictions: NDArray[np.void] = np.frombuffer(mapped, PREDICTION_DTYPE, slots, at)
        self.predictions.flags.writeable = False
        self.tick_word = _HEADER_WORDS
        self.prediction_word = at // WORD_BYTES
        # What every record says alike; and every page is ours to write before the first tick is.
        self.tick_records["length"], self.tick_records["rtype"] = TICK_LENGTH_WORDS, TICK_RTYPE

    def hold(self, attached: socket.socket, event: int) -> None:
        """Own the attachment's socket and the engine's event descriptor from now on."""
        self.bell = attached.detach()  # A number: no garbage collector closes it before its time.
        self._event = event

    def ring_engine(self) -> None:
        """Wake the engine where it sleeps; called after TICK_PUBLISHED was stored."""
        self.fence()
        if self.words[ENGINE_SLEEPING]:
            self.wake_engine()

    def wake_engine(self) -> None:
        """Wake the engine."""
        if self._event >= 0:
            # A full event wakes as well as one that was just written.
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._event, 1)

    def write_ticks(self, slot: int, rows: NDArray[np.int64], now_ns: int) -> None:
        """Write *rows*, shape (ticks, 10), from *slot* on, over the ring's end where need be, and when that was."""
        fits = min(len(rows), self.slots - slot)
        for first, part in ((slot, rows[:fits]), (0, rows[fits:])):
            if len(part):
                self.tick_words[first : first + len(part), :TICK_WORDS] = part
                self.tick_words[first : first + len(part), WRITTEN_WORD] = now_ns

    def published(self) -> int:
        """Return how many predictions the daemon has published here, as it says."""
        return self.words[PREDICTION_PUBLISHED]

    def hear(self) -> None:
        """Take one ring of the daemon's from the socket, or note that it hung up; never waits."""
        if self.bell < 0:
            return
        try:
            self.hung_up = os.read(self.bell, _BELL_BYTES) == b""
        except BlockingIOError:
            return
        except OSError:
            self.hung_up = True

    def leave(self) -> None:
        """Let the daemon know that we are gone. Does nothing the second time."""
        self.hung_up = True
        if self.bell >= 0:
            attached = socket.socket(fileno=self.bell)  # No other descriptor: there may be none left.
            with contextlib.suppress(OSError):  # It hung up first.
                attached.shutdown(socket.SHUT_RDWR)
            attached.detach()

    def close(self) -> None:
        """Close the descriptors, without a word: nobody waits on them any more. Does nothing the second time."""
        self.hung_up = True
        descriptors, self.bell, self._event = (self.bell, self._event), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def __del__(self) -> None:
        """Close the descriptors: nobody can wait on them any more."""
        self.close()


def map_segment(descriptor: int, told_bytes: int, expected: Expected | None, fences: Fences) -> Segment:
    """Check and map the segment behind *descriptor*, which stays the caller's.

    Args:
        descriptor: of a memfd.
        told_bytes: its size, as the reply to the attachment says.
        expected: what Welcome says; None where nobody said anything.
        fences: of this machine.

    Raises:
        DaemonProtocolError: it is none, or not the one that was promised.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as exc:
        raise _broken("seals", f"{exc.strerror} (a memfd was expected)") from exc
    if seals & _SEALS != _SEALS:
        raise _broken("seals", f"{seals:#x}; it must be sealed against shrinking, growing and unsealing ({_SEALS:#x})")
    size = os.fstat(descriptor).st_size
    if size != told_bytes or size < layout.HEADER_BYTES:
        raise _broken("size", f"{size} bytes, told {told_bytes}")
    try:
        mapped = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    except OSError as exc:
        raise _broken("memory", f"{exc.strerror}: it can't be mapped for writing") from exc
    header = mapped[: layout.HEADER_BYTES]
    slots = _checked_header(header, size)
    first_sequence = _u64(header, layout.FIRST_SEQUENCE_AT)
    if expected is not None:
        found = Expected(_u64(header, layout.SESSION_ID_AT), slots, first_sequence)
        if found != expected:
            raise _broken("header", f"{found}; Welcome said {expected}")
    return Segment(mapped, slots, first_sequence, fences)


def _checked_header(header: bytes, size: int) -> int:
    """Return how many slots each ring has, once the header is one that we know."""
    if _u64(header, layout.MAGIC_AT) != layout.MAGIC:
        raise _broken("magic", f"{header[:8]!r}, not {layout.ATTACH_MAGIC!r}")
    version = _u32(header, layout.LAYOUT_VERSION_AT)
    if version != layout.LAYOUT_VERSION:
        raise _broken("layout_version", f"{version}; this client knows {layout.LAYOUT_VERSION}")
    slots = _u32(header, layout.SLOTS_AT)
    try:
        wanted: dict[str, tuple[Any, Any]] = {
            "segment_bytes": (_u64(header, layout.SEGMENT_BYTES_AT), layout.segment_bytes(slots)),
            "size": (size, layout.segment_bytes(slots)),
            "tick_ring": (_u64(header, layout.TICK_RING_AT), layout.HEADER_BYTES),
            "prediction_ring": (_u64(header, layout.PREDICTION_RING_AT), layout.prediction_ring_at(slots)),
            "tick_slot_bytes": (_u32(header, layout.TICK_SLOT_BYTES_AT), layout.TICK_SLOT_BYTES),
            "prediction_slot_bytes": (_u32(header, layout.PREDICTION_SLOT_BYTES_AT), layout.PREDICTION_SLOT_BYTES),
        }
    except ValueError as exc:
        raise _broken("slots", str(exc)) from exc
    for name, (found, right) in wanted.items():
        if found != right:
            raise _broken(name, f"{found}; with {slots} slots it is {right}")
    return slots


def _u64(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 8], "little")


def _u32(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "little")


def _broken(field: str, found: str) -> DaemonProtocolError:
    return DaemonProtocolError(f"the daemon handed over a segment that is none: {field}={found}")
