"""Where a session leaves answers for its strategy: one kind for a task, one for a thread.

put and close     are called on the session's event loop, and never wait
full              from ``unread_max`` unread predictions on: the session then reads no more from the daemon
the end           comes after everything that was put before it: None, or the error that ended the session
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections import deque
from typing import Protocol

from penstock_client.batches import Batch
from penstock_client.errors import DeadlineExceeded, LocalUsageError

UNREAD_MAX = 1 << 17  # Predictions: 16 MiB of records.


class Mailbox(Protocol):
    """What a session needs of a mailbox."""

    taken: int

    @property
    def full(self) -> bool:
        """Whether no more should be put for now."""

    def put(self, batch: Batch) -> None:
        """Leave *batch*."""

    def close(self, error: Exception | None) -> None:
        """Leave the end; nothing may be put after it."""

    def lift_bound(self) -> None:
        """Never be full again: the session is about to end, and what still comes is little."""

    async def room(self) -> None:
        """Wait until the mailbox is not full."""


def no_answer_within(timeout_s: float) -> DeadlineExceeded:
    """Return the error of a wait for answers that took too long."""
    return DeadlineExceeded(f"no answer came within timeout_s={timeout_s:.6g}")


class TaskMailbox:
    """A mailbox read by one task at a time, on the session's own event loop."""

    def __init__(self, unread_max: int = UNREAD_MAX) -> None:
        self.taken = 0
        self._unread_max = unread_max
        self._unread = 0
        self._batches: deque[Batch] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether no more should be put for now."""
        return self._unread >= self._unread_max

    def put(self, batch: Batch) -> None:
        """Leave *batch* and wake the task that waits for it."""
        self._batches.append(batch)
        self._unread += len(batch.predictions) + len(batch.errors)
        _wake(self._reader)

    def close(self, error: Exception | None) -> None:
        """Leave the end."""
        self._ended, self._error = True, error
        _wake(self._reader)

    def lift_bound(self) -> None:
        """Never be full again."""
        self._unread_max = sys.maxsize
        _wake(self._writer)

    async def room(self) -> None:
        """Wait until the mailbox is not full."""
        while self.full:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    async def get(self, timeout_s: float | None = None) -> Batch | None:
        """Return the next batch, or None at the session's end.

        Raises:
            LocalUsageError: another task is waiting already.
            DeadlineExceeded: nothing came within *timeout_s*; what comes later is not lost.
            PenstockError: what ended the session.
        """
        if not self._batches and not self._ended:
            if self._reader is not None:
                raise LocalUsageError("batches must be read by one task at a time: another one is waiting already")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                if timeout_s is None:
                    await self._reader
                else:
                    async with asyncio.timeout(timeout_s):
                        await self._reader
            except TimeoutError as exc:
                if not self._batches and not self._ended:
                    assert timeout_s is not None, "timed out without a timeout"
                    raise no_answer_within(timeout_s) from exc
            finally:
                self._reader = None
        if self._batches:
            batch = self._batches.popleft()
            self._unread -= len(batch.predictions) + len(batch.errors)
            self.taken += 1
            if self._writer is not None and not self.full:
                _wake(self._writer)
            return batch
        if self._error is not None:
            raise self._error
        return None


class ThreadMailbox:
    """A mailbox that any thread may read.

    Args:
        loop: the session's event loop, which runs in a thread of its own.
        unread_max: predictions at which it is full.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, unread_max: int = UNREAD_MAX) -> None:
        self.taken = 0
        self._loop = loop
        self._unread_max = unread_max
        self._lock = threading.Lock()
        self._unread = 0
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether no more should be put for now."""
        return self._unread >= self._unread_max

    def put(self, batch: Batch) -> None:
        """Leave *batch* and wake a thread that waits for one."""
        with self._lock:
            self._unread += len(batch.predictions) + len(batch.errors)
        self._batches.put(batch)

    def close(self, error: Exception | None) -> None:
        """Leave the end."""
        self._error = error
        self._batches.put(None)

    def lift_bound(self) -> None:
        """Never be full again; called on the loop."""
        with self._lock:
            self._unread_max = sys.maxsize
        _wake(self._writer)

    async def room(self) -> None:
        """Wait until the mailbox is not full."""
        while True:
            with self._lock:
                if not self.full:
                    return
                writer = self._writer = self._loop.create_future()
            try:
                await writer
            finally:
                self._writer = None

    def get(self, timeout_s: float | None = None) -> Batch | None:
        """Return the next batch, or None at the session's end; as TaskMailbox.get, from any thread."""
        try:
            batch = self._batches.get(timeout=timeout_s)
        except queue.Empty as exc:
            assert timeout_s is not None, "timed out without a timeout"
            raise no_answer_within(timeout_s) from exc
        if batch is None:
            self._batches.put(None)  # For the next reader.
            if self._error is not None:
                raise self._error
            return None
        with self._lock:
            self._unread -= len(batch.predictions) + len(batch.errors)
            self.taken += 1
            writer = self._writer if not self.full else None
        if writer is not None:
            self._loop.call_soon_threadsafe(_wake, writer)
        return batch


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
