"""One stream at work: a reader, a writer and a pulse, from Welcome to the stream's end.

The reader is the task that calls run(); the writer is a task of its own, which sends whatever has gathered while its
last write was under way. Neither wakes up without a reason: ticks, room, a message, or a heartbeat that is due.

    ticks go out       until the daemon says Goodbye or the caller leaves
    our Goodbye        when every tick is answered and no more will come, or when the caller leaves
    the end            is the reader's to learn; the writer only stops
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from penstock.v1 import prediction_pb2 as pb
from penstock_client import wire
from penstock_client.bell import Bell
from penstock_client.bookkeeping import Ledger
from penstock_client.errors import DaemonProtocolError
from penstock_client.mailbox import Mailbox
from penstock_client.pulse import INTERVALS_TO_LOST, Pulse
from penstock_client.reconnect import Backoff
from penstock_client.refusals import StreamEnded
from penstock_client.shared_memory.books import RingBooks
from penstock_client.shared_memory.line import Line
from penstock_client.stream import Stream

BATCH_TICKS_MAX: Final = 4096  # 320 KiB: far below the message limit, and the daemon starts before the rest has come.
FINISH_GRACE_S = 5.0  # For the daemon to close the stream after Goodbye; every answer is here already.
CLOSE_GRACE_S = 1.0  # The same when the caller leaves early.
LOOK_AGAIN_S_MIN: Final = 0.001


@dataclass(slots=True)
class Desk:
    """What a session keeps from stream to stream, shared with the stream that works at present.

    Attributes:
        ledger: which tick stands where.
        mailbox: where answers go.
        backoff: told of progress.
        on_room: called when ticks were answered.
        work: rung when there may be something to send: ticks, room, a heartbeat, the end.
        finishing: the caller has no more ticks.
        closing: the caller leaves, whatever is unanswered.
        line: the session's shared memory; None where ticks go over the stream.
        said_goodbye: the daemon was told so.
    """

    ledger: Ledger | RingBooks
    mailbox: Mailbox
    backoff: Backoff
    on_room: Callable[[], None]
    work: Bell = field(default_factory=Bell)
    finishing: bool = False
    closing: bool = False
    line: Line | None = None
    said_goodbye: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to do for the session."""
        return self.said_goodbye or self.closing or (self.finishing and not self.ledger.unanswered)


