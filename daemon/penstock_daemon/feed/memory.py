"""The memory of the feed thread: what it counts, what it holds back, and who may write which word of it.

    words      written by the feed thread, read by whoever asks     but those marked Loop, which the event loop writes
    settings   written before the thread starts, constant after
    packets, controls, headers     one batch of received packets, reused by every batch
    held       the window of messages around the expected one

The window is one ring of slots: a message of sequence ``s`` has the slot ``s & (slots - 1)``, and SLOT_SEQUENCE says whose
it is. So it holds what came too early, and remembers what was applied last:

    expected <= sequence < expected + slots     held, its bytes in the slot
    expected - slots <= sequence < expected     applied; its digest is kept, to be compared with a repetition

Every packet is counted in PACKETS and in exactly one other word of its group, and so is every message in MESSAGES.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_daemon.engine_tap import TapMemory, make_tap, tap_bytes

Take = Callable[..., NDArray[Any]]  # Arena.take

# What applying one message to the books returns, where it is not the index of the instrument that has a new tick.
NO_TICK: Final = -1


class Refusal(IntEnum):
    """Why a message changed no book; its code is ``FIRST_REFUSAL - refusal``."""

    UNKNOWN_TYPE = 0  # No message of this payload; skipped, as its specification asks.
    WRONG_LENGTH = 1  # A known type with another length than its own.
    WRONG_VALUE = 2  # A field that can't be: a side that is neither, a date out of range.
    UNKNOWN_ORDER = 3  # It is about an order that nobody added; common after a late join.
    ORDERS_FULL = 4  # feed.orders_max is reached.
    LEVELS_FULL = 5  # feed.levels_max is reached.
    TOO_LARGE = 6  # More shares executed or cancelled than the order has.
    DUPLICATE_ORDER = 7  # An order of that reference is there.


FIRST_REFUSAL: Final = -2
REFUSALS: Final = len(Refusal)

# --- Settings ---------------------------------------------------------------------------------------------------------

PAYLOAD: Final = 0  # Payload.
SOURCE: Final = 1  # Of the engine.
IDLE_BLOCK: Final = 2  # 1: sleeps in poll; 0: looks again at once.
DESCRIPTORS: Final = 3  # Three of them: line A, line B, recovery; -1 for none.
STOP_EVENT: Final = 6
BATCH: Final = 7  # Packets of one recvmmsg, at most.
REORDER_WAIT_NS: Final = 8  # How long a gap is waited for before it is asked for.
RECOVERY_TIMEOUT_NS: Final = 9
RECOVERY_ATTEMPTS: Final = 10
ASSIST_MAX: Final = 11  # As publish_ticks has it.
HARDWARE: Final = 12  # 1: NIC stamps are asked for.
SETTINGS: Final = 16


class Payload(IntEnum):
    """What the messages are."""

    ITCH = 0  # NASDAQ TotalView-ITCH 5.0.
    DBN = 1  # Each message is one 80-byte DBN mbp-1 record.


LINE_A: Final = 0
LINE_B: Final = 1
LINE_RECOVERY: Final = 2
LINES: Final = 3

# --- Words: the state of the arbitration ---------------------------------------------------------------------------------

STOP: Final = 0  # Loop: 1 asks the thread to return.
MIDNIGHT_NEXT_NS: Final = 1  # Loop: the midnight that the next session counts from, Unix; ITCH alone.
MIDNIGHT_NS: Final = 2  # Of this session.
SESSION_HIGH: Final = 3  # The 10 bytes of the session: the first 8, big-endian; 0 before there is one.
SESSION_LOW: Final = 4  # And the last 2.
EXPECTED: Final = 5  # Sequence of the next message; 0 before there is a session.
KNOWN_END: Final = 6  # The highest next sequence that any packet told of.
HELD: Final = 7  # Messages in the window.
ENDED: Final = 8  # 1 after the end of the session.
HEARD_NS: Final = 9  # When a packet of this session came last, monotonic.
GAP_SINCE_NS: Final = 10  # Since when EXPECTED is missing; 0 without a gap.
ATTEMPTS: Final = 11  # Requests for this gap that nothing answered.
DEADLINE_NS: Final = 12  # When the gap is asked for (again), or given up.
REQUESTED: Final = 13  # EXPECTED at the last request.
GAP_ANSWERED: Final = 14  # 1 once the recovery server gave a message of this gap.
LEFT_HIGH: Final = 15  # The session before this one: the slower line may still be in it.
LEFT_LOW: Final = 16
TICK_SEQUENCE: Final = 17  # Ticks published; the sequence of the next.
UNFLUSHED: Final = 18  # Ticks written since the cursor was moved.
PASSES: Final = 19  # How often the thread looked; grows while it lives.
FRESH_NS: Final = 20  # When a packet with a new message came last, monotonic.
DEAF: Final = 21  # 1 after a gap that the recovery server answered nothing of.

# --- Words: counts; they only grow ------------------------------------------------------------------------------------------

PACKETS: Final = 32  # Three of them, by line. Each packet is counted once more in the group that ends with FAR_PACKETS:
DATA_PACKETS: Final = 35  # With a message that was new.
DUPLICATE_PACKETS: Final = 36  # Without one.
HEARTBEATS: Final = 37
ENDS: Final = 38  # Ends of a session.
OTHER_SESSION: Final = 39  # Of another session than this one.
FAR_PACKETS: Final = 40  # Beyond the window, and not confirmed.
MALFORMED: Final = 41  # One for each of Malformed.
MESSAGES: Final = 48  # In sound packets of this session; each is counted once more, up to DISCARDED, or is HELD:
APPLIED: Final = 49
DUPLICATES: Final = 50
FAR_MESSAGES: Final = 51
DISCARDED: Final = 52  # Held when their session ended.
CONFLICTS: Final = 53  # Of the duplicates: other bytes than the first had.
REORDERED: Final = 54  # Of those applied: came before their turn.
RECOVERED: Final = 55  # Of those applied: from the recovery server.
LOST: Final = 56  # Sequences that never came.
GAPS: Final = 57  # Each ends in one of the following three, or is open.
GAPS_CLOSED: Final = 58  # By a line.
GAPS_RECOVERED: Final = 59  # By the recovery server.
GAPS_UNRECOVERED: Final = 60
REQUESTS: Final = 61
REQUEST_ERRORS: Final = 62
SESSIONS: Final = 63
LATE_JOINS: Final = 64  # Sessions that were joined after their start.
TICKS: Final = 65  # Published.
RING_DROPS: Final = 66  # Ticks that found the ring full.
REFUSED: Final = 67  # Eight of them, by Refusal: messages among those applied.
SOCKET_DROPS: Final = 75  # Three of them, by line, as SO_RXQ_OVFL says.
RECEIVE_ERRORS: Final = 78
NO_STAMP: Final = 79  # Packets without a stamp of the kernel.
HARDWARE_STAMPS: Final = 80  # Packets whose NIC stamp was used.
HARDWARE_DOUBTED: Final = 81  # Packets whose NIC stamp was not: its clock is not known, or contradicts the kernel's.
NEGATIVE: Final = 82  # Packets stamped after they were received: the wall clock was set.
KERNEL_TO_USER_NS: Final = 83  # Sum over PACKETS that have a stamp; those of NEGATIVE add nothing.
KERNEL_TO_USER_MAX_NS: Final = 84
BATCHES: Final = 85  # recvmmsg calls that brought packets.
UNIX_OFFSET_NS: Final = 86  # CLOCK_REALTIME minus CLOCK_MONOTONIC, as read after the last batch; no count.

# --- Words: three of each, by line: what it claims that is not believed yet, and its clock ----------------------------------

FAR_NEXT: Final = 88  # Where a packet beyond the window ended: one that goes on there confirms it.
FAR_COUNT: Final = 91  # How many in a row.
OTHER_HIGH: Final = 94  # The other session that packets were of, how many in a row, and where the last one ended.
OTHER_LOW: Final = 97
OTHER_COUNT: Final = 100
OTHER_NEXT: Final = 103
BEHIND_COUNT: Final = 106  # Packets in a row from before all that the window knows, and where the last one ended.
BEHIND_NEXT: Final = 109
CARD_OFFSET_NS: Final = 112  # Loop: the clock of the line's network card, less CLOCK_MONOTONIC;
CARD_ERROR_NS: Final = 115  # Loop: and by how much that may be off; 0 while it is not known.
FEED_WORDS: Final = 128


class Malformed(IntEnum):
    """Why a packet was dropped whole."""

    SHORT = 0  # Less than a header.
    TRUNCATED = 1  # Longer than PACKET_BYTES.
    CUT = 2  # Its messages reach past its end.
    TRAILING = 3  # Bytes after its last message.
    EMPTY_MESSAGE = 4
    BAD_SEQUENCE = 5  # 0, or past any that a session can reach.


PACKET_BYTES: Final = 9024  # Of a receive buffer: a jumbo frame fits, and 141 cache lines spread buffers over all sets.
BATCH_MAX: Final = 64
MESSAGE_BYTES: Final = 128  # Of a held message; no message of either payload is longer.
SEQUENCE_END: Final = 2**62
CONTROL_WORDS: Final = 16  # Of the control data of one packet: a stamp takes 8, a count of drops 3.
HEADER_WORDS: Final = 8  # struct mmsghdr

# Columns of the window's slots.
SLOT_SEQUENCE: Final = 0
SLOT_DIGEST: Final = 1
SLOT_LENGTH: Final = 2
SLOT_WIRE_NS: Final = 3  # Unix, 0 for none.
SLOT_CLOCK: Final = 4
SLOT_FIRST_NS: Final = 5  # Monotonic.
SLOT_RECEIVED_NS: Final = 6  # Monotonic.
SLOT_LINE: Final = 7
SLOT_COLUMNS: Final = 8


class FeedMemory(NamedTuple):
    """The arrays of the feed thread, in the form that compiled code takes as one argument."""

    words: NDArray[np.int64]  # (FEED_WORDS,)
    settings: NDArray[np.int64]  # (SETTINGS,)
    packets: NDArray[np.uint8]  # (BATCH_MAX * PACKET_BYTES,)
    controls: NDArray[np.int64]  # (BATCH_MAX, CONTROL_WORDS)
    headers: NDArray[np.int64]  # (BATCH_MAX, HEADER_WORDS): struct mmsghdr
    vectors: NDArray[np.int64]  # (BATCH_MAX, 2): struct iovec
    slots: NDArray[np.int64]  # (held, SLOT_COLUMNS)
    held: NDArray[np.uint8]  # (held * MESSAGE_BYTES,)
    states: NDArray[np.int64]  # (instruments,): the engine's state of each
    request: NDArray[np.uint8]  # (32,): a re-request, 20 bytes
    polled: NDArray[np.int64]  # (LINES + 1,): struct pollfd
    tick: NDArray[Any]  # (1,), TICK_DTYPE
    tap: TapMemory  # Where the thread leaves what it has published, for the recorder; it has one row.


def feed_bytes(instruments: int, held: int, tap_ticks: int = 0) -> int:
    """Return what ``make_feed_memory`` takes, alignment included."""
    size = 0
    size += (FEED_WORDS + SETTINGS) * 8
    size += BATCH_MAX * (PACKET_BYTES + (CONTROL_WORDS + HEADER_WORDS + 2) * 8)  # One batch.
    size += held * (MESSAGE_BYTES + SLOT_COLUMNS * 8)  # The window.
    size += instruments * 8
    size += tap_bytes(tap_ticks, 1)  # Ticks on their way to the recorder.
    size += 4096  # Request, descriptors, tick, alignment.
    return size


def make_feed_memory(take: Take, instruments: int, held: int, tap_ticks: int = 0) -> FeedMemory:
    """Take the feed's memory from an arena.

    Args:
        take: ``Arena.take``.
        instruments: of the feed.
        held: messages of the window; a power of two.
        tap_ticks: that wait for the recorder, at most; a power of two, 0 where the feed is not recorded.
    """
    assert held & (held - 1) == 0, "the window is a power of two"
    return FeedMemory(
        words=take("feed_words", (FEED_WORDS,), np.int64, holds="counts of the feed"),
        settings=take("feed_settings", (SETTINGS,), np.int64, holds="constants of the feed"),
        packets=take("packets", (BATCH_MAX * PACKET_BYTES,), np.uint8, holds="received packets"),
        controls=take("controls", (BATCH_MAX, CONTROL_WORDS), np.int64, holds="their stamps"),
        headers=take("headers", (BATCH_MAX, HEADER_WORDS), np.int64, holds="mmsghdr"),
        vectors=take("vectors", (BATCH_MAX, 2), np.int64, holds="iovec"),
        slots=take("window", (held, SLOT_COLUMNS), np.int64, holds="messages held, and those applied last"),
        held=take("held", (held * MESSAGE_BYTES,), np.uint8, holds="their bytes"),
        states=take("feed_states", (instruments,), np.int64, holds="state of each instrument"),
        request=take("request", (32,), np.uint8, holds="a re-request"),
        polled=take("polled", (LINES + 1,), np.int64, holds="pollfd"),
        tick=take("tick", (1,), TICK_DTYPE, holds="the tick under way"),
        tap=make_tap(take, tap_ticks, 1),
    )
