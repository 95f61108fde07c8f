"""The whole path: a file, `penstock feed`, multicast with kernel stamps, penstockd's feed, Subscribe, two strategies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.v1.records import Clock, PredictionFlag, PredictionHash
from penstock_client import SessionLost, subscribe
from penstock_client.files import merge, open_ticks, recorded_session, write_ticks
from penstock_client.instruments import Instrument
from penstock_client.replay import ReplayPlan, replay
from penstock_client.replay_schedule import MAX_SPEED
from penstock_client.replay_summary import prediction_hash
from support.daemon import RunningDaemon, running_daemon, small
from support.feed_listener import GROUP
from support.tick_arrays import quotes

TWO = [Instrument(1, "BTCUSDT", "", 1000), Instrument(2, "ETHUSDT")]
PATIENCE_S = 60.0


@dataclass
class Fed:
    """A daemon with a feed, and the file that is played to it."""

    daemon: RunningDaemon
    file: Path
    ticks: NDArray[np.void]
    group: str

    @contextlib.contextmanager
    def playing(self, *flags: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "penstock_client.cli", "feed", str(self.file), "--group", self.group]
        command += ["--quiet", "--linger", "0.1", *flags]
        player = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            yield player
        finally:
            player.terminate()
            player.communicate(timeout=PATIENCE_S)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
        trying.bind((GROUP, 0))
        return trying.getsockname()[1]


@contextlib.contextmanager
def fed(folder: Path, *sets: str) -> Iterator[Fed]:
    """A daemon with a feed of records of two instruments."""
    ticks = quotes(2_000, (1, 2), gap_ns=500_000)  # About a second of market time.
    write_ticks(folder / "day.dbn", ticks, TWO)
    group = f"{GROUP}:{free_port()}"
    settings = (f"feed.group={group}", "feed.interface=lo", "feed.payload=dbn", *sets)
    instruments = ", ".join(f"{one.symbol}={one.instrument_id}:{one.size_scale}" for one in TWO)
    with running_daemon(folder, *small(folder), *settings, f"feed.instruments={instruments}") as daemon:
        yield Fed(daemon, folder / "day.dbn", ticks, group)


async def gathered(subscription: object, count: int) -> NDArray[np.void]:
    """Return the next *count* predictions."""
    parts: list[NDArray[np.void]] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(map(len, parts)) < count:
            parts.append((await subscription.receive()).predictions)
    return np.concatenate(parts)


async def ended_by_drain(feed: Fed) -> None:
    """Subscribe, have the daemon stopped, and hear Goodbye."""
    async with subscribe(feed.daemon.address, reconnect=False) as subscription:
        stopping = asyncio.create_task(asyncio.to_thread(feed.daemon.terminate))
        with pytest.raises(SessionLost, match="draining"):
            await subscription.receive(PATIENCE_S)
        assert await stopping == 0


def test_strategies_get_the_same_predictions_of_every_message_as_a_replay_until_the_daemon_drains(
    tmp_path: Path,
) -> None:
    async def both(feed: Fed) -> list[NDArray[np.void]]:
        async with subscribe(feed.daemon.address) as one, subscribe(feed.daemon.address, feed="feed") as two:
            assert [one.symbol for one in two.subscribed.instruments] == ["BTCUSDT", "ETHUSDT"]
            with feed.playing():
                return await asyncio.gather(*(gathered(each, len(feed.ticks)) for each in (one, two)))

    with fed(tmp_path, f"record.folder={tmp_path / 'recorded'}") as feed:
        first, second = asyncio.run(both(feed))
        assert first.tobytes() == second.tobytes()
        assert first["sequence"].tolist() == list(range(len(feed.ticks)))
        assert np.array_equal(first["instrument_id"], feed.ticks["instrument_id"])
        assert set(first["clock"].tolist()) == {Clock.KERNEL}
        assert np.all(first["wire_ns"] > 0)
        assert not np.any(first["flags"] & np.uint32(PredictionFlag.BOOK_UNSOUND))
        instruments, ticks = merge([open_ticks(feed.file)])
        replayed = replay(ReplayPlan(instruments, ticks, feed.daemon.address, speed=MAX_SPEED))
        asyncio.run(ended_by_drain(feed))
    digest = PredictionHash()
    digest.update(first)
    assert digest.hexdigest() == prediction_hash(replayed)
    of_feed, of_replay = map(open_ticks, sorted((tmp_path / "recorded").glob("*.dbn")))
    assert recorded_session([of_feed]).hash_differs_because == []
    assert [recorded_session([one]).session_id for one in (of_feed, of_replay)] == [0, 1]
    for recorded in (of_feed, of_replay):
        named, recorded_ticks = merge([recorded])
        assert [(one.instrument_id, one.symbol, one.size_scale) for one in named] == [
            (one.instrument_id, one.symbol, one.size_scale) for one in instruments
        ]
        assert np.array_equal(recorded_ticks, ticks), "so a replay of it has the hash above"


def test_lost_packets_are_asked_for_again_and_every_message_is_predicted_in_order(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
        trying.bind(("127.0.0.1", 0))
        port = trying.getsockname()[1]

    async def one(feed: Fed) -> NDArray[np.void]:
        async with subscribe(feed.daemon.address) as subscription:
            with feed.playing("--drop", "0.2", "--reorder", "0.1", "--recovery-port", str(port), "--linger", "30"):
                return await gathered(subscription, len(feed.ticks))

    patient = ("feed.recovery_attempts=100", "feed.recovery_timeout_ms=50")  # No loss is given up on a slow machine.
    with fed(tmp_path, f"feed.recovery=127.0.0.1:{port}", *patient) as feed:
        found = asyncio.run(one(feed))
        assert np.array_equal(found["ts_event"], feed.ticks["ts_event"])
        assert not np.any(found["flags"] & np.uint32(PredictionFlag.BOOK_UNSOUND))