class Exchange:
    """The work on one stream.

    Args:
        stream: opened, its Welcome read and in the books.
        desk: the session's.
        welcome: the stream's.
    """

    def __init__(self, stream: Stream, desk: Desk, welcome: pb.Welcome) -> None:
        self._stream = stream
        self._desk = desk
        self._welcome = welcome
        self._loop = asyncio.get_running_loop()
        self._pulse: Pulse | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._heartbeat_due = False
        self._paused = False  # The mailbox is full: we do not listen.
        self._draining = False  # The daemon said Goodbye.
        self.token_of_goodbye: bytes | None = None
        if welcome.heartbeat_interval_ns:
            self._pulse = Pulse.start(welcome.heartbeat_interval_ns / 1e9, self._loop.time())

    async def run(self) -> StreamEnded:
        """Work until the stream ends, and return how.

        Raises:
            SessionRefused: the daemon ended it for a reason that another stream would not change.
            DaemonProtocolError: it broke the contract.
        """
        if self._pulse is not None:
            self._beat_timer = self._loop.call_at(self._pulse.due_s, self._beat)
        beside = [self._loop.create_task(self._write_all(), name="penstock writer")]
        if self._desk.line is not None:
            attending = self._desk.line.attend(self._stream, self._welcome, self._desk.backoff)
            beside.append(self._loop.create_task(attending, name="penstock attachment"))
        for task in beside:
            task.add_done_callback(self._task_ended)
        try:
            end = await self._read_all()
        finally:
            if self._beat_timer is not None:
                self._beat_timer.cancel()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
        for task in beside:
            mistake = None if task.cancelled() else task.exception()
            if mistake is not None:
                raise mistake
        return end

    # --- Reading ----------------------------------------------------------------------------------------------------

    async def _read_all(self) -> StreamEnded:
        """Handle every message until the stream's end."""
        mailbox = self._desk.mailbox
        while True:
            try:
                data = await self._stream.read()
            except StreamEnded as end:
                if not end.again:
                    raise end.refusal() from None
                return end.with_traceback(None)  # Its frames would keep the connection.
            received_ns = time.time_ns()
            if data is None:
                return StreamEnded("OK", "the daemon is draining" if self._draining else "the daemon closed the stream")
            if self._pulse is not None:
                self._pulse.received_s = self._loop.time()
            self._handle(wire.response(data), received_ns)
            if mailbox.full:
                self._paused = True
                await mailbox.room()
                self._paused = False

    def _handle(self, response: pb.StreamPredictionsResponse, received_ns: int) -> None:
        """Take in one message."""
        desk = self._desk
        kind = response.WhichOneof("message")
        if kind == "predictions":
            batch = wire.batch(response.predictions, received_ns)
            refused = [error.sequence for error in batch.errors] if batch.errors else []
            desk.ledger.answer(batch.predictions["sequence"], refused)
            if desk.backoff.attempts:
                desk.backoff.progress()
            desk.mailbox.put(batch)
            desk.on_room()
        elif kind == "heartbeat":
            if not desk.ledger.unanswered:
                desk.backoff.progress()
            return  # Nothing that the writer waits for has changed.
        elif kind == "rebuild_progress":
            desk.ledger.rebuild_progress(response.rebuild_progress.ticks)
            if desk.line is not None:
                desk.line.news()
        elif kind == "goodbye":
            self._draining = True
            self.token_of_goodbye = response.goodbye.resume_token
            if desk.line is not None:
                desk.line.news(goodbye=True)
        else:
            raise DaemonProtocolError(f"the daemon must not send {wire.kind(response)} after Welcome")
        if desk.ledger.has_more or desk.finishing:
            desk.work.ring()

    # --- Writing ----------------------------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        """Send whatever has gathered, again and again, until the session says Goodbye or the stream ends."""
        desk, stream = self._desk, self._stream
        try:
            while True:
                outgoing = None if self._draining or desk.closing else desk.ledger.take(BATCH_TICKS_MAX)
                if outgoing is not None:
                    data = wire.ticks(outgoing)
                elif desk.over:
                    break
                elif self._heartbeat_due:
                    data = wire.heartbeat()
                else:
                    await desk.work.wait()
                    continue
                self._heartbeat_due = False
                await stream.write(data)
                if self._pulse is not None:
                    self._pulse.sent_s = self._loop.time()
            await stream.write(wire.goodbye())
            desk.said_goodbye = True
            await stream.done_writing()
        except StreamEnded:
            return  # The reader learns the reason.
        await asyncio.sleep(CLOSE_GRACE_S if desk.closing else FINISH_GRACE_S)
        stream.give_up("the daemon did not close the stream after Goodbye")

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """End the stream where what works beside the reader failed, so that the reader does not wait for ever."""
        if not task.cancelled() and task.exception() is not None:
            self._stream.give_up(f"the {task.get_name()} failed")

    # --- The pulse --------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Send a heartbeat where one is due, give up a silent daemon, and look again when there is reason to."""
        assert self._pulse is not None, "a beat without a pulse"
        now_s = self._loop.time()
        if self._paused:
            self._pulse.received_s = now_s  # Silence says nothing to one who does not listen.
        send, lost = self._pulse.look(now_s)
        if lost:
            silent_s = INTERVALS_TO_LOST * self._pulse.interval_s
            self._stream.give_up(f"the daemon was silent for {silent_s:.3g} s")
            return
        if send:
            self._heartbeat_due = True
            self._desk.work.ring()
        self._beat_timer = self._loop.call_at(max(self._pulse.due_s, now_s + LOOK_AGAIN_S_MIN), self._beat)
