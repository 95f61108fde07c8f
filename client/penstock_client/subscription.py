"""A subscription: the predictions of a feed that the daemon itself receives, as batches of arrays.

    async with subscribe("unix:/run/penstock.sock", symbols=["AAPL"]) as subscription:
        async for batch in subscription.batches():
            ...

It goes on over lost connections, as a session does. What was predicted meanwhile is not delivered again: the first batch
afterwards says ``after_gap``. A strategy that reads too slowly is cut off by the daemon, and told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from penstock.v1 import prediction_pb2 as pb
from penstock_client.batches import Batch
from penstock_client.channel import checked_address
from penstock_client.errors import LocalUsageError
from penstock_client.instruments import NAME_CHARACTERS_MAX, check_text
from penstock_client.mailbox import TaskMailbox
from penstock_client.reconnect import ReconnectPolicy
from penstock_client.settings import CONNECT_DEADLINE_S, check_seconds
from penstock_client.subscription_core import FeedBatch, SubscriptionCore, SubscriptionSettings

__all__ = ["FeedBatch", "Subscription", "SubscriptionSettings", "subscribe", "subscription_settings"]


def subscribe(
    address: str,
    *,
    feed: str = "",
    symbols: Iterable[str] = (),
    connect_deadline_s: float = CONNECT_DEADLINE_S,
    reconnect: bool | ReconnectPolicy = True,
) -> Subscription:
    """Return a subscription to be entered with ``async with``.

    Args:
        address: "unix:/path/of.sock" or "host:port".
        feed: its name in the daemon's configuration; empty where there is only one.
        symbols: those wanted, "AAPL" or "DATASET:AAPL"; none for all.
        connect_deadline_s: for the first answer; a daemon that is still starting is tried again until then.
        reconnect: whether to go on over lost connections, or by which policy.

    Raises:
        LocalUsageError: an argument is wrong.
    """
    return Subscription(subscription_settings(address, feed, symbols, connect_deadline_s, reconnect))


def subscription_settings(
    address: str, feed: str, symbols: Iterable[str], connect_deadline_s: float, reconnect: bool | ReconnectPolicy
) -> SubscriptionSettings:
    """Check the arguments of subscribe(), whose errors these are."""
    check_text("feed", feed, at_least=0)
    if isinstance(symbols, str):
        raise LocalUsageError(f"symbols must be a list of names: was the string {symbols!r}; pass [{symbols!r}]")
    wanted: tuple[object, ...] = tuple(symbols)
    for index, symbol in enumerate(wanted):
        if not isinstance(symbol, str) or not 1 <= len(symbol) <= 2 * NAME_CHARACTERS_MAX + 1:
            raise LocalUsageError(f"symbols[{index}] must be a symbol, or DATASET:SYMBOL: was {symbol!r}")
    names = tuple(str(symbol) for symbol in wanted)
    check_seconds("connect_deadline_s", connect_deadline_s)
    if isinstance(reconnect, ReconnectPolicy):
        policy: ReconnectPolicy | None = reconnect
    elif isinstance(reconnect, bool):
        policy = ReconnectPolicy() if reconnect else None
    else:
        raise LocalUsageError(f"reconnect must be True, False or a ReconnectPolicy: was {reconnect!r}")
    return SubscriptionSettings(checked_address(address), feed, names, connect_deadline_s, policy)


class Subscription:
    """A subscription on the running event loop; made by subscribe()."""

    def __init__(self, settings: SubscriptionSettings) -> None:
        self._mailbox = TaskMailbox()
        self._core = SubscriptionCore(settings, self._mailbox)

    async def __aenter__(self) -> Self:
        """Subscribe; see open()."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave; see close()."""
        await self.close()

    async def open(self) -> None:
        """Connect and subscribe; ``async with`` does it.

        Raises:
            ConnectFailed: no daemon took the subscription within the connect deadline.
            SessionRefused: one said no: an unknown feed or symbol, or no feed at all.
            DaemonProtocolError: one answered with nonsense.
        """
        await self._core.open()

    async def close(self) -> None:
        """Leave at once; what has come can still be read. ``async with`` does it."""
        await self._core.close()

    @property
    def subscribed(self) -> pb.Subscribed:
        """The daemon's latest Subscribed: feed, instruments, model, horizons; a new one after each reconnect."""
        return self._core.subscribed

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and regained."""
        return self._core.reconnects

    async def receive(self, timeout_s: float | None = None) -> FeedBatch | None:
        """Return the next batch; None once the subscription was closed and all is read.

        Raises:
            DeadlineExceeded: nothing came within *timeout_s*; what comes later is not lost.
            PenstockError: what ended the subscription.
        """
        return of_feed(await self._mailbox.get(timeout_s))

    async def batches(self) -> AsyncIterator[FeedBatch]:
        """Iterate over the predictions as they come, until the subscription ends.

        Raises:
            PenstockError: what ended it.
        """
        while (batch := await self.receive()) is not None:
            yield batch


def of_feed(batch: Batch | None) -> FeedBatch | None:
    """Return *batch*, which a subscription's mailbox gave, as what it is."""
    assert batch is None or isinstance(batch, FeedBatch), "a subscription's mailbox holds its own batches"
    return batch
