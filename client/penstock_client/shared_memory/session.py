"""The async session over shared memory: the verbs of Session, with the segment's rings in the place of its messages.

A send writes the ring before it returns. Answers are taken when they are read; while a send waits for room, or finish()
for the last answer, they are set aside for the reader, as messages would be. An empty ring is waited on through the
attachment's socket, on the event loop:

    CLIENT_WAITING = 1, full fence, look again      so the daemon rings, or the answer is seen: never neither
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from penstock.v1.records import TICK_BYTES
from penstock_client.batches import Batch
from penstock_client.errors import DaemonProtocolError, LocalUsageError
from penstock_client.mailbox import UNREAD_MAX, TaskMailbox, no_answer_within
from penstock_client.session import UNREAD_PATIENCE_S, Session, unread_answers
from penstock_client.settings import Settings
from penstock_client.shared_memory.books import RingBooks
from penstock_client.shared_memory.line import Line
from penstock_client.shared_memory.options import ASYNC_SPIN_S_MAX, SharedMemory
from penstock_client.shared_memory.rings import Rings
from penstock_client.shared_memory.segment import CLIENT_WAITING, Segment
from penstock_client.shared_memory.words import fences
from penstock_client.ticks import Ticks, checked_records

_TURN_NS: Final = 100_000  # A reader for whom there is always an answer lets other tasks run this often.


class RingMailbox(TaskMailbox):
    """The mailbox of such a session: its batches are made when they are asked for.

    Args:
        books: of the session.
        spin_s: how long an empty ring is looked at before the loop gets its turn.
    """

    def __init__(self, books: RingBooks, spin_s: float) -> None:
        super().__init__()
        self._books = books
        self._spin_ns = int(spin_s * 1e9)
        self._fence = fences().full
        self._segment: Segment | None = None
        self._descriptor = -1
        self._turn_ns = 0  # When other tasks last had their turn.
        self.on_taken: Callable[[], None] = _nothing
        self.on_fault: Callable[[Exception], None] = _ignore

    @property
    def full(self) -> bool:
        """Never: the stream carries no answers."""
        return False

    async def get(self, timeout_s: float | None = None) -> Batch | None:
        """Return all answers that are there, or the next; as TaskMailbox.get.

        Raises:
            DaemonProtocolError: one is not what it must be, and the session has ended.
        """
        if time.monotonic_ns() - self._turn_ns > _TURN_NS:
            await asyncio.sleep(0)  # Else a burst's answers would hold up who sends.
            self._turn_ns = time.monotonic_ns()
        while True:
            ended = self._ended
            try:
                batch = self._books.drain()
            except DaemonProtocolError as error:
                self.on_fault(error)
                raise
            if batch is not None:
                self.taken += 1
                self.on_taken()
                return batch
            if ended:
                return await super().get(timeout_s)  # The end, or its error.
            if self._spin_ns and self._spin():
                continue
            self.arm()
            if not self._books.something_to_read and not self._ended:
                started_s = time.monotonic()
                await self._wait(timeout_s)
                self._turn_ns = time.monotonic_ns()
                if timeout_s is not None:
                    timeout_s = max(timeout_s - (time.monotonic() - started_s), 0.0)

    def arm(self) -> None:
        """Ask the daemon to ring at its next answer; who asks looks once more before it waits."""
        segment = self._books.attached
        if segment is not None:
            segment.words[CLIENT_WAITING] = 1
            self._fence()

    def wake(self) -> None:
        """Wake who reads: something may have changed."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def listen(self, segment: Segment) -> None:
        """Hear the rings of *segment* from now on."""
        self._segment, self._descriptor = segment, segment.bell
        asyncio.get_running_loop().add_reader(self._descriptor, self._heard)
        self.wake()

    def listen_no_more(self) -> None:
        """Hear them no more."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._segment, self._descriptor = None, -1
        self.wake()
        self.on_taken()

    def _heard(self) -> None:
        segment = self._segment
        if segment is None:
            return
        segment.hear()
        if segment.hung_up:
            self.listen_no_more()
            return
        self.wake()
        self.on_taken()

    def _spin(self) -> bool:
        """Look at the ring for a while, and return whether something came."""
        until_ns = time.monotonic_ns() + self._spin_ns
        while not self._books.something_to_read:
            if time.monotonic_ns() >= until_ns:
                return False
        return True

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait for a ring, or for the session's end."""
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
            if not self._books.something_to_read and not self._ended:
                assert timeout_s is not None, "timed out without a timeout"
                raise no_answer_within(timeout_s) from exc
        finally:
            self._reader = None


