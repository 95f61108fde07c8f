"""How threads wait for the rings: one of them sleeps on the socket, the others until it has woken.

    CLIENT_WAITING = 1, full fence, look again, poll       the daemon rings, or the answer is seen: never neither
    the one in poll() wakes                                 it takes the ring, and wakes the others to look for themselves
    wake()                                                  wakes all: a new segment, a lost one, the session's end

A wake-up says only that something may have changed; who was woken looks. Every sleep ends after SLICE_S at the latest.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from penstock_client.batches import Batch
from penstock_client.shared_memory.books import RingBooks
from penstock_client.shared_memory.segment import CLIENT_WAITING, Segment
from penstock_client.shared_memory.words import Fences

SLICE_S: Final = 0.5  # A backstop: nothing is known to need it.


class ThreadWait:
    """The waiting threads of one session.

    Args:
        books: of the session.
        fences: of this machine; this object's own.

    Attributes:
        sleepers: how many threads wait, or are about to.
    """

    def __init__(self, books: RingBooks, fences: Fences) -> None:
        self._books = books
        self._fence = fences.full
        self._polling = threading.Lock()
        self._changed = threading.Condition()
        self.sleepers = 0
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll: select.poll | None = None
        self._polled: Segment | None = None

    def __del__(self) -> None:
        """Close the event: nobody waits any more."""
        os.close(self._event)

    def wake(self) -> None:
        """Let every waiting thread look again."""
        with contextlib.suppress(BlockingIOError):  # Full is as good as written.
            os.eventfd_write(self._event, 1)
        with self._changed:
            self._changed.notify_all()

    def until(self, ready: Callable[[], bool], timeout_s: float = SLICE_S) -> None:
        """Return once *ready* may be true, and after *timeout_s* at the latest.

        Args:
            ready: cheap, and safe in any thread.
            timeout_s: no longer than SLICE_S is waited at a time.
        """
        timeout_s = min(timeout_s, SLICE_S)
        with self._changed:
            self.sleepers += 1
        try:
            if self._polling.acquire(blocking=False):
                try:
                    self._sleep(ready, timeout_s)
                finally:
                    self._polling.release()
                    with self._changed:
                        self._changed.notify_all()
                return
            with self._changed:
                if self._polling.locked() and not ready():
                    self._changed.wait(timeout_s)
        finally:
            with self._changed:
                self.sleepers -= 1

    def _sleep(self, ready: Callable[[], bool], timeout_s: float) -> None:
        segment = self._books.attached
        if segment is not None and segment.hung_up:
            segment = None  # Its socket would be readable for ever.
        if segment is not None:
            segment.words[CLIENT_WAITING] = 1
            self._fence()
        if ready():
            return
        poll = self._poll_of(segment)
        for descriptor, _ in poll.poll(timeout_s * 1e3):
            if descriptor == self._event:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._event)
            elif segment is not None:
                segment.hear()

    def _poll_of(self, segment: Segment | None) -> select.poll:
        """Return what waits for *segment* and for the event; made once per segment."""
        if self._poll is None or segment is not self._polled:
            self._poll, self._polled = select.poll(), segment
            self._poll.register(self._event, select.POLLIN)
            if segment is not None and segment.bell >= 0:
                self._poll.register(segment.bell, select.POLLIN)
        return self._poll


class RingEnd:
    """The mailbox of such a session: it keeps its end, since answers stay in the ring until they are read."""

    def __init__(self) -> None:
        self.taken = 0
        self.error: Exception | None = None

    @property
    def full(self) -> bool:
        """Never: the stream carries no answers."""
        return False

    def put(self, batch: Batch) -> None:
        """Refuse: the books have refused answers over the stream before."""
        raise AssertionError(f"{len(batch.predictions)} answers over the stream of a session with shared memory")

    def close(self, error: Exception | None) -> None:
        """Keep how the session ended."""
        self.error = error

    def lift_bound(self) -> None:
        """Do nothing: there is none."""

    async def room(self) -> None:
        """Return: there is room."""
