"""What an async session does when the other side misbehaves, against a scripted server over a real socket."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import status_pb2
from penstock.v1.records import PREDICTION_DTYPE
from penstock_client import (
    Batch,
    ConnectFailed,
    DaemonProtocolError,
    DeadlineExceeded,
    Instrument,
    LocalUsageError,
    ReconnectPolicy,
    Session,
    SessionLost,
    SessionRefused,
    TickErrorReason,
    connect,
)
from support.model_daemon import ModelDaemon, Windows
from support.scripted_server import ScriptedServer, ServerStream, StreamOverError, by_the_rules, until_goodbye
from support.tick_arrays import quotes

INSTRUMENTS = [Instrument(1, "BTCUSDT"), Instrument(2, "ETHUSDT")]
QUICK = ReconnectPolicy(initial_s=0.001, max_s=0.01, give_up_after_s=0.3)
Responses = Iterator[pb.StreamPredictionsResponse | bytes]


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="penstock-") as folder:
        yield Path(folder) / "s.sock"


@pytest.fixture(autouse=True)
async def nothing_is_left_over() -> AsyncIterator[None]:
    threads = set(threading.enumerate())
    tasks = asyncio.all_tasks()
    yield
    # gRPC ends its own task a moment after a call is cancelled.
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()})
    assert not {thread.name for thread in set(threading.enumerate()) - threads if "penstock" in thread.name}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - What it waits for happens in other threads.
            await asyncio.sleep(0.001)


def ticks_of(count: int, first: int = 0) -> np.ndarray:
    ticks = quotes(count)
    ticks["ts_event"] = np.arange(count) + first
    ticks["instrument_id"] = 1 + ticks["ts_event"] % 2
    return ticks


async def read(session: Session, answers: int) -> list[Batch]:
    batches, count = [], 0
    while count < answers:
        batch = await session.receive(20)
        assert batch is not None, f"the session ended after {count} of {answers} answers"
        batches.append(batch)
        count += len(batch.predictions) + len(batch.errors)
    assert count == answers
    return batches


def together(batches: list[Batch]) -> np.ndarray:
    return np.concatenate([batch.predictions for batch in batches])


def assert_as_if_never_lost(predictions: np.ndarray, count: int, rebuild_ticks: int) -> None:
    windows = Windows([1, 2], rebuild_ticks)
    assert predictions["sequence"].tolist() == list(range(count))
    assert predictions["model_serial"].tolist() == [windows.step(tick) for tick in ticks_of(count)]


def refuse(code: grpc.StatusCode, message: str, **fault: str):
    def script(stream: ServerStream) -> Responses:
        stream.hello()
        stream.abort(code, message, status_pb2.Fault(**fault) if fault else None)
        yield b""

    return script


# --- All goes well ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["unix", "tcp"])
async def test_every_tick_is_answered_in_order(socket_path, over):
    with ScriptedServer(socket_path if over == "unix" else "127.0.0.1:0") as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            reader = asyncio.create_task(read(session, 1000))
            assert await session.send(ticks_of(999)) == 0
            assert await session.send(ticks_of(1, 999).tobytes()) == 999
            batches = await reader
            assert session.unanswered == 0
            await session.finish()
            assert await session.receive() is None
        assert server.kinds()[-1] == "goodbye"
    assert_as_if_never_lost(together(batches), 1000, 4)
    assert all(batch.sent_ns == 1 and batch.received_ns > 1_700_000_000 * 10**9 for batch in batches)


async def test_ticks_that_gather_during_a_write_leave_together(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            for tick in ticks_of(60):
                assert session.try_send(tick) == 1
            await read(session, 60)
        assert server.kinds().count("ticks") <= 2


async def test_send_waits_while_in_flight_max_is_reached(socket_path):
    go_on = threading.Event()

    def withholds(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        yield welcome
        while session.ready < 64:
            session.take(stream.ticks())
        go_on.wait()
        yield from session.give(1000)
        yield from until_goodbye(stream, session)

    with ScriptedServer(socket_path, withholds) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            assert session.try_send(ticks_of(60)) == 60
            sender = asyncio.create_task(session.send(ticks_of(100, 60)))
            await asyncio.sleep(0.05)
            assert not sender.done()
            assert session.unanswered == session.welcome.in_flight_max == 64
            assert session.try_send(ticks_of(1)) == 0
            go_on.set()
            assert await sender == 60
            await read(session, 160)


async def test_a_send_that_is_cancelled_keeps_the_ticks_that_were_taken(socket_path):
    def never_answers(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        yield welcome
        while True:
            stream.receive()

    with ScriptedServer(socket_path, never_answers) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.send(ticks_of(100)), 0.05)
            assert session.next_sequence == 64


async def test_the_ticks_of_concurrent_sends_do_not_mix(socket_path):
    sizes = [200, 1, 63, 100, 64, 1, 150, 65, 2] * 3
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            reader = asyncio.create_task(read(session, sum(sizes)))

            async def send(number: int, size: int) -> int:
                await asyncio.sleep(0.001 * (number % 4))
                return await session.send(ticks_of(size, 10_000 * number))

            firsts = await asyncio.gather(*(send(number, size) for number, size in enumerate(sizes)))
            events = together(await reader)["ts_event"]
            for number, (first, size) in enumerate(zip(firsts, sizes, strict=True)):
                assert events[first : first + size].tolist() == list(range(10_000 * number, 10_000 * number + size))


async def test_a_tick_that_cant_be_predicted_comes_back_as_an_error(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            ticks = ticks_of(3)
            ticks["instrument_id"][1] = 99
            await session.send(ticks)
            (batch,) = await read(session, 3)
            assert batch.predictions["sequence"].tolist() == [0, 2]
            assert [(error.sequence, error.reason) for error in batch.errors] == [
                (1, TickErrorReason.UNKNOWN_INSTRUMENT)
            ]


async def test_batches_end_with_the_session_and_can_be_read_after_finish(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(50))
            await session.finish()
            assert sum([len(batch.predictions) async for batch in session.batches()]) == 50
            with pytest.raises(LocalUsageError, match="after finish"):
                await session.send(ticks_of(1))


async def test_an_idle_client_says_that_it_is_alive(socket_path):
    with ScriptedServer(socket_path, daemon=ModelDaemon(64, 4, heartbeat_interval_ns=150_000_000)) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await until(lambda: server.kinds().count("heartbeat") >= 5)
            assert session.reconnects == 0


# --- Refusals ---------------------------------------------------------------------------------------------------------


async def test_a_refusal_carries_the_daemons_detail(socket_path):
    script = refuse(
        grpc.StatusCode.NOT_FOUND,
        "Hello.model: was moon; name one of demo",
        reason="MODEL_UNKNOWN",
        field="Hello.model",
        value="moon",
        mend="name one of demo",
    )
    with ScriptedServer(socket_path, script) as server, pytest.raises(SessionRefused) as caught:
        await connect(server.address, instruments=INSTRUMENTS, model="moon").open()
    refusal = caught.value
    assert (refusal.code, refusal.reason, refusal.field) == ("NOT_FOUND", "MODEL_UNKNOWN", "Hello.model")
    assert (refusal.value, refusal.mend) == ("moon", "name one of demo")
    assert str(refusal) == "NOT_FOUND MODEL_UNKNOWN: Hello.model: was moon; name one of demo"


async def test_a_refusal_in_mid_session_reaches_sender_and_reader_after_the_answers_before_it(socket_path):
    def refuses_later(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        yield welcome
        session.take(stream.ticks())
        yield from session.give(1000)
        stream.ticks()
        stream.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "in_flight_max", status_pb2.Fault(reason="IN_FLIGHT"))

    with ScriptedServer(socket_path, refuses_later) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(5))
            await read(session, 5)
            await session.send(ticks_of(5))
            with pytest.raises(SessionRefused, match="RESOURCE_EXHAUSTED IN_FLIGHT"):
                await session.receive(20)
            with pytest.raises(SessionRefused, match="RESOURCE_EXHAUSTED IN_FLIGHT"):
                await session.send(ticks_of(1))
            with pytest.raises(SessionRefused):
                await session.finish()
    assert server.kinds().count("hello") == 1


async def test_a_daemon_that_is_not_warm_yet_is_tried_again(socket_path):
    not_ready = refuse(grpc.StatusCode.UNAVAILABLE, "warming up", reason="NOT_READY")
    with ScriptedServer(socket_path, not_ready, not_ready, by_the_rules) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            assert session.reconnects == 0
        assert server.kinds().count("hello") == 3


async def test_connecting_to_nobody_fails_with_the_address_in_the_sentence(socket_path):
    session = connect(f"unix:{socket_path}", instruments=INSTRUMENTS, connect_deadline_s=0.2)
    with pytest.raises(ConnectFailed, match=r"s\.sock within 0\.2 s .*start penstockd"):
        await session.open()


async def test_without_reconnect_one_try_is_made(socket_path):
    session = connect(f"unix:{socket_path}", instruments=INSTRUMENTS, reconnect=False)
    with pytest.raises(ConnectFailed, match="1 tries"):
        await session.open()


async def test_a_daemon_that_takes_hello_and_says_nothing_fails_at_the_connect_deadline(socket_path):
    def mute(stream: ServerStream) -> Responses:
        stream.hello()
        stream.receive()
        yield b""

    with ScriptedServer(socket_path, mute) as server, pytest.raises(ConnectFailed, match="no Welcome"):
        await connect(server.address, instruments=INSTRUMENTS, connect_deadline_s=0.2).open()


# --- Losses -----------------------------------------------------------------------------------------------------------


def drops_after(answers: int, *, restart: bool = False):
    """Answer by the rules, but break off in the middle of a batch after *answers* in all."""

    def script(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        yield welcome
        given = 0
        while given < answers:
            if not session.ready:
                session.take(stream.ticks())
            now = min(answers - given, session.ready)
            yield from session.give(now)
            given += now
        time.sleep(0.02)  # The answers are on their way.
        if restart:
            stream.server.daemon.restart()
        stream.drop()

    return script


@pytest.mark.parametrize("restart", [False, True], ids=["states kept", "states lost"])
async def test_a_connection_that_drops_in_mid_batch_costs_no_tick_and_no_state(socket_path, restart):
    scripts = [drops_after(7, restart=restart), drops_after(90, restart=restart), by_the_rules]
    with ScriptedServer(socket_path, *scripts) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            reader = asyncio.create_task(read(session, 500))
            await session.send(ticks_of(500))
            assert_as_if_never_lost(together(await reader), 500, 4)
            assert session.reconnects == 2
            await session.finish()
        rebuilds = [r for _, _, r in server.requests if r.ticks.purpose == pb.PURPOSE_REBUILD]
        assert bool(rebuilds) == restart


async def test_a_draining_daemon_answers_what_it_has_and_the_next_one_goes_on(socket_path):
    def drains(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        yield welcome
        session.take(stream.ticks())
        goodbye = pb.Goodbye(reason=pb.Goodbye.REASON_DRAINING, message="the daemon is stopping")
        yield pb.StreamPredictionsResponse(goodbye=goodbye)
        yield from session.give(1000)
        stream.server.daemon.restart()
        reader = threading.Thread(target=stream.receive_all)  # There would be room for more ticks now.
        reader.start()
        reader.join(0.1)

    not_yet = refuse(grpc.StatusCode.UNAVAILABLE, "warming up", reason="NOT_READY")
    with ScriptedServer(socket_path, drains, not_yet, by_the_rules) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            reader = asyncio.create_task(read(session, 300))
            await session.send(ticks_of(300))
            assert_as_if_never_lost(together(await reader), 300, 4)
            await session.finish()
        second_hello = next(r.hello for _, number, r in server.requests if number == 2)
        assert second_hello.resume_token == b""
        assert server.kinds(0) == ["hello", "ticks"]


async def test_a_silent_daemon_is_treated_as_lost(socket_path):
    def falls_silent(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        yield welcome
        while True:
            request = stream.receive()
            if request.WhichOneof("message") == "ticks":
                session.take(request.ticks)

    with ScriptedServer(
        socket_path, falls_silent, by_the_rules, daemon=ModelDaemon(64, 4, heartbeat_interval_ns=20_000_000)
    ) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            await session.send(ticks_of(10))
            assert_as_if_never_lost(together(await read(session, 10)), 10, 4)
            assert session.reconnects >= 1
            assert server.kinds(0).count("heartbeat") >= 1


async def test_a_daemon_that_dies_of_every_tick_is_given_up(socket_path):
    def dies_of_ticks(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        yield welcome
        stream.ticks()
        stream.drop()

    with ScriptedServer(socket_path, dies_of_ticks) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            await session.send(ticks_of(3))
            with pytest.raises(SessionLost, match="3 ticks have no answer") as caught:
                await session.receive(20)
            assert caught.value.unanswered == 3
            assert caught.value.attempts > 1


async def test_a_daemon_that_never_comes_back_is_given_up(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            server.stop()
            with pytest.raises(SessionLost, match="not regained"):
                await session.receive(20)
            with pytest.raises(SessionLost):
                session.try_send(ticks_of(1))


async def test_without_reconnect_a_loss_ends_the_session(socket_path):
    with ScriptedServer(socket_path, drops_after(3)) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=False) as session:
            await session.send(ticks_of(10))
            assert together(await read(session, 3))["sequence"].tolist() == [0, 1, 2]
            with pytest.raises(SessionLost, match=r"reconnect=False.*7 ticks"):
                await session.receive(20)
        assert server.kinds().count("hello") == 1


async def test_ticks_can_be_queued_and_finished_during_an_outage(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(10))
            await read(session, 10)
            server.stop()
            await asyncio.sleep(0.05)
            await session.send(ticks_of(10, 10))
            finishing = asyncio.create_task(session.finish())
            with ScriptedServer(socket_path, daemon=ModelDaemon(64, 4)):
                await finishing
                assert together(await read(session, 10))["sequence"].tolist() == list(range(10, 20))


async def test_a_daemon_with_other_horizons_does_not_take_a_session_over(socket_path):
    def other_horizons(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        welcome.welcome.horizons[0].name = "100ms"
        yield welcome
        stream.receive()

    with ScriptedServer(socket_path, drops_after(1), other_horizons) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            await session.send(ticks_of(10))
            await read(session, 1)
            with pytest.raises(SessionLost, match="other horizons"):
                await session.receive(20)


async def test_reconnecting_again_and_again_leaves_no_connection_behind_even_without_a_collector(socket_path):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.disable()
    try:
        with ScriptedServer(socket_path, *[drops_after(n) for n in range(1, 40)], by_the_rules) as server:
            async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
                before = open_files()
                for number in range(40):
                    await session.send(ticks_of(50, 50 * number))
                    await read(session, 50)
                assert session.reconnects > 20
                await until(lambda: open_files() <= before + 4)  # Both ends are here, and each takes a moment.
    finally:
        gc.enable()


# --- Nonsense ---------------------------------------------------------------------------------------------------------


def answer(*sequences: int) -> pb.StreamPredictionsResponse:
    records = np.zeros(len(sequences), PREDICTION_DTYPE)
    records["sequence"] = sequences
    return pb.StreamPredictionsResponse(predictions=pb.PredictionBatch(records=records.tobytes()))


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        (b"\xff\xff\xff", "no StreamPredictionsResponse"),
        (pb.StreamPredictionsResponse(), "a message of no kind"),
        (pb.StreamPredictionsResponse(welcome=pb.Welcome()), "welcome after Welcome"),
        (pb.StreamPredictionsResponse(predictions=pb.PredictionBatch(records=b"x" * 127)), "128 bytes each"),
        (answer(1), "go on at sequence 0"),
        (answer(0, 0), "each once and in order"),
        (answer(0, 2, 1, 3), "in order of sequence"),
        (answer(0, 1, 2, 3, 4), "sent up to 3"),
        (pb.StreamPredictionsResponse(rebuild_progress=pb.RebuildProgress(ticks=1)), "at most the 0"),
    ],
    ids=["bytes", "empty", "welcome", "length", "gap", "twice", "order", "unsent", "rebuild"],
)
async def test_a_daemon_that_breaks_the_contract_ends_the_session_with_a_sentence(socket_path, nonsense, sentence):
    def talks_nonsense(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        yield welcome
        stream.ticks()
        yield nonsense
        stream.receive()

    with ScriptedServer(socket_path, talks_nonsense) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(4))
            with pytest.raises(DaemonProtocolError, match=sentence):
                await session.receive(20)
        assert server.kinds().count("hello") == 1


async def test_a_daemon_that_does_not_start_with_welcome_is_refused(socket_path):
    def no_welcome(stream: ServerStream) -> Responses:
        stream.hello()
        yield answer(0)

    with ScriptedServer(socket_path, no_welcome) as server, pytest.raises(DaemonProtocolError, match="was predictions"):
        await connect(server.address, instruments=INSTRUMENTS).open()


async def test_a_resume_that_claims_unsent_ticks_is_refused(socket_path):
    def claims_more(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        welcome.welcome.next_sequence = 11
        yield welcome
        stream.receive()

    with ScriptedServer(socket_path, drops_after(4), claims_more) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=QUICK) as session:
            await session.send(ticks_of(10))
            await read(session, 4)
            with pytest.raises(DaemonProtocolError, match="must be in 4 to 10"):
                await session.receive(20)


# --- Time and leave-taking --------------------------------------------------------------------------------------------


async def test_a_timeout_loses_nothing_that_comes_later(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            with pytest.raises(DeadlineExceeded, match=r"timeout_s=0\.02"):
                await session.receive(0.02)
            await session.send(ticks_of(1))
            assert len((await session.receive(20)).predictions) == 1


async def test_the_deadline_of_a_session_reaches_sender_and_reader(socket_path):
    def never_answers(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        yield welcome
        while True:
            stream.receive()

    with ScriptedServer(socket_path, never_answers) as server:
        async with connect(server.address, instruments=INSTRUMENTS, deadline_s=0.3) as session:
            sender = asyncio.create_task(session.send(ticks_of(100)))
            with pytest.raises(DeadlineExceeded, match=r"deadline_s=0\.3 has passed: 64 ticks"):
                await session.receive(20)
            with pytest.raises(DeadlineExceeded):
                await sender


async def test_leaving_early_says_goodbye_and_leaves_no_task(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(64))
        assert server.kinds()[-1] == "goodbye"
        with pytest.raises(LocalUsageError, match="before leaving"):
            await session.finish()


async def test_answers_can_be_read_after_leaving(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(64))
            await session.finish()
        assert sum([len(batch.predictions) async for batch in session.batches()]) == 64


async def test_a_daemon_that_ignores_goodbye_does_not_keep_the_client(socket_path):
    gone = threading.Event()

    def clings(stream: ServerStream) -> Responses:
        _, welcome = stream.open()
        yield welcome
        try:
            while True:
                stream.receive()
        except StreamOverError:
            gone.wait()

    with ScriptedServer(socket_path, clings) as server:
        async with connect(server.address, instruments=INSTRUMENTS):
            pass
        gone.set()
        assert server.kinds()[-1] == "goodbye"


async def test_finishing_does_not_wait_for_ever_for_a_daemon_that_ignores_goodbye(socket_path, monkeypatch):
    monkeypatch.setattr("penstock_client.core.FINISH_GRACE_S", 0.1)
    gone = threading.Event()

    def clings(stream: ServerStream) -> Responses:
        session, welcome = stream.open()
        yield welcome
        try:
            yield from until_goodbye(stream, session)
        finally:
            gone.wait()

    with ScriptedServer(socket_path, clings) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            await session.send(ticks_of(10))
            await session.finish()
            assert len(await read(session, 10)) >= 1
        gone.set()


async def test_a_deadline_that_comes_after_the_end_changes_nothing(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS, deadline_s=0.2) as session:
            await session.finish()
            await asyncio.sleep(0.3)
            assert await session.receive() is None
            with pytest.raises(LocalUsageError, match="after finish"):
                await session.send(ticks_of(1))


async def test_leaving_by_an_exception_closes_the_session(socket_path):
    with ScriptedServer(socket_path) as server:
        with pytest.raises(LocalUsageError, match="length must be"):
            async with connect(server.address, instruments=INSTRUMENTS) as session:
                await session.send(bytes(80))
        assert server.kinds()[-1] == "goodbye"


async def test_leaving_during_an_outage_is_quick(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            server.stop()
            await asyncio.sleep(0.1)
        assert await session.receive() is None


async def test_a_reader_that_stays_away_stops_the_daemon_and_then_the_sender(socket_path, monkeypatch):
    monkeypatch.setattr("penstock_client.session.UNREAD_PATIENCE_S", 0.1)
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            session._mailbox._unread_max = 100
            with pytest.raises(LocalUsageError, match="nobody has read an answer"):
                await session.send(ticks_of(10_000))
            unread = session.next_sequence
            assert unread <= 100 + 64 + 64
            sequences = together(await read(session, unread))["sequence"].tolist()
            assert sequences == list(range(unread))


async def test_a_session_is_opened_once_and_used_after_opening(socket_path):
    with ScriptedServer(socket_path) as server:
        session = connect(server.address, instruments=INSTRUMENTS)
        for use in (lambda: session.try_send(ticks_of(1)), lambda: session.welcome):
            with pytest.raises(LocalUsageError, match="must be open first"):
                use()
        async with session:
            with pytest.raises(LocalUsageError, match="opened once"):
                await session.open()
        with pytest.raises(LocalUsageError, match="opened once"):
            await session.open()


async def test_two_readers_at_once_are_a_mistake(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS) as session:
            first = asyncio.create_task(session.receive(20))
            await asyncio.sleep(0)
            with pytest.raises(LocalUsageError, match="one task at a time"):
                await session.receive(20)
            await session.send(ticks_of(1))
            assert len((await first).predictions) == 1
