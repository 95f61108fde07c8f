"""Sessions over shared memory keep every promise of sessions over gRPC: one answer per tick, in order, whatever is lost."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import shared_ring as layout
from penstock.v1.records import UNDEFINED_TIME
from penstock_client import Batch, SharedMemory, blocking, connect
from penstock_client.errors import (
    ConnectFailed,
    DaemonProtocolError,
    DeadlineExceeded,
    LocalUsageError,
    SessionLost,
    SessionRefused,
)
from penstock_client.shared_memory import line
from support.client_runs import (
    INSTRUMENTS,
    QUICK,
    assert_as_if_never_lost,
    read,
    ticks_of,
    together,
    until,
)
from support.model_daemon import ModelDaemon
from support.ring_runs import Responses, Runs, offer
from support.scripted_server import Script, ScriptedServer, ServerStream

WAITS = [
    pytest.param(True, id="sleeping"),
    pytest.param(SharedMemory(spin_s=0.0005), id="spinning, then sleeping"),
]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def served(runs: Runs, *scripts: Script, **daemon: int) -> ScriptedServer:
    rules = ModelDaemon(**{"in_flight_max": 64, "rebuild_ticks": 4} | daemon)
    return ScriptedServer(runs.folder / "s.sock", *(scripts or (runs.by_the_rules(),)), daemon=rules)


def blocking_session(server: ScriptedServer, shared_memory: bool | SharedMemory = True, **options):
    return blocking.connect(
        server.address, instruments=INSTRUMENTS, shared_memory=shared_memory, **{"reconnect": QUICK} | options
    )


def async_session(server: ScriptedServer, shared_memory: bool | SharedMemory = True, **options):
    return connect(
        server.address, instruments=INSTRUMENTS, shared_memory=shared_memory, **{"reconnect": QUICK} | options
    )


# --- The way of a tick ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_memory", WAITS)
async def test_async_session_gets_one_answer_per_tick_in_order(runs: Runs, shared_memory: bool | SharedMemory):
    with served(runs) as server:
        async with async_session(server, shared_memory) as session:
            reading = asyncio.create_task(read(session, 1000))
            assert await session.send(ticks_of(300)) == 0
            for tick in ticks_of(700, first=300):
                await session.send(tick)
            assert_as_if_never_lost(together(await reading), 1000, 4)
            await session.finish()
            assert await session.receive() is None
    assert "ticks" not in server.kinds()


@pytest.mark.parametrize("shared_memory", [*WAITS, pytest.param(SharedMemory(spin_s=math.inf), id="spinning")])
def test_blocking_session_gets_one_answer_per_tick_in_order(runs: Runs, shared_memory: bool | SharedMemory):
    with served(runs) as server, blocking_session(server, shared_memory) as session:
        got = []
        for number, tick in enumerate(ticks_of(200)):
            assert session.send(tick.tobytes()) == number
            got.append(session.receive(20))
            assert len(got[-1].predictions) == 1
        assert_as_if_never_lost(together(got), 200, 4)
        session.finish()
        assert session.receive() is None
        if shared_memory is True:
            assert runs.stand_ins[0].rings > 0  # Else every wait ended by its backstop.
        elif shared_memory.spin_s == math.inf:
            assert runs.stand_ins[0].rings == 0


def test_a_thread_that_sends_and_one_that_reads_share_a_session(runs: Runs):
    with served(runs) as server, blocking_session(server) as session:
        got = []
        reader = threading.Thread(target=lambda: got.extend(session.batches(20)))
        reader.start()
        for first in range(0, 5000, 100):
            session.send(ticks_of(100, first=first))
        session.finish()
        reader.join()
        assert_as_if_never_lost(together(got), 5000, 4)


def test_many_threads_send_and_nobodys_ticks_are_parted(runs: Runs):
    with served(runs) as server, blocking_session(server) as session:
        firsts: dict[int, int] = {}

        def send(number: int) -> None:
            firsts[number] = session.send(ticks_of(150, first=1000 * number))
            for one in range(50):
                session.send(ticks_of(1, first=100_000 + 1000 * number + one).tobytes())

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        got = []
        while sum(len(batch.predictions) for batch in got) < 800:
            got.append(session.receive(20))
        for thread in threads:
            thread.join()
        events = together(got)["ts_event"]
        for number, first in firsts.items():
            assert events[first : first + 150].tolist() == list(range(1000 * number, 1000 * number + 150))


def test_all_can_be_sent_and_finished_before_anything_is_read(runs: Runs):
    with served(runs) as server, blocking_session(server) as session:
        session.send(ticks_of(1000))
        session.finish()
        got = list(session.batches())
        assert_as_if_never_lost(together(got), 1000, 4)
        with pytest.raises(LocalUsageError, match="after finish"):
            session.send(ticks_of(1))


async def test_all_can_be_sent_and_finished_before_anything_is_read_on_a_loop(runs: Runs):
    with served(runs) as server:
        async with async_session(server) as session:
            await session.send(ticks_of(1000))
            await session.finish()
            assert_as_if_never_lost(together(await read(session, 1000)), 1000, 4)


def test_a_refused_tick_is_an_error_in_its_place(runs: Runs):
    with served(runs) as server, blocking_session(server) as session:
        ticks = ticks_of(6)
        ticks["instrument_id"][2] = 99
        ticks["ts_recv"][4] = UNDEFINED_TIME
        session.send(ticks)
        session.finish()
        batches = list(session.batches())
        assert together(batches)["sequence"].tolist() == [0, 1, 3, 5]
        errors = [error for batch in batches for error in batch.errors]
        assert [(error.sequence, error.reason.name) for error in errors] == [
            (2, "UNKNOWN_INSTRUMENT"),
            (4, "TIME_OUT_OF_RANGE"),
        ]


def test_a_full_ring_takes_what_fits_and_a_timeout_says_so(runs: Runs):
    with served(runs) as server, blocking_session(server) as session:
        runs.stand_ins[0].answers_max = 0
        assert session.try_send(ticks_of(100)) == 64
        assert session.try_send(ticks_of(1)) == 0
        with pytest.raises(DeadlineExceeded, match="no room"):
            session.send(ticks_of(1), timeout_s=0.02)
        with pytest.raises(DeadlineExceeded, match="no answer"):
            session.receive(0.02)
        assert session.unanswered == 64


async def test_the_rings_are_there_in_place(runs: Runs):
    with served(runs) as server:
        async with async_session(server) as session:
            ticks, got = ticks_of(500), []
            sent = 0
            while len(got) < 500:
                claimed = session.rings.claim(min(500 - sent, 7)) if sent < 500 else []
                if len(claimed):
                    claimed[:] = ticks[sent : sent + len(claimed)]
                    sent += session.rings.publish(len(claimed))
                peeked = session.rings.peek()
                got += peeked["ts_event"].tolist()
                session.rings.release(len(peeked))
                await asyncio.sleep(0)
            assert got == list(range(500))
            await session.finish()


async def test_a_session_over_grpc_has_no_rings(tmp_path: Path):
    with ScriptedServer(tmp_path / "s.sock") as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            with pytest.raises(LocalUsageError, match="shared_memory=True"):
                _ = session.rings


# --- What is lost --------------------------------------------------------------------------------------------------------


def test_a_daemon_that_keeps_the_states_goes_on_with_them(runs: Runs):
    with (
        served(runs, runs.by_the_rules(answers=30), runs.by_the_rules()) as server,
        blocking_session(server) as session,
    ):
        session.send(ticks_of(500))
        session.finish()
        assert_as_if_never_lost(together(list(session.batches())), 500, 4)
        assert session.reconnects == 1
    assert "ticks" not in server.kinds()


def test_a_new_daemon_gets_the_states_rebuilt_and_every_tick_again(runs: Runs):
    scripts = (
        runs.by_the_rules(answers=30, restart=True),
        runs.by_the_rules(answers=20, restart=True),
        runs.by_the_rules(),
    )
    with served(runs, *scripts) as server, blocking_session(server) as session:
        session.send(ticks_of(500))
        session.finish()
        assert_as_if_never_lost(together(list(session.batches())), 500, 4)
        assert session.reconnects == 2
    assert "ticks" in server.kinds(1)


async def test_a_reader_that_waits_is_woken_by_the_next_daemon(runs: Runs):
    with served(runs, runs.by_the_rules(answers=10), runs.by_the_rules()) as server:
        async with async_session(server) as session:
            await session.send(ticks_of(20))
            assert_as_if_never_lost(together(await read(session, 20)), 20, 4)
            assert session.reconnects == 1


def test_ticks_are_taken_while_there_is_no_daemon(runs: Runs):
    again = threading.Event()

    def waits(stream: ServerStream) -> Responses:
        assert again.wait(60)
        yield from runs.by_the_rules()(stream)

    with served(runs, runs.by_the_rules(answers=1), waits) as server, blocking_session(server) as session:
        session.send(ticks_of(1))
        assert len(session.receive(20).predictions) == 1
        session._wait.until(lambda: session._books.attached is None, 20)
        while session._books.attached is not None:
            session._wait.until(lambda: session._books.attached is None)
        session.send(ticks_of(40, first=1))
        session.send(ticks_of(1, first=41).tobytes())
        again.set()
        session.finish()
        assert [b for batch in session.batches() for b in batch.predictions["sequence"]] == list(range(1, 42))


def test_a_daemon_that_stands_still_is_told_from_one_that_is_idle(runs: Runs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(line, "LOOK_S", 0.02)
    monkeypatch.setattr(line, "BEAT_LOST_S", 0.4)

    def stands_still(stream: ServerStream) -> Responses:
        for number, response in enumerate(runs.by_the_rules()(stream)):
            if number == 0:
                runs.stand_ins[0].beats = False
            yield response

    with served(runs, stands_still, runs.by_the_rules()) as server, blocking_session(server) as session:
        while not session.reconnects:
            session._wait.until(lambda: session.reconnects > 0)
        session.send(ticks_of(1))
        assert len(session.receive(20).predictions) == 1
        assert len(runs.stand_ins) == 2


@pytest.mark.parametrize("dies", [False, True])
def test_a_segment_that_ends_while_the_stream_goes_on_is_left(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, *, dies: bool
):
    monkeypatch.setattr(line, "LOOK_S", 60.0 if dies else 0.02)
    monkeypatch.setattr(line, "STREAM_GRACE_S", 60.0 if dies else 0.02)  # Nobody waits for what the dead would say.
    with served(runs) as server, blocking_session(server) as session:
        runs.stand_ins[0].answers_max = 5
        session.send(ticks_of(5))
        assert len(session.receive(20).predictions) >= 1
        if dies:
            runs.stand_ins[0].kill()
        else:
            runs.stand_ins[0].words[layout.CLOSED_AT // 8] = layout.SegmentEnd.CLOSED
        session.send(ticks_of(5, first=5))
        session.finish()
        assert session.reconnects == 1


@pytest.mark.parametrize("reader", ["blocking", "async"])
async def test_a_daemon_that_breaks_the_contract_in_its_ring_ends_the_session(runs: Runs, reader: str):
    def nonsense(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        with runs.stand_in(stream, session, welcome.welcome) as stand_in:
            stand_in._answer = lambda _, ticks: np.zeros(len(ticks), stand_in._predictions.dtype)
            offer(welcome.welcome, stand_in)
            yield welcome
            stream.receive_all()

    with served(runs, nonsense) as server:
        if reader == "blocking":
            with blocking_session(server) as session:
                session.send(ticks_of(2))
                with pytest.raises(DaemonProtocolError, match="go on at sequence 1"):
                    together([session.receive(20), session.receive(20)])
                while not session._core.ended.is_set():
                    session._wait.until(session._core.ended.is_set)
                with pytest.raises(DaemonProtocolError):
                    session.send(ticks_of(1))
        else:
            async with async_session(server) as session:
                await session.send(ticks_of(2))
                with pytest.raises(DaemonProtocolError, match="go on at sequence 1"):
                    await read(session, 2)
                await until(session._core.ended.is_set)
                with pytest.raises(DaemonProtocolError):
                    await session.send(ticks_of(1))


def test_a_lost_daemon_without_reconnect_ends_the_session_after_its_last_answers(runs: Runs):
    with served(runs, runs.by_the_rules(answers=10)) as server, blocking_session(server, reconnect=False) as session:
        session.send(ticks_of(20))
        got: list[Batch] = []
        with pytest.raises(SessionLost) as lost:
            got.extend(session.batches(20))
        assert (len(together(got)), lost.value.unanswered) == (10, 10)


def test_a_deadline_ends_a_wait(runs: Runs):
    with served(runs) as server, blocking_session(server, deadline_s=0.3) as session:
        runs.stand_ins[0].answers_max = 0
        session.send(ticks_of(1))
        with pytest.raises(DeadlineExceeded, match="deadline_s"):
            session.receive()


# --- What is refused -----------------------------------------------------------------------------------------------------


def test_a_daemon_that_knows_no_shared_memory_refuses_the_session(tmp_path: Path):
    with (
        ScriptedServer(tmp_path / "s.sock") as server,
        pytest.raises(SessionRefused, match="offers no shared memory"),
        blocking_session(server),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "value", "error", "sentence"),
    [
        ("refusal", b"uid 12 may not attach", SessionRefused, "uid 12 may not attach"),
        ("seals", 0, DaemonProtocolError, "seals="),
        ("path", Path("/nowhere/a.sock"), ConnectFailed, "handed over no shared memory"),
    ],
)
def test_a_first_attachment_that_fails_is_told_by_open(
    runs: Runs, name: str, value: object, error: type[Exception], sentence: str
):
    def fails(stream: ServerStream) -> Iterator[pb.StreamPredictionsResponse | bytes]:
        session, welcome = stream.open()
        with runs.stand_in(stream, session, welcome.welcome) as stand_in:
            setattr(stand_in, name, value)
            offer(welcome.welcome, stand_in)
            yield welcome
            stream.receive_all()

    with served(runs, fails) as server, pytest.raises(error, match=sentence), blocking_session(server):
        pass


@pytest.mark.parametrize("given", [1, "yes", None])
def test_what_is_neither_yes_nor_no_is_refused(given: object):
    with pytest.raises(LocalUsageError, match="shared_memory must be True, False or a SharedMemory"):
        connect("unix:/x.sock", instruments=INSTRUMENTS, shared_memory=given)


def test_a_spin_that_holds_up_an_event_loop_is_refused():
    with pytest.raises(LocalUsageError, match=r"at most 0\.001 in an async session"):
        connect("unix:/x.sock", instruments=INSTRUMENTS, shared_memory=SharedMemory(spin_s=math.inf))
    for wrong in (-1, math.nan, True, "1"):
        with pytest.raises(LocalUsageError, match="spin_s must be seconds"):
            SharedMemory(spin_s=wrong)
