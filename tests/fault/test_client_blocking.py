"""The blocking session in threads, against a scripted server over a real socket."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock_client import (
    ConnectFailed,
    DeadlineExceeded,
    Instrument,
    LocalUsageError,
    SessionLost,
    SessionRefused,
)
from penstock_client.blocking import BlockingSession, connect
from support.client_runs import HASTY, QUICK
from support.scripted_server import ScriptedServer, ServerStream, by_the_rules
from support.tick_arrays import quotes

INSTRUMENTS = [Instrument(1, "BTCUSDT")]


@pytest.fixture(autouse=True)
def no_thread_is_left_over() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if "penstock" in thread.name]


def ticks_of(count: int, first: int = 0) -> np.ndarray:
    ticks = quotes(count)
    ticks["ts_event"] = np.arange(count) + first
    return ticks


def read(session: BlockingSession, answers: int) -> np.ndarray:
    predictions: list[np.ndarray] = []
    for batch in session.batches(timeout_s=20):
        predictions.append(batch.predictions)
        if sum(map(len, predictions)) >= answers:
            break
    return np.concatenate(predictions)


def never_answers(stream: ServerStream) -> Iterator[pb.StreamPredictionsResponse]:
    _, welcome = stream.open()
    yield welcome
    while True:
        stream.receive()


@pytest.mark.parametrize("over", ["unix", "tcp"])
def test_every_tick_is_answered_in_order(socket_path, over):
    with (
        ScriptedServer(socket_path if over == "unix" else "127.0.0.1:0") as server,
        connect(server.address, instruments=INSTRUMENTS) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        assert session.welcome.in_flight_max == 64
        answers = pool.submit(lambda: np.concatenate([batch.predictions for batch in session.batches()]))
        assert session.send(ticks_of(999)) == 0
        assert session.send(ticks_of(1, 999).tobytes()) == 999
        session.finish()
        assert answers.result()["ts_event"].tolist() == list(range(1000))
        assert session.unanswered == 0
        assert session.receive() is None
        assert session.receive() is None


def test_an_open_that_is_interrupted_leaves_no_session_behind_on_the_loop(socket_path):
    over = threading.Event()

    def interrupts(stream: ServerStream) -> Iterator[pb.StreamPredictionsResponse]:
        _, welcome = stream.open()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            yield welcome
            stream.receive_all()
        finally:  # Where the stream is over before the welcome is sent, this goes no further than the yield.
            over.set()

    with (
        ScriptedServer(socket_path, by_the_rules, interrupts) as server,
        connect(server.address, instruments=INSTRUMENTS) as first,  # It keeps the loop.
    ):
        with pytest.raises(KeyboardInterrupt):
            connect(server.address, instruments=INSTRUMENTS).open()
        assert over.wait(60)
        first.send(ticks_of(5))
        assert len(read(first, 5)) == 5


def test_ticks_of_several_threads_do_not_mix_and_all_are_answered(socket_path):
    with (
        ScriptedServer(socket_path) as server,
        connect(server.address, instruments=INSTRUMENTS) as session,
        ThreadPoolExecutor(5) as pool,
    ):
        reader = pool.submit(read, session, 4 * 20 * 30)

        def sender(number: int) -> list[tuple[int, int]]:
            starts = [number * 1_000 + 30 * part for part in range(20)]
            return [(session.send(ticks_of(30, start)), start) for start in starts]

        sent = [pair for pairs in pool.map(sender, range(4)) for pair in pairs]
        events = reader.result()["ts_event"]
        for sequence, start in sent:
            assert events[sequence : sequence + 30].tolist() == list(range(start, start + 30))


def test_send_waits_for_room_no_longer_than_it_was_told(socket_path):
    with (
        ScriptedServer(socket_path, never_answers) as server,
        connect(server.address, instruments=INSTRUMENTS) as session,
    ):
        assert session.try_send(ticks_of(60)) == 60
        with pytest.raises(DeadlineExceeded, match="no room"):
            session.send(ticks_of(10), timeout_s=0.05)
        assert session.next_sequence == session.unanswered == 64
        assert session.try_send(ticks_of(1)) == 0


def test_answers_that_come_just_before_a_sender_waits_are_room_to_it(socket_path, monkeypatch):
    wait_for_room = BlockingSession._wait_for_room

    def wait_for_room_late(session, core, give_up_s):
        while session.unanswered:
            time.sleep(0.001)
        wait_for_room(session, core, give_up_s)

    monkeypatch.setattr(BlockingSession, "_wait_for_room", wait_for_room_late)
    with ScriptedServer(socket_path) as server, connect(server.address, instruments=INSTRUMENTS) as session:
        session.send(ticks_of(150), timeout_s=5)
        assert read(session, 150)["ts_event"].tolist() == list(range(150))


def test_a_grant_past_the_clients_own_cap_is_not_used_up(socket_path, monkeypatch):
    monkeypatch.setattr("penstock_client.bookkeeping.IN_FLIGHT_CAP", 32)
    with (
        ScriptedServer(socket_path, never_answers) as server,
        connect(server.address, instruments=INSTRUMENTS) as session,
    ):
        assert session.try_send(ticks_of(40)) == session.unanswered == 32
        assert session.try_send(ticks_of(1)) == 0


def test_a_timeout_loses_nothing_that_comes_later(socket_path):
    with ScriptedServer(socket_path) as server, connect(server.address, instruments=INSTRUMENTS) as session:
        with pytest.raises(DeadlineExceeded, match=r"timeout_s=0\.02"):
            next(session.batches(timeout_s=0.02))
        session.send(ticks_of(1))
        assert len(next(session.batches(timeout_s=20)).predictions) == 1


def test_a_loss_is_mended_in_the_background(socket_path):
    def drops(stream: ServerStream) -> Iterator[pb.StreamPredictionsResponse]:
        session, welcome = stream.open()
        yield welcome
        session.take(stream.ticks())
        yield from session.give(5)
        time.sleep(0.02)
        stream.server.daemon.restart()
        stream.server.daemon.in_flight_max = 16
        stream.drop()

    with (
        ScriptedServer(socket_path, drops, by_the_rules) as server,
        connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        reader = pool.submit(read, session, 400)
        session.send(ticks_of(400))
        assert reader.result()["ts_event"].tolist() == list(range(400))
        assert session.reconnects == 1
        session.finish()


def test_ticks_taken_under_a_larger_limit_wait_for_room_under_a_smaller_one(socket_path):
    with ScriptedServer(socket_path) as server, connect(server.address, instruments=INSTRUMENTS) as session:
        changed = threading.Event()
        session._loop.call_soon_threadsafe(changed.wait)  # The loop's thread looks when the daemon has changed.
        session.send(ticks_of(50))
        session._core._ledger._in_flight_max = 4
        changed.set()
        assert read(session, 50)["ts_event"].tolist() == list(range(50))
        session.send(ticks_of(50, 50))
        session.finish()
        assert read(session, 50)["ts_event"].tolist() == list(range(50, 100))


def test_errors_of_the_daemon_reach_the_calling_thread(socket_path):
    def refuses(stream: ServerStream) -> Iterator[pb.StreamPredictionsResponse]:
        _, welcome = stream.open()
        yield welcome
        stream.ticks()
        stream.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    with (
        ScriptedServer(socket_path, refuses) as server,
        connect(server.address, instruments=INSTRUMENTS) as session,
    ):
        session.send(ticks_of(1))
        for _ in range(2):
            with pytest.raises(SessionRefused, match="INVALID_ARGUMENT: no"):
                session.receive(20)
        with pytest.raises(SessionRefused):
            session.send(ticks_of(1))
        with pytest.raises(SessionRefused):
            session.finish()


def test_a_sender_that_waits_learns_of_the_loss(socket_path):
    with (
        ScriptedServer(socket_path, never_answers) as server,
        connect(server.address, instruments=INSTRUMENTS, reconnect=HASTY) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        sender = pool.submit(session.send, ticks_of(100))
        while session.next_sequence < 64:
            time.sleep(0.001)
        server.stop()
        with pytest.raises(SessionLost):
            sender.result(20)


def test_connecting_to_nobody_fails(socket_path):
    with pytest.raises(ConnectFailed):
        connect(f"unix:{socket_path}", instruments=INSTRUMENTS, connect_deadline_s=0.1).open()


def test_a_session_is_opened_once_and_used_while_open(socket_path):
    with ScriptedServer(socket_path) as server:
        session = connect(server.address, instruments=INSTRUMENTS)
        for use in (lambda: session.send(ticks_of(1)), session.receive, session.finish, lambda: session.welcome):
            with pytest.raises(LocalUsageError, match="must be open first"):
                use()
        session.close()
        with session, pytest.raises(LocalUsageError, match="opened once"):
            session.open()
        session.close()
        with pytest.raises(LocalUsageError, match="after close"):
            session.send(ticks_of(1))
        with pytest.raises(LocalUsageError, match="finish\\(\\) before leaving"):
            session.finish()
        assert session.receive() is None


def test_sessions_of_a_process_share_one_thread(socket_path):
    with (
        ScriptedServer(socket_path) as server,
        connect(server.address, instruments=INSTRUMENTS) as one,
        connect(server.address, instruments=INSTRUMENTS) as other,
    ):
        assert [thread.name for thread in threading.enumerate()].count("penstock client") == 1
        one.send(ticks_of(2))
        other.send(ticks_of(2))
        assert len(read(one, 2)) == len(read(other, 2)) == 2


def test_a_program_that_never_closes_its_session_ends_without_a_word(socket_path):
    program = f"""
