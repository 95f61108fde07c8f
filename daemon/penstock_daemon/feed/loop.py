"""The feed thread: one compiled loop from the sockets to the engine's ring, which never touches the interpreter.

    while not stopped:
        each line and the recovery server     a batch of packets, taken one by one
        a gap whose time is over              asked for, or given up
        ticks came of it                      predicted here where the engine sleeps and they are few; else it is woken
        nothing came                          look again at once, or sleep until a socket has something

Nothing here allocates, locks or logs. What is worth a line in the log is counted, and told by who looks at the counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon.engine_loop import assist
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.feed import memory as feed
from penstock_daemon.feed.arbitration import take_packet, tend_gap
from penstock_daemon.feed.native_socket import EAGAIN, EINTR, MSG_TRUNC, last_error, receive_batch, wait_ready
from penstock_daemon.feed.packets import part
from penstock_daemon.feed.stamps import HEADER_CONTROL_LENGTH, HEADER_FLAGS, HEADER_RECEIVED, stamps_of
from penstock_daemon.native import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_ns, load_acquire, store_release
from penstock_daemon.rings import wake_engine

_compile = njit(nogil=True, cache=True, error_model="numpy")

_MONOTONIC, _REALTIME = np.int32(CLOCK_MONOTONIC), np.int32(CLOCK_REALTIME)
_SLEEP_MAX_NS = 100_000_000  # The thread looks this often even if nothing comes.
_SLEEP_MIN_NS = 1_000
_U32 = 0xFFFFFFFF


@part
def receive_line(f: Any, books: Any, ring: Any, line: int) -> int:
    """Receive a batch of one line and take its packets. Returns how many."""
    words = f.words
    descriptor = np.int32(f.settings[feed.DESCRIPTORS + line])
    for index in range(f.settings[feed.BATCH]):
        f.headers[index, HEADER_CONTROL_LENGTH] = feed.CONTROL_WORDS * 8
        f.headers[index, HEADER_FLAGS] = 0
    count = receive_batch(descriptor, f.headers, np.int32(f.settings[feed.BATCH]))
    if count <= 0:
        if count < 0:
            error = last_error()
            if error not in (EAGAIN, EINTR):
                words[feed.RECEIVE_ERRORS] += 1
        return 0
    received_ns = clock_ns(_MONOTONIC)
    unix_offset_ns = clock_ns(_REALTIME) - received_ns
    words[feed.UNIX_OFFSET_NS] = unix_offset_ns
    words[feed.BATCHES] += 1
    for index in range(count):
        length = f.headers[index, HEADER_RECEIVED] & _U32
        if f.headers[index, HEADER_FLAGS] & MSG_TRUNC:
            length = feed.PACKET_BYTES + 1
        stamps = stamps_of(f, index, line, received_ns, unix_offset_ns)
        take_packet(f, books, ring, line, f.packets, index * feed.PACKET_BYTES, length, stamps)
    return count


@part
def idle(f: Any, now_ns: int) -> None:
    """Sleep until a socket has something, the gap's time is over, or the thread is asked to stop."""
    words = f.words
    timeout_ns = _SLEEP_MAX_NS
    if words[feed.GAP_SINCE_NS] != 0:
        timeout_ns = min(max(words[feed.DEADLINE_NS] - now_ns, _SLEEP_MIN_NS), _SLEEP_MAX_NS)
    wait_ready(f.polled, f.polled.shape[0], timeout_ns)


@_compile
def run(m: Any, ring: Any, f: Any, books: Any) -> None:
    """Run the feed until ``f.words[STOP]`` is set.

    Args:
        m: Buffers of the engine.
        ring: Ring of it.
        f: FeedMemory.
        books: Books.
    """
    words, settings = f.words, f.settings
    while load_acquire(words, feed.STOP) == 0:
        ticks = words[feed.TICKS]
        packets = 0
        for line in range(feed.LINES):
            if settings[feed.DESCRIPTORS + line] >= 0:
                packets += receive_line(f, books, ring, line)
        now_ns = clock_ns(_MONOTONIC)
        if words[feed.GAP_SINCE_NS] != 0 and now_ns >= words[feed.DEADLINE_NS]:
            tend_gap(f, books, ring, now_ns)
        ticks = words[feed.TICKS] - ticks
        if 0 < ticks <= settings[feed.ASSIST_MAX]:
            if assist(m, settings[feed.SOURCE]) > 0:
                wake_loop(m)
        elif ticks > 0:
            wake_engine(m)
        store_release(words, feed.PASSES, words[feed.PASSES] + 1)
        if packets == 0 and settings[feed.IDLE_BLOCK] != 0:
            idle(f, now_ns)
