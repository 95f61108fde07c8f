"""What an async session does when its connection drops, drains, falls silent or never comes back."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import grpc
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock_client import (
    SessionLost,
    connect,
)
from support.client_runs import (
    HASTY,
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
from support.scripted_server import ScriptedServer, ServerStream, by_the_rules

pytestmark = pytest.mark.usefixtures("nothing_is_left_over")


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
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=HASTY) as session:
            await session.send(ticks_of(3))
            with pytest.raises(SessionLost, match="3 ticks have no answer") as caught:
                await session.receive(20)
            assert caught.value.unanswered == 3
            assert caught.value.attempts > 1


async def test_a_daemon_that_never_comes_back_is_given_up(socket_path):
    with ScriptedServer(socket_path) as server:
        async with connect(server.address, instruments=INSTRUMENTS, reconnect=HASTY) as session:
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
