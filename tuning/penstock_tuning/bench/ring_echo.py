"""An empty ring echo: the other side of a shared segment, which answers a tick with its own number and nothing else.

What a round trip through two rings costs where nobody predicts. A process of its own, in a compiled loop that never
sleeps; the segment has the layout of the daemon's, and is handed over by the same protocol, on the path that it is given.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import shared_ring as layout
from penstock_daemon.native import load_acquire, store_release
from penstock_daemon.notify import Notifier
from penstock_kernels.compiled import compiled

SLOTS: Final = 1024
TOKEN: Final = bytes(layout.TOKEN_BYTES)
_LOOKS: Final = 1_000_000  # Between two looks at signals: some milliseconds.
_TICKS_AT: Final = layout.HEADER_BYTES // 8
_SLOT_WORDS: Final = layout.TICK_SLOT_BYTES // 8
_PREDICTIONS_AT: Final = layout.prediction_ring_at(SLOTS) // 8
_TICK_PUBLISHED: Final = layout.TICK_PUBLISHED_AT // 8
_PREDICTION_PUBLISHED: Final = layout.PREDICTION_PUBLISHED_AT // 8
_SECONDS_WORD: Final = 4  # ts_recv of a tick.


@compiled
def echo(words: NDArray[np.int64], taken: int, looks: int) -> int:
    """Answer what is published after tick *taken*, look *looks* times, and return how many were taken in all.

    Args:
        words: the segment.
        taken: so far.
        looks: at the cursor.
    """
    for _ in range(looks):
        published = load_acquire(words, _TICK_PUBLISHED)
        while taken < published:
            slot = taken & (SLOTS - 1)
            at = _PREDICTIONS_AT + slot * _SLOT_WORDS
            words[at] = taken
            words[at + 2] = words[_TICKS_AT + slot * _SLOT_WORDS + _SECONDS_WORD]
            taken += 1
            store_release(words, _PREDICTION_PUBLISHED, taken)
    return taken


def serve(path: str) -> None:
    """Serve one segment to one client at *path* until SIGTERM."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    size = layout.segment_bytes(SLOTS)
    memory = os.memfd_create("penstock-echo", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    mapped = mmap.mmap(memory, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    for at, bytes_, value in (
        (layout.MAGIC_AT, 8, layout.MAGIC),
        (layout.LAYOUT_VERSION_AT, 4, layout.LAYOUT_VERSION),
        (layout.SLOTS_AT, 4, SLOTS),
        (layout.SEGMENT_BYTES_AT, 8, size),
        (layout.TICK_RING_AT, 8, layout.HEADER_BYTES),
        (layout.PREDICTION_RING_AT, 8, layout.prediction_ring_at(SLOTS)),
        (layout.TICK_SLOT_BYTES_AT, 4, layout.TICK_SLOT_BYTES),
        (layout.PREDICTION_SLOT_BYTES_AT, 4, layout.PREDICTION_SLOT_BYTES),
    ):
        mapped[at : at + bytes_] = value.to_bytes(bytes_, "little")
    words = np.frombuffer(mapped, dtype=np.int64)
    taken = echo(words, 0, 1)
    event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(0.1)
        Notifier.from_environ(os.environ).ready()
        attached = _accepted(listener, stopped)
        if attached is None:
            return
        with attached:
            attached.recv(layout.ATTACH_REPLY_BYTES_MAX)
            reply = layout.ATTACH_REPLY.pack(0, layout.LAYOUT_VERSION, size)
            socket.send_fds(attached, [reply], [memory, event])
            while not stopped:
                taken = echo(words, taken, _LOOKS)


def _accepted(listener: socket.socket, stopped: list[int]) -> socket.socket | None:
    while not stopped:
        try:
            return listener.accept()[0]
        except TimeoutError:
            continue
    return None


if __name__ == "__main__":
    serve(sys.argv[1])
