"""A session without its front: it keeps one stream to the daemon going, through losses and restarts, to its end.

One task supervises: it works on a stream until that ends, then opens the next, within the reconnect policy. What
outlives a stream (the books, the mailbox, the caller's wishes) lies on the desk.

    every accepted tick is answered once, in order, into the mailbox; or the mailbox ends with the error
    open() -> accept()* -> finish() or close(); a session is used once
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from penstock.v1 import prediction_pb2 as pb
from penstock_client import wire
from penstock_client.bookkeeping import Ledger
from penstock_client.errors import (
    ConnectFailed,
    DaemonProtocolError,
    DeadlineExceeded,
    LocalUsageError,
    PenstockError,
    SessionLost,
)
from penstock_client.exchange import CLOSE_GRACE_S, LOOK_AGAIN_S_MIN, Desk, Exchange
from penstock_client.mailbox import Mailbox
from penstock_client.reconnect import Backoff, ReconnectPolicy
from penstock_client.refusals import StreamEnded
from penstock_client.settings import Settings
from penstock_client.shared_memory.books import RingBooks
from penstock_client.shared_memory.line import Line
from penstock_client.stream import Stream

_log = logging.getLogger("penstock_client")


class SessionCore:
    """The life of one session on the running event loop.

    Args:
        settings: the checked arguments of connect().
        mailbox: where answers go.
        on_room: called on the loop when ticks were answered or the session has ended: there may be room now.
        line: the shared memory that ticks go through; None where they go over the stream.
    """

    def __init__(
        self, settings: Settings, mailbox: Mailbox, on_room: Callable[[], None], line: Line | None = None
    ) -> None:
        self._settings = settings
        ids = [instrument.instrument_id for instrument in settings.greeting.instruments]
        self._line = line
        self._ledger: Ledger | RingBooks = (
            Ledger(ids, keep_history=settings.reconnect is not None) if line is None else line.books
        )
        self._backoff = Backoff(settings.reconnect or ReconnectPolicy(), random.Random())  # noqa: S311 - Jitter.
        self._desk = Desk(self._ledger, mailbox, self._backoff, on_room, line=line)
        self._welcome: pb.Welcome | None = None
        self._token = b""
        self._stream: Stream | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self.usable = False  # Whether check_usable() would pass: looked at for every send.
        self.ended = asyncio.Event()
        self.reconnects = 0

    # --- What the front asks ----------------------------------------------------------------------------------------

    @property
    def welcome(self) -> pb.Welcome:
        """The daemon's latest Welcome."""
        if self._welcome is None:
            raise LocalUsageError("the session must be open first: enter it with 'with', or call open()")
        return self._welcome

    @property
    def next_sequence(self) -> int:
        """The sequence that the next accepted tick gets."""
        return self._ledger.next_sequence

    @property
    def next_answer(self) -> int:
        """The sequence of the oldest tick without an answer."""
        return self._ledger.next_answer

    @property
    def in_flight_max(self) -> int:
        """How many ticks may be unanswered; less than Welcome.in_flight_max where that is past the client's own cap."""
        return self._ledger.in_flight_max

    @property
    def room(self) -> int:
        """How many ticks can be accepted now."""
        return self._ledger.room

    async def open(self) -> None:
        """Connect and say Hello.

        Raises:
            ConnectFailed: no daemon took the session within the connect deadline.
            SessionRefused: one said no.
            DaemonProtocolError: one answered with nonsense.
            LocalUsageError: the session was opened before.
        """
        if self._supervisor is not None or self.ended.is_set():
            raise LocalUsageError("a session can be opened once: call connect() for another one")
        loop = asyncio.get_running_loop()
        opened_s = loop.time()
        stream = await self._open_first(opened_s)
        self._stream = stream
        self._supervisor = loop.create_task(self._supervise(stream), name="penstock session")
        self.usable = True
        if self._settings.deadline_s is not None:
            self._deadline_timer = loop.call_at(opened_s + self._settings.deadline_s, self._expire)

    def accept(self, records: bytes | memoryview) -> int:
        """Take as many ticks as there is room for and return how many that is; they are sent as soon as may be.

        Raises:
            LocalUsageError: not open, or finish() or close() was called.
            PenstockError: what ended the session.
        """
        if not self.usable:
            self.check_usable()
        taken = self._ledger.accept(records)
        if taken and self._line is None:
            self._desk.work.ring()
        return taken

    def check_usable(self) -> None:
        """Raise what accept() would raise for the session's sake."""
        if self._failure is not None:
            raise self._failure
        if self._supervisor is None:
            raise LocalUsageError("the session must be open first: enter it with 'with', or call open()")
        if self._desk.finishing or self._desk.closing or self.ended.is_set():
            raise LocalUsageError("no ticks can be sent after finish() or close(): call connect() for another session")

    async def finish(self) -> None:
        """Wait until every accepted tick is answered, then take leave of the daemon.

        Raises:
            PenstockError: what ended the session before that.
        """
        if self._supervisor is None:
            raise LocalUsageError("the session must be open first: enter it with 'with', or call open()")
        if self._desk.closing:
            raise LocalUsageError("a session that was closed can't be finished: call finish() before leaving")
        self._desk.finishing, self.usable = True, False
        self._desk.work.ring()
        await self.ended.wait()
        if self._failure is not None:
            raise self._failure

    def nudge(self) -> None:
        """Look again whether the session is finished: the last answer was read from shared memory."""
        self._desk.work.ring()

    def fail(self, error: Exception) -> None:
        """End the session with *error*, which was found by who reads its answers from shared memory."""
        if self._failure is None and not self.ended.is_set():
            self.usable, self._failure = False, error
            if self._supervisor is not None:
                self._supervisor.cancel()

    def leave(self) -> None:
        """Take the end of the loop, when it comes, for a close() and not for a loss; may be called in any thread."""
        self._desk.closing, self.usable = True, False

    async def close(self) -> None:
        """End the session within a bound; ticks without an answer get none. Does nothing the second time."""
        self._desk.closing, self.usable = True, False
        self._desk.mailbox.lift_bound()
        if self._supervisor is None or self._supervisor.done():
            return
        self._desk.work.ring()
        try:
            if self._stream is not None:
                await asyncio.wait([self._supervisor], timeout=CLOSE_GRACE_S)
        finally:
            self._supervisor.cancel()
        await asyncio.wait([self._supervisor])

    # --- From stream to stream --------------------------------------------------------------------------------------

    async def _open_first(self, opened_s: float) -> Stream:
        """Open the first stream, trying again while a daemon may still be starting."""
        loop = asyncio.get_running_loop()
        limit_s = min(self._settings.connect_deadline_s, self._settings.deadline_s or self._settings.connect_deadline_s)
        while True:
            left_s = opened_s + limit_s - loop.time()
            try:
                return await self._open_stream(max(left_s, LOOK_AGAIN_S_MIN), first=True)
            except StreamEnded as end:
                if not end.again:
                    raise end.refusal() from None
                delay_s = self._backoff.next_delay_s()
                if self._settings.reconnect is None or loop.time() + delay_s >= opened_s + limit_s:
                    raise ConnectFailed(
                        f"no daemon took the session at {self._settings.address} within {limit_s:.3g} s "
                        f"({self._backoff.attempts} tries): {end}; start penstockd, or check the address"
                    ) from end.refusal()
            await asyncio.sleep(delay_s)

    async def _open_stream(self, timeout_s: float, *, first: bool) -> Stream:
        """Open a stream, take over its Welcome, and bring the books in line with it."""
        token = self._token if self._ledger.rebuilt else b""
        hello = wire.hello(self._settings.greeting, resume_token=token, next_answer=self._ledger.next_answer)
        stream, data = await Stream.open(self._settings.address, hello, timeout_s)
        try:
            self._take_over(data, first=first, token_offered=bool(token))
        except BaseException:
            await stream.close()
            raise
        return stream

    def _take_over(self, data: bytes, *, first: bool, token_offered: bool) -> None:
        """Bring the books in line with the Welcome that *data* must be."""
        response = wire.response(data)
        if response.WhichOneof("message") != "welcome":
            raise DaemonProtocolError(f"the daemon must answer Hello with Welcome: was {wire.kind(response)}")
        welcome = response.welcome
        limits = (welcome.next_sequence, welcome.in_flight_max, welcome.rebuild_ticks)
        resumed = welcome.state_origin == pb.STATE_ORIGIN_RESUMED
        if self._line is not None:
            self._line.check_offer(welcome)
        if resumed and not token_offered:
            raise DaemonProtocolError("the daemon resumed a session that no token was offered for")
        if first:
            self._ledger.open_first(*limits)
        else:
            self._check_same_meaning(welcome)
            if resumed:
                self._ledger.reopen_resumed(*limits)
            else:
                self._ledger.reopen_cold(*limits)
            self.reconnects += 1
            _log.warning(
                "reconnected: address=%s, states=%s, unanswered=%d, attempts=%d",
                self._settings.address,
                "resumed" if resumed else "cold",
                self._ledger.unanswered,
                self._backoff.attempts,
            )
        self._welcome, self._token = welcome, welcome.resume_token

    def _check_same_meaning(self, welcome: pb.Welcome) -> None:
        """Refuse to go on where forecasts would change their meaning in the middle of a session."""
        before = [horizon.name for horizon in self.welcome.horizons]
        now = [horizon.name for horizon in welcome.horizons]
        if before != now:
            raise SessionLost(
                f"the daemon that took the session over predicts other horizons: {now}, before {before}; connect anew",
                unanswered=self._ledger.unanswered,
                attempts=self._backoff.attempts,
            )

    async def _supervise(self, stream: Stream | None) -> None:
        """Keep the session going until it is finished, closed or failed."""
        try:
            while stream is not None:
                self._stream = stream
                exchange = Exchange(stream, self._desk, self.welcome)
                try:
                    end = await exchange.run()
                finally:
                    self._stream = None
                    await stream.close()
                if exchange.token_of_goodbye is not None:
                    self._token = exchange.token_of_goodbye
                stream = await self._next_stream(end)
        except PenstockError as error:
            self._failure = error
        except asyncio.CancelledError:
            if self._failure is None and not self._desk.closing:
                self._failure = SessionLost("the session's task was cancelled", unanswered=self._ledger.unanswered)
        except Exception as error:  # noqa: BLE001 - Policy: a mistake of ours reaches the caller, not a dead task.
            self._failure = error
        finally:
            if self._deadline_timer is not None:
                self._deadline_timer.cancel()
            self.usable = False
            self.ended.set()
            self._desk.mailbox.close(self._failure)
            self._desk.on_room()

    async def _next_stream(self, end: StreamEnded) -> Stream | None:
        """Open another stream after *end*; None where the session is over."""
        loop = asyncio.get_running_loop()
        policy = self._settings.reconnect
        if policy is not None and not self._desk.over:
            _log.warning("connection lost: address=%s, reason=%s", self._settings.address, end)
        while not self._desk.over:
            left_s = self._backoff.remaining_s(loop.time()) if policy is not None else 0.0
            delay_s = self._backoff.next_delay_s()
            if policy is None or delay_s >= left_s:
                attempts = self._backoff.attempts - 1
                how = f"not regained in {attempts} tries" if policy is not None else "reconnect=False"
                raise SessionLost(
                    f"the connection to {self._settings.address} was lost ({how}): {end}; "
                    f"{self._ledger.unanswered} ticks have no answer",
                    unanswered=self._ledger.unanswered,
                    attempts=attempts,
                ) from end.refusal()
            await asyncio.sleep(delay_s)
            try:
                return await self._open_stream(min(left_s - delay_s, self._settings.connect_deadline_s), first=False)
            except StreamEnded as again:
                # A limit of the daemon may be taken up by what others lost: it frees itself with time.
                if not again.again and again.code != "RESOURCE_EXHAUSTED":
                    raise again.refusal() from None
                end = again.with_traceback(None)
        return None

    def _expire(self) -> None:
        """End the session: its deadline has come."""
        self.usable = False
        self._failure = DeadlineExceeded(
            f"the session's deadline_s={self._settings.deadline_s} has passed: "
            f"{self._ledger.unanswered} ticks have no answer"
        )
        if self._supervisor is not None:
            self._supervisor.cancel()
