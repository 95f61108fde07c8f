"""A subscription without its front: it keeps one Subscribe stream to the daemon going, through losses and restarts.

    open() -> batches into the mailbox, in order -> close(), or the error that ended it

Nothing is resumed: a daemon keeps no predictions for who is not there. So the first batch of every stream but the first
carries ``after_gap``. A full mailbox is not read into any further; the daemon cuts off a subscriber that stays behind, and
that is an end, not a loss: subscribing anew would only hide it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from penstock.v1 import prediction_pb2 as pb
from penstock_client import wire
from penstock_client.batches import Batch
from penstock_client.errors import ConnectFailed, DaemonProtocolError, LocalUsageError, PenstockError, SessionLost
from penstock_client.exchange import LOOK_AGAIN_S_MIN
from penstock_client.mailbox import Mailbox
from penstock_client.pulse import INTERVALS_TO_LOST
from penstock_client.reconnect import Backoff, ReconnectPolicy
from penstock_client.refusals import StreamEnded
from penstock_client.stream import Stream

SUBSCRIBE_METHOD: Final = "/penstock.v1.PredictionService/Subscribe"

_log = logging.getLogger("penstock_client")


@dataclass(slots=True, eq=False)
class FeedBatch(Batch):
    """Predictions of a feed, as they came in one message; ``errors`` is always empty.

    Attributes:
        after_gap: whether the connection was lost before it, so that predictions in between did not arrive.
    """

    after_gap: bool = False


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """The checked arguments of subscribe().

    Attributes:
        address: as gRPC wants it.
        feed: its name; empty for the only one.
        symbols: those wanted; empty for all.
        connect_deadline_s: for the first answer, tries included, and for each try of a reconnect.
        reconnect: None where a lost connection ends the subscription.
    """

    address: str
    feed: str
    symbols: tuple[str, ...]
    connect_deadline_s: float
    reconnect: ReconnectPolicy | None


class SubscriptionCore:
    """The life of one subscription on the running event loop.

    Args:
        settings: the checked arguments of subscribe().
        mailbox: where batches go.
    """

    def __init__(self, settings: SubscriptionSettings, mailbox: Mailbox) -> None:
        self._settings = settings
        self._mailbox = mailbox
        self._request = pb.SubscribeRequest(feed=settings.feed, symbols=settings.symbols).SerializeToString()
        self._backoff = Backoff(settings.reconnect or ReconnectPolicy(), random.Random())  # noqa: S311 - Jitter.
        self._subscribed: pb.Subscribed | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._opened = self._closing = False
        self._after_gap = False
        self._received_s = 0.0
        self._paused = False  # The mailbox is full: we do not listen.
        self._timer: asyncio.TimerHandle | None = None
        self.reconnects = 0

    @property
    def subscribed(self) -> pb.Subscribed:
        """The daemon's latest Subscribed."""
        if self._subscribed is None:
            raise LocalUsageError("the subscription must be open first: enter it with 'with', or call open()")
        return self._subscribed

    async def open(self) -> None:
        """Connect and subscribe; raises as Subscription.open."""
        if self._opened:
            raise LocalUsageError("a subscription can be opened once: call subscribe() for another one")
        self._opened = True
        stream = await self._open_first()
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise(stream), name="penstock subscription")

    def leave(self) -> None:
        """Take the end of the loop, when it comes, for a close() and not for a loss; may be called in any thread."""
        self._closing = True

    async def close(self) -> None:
        """Leave at once. Does nothing the second time."""
        self._opened = self._closing = True
        self._mailbox.lift_bound()
        if self._supervisor is None:
            return
        self._supervisor.cancel()
        await asyncio.wait([self._supervisor])

    # --- From stream to stream --------------------------------------------------------------------------------------

    async def _open_first(self) -> Stream:
        """Open the first stream, trying again while a daemon may still be starting."""
        loop, limit_s = asyncio.get_running_loop(), self._settings.connect_deadline_s
        give_up_s = loop.time() + limit_s
        while True:
            try:
                return await self._open_stream(max(give_up_s - loop.time(), LOOK_AGAIN_S_MIN))
            except StreamEnded as end:
                if not end.again:
                    raise end.refusal() from None
                delay_s = self._backoff.next_delay_s()
                if self._settings.reconnect is None or loop.time() + delay_s >= give_up_s:
                    raise ConnectFailed(
                        f"no daemon took the subscription at {self._settings.address} within {limit_s:.3g} s "
                        f"({self._backoff.attempts} tries): {end}; start penstockd, or check the address"
                    ) from end.refusal()
            await asyncio.sleep(delay_s)

    async def _open_stream(self, timeout_s: float) -> Stream:
        """Open a stream and take over its Subscribed."""
        stream, data = await Stream.open(self._settings.address, self._request, timeout_s, SUBSCRIBE_METHOD)
        try:
            await stream.done_writing()
            self._take_over(_response(data))
        except BaseException:
            await stream.close()
            raise
        return stream

    def _take_over(self, response: pb.SubscribeResponse) -> None:
        """Go on with what *response* says.

        Raises:
            DaemonProtocolError: it is not Subscribed.
            SessionLost: forecasts would change their meaning in the middle of a subscription.
        """
        if response.WhichOneof("message") != "subscribed":
            raise DaemonProtocolError("the daemon must answer SubscribeRequest with Subscribed")
        subscribed = response.subscribed
        if self._subscribed is not None:
            before = [horizon.name for horizon in self._subscribed.horizons]
            now = [horizon.name for horizon in subscribed.horizons]
            if before != now:
                raise SessionLost(
                    f"the daemon that took the subscription over predicts other horizons: {now}, before {before}; "
                    "subscribe anew",
                    attempts=self._backoff.attempts,
                )
            self.reconnects += 1
            self._after_gap = True
            _log.warning("subscribed again: address=%s, attempts=%d", self._settings.address, self._backoff.attempts)
        self._subscribed = subscribed

    async def _supervise(self, stream: Stream) -> None:
        """Keep the subscription going until it is closed or failed."""
        failure: Exception | None = None
        try:
            while True:
                try:
                    end = await self._read_all(stream)
                finally:
                    if self._timer is not None:
                        self._timer.cancel()
                    await stream.close()
                stream = await self._next_stream(end)
        except PenstockError as error:
            failure = error
        except asyncio.CancelledError:
            if not self._closing:
                failure = SessionLost("the subscription's task was cancelled")
        except Exception as error:  # noqa: BLE001 - Policy: a mistake of ours reaches the caller, not a dead task.
            failure = error
        finally:
            self._mailbox.close(failure)

    async def _next_stream(self, end: StreamEnded) -> Stream:
        """Open another stream after *end*."""
        loop, policy = asyncio.get_running_loop(), self._settings.reconnect
        _log.warning("subscription lost: address=%s, reason=%s", self._settings.address, end)
        while True:
            left_s = self._backoff.remaining_s(loop.time()) if policy is not None else 0.0
            delay_s = self._backoff.next_delay_s()
            if policy is None or delay_s >= left_s:
                attempts = self._backoff.attempts - 1
                how = f"not regained in {attempts} tries" if policy is not None else "reconnect=False"
                raise SessionLost(
                    f"the subscription at {self._settings.address} was lost ({how}): {end}", attempts=attempts
                ) from end.refusal()
            await asyncio.sleep(delay_s)
            try:
                return await self._open_stream(min(left_s - delay_s, self._settings.connect_deadline_s))
            except StreamEnded as again:
                if not again.again and again.code != "RESOURCE_EXHAUSTED":
                    raise again.refusal() from None
                end = again.with_traceback(None)

    # --- One stream -------------------------------------------------------------------------------------------------

    async def _read_all(self, stream: Stream) -> StreamEnded:
        """Take in every message until the stream's end, and return how it ended.

        Raises:
            SessionRefused: the daemon ended it for a reason that another stream would not change.
            DaemonProtocolError: it broke the contract.
        """
        draining = False
        self._start_watch(stream)
        while True:
            try:
                data = await stream.read()
            except StreamEnded as end:
                if not end.again:
                    raise end.refusal() from None
                return end.with_traceback(None)
            received_ns = time.time_ns()
            if data is None:
                return StreamEnded("OK", "the daemon is draining" if draining else "the daemon closed the stream")
            self._received_s = asyncio.get_running_loop().time()
            response = _response(data)
            kind = response.WhichOneof("message")
            if kind == "predictions":
                batch = wire.batch(response.predictions, received_ns)
                self._mailbox.put(FeedBatch(batch.predictions, [], batch.sent_ns, received_ns, self._after_gap))
                self._after_gap = False
            elif kind == "goodbye":
                draining = True
            elif kind != "heartbeat":
                raise DaemonProtocolError(f"the daemon must not send {kind or 'a message of no kind'} after Subscribed")
            if self._backoff.attempts:
                self._backoff.progress()
            if self._mailbox.full:
                self._paused = True
                await self._mailbox.room()
                self._paused = False

    def _start_watch(self, stream: Stream) -> None:
        """Give up a daemon that says nothing for three of its heartbeat intervals."""
        interval_s = self.subscribed.heartbeat_interval_ns / 1e9
        if interval_s <= 0:
            return
        loop = asyncio.get_running_loop()
        self._received_s = loop.time()
        due_s = loop.time() + interval_s

        def look() -> None:
            nonlocal due_s
            now_s = loop.time()
            if self._paused or now_s - due_s > interval_s / 2:
                self._received_s = now_s  # We did not listen, or were held up ourselves.
            if now_s - self._received_s >= INTERVALS_TO_LOST * interval_s:
                stream.give_up(f"the daemon was silent for {INTERVALS_TO_LOST * interval_s:.3g} s")
                return
            due_s = now_s + interval_s
            self._timer = loop.call_at(due_s, look)

        self._timer = loop.call_at(due_s, look)


def _response(data: bytes) -> pb.SubscribeResponse:
    try:
        return pb.SubscribeResponse.FromString(data)
    except DecodeError as exc:
        raise DaemonProtocolError(f"the daemon sent {len(data)} bytes that are no SubscribeResponse") from exc
