"""Playing a file as a feed: real packets, heard by plain sockets that joined the group on the loopback interface."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from penstock.v1 import moldudp64 as mold
from penstock_client.feed_faults import ON_A, ON_BOTH, FaultPlan
from penstock_client.feed_file import open_feed_file
from penstock_client.feed_group import parse_group
from penstock_client.feed_player import ENDS, FeedPlan, FeedRun, play, play_async
from penstock_client.feed_summary import feed_text, summarise_feed
from penstock_client.files import write_ticks
from penstock_client.instruments import Instrument
from penstock_client.replay_schedule import MAX_SPEED
from support.feed_listener import FeedListener
from support.itch_files import itch_messages, write_itch
from support.tick_arrays import quotes

SESSION = mold.session_bytes("TESTING")
TWO = [Instrument(1, "BTCUSDT", "TEST.VENUE"), Instrument(2, "ETHUSDT", "TEST.VENUE")]


@pytest.fixture
def ticks():
    return quotes(300, (1, 2), gap_ns=200_000)


@pytest.fixture
def day(tmp_path, ticks):
    write_ticks(tmp_path / "day.dbn", ticks, TWO)
    return tmp_path / "day.dbn"


def plan_for(day, *lines: FeedListener, **changes: object) -> FeedPlan:
    groups = tuple(parse_group("--group", line.group) for line in lines)
    plan = FeedPlan(open_feed_file(day, None), groups, SESSION, speed=MAX_SPEED, linger_s=0.0)
    return replace(plan, **changes)


def test_every_record_is_heard_once_in_order_between_heartbeat_and_end(day, ticks):
    with FeedListener() as line:
        run = play(plan_for(day, line))
        heard = line.until_end()
        assert [line.next() for _ in range(ENDS - 1)] == [heard.packets[-1]] * (ENDS - 1)
    first, *middle, last = heard.headers
    assert (first.sequence, first.count) == (1, mold.HEARTBEAT)
    assert (last.sequence, last.count) == (len(ticks) + 1, mold.END_OF_SESSION)
    assert {header.session for header in heard.headers} == {SESSION}
    assert all(len(packet) <= 1472 for packet in heard.packets)
    assert all(header.count == 17 for header in middle[:-1]), "a packet at full speed is full"
    assert list(heard.by_sequence) == list(range(1, len(ticks) + 1))
    assert b"".join(heard.by_sequence.values()) == ticks.tobytes()
    assert (run.sent, run.packets) == (len(ticks), len(middle))


def test_no_message_leaves_before_it_is_due_and_what_is_due_together_leaves_together(tmp_path):
    ticks = quotes(60)
    ticks["ts_recv"] = ticks["ts_recv"][0] + np.repeat(np.arange(6, dtype=np.uint64), 10) * np.uint64(20_000_000)
    write_ticks(tmp_path / "day.dbn", ticks, TWO[:1])
    with FeedListener() as line:
        run = play(plan_for(tmp_path / "day.dbn", line, speed=2.0, payload_bytes_max=20 + 10 * 82))
        heard = line.until_end()
    assert np.all(run.late_ns >= 0)
    assert np.array_equal(np.diff(run.scheduled_ns[::10]), np.full(5, 10_000_000))
    starts = [header.sequence for header in heard.headers if header.messages]
    assert set(starts) <= {1, 11, 21, 31, 41, 51}, "ticks of one moment were spread over packets"
    found = summarise_feed(run)
    assert found["late_p50_us"] <= found["late_p99_us"] <= found["late_max_us"]


def test_silence_is_filled_with_heartbeats_that_name_the_next_sequence(tmp_path):
    ticks = quotes(2)
    ticks["ts_recv"] = ticks["ts_recv"][0] + np.array([0, 400_000_000], np.uint64)
    write_ticks(tmp_path / "day.dbn", ticks, TWO[:1])
    with FeedListener() as line:
        run = play(plan_for(tmp_path / "day.dbn", line, speed=1.0, heartbeat_s=0.05))
        heard = line.until_end()
    counts = [(header.sequence, header.count) for header in heard.headers]
    between = counts[counts.index((1, 1)) + 1 : counts.index((2, 1))]
    assert between
    assert set(between) == {(2, mold.HEARTBEAT)}
    assert run.heartbeats == counts.count((2, 0)) + counts.count((1, 0))


def test_both_lines_carry_the_same_packets(day):
    with FeedListener() as a, FeedListener("239.255.77.2") as b:
        play(plan_for(day, a, b))
        assert a.until_end().packets == b.until_end().packets


def test_faults_on_line_a_leave_line_b_whole_and_are_those_that_are_counted(day, ticks):
    faults = FaultPlan(drop=0.2, duplicate=0.2, reorder=0.2, seed=3, lines=ON_A)
    with FeedListener() as a, FeedListener("239.255.77.2") as b:
        run = play(plan_for(day, a, b, faults=faults, payload_bytes_max=400))
        on_a, on_b = a.until_end(), b.until_end()
    assert b"".join(on_b.by_sequence.values()) == ticks.tobytes()
    sent = [header.sequence for header in on_b.headers if header.messages]
    got = [header.sequence for header in on_a.headers if header.messages]
    made = run.faults
    assert min(made.dropped, made.duplicated, made.reordered) > 0
    assert len(set(sent) - set(got)) == made.dropped
    assert len(got) - len(set(got)) == made.duplicated
    assert 0 < sum(later < before for before, later in pairwise(got)) <= made.reordered
    assert summarise_feed(run)["faults"]["dropped"] == made.dropped
    assert "made on purpose on line A" in feed_text(summarise_feed(run))


def test_faults_on_both_lines_are_the_same_ones_and_the_same_again_with_the_same_seed(day):
    heard = []
    for _ in range(2):
        with FeedListener() as a, FeedListener("239.255.77.2") as b:
            play(plan_for(day, a, b, faults=FaultPlan(drop=0.3, seed=5, lines=ON_BOTH), payload_bytes_max=400))
            heard += [a.until_end().packets, b.until_end().packets]
    assert heard[0] == heard[1] == heard[2] == heard[3]
    assert len(heard[0]) < 2 + 300 / 4


def test_a_packet_that_was_kept_back_is_sent_before_silence_and_before_the_end(tmp_path):
    ticks = quotes(5)
    ticks["ts_recv"] = ticks["ts_recv"][0] + np.array([0, 0, 300_000_000, 300_000_000, 300_000_000], np.uint64)
    write_ticks(tmp_path / "day.dbn", ticks, TWO[:1])
    with FeedListener() as line:
        faults = FaultPlan(reorder=1.0)
        plan = plan_for(tmp_path / "day.dbn", line, speed=1.0, heartbeat_s=0.05, faults=faults, payload_bytes_max=102)
        play(plan)
        heard = [(header.sequence, header.count) for header in line.until_end().headers]
    assert [sequence for sequence, count in heard if count == 1] == [2, 1, 4, 3, 5]
    file = open_feed_file(tmp_path / "day.dbn", None)
    with FeedListener() as line:
        group = (parse_group("--group", line.group),)
        play(FeedPlan(file.part(slice(0, 3)), group, SESSION, heartbeat_s=0.05, faults=faults, payload_bytes_max=184))
        heard = [(header.sequence, header.count) for header in line.until_end().headers]
    assert heard.index((1, 2)) < heard.index((3, 0)), "the first packet was kept back through the silence"


def recover(address: str, heard: dict[int, bytes], count: int) -> None:
    """Ask for what is missing of *count* messages until nothing is, after requests that deserve no answer."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.connect((host, int(port)))
        for wrong in (  # None of these gets an answer; the next one does.
            mold.pack_header(mold.session_bytes("OTHER"), 1, 1),
            mold.pack_header(SESSION, 1, 0),
            mold.pack_header(SESSION, 0, 1),
            mold.pack_header(SESSION, count + 1, 1),
            mold.pack_header(SESSION, 1, 1)[:19],
            mold.pack_header(SESSION, 1, 1) + b"x",
        ):
            asking.send(wrong)
        while missing := [sequence for sequence in range(1, count + 1) if sequence not in heard]:
            asking.send(mold.pack_header(SESSION, missing[0], 0xFFFE))
            header, messages = mold.unpack_packet(asking.recv(65_536))
            assert header.sequence == missing[0]
            heard |= {header.sequence + index: bytes(message) for index, message in enumerate(messages)}


