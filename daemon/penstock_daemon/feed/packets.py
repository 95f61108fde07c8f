"""A MoldUDP64 packet as compiled code reads it: checked as a whole before any message of it is used.

    header (20 bytes: session 10, sequence u64, count u16) + count times (length u16 + message)      big-endian

The layout is that of ``penstock.v1.moldudp64``, which says the same in Python.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock.v1 import moldudp64
from penstock_daemon.feed.memory import PACKET_BYTES, SEQUENCE_END, Malformed

part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

SOUND: Final = -1
HEADER_BYTES: Final = moldudp64.HEADER_BYTES
LENGTH_BYTES: Final = moldudp64.LENGTH_BYTES
END_OF_SESSION: Final = moldudp64.END_OF_SESSION
_SHORT, _TRUNCATED, _CUT = int(Malformed.SHORT), int(Malformed.TRUNCATED), int(Malformed.CUT)
_TRAILING, _EMPTY, _BAD_SEQUENCE = int(Malformed.TRAILING), int(Malformed.EMPTY_MESSAGE), int(Malformed.BAD_SEQUENCE)


@part
def big_endian(data: Any, at: int, count: int) -> int:
    """Return *count* bytes of *data* as a number; eight of them can make it negative."""
    value: Any = np.int64(0)
    for index in range(count):
        value = (value << 8) | np.int64(data[at + index])
    return value


@part
def sequence_of(data: Any, at: int) -> int:
    """Return the sequence of the packet's first message, or of the next one."""
    return big_endian(data, at + moldudp64.SEQUENCE_AT, 8)


@part
def count_of(data: Any, at: int) -> int:
    """Return the count as the header has it."""
    return big_endian(data, at + moldudp64.COUNT_AT, 2)


@part
def packet_fault(data: Any, at: int, length: int) -> int:
    """Check a packet as a whole. Returns a Malformed, or SOUND.

    Args:
        data: uint8, 1-D.
        at: where the packet begins.
        length: its bytes; over PACKET_BYTES where it was longer than its buffer.
    """
    if length > PACKET_BYTES:
        return _TRUNCATED
    if length < HEADER_BYTES:
        return _SHORT
    sequence = sequence_of(data, at)
    if sequence <= 0 or sequence >= SEQUENCE_END:
        return _BAD_SEQUENCE
    count = count_of(data, at)
    place = at + HEADER_BYTES
    end = at + length
    if count != END_OF_SESSION:
        for _ in range(count):
            if place + LENGTH_BYTES > end:
                return _CUT
            size = big_endian(data, place, LENGTH_BYTES)
            if size == 0:
                return _EMPTY
            place += LENGTH_BYTES + size
            if place > end:
                return _CUT
    return _TRAILING if place != end else SOUND


@part
def digest_of(data: Any, at: int, length: int) -> int:
    """Return a number that differs, all but surely, where messages do: FNV-1a, folded to 64 bits."""
    value: Any = np.uint64(14695981039346656037) ^ np.uint64(length)
    for index in range(length):
        value = (value ^ np.uint64(data[at + index])) * np.uint64(1099511628211)
    folded: Any = np.int64(value)
    return folded