class SharedMemorySession(Session):
    """A session over shared memory on the running event loop; made by connect()."""

    def __init__(self, settings: Settings, options: SharedMemory) -> None:
        if options.spin_s > ASYNC_SPIN_S_MAX:
            raise LocalUsageError(
                f"SharedMemory.spin_s must be at most {ASYNC_SPIN_S_MAX} in an async session, whose event loop stands "
                f"still meanwhile: was {options.spin_s}; use penstock_client.blocking"
            )
        ids = [instrument.instrument_id for instrument in settings.greeting.instruments]
        self._books = RingBooks(ids, keep_history=settings.reconnect is not None)
        mailbox = RingMailbox(self._books, options.spin_s)
        self._line = Line(self._books, fences(), mailbox.listen, lambda _: mailbox.listen_no_more())
        super().__init__(settings, mailbox, self._line)
        self._ring_mailbox = mailbox
        mailbox.on_taken, mailbox.on_fault = self._room_changed, self._core.fail
        self._waiters: set[asyncio.Future[None]] = set()
        self._rings = Rings(self._books, self._core.check_usable, self._check_readable)

    @property
    def rings(self) -> Rings:
        """The rings in place, for strategies that count each microsecond."""
        return self._rings

    async def open(self) -> None:
        """Connect, say Hello, and attach; see Session.open."""
        await self._line.open(self._core)

    async def send(self, ticks: Ticks) -> int:
        """Put *ticks* into the ring and return the sequence of the first; waits only while it is full. See Session.send."""
        records = checked_records(ticks)
        if self._sending.locked():
            async with self._sending:
                return await self._send(records)
        first = self._books.next_sequence
        taken = self._core.accept(records) * TICK_BYTES
        if taken < len(records):
            async with self._sending:  # Free, so nobody comes between.
                await self._send(memoryview(records)[taken:])
        return first

    async def _send(self, records: bytes | memoryview) -> int:
        first = self._books.next_sequence
        left = memoryview(records)
        while left := left[self._core.accept(left) * TICK_BYTES :]:
            await self._wait_for_room()
        return first

    async def finish(self) -> None:
        """Wait until every tick is answered, say Goodbye, and end the session; see Session.finish."""
        setting_aside = asyncio.ensure_future(self._set_all_aside())
        try:
            await self._core.finish()
        finally:
            setting_aside.cancel()
            await asyncio.wait([setting_aside])

    async def _set_all_aside(self) -> None:
        """Take the answers out of the ring until none is missing, so that the session can be finished unread."""
        while self._books.unanswered and not self._core.ended.is_set():
            await self._set_aside_or_wait()
        self._core.nudge()

    async def _wait_for_room(self) -> None:
        """Wait until ticks were answered or the session has ended."""
        if self._books.unread < UNREAD_MAX:
            await self._set_aside_or_wait()
            return
        read_before = self._mailbox.taken
        try:
            async with asyncio.timeout(UNREAD_PATIENCE_S):
                await self._room_or_end()
        except TimeoutError as exc:
            if self._mailbox.taken == read_before:
                raise unread_answers(UNREAD_PATIENCE_S) from exc

    async def _set_aside_or_wait(self) -> None:
        try:
            if self._books.set_aside():
                self._ring_mailbox.wake()
                return
        except DaemonProtocolError as error:
            self._core.fail(error)
            raise
        self._ring_mailbox.arm()
        if not self._books.something_in_ring and self._books.unanswered and not self._core.ended.is_set():
            await self._room_or_end()

    async def _room_or_end(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiters.add(waiting)
        try:
            await waiting
        finally:
            self._waiters.discard(waiting)

    def _room_changed(self) -> None:
        for waiting in self._waiters:
            if not waiting.done():
                waiting.set_result(None)

    def _check_readable(self) -> None:
        if self._core.ended.is_set():
            self._core.check_usable()


def _nothing() -> None:
    """Do nothing: there is no session around the mailbox yet."""


def _ignore(error: Exception) -> None:
    """As _nothing."""
