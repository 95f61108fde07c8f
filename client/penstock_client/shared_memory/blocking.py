"""The blocking session over shared memory: the strategy's own thread writes and reads the rings.

No event loop stands between a send and the ring, or between the ring and receive(): the loop in the background has the
stream alone, for Hello, heartbeats and reconnects. Any thread may call any verb; a tick is written, and answers are
taken, under the books' lock.

    receive()    takes all that is there; else looks again for spin_s; else sleeps on the socket (``thread_wait.py``)
    send()       where the ring is full, sets answers aside for the reader, as messages would be, or waits
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import Final

from penstock.v1.records import TICK_BYTES, TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client.batches import Batch
from penstock_client.blocking import BlockingSession
from penstock_client.core import SessionCore
from penstock_client.errors import DaemonProtocolError, DeadlineExceeded, LocalUsageError
from penstock_client.mailbox import UNREAD_MAX, no_answer_within
from penstock_client.session import UNREAD_PATIENCE_S, unread_answers
from penstock_client.settings import Settings
from penstock_client.shared_memory.books import NO_ROOM, RingBooks
from penstock_client.shared_memory.line import Line
from penstock_client.shared_memory.options import SharedMemory
from penstock_client.shared_memory.rings import Rings
from penstock_client.shared_memory.segment import PREDICTION_PUBLISHED
from penstock_client.shared_memory.thread_wait import SLICE_S, RingEnd, ThreadWait
from penstock_client.shared_memory.words import fences
from penstock_client.ticks import Ticks, checked_records

_LOOKS: Final = range(256)  # At the ring, between two looks at the clock and the socket: about ten microseconds.
_FOREVER_NS: Final = 1 << 62


class BlockingSharedMemorySession(BlockingSession):
    """A session over shared memory for threads; made by connect()."""

    def __init__(self, settings: Settings, options: SharedMemory) -> None:
        super().__init__(settings)
        ids = [instrument.instrument_id for instrument in settings.greeting.instruments]
        self._books = RingBooks(ids, keep_history=settings.reconnect is not None)
        self._wait = ThreadWait(self._books, fences())
        self._line = Line(self._books, fences(), lambda _: self._wait.wake(), lambda _: self._wait.wake())
        self._end = RingEnd()
        self._spin_ns = _FOREVER_NS if options.spin_s == math.inf else int(options.spin_s * 1e9)
        self._rings: Rings | None = None

    @property
    def rings(self) -> Rings:
        """The rings in place, for strategies that count each microsecond."""
        self._opened()
        assert self._rings is not None, "open without rings"
        return self._rings

    @property
    def next_sequence(self) -> int:
        """The sequence that the next tick gets."""
        self._opened()
        return self._books.next_sequence

    @property
    def unanswered(self) -> int:
        """How many ticks wait for their answers."""
        self._opened()
        return self._books.unanswered

    def send(self, ticks: Ticks, timeout_s: float | None = None) -> int:
        """Put *ticks* into the ring and return the sequence of the first; waits only while it is full.

        Arguments and errors are those of BlockingSession.send.
        """
        core = self._core
        if core is None or not core.usable or self._closed:
            self._usable_core()
        if (
            type(ticks) is bytes
            and len(ticks) == TICK_BYTES
            and ticks[0] == TICK_LENGTH_WORDS
            and ticks[1] == TICK_RTYPE
        ):
            records: bytes | memoryview = ticks
        else:
            records = checked_records(ticks)
        if len(records) == TICK_BYTES:
            sequence = self._books.accept_one(records)
            if sequence != NO_ROOM:
                return sequence
        with self._sending:
            self._books.many = True
            try:
                first = self._books.next_sequence
                self._send_all(memoryview(records), timeout_s)
            finally:
                self._books.many = False
        return first

    def try_send(self, ticks: Ticks) -> int:
        """Put as many of *ticks* into the ring as there is room for now and return how many; see BlockingSession."""
        self._usable_core()
        records = checked_records(ticks)
        if not self._sending.acquire(blocking=False):
            return 0
        try:
            return self._books.accept(records)
        finally:
            self._sending.release()

    def receive(self, timeout_s: float | None = None) -> Batch | None:
        """Return all answers that are there, or the next; None once the session has ended and all is read.

        Raises:
            DeadlineExceeded: nothing came within *timeout_s*; what comes later is not lost.
            PenstockError: what ended the session.
        """
        books, core = self._books, self._core
        if core is None:
            core = self._opened()
        segment = books.attached
        if self._spin_ns and segment is not None:
            words, read = segment.words, books.read
            for _ in _LOOKS:
                if words[PREDICTION_PUBLISHED] != read:
                    break
            else:
                self._spin(core, timeout_s)
        give_up_s: float | None = None
        while True:
            ended = core.ended.is_set()
            batch = self._drain(core)
            if batch is not None:
                return batch
            if ended:
                if self._end.error is not None:
                    raise self._end.error
                return None
            if timeout_s is not None:
                now_s = time.monotonic()
                give_up_s = now_s + timeout_s if give_up_s is None else give_up_s
                if now_s >= give_up_s:
                    raise no_answer_within(timeout_s)
                self._wait.until(lambda: books.something_to_read or core.ended.is_set(), give_up_s - now_s)
            else:
                self._wait.until(lambda: books.something_to_read or core.ended.is_set())

    def finish(self) -> None:
        """Wait until every tick is answered, say Goodbye, and end the session; answers can be read before and after.

        Raises:
            PenstockError: what ended the session before that.
        """
        core = self._opened()
        assert self._loop is not None, "open without a loop"
        if self._closed:  # The loop may be gone.
            raise LocalUsageError("a session that was closed can't be finished: call finish() before leaving")
        with self._sending:
            finished = asyncio.run_coroutine_threadsafe(core.finish(), self._loop)
            while self._books.unanswered and not core.ended.is_set() and not finished.done():
                if not self._set_aside(core):
                    self._wait.until(
                        lambda: (
                            self._books.something_in_ring
                            or not self._books.unanswered
                            or core.ended.is_set()
                            or finished.done()
                        )
                    )
            self._loop.call_soon_threadsafe(core.nudge)
            finished.result()

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _new_core(self, loop: asyncio.AbstractEventLoop) -> SessionCore:
        del loop  # The rings hand nothing over to it.
        core = SessionCore(self._settings, self._end, self._wait.wake, self._line)
        self._rings = Rings(self._books, self._check_usable, self._check_readable)
        return core

    async def _open_core(self, core: SessionCore) -> None:
        await self._line.open(core)

    def _usable_core(self) -> SessionCore:
        core = self._opened()
        if self._closed:
            raise LocalUsageError("no ticks can be sent after close(): call connect() for another session")
        core.check_usable()
        return core

    def forked_off(self) -> None:
        """Leave segment and life-line to the parent, in a forked child."""
        super().forked_off()
        self._books.forked_off()

    def _check_usable(self) -> None:
        self._opened().check_usable()

    def _check_readable(self) -> None:
        core = self._opened()
        if core.ended.is_set():
            core.check_usable()

    def _drain(self, core: SessionCore) -> Batch | None:
        try:
            batch = self._books.drain()
        except DaemonProtocolError as error:
            self._fail(core, error)
            raise
        if batch is not None:
            self._end.taken += 1
            if self._wait.sleepers:
                self._wait.wake()
        return batch

    def _set_aside(self, core: SessionCore) -> int:
        try:
            count = self._books.set_aside()
        except DaemonProtocolError as error:
            self._fail(core, error)
            raise
        if count and self._wait.sleepers:
            self._wait.wake()
        return count

    def _fail(self, core: SessionCore, error: Exception) -> None:
        """End the session: the daemon broke the contract in its ring."""
        if self._loop is not None and not self._closed:
            self._loop.call_soon_threadsafe(core.fail, error)

    def _send_all(self, left: memoryview, timeout_s: float | None) -> None:
        """Put *left* into the ring, at once and as room comes."""
        core = self._opened()
        give_up_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        patience_s, read_before = time.monotonic() + UNREAD_PATIENCE_S, self._end.taken
        while left := left[self._books.accept(left) * TICK_BYTES :]:
            self._usable_core()
            now_s = time.monotonic()
            if now_s >= give_up_s:
                raise DeadlineExceeded("no room for ticks came within timeout_s: in_flight_max ticks are unanswered")
            may_set_aside = self._books.unread < UNREAD_MAX
            if may_set_aside or self._end.taken != read_before:
                patience_s, read_before = now_s + UNREAD_PATIENCE_S, self._end.taken
            elif now_s >= patience_s:
                raise unread_answers(UNREAD_PATIENCE_S)
            if not (may_set_aside and self._set_aside(core)):
                self._wait.until(partial(self._room_or_end, core, may_set_aside), min(give_up_s - now_s, SLICE_S))

    def _room_or_end(self, core: SessionCore, may_set_aside: bool) -> bool:
        return self._books.room > 0 or core.ended.is_set() or (may_set_aside and self._books.something_in_ring)

    def _spin(self, core: SessionCore, timeout_s: float | None) -> None:
        """Look at the ring again and again until something is there, for at most spin_s."""
        books = self._books
        until_ns = time.monotonic_ns() + (
            self._spin_ns if timeout_s is None else min(self._spin_ns, int(timeout_s * 1e9))
        )
        while (segment := books.attached) is not None and not segment.hung_up and not core.ended.is_set():
            words, read = segment.words, books.read
            for _ in _LOOKS:
                if words[PREDICTION_PUBLISHED] != read:
                    return
            if read != books.read or time.monotonic_ns() >= until_ns:  # Another thread took them.
                return
