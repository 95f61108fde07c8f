"""Subscribe: every subscriber gets the same bytes, a slow one is cut off alone, and the ring is emptied for nobody too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_BYTES, Stage, predictions_from_bytes
from penstock_daemon import engine_memory as memory
from penstock_daemon import faults, subscriptions
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from support.engines import running_engine
from support.feed_subscribers import METHOD, TestFeed, read, read_predictions, subscribe_server, until
from support.raw_stream import end_of
from support.tick_arrays import quotes

TICKS = quotes(1_000, (1, 2))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


async def drained(engine: Engine, feed: TestFeed) -> None:
    """Wait until every tick of *feed* was predicted and its answer taken out of the ring."""
    await until(lambda: engine.cursor(feed.source, memory.PREDICTION_CONSUMED) == feed.published)


async def read_on(call: object) -> None:
    """Read until *call* ends."""
    while True:
        await read(call)


async def refusal_of(call: object) -> object:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read_on(call)
    return end_of(refused.value)


def test_all_subscribers_get_the_same_bytes_and_those_with_a_filter_their_share(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            calls = [server.subscribe(), server.subscribe("itch"), server.subscribe("", "BOB", "XNAS:BOB")]
            firsts = [(await read(call)).subscribed for call in calls]
            assert [one.feed for one in firsts] == ["itch"] * 3
            assert firsts[0].instruments == feed.instruments
            assert [one.symbol for one in firsts[2].instruments] == ["BOB"]
            assert (firsts[0].budget_ns, firsts[0].model.name) == (5_000_000, feed.model.model.name)
            assert firsts[0].horizons == feed.model.horizons
            publishing = asyncio.create_task(feed.publish(TICKS))
            messages = [[], []]
            for call, kept in zip(calls, messages, strict=False):
                while sum(len(one.predictions.records) for one in kept) < len(TICKS) * PREDICTION_BYTES:
                    kept.append(await read(call))
            assert messages[0] == messages[1]
            whole = predictions_from_bytes(b"".join(one.predictions.records for one in messages[0]))
            assert whole["sequence"].tolist() == list(range(len(TICKS)))
            assert np.array_equal(whole["instrument_id"], TICKS["instrument_id"])
            assert all(one.predictions.sent_ns > 1_700_000_000_000_000_000 for one in messages[0])
            bob = await read_predictions(calls[2], int(np.count_nonzero(TICKS["instrument_id"] == 2)))
            assert np.array_equal(bob, whole[whole["instrument_id"] == 2])
            await publishing
            assert server.subscriptions.counts.subscribers == 3
            await until(lambda: server.subscriptions.counts.delivered == 2 * len(whole) + len(bob))

    asyncio.run(run())


def test_subscribers_with_equal_filters_share_one_serialisation(engine, tmp_path, monkeypatch):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            filters = [(), (), ("ALC", "BOB"), ("BOB",), ("BOB",), ("XNAS:BOB",)]
            subscribers = []
            for symbols in filters:
                call = server.subscribe("", *symbols)
                await read(call)
                subscribers.append(call)
            puts: list[bytes] = []
            for subscriber in server.subscriptions.subscribers:
                monkeypatch.setattr(subscriber, "put", lambda message, _: puts.append(message) or True)
            await feed.publish(TICKS[:2])
            await drained(engine, feed)
            assert len(puts) % 6 == 0
            batches = len(puts) // 6
            assert len({id(message) for message in puts}) == 2 * batches, "two filters, two serialisations"

    asyncio.run(run())


def test_without_a_subscriber_answers_are_released_and_counted_all_the_same(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            before = int(engine.buffers.histograms[memory.PATH_FEED, 0, Stage.TOTAL].sum())
            await feed.publish(TICKS)  # Four times what the ring holds.
            await drained(engine, feed)
            assert int(engine.buffers.histograms[memory.PATH_FEED, 0, Stage.TOTAL].sum()) == before + len(TICKS)
            assert server.subscriptions.counts.delivered == 0
            late = server.subscribe()
            await read(late)
            await feed.publish(TICKS[:3])
            assert (await read_predictions(late, 3))["sequence"].tolist() == [1_000, 1_001, 1_002]

    asyncio.run(run())


def test_a_feed_that_never_pauses_leaves_the_event_loop_its_turns(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(subscriptions, "ANSWERS_PER_MESSAGE", 1)

    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            call = server.subscribe()
            await read(call)
            looks: list[int] = []
            release = engine.release_answers
            loop = asyncio.get_running_loop()
            turns = 0

            def turn() -> None:
                nonlocal turns
                turns += 1
                loop.call_soon(turn)

            def counting(*arguments: object) -> int:
                looks.append(turns)
                return release(*arguments)

            monkeypatch.setattr(engine, "release_answers", counting)
            turn()
            await feed.publish(TICKS[:200])
            assert (await read_predictions(call, 200))["sequence"].tolist() == list(range(200))
            assert max(looks.count(one) for one in set(looks)) <= 2 * subscriptions.MESSAGES_AT_ONCE

    asyncio.run(run())


def test_a_subscriber_that_does_not_read_is_cut_off_and_told_and_others_miss_nothing(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine, queue_max=2_000) as server:
            deaf, reader = server.subscribe(), server.subscribe()
            await read(reader)
            sequences: list[int] = []
            for _ in range(12):  # 1.5 MB of predictions: far more than a stream's window takes.
                await feed.publish(TICKS)
                sequences += (await read_predictions(reader, len(TICKS)))["sequence"].tolist()
            assert sequences == list(range(12 * len(TICKS)))
            assert server.subscriptions.counts.fell_behind == 1
            assert server.subscriptions.counts.subscribers == 1
            end = await refusal_of(deaf)
            assert (end.code, end.reason) == ("RESOURCE_EXHAUSTED", "FELL_BEHIND")
            assert end.mend.startswith("read faster")
            assert server.refused == ["FELL_BEHIND"]

    asyncio.run(run())


def test_a_queue_takes_as_many_predictions_as_it_may_hold_and_not_one_more():
    async def run() -> None:
        subscriber = subscriptions.Subscriber(None, 10)
        assert subscriber.put(b"four", 4)
        assert subscriber.put(b"six", 6)
        assert subscriber.take() == (b"four", 4)
        assert subscriber.put(b"four", 4)
        assert not subscriber.put(b"one", 1)
        assert subscriber.take() is None, "one that has fallen behind gets nothing more"

    asyncio.run(run())


def test_a_drain_ends_subscriptions_with_goodbye_after_all_that_was_predicted(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            call = server.subscribe()
            await read(call)
            engine.wait_applied(engine.command(Command.HOLD_SOURCE, feed.source))
            await feed.publish(TICKS[:100])
            draining = asyncio.create_task(server.service.drain())
            for _ in range(10):
                await asyncio.sleep(0)  # Every turn of the loop that a hasty Goodbye would need.
            engine.command(Command.BIND_MODEL, feed.source, feed.model.slot)  # Only now is anything predicted.
            await read_predictions(call, 100)
            goodbye = (await read(call)).goodbye
            assert goodbye.reason == pb.Goodbye.REASON_DRAINING
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            await draining
            assert server.subscriptions.counts.subscribers == 0

    asyncio.run(run())


def test_an_idle_subscriber_hears_heartbeats(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine, heartbeat_interval_ns=1) as server:
            call = server.subscribe()
            await read(call)
            server.service.keep(2**62)
            assert (await read(call)).heartbeat.sent_ns > 0

    asyncio.run(run())


def test_a_subscriber_that_leaves_is_forgotten_and_makes_room_for_another(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine, subscribers_max=1) as server:
            call = server.subscribe()
            await read(call)
            assert server.subscriptions.counts.subscribers == 1
            end = await refusal_of(server.subscribe())
            assert (end.code, end.reason) == ("RESOURCE_EXHAUSTED", "SUBSCRIBERS")
            assert "feed.subscribers_max" in end.mend
            call.cancel()
            await until(lambda: server.subscriptions.counts.subscribers == 0)
            await feed.publish(TICKS[:10])
            await drained(engine, feed)
            assert (await read(server.subscribe())).HasField("subscribed")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        (("other",), "NOT_FOUND", "FEED_UNKNOWN"),
        (("itch", "NOBODY"), "NOT_FOUND", "SYMBOL_UNKNOWN"),
    ],
)
def test_what_is_not_there_is_named_with_its_mend(engine, tmp_path, asked, code, reason):
    async def run() -> None:
        async with subscribe_server(tmp_path, TestFeed(engine), engine) as server:
            end = await refusal_of(server.subscribe(*asked))
            assert (end.code, end.reason) == (code, reason)
            assert end.value == asked[-1]
            assert end.mend

    asyncio.run(run())


def test_a_daemon_without_a_feed_or_not_ready_says_so(engine, tmp_path):
    async def run() -> None:
        async with subscribe_server(tmp_path, None, engine) as server:
            assert (await refusal_of(server.subscribe())).reason == "NO_FEED"
        warming = faults.unavailable("NOT_READY", field="daemon", value="warming up", mend="try again soon")
        async with subscribe_server(tmp_path, TestFeed(engine), engine, not_now=warming) as server:
            assert (await refusal_of(server.subscribe())).code == "UNAVAILABLE"

    asyncio.run(run())


def test_a_request_that_can_not_be_read_is_the_clients_fault(engine, tmp_path):
    async def run() -> None:
        async with (
            subscribe_server(tmp_path, TestFeed(engine), engine) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            assert (await refusal_of(channel.unary_stream(METHOD)(b"\xff\xff"))).reason == "MESSAGE_UNREADABLE"

    asyncio.run(run())
