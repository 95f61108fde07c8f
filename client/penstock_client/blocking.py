"""The blocking session: the same verbs for programs without an event loop, safe to use from several threads.

    with connect("unix:/run/penstock.sock", instruments=[Instrument(1, "BTCUSDT")]) as session:
        session.send(ticks)
        for batch in session.batches(timeout_s=1.0):
            ...

The async session runs on an event loop in a thread of its own. So each way costs a hand-over between two threads more
than the async session (tens of microseconds, and more beside a thread that keeps the interpreter busy). A send costs
its caller a copy of the ticks and at most one wake-up of the loop, whatever many sends have gathered.

    accepted - answered <= in_flight_max, counted on the caller's side of the hand-over
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import TICK_BYTES
from penstock_client.background import background, run_on
from penstock_client.batches import Batch
from penstock_client.core import SessionCore
from penstock_client.errors import DeadlineExceeded, LocalUsageError, PenstockError
from penstock_client.instruments import Instrument, Pace
from penstock_client.mailbox import ThreadMailbox
from penstock_client.reconnect import ReconnectPolicy
from penstock_client.session import UNREAD_PATIENCE_S, no_rings, unread_answers
from penstock_client.settings import CONNECT_DEADLINE_S, Settings, checked_settings
from penstock_client.shared_memory.options import SharedMemory
from penstock_client.shared_memory.rings import Rings
from penstock_client.ticks import Ticks, checked_records


def connect(
    address: str,
    *,
    instruments: Iterable[Instrument],
    model: str = "",
    pace: Pace = Pace.REALTIME,
    client_name: str = "",
    connect_deadline_s: float = CONNECT_DEADLINE_S,
    deadline_s: float | None = None,
    reconnect: bool | ReconnectPolicy = True,
    online_readout: bool = False,
    shared_memory: bool | SharedMemory = False,
) -> BlockingSession:
    """Return a session to be entered with ``with``; arguments and errors are those of penstock_client.connect."""
    settings = checked_settings(
        address,
        instruments,
        model=model,
        pace=pace,
        client_name=client_name,
        connect_deadline_s=connect_deadline_s,
        deadline_s=deadline_s,
        reconnect=reconnect,
        online_readout=online_readout,
        shared_memory=shared_memory,
    )
    if settings.shared_memory is None:
        return BlockingSession(settings)
    from penstock_client.shared_memory.blocking import BlockingSharedMemorySession

    return BlockingSharedMemorySession(settings, settings.shared_memory)


class BlockingSession:
    """A session for threads; made by connect()."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._core: SessionCore | None = None
        self._mailbox: ThreadMailbox | None = None
        self._sending = threading.Lock()  # Keeps the ticks of one send() together.
        self._room = threading.Condition()
        self._inbox: deque[memoryview] = deque()  # Accepted here, not yet there.
        self._pump_called = False
        self._next_sequence = 0
        self._used = self._closed = self._forked = False
        self._parents: tuple[SessionCore | None, asyncio.AbstractEventLoop | None] = (None, None)

    def __enter__(self) -> Self:
        """Open the session; see open()."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session; see close()."""
        self.close()

    def open(self) -> None:
        """Connect and say Hello; ``with`` does it. Raises as Session.open."""
        if self._used:
            raise LocalUsageError("a session can be opened once: call connect() for another one")
        self._used = True
        loop, core = background.acquire(), None
        try:
            core = self._new_core(loop)
            run_on(loop, self._open_core(core))
        except BaseException:
            try:
                if core is not None:
                    run_on(loop, core.close())  # It may have opened since, where it was our wait that was interrupted.
            finally:
                background.release()
            raise
        self._loop, self._core, self._next_sequence = loop, core, core.next_sequence
        background.tell(self)

    def close(self) -> None:
        """Leave within about a second; ticks without an answer get none. ``with`` does it."""
        if self._loop is None or self._core is None or self._closed:
            return
        self._closed = True
        try:
            run_on(self._loop, self._core.close())
        finally:
            background.release()

    @property
    def welcome(self) -> pb.Welcome:
        """The daemon's latest Welcome: model, horizons, limits; a new one after each reconnect."""
        return self._opened().welcome

    @property
    def next_sequence(self) -> int:
        """The sequence that the next tick gets."""
        self._opened()
        return self._next_sequence

    @property
    def unanswered(self) -> int:
        """How many ticks wait for their answers."""
        return self._next_sequence - self._opened().next_answer

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and regained."""
        return self._opened().reconnects

    def send(self, ticks: Ticks, timeout_s: float | None = None) -> int:
        """Queue *ticks* and return the sequence of the first; waits only while in_flight_max is reached.

        Args:
            ticks: shape (ticks,), dtype TICK_DTYPE; or bytes of consecutive 80-byte records.
            timeout_s: how long to wait for room; None for as long as it takes.

        Raises:
            DeadlineExceeded: no room within *timeout_s*; the ticks taken so far stay taken, next_sequence tells.
            LocalUsageError: malformed ticks, or a session that is not open.
            PenstockError: what ended the session.
        """
        core = self._opened()
        records = memoryview(checked_records(ticks))
        give_up_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._sending:
            first = self._next_sequence
            taken = self._accept(core, records)
            while taken < len(records):
                self._wait_for_room(core, give_up_s)
                taken += self._accept(core, records[taken:])
        return first

    def try_send(self, ticks: Ticks) -> int:
        """Queue as many of *ticks* as there is room for now and return how many; 0 also while a send() is waiting.

        Raises:
            LocalUsageError: malformed ticks, or a session that is not open.
            PenstockError: what ended the session.
        """
        core = self._opened()
        records = memoryview(checked_records(ticks))
        if not self._sending.acquire(blocking=False):
            core.check_usable()
            return 0
        try:
            return self._accept(core, records) // TICK_BYTES
        finally:
            self._sending.release()

    def receive(self, timeout_s: float | None = None) -> Batch | None:
        """Return the next batch of answers; None once the session has ended and all is read.

        Raises:
            DeadlineExceeded: nothing came within *timeout_s*; what comes later is not lost.
            PenstockError: what ended the session.
        """
        self._opened()
        assert self._mailbox is not None, "open without a mailbox"
        return self._mailbox.get(timeout_s)

    def batches(self, timeout_s: float | None = None) -> Iterator[Batch]:
        """Iterate over the answers that are still to be read, until the session ends.

        Raises:
            DeadlineExceeded: nothing came for *timeout_s*; a new iterator goes on where this one stopped.
            PenstockError: what ended the session.
        """
        while (batch := self.receive(timeout_s)) is not None:
            yield batch

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
            run_on(self._loop, self._finish(core))

    @property
    def rings(self) -> Rings:
        """The session's rings in memory, to be written and read in place.

        Raises:
            LocalUsageError: it has none.
        """
        raise no_rings()

    # --- What a session over shared memory does in another way ------------------------------------------------------

    def _new_core(self, loop: asyncio.AbstractEventLoop) -> SessionCore:
        self._mailbox = ThreadMailbox(loop)
        return SessionCore(self._settings, self._mailbox, self._room_changed)

    async def _open_core(self, core: SessionCore) -> None:
        await core.open()

    def forked_off(self) -> None:
        """Hear, in a forked child, that the session stays the parent's: every verb but close() says so from now on."""
        self._parents = self._core, self._loop  # Freed here, they would talk to gRPC, which does not live in a child.
        self._core, self._loop, self._forked = None, None, True

    def leave_at_exit(self) -> None:
        """Hear that the loop is about to stop for good: a thread that waits sees the session's end, and no error."""
        if self._core is not None:
            self._core.leave()

    # --- In the callers' threads ------------------------------------------------------------------------------------

    def _opened(self) -> SessionCore:
        if self._forked:
            raise LocalUsageError(
                "a session belongs to the process that opened it, and this one was forked from it: call connect() in the "
                "process that uses it, and start processes by spawn or exec"
            )
        if self._core is None:
            raise LocalUsageError("the session must be open first: enter it with 'with', or call open()")
        return self._core

    def _accept(self, core: SessionCore, records: memoryview) -> int:
        """Take as many of *records* as there is room for, by copy, and return how many bytes that is."""
        if self._closed:
            raise LocalUsageError("no ticks can be sent after close(): call connect() for another session")
        core.check_usable()
        size = min(len(records), max(self._room_left(core), 0) * TICK_BYTES)
        if size:
            self._inbox.append(memoryview(bytes(records[:size])))
            self._next_sequence += size // TICK_BYTES
            if not self._pump_called:
                self._pump_called = True
                assert self._loop is not None, "open without a loop"
                self._loop.call_soon_threadsafe(self._pump, core)
        return size

    def _room_left(self, core: SessionCore) -> int:
        """Return how many ticks can be accepted now; below 0 where a reconnect has found a daemon with less room."""
        return core.in_flight_max - (self._next_sequence - core.next_answer)

    def _wait_for_room(self, core: SessionCore, give_up_s: float | None) -> None:
        """Wait until there is room, whenever it came, or the session has ended."""
        assert self._mailbox is not None, "open without a mailbox"
        read_before = self._mailbox.taken
        left_s = UNREAD_PATIENCE_S if give_up_s is None else min(give_up_s - time.monotonic(), UNREAD_PATIENCE_S)
        with self._room:
            changed = self._room.wait_for(lambda: self._room_left(core) > 0 or core.ended.is_set(), left_s)
        if changed:
            return
        if give_up_s is not None and time.monotonic() >= give_up_s:
            raise DeadlineExceeded("no room for ticks came within timeout_s: in_flight_max ticks are unanswered")
        if self._mailbox.full and self._mailbox.taken == read_before:
            raise unread_answers(UNREAD_PATIENCE_S)

    # --- In the loop's thread ---------------------------------------------------------------------------------------

    def _pump(self, core: SessionCore) -> None:
        """Hand what the threads have accepted to the session; what it has no room for yet stays first in line."""
        self._pump_called = False
        while self._inbox:
            records = self._inbox[0]
            try:
                taken = core.accept(records) * TICK_BYTES
            except PenstockError:
                return  # The session has ended; the callers learn it from their next call.
            if taken < len(records):
                self._inbox[0] = records[taken:]
                return
            self._inbox.popleft()

    def _room_changed(self) -> None:
        """Hand on what waited for room, and wake the threads that do."""
        if self._inbox and self._core is not None:
            self._pump(self._core)
        with self._room:
            self._room.notify_all()

    async def _finish(self, core: SessionCore) -> None:
        """Hand everything on, then finish."""
        while self._inbox and not core.ended.is_set():
            self._pump(core)
            if self._inbox:
                await asyncio.sleep(0.001)  # Only where a reconnect has found a daemon with less room.
        await core.finish()
