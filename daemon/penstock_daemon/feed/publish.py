"""From an applied message to a tick in the ring of the feed's source: claim, write in place, publish.

a full ring        so many ticks are unanswered: the tick is dropped and counted, never waited for
one packet         its ticks are published together, by one release store
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_tap import is_recorded, leave_ticks
from penstock_daemon.feed import memory as feed
from penstock_daemon.feed.packets import part
from penstock_daemon.native import clock_ns, load_acquire, store_release

_MONOTONIC = np.int32(1)


class Ring(NamedTuple):
    """Those of the engine's Buffers that a tick needs, by the same names: small, as it is passed along with each."""

    cursors: NDArray[np.int64]
    tick_slots: NDArray[Any]
    tick_words: NDArray[np.int64]


def ring_of(buffers: Buffers) -> Ring:
    """Return the part of *buffers* that the feed writes."""
    return Ring(buffers.cursors, buffers.tick_slots, buffers.tick_words)


@part
def publish_tick(f: Any, ring: Any, index: int, wire_ns: int, clock: int, first_ns: int, received_ns: int) -> bool:
    """Write ``f.tick[0]`` into the next slot of the feed's ring; ``flush`` makes it visible. Returns whether it had room.

    Args:
        f: FeedMemory; counts are overwritten.
        ring: Ring; a free slot is overwritten.
        index: of the instrument, in the feed's order.
        wire_ns: stamp of kernel or NIC, Unix, 0 for none.
        clock: Clock of the first stamp.
        first_ns: the first stamp, on the monotonic clock.
        received_ns: when the process had the packet, monotonic.
    """
    words = f.words
    source = f.settings[feed.SOURCE]
    base = source * memory.CURSOR_WORDS
    slots = ring.tick_slots.shape[1]
    place = ring.cursors[base + memory.TICK_PUBLISHED] + words[feed.UNFLUSHED]
    # Not TICK_CONSUMED: an answer's slot is counted with the stamps of its tick, when it is handed over.
    if place - load_acquire(ring.cursors, base + memory.PREDICTION_CONSUMED) >= slots:
        words[feed.RING_DROPS] += 1
        return False
    tick = f.tick[0]
    slot = ring.tick_slots[source, place & (slots - 1)]
    slot.record_length = tick.length
    slot.rtype = tick.rtype
    slot.publisher_id = tick.publisher_id
    slot.instrument_id = tick.instrument_id
    slot.ts_event = tick.ts_event
    slot.price = tick.price
    slot.size = tick.size
    slot.action = tick.action
    slot.side = tick.side
    slot.flags = tick.flags
    slot.depth = tick.depth
    ts_recv: Any = np.int64(tick.ts_recv)
    if ts_recv <= 0:  # ITCH has none; a record's may be undefined.
        ts_recv = wire_ns if wire_ns != 0 else received_ns + words[feed.UNIX_OFFSET_NS]
    slot.ts_recv = ts_recv
    slot.ts_in_delta = tick.ts_in_delta
    slot.sequence = tick.sequence
    slot.bid_px = tick.bid_px
    slot.ask_px = tick.ask_px
    slot.bid_sz = tick.bid_sz
    slot.ask_sz = tick.ask_sz
    slot.bid_ct = tick.bid_ct
    slot.ask_ct = tick.ask_ct
    slot.session_sequence = words[feed.TICK_SEQUENCE]
    slot.received_ns = received_ns
    slot.first_ns = first_ns
    slot.wire_ns = wire_ns
    slot.state = f.states[index]
    slot.refusal = 0
    slot.rebuild = 0
    slot.clock = clock
    words[feed.TICK_SEQUENCE] += 1
    words[feed.UNFLUSHED] += 1
    words[feed.TICKS] += 1
    return True


@part
def flush(f: Any, ring: Any) -> None:
    """Make the ticks written since the last call visible to the engine, and leave copies where the feed is recorded."""
    words = f.words
    count = words[feed.UNFLUSHED]
    if count == 0:
        return
    source = f.settings[feed.SOURCE]
    base = source * memory.CURSOR_WORDS
    slots = ring.tick_slots.shape[1]
    published = ring.cursors[base + memory.TICK_PUBLISHED]
    ringed_ns = clock_ns(_MONOTONIC)
    for index in range(count):
        ring.tick_slots[source, (published + index) & (slots - 1)].ringed_ns = ringed_ns
    store_release(ring.cursors, base + memory.TICK_PUBLISHED, published + count)
    if is_recorded(f.tap, 0):
        leave_ticks(f.tap, 0, ring.tick_slots[source], ring.tick_words[source], published, count)
    words[feed.UNFLUSHED] = 0