from penstock_client import Instrument
from penstock_client.blocking import connect
import numpy as np
from penstock.v1.records import TICK_DTYPE
session = connect("unix:{socket_path}", instruments=[Instrument(1, "A")])
session.open()
ticks = np.zeros(3, TICK_DTYPE)
ticks["length"], ticks["rtype"], ticks["instrument_id"] = 20, 1, 1
session.send(ticks)
print(len(session.receive(20).predictions))
"""
    with ScriptedServer(socket_path):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@pytest.mark.skipif(
    tuple(int(part) for part in grpc.__version__.split(".")[:2]) < (1, 85),
    reason="an older grpcio reports the other loop's wake-ups as errors",
)
def test_blocking_and_async_sessions_live_in_one_process_without_noise(socket_path):
    program = f"""
import asyncio, logging, threading
from penstock_client import Instrument, connect
from penstock_client.blocking import connect as connect_blocking
import numpy as np
from penstock.v1.records import TICK_DTYPE
ticks = np.zeros(1, TICK_DTYPE)
ticks["length"], ticks["rtype"], ticks["instrument_id"] = 20, 1, 1
def blocking():
    with connect_blocking("unix:{socket_path}", instruments=[Instrument(1, "A")]) as session:
        for _ in range(300):
            session.send(ticks)
            session.receive(20)
async def main():
    other = asyncio.create_task(asyncio.to_thread(blocking))
    async with connect("unix:{socket_path}", instruments=[Instrument(1, "A")]) as session:
        for _ in range(300):
            await session.send(ticks)
            await session.receive(20)
    await other
asyncio.run(main())
"""
    with ScriptedServer(socket_path):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