def test_what_was_lost_is_recovered_by_re_requests(day, ticks):
    runs: list[FeedRun] = []

    async def play_and_recover(plan: FeedPlan, line: FeedListener) -> dict[int, bytes]:
        playing = asyncio.create_task(play_async(plan, runs.append))
        heard = (await asyncio.to_thread(line.until_end)).by_sequence
        assert 0 < len(heard) < len(ticks)
        await asyncio.to_thread(recover, runs[0].recovery.address, heard, len(ticks))
        playing.cancel()
        await asyncio.wait([playing])
        return heard

    faults = FaultPlan(drop=0.4, seed=1)
    with FeedListener() as line:
        plan = plan_for(day, line, faults=faults, recovery_port=0, linger_s=60.0, payload_bytes_max=600)
        heard = asyncio.run(play_and_recover(plan, line))
    assert b"".join(heard[sequence] for sequence in sorted(heard)) == ticks.tobytes()
    found = summarise_feed(runs[0])["re_requests"]
    assert found["refused"] == 6
    assert found["requests"] == found["packets"] + 6
    assert "re-requests" in feed_text(summarise_feed(runs[0]))


def test_itch_messages_are_heard_as_they_stand_in_the_file(tmp_path):
    messages = itch_messages(200)
    with FeedListener() as line:
        file = open_feed_file(write_itch(tmp_path / "day.itch.gz", messages), dt.date(2010, 12, 24))
        play(FeedPlan(file, (parse_group("--group", line.group),), SESSION, speed=MAX_SPEED, linger_s=0.0))
        heard = line.until_end()
    assert list(heard.by_sequence.values()) == messages


def test_ctrl_c_ends_the_session_and_says_how_far_it_came(tmp_path):
    ticks = quotes(2_000, gap_ns=50_000_000)
    write_ticks(tmp_path / "day.dbn", ticks, TWO[:1])
    with FeedListener() as line:
        command = [sys.executable, "-m", "penstock_client.cli", "feed", str(tmp_path / "day.dbn")]
        command += ["--group", line.group, "--json", "--linger", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while not mold.unpack_header(line.next()).messages:
            pass
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        end = line.until_end().headers[-1]
    assert process.returncode == 130
    found = json.loads(output)
    assert found["interrupted"]
    assert 1 <= found["messages"] == end.sequence - 1 < len(ticks)


def test_a_signal_after_the_last_message_leaves_at_once_and_is_no_interruption(day, ticks):
    with FeedListener() as line:
        command = [sys.executable, "-m", "penstock_client.cli", "feed", str(day), "--group", line.group]
        command += ["--speed", "max", "--linger", "600", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line.until_end()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert (json.loads(output)["messages"], json.loads(output)["interrupted"]) == (len(ticks), False)
