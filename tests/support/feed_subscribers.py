"""A feed's predictions without a network: an engine whose source a test publishes into, and a server of Subscribe.

async with subscribe_server(engine, feed) as server:
    call = server.subscribe()
    feed.publish(ticks)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_DTYPE
from penstock_daemon import engine_memory as memory
from penstock_daemon import faults, rings
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelEntry
from penstock_daemon.prediction_service import SERVICE
from penstock_daemon.subscribe_service import SubscribeService
from penstock_daemon.subscriptions import Subscriptions
from support.engines import frozen
from support.models import random_model

METHOD = f"/{SERVICE}/Subscribe"
PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread, or the transport, brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - No event tells of it.
            await asyncio.sleep(0.001)


@dataclass
class TestFeed:
    """A feed that a test publishes into, in the place of packets."""

    __test__ = False

    engine: Engine
    name: str = "itch"
    source: int = 1
    instruments: list[pb.Instrument] = field(
        default_factory=lambda: [
            pb.Instrument(instrument_id=1, symbol="ALC", dataset="XNAS", size_scale=1),
            pb.Instrument(instrument_id=2, symbol="BOB", dataset="XNAS", size_scale=1),
        ]
    )
    model: ModelEntry = field(default_factory=lambda: ModelEntry(0, random_model(1), b"\1" * 32))
    published: int = 0

    def open(self) -> None:
        states = range(1, len(self.instruments) + 1)
        for state in states:
            self.engine.command(Command.RESET_STATE, state)
        self.engine.wait_applied(
            self.engine.command(Command.OPEN_SOURCE, self.source, self.model.slot, memory.PATH_FEED, 0)
        )
        self._ids = np.array([one.instrument_id for one in self.instruments], np.int64)
        self._states = np.array(states, np.int64)

    async def publish(self, ticks: NDArray[np.void], at_once: int = 64) -> None:
        """Publish *ticks* as the ring has room, and let the event loop work meanwhile."""
        for first in range(0, len(ticks), at_once):
            part = frozen(ticks[first : first + at_once])
            await until(lambda part=part: self._published(part))
            self.published += len(part)

    def _published(self, part: NDArray[np.void]) -> bool:
        """Publish *part* where the ring has room for it."""
        result = self.engine.publish_ticks(
            self.source, part, self.published, False, self._ids, self._states, time.monotonic_ns()
        )
        return result != rings.NO_SLOT


@dataclass
class SubscribeServer:
    """A server of Subscribe alone, on a Unix socket."""

    address: str
    service: SubscribeService
    subscriptions: Subscriptions | None
    refused: list[str]
    channels: list[Any] = field(default_factory=list)

    def subscribe(self, feed: str = "", *symbols: str) -> Any:
        """Return a raw call on a connection of its own; nothing is read ahead but what the transport takes."""
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
        channel = grpc.aio.insecure_channel(self.address, options=options)
        self.channels.append(channel)
        return channel.unary_stream(METHOD)(pb.SubscribeRequest(feed=feed, symbols=symbols).SerializeToString())


@contextlib.asynccontextmanager
async def subscribe_server(
    folder: Path,
    feed: TestFeed | None,
    engine: Engine,
    *,
    subscribers_max: int = 256,
    queue_max: int = 65_536,
    heartbeat_interval_ns: int = 0,
    not_now: faults.SessionFault | None = None,
) -> AsyncIterator[SubscribeServer]:
    link = LoopLink(engine, asyncio.get_running_loop())
    refused: list[str] = []
    service = SubscribeService(
        budget_ns=5_000_000,
        heartbeat_interval_ns=heartbeat_interval_ns,
        not_now=lambda: not_now,
        count_refusal=refused.append,
    )
    subscriptions = None
    if feed is not None:
        feed.open()
        subscriptions = Subscriptions(engine, link, feed, subscribers_max=subscribers_max, queue_max=queue_max)
        service.offer(subscriptions)
    server = grpc.aio.server(options=(("grpc.http2.bdp_probe", 0),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Subscribe": service.method()}),))
    address = f"unix:{folder}/subscribe.sock"
    server.add_insecure_port(address)
    await server.start()
    serving = SubscribeServer(address, service, subscriptions, refused)
    try:
        yield serving
    finally:
        for channel in serving.channels:
            await channel.close()
        await server.stop(0)
        if subscriptions is not None:
            subscriptions.close()
        link.close()
        if feed is not None:
            engine.wait_applied(engine.command(Command.CLOSE_SOURCE, feed.source))
            engine.reset_source(feed.source)


async def read(call: Any) -> pb.SubscribeResponse:
    """Return the next message of *call*."""
    async with asyncio.timeout(PATIENCE_S):
        data = await call.read()
    assert data is not grpc.aio.EOF, "the stream has ended"
    return pb.SubscribeResponse.FromString(data)


async def read_predictions(call: Any, count: int) -> NDArray[np.void]:
    """Return the next *count* predictions of *call*; heartbeats are passed over."""
    records = b""
    while len(records) < count * PREDICTION_DTYPE.itemsize:
        records += (await read(call)).predictions.records
    found = np.frombuffer(records, PREDICTION_DTYPE)
    assert len(found) == count
    return found
