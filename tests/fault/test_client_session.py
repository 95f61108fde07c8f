"""What an async session does when all goes well, when it is refused, and when the daemon talks nonsense."""

from __future__ import annotations

import asyncio
import threading

import grpc
import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import status_pb2
from penstock.v1.records import PREDICTION_DTYPE
from penstock_client import (
    ConnectFailed,
    DaemonProtocolError,
    LocalUsageError,
    SessionRefused,
    TickErrorReason,
    connect,
)
from support.client_runs import (
    INSTRUMENTS,
    QUICK,
    Responses,
    assert_as_if_never_lost,
    drops_after,
    read,
    refuse,
    ticks_of,
    together,
    until,
)
from support.model_daemon import ModelDaemon
from support.scripted_server import ScriptedServer, ServerStream, by_the_rules, until_goodbye

pytestmark = pytest.mark.usefixtures("nothing_is_left_over")


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
