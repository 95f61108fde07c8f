"""What threads leave in a tap comes into the recordings it belongs to, in order; what found it full is counted and noted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from penstock.v1 import moldudp64
from penstock.v1.records import BookFlag
from penstock_client.instruments import Instrument
from penstock_daemon.config_fields import RecordConfig
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_tap import CONSUMED, NOT_RECORDED, tap_parts
from penstock_daemon.feed.memory import Payload
from penstock_daemon.recorder import Recorder
from penstock_daemon.recorder_care import FEED_SESSION, RecorderCare
from penstock_daemon.recorder_taps import TapDrain
from support.engines import SIZES
from support.feed_rig import SESSION, FeedRig, packet
from support.itch_orders import LOCATES, STOCKS, add, directory, start_of_messages
from support.recordings import RecordedFile, read_recordings

MIB = 1024 * 1024
HOUR_NS = 3_600 * 10**9
ONE = [Instrument(1, "ONE", "TEST")]


class Tapped:
    """A feed whose ticks a tap of 64 brings to a recorder, and commands that its writer has applied or not."""

    def __init__(self, folder: Path, rig: FeedRig) -> None:
        self.folder = folder
        self.rig = rig
        self.recorder = Recorder(folder, 64 * MIB, HOUR_NS, 8 * MIB)
        self.given = self.applied = 0
        self.drain = TapDrain(rig.feed.tap, lambda: (self.given, self.applied))
        self.left = 0

    def begin(self, session_id: int = 0):
        return self.drain.begin(0, self.recorder.open_session(session_id, "feed", ONE))

    def leave(self, ticks: int) -> None:
        """Let a packet of so many ticks come."""
        self.rig.offer(packet(self.left + 1, ticks))
        self.left += ticks

    def empty(self) -> None:
        while self.drain.drain():
            pass

    def recorded(self) -> list[RecordedFile]:
        """Return every file, once all are written."""
        self.drain.finish()
        assert self.recorder.close(20)
        return read_recordings(self.folder)


@pytest.fixture
def tapped(tmp_path: Path) -> Iterator[Tapped]:
    made = Tapped(tmp_path, FeedRig(tap_ticks=64))
    yield made
    assert made.recorder.close(20)


def test_what_finds_the_tap_full_is_counted_and_noted_as_a_gap_in_its_place(tapped: Tapped) -> None:
    tapped.begin()
    tapped.leave(50)
    tapped.leave(50)
    tapped.empty()
    tapped.leave(10)
    tapped.empty()
    tapped.leave(70)
    (file,) = tapped.recorded()
    kept = np.r_[0:64, 100:110, 110:174]
    assert tapped.rig.ticks()["bid_px"].tolist() == list(range(1, 181)), "the engine gets them all"
    assert file.ticks["bid_px"].tolist() == (kept + 1).tolist()
    assert file.entry["gaps"] == [{"after_ticks": 64, "ticks": 36}, {"after_ticks": 138, "ticks": 6}]
    stats = tapped.recorder.stats()
    assert (stats.ticks_written, stats.ticks_missed, stats.ticks_dropped, stats.gaps) == (138, 42, 42, 2)


def test_every_turn_of_leaving_and_looking_keeps_order_and_account(tapped: Tapped) -> None:
    tapped.begin()
    draw = np.random.default_rng(8)
    while tapped.left < 3_000:
        tapped.leave(int(draw.integers(1, 60)))
        if draw.random() < 0.7:
            tapped.empty()
    (file,) = tapped.recorded()
    places, at, within = [], 0, 0
    for gap in file.entry["gaps"]:
        places.extend(range(at, at + gap["after_ticks"] - within))
        at, within = at + gap["after_ticks"] - within + gap["ticks"], gap["after_ticks"]
    places.extend(range(at, at + len(file.ticks) - within))
    assert len(file.entry["gaps"]) > 5
    assert np.array_equal(file.ticks["bid_px"], np.array(places) + 1)
    assert tapped.recorder.stats().ticks_missed + len(file.ticks) == tapped.left


def test_recording_that_is_closed_gets_what_its_writer_still_leaves_and_then_ends(tapped: Tapped) -> None:
    recording = tapped.begin()
    tapped.leave(5)
    recording.close()
    tapped.given = 3
    tapped.empty()
    tapped.leave(5)
    tapped.empty()
    assert tapped.drain.recordings == 1, "its segment is not let go of yet"
    tapped.leave(5)
    tapped.applied = 3
    tapped.empty()
    assert tapped.drain.recordings == 0
    assert tap_parts(tapped.rig.feed.tap).recordings[0] == NOT_RECORDED
    tapped.leave(5)
    (file,) = tapped.recorded()
    assert len(file.ticks) == 15


def test_source_that_another_session_has_at_once_gives_each_its_own(tapped: Tapped) -> None:
    tapped.leave(3)
    tapped.begin(1).close()
    tapped.leave(70)
    tapped.begin(2)
    tapped.leave(10)
    first, second = tapped.recorded()
    assert first.ticks["bid_px"].tolist() == list(range(4, 68))
    assert first.entry["gaps"] == [{"after_ticks": 64, "ticks": 6}]
    assert second.ticks["bid_px"].tolist() == list(range(74, 84))
    assert (second.entry["session_id"], second.entry["gaps"]) == (2, [])


def test_ticks_of_a_doubtful_book_are_recorded_as_the_engine_sees_them(tmp_path: Path) -> None:
    """Whole slots, the flag of the doubt and the time of arrival included: a replay sees what the engine saw."""
    rig = FeedRig(Payload.ITCH, tuple(STOCKS), (5, 1, 9), tap_ticks=64)
    tapped = Tapped(tmp_path, rig)
    tapped.begin()
    opening = [start_of_messages(), *(directory(name) for name in LOCATES)]
    orders = [add("AAPL", number, "B", 100, 1_000_000 + number) for number in range(1, 30)]
    rig.offer(moldudp64.pack_packet(SESSION, 1, [*opening, *orders[:10]]))
    rig.offer(moldudp64.pack_packet(SESSION, 1 + len(opening) + 12, orders[12:]))  # Two were lost.
    rig.pass_time(10**9)
    (file,) = tapped.recorded()
    ticks = rig.ticks()
    assert set(ticks["flags"].tolist()) == {int(BookFlag.LAST), int(BookFlag.LAST | BookFlag.MAYBE_BAD_BOOK)}
    assert file.ticks.tobytes() == b"".join(tick.tobytes()[:80] for tick in ticks)


def test_stop_takes_out_what_is_left_and_the_log_tells_what_found_no_room(tmp_path: Path) -> None:
    care = RecorderCare(RecordConfig(folder=str(tmp_path / "kept"), tap_ticks=64))
    care.open()
    rig = FeedRig(tap_ticks=care.tap_ticks)
    care.record_feed("itch", ONE, rig.feed.tap)
    rig.offer(packet(1, 90))
    with capture_logs() as logs:
        care.close()
    (told,) = [line for line in logs if line["event"] == "recording_tap_full"]
    assert (told["ticks"], told["total"]) == (26, 26)
    assert "record.tap_ticks" in told["mend"]
    (file,) = read_recordings(tmp_path / "kept")
    assert (len(file.ticks), file.entry["session_id"], file.entry["client_name"]) == (64, FEED_SESSION, "itch")


def test_stop_tells_of_ticks_that_found_no_room_since_the_log_told_last(tmp_path: Path) -> None:
    care = RecorderCare(RecordConfig(folder=str(tmp_path / "kept"), tap_ticks=64))
    care.open()
    engine = Engine(SIZES, EngineSettings())
    rig = FeedRig(tap_ticks=care.tap_ticks)

    async def lose_twice(logs: list) -> None:
        care.serve(engine)
        care.record_feed("itch", ONE, rig.feed.tap)
        rig.offer(packet(1, 90))
        async with asyncio.timeout(60):
            while rig.feed.tap[CONSUMED] < 64:  # noqa: ASYNC110 - No event tells of it.
                await asyncio.sleep(0.001)
            rig.offer(packet(91, 10))
            while not told(logs):  # noqa: ASYNC110 - Nor of this.
                await asyncio.sleep(0.001)
        rig.offer(packet(101, 90))
        care.close()

    def told(logs: list) -> list[tuple[int, int]]:
        return [(line["ticks"], line["total"]) for line in logs if line["event"] == "recording_tap_full"]

    with capture_logs() as logs:
        asyncio.run(lose_twice(logs))
    engine.close()
    assert told(logs) == [(26, 26), (26, 52)]


def test_nothing_is_left_where_nothing_is_recorded() -> None:
    care = RecorderCare(RecordConfig())
    care.open()
    rig = FeedRig(tap_ticks=care.tap_ticks)
    care.record_feed("itch", ONE, rig.feed.tap)
    rig.offer(packet(1, 90))
    assert len(rig.ticks()) == 90
    tap = tap_parts(rig.feed.tap)
    assert (tap.counts[0], len(tap.slots)) == (0, 0)
    care.close()
