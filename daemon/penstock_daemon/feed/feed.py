"""The feed as the daemon sees it: made before the warm-up, started before SERVING, stopped before the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine
from penstock_daemon.feed.memory import FeedMemory
from penstock_daemon.model_table import ModelEntry

FEED_SOURCE: Final = 1  # Behind the warm-up's; no session gets it where there is a feed.
FEED_STATE: Final = 1  # The first of its states, one for each instrument in their order.
FEED_PATH: Final = memory.PATH_FEED


class FeedError(Exception):
    """The feed can't be had; the sentence says what to mend."""


@dataclass
class Feed:
    """What others may rely on.

    Attributes:
        engine: whose source it is.
        name: feed.name.
        source: of the engine; its answers are read by ``engine.answers(feed.source, ...)`` and given back by
            ``engine.release_answers(feed.source, memory.PATH_FEED, False, count)``, on the event loop.
        instruments: in the order of feed.instruments.
        model: what predicts.
        memory: counts and window.
    """

    engine: Engine
    name: str
    source: int
    instruments: list[pb.Instrument]
    model: ModelEntry
    memory: FeedMemory
