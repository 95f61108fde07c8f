"""Subscribers of a feed's predictions: taken out of the ring once, serialised once per filter, queued for each.

    engine ──► ring of the feed's source ──► one message per filter ──► a bounded queue per subscriber ──► its writer

Answers leave the ring as soon as they are there, whether anybody subscribes or not, so that no subscriber ever holds up
the engine. Subscribers with the same filter share the same bytes. One whose queue is full has fallen behind: it loses its
queue and its stream, and the others notice nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_BYTES
from penstock_daemon import engine_memory as memory
from penstock_daemon import faults
from penstock_daemon.engine import Engine
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelEntry
from penstock_daemon.sessions import ANSWERS_PER_MESSAGE

MESSAGES_AT_ONCE: Final = 4  # Per filter, between two turns of the event loop.
_SETTLE_S: Final = 0.001
_SPECIAL: Final = np.uint32(memory.ANSWER_REFUSED | memory.ANSWER_REBUILT)

Wanted = frozenset[int] | None  # Instrument ids; None for all.


class PredictedFeed(Protocol):
    """What subscribers need to know of a feed."""

    @property
    def name(self) -> str:
        """As the configuration names it."""

    @property
    def source(self) -> int:
        """Of the engine."""

    @property
    def instruments(self) -> Sequence[pb.Instrument]:
        """All that it has ticks of."""

    @property
    def model(self) -> ModelEntry:
        """What predicts."""


@dataclass
class SubscriptionCounts:
    """What subscribers have had so far; all but the first only grow."""

    subscribers: int = 0
    opened: int = 0
    delivered: int = 0  # Predictions handed to the transport, once for each subscriber.
    fell_behind: int = 0  # Subscribers that were cut off.


class Subscriber:
    """One subscriber's queue.

    Attributes:
        wanted: its filter.
        wake: set when there is something to write, or to say.
        lost: done when it is to be cut off, with the fault to tell it.
        said_ns: monotonic, when it was last written to.
    """

    def __init__(self, wanted: Wanted, queue_max: int) -> None:
        self.wanted = wanted
        self.wake = asyncio.Event()
        self.lost: asyncio.Future[faults.SessionFault] = asyncio.get_running_loop().create_future()
        self.said_ns = 0
        self._queue_max = queue_max
        self._messages: deque[tuple[bytes, int]] = deque()
        self._queued = 0

    def put(self, message: bytes, predictions: int) -> bool:
        """Queue *message*; False where the queue has no room for it: the subscriber has fallen behind."""
        if self._queued + predictions > self._queue_max:
            self._messages.clear()
            self._queued = 0
            return False
        self._messages.append((message, predictions))
        self._queued += predictions
        self.wake.set()
        return True

    def take(self) -> tuple[bytes, int] | None:
        """Return the next message and how many predictions it holds; None where there is none."""
        if not self._messages:
            return None
        message, predictions = self._messages.popleft()
        self._queued -= predictions
        return message, predictions


class Subscriptions:
    """Distributes the predictions of one feed, on the event loop.

    Args:
        engine: whose ring it empties.
        link: tells of answers.
        feed: whose predictions they are; its source is open.
        subscribers_max: that may be there at once.
        queue_max: predictions that may wait for one subscriber; a message of ANSWERS_PER_MESSAGE must fit.
    """

    def __init__(
        self, engine: Engine, link: LoopLink, feed: PredictedFeed, *, subscribers_max: int, queue_max: int
    ) -> None:
        self.feed = feed
        self.counts = SubscriptionCounts()
        self._engine = engine
        self._link = link
        self._subscribers_max = subscribers_max
        self._queue_max = queue_max
        self._answers = engine.buffers.prediction_slots[feed.source]
        self._answer_bytes = memoryview(self._answers.view(np.uint8).reshape(-1))
        self._groups: dict[Wanted, list[Subscriber]] = {}
        self._loop = asyncio.get_running_loop()
        self._closed = False
        link.listen(feed.source, self._on_answers)
        self._on_answers()  # What came before anybody listened.

    @property
    def subscribers(self) -> list[Subscriber]:
        """Those that are being served."""
        return [one for group in self._groups.values() for one in group]

    def add(self, wanted: Wanted) -> Subscriber:
        """Return a new subscriber, who gets all that is predicted from now on.

        Raises:
            SessionFault: there are as many as may be.
        """
        if self.counts.subscribers >= self._subscribers_max:
            raise faults.exhausted(
                "SUBSCRIBERS",
                field="Subscribe",
                value=f"{self.counts.subscribers} subscribers",
                mend="end another subscription first, or raise feed.subscribers_max",
            )
        subscriber = Subscriber(wanted, self._queue_max)
        self._groups.setdefault(wanted, []).append(subscriber)
        self.counts.subscribers += 1
        self.counts.opened += 1
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        """Serve *subscriber* no more; nothing happens the second time."""
        group = self._groups.get(subscriber.wanted, [])
        if subscriber not in group:
            return
        group.remove(subscriber)
        if not group:
            del self._groups[subscriber.wanted]
        self.counts.subscribers -= 1

    def keep(self, now_ns: int, interval_ns: int) -> None:
        """Wake subscribers that have heard nothing for *interval_ns*, monotonic; 0 for no heartbeats."""
        for subscriber in self.subscribers:
            if interval_ns and now_ns - subscriber.said_ns > interval_ns:
                subscriber.wake.set()

    async def settle(self) -> None:
        """Wait until every tick that its ring holds is predicted, and the prediction queued; the caller bounds the wait."""
        source = self.feed.source
        engine = self._engine
        while (  # noqa: ASYNC110 - Only when the daemon stops; the rings are watched already, by _on_answers.
            engine.cursor(source, memory.PREDICTION_CONSUMED) < engine.cursor(source, memory.TICK_PUBLISHED)
        ):
            await asyncio.sleep(_SETTLE_S)

    def close(self) -> None:
        """Listen no more; for when the engine stops."""
        self._closed = True
        self._link.ignore(self.feed.source)

    def _on_answers(self) -> None:
        """Take all answers out of the ring, and give them to whoever wants them; then it is the writers' turn."""
        source = self.feed.source
        for _ in range(MESSAGES_AT_ONCE):
            place, count, special = self._engine.answers(source, ANSWERS_PER_MESSAGE)
            if count == 0:
                return
            wanted = [(group, *self._records_for(group, place, count, special)) for group in self._groups]
            handed_ns = self._engine.release_answers(source, memory.PATH_FEED, False, count)
            sent_ns = handed_ns + self._engine.unix_offset_ns
            for group, records, predictions in wanted:
                if predictions:
                    batch = pb.PredictionBatch(records=records, sent_ns=sent_ns)
                    self._give(group, pb.SubscribeResponse(predictions=batch).SerializeToString(), predictions)
        if not self._closed:
            self._loop.call_soon(self._on_answers)  # A feed that never pauses must not hold up the event loop.

    def _records_for(self, wanted: Wanted, place: int, count: int, special: bool) -> tuple[bytes, int]:
        """Return the records that a filter leaves of *count* answers from *place* on, and how many they are."""
        if wanted is None and not special:
            return bytes(self._answer_bytes[place * PREDICTION_BYTES : (place + count) * PREDICTION_BYTES]), count
        answers = self._answers[place : place + count]
        kept: NDArray[np.bool_] = (answers["flags"] & _SPECIAL) == 0
        if wanted is not None:
            kept &= np.isin(answers["instrument_id"], np.fromiter(wanted, np.uint32, len(wanted)))
        chosen = answers[kept]
        return chosen.tobytes(), len(chosen)

    def _give(self, wanted: Wanted, message: bytes, predictions: int) -> None:
        """Queue one message for every subscriber of a filter; cut off those that have no room for it."""
        for subscriber in tuple(self._groups[wanted]):
            if subscriber.put(message, predictions):
                continue
            self.counts.fell_behind += 1
            self.remove(subscriber)
            subscriber.lost.set_result(
                faults.exhausted(
                    "FELL_BEHIND",
                    field="Subscribe",
                    value=f"more than {self._queue_max} predictions unread",
                    mend="read faster, subscribe to fewer symbols, or raise feed.subscriber_queue_max; then subscribe anew",
                )
            )
