"""Subscribe: predictions of a feed to any number of strategies, as bytes that were serialised for all of them at once.

    Subscribed, then predictions as they come, heartbeats while none do, Goodbye when the daemon drains

A subscriber that does not read holds up its own writer alone. When it is cut off, what it held is free at once; it hears
why as soon as it reads again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
import structlog

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon import faults
from penstock_daemon.readable import read_message
from penstock_daemon.subscriptions import PredictedFeed, Subscriber, SubscriptionCounts, Subscriptions, Wanted

_GOODBYE: Final = pb.SubscribeResponse(
    goodbye=pb.Goodbye(reason=pb.Goodbye.REASON_DRAINING, message="the daemon is stopping")
).SerializeToString()

_log = structlog.get_logger("penstock.subscriptions")


class SubscribeService:
    """Serves Subscribe on the event loop.

    Args:
        budget_ns: for Subscribed.
        heartbeat_interval_ns: of silence until Heartbeat; 0 for none.
        not_now: returns why nothing is served now, or None.
        count_refusal: called with the reason of each refusal.
    """

    def __init__(
        self,
        *,
        budget_ns: int,
        heartbeat_interval_ns: int,
        not_now: Callable[[], faults.SessionFault | None],
        count_refusal: Callable[[str], None],
    ) -> None:
        self._budget_ns = budget_ns
        self._heartbeat_interval_ns = heartbeat_interval_ns
        self._not_now = not_now
        self._count_refusal = count_refusal
        self._feeds: dict[str, Subscriptions] = {}
        self._draining = False
        self.streams: set[asyncio.Task[None]] = set()

    def offer(self, subscriptions: Subscriptions) -> None:
        """Serve the predictions of one more feed."""
        self._feeds[subscriptions.feed.name] = subscriptions

    @property
    def counts(self) -> SubscriptionCounts | None:
        """What the subscribers of all feeds have had; None where there is no feed."""
        if not self._feeds:
            return None
        each = [one.counts for one in self._feeds.values()]
        return SubscriptionCounts(
            subscribers=sum(one.subscribers for one in each),
            opened=sum(one.opened for one in each),
            delivered=sum(one.delivered for one in each),
            fell_behind=sum(one.fell_behind for one in each),
        )

    def method(self) -> grpc.RpcMethodHandler:
        """Return the handler of the method."""
        return grpc.unary_stream_rpc_method_handler(self._stream, request_deserializer=None, response_serializer=None)

    def keep(self, now_ns: int) -> None:
        """See to heartbeats; to be called several times a second with the monotonic time."""
        for one in self._feeds.values():
            one.keep(now_ns, self._heartbeat_interval_ns)

    async def drain(self) -> None:
        """Wait until every subscriber has had all that its feed gave to the engine, and Goodbye; the caller bounds the wait.

        The feeds must have stopped. Afterwards no answers are taken any more: the engine may stop.
        """
        try:
            for one in self._feeds.values():
                await one.settle()
            self._draining = True
            for one in self._feeds.values():
                for subscriber in one.subscribers:
                    subscriber.wake.set()
            if self.streams:
                await asyncio.wait(list(self.streams))
        finally:
            for one in self._feeds.values():
                one.close()

    async def _stream(self, data: bytes, context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.streams.add(task)
        try:
            await self._serve(data, context)
        except faults.SessionFault as fault:
            self.streams.discard(task)  # A drain need not wait: an abort can hang while the client does not read.
            self._count_refusal(fault.reason)
            _log.info("subscription_refused", reason=fault.reason, detail=str(fault), peer=context.peer())
            await context.abort(fault.code, str(fault), fault.trailers())
        except grpc.aio.BaseError as error:  # The transport is gone: a lost connection, not a fault of ours.
            raise asyncio.CancelledError from error  # No status can be sent any more; gRPC takes this in silence.
        finally:
            self.streams.discard(task)

    async def _serve(self, data: bytes, context: Any) -> None:
        fault = self._not_now()
        if fault is not None:
            raise fault
        request = read_message(pb.SubscribeRequest.FromString, data, "penstock.v1.SubscribeRequest")
        subscriptions = self._chosen(request.feed)
        feed = subscriptions.feed
        wanted, instruments = _filter(feed, request.symbols)
        subscriber = subscriptions.add(wanted)
        _log.info("subscribed", feed=feed.name, instruments=len(instruments), peer=context.peer())
        try:
            subscribed = pb.Subscribed(
                feed=feed.name,
                instruments=instruments,
                model=feed.model.summary,
                horizons=feed.model.horizons,
                budget_ns=self._budget_ns,
                heartbeat_interval_ns=self._heartbeat_interval_ns,
            )
            first = pb.SubscribeResponse(subscribed=subscribed).SerializeToString()
            writer = asyncio.create_task(self._write(subscriptions, subscriber, first, context))
            try:
                ends: set[asyncio.Future[Any]] = {writer, subscriber.lost}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if subscriber.lost.done():
                    raise subscriber.lost.result()
                await writer
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        finally:
            subscriptions.remove(subscriber)
            _log.info("subscription_ended", feed=feed.name, peer=context.peer())

    async def _write(self, subscriptions: Subscriptions, subscriber: Subscriber, first: bytes, context: Any) -> None:
        """Send what is queued as it comes, until the daemon drains."""
        counts = subscriptions.counts
        await context.write(first)
        subscriber.said_ns = time.monotonic_ns()
        while True:
            subscriber.wake.clear()
            while (queued := subscriber.take()) is not None:
                message, predictions = queued
                await context.write(message)
                subscriber.said_ns = time.monotonic_ns()
                counts.delivered += predictions
            if self._draining:
                await context.write(_GOODBYE)
                return
            now_ns = time.monotonic_ns()
            if self._heartbeat_interval_ns and now_ns - subscriber.said_ns > self._heartbeat_interval_ns:
                subscriber.said_ns = now_ns
                heartbeat = pb.SubscribeResponse(heartbeat=pb.Heartbeat(sent_ns=time.time_ns()))
                await context.write(heartbeat.SerializeToString())
            if not subscriber.wake.is_set():
                await subscriber.wake.wait()

    def _chosen(self, name: str) -> Subscriptions:
        """Return the feed of *name*; of none, the only one.

        Raises:
            SessionFault: there is no such feed.
        """
        if not self._feeds:
            raise faults.not_found(
                "NO_FEED",
                field="SubscribeRequest.feed",
                value=name,
                mend="ask a daemon that has a feed: this one has no [feed] in its configuration",
            )
        if name == "" and len(self._feeds) == 1:
            return next(iter(self._feeds.values()))
        if name not in self._feeds:
            raise faults.not_found(
                "FEED_UNKNOWN",
                field="SubscribeRequest.feed",
                value=name,
                mend=f"name one that is there: {', '.join(sorted(self._feeds))}",
            )
        return self._feeds[name]


def _filter(feed: PredictedFeed, symbols: Sequence[str]) -> tuple[Wanted, list[pb.Instrument]]:
    """Return the filter that *symbols* means, and the instruments that it leaves.

    Raises:
        SessionFault: the feed has no such symbol.
    """
    if not symbols:
        return None, list(feed.instruments)
    named: dict[str, list[pb.Instrument]] = {}
    for one in feed.instruments:
        for name in (one.symbol, f"{one.dataset}:{one.symbol}"):
            named.setdefault(name, []).append(one)
    chosen: dict[int, pb.Instrument] = {}
    for symbol in symbols:
        if symbol not in named:
            raise faults.not_found(
                "SYMBOL_UNKNOWN",
                field="SubscribeRequest.symbols",
                value=symbol,
                mend=f"name symbols that feed {feed.name} has, or none for all",
            )
        chosen |= {one.instrument_id: one for one in named[symbol]}
    wanted = None if len(chosen) == len(feed.instruments) else frozenset(chosen)
    return wanted, [one for one in feed.instruments if one.instrument_id in chosen]
