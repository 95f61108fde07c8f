"""The client's side of Subscribe, async, blocking and as a command, against a real server over a real engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_DTYPE, PredictionHash
from penstock_client import (
    ConnectFailed,
    LocalUsageError,
    ReconnectPolicy,
    SessionLost,
    SessionRefused,
    subscribe,
)
from penstock_client.blocking_subscription import subscribe as subscribe_blocking
from penstock_client.cli import main
from penstock_client.subscribe_summary import Received, received_text
from penstock_client.subscription_core import FeedBatch
from penstock_daemon.engine import Engine
from support.engines import running_engine
from support.feed_subscribers import PATIENCE_S, SubscribeServer, TestFeed, subscribe_server, until
from support.relay import Relay
from support.tick_arrays import quotes

TICKS = quotes(600, (1, 2))
QUICK = ReconnectPolicy(initial_s=0.001, max_s=0.01, give_up_after_s=PATIENCE_S)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


async def gathered(subscription: object, count: int) -> list[FeedBatch]:
    """Return the batches with the next *count* predictions."""
    batches: list[FeedBatch] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(one.predictions) for one in batches) < count:
            batches.append(await subscription.receive())
    return batches


def joined(batches: list[FeedBatch]) -> np.ndarray:
    return np.concatenate([one.predictions for one in batches])


def test_predictions_come_as_arrays_in_order_and_are_those_of_the_symbols_asked_for(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with (
            subscribe_server(tmp_path, feed, engine) as server,
            subscribe(server.address) as everything,
            subscribe(server.address, feed="itch", symbols=["BOB"]) as bob,
        ):
            assert [one.symbol for one in bob.subscribed.instruments] == ["BOB"]
            await feed.publish(TICKS)
            batches = await gathered(everything, len(TICKS))
            whole = joined(batches)
            assert whole["sequence"].tolist() == list(range(len(TICKS)))
            assert not any(one.after_gap or one.errors for one in batches)
            assert all(0 < one.sent_ns <= one.received_ns for one in batches)
            found = joined(await gathered(bob, len(TICKS) // 2))
            assert np.array_equal(found, whole[whole["instrument_id"] == 2])
            await everything.close()
            assert await everything.receive() is None

    asyncio.run(run())


def test_a_lost_connection_is_regained_and_the_gap_is_told(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            with Relay(tmp_path / "relay.sock", server.address) as relay:
                async with subscribe(relay.address, reconnect=QUICK) as subscription:
                    await feed.publish(TICKS[:10])
                    before = await gathered(subscription, 10)
                    relay.cut()
                    await until(lambda: subscription.reconnects == 1)
                    await feed.publish(TICKS[10:40])
                    after = await gathered(subscription, 30)
            assert [one.after_gap for one in before + after] == [False] * len(before) + [True] + [False] * (
                len(after) - 1
            )

    asyncio.run(run())


def test_a_subscriber_that_reads_too_slowly_is_told_and_not_subscribed_again(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server, subscribe(server.address) as subscription:
            for subscriber in server.subscriptions.subscribers:
                subscriber._queue_max = 0
            await feed.publish(TICKS[:1])
            with pytest.raises(SessionRefused, match="FELL_BEHIND") as refused:
                await subscription.receive(PATIENCE_S)
            assert refused.value.mend.startswith("read faster")
            assert subscription.reconnects == 0

    asyncio.run(run())


def test_a_daemon_that_falls_silent_is_left(engine, tmp_path):
    async def run() -> None:
        feed = TestFeed(engine)
        async with (
            subscribe_server(tmp_path, feed, engine, heartbeat_interval_ns=10_000_000) as server,
            subscribe(server.address, reconnect=QUICK) as subscription,
        ):
            await until(lambda: subscription.reconnects >= 1)  # Nobody calls keep(): there are no heartbeats.

    asyncio.run(run())


def test_without_reconnects_a_loss_is_the_end(engine, tmp_path):
    async def run() -> None:
        async with (
            subscribe_server(tmp_path, TestFeed(engine), engine) as server,
            subscribe(server.address, reconnect=False) as subscription,
        ):
            draining = asyncio.create_task(server.service.drain())
            with pytest.raises(SessionLost, match="draining"):
                await subscription.receive(PATIENCE_S)
            await draining

    asyncio.run(run())


@pytest.mark.parametrize(
    ("wanted", "reason"), [({"feed": "other"}, "FEED_UNKNOWN"), ({"symbols": ["NOBODY"]}, "SYMBOL_UNKNOWN")]
)
def test_what_is_not_there_is_refused_at_once(engine, tmp_path, wanted, reason):
    async def run() -> None:
        async with subscribe_server(tmp_path, TestFeed(engine), engine) as server:
            with pytest.raises(SessionRefused) as refused:
                await subscribe(server.address, **wanted).open()
            assert refused.value.reason == reason

    asyncio.run(run())


def test_nobody_there_is_told_after_the_connect_deadline(tmp_path):
    async def run() -> None:
        with pytest.raises(ConnectFailed, match="no daemon took the subscription"):
            await subscribe(f"unix:{tmp_path}/nobody.sock", connect_deadline_s=0.05).open()

    asyncio.run(run())


@pytest.mark.parametrize(
    "wrong",
    [
        {"feed": 7},
        {"symbols": "AAPL"},
        {"symbols": [""]},
        {"symbols": [7]},
        {"connect_deadline_s": 0},
        {"reconnect": "yes"},
        {"address": "nowhere"},
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(wrong):
    (name,) = wrong
    with pytest.raises(LocalUsageError, match=f"^{name}"):
        subscribe(**{"address": "unix:/x"} | wrong)


def beside_a_server(engine: Engine, tmp_path, work) -> object:
    """Run *work(server, feed)* in a thread beside a server, and return what it returns."""

    async def run() -> object:
        feed = TestFeed(engine)
        async with subscribe_server(tmp_path, feed, engine) as server:
            loop = asyncio.get_running_loop()

            def publish(ticks) -> None:
                asyncio.run_coroutine_threadsafe(feed.publish(ticks), loop).result(PATIENCE_S)

            return await asyncio.to_thread(work, server, publish)

    return asyncio.run(run())


def test_the_blocking_subscription_gives_the_same_arrays(engine, tmp_path):
    def work(server: SubscribeServer, publish) -> None:
        with subscribe_blocking(server.address, symbols=["ALC"]) as subscription:
            assert subscription.subscribed.feed == "itch"
            publish(TICKS)
            batches = []
            for batch in subscription.batches(timeout_s=PATIENCE_S):
                batches.append(batch)
                if sum(len(one.predictions) for one in batches) == len(TICKS) // 2:
                    break
            assert set(joined(batches)["instrument_id"].tolist()) == {1}
            assert subscription.reconnects == 0
        assert subscription.receive() is None
        subscription.close()
        with pytest.raises(LocalUsageError, match="opened once"):
            subscription.open()

    beside_a_server(engine, tmp_path, work)


LIVES = """
import os, signal, sys, threading
from penstock_client.blocking_subscription import subscribe
from penstock_client.errors import LocalUsageError

