"""The blocking subscription: the same verbs for programs without an event loop, safe to use from several threads.

    with subscribe("unix:/run/penstock.sock", symbols=["AAPL"]) as subscription:
        for batch in subscription.batches():
            ...

The stream is read on the event loop in a thread of its own that blocking sessions share (background.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from penstock.v1 import prediction_pb2 as pb
from penstock_client.background import background, run_on
from penstock_client.errors import LocalUsageError
from penstock_client.mailbox import ThreadMailbox
from penstock_client.reconnect import ReconnectPolicy
from penstock_client.settings import CONNECT_DEADLINE_S
from penstock_client.subscription import FeedBatch, SubscriptionSettings, of_feed, subscription_settings
from penstock_client.subscription_core import SubscriptionCore


def subscribe(
    address: str,
    *,
    feed: str = "",
    symbols: Iterable[str] = (),
    connect_deadline_s: float = CONNECT_DEADLINE_S,
    reconnect: bool | ReconnectPolicy = True,
) -> BlockingSubscription:
    """Return a subscription to be entered with ``with``; arguments and errors are those of penstock_client.subscribe."""
    return BlockingSubscription(subscription_settings(address, feed, symbols, connect_deadline_s, reconnect))


class BlockingSubscription:
    """A subscription for threads; made by subscribe()."""

    def __init__(self, settings: SubscriptionSettings) -> None:
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._core: SubscriptionCore | None = None
        self._mailbox: ThreadMailbox | None = None
        self._used = self._closed = self._forked = False
        self._parents: tuple[SubscriptionCore | None, asyncio.AbstractEventLoop | None] = (None, None)

    def __enter__(self) -> Self:
        """Subscribe; see open()."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave; see close()."""
        self.close()

    def open(self) -> None:
        """Connect and subscribe; ``with`` does it. Raises as Subscription.open."""
        if self._used:
            raise LocalUsageError("a subscription can be opened once: call subscribe() for another one")
        self._used = True
        loop, core = background.acquire(), None
        try:
            self._mailbox = ThreadMailbox(loop)
            core = SubscriptionCore(self._settings, self._mailbox)
            run_on(loop, core.open())
        except BaseException:
            try:
                if core is not None:
                    run_on(loop, core.close())  # It may have opened since, where it was our wait that was interrupted.
            finally:
                background.release()
            raise
        self._loop, self._core = loop, core
        background.tell(self)

    def close(self) -> None:
        """Leave at once; what has come can still be read. ``with`` does it."""
        if self._loop is None or self._core is None or self._closed:
            return
        self._closed = True
        try:
            run_on(self._loop, self._core.close())
        finally:
            background.release()

    @property
    def subscribed(self) -> pb.Subscribed:
        """The daemon's latest Subscribed: feed, instruments, model, horizons; a new one after each reconnect."""
        return self._opened().subscribed

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and regained."""
        return self._opened().reconnects

    def receive(self, timeout_s: float | None = None) -> FeedBatch | None:
        """Return the next batch; None once the subscription was closed and all is read.

        Raises:
            DeadlineExceeded: nothing came within *timeout_s*; what comes later is not lost.
            PenstockError: what ended the subscription.
        """
        self._opened()
        assert self._mailbox is not None, "open without a mailbox"
        return of_feed(self._mailbox.get(timeout_s))

    def batches(self, timeout_s: float | None = None) -> Iterator[FeedBatch]:
        """Iterate over the predictions as they come, until the subscription ends.

        Raises:
            DeadlineExceeded: nothing came for *timeout_s*; a new iterator goes on where this one stopped.
            PenstockError: what ended the subscription.
        """
        while (batch := self.receive(timeout_s)) is not None:
            yield batch

    def forked_off(self) -> None:
        """Hear, in a forked child, that the subscription stays the parent's: every verb but close() says so from now on."""
        self._parents = self._core, self._loop  # Freed here, they would talk to gRPC, which does not live in a child.
        self._core, self._loop, self._forked = None, None, True

    def leave_at_exit(self) -> None:
        """Hear that the loop is about to stop for good: a thread that waits sees the subscription's end, and no error."""
        if self._core is not None:
            self._core.leave()

    def _opened(self) -> SubscriptionCore:
        if self._forked:
            raise LocalUsageError(
                "a subscription belongs to the process that opened it, and this one was forked from it: call subscribe() "
                "in the process that uses it, and start processes by spawn or exec"
            )
        if self._core is None:
            raise LocalUsageError("the subscription must be open first: enter it with 'with', or call open()")
        return self._core
