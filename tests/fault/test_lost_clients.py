"""Clients that are killed, stopped or half gone: their states wait for them, to the bit, and then they are free."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock_kernels.model_file import load_model
from penstock_kernels.predictor import pack
from support.daemon import RunningDaemon, running_daemon, small, start_daemon
from support.engines import driven
from support.raw_stream import RawStream, StreamEndError, hash_of, instruments, run_through, undisturbed
from support.scrape import scrape
from support.tick_stream import tick_stream
from support.victim import victim, wait_until

SEED, TICKS = 61, 1500
STREAM = tick_stream(SEED, TICKS)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that waits long for lost clients."""
    folder = tmp_path_factory.mktemp("lost")
    with running_daemon(folder, *small(folder)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with room for few."""
    folder = tmp_path_factory.mktemp("cramped")
    room = ("sessions.max=4", "sessions.states_max=8", "sessions.resumable_max=2", "metrics.address=127.0.0.1:0")
    with running_daemon(folder, *small(folder, *room)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def pulsing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that soon takes a silent client for lost."""
    folder = tmp_path_factory.mktemp("pulsing")
    with running_daemon(folder, *small(folder, "sessions.heartbeat_interval_s=0.4")) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def reference(daemon: RunningDaemon) -> np.ndarray:
    """Predictions of the stream when nothing is lost."""
    return undisturbed(daemon.address, STREAM)


def resume(stream: RawStream, token: bytes, received: int, **changes: object) -> pb.Welcome:
    return stream.hello(resume_token=token, next_prediction_sequence=received, **changes)


def finish(stream: RawStream, ticks: np.ndarray, received: int) -> np.ndarray:
    """Take what is still owed, send the rest, say Goodbye; return all of it."""
    owed = stream.predictions(stream.next_sequence - received)
    rest = run_through(stream, ticks[stream.next_sequence :])
    leave(stream)
    return np.concatenate([owed, rest])


def leave(stream: RawStream) -> None:
    stream.goodbye()
    assert stream.end().code == "OK"


def lose(stream: RawStream, daemon: RunningDaemon) -> None:
    """Drop the connection, and wait until the daemon has noticed."""
    session = stream.welcome.session_id
    stream.close()
    wait_until(lambda: any(one["session"] == session for one in daemon.events("session_ended")))


# --- Resumed to the bit -----------------------------------------------------------------------------------------------


def test_client_killed_in_the_middle_resumes_to_the_bit(
    daemon: RunningDaemon, reference: np.ndarray, tmp_path: Path
) -> None:
    with victim(daemon.address, tmp_path / "victim", seed=SEED, ticks=TICKS) as client:
        client.wait_for_answers(300)
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
        before, token = client.answers(), client.token
    assert 300 <= len(before) < TICKS, "it was killed in the middle"
    with RawStream(daemon.address) as stream:
        welcome = resume(stream, token, len(before))
        assert welcome.state_origin == pb.STATE_ORIGIN_RESUMED
        assert len(before) <= welcome.next_sequence <= TICKS
        after = finish(stream, STREAM, len(before))
    assert hash_of(before, after) == hash_of(reference)


def test_half_closed_stream_gets_its_answers_and_can_be_resumed(daemon: RunningDaemon, reference: np.ndarray) -> None:
    with RawStream(daemon.address) as stream:
        token = stream.hello().resume_token
        stream.ticks(STREAM[:200])
        stream.half_close()
        first = stream.predictions(200)
        assert stream.end().code == "OK"
    with RawStream(daemon.address) as stream:
        assert resume(stream, token, 200).state_origin == pb.STATE_ORIGIN_RESUMED
        assert hash_of(first, finish(stream, STREAM, 200)) == hash_of(reference)


def test_answers_that_never_arrived_are_sent_again(daemon: RunningDaemon, reference: np.ndarray) -> None:
    with RawStream(daemon.address) as stream:
        token = stream.hello().resume_token
        run_through(stream, STREAM[:200])
        lose(stream, daemon)
    with RawStream(daemon.address) as stream:
        assert resume(stream, token, 30).next_sequence == 200
        again = stream.predictions(170)
        assert hash_of(again) == hash_of(reference[30:200])
        assert (again["received_ns"] < time.time_ns()).all()


def test_second_stream_with_the_token_takes_the_session_over(daemon: RunningDaemon, reference: np.ndarray) -> None:
    with RawStream(daemon.address) as first, RawStream(daemon.address) as second:
        token = first.hello().resume_token
        got = run_through(first, STREAM[:100])
        assert resume(second, token, 100).state_origin == pb.STATE_ORIGIN_RESUMED
        end = first.end()
        assert (end.code, end.reason) == ("UNAVAILABLE", "TAKEN_OVER")
        assert hash_of(got, finish(second, STREAM, 100)) == hash_of(reference)


def test_client_lost_while_it_rebuilds_resumes(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as stream:
        token = stream.hello(first_sequence=500).resume_token
        stream.ticks(STREAM[:150], purpose=pb.PURPOSE_REBUILD)
        stream.ticks(STREAM[150:200])
        while stream.receive().WhichOneof("message") != "predictions":
            pass
    with RawStream(daemon.address) as stream:
        welcome = resume(stream, token, 500)
        assert (welcome.state_origin, welcome.next_sequence) == (pb.STATE_ORIGIN_RESUMED, 550)
        assert stream.predictions(50)["sequence"].tolist() == list(range(500, 550))


# --- Not resumed ------------------------------------------------------------------------------------------------------


def test_answers_that_are_gone_make_a_cold_session_and_end_the_old_stream(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as old:
        token = old.hello().resume_token
        run_through(old, STREAM[:400])  # 256 of them can be sent again.
        with RawStream(daemon.address) as new:
            welcome = resume(new, token, 100, first_sequence=100)
            assert welcome.state_origin == pb.STATE_ORIGIN_COLD
            assert welcome.next_sequence == 100
            assert welcome.resume_token != token
            assert old.end().reason == "TAKEN_OVER"
            assert len(run_through(new, STREAM[100:120])) == 20


@pytest.mark.parametrize("token", [b"x", b"x" * 64])
def test_unknown_token_is_a_cold_session(daemon: RunningDaemon, token: bytes) -> None:
    with RawStream(daemon.address) as stream:
        welcome = resume(stream, token, 77, first_sequence=77)
        assert (welcome.state_origin, welcome.next_sequence) == (pb.STATE_ORIGIN_COLD, 77)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"instruments": instruments(1, 2)}, "RESUME_INSTRUMENTS"),
        ({"instruments": [pb.Instrument(instrument_id=1, symbol="SYMBOL1", size_scale=10)]}, "RESUME_INSTRUMENTS"),
        ({"next_prediction_sequence": 51}, "RESUME_POSITION"),
        ({"next_prediction_sequence": 2**64 - 1}, "RESUME_POSITION"),
    ],
)
def test_wrong_resume_is_refused_and_the_right_one_still_works(
    daemon: RunningDaemon, changes: dict[str, object], reason: str
) -> None:
    with RawStream(daemon.address) as stream:
        token = stream.hello().resume_token
        run_through(stream, STREAM[:50])
        lose(stream, daemon)
    with RawStream(daemon.address) as stream, pytest.raises(StreamEndError) as refused:
        stream.hello(**({"resume_token": token, "next_prediction_sequence": 50} | changes))
    assert refused.value.reason == reason
    with RawStream(daemon.address) as stream:
        assert resume(stream, token, 50).state_origin == pb.STATE_ORIGIN_RESUMED
        leave(stream)


