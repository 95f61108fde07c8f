"""What becomes of each packet, whichever line it came by: whose session it is of, and where its messages belong.

A packet is taken for what it says only as far as others bear it out:

    another session         at once where this one has ended or is quiet; else after CONFIRM packets of it in a row
    the session just left   LEFT_CONFIRM of them: the slower line is still in it
    beyond the window       where it follows what is known, the oldest gaps are given up for it; else after CONFIRM in a row
    far behind              LEFT_CONFIRM of them, while nothing new comes: what was expected was never true; begin again there

Lines are equal: the first that brings a message wins, and the others' copies are compared with it. "In a row" is on one
line: the other one's copies come in between.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock_daemon.feed import memory as feed
from penstock_daemon.feed.books import mark_unsound, new_session
from penstock_daemon.feed.native_socket import send_bytes
from penstock_daemon.feed.packets import (
    END_OF_SESSION,
    HEADER_BYTES,
    LENGTH_BYTES,
    SOUND,
    big_endian,
    count_of,
    packet_fault,
    part,
    sequence_of,
)
from penstock_daemon.feed.publish import flush
from penstock_daemon.feed.window import gap_end, give_up_gap, look_for_gap, take_message
from penstock_daemon.native import load_acquire

CONFIRM: Final = 3
LEFT_CONFIRM: Final = 64
QUIET_NS: Final = 2_000_000_000  # Senders give a sign of life every second.
REQUEST_MAX: Final = 0xFFFE  # Messages of one request.

# As ``part``, but with a way in from Python: so packets can be offered one by one, by whoever has no socket.
_entered = njit(nogil=True, cache=True, error_model="numpy", _nrt=False)


@_entered
def take_packet(f: Any, books: Any, ring: Any, line: int, data: Any, at: int, length: int, stamps: Any) -> None:
    """Take one packet, or drop it whole; every packet is counted by what became of it.

    Args:
        f: FeedMemory; its words and window are overwritten.
        books: Books; overwritten.
        ring: Ring of the feed's source; ticks are published.
        line: which it came by.
        data: uint8, 1-D.
        at: where it begins.
        length: its bytes; over PACKET_BYTES where it was cut by its buffer.
        stamps: Stamps.
    """
    words = f.words
    now_ns = stamps.received_ns
    words[feed.PACKETS + line] += 1
    fault = packet_fault(data, at, length)
    if fault != SOUND:
        words[feed.MALFORMED + fault] += 1
        return
    sequence = sequence_of(data, at)
    header_count = count_of(data, at)
    count = 0 if header_count == END_OF_SESSION else header_count
    high, low = big_endian(data, at, 8), big_endian(data, at + 8, 2)
    if words[feed.EXPECTED] == 0 or high != words[feed.SESSION_HIGH] or low != words[feed.SESSION_LOW]:
        if line == feed.LINE_RECOVERY or not _admitted(words, line, high, low, sequence, count, now_ns):
            words[feed.OTHER_SESSION] += 1
            return
        _begin_session(f, books, high, low, sequence, count)
        words[feed.FRESH_NS] = now_ns
    elif count > 0 and line != feed.LINE_RECOVERY and _fell_back(f, line, sequence, count, now_ns):
        _begin_session(f, books, high, low, sequence, count)
    if line != feed.LINE_RECOVERY:  # It goes on telling of a session that the lines have left.
        words[feed.HEARD_NS] = now_ns
        _forget(words, feed.OTHER_COUNT)
    end = sequence + count
    words[feed.MESSAGES] += count
    if end > words[feed.EXPECTED] + f.slots.shape[0] and not _reached(f, books, ring, line, sequence, count, now_ns):
        words[feed.FAR_PACKETS] += 1
        words[feed.FAR_MESSAGES] += count
        flush(f, ring)
        return
    if count == 0:
        words[feed.ENDS if header_count == END_OF_SESSION else feed.HEARTBEATS] += 1
        if header_count == END_OF_SESSION:
            words[feed.ENDED] = 1
    elif _take_messages(f, books, ring, line, data, at, sequence, count, stamps):
        words[feed.DATA_PACKETS] += 1
        _forget(words, feed.FAR_COUNT)
        _forget(words, feed.BEHIND_COUNT)
        words[feed.FRESH_NS] = now_ns
        words[feed.ENDED] = 0
    else:
        words[feed.DUPLICATE_PACKETS] += 1
    words[feed.KNOWN_END] = max(words[feed.KNOWN_END], end)
    look_for_gap(f, now_ns)
    if line == feed.LINE_RECOVERY and words[feed.ATTEMPTS] > 0 and words[feed.EXPECTED] > words[feed.REQUESTED]:
        words[feed.DEADLINE_NS] = now_ns  # A part of the answer: the rest is asked for at once.
    flush(f, ring)


@part
def _take_messages(
    f: Any, books: Any, ring: Any, line: int, data: Any, at: int, sequence: int, count: int, stamps: Any
) -> bool:
    """Take all messages of a sound packet. Returns whether any of them was new."""
    fresh = False
    place = at + HEADER_BYTES
    for index in range(count):
        size = big_endian(data, place, LENGTH_BYTES)
        place += LENGTH_BYTES
        if take_message(f, books, ring, data, place, size, sequence + index, line, stamps):
            fresh = True
        place += size
    return fresh


@part
def _forget(words: Any, first: int) -> None:
    """Forget how often each line has claimed something; *first* is its word of line A."""
    for line in range(feed.LINES):
        words[first + line] = 0


@part
def _admitted(words: Any, line: int, high: int, low: int, sequence: int, count: int, now_ns: int) -> bool:
    """Return whether a packet of another session begins it. Overwrites what is known of other sessions."""
    if words[feed.EXPECTED] == 0 or now_ns - words[feed.HEARD_NS] > QUIET_NS:
        return True
    left = words[feed.SESSIONS] > 1 and high == words[feed.LEFT_HIGH] and low == words[feed.LEFT_LOW]
    if words[feed.ENDED] != 0 and not left:
        return True
    same = high == words[feed.OTHER_HIGH + line] and low == words[feed.OTHER_LOW + line]
    follows = same and sequence == words[feed.OTHER_NEXT + line] and words[feed.OTHER_COUNT + line] > 0
    words[feed.OTHER_COUNT + line] = words[feed.OTHER_COUNT + line] + 1 if follows else 1
    words[feed.OTHER_HIGH + line] = high
    words[feed.OTHER_LOW + line] = low
    words[feed.OTHER_NEXT + line] = sequence + count
    return words[feed.OTHER_COUNT + line] >= (LEFT_CONFIRM if left else CONFIRM)


@part
def _fell_back(f: Any, line: int, sequence: int, count: int, now_ns: int) -> bool:
    """Return whether the session goes on far behind what was expected, and nothing else does: that was never true."""
    words = f.words
    if sequence + count + f.slots.shape[0] >= words[feed.EXPECTED]:
        return False
    follows = words[feed.BEHIND_COUNT + line] > 0 and sequence == words[feed.BEHIND_NEXT + line]
    words[feed.BEHIND_COUNT + line] = words[feed.BEHIND_COUNT + line] + 1 if follows else 1
    words[feed.BEHIND_NEXT + line] = sequence + count
    return words[feed.BEHIND_COUNT + line] >= LEFT_CONFIRM and now_ns - words[feed.FRESH_NS] > QUIET_NS


@part
def _begin_session(f: Any, books: Any, high: int, low: int, sequence: int, count: int) -> None:
    """Leave the session there was and begin another, joined where its first packet here is."""
    words = f.words
    window = f.slots.shape[0]
    if words[feed.EXPECTED] != 0:
        words[feed.LEFT_HIGH] = words[feed.SESSION_HIGH]
        words[feed.LEFT_LOW] = words[feed.SESSION_LOW]
    if words[feed.GAP_SINCE_NS] != 0:
        words[feed.GAPS_UNRECOVERED] += 1
        words[feed.LOST] += words[feed.KNOWN_END] - words[feed.EXPECTED] - words[feed.HELD]
    words[feed.DISCARDED] += words[feed.HELD]
    for word in (feed.HELD, feed.GAP_SINCE_NS, feed.ENDED, feed.ATTEMPTS):
        words[word] = 0
    for word in (feed.FAR_COUNT, feed.OTHER_COUNT, feed.BEHIND_COUNT):
        _forget(words, word)
    for place in range(window):
        f.slots[place, feed.SLOT_SEQUENCE] = 0
    words[feed.SESSIONS] += 1
    words[feed.SESSION_HIGH] = high
    words[feed.SESSION_LOW] = low
    words[feed.MIDNIGHT_NS] = load_acquire(words, feed.MIDNIGHT_NEXT_NS)
    new_session(books)
    first = 1
    if sequence - 1 + count > window:  # What came before can't be held for: join here.
        first = sequence
        words[feed.LATE_JOINS] += 1
        mark_unsound(books)
    words[feed.EXPECTED] = first
    words[feed.KNOWN_END] = first


@part
def _reached(f: Any, books: Any, ring: Any, line: int, sequence: int, count: int, now_ns: int) -> bool:
    """Make room for a packet beyond the window, where there is reason to. Returns whether it is within now."""
    words = f.words
    end = sequence + count
    follows = sequence <= words[feed.KNOWN_END]
    if not follows:
        near = words[feed.FAR_COUNT + line] > 0 and sequence == words[feed.FAR_NEXT + line]
        words[feed.FAR_COUNT + line] = words[feed.FAR_COUNT + line] + 1 if near else 1
        words[feed.FAR_NEXT + line] = end
        if words[feed.FAR_COUNT + line] < CONFIRM:
            return False
        _forget(words, feed.FAR_COUNT)
        words[feed.KNOWN_END] = sequence
    while words[feed.EXPECTED] < words[feed.KNOWN_END] and end > words[feed.EXPECTED] + f.slots.shape[0]:
        give_up_gap(f, books, ring, now_ns)
    return True


@_entered
def tend_gap(f: Any, books: Any, ring: Any, now_ns: int) -> None:
    """Ask for what is missing, again, or give it up; to be called once DEADLINE_NS is over. Never waits.

    A server that answers is asked for every gap. One that let the last gap run out is asked only for a gap that has not
    been open as long as that one was: else each gap would wait behind those before it, and the market with them.
    """
    words, settings = f.words, f.settings
    server = settings[feed.DESCRIPTORS + feed.LINE_RECOVERY]
    if words[feed.ATTEMPTS] > 0 and words[feed.EXPECTED] > words[feed.REQUESTED]:
        words[feed.ATTEMPTS] = 0
    patience_ns = settings[feed.REORDER_WAIT_NS] + settings[feed.RECOVERY_ATTEMPTS] * settings[feed.RECOVERY_TIMEOUT_NS]
    end_ns = words[feed.GAP_SINCE_NS] + patience_ns
    if (
        server < 0
        or (words[feed.DEAF] != 0 and now_ns >= end_ns)
        or words[feed.ATTEMPTS] >= settings[feed.RECOVERY_ATTEMPTS]
    ):
        words[feed.DEAF] = 1 - words[feed.GAP_ANSWERED]
        give_up_gap(f, books, ring, now_ns)
        flush(f, ring)
        return
    _write(f.request, 0, 8, words[feed.SESSION_HIGH])
    _write(f.request, 8, 2, words[feed.SESSION_LOW])
    _write(f.request, 10, 8, words[feed.EXPECTED])
    _write(f.request, 18, 2, min(gap_end(f) - words[feed.EXPECTED], REQUEST_MAX))
    words[feed.REQUESTS] += 1
    if send_bytes(np.int32(server), f.request, HEADER_BYTES) != HEADER_BYTES:
        words[feed.REQUEST_ERRORS] += 1
    words[feed.REQUESTED] = words[feed.EXPECTED]
    words[feed.ATTEMPTS] += 1
    words[feed.DEADLINE_NS] = now_ns + settings[feed.RECOVERY_TIMEOUT_NS]
    if words[feed.DEAF] != 0:
        words[feed.DEADLINE_NS] = min(words[feed.DEADLINE_NS], end_ns)


@part
def _write(data: Any, at: int, count: int, value: int) -> None:
    """Write *value* big-endian into *count* bytes of *data*."""
    for index in range(count):
        data[at + index] = (value >> (8 * (count - 1 - index))) & 0xFF
