"""The feed for real: multicast over loopback, the kernel's stamps, its own thread, and the engine behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import select
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys
from structlog.testing import capture_logs

from penstock.v1 import moldudp64
from penstock.v1.records import PREDICTION_DTYPE, Clock, PredictionFlag, Stage
from penstock_daemon import engine_memory, engine_stages
from penstock_daemon.config_feed import FeedConfig
from penstock_daemon.engine import Engine
from penstock_daemon.engine_tap import PUBLISHED, tap_parts
from penstock_daemon.faults import SessionFault
from penstock_daemon.feed import memory
from penstock_daemon.feed.feed import Feed, midnight_of
from penstock_daemon.feed.memory import LINE_A, Payload
from penstock_daemon.feed.sockets import FeedError, SocketWishes, open_line, open_recovery
from penstock_daemon.feed.thread import FeedShape, Receiver, warm_up
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelEntry
from support.engines import running_engine
from support.feed_rig import SESSION, free_port, packet, send_to
from support.models import random_model

A, B = "239.255.42.1", "239.255.42.2"
PATIENCE_S = 60.0
WISHES = SocketWishes(receive_buffer_kb=256, busy_poll_us=0, stamps="auto")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as made:
        yield made


@pytest.fixture
def config() -> FeedConfig:
    groups = {"group": f"{A}:{free_port(A)}", "group_b": f"{B}:{free_port(B)}"}
    return FeedConfig(
        **groups, interface="lo", payload="dbn", instruments="ONE=1, TWO=2", receive_buffer_kb=256, reorder_wait_us=200
    )


class Running:
    """A feed that runs, and senders on its lines."""

    def __init__(self, feed: Feed, config: FeedConfig) -> None:
        self.feed = feed
        self.lines = [send_to(*_place(group)) for group in (config.group, config.group_b)]

    def word(self, index: int) -> int:
        return self.feed.receiver.word(index)

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s, self.feed.snapshot()
            await asyncio.sleep(0.001)

    async def answers(self, count: int) -> np.ndarray:
        """Return the next *count* predictions."""
        engine, found = self.feed.engine, [np.zeros(0, PREDICTION_DTYPE)]
        while count > 0:
            await self.until(lambda: engine.answers(self.feed.source, 1)[1] > 0)
            place, ready, _ = engine.answers(self.feed.source, count)
            found.append(engine.buffers.prediction_slots[self.feed.source, place : place + ready].copy())
            engine.release_answers(self.feed.source, engine_memory.PATH_FEED, False, ready)
            count -= ready
        return np.concatenate(found)


def _place(group: str) -> tuple[str, int]:
    host, _, port = group.rpartition(":")
    return host, int(port)


@pytest.fixture
async def running(engine: Engine, config: FeedConfig) -> AsyncIterator[Running]:
    feed = Feed(config, engine, tap_ticks=64)
    link = LoopLink(engine, asyncio.get_running_loop())
    entry = ModelEntry(0, random_model(1), bytes(32))
    feed.prepare(SimpleNamespace(active=entry), "off")
    await feed.open(link)
    feed.start(frozenset())
    made = Running(feed, config)
    yield made
    for line in made.lines:
        line.close()
    feed.close()
    engine.wait_applied(engine.command(engine_memory.Command.CLOSE_SOURCE, feed.source))
    engine.reset_source(feed.source)
    link.close()


async def test_packets_become_predictions_with_the_kernels_stamps(running: Running):
    before_ns = time.time_ns()
    for first in range(1, 40):
        for line in running.lines:
            line.send(packet(first))
    answers = await running.answers(39)
    assert answers["sequence"].tolist() == list(range(39))
    assert set(answers["clock"].tolist()) == {Clock.KERNEL}
    wire_ns = answers["wire_ns"].astype(np.int64)
    assert np.all((wire_ns >= before_ns) & (wire_ns <= time.time_ns()))
    assert np.array_equal(answers["ts_recv"], answers["wire_ns"])
    assert np.all(answers["received_ns"].astype(np.int64) + 1_000_000 > wire_ns), "received after it was on the wire"
    counted = running.feed.engine.buffers.histograms[engine_memory.PATH_FEED, 0, Stage.TOTAL].sum()
    assert counted >= 39
    await running.until(lambda: running.word(memory.DUPLICATES) == 39)
    assert running.word(memory.NO_STAMP) == 0
    snapshot = running.feed.snapshot()
    assert (snapshot.session, snapshot.sound, snapshot.alive) == ("DAY1", 2, True)


async def test_a_packet_of_9000_bytes_is_one_packet(running: Running):
    data = packet(1, 109)
    assert 8_900 < len(data) <= 9_000
    running.lines[0].send(data)
    assert len(await running.answers(109)) == 109
    assert (running.word(memory.DATA_PACKETS), running.word(memory.APPLIED)) == (1, 109)


async def test_a_feed_that_was_stopped_is_not_called_gone(running: Running):
    running.feed.look()
    running.feed.stop()
    with capture_logs() as logs:
        running.feed.look()
    assert logs == []


async def test_predictions_after_a_loss_are_flagged(running: Running):
    line = running.lines[0]
    line.send(packet(1))
    flagged = bytearray(packet(3))
    flagged[20 + 2 + 30] |= 4  # MAYBE_BAD_BOOK, as a venue says it itself.
    line.send(flagged)
    answers = await running.answers(2)
    assert not int(answers["flags"][0]) & PredictionFlag.BOOK_UNSOUND
    assert int(answers["flags"][1]) & PredictionFlag.BOOK_UNSOUND
    assert running.word(memory.GAPS_UNRECOVERED) == 1


async def test_a_server_gives_what_was_missed(engine: Engine, config: FeedConfig):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(PATIENCE_S)
    asked = dataclasses.replace(config, recovery=f"127.0.0.1:{server.getsockname()[1]}", recovery_timeout_ms=2_000)
    feed = Feed(asked, engine)
    link = LoopLink(engine, asyncio.get_running_loop())
    feed.prepare(SimpleNamespace(active=ModelEntry(0, random_model(1), bytes(32))), "off")
    await feed.open(link)
    feed.start(frozenset())
    made = Running(feed, asked)
    try:
        made.lines[0].send(packet(1))
        made.lines[0].send(packet(5, 0))
        request, place = await asyncio.to_thread(server.recvfrom, 100)
        assert moldudp64.unpack_header(request) == moldudp64.Header(SESSION, 2, 3)
        server.sendto(packet(2, 3), place)
        await made.answers(4)
        assert (made.word(memory.RECOVERED), made.word(memory.GAPS_RECOVERED)) == (3, 1)
    finally:
        server.close()
        for line in made.lines:
            line.close()
        feed.close()
        engine.wait_applied(engine.command(engine_memory.Command.CLOSE_SOURCE, feed.source))
        engine.reset_source(feed.source)
        link.close()


async def test_nothing_is_allocated_and_the_interpreter_not_entered_while_packets_flow(running: Running):
    tap = tap_parts(running.feed.memory.tap)
    tap.recordings[0] = 1
    running.lines[0].send(packet(1))
    await running.answers(1)
    thread = next(one for one in threading.enumerate() if one.name == "penstock-feed")
    frame = sys._current_frames()[thread.ident]
    where = (frame.f_code.co_name, frame.f_lasti)
    _nrt_python.memsys_enable_stats()
    try:
        stats = []
        for half in (range(2, 3), range(3, 200)):
            for first in half:
                running.lines[0].send(packet(first))
            done = half[-1]
            # A call into compiled code unpacks arrays, which allocates: so the event loop stands still here.
            while running.feed.memory.words[memory.APPLIED] < done:
                time.sleep(0.001)  # noqa: ASYNC251
            stats.append(rtsys.get_allocation_stats())
    finally:
        _nrt_python.memsys_disable_stats()
    assert sys._current_frames()[thread.ident] is frame
    assert (frame.f_code.co_name, frame.f_lasti) == where
    for before, after in itertools.pairwise(stats):
        assert np.subtract(after, before).tolist() == [0, 0, 0, 0]
    await running.until(lambda: tap.counts[0] == 199)  # What found no room included.
    assert tap.words[PUBLISHED] == 64


async def test_egress_that_stands_still_is_seen_in_the_total_of_each_answer_that_waited(running: Running):
    engine, source = running.feed.engine, running.feed.source
    slots = engine.sizes.slots
    for first in range(1, slots + 1, 8):
        running.lines[0].send(packet(first, 8))
        await running.until(lambda first=first: running.word(memory.APPLIED) == first + 7)
    await running.until(lambda: engine.cursor(source, engine_memory.PREDICTION_PUBLISHED) == slots)
    stamps_ns = engine.buffers.tick_slots[source]["first_ns"].copy()
    running.lines[0].send(packet(slots + 1, 8))
    await running.until(lambda: running.word(memory.APPLIED) == slots + 8)
    assert running.word(memory.RING_DROPS) == 8, "an answer's tick is kept as long as the answer"
    before_ns = int(engine.buffers.totals[engine_memory.PATH_FEED, 0, Stage.TOTAL, engine_stages.SUM])
    handed_ns = engine.release_answers(source, engine_memory.PATH_FEED, False, slots)
    total_ns = int(engine.buffers.totals[engine_memory.PATH_FEED, 0, Stage.TOTAL, engine_stages.SUM]) - before_ns
    assert total_ns == (handed_ns - stamps_ns).sum()
    running.lines[0].send(packet(slots + 9, 8))
    assert (await running.answers(8))["sequence"].tolist() == list(range(slots, slots + 8))


async def test_junk_on_the_group_is_counted_and_harms_nothing(running: Running):
    for data in (b"junk", bytes(memory.PACKET_BYTES + 1), packet(1)[:-1], packet(1) + b"!"):
        running.lines[1].send(data)
    running.lines[1].send(packet(1))
    await running.answers(1)
    malformed = running.feed.snapshot().malformed
    assert {name: count for name, count in malformed.items() if count} == {
        "short": 1,
        "truncated": 1,
        "cut": 1,
        "trailing": 1,
    }


async def test_another_model_is_gone_over_to_unless_it_has_other_horizons(running: Running):
    feed, link = running.feed, LoopLink(running.feed.engine, asyncio.get_running_loop())
    same, other = (ModelEntry(0, random_model(1), bytes(32)) for _ in range(2))
    other.horizons = []
    running.lines[0].send(packet(1))
    await running.answers(1)
    feed.check_switch(same)
    with pytest.raises(SessionFault, match="horizons"):
        feed.check_switch(other)
    before = feed.model
    await feed.switch_model(same, link)
    assert (feed.model, same.sessions, before.sessions) == (same, 1, 0)
    running.lines[0].send(packet(2))
    assert (await running.answers(1))["sequence"].tolist() == [1]
    link.close()


def test_what_the_kernel_drops_is_told(engine: Engine):
    port = free_port(A)
    line = open_line("feed.group", f"{A}:{port}", "feed.interface", "lo", SocketWishes(64, 0, "kernel"))
    receiver = Receiver(FeedShape(Payload.DBN, ["ONE"], [1], [1], 1024, 1, 1), source=0)
    receiver.memory.settings[memory.IDLE_BLOCK] = 1
    sender = send_to(A, port)
    for _ in range(1_000):
        sender.send(packet(1, 12))
    receiver.listen_to([line.socket, None, None])
    receiver.start(engine)
    deadline_s = time.monotonic() + PATIENCE_S
    while receiver.word(memory.SOCKET_DROPS + LINE_A) + receiver.word(memory.PACKETS) < 1_000:
        assert time.monotonic() < deadline_s
        sender.send(packet(1, 12))
        time.sleep(0.001)
    assert receiver.word(memory.SOCKET_DROPS + LINE_A) > 0
    receiver.stop()
    receiver.close()
    sender.close()
    line.socket.close()


@pytest.mark.parametrize("payload", list(Payload))
def test_the_warm_up_takes_packets_of_either_payload(engine: Engine, payload: Payload):
    warm_up(engine, payload)
    assert not [one for one in threading.enumerate() if one.name == "penstock-feed"]


@pytest.mark.parametrize("interface", ["nowhere0", "10.254.254.254", "x" * 40])
def test_an_interface_that_is_not_there_is_named(interface):
    with pytest.raises(FeedError, match=r"^feed.interface: '.*' is no interface of this host; it has .*lo"):
        open_line("feed.group", f"{A}:1", "feed.interface", interface, WISHES)


def test_an_interface_can_be_named_by_its_address():
    line = open_line("feed.group", f"{A}:{free_port(A)}", "feed.interface", "127.0.0.1", WISHES)
    line.socket.close()


def test_stamps_of_a_card_that_has_none_are_refused_where_they_must_be_and_told_of_where_they_may():
    with pytest.raises(
        FeedError, match=r"feed.stamps: no stamps of the network card: lo .*; or use feed.stamps = kernel"
    ):
        open_line("feed.group", f"{A}:{free_port(A)}", "feed.interface", "lo", SocketWishes(64, 0, "hardware"))
    line = open_line("feed.group", f"{A}:{free_port(A)}", "feed.interface", "lo", WISHES)
    line.socket.close()
    assert not line.hardware
    assert "stamps are the kernel's: lo" in line.notes[0]


def test_a_line_hears_its_group_alone_and_a_recovery_socket_its_server_alone():
    port = free_port(A)
    line = open_line("feed.group", f"{A}:{port}", "feed.interface", "lo", WISHES).socket
    other_group, group = send_to(B, port), send_to(A, port)
    with line, other_group, group, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        other_group.send(b"of another group")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"to this host", ("127.0.0.1", port))
            group.send(b"of the group")
            assert _all_of(line) == [b"of the group"]
            server.bind(("127.0.0.1", 0))
            with open_recovery(f"127.0.0.1:{server.getsockname()[1]}", WISHES).socket as asking:
                stranger.sendto(b"of a stranger", asking.getsockname())
                server.sendto(b"of the server", asking.getsockname())
                assert _all_of(asking) == [b"of the server"]


def _all_of(heard: socket.socket) -> list[bytes]:
    """Return all that has come, after waiting for the first of it; what loopback delivers is there once it is sent."""
    assert select.select([heard], [], [], PATIENCE_S)[0]
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(heard.recv(100))
    return found


def test_a_recovery_server_that_has_no_name_is_told():
    with pytest.raises(FeedError, match=r"^feed.recovery: no.such.host.invalid:1 is no server that can be found"):
        open_recovery("no.such.host.invalid:1", WISHES)


def test_midnight_is_that_of_the_time_zone():
    assert midnight_of("2010-12-24", "UTC") == 1_293_148_800_000_000_000
    assert midnight_of("2010-12-24", "America/New_York") == 1_293_148_800_000_000_000 + 5 * 3600 * 10**9
    assert abs(midnight_of("", "UTC") - time.time_ns()) <= 86_400 * 10**9