def test_goodbye_frees_at_once_and_leaves_nothing_to_resume(cramped: RunningDaemon) -> None:
    for _ in range(12):  # Three times as many as there is room for.
        with RawStream(cramped.address) as stream:
            token = stream.hello(instruments=instruments(*range(8))).resume_token
            run_through(stream, STREAM[:10])
            leave(stream)
    with RawStream(cramped.address) as stream:
        assert resume(stream, token, 10).state_origin == pb.STATE_ORIGIN_COLD


# --- Silent and expired -----------------------------------------------------------------------------------------------


def test_stopped_client_is_taken_for_lost_and_resumes(pulsing: RunningDaemon, tmp_path: Path) -> None:
    with victim(pulsing.address, tmp_path / "victim", seed=SEED, ticks=200) as client:
        client.wait_for_answers(200)
        client.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: pulsing.events("session_silent"))
        with RawStream(pulsing.address) as stream:
            assert resume(stream, client.token, 150).state_origin == pb.STATE_ORIGIN_RESUMED
            assert hash_of(stream.predictions(50)) == hash_of(client.answers()[150:])
            stream.goodbye()
        client.process.send_signal(signal.SIGCONT)
        assert client.end() == "UNAVAILABLE SILENT"


def test_idle_sides_keep_each_other_alive(pulsing: RunningDaemon) -> None:
    with RawStream(pulsing.address) as stream:
        stream.hello()
        for _ in range(5):  # Longer than silence is suffered.
            assert abs(stream.receive("heartbeat").heartbeat.sent_ns - time.time_ns()) < 20_000_000_000
            stream.send(heartbeat=pb.Heartbeat(sent_ns=time.time_ns()))
        leave(stream)