def refused(verb):
    try:
        verb()
    except LocalUsageError as error:
        return "forked" in str(error)
    return False

subscription = subscribe(sys.argv[1])
subscription.open()
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        subscription.close()
        os._exit(0 if refused(subscription.receive) and refused(lambda: subscription.subscribed) else 1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != -signal.SIGSEGV:  # gRPC's own, at times, before the child has begun.
        break
print(ended in (0, -signal.SIGSEGV), flush=True)
print(len(subscription.receive(60).predictions) > 0, subscription.reconnects, flush=True)
threading.Thread(target=list, args=(subscription.batches(),), daemon=True).start()
"""


def test_a_forked_child_leaves_the_subscription_to_its_parent_whose_exit_ends_waits_without_a_word(engine, tmp_path):
    def work(server: SubscribeServer, publish) -> None:
        line = [sys.executable, "-c", LIVES, server.address]
        environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
        with subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as strategy:
            assert strategy.stdout is not None
            assert strategy.stdout.readline() == "True\n"
            publish(TICKS)
            said, complaints = strategy.communicate(timeout=PATIENCE_S)
        assert (strategy.returncode, said) == (0, "True 0\n"), complaints
        assert "Traceback" not in complaints

    beside_a_server(engine, tmp_path, work)


def command(server: SubscribeServer, *flags: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "penstock_client.cli", "subscribe", "--to", server.address, *flags]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_subscribers(server: SubscribeServer, count: int) -> None:
    while server.subscriptions.counts.subscribers < count:
        signal.sigtimedwait([], 0.002)


def test_the_command_prints_predictions_and_figures(engine, tmp_path):
    def work(server: SubscribeServer, publish) -> tuple[str, dict[str, object]]:
        lines, figures = command(server, "--count", "20"), command(server, "--count", "600", "--json")
        wait_for_subscribers(server, 2)
        publish(TICKS)
        said, told = lines.communicate(timeout=PATIENCE_S)[0], figures.communicate(timeout=PATIENCE_S)[0]
        assert (lines.returncode, figures.returncode) == (0, 0)
        return said, json.loads(told)

    said, told = beside_a_server(engine, tmp_path, work)
    printed = said.splitlines()
    assert printed[0].startswith("0 ALC  ")
    assert printed[1].startswith("1 BOB  ")
    assert " up 0." in printed[0]
    assert "WARMING" in printed[0]
    assert printed[20].startswith("received     20 predictions")
    assert (told["predictions"], told["missing"], told["gaps"], told["feed"]) == (600, 0, 0, "itch")
    assert told["sent_to_receipt"]["count"] == told["batches"]
    assert told["wire_to_receipt"] is None, "no packet, no wire"


def test_ctrl_c_ends_the_command_with_its_figures(engine, tmp_path):
    def work(server: SubscribeServer, publish) -> tuple[int, str]:
        process = command(server)
        wait_for_subscribers(server, 1)
        publish(TICKS[:5])
        assert process.stdout is not None
        assert process.stdout.readline().startswith("0 ALC  "), "now it reads"
        process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE_S), process.communicate()[0]

    code, said = beside_a_server(engine, tmp_path, work)
    assert code == 130
    assert re.search(r"^received +[1-5] predictions", said, re.MULTILINE)


def test_a_feed_that_is_not_there_ends_the_command_with_3(engine, tmp_path, capsys):
    def work(server: SubscribeServer, _publish) -> int:
        process = command(server, "--feed", "other")
        error = process.communicate(timeout=PATIENCE_S)[1]
        assert "FEED_UNKNOWN" in error
        assert "Traceback" not in error
        return process.returncode

    assert beside_a_server(engine, tmp_path, work) == 3
    assert main(["subscribe", "--count", "0"]) == 2
    assert "--count must be 1 or more" in capsys.readouterr().err


def test_figures_tell_gaps_missing_sequences_and_ages() -> None:
    predictions = np.zeros(4, PREDICTION_DTYPE)
    predictions["sequence"] = [0, 1, 5, 6]
    predictions["wire_ns"] = [1_000_000, 1_100_000, 0, 3_000_000]
    received = Received(whole=True)
    received.add(FeedBatch(predictions[:2], [], 1_200_000, 2_000_000), predictions[:2])
    received.add(FeedBatch(predictions[2:], [], 1_300_000, 2_500_000, after_gap=True), predictions[2:])
    found = received.figures(pb.Subscribed(feed="itch"))
    assert (found["gaps"], found["missing"]) == (1, 3)
    ages = found["wire_to_receipt"]
    assert (ages["count"], ages["negative"], ages["max_us"]) == (3, 1, 1000.0)
    digest = PredictionHash()
    digest.update(predictions)
    assert found["prediction_hash"] == digest.hexdigest()
    assert "3 predictions missing" in received_text(found)
    assert "1 below 0: the clocks disagree" in received_text(found)
