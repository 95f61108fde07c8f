"""One sequence of messages out of many packets: what is applied, held, repeated, and given up.

    s < expected      a repetition; it must have the bytes of the first, or the books are unsound
    s == expected     applied, and after it all that was held and follows
    s > expected      held in its slot, until the gap before it is closed or given up

A gap is from the expected message to the next one that is held, or to the end that a heartbeat told of. Given up, its
messages are lost: the books are unsound before the next one is applied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from penstock_daemon.feed import memory as feed
from penstock_daemon.feed.books import apply_dbn, apply_itch, mark_unsound, untell
from penstock_daemon.feed.packets import digest_of, part
from penstock_daemon.feed.publish import publish_tick

_ITCH = int(feed.Payload.ITCH)


class Stamps(NamedTuple):
    """When a packet came: on the wire (Unix, 0 for none), by which clock, that as monotonic time, and received."""

    wire_ns: np.int64
    clock: np.int64
    first_ns: np.int64
    received_ns: np.int64


@part
def apply_message(f: Any, books: Any, ring: Any, data: Any, at: int, length: int, line: int, stamps: Any) -> None:
    """Apply the expected message to the books and publish its tick, if it makes one. Overwrites EXPECTED and counts."""
    words = f.words
    words[feed.EXPECTED] += 1
    words[feed.APPLIED] += 1
    if line == feed.LINE_RECOVERY:
        words[feed.RECOVERED] += 1
        words[feed.GAP_ANSWERED] = 1
        words[feed.DEAF] = 0
    midnight_ns = words[feed.MIDNIGHT_NS]
    if f.settings[feed.PAYLOAD] == _ITCH:
        result = apply_itch(books, data, at, length, midnight_ns, f.tick)
    else:
        result = apply_dbn(books, data, at, length, midnight_ns, f.tick)
    if result >= 0:
        if not publish_tick(f, ring, result, stamps.wire_ns, stamps.clock, stamps.first_ns, stamps.received_ns):
            untell(books, result)
    elif result <= feed.FIRST_REFUSAL:
        words[feed.REFUSED + min(feed.FIRST_REFUSAL - result, feed.REFUSALS - 1)] += 1


@part
def take_message(
    f: Any, books: Any, ring: Any, data: Any, at: int, length: int, sequence: int, line: int, stamps: Any
) -> bool:
    """Apply, hold or drop one message of a sound packet. Returns whether it was new.

    Args:
        f: FeedMemory; window and counts are overwritten.
        books: Books; overwritten.
        ring: Ring of the feed's source.
        data, at, length: the message.
        sequence: less than the expected one plus the window.
        line: which it came by.
        stamps: of its packet.
    """
    words = f.words
    digest = digest_of(data, at, length)
    place = sequence & (f.slots.shape[0] - 1)
    slot = f.slots[place]
    expected = words[feed.EXPECTED]
    if slot[feed.SLOT_SEQUENCE] == sequence or sequence < expected:
        words[feed.DUPLICATES] += 1
        if slot[feed.SLOT_SEQUENCE] == sequence and slot[feed.SLOT_DIGEST] != digest:
            words[feed.CONFLICTS] += 1
            mark_unsound(books)  # Nobody can say which of the two was right.
        return False
    slot[feed.SLOT_SEQUENCE] = sequence
    slot[feed.SLOT_DIGEST] = digest
    if sequence == expected:
        apply_message(f, books, ring, data, at, length, line, stamps)
        if words[feed.HELD] > 0:
            apply_held(f, books, ring)
        return True
    slot[feed.SLOT_LENGTH] = length
    slot[feed.SLOT_WIRE_NS] = stamps.wire_ns
    slot[feed.SLOT_CLOCK] = stamps.clock
    slot[feed.SLOT_FIRST_NS] = stamps.first_ns
    slot[feed.SLOT_RECEIVED_NS] = stamps.received_ns
    slot[feed.SLOT_LINE] = line
    start = place * feed.MESSAGE_BYTES
    for index in range(min(length, feed.MESSAGE_BYTES)):
        f.held[start + index] = data[at + index]
    words[feed.HELD] += 1
    return True


@part
def apply_held(f: Any, books: Any, ring: Any) -> None:
    """Apply what is held and follows without a gap; that ends the gap before it."""
    words = f.words
    window = f.slots.shape[0]
    applied = 0
    while words[feed.HELD] > 0:
        place = words[feed.EXPECTED] & (window - 1)
        slot = f.slots[place]
        if slot[feed.SLOT_SEQUENCE] != words[feed.EXPECTED]:
            break
        words[feed.HELD] -= 1
        words[feed.REORDERED] += 1
        applied += 1
        stamps = Stamps(
            slot[feed.SLOT_WIRE_NS], slot[feed.SLOT_CLOCK], slot[feed.SLOT_FIRST_NS], slot[feed.SLOT_RECEIVED_NS]
        )
        if applied == 1:
            close_gap(words)
        start = place * feed.MESSAGE_BYTES
        apply_message(f, books, ring, f.held, start, slot[feed.SLOT_LENGTH], slot[feed.SLOT_LINE], stamps)


@part
def close_gap(words: Any) -> None:
    """Count the gap under way, if there is one, as closed by whom it was."""
    if words[feed.GAP_SINCE_NS] != 0:
        words[feed.GAP_SINCE_NS] = 0
        words[feed.GAPS_RECOVERED if words[feed.GAP_ANSWERED] != 0 else feed.GAPS_CLOSED] += 1


@part
def gap_end(f: Any) -> int:
    """Return the next sequence that is held, or KNOWN_END where nothing is."""
    words = f.words
    window = f.slots.shape[0]
    sequence = words[feed.EXPECTED]
    last = min(words[feed.KNOWN_END], sequence + window)  # Nothing is held beyond.
    while sequence < last:
        if f.slots[sequence & (window - 1), feed.SLOT_SEQUENCE] == sequence:
            return sequence
        sequence += 1
    return words[feed.KNOWN_END]


@part
def look_for_gap(f: Any, now_ns: int) -> None:
    """Note whether messages are missing, after a packet was taken. Overwrites the words of the gap."""
    words = f.words
    if words[feed.EXPECTED] >= words[feed.KNOWN_END]:
        words[feed.KNOWN_END] = words[feed.EXPECTED]
        close_gap(words)
        return
    if words[feed.GAP_SINCE_NS] != 0:
        return
    end = gap_end(f)
    since_ns = now_ns
    slot = f.slots[end & (f.slots.shape[0] - 1)]
    if slot[feed.SLOT_SEQUENCE] == end:  # A hole behind another one was there as early as what follows it.
        since_ns = min(now_ns, slot[feed.SLOT_RECEIVED_NS])
    words[feed.GAPS] += 1
    words[feed.GAP_SINCE_NS] = max(since_ns, 1)
    words[feed.GAP_ANSWERED] = 0
    words[feed.ATTEMPTS] = 0
    words[feed.DEADLINE_NS] = since_ns + f.settings[feed.REORDER_WAIT_NS]


@part
def give_up_gap(f: Any, books: Any, ring: Any, now_ns: int) -> None:
    """Go on behind the messages that are missing, with books that may be wrong."""
    words = f.words
    end = gap_end(f)
    words[feed.LOST] += end - words[feed.EXPECTED]
    if words[feed.GAP_SINCE_NS] == 0:
        words[feed.GAPS] += 1
    words[feed.GAP_SINCE_NS] = 0
    words[feed.GAPS_UNRECOVERED] += 1
    mark_unsound(books)
    words[feed.EXPECTED] = end
    apply_held(f, books, ring)
    look_for_gap(f, now_ns)
