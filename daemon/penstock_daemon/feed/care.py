"""The daemon's handle on its feed, whether it has one or not: the same calls, in the same places of its start and stop."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from penstock_daemon.config_feed import FeedConfig
from penstock_daemon.engine import Engine
from penstock_daemon.feed.card_clocks import CardOffset
from penstock_daemon.feed.feed import Feed, check_lines
from penstock_daemon.feed.metrics import FeedSnapshot
from penstock_daemon.feed.precompile import Helper
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelEntry, ModelTable
from penstock_daemon.recorder_care import RecorderCare
from penstock_daemon.subscriptions import Subscriptions

_log = structlog.get_logger("penstock.feed")


class FeedCare:
    """Makes, starts and stops the feed that the configuration asks for, if it asks for one.

    Args:
        config: the section [feed].
        card_offset: how far the clock of a network card is from CLOCK_MONOTONIC.
        recorder: that keeps the feed's ticks, where the daemon records.
    """

    def __init__(self, config: FeedConfig, card_offset: CardOffset, recorder: RecorderCare) -> None:
        self._config = config
        self._card_offset = card_offset
        self._recorder = recorder
        self.card = ""  # The clock of the network card that stamps line A's packets, once checked; "" for none.
        self.feed: Feed | None = None  # Once it is made.
        self._helper: Helper | None = None

    def check(self, *, online: bool) -> None:
        """See that it can be had, before all the work of a start, and have its loop compiled beside that work.

        Args:
            online: whether the engine has online readouts.

        Raises:
            FeedError: it can't.
        """
        if self._config.group:
            self.card = check_lines(self._config)
            self._helper = Helper(online=online)

    def prepare(self, engine: Engine, models: ModelTable, lock: str) -> None:
        """Make it, once the engine is warm; see ``Feed.prepare``."""
        if self._config.group:
            self.feed = Feed(self._config, engine, self._card_offset, tap_ticks=self._recorder.tap_ticks)
            if self._helper is not None:
                self._helper.wait()
            self.feed.prepare(models, lock)

    async def start(self, link: LoopLink, cpus: frozenset[int], offer: Callable[[Subscriptions], None]) -> None:
        """Take in packets from now on; see ``Feed.start``.

        Args:
            link: to the running engine.
            cpus: where the thread may run.
            offer: is given what strategies subscribe to, before the first tick.
        """
        if self.feed is not None:
            await self.feed.open(link)
            limits = {
                "subscribers_max": self._config.subscribers_max,
                "queue_max": self._config.subscriber_queue_max,
            }
            offer(Subscriptions(self.feed.engine, link, self.feed, **limits))
            self._recorder.record_feed(self.feed.name, self.feed.instruments, self.feed.memory.tap)
            self.feed.start(cpus)

    def look(self) -> None:
        """Look after what time brings."""
        if self.feed is not None:
            self.feed.look()

    def check_switch(self, entry: ModelEntry) -> None:
        """Refuse a model that it could not go over to; see ``Feed.check_switch``."""
        if self.feed is not None:
            self.feed.check_switch(entry)

    async def switch_model(self, entry: ModelEntry, link: LoopLink) -> None:
        """Go over to another model; see ``Feed.switch_model``."""
        if self.feed is not None:
            await self.feed.switch_model(entry, link)

    def snapshot(self) -> FeedSnapshot | None:
        """Return its counts, or None where there is none."""
        return None if self.feed is None else self.feed.snapshot()

    def stop(self) -> None:
        """Take in no more packets."""
        if self._helper is not None:  # The start ended half-way.
            self._helper.end()
        if self.feed is not None:
            self.feed.stop()

    def close(self) -> None:
        """Stop, and give back what is left."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None
