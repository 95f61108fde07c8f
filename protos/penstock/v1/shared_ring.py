"""The segment that a strategy on the daemon's host shares with it: a header, a ring of ticks, a ring of predictions.

    header            4,096 bytes: what the segment is, then words with one writer each, a cache line apart
    tick ring         slots * 128 bytes: the strategy writes, the daemon reads
    prediction ring   slots * 128 bytes: the daemon writes, the strategy reads

A cursor counts records since the segment was made, only grows, and has one writer; record ``n`` stands in slot
``n & (slots - 1)``. Who writes a record stores the cursor behind it with release semantics; who reads it loads the cursor
with acquire semantics first.

    TICK_CONSUMED <= TICK_PUBLISHED <= TICK_CONSUMED + slots
    PREDICTION_CONSUMED <= PREDICTION_PUBLISHED <= PREDICTION_CONSUMED + slots

The daemon relies on none of it: whatever selects an address it copies first, and checks, or counts itself.
``include/penstock_ring.h`` says the same in C, and a test compares them.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import numpy as np

from penstock.v1.records import PREDICTION_BYTES, TICK_DTYPE

LAYOUT_VERSION: Final = 1
MAGIC: Final = int.from_bytes(b"PENSTOCK", "little")
HEADER_BYTES: Final = 4096
SLOTS_MIN: Final = 64
SLOTS_MAX: Final = 1 << 20

# --- The header: constant after the segment was made. Byte offsets; u64 where not said otherwise. ---------------------

MAGIC_AT: Final = 0
LAYOUT_VERSION_AT: Final = 8  # u32
SLOTS_AT: Final = 12  # u32: of each ring; a power of two.
SEGMENT_BYTES_AT: Final = 16
TICK_RING_AT: Final = 24  # Where the tick ring begins, in bytes from the segment's start.
PREDICTION_RING_AT: Final = 32
SESSION_ID_AT: Final = 40
FIRST_SEQUENCE_AT: Final = 48  # Session sequence of tick 0.
TICK_SLOT_BYTES_AT: Final = 56  # u32
PREDICTION_SLOT_BYTES_AT: Final = 60  # u32

# --- Words that change: int64, one writer each, a cache line apart. ----------------------------------------------------

TICK_PUBLISHED_AT: Final = 128  # Strategy.
PREDICTION_CONSUMED_AT: Final = 192  # Strategy.
CLIENT_WAITING_AT: Final = 256  # Strategy: 1 before it sleeps on its socket; the daemon takes it back to 0 and rings.
TICK_CONSUMED_AT: Final = 320  # Daemon.
PREDICTION_PUBLISHED_AT: Final = 384  # Daemon.
ENGINE_SLEEPING_AT: Final = 448  # Daemon: 1 while a published tick must be followed by a write to the event descriptor.
DAEMON_BEAT_NS_AT: Final = 512  # Daemon: CLOCK_MONOTONIC of its last look at the rings; five a second at the least.
CLOSED_AT: Final = 576  # Daemon: 0 while the segment is served; then SegmentEnd, and no answer comes any more.

# --- Slots ---------------------------------------------------------------------------------------------------------------

TICK_SLOT_BYTES: Final = 128
PREDICTION_SLOT_BYTES: Final = PREDICTION_BYTES

TICK_SLOT_DTYPE: Final[np.dtype[np.void]] = np.dtype(
    {
        "names": ["tick", "written_ns"],
        "formats": [TICK_DTYPE, "<i8"],
        "offsets": [0, 80],  # written_ns: CLOCK_MONOTONIC when it was published; 0 for none.
        "itemsize": TICK_SLOT_BYTES,
    }
)

# In a prediction slot's flags: the tick was refused, nothing of it entered a state, and ``horizons`` holds the number of
# the TickError.Reason.
REFUSED_FLAG: Final = 1 << 31


class SegmentEnd(IntEnum):
    """Why a segment is served no longer. MALFORMED_TICK and CURSOR end the session too, as a malformed batch does."""

    SERVED = 0
    CLOSED = 1  # The session has ended.
    DRAINING = 2  # The daemon is stopping: all that was published before is answered.
    MALFORMED_TICK = 3  # A record that is no mbp-1 record.
    CURSOR = 4  # A cursor that went backwards, or further than the ring is long.


# --- Attaching: one packet each way over the SOCK_SEQPACKET socket of Welcome.shared_memory.address --------------------

ATTACH_REQUEST: Final = struct.Struct("<8sII16s")  # b"PENSTOCK", LAYOUT_VERSION, 0, token.
ATTACH_MAGIC: Final = b"PENSTOCK"
TOKEN_BYTES: Final = 16

# The reply: status (0 for attached), layout version, segment bytes; then, if refused, a sentence in UTF-8. With status 0 come
# two descriptors: the segment (memfd), and an event descriptor that wakes a sleeping engine. Afterwards the daemon sends
# one byte, of any value, each time it rings a waiting strategy, and each side knows by the hang-up that the other is gone.
ATTACH_REPLY: Final = struct.Struct("<IIQ")
ATTACH_REPLY_BYTES_MAX: Final = 1024


def segment_bytes(slots: int) -> int:
    """Return the size of a segment whose rings hold *slots* records each.

    Raises:
        ValueError: slots is no power of two, or out of range.
    """
    if slots & (slots - 1) or not SLOTS_MIN <= slots <= SLOTS_MAX:
        raise ValueError(f"slots must be a power of two, {SLOTS_MIN} to {SLOTS_MAX}: slots={slots}")
    return HEADER_BYTES + slots * (TICK_SLOT_BYTES + PREDICTION_SLOT_BYTES)


def prediction_ring_at(slots: int) -> int:
    """Return where the prediction ring begins, in bytes from the segment's start."""
    return HEADER_BYTES + slots * TICK_SLOT_BYTES
