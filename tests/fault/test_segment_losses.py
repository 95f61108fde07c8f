"""Strategies that die, freeze, or play with what they were given: the daemon and the others go on, and nothing leaks."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import shared_ring as layout
from penstock.v1.records import PREDICTION_BYTES, predictions_from_bytes
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, hash_of, run_through, undisturbed
from support.segment_client import AttachRefusedError, SegmentClient, attach, connect, reply_of, request
from support.tick_arrays import quotes
from support.tick_stream import tick_stream
from support.victim import wait_until

SEED, COUNT = 41, 4000
TICKS = tick_stream(SEED, COUNT)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("losses")
    sets = ("shared_memory.slots=128", "shared_memory.attach_timeout_s=2", "metrics.address=127.0.0.1:0")
    with running_daemon(folder, *small(folder, *sets)) as daemon:
        yield daemon


def held(daemon: RunningDaemon) -> tuple[int, int]:
    """How many segments the daemon has mapped, and how many of their descriptors it has."""
    maps = Path(f"/proc/{daemon.pid}/maps").read_text().count("penstock-session-")
    links = []
    for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(descriptor.readlink()))
    return maps, sum("penstock-session-" in link for link in links)


def descriptors(daemon: RunningDaemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@contextlib.contextmanager
def shared(daemon: RunningDaemon, **changes: object) -> Iterator[tuple[RawStream, SegmentClient]]:
    with RawStream(daemon.address) as stream, attach(stream.hello(shared_memory=True, **changes)) as segment:
        yield stream, segment


def test_strategy_killed_in_the_middle_of_a_write_is_resumed_elsewhere(daemon: RunningDaemon, tmp_path: Path) -> None:
    expected = undisturbed(daemon.address, TICKS[:1000])
    command = [sys.executable, "-m", "support.segment_victim", daemon.address, str(tmp_path), str(SEED), str(COUNT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    with RawStream(daemon.address) as beside:
        beside.hello()
        first = run_through(beside, TICKS[:500])
        victim = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        try:
            wait_until((tmp_path / "token").exists)
            assert held(daemon) == (1, 0), "mapped, and nothing else is needed"
        finally:
            victim.kill()
            victim.wait()
        wait_until(lambda: held(daemon) == (0, 0))
        rest = run_through(beside, TICKS[500:1000])
        assert hash_of(first, rest) == hash_of(expected)
    data = (tmp_path / "answers").read_bytes()
    got = predictions_from_bytes(data[: len(data) // PREDICTION_BYTES * PREDICTION_BYTES])
    with RawStream(daemon.address) as stream:
        token = (tmp_path / "token").read_bytes()
        welcome = stream.hello(shared_memory=True, resume_token=token, next_prediction_sequence=len(got))
        assert welcome.state_origin == pb.STATE_ORIGIN_RESUMED
        with attach(welcome) as segment:
            again = segment.predictions(welcome.next_sequence - len(got))
            segment.publish(TICKS[welcome.next_sequence : welcome.next_sequence + 50])
            last = segment.predictions(50)
    found = np.concatenate([got, again, last])
    assert found["sequence"].tolist() == list(range(len(found)))
    assert hash_of(found) == hash_of(undisturbed(daemon.address, TICKS[: len(found)]))


def test_strategy_that_stops_reading_holds_up_itself_alone(daemon: RunningDaemon) -> None:
    expected = hash_of(undisturbed(daemon.address, TICKS[:600]))
    with shared(daemon) as (_, deaf), shared(daemon) as (_, other):
        deaf.publish(quotes(128))
        wait_until(lambda: deaf.ready() == 128)
        deaf.publish(quotes(128))
        found = []
        for start in range(0, 600, 100):
            other.publish(TICKS[start : start + 100])
            found.append(other.predictions(100))
        assert hash_of(*found) == expected
        assert len(deaf.predictions(256)) == 256, "none of its own is lost"


def test_everything_is_given_back_after_many_attachments(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        stream.goodbye()
        assert stream.end().code == "OK"
    wait_until(lambda: held(daemon) == (0, 0))
    before = descriptors(daemon)
    for number in range(12):
        with shared(daemon) as (stream, segment):
            segment.publish(TICKS[:20])
            segment.predictions(20)
            if number % 3 == 0:
                stream.goodbye()
                assert stream.end().code == "OK"
            elif number % 3 == 1:
                segment.set_word(layout.TICK_PUBLISHED_AT, -1)
                segment.ring()
                assert stream.end().reason == "SEGMENT_CURSOR"
    wait_until(lambda: held(daemon) == (0, 0))
    wait_until(lambda: descriptors(daemon) <= before)


def test_bell_that_is_kept_rings_nobody(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        bell = os.dup(segment.bell)
        os.set_blocking(bell, True)
        os.eventfd_write(bell, 2**64 - 2)  # One more would block whoever writes.
        segment.write(TICKS[:5])
        segment.set_word(layout.TICK_PUBLISHED_AT, 5)
        assert len(segment.predictions(5)) == 5
        stream.goodbye()
        assert stream.end().code == "OK"
    os.close(bell)
    assert len(undisturbed(daemon.address, TICKS[:50])) == 50


def test_words_after_the_request_end_the_attachment(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        segment.connection.send(b"more")
        end = stream.end()
        assert (end.code, end.reason) == ("UNAVAILABLE", "SEGMENT_LOST")
        assert segment.hung_up()


@pytest.mark.parametrize(
    ("packet", "status", "sentence"),
    [
        (b"x", 3, "request: was 1 bytes; send one packet of 32 bytes that begins with PENSTOCK"),
        (b"PENSTOCK" + bytes(25), 3, "request: was 33 bytes"),
        (b"GARBAGE!" + bytes(24), 3, "request: was 32 bytes"),
        (layout.ATTACH_REQUEST.pack(layout.ATTACH_MAGIC, 2, 0, bytes(16)), 9, "layout_version: was 2"),
        (request(bytes(16)), 16, "token: was none that is good"),
    ],
)
def test_garbage_gets_a_sentence_and_the_end(daemon: RunningDaemon, packet: bytes, status: int, sentence: str) -> None:
    with connect(daemon.address.removeprefix("unix:") + ".shm") as connection:
        connection.send(packet)
        found, size_bytes, said, given = reply_of(connection)
        assert (found, size_bytes, given) == (status, 0, [])
        assert said.startswith(sentence)
        assert connection.recv(64) == b""


def test_connection_that_says_nothing_is_told_and_closed(daemon: RunningDaemon) -> None:
    with connect(daemon.address.removeprefix("unix:") + ".shm") as connection:
        assert reply_of(connection)[2].startswith("request: was nothing in shared_memory.attach_timeout_s")
        assert connection.recv(64) == b""


def test_crowd_that_says_nothing_keeps_nobody_out(daemon: RunningDaemon) -> None:
    path = daemon.address.removeprefix("unix:") + ".shm"
    before = descriptors(daemon)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(path)) for _ in range(100)]
        with shared(daemon) as (stream, segment):
            segment.publish(TICKS[:5])
            assert len(segment.predictions(5)) == 5
            assert descriptors(daemon) < before + 60
            stream.goodbye()
            assert stream.end().code == "OK"
        said = [reply_of(connection)[2] for connection in crowd]
    assert any("that said nothing yet" in sentence for sentence in said), "the oldest gave way"
    wait_until(lambda: descriptors(daemon) <= before)


def test_flood_of_garbage_keeps_nobody_out(daemon: RunningDaemon) -> None:
    path = daemon.address.removeprefix("unix:") + ".shm"
    for number in range(300):
        with connect(path) as connection, contextlib.suppress(BrokenPipeError):
            connection.send(os.urandom(1 + number % 64))
    with shared(daemon) as (stream, segment):
        segment.publish(TICKS[:5])
        assert len(segment.predictions(5)) == 5
        stream.goodbye()
        assert stream.end().code == "OK"


def test_token_that_came_too_late_is_refused(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as stream, connect(daemon.address.removeprefix("unix:") + ".shm") as idle:
        welcome = stream.hello(shared_memory=True)
        reply_of(idle)  # Which takes as long as a token is good.
        with connect(daemon.address.removeprefix("unix:") + ".shm") as later:
            reply_of(later)
        with pytest.raises(AttachRefusedError, match="token"):
            attach(welcome)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused(daemon: RunningDaemon) -> None:
    path = Path(daemon.address.removeprefix("unix:") + ".shm")
    path.chmod(0o666)  # As somebody with more rights than sense might.
    for folder in path.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); one.connect(sys.argv[1])\n"
        "sys.stdout.write(one.recv(1024)[16:].decode())\n"
    )
    said = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True).stdout
    assert said.startswith("shared_memory.group: was user 65534, group 65534")
    path.chmod(0o600)


def test_daemon_that_dies_hangs_up(tmp_path: Path) -> None:
    with running_daemon(tmp_path, *small(tmp_path)) as daemon, shared(daemon) as (_, segment):
        segment.publish(TICKS[:5])
        segment.predictions(5)
        daemon.kill()
        assert segment.hung_up()
        assert segment.word(layout.CLOSED_AT) == 0, "nobody was there to say why"


def test_live_attach_socket_is_not_stolen(tmp_path: Path) -> None:
    path = tmp_path / "other.shm"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "penstock_daemon.main"]
        for setting in (
            f"server.address=unix:{tmp_path}/s.sock",
            "metrics.address=",
            f"shared_memory.address=unix:{path}",
        ):
            command += ["--set", setting]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert f"shared_memory.address: must be free, was unix:{path}" in ended.stderr
