"""A session over shared memory is a session: the same answers, ends, resumes and refusals as over gRPC."""

from __future__ import annotations

import contextlib
import grp
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import shared_ring as layout
from penstock.v1.shared_ring import REFUSED_FLAG, SegmentEnd
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, StreamEndError, hash_of, instruments, run_through, undisturbed
from support.recordings import read_recordings
from support.scrape import scrape
from support.segment_client import AttachRefusedError, SegmentClient, attach, request
from support.tick_arrays import quotes
from support.tick_stream import tick_stream
from support.victim import wait_until

SLOTS = 128
TICKS = tick_stream(5, 900)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("shared")
    sets = (
        f"shared_memory.slots={SLOTS}",
        "shared_memory.segments_max=2",
        "metrics.address=127.0.0.1:0",
        f"record.folder={folder}/recorded",
    )
    with running_daemon(folder, *small(folder, *sets)) as daemon:
        yield daemon


@contextlib.contextmanager
def shared(daemon: RunningDaemon, **changes: object) -> Iterator[tuple[RawStream, SegmentClient]]:
    """A stream and its segment, for the length of a block."""
    with RawStream(daemon.address) as stream, attach(stream.hello(shared_memory=True, **changes)) as segment:
        yield stream, segment


def run_segment(segment: SegmentClient, ticks: np.ndarray) -> np.ndarray:
    found = []
    for start in range(0, len(ticks), 100):
        segment.publish(ticks[start : start + 100])
        found.append(segment.predictions(len(ticks[start : start + 100])))
    return np.concatenate(found)


def test_predictions_are_those_of_grpc_to_the_bit_and_goodbye_answers_all(daemon: RunningDaemon) -> None:
    expected = hash_of(undisturbed(daemon.address, TICKS))
    with shared(daemon) as (stream, segment):
        assert segment.slots == SLOTS == stream.welcome.shared_memory.slots
        found = run_segment(segment, TICKS[:800])
        segment.publish(TICKS[800:])
        stream.goodbye()
        assert stream.end().code == "OK"
        rest = segment.predictions(100)
        assert segment.hung_up()
        assert segment.word(layout.CLOSED_AT) == SegmentEnd.CLOSED
    assert hash_of(found, rest) == expected