def test_paused_daemon_takes_nobody_for_silent(pulsing: RunningDaemon) -> None:
    before = len(pulsing.events("session_silent"))
    with RawStream(pulsing.address) as stream:
        stream.hello()
        run_through(stream, STREAM[:20])
        pulsing.process.send_signal(signal.SIGSTOP)
        try:
            stream.ticks(STREAM[20:40])
            time.sleep(2.5)  # Twice as long as silence is suffered.
            stream.send(heartbeat=pb.Heartbeat())
        finally:
            pulsing.process.send_signal(signal.SIGCONT)
        assert stream.predictions(20)["sequence"].tolist() == list(range(20, 40))
        leave(stream)
    assert len(pulsing.events("session_silent")) == before


def test_grace_that_is_over_frees_the_states(tmp_path: Path) -> None:
    sets = small(tmp_path, "sessions.resume_grace_s=1.5", "metrics.address=127.0.0.1:0")
    with running_daemon(tmp_path, *sets) as impatient:
        with RawStream(impatient.address) as stream:
            token = stream.hello(instruments=instruments(*range(8))).resume_token
            run_through(stream, STREAM[:10])
            lose(stream, impatient)
        kept = scrape(impatient)
        assert (kept["penstock_states"], kept["penstock_sessions_resumable"], kept["penstock_sessions"]) == (8, 1, 0)
        wait_until(lambda: scrape(impatient)["penstock_states"] == 0)
        assert scrape(impatient)["penstock_sessions_resumable"] == 0
        with RawStream(impatient.address) as stream:
            assert resume(stream, token, 10).state_origin == pb.STATE_ORIGIN_COLD


def test_only_so_many_lost_sessions_are_kept_the_youngest(cramped: RunningDaemon) -> None:
    tokens = []
    for _ in range(3):
        with RawStream(cramped.address) as stream:
            tokens.append(stream.hello().resume_token)
            run_through(stream, STREAM[:10])
            lose(stream, cramped)
    wait_until(lambda: scrape(cramped)["penstock_sessions_resumable"] <= 2)
    origins = []
    for token in tokens:
        with RawStream(cramped.address) as stream:
            origins.append(resume(stream, token, 10).state_origin)
            leave(stream)
    assert origins[0] == pb.STATE_ORIGIN_COLD


def test_lost_sessions_give_way_but_not_in_vain(cramped: RunningDaemon) -> None:
    def hold(count: int) -> bytes:
        with RawStream(cramped.address) as stream:
            token = stream.hello(instruments=instruments(*range(count))).resume_token
            run_through(stream, STREAM[:10])
            lose(stream, cramped)
        return token

    wait_until(lambda: scrape(cramped)["penstock_states"] == 0)
    with RawStream(cramped.address) as living:
        living.hello(instruments=instruments(1, 2))
        first, second = hold(3), hold(3)
        with RawStream(cramped.address) as greedy, pytest.raises(StreamEndError) as refused:
            greedy.hello(instruments=instruments(*range(7)))
        assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "STATES")
        with RawStream(cramped.address) as modest:
            modest.hello(instruments=instruments(1, 2, 3))
            assert len(run_through(modest, STREAM[:10])) == 10
            with RawStream(cramped.address) as stream:
                assert resume(stream, second, 10, instruments=instruments(0, 1, 2)).state_origin == (
                    pb.STATE_ORIGIN_RESUMED
                ), "the younger one was kept"
                leave(stream)
            with RawStream(cramped.address) as stream:
                assert resume(stream, first, 10, instruments=instruments(0, 1, 2)).state_origin == (
                    pb.STATE_ORIGIN_COLD
                ), "the oldest gave way"
                leave(stream)
            leave(modest)
        assert len(run_through(living, STREAM[:10])) == 10
        leave(living)


# --- The daemon is lost -----------------------------------------------------------------------------------------------


def test_client_rebuilds_its_states_at_a_daemon_that_was_killed(tmp_path: Path) -> None:
    sets = small(tmp_path)
    packed = pack(load_model(tmp_path / "random-1.safetensors").model)
    forecasts, _ = driven(packed, STREAM[:300])
    killed = start_daemon(tmp_path, *sets)
    with RawStream(killed.address) as stream:
        welcome = stream.hello()
        before = run_through(stream, STREAM[:200])
        killed.kill()
        assert stream.end().code == "UNAVAILABLE"
    assert Path(killed.address.removeprefix("unix:")).exists(), "a killed daemon leaves its socket"
    with running_daemon(tmp_path, *sets) as restarted, RawStream(restarted.address) as stream:
        again = resume(stream, welcome.resume_token, 200, first_sequence=200)
        assert again.state_origin == pb.STATE_ORIGIN_COLD
        assert again.daemon_id != welcome.daemon_id
        stream.rebuild(STREAM[:200])
        after = run_through(stream, STREAM[200:300])
        leave(stream)
    assert np.concatenate([before, after])["forecasts"].tobytes() == forecasts.tobytes()
    assert after["sequence"][0] == 200
    assert "Traceback" not in killed.output()
