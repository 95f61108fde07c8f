"""How an async session ends: by time, by leaving, by a reader who stays away; and what it says to misuse."""

from __future__ import annotations

import asyncio
import threading

import pytest

from penstock_client import (
    DeadlineExceeded,
    LocalUsageError,
    connect,
)
from support.client_runs import (
    INSTRUMENTS,
    Responses,
    read,
    ticks_of,
    together,
)
from support.scripted_server import ScriptedServer, ServerStream, StreamOverError, until_goodbye

pytestmark = pytest.mark.usefixtures("nothing_is_left_over")


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
    monkeypatch.setattr("penstock_client.exchange.FINISH_GRACE_S", 0.1)
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