def test_socket_is_closed_to_other_users(daemon: RunningDaemon) -> None:
    path = Path(daemon.address.removeprefix("unix:") + ".shm")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rebuild_ticks_go_before_the_attachment(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as stream:
        stream.hello()
        stream.rebuild(TICKS[:200])
        expected = run_through(stream, TICKS[200:300])
    with RawStream(daemon.address) as stream:
        stream.hello(shared_memory=True)
        stream.rebuild(TICKS[:200])
        with attach(stream.welcome) as segment:
            assert hash_of(run_segment(segment, TICKS[200:300])) == hash_of(expected)
            stream.ticks(TICKS[:1], purpose=pb.PURPOSE_REBUILD)
            assert stream.end().reason == "TICKS_SHARED"


def test_batch_of_ticks_to_predict_is_refused(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        stream.ticks(TICKS[:1])
        end = stream.end()
        assert (end.code, end.reason, end.field) == ("FAILED_PRECONDITION", "TICKS_SHARED", "TickBatch.purpose")
        assert segment.hung_up()


def test_malformed_tick_ends_the_stream_with_a_sentence_and_frees_the_session(daemon: RunningDaemon) -> None:
    bad = quotes(3)
    bad["rtype"][2] = 33
    with shared(daemon) as (stream, segment):
        segment.publish(bad)
        end = stream.end()
        assert (end.code, end.reason) == ("INVALID_ARGUMENT", "SEGMENT_TICK")
        assert end.field == "segment.ticks[2].rtype"
        assert end.value == "33"
        assert segment.hung_up()
        token = stream.welcome.resume_token
    with RawStream(daemon.address) as stream:
        assert stream.hello(shared_memory=True, resume_token=token).state_origin == pb.STATE_ORIGIN_COLD


def test_cursor_that_can_not_be_ends_the_stream_with_a_sentence(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        segment.set_word(layout.TICK_PUBLISHED_AT, 2**40)
        segment.ring()
        end = stream.end()
        assert (end.code, end.reason, end.field) == ("INVALID_ARGUMENT", "SEGMENT_CURSOR", "segment.TICK_PUBLISHED")


def test_refused_ticks_keep_their_place_and_are_counted(daemon: RunningDaemon) -> None:
    name = 'penstock_tick_errors_total{reason="UNKNOWN_INSTRUMENT"}'
    before = scrape(daemon).get(name, 0)
    ticks = quotes(6)
    ticks["instrument_id"][2] = 9
    with shared(daemon) as (stream, segment):
        segment.publish(ticks)
        answers = segment.predictions(6)
        assert np.flatnonzero(answers["flags"] & REFUSED_FLAG).tolist() == [2]
        wait_until(lambda: scrape(daemon).get(name, 0) == before + 1)
        stream.goodbye()
        assert stream.end().code == "OK"


def test_lost_session_is_resumed_with_a_new_segment_and_no_answer_is_missing(daemon: RunningDaemon) -> None:
    expected = undisturbed(daemon.address, TICKS[:400])
    with shared(daemon) as (stream, segment):
        first = run_segment(segment, TICKS[:100])
        segment.publish(TICKS[100:200])
        wait_until(lambda: segment.ready() == 100)
        segment.connection.close()  # With a hundred answers unread.
        assert stream.end().reason == "SEGMENT_LOST"
        token = stream.welcome.resume_token
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(shared_memory=True, resume_token=token, next_prediction_sequence=100)
        assert welcome.state_origin == pb.STATE_ORIGIN_RESUMED
        assert welcome.next_sequence == 200
        with attach(welcome) as segment:
            assert segment.first_sequence == 200
            again = segment.predictions(100)
            rest = run_segment(segment, TICKS[200:400])
            stream.goodbye()
            assert stream.end().code == "OK"
    assert hash_of(first, again, rest) == hash_of(expected)


def test_stream_that_takes_over_gets_a_segment_of_its_own(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment), RawStream(daemon.address) as second:
        first = run_segment(segment, TICKS[:50])
        token = stream.welcome.resume_token
        welcome = second.hello(shared_memory=True, resume_token=token, next_prediction_sequence=50)
        assert segment.hung_up()
        assert stream.end().reason == "TAKEN_OVER"
        with attach(welcome) as mine:
            rest = run_segment(mine, TICKS[50:100])
    assert hash_of(first, rest) == hash_of(undisturbed(daemon.address, TICKS[:100]))


def test_token_is_good_once_and_only_with_its_stream(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        with pytest.raises(AttachRefusedError, match="token: was none that is good; send that of Welcome"):
            attach(stream.welcome)
        segment.publish(TICKS[:3])
        assert len(segment.predictions(3)) == 3, "the first one goes on"
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(shared_memory=True)
        stream.goodbye()
        assert stream.end().code == "OK"
        with pytest.raises(AttachRefusedError):
            attach(welcome)


def test_hello_for_one_segment_too_many_is_refused(daemon: RunningDaemon) -> None:
    with shared(daemon), shared(daemon), RawStream(daemon.address) as third:
        with pytest.raises(StreamEndError) as refused:
            third.hello(shared_memory=True)
        assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "SEGMENTS")


def test_resume_must_ask_for_what_the_session_has(daemon: RunningDaemon) -> None:
    with shared(daemon) as (stream, segment):
        run_segment(segment, TICKS[:10])
        token = stream.welcome.resume_token
    with RawStream(daemon.address) as stream, pytest.raises(StreamEndError) as refused:
        stream.hello(resume_token=token, next_prediction_sequence=10)
    assert refused.value.reason == "RESUME_SHARED_MEMORY"


def group_setting(name: str) -> tuple[str, ...]:
    """Open the sockets to a group: which root alone may choose at will."""
    return (f"shared_memory.group={name}",) if os.geteuid() == 0 else ()


def member_may_speak(path: Path, group: int) -> None:
    """Connect as another user, in the group and in 300 others: the socket and the daemon let it, its token is refused."""
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.with_suffix("").stat().st_mode) == 0o660
    assert path.stat().st_gid == path.with_suffix("").stat().st_gid == group
    for folder in path.parents:
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        "import os, socket, sys\n"
        f"os.setgroups([{group}, *range(10_000, 10_300)]); os.setgid(65534); os.setuid(65534)\n"
        "one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); one.connect(sys.argv[1])\n"
        "one.send(bytes.fromhex(sys.argv[2])); sys.stdout.write(one.recv(1024)[16:].decode())\n"
    )
    command = [sys.executable, "-c", script, str(path), request(bytes(16)).hex()]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("token: ")


def test_drain_answers_what_was_published_records_it_and_says_so(tmp_path: Path) -> None:
    group = grp.getgrall()[-1]
    sets = (*group_setting(group.gr_name), f"record.folder={tmp_path}/recorded")
    with running_daemon(tmp_path, *small(tmp_path, *sets)) as daemon:
        if os.geteuid() == 0:
            member_may_speak(Path(daemon.address.removeprefix("unix:") + ".shm"), group.gr_gid)
        with shared(daemon, instruments=instruments(1)) as (stream, segment):
            run_segment(segment, TICKS[:20])
            segment.publish(TICKS[20:120])
            daemon.process.terminate()
            assert stream.receive("goodbye").goodbye.reason == pb.Goodbye.REASON_DRAINING
            assert stream.end().code == "OK"
            assert len(segment.predictions(100)) == 100
            assert segment.hung_up()
            assert segment.word(layout.CLOSED_AT) == SegmentEnd.DRAINING
        assert daemon.process.wait(60) == 0
    assert not Path(daemon.address.removeprefix("unix:") + ".shm").exists()
    assert not Path(daemon.address.removeprefix("unix:") + ".shm.lock").exists()
    (recorded,) = read_recordings(tmp_path / "recorded")
    assert recorded.ticks.tobytes() == TICKS[:120].tobytes()
    assert not list((tmp_path / "recorded").glob("*.partial"))
