"""The async session: ticks in, batches of answers out.

    async with connect("unix:/run/penstock.sock", instruments=[Instrument(1, "BTCUSDT")]) as session:
        await session.send(ticks)
        async for batch in session.batches():
            ...

Sending and reading are for two tasks, or for one that does both in turn; a sender who never reads is held back, first by
the daemon's in_flight_max and then by the mailbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import TICK_BYTES
from penstock_client.batches import Batch
from penstock_client.core import SessionCore
from penstock_client.errors import LocalUsageError
from penstock_client.instruments import Instrument, Pace
from penstock_client.mailbox import TaskMailbox
from penstock_client.reconnect import ReconnectPolicy
from penstock_client.settings import CONNECT_DEADLINE_S, Settings, checked_settings
from penstock_client.shared_memory.line import Line
from penstock_client.shared_memory.options import SharedMemory
from penstock_client.shared_memory.rings import Rings
from penstock_client.ticks import Ticks, checked_records

UNREAD_PATIENCE_S = 30.0  # A send that waits on a full mailbox nobody empties for so long is a mistake.


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
) -> Session:
    """Return a session to be entered with ``async with``.

    Args:
        address: "unix:/path/of.sock" or "host:port".
        instruments: all that the session will send.
        model: the model's name; empty for the daemon's active one.
        pace: how ticks will arrive.
        client_name: for the daemon's logs and metrics, at most 64 characters.
        connect_deadline_s: for the first Welcome; a daemon that is still starting is tried again until then.
        deadline_s: for the whole session; None for no end.
        reconnect: whether to go on over lost connections, or by which policy.
        online_readout: whether the daemon corrects forecasts by what followed this session's own ticks; one that does
            not allow it refuses the session.
        shared_memory: whether ticks and answers go through rings in memory that the daemon, on this host, hands over:
            True, or a SharedMemory that says how to wait. A daemon that has none refuses the session.

    Raises:
        LocalUsageError: an argument is wrong.
    """
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
        return Session(settings)
    from penstock_client.shared_memory.session import SharedMemorySession

    return SharedMemorySession(settings, settings.shared_memory)


class Session:
    """A session on the running event loop; made by connect()."""

    def __init__(self, settings: Settings, mailbox: TaskMailbox | None = None, line: Line | None = None) -> None:
        self._mailbox = mailbox or TaskMailbox()
        self._core = SessionCore(settings, self._mailbox, self._room_changed, line)
        self._sending = asyncio.Lock()  # Keeps the ticks of one send() together.
        self._waiting: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the session; see open()."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session; see close()."""
        await self.close()

    async def open(self) -> None:
        """Connect and say Hello; ``async with`` does it.

        Raises:
            ConnectFailed: no daemon took the session within the connect deadline.
            SessionRefused: one said no.
            DaemonProtocolError: one answered with nonsense.
        """
        await self._core.open()

    async def close(self) -> None:
        """Leave within about a second; ticks without an answer get none. ``async with`` does it."""
        await self._core.close()

    @property
    def welcome(self) -> pb.Welcome:
        """The daemon's latest Welcome: model, horizons, limits; a new one after each reconnect."""
        return self._core.welcome

    @property
    def next_sequence(self) -> int:
        """The sequence that the next tick gets."""
        return self._core.next_sequence

    @property
    def unanswered(self) -> int:
        """How many ticks wait for their answers."""
        return self._core.next_sequence - self._core.next_answer

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and regained."""
        return self._core.reconnects

    @property
    def rings(self) -> Rings:
        """The session's rings in memory, to be written and read in place.

        Raises:
            LocalUsageError: it has none.
        """
        raise no_rings()

    async def send(self, ticks: Ticks) -> int:
        """Queue *ticks* and return the sequence of the first; waits only while in_flight_max is reached.

        What is queued goes out as soon as the last write is done. Where the wait is cancelled, the ticks taken so far
        stay taken: next_sequence tells how many. *ticks* must not be changed before the call returns.

        Args:
            ticks: shape (ticks,), dtype TICK_DTYPE; or bytes of consecutive 80-byte records.

        Raises:
            LocalUsageError: malformed ticks, or a session that is not open.
            PenstockError: what ended the session.
        """
        records = checked_records(ticks)
        if not self._sending.locked() and len(records) <= self._core.room * TICK_BYTES:
            first = self._core.next_sequence
            self._core.accept(records)
            return first
        async with self._sending:
            first = self._core.next_sequence
            left = memoryview(records)
            while left := left[self._core.accept(left) * TICK_BYTES :]:
                await self._wait_for_room()
        return first

    def try_send(self, ticks: Ticks) -> int:
        """Queue as many of *ticks* as there is room for now and return how many; 0 also while a send() is waiting.

        Raises:
            LocalUsageError: malformed ticks, or a session that is not open.
            PenstockError: what ended the session.
        """
        records = checked_records(ticks)
        if self._sending.locked():
            self._core.check_usable()
            return 0
        return self._core.accept(records)

    async def receive(self, timeout_s: float | None = None) -> Batch | None:
        """Return the next batch of answers; None once the session has ended and all is read.

        Raises:
            DeadlineExceeded: nothing came within *timeout_s*; what comes later is not lost.
            PenstockError: what ended the session.
        """
        return await self._mailbox.get(timeout_s)

    def batches(self) -> Batches:
        """Return an async iterator over the answers that are still to be read; it ends with the session."""
        return Batches(self._mailbox)

    async def finish(self) -> None:
        """Wait until every tick is answered, say Goodbye, and end the session; answers can be read before and after.

        Raises:
            PenstockError: what ended the session before that.
        """
        await self._core.finish()

    async def _wait_for_room(self) -> None:
        """Wait until ticks were answered or the session has ended."""
        read_before = self._mailbox.taken
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(UNREAD_PATIENCE_S):
                await self._waiting
        except TimeoutError as exc:
            if self._mailbox.full and self._mailbox.taken == read_before:
                raise unread_answers(UNREAD_PATIENCE_S) from exc
        finally:
            self._waiting = None

    def _room_changed(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Batches:
    """The answers of a session, one batch at a time."""

    def __init__(self, mailbox: TaskMailbox) -> None:
        self._mailbox = mailbox

    def __aiter__(self) -> Batches:
        """Return itself."""
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch.

        Raises:
            PenstockError: what ended the session.
        """
        batch = await self._mailbox.get()
        if batch is None:
            raise StopAsyncIteration
        return batch


def no_rings() -> LocalUsageError:
    """Return the error of who asks a session over gRPC for its rings."""
    return LocalUsageError("a session has rings only where it was made by connect(..., shared_memory=True)")


def unread_answers(patience_s: float) -> LocalUsageError:
    """Return the error of a send that waits for a reader who does not come."""
    return LocalUsageError(
        f"send() waits because nobody has read an answer for {patience_s:.3g} s and the mailbox is full: "
        "read batches() in another task or thread, or between two sends"
    )
