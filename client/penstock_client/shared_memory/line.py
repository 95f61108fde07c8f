"""What a stream does for a session over shared memory: attaches, watches over the daemon, and leaves the segment.

    rebuild ticks acknowledged -> attach -> watch -> leave       once per stream, as a task beside its reader and writer

A daemon that dies hangs up the socket, and the kernel tells at once. One that stands still (stopped, stuck) hangs up
nothing: it is told by its beat, a word that it must change five times a second. Both end the stream, and the session goes
on as after any lost connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.shared_ring import LAYOUT_VERSION
from penstock_client.bell import Bell
from penstock_client.errors import ConnectFailed, SessionRefused
from penstock_client.reconnect import Backoff
from penstock_client.shared_memory import attach
from penstock_client.shared_memory.books import RingBooks
from penstock_client.shared_memory.segment import CLOSED, DAEMON_BEAT_NS, Expected, Segment
from penstock_client.shared_memory.words import Fences
from penstock_client.stream import Stream

if TYPE_CHECKING:
    from penstock_client.core import SessionCore  # Which imports this module.

ATTACH_TIMEOUT_S: Final = 5.0
LOOK_S: Final = 0.25  # Between two looks at the beat.
BEAT_LOST_S: Final = 1.5  # Five beats a second are promised; a shared processor may hold one back.
STREAM_GRACE_S: Final = 0.5  # For the stream to say why the segment is served no longer.


class Line:
    """The attachments of one session, one after another.

    Args:
        books: of the session.
        fences: of this machine.
        on_attach: called on the event loop with each new segment, once the books are there.
        on_leave: called on the event loop once the books have left one.
    """

    def __init__(
        self,
        books: RingBooks,
        fences: Fences,
        on_attach: Callable[[Segment], None],
        on_leave: Callable[[Segment], None],
    ) -> None:
        self.books = books
        self.first_attached = asyncio.Event()
        self._fences = fences
        self._on_attach = on_attach
        self._on_leave = on_leave
        self._news = Bell()

    def check_offer(self, welcome: pb.Welcome) -> None:
        """Refuse a Welcome that offers no segment, or one that this client does not know.

        Raises:
            SessionRefused: so.
        """
        if not welcome.HasField("shared_memory"):
            raise SessionRefused(
                "the daemon's Welcome offers no shared memory, so it is too old to have any",
                code="FAILED_PRECONDITION",
                field="Welcome.shared_memory",
                mend="update penstockd, or connect without shared_memory",
            )
        if welcome.shared_memory.layout_version != LAYOUT_VERSION:
            raise SessionRefused(
                f"the daemon's segments have another layout than this client knows, {LAYOUT_VERSION}",
                code="FAILED_PRECONDITION",
                field="Welcome.shared_memory.layout_version",
                value=str(welcome.shared_memory.layout_version),
                mend="use a client of the daemon's version, or connect without shared_memory",
            )

    def news(self, *, goodbye: bool = False) -> None:
        """Hear that rebuild ticks were acknowledged, or that the daemon said Goodbye."""
        if goodbye:
            self.books.stop_publishing()
        self._news.ring()

    async def open(self, core: SessionCore) -> None:
        """Open *core*'s session and wait for its first segment.

        Raises:
            ConnectFailed, SessionRefused, DaemonProtocolError: as SessionCore.open, and for the attachment's sake.
        """
        await core.open()
        waits = [asyncio.ensure_future(event.wait()) for event in (self.first_attached, core.ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await core.close()
            raise
        finally:
            for wait in waits:
                wait.cancel()
        if not self.first_attached.is_set():
            core.check_usable()

    async def attend(self, stream: Stream, welcome: pb.Welcome, backoff: Backoff) -> None:
        """Attach, and watch until the stream is lost or this task is cancelled; leave the segment in any case.

        Raises:
            SessionRefused: the daemon refused the attachment.
            DaemonProtocolError: it broke the contract.
            ConnectFailed: the session's first attachment could not be made.
        """
        while not self.books.rebuilt:
            await self._news.wait()
        try:
            segment = await self._attach(welcome)
        except OSError as exc:  # And TimeoutError, which is one.
            reason = f"no attachment at {welcome.shared_memory.address}: {exc}"
            if not self.first_attached.is_set():
                raise ConnectFailed(
                    f"the daemon took the session and handed over no shared memory: {reason}; it must run on this host, "
                    "and its socket be reachable from here"
                ) from exc
            stream.give_up(reason)
            return
        try:
            self.books.attach(segment)
            self.first_attached.set()
            self._on_attach(segment)
            await self._watch(segment, stream, backoff)
        finally:
            segment.leave()
            try:
                self.books.detach()
            finally:
                self._on_leave(segment)

    async def _attach(self, welcome: pb.Welcome) -> Segment:
        offer = welcome.shared_memory
        expected = Expected(welcome.session_id, offer.slots, self.books.daemon_has)
        attaching = attach.begin(offer.address, offer.token)
        try:
            answered = Bell()
            with _heard(attaching, answered):
                async with asyncio.timeout(ATTACH_TIMEOUT_S):
                    await answered.wait()
            return attach.finish(attaching, expected, self._fences)
        except BaseException:
            attaching.close()
            raise

    async def _watch(self, segment: Segment, stream: Stream, backoff: Backoff) -> None:
        """Give the stream up once the daemon hung up, closed the segment, or stands still."""
        loop = asyncio.get_running_loop()
        beat, since_s = -1, loop.time()
        answered = self.books.next_answer
        hung_up = Bell()
        with _hang_up_of(segment.bell) as told, _heard(told, hung_up):
            while not segment.words[CLOSED]:
                looked_s = loop.time()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await hung_up.wait()
                except TimeoutError:
                    pass
                else:
                    break
                now_s = loop.time()
                if segment.words[DAEMON_BEAT_NS] != beat or now_s - looked_s > 2 * LOOK_S:
                    beat, since_s = segment.words[DAEMON_BEAT_NS], now_s  # Or we were away ourselves: no blame.
                elif now_s - since_s >= BEAT_LOST_S:
                    stream.give_up(f"the daemon's engine stood still for {now_s - since_s:.3g} s: its beat stopped")
                    return
                if self.books.next_answer != answered:
                    answered = self.books.next_answer
                    backoff.progress()
        self.books.stop_publishing()
        if not segment.words[
            CLOSED
        ]:  # Who leaves a segment says so first: the daemon died, whatever the stream knows yet.
            stream.give_up("the daemon hung up without a word: it has died")
            return
        await asyncio.sleep(STREAM_GRACE_S)
        stream.give_up("the daemon serves the segment no longer, and the stream does not say why")


@contextlib.contextmanager
def _heard(source: socket.socket | select.epoll, bell: Bell) -> Iterator[None]:
    """Ring *bell* once *source* is readable."""
    loop = asyncio.get_running_loop()
    descriptor = source.fileno()

    def heard() -> None:
        loop.remove_reader(descriptor)
        bell.ring()

    loop.add_reader(descriptor, heard)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def _hang_up_of(bell: int) -> Iterator[select.epoll]:
    """An epoll descriptor that is readable once the other end of *bell* is gone, whoever reads its bytes."""
    with select.epoll() as told:
        told.register(bell, select.EPOLLRDHUP | select.EPOLLHUP)
        yield told
