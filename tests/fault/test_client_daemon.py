"""The client and a real daemon over real sockets: cut lines, frozen lines, a daemon killed, stopped and started again."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PredictionFlag, PredictionHash
from penstock_client import (
    ConnectFailed,
    Instrument,
    Pace,
    ReconnectPolicy,
    Session,
    SessionRefused,
    TickErrorReason,
    admin,
    connect,
)
from penstock_client.blocking import connect as connect_blocking
from penstock_client.default_address import default_address
from support.daemon import RunningDaemon, running_daemon, start_daemon
from support.relay import Relay
from support.tick_stream import tick_stream

INSTRUMENTS = [Instrument(1, "BTCUSDT", "TEST", 1000), Instrument(2, "ETHUSDT", "TEST", 1000)]
PATIENT = ReconnectPolicy(give_up_after_s=90)
TICKS = 12_000


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="penstock-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(folder) -> Iterator[RunningDaemon]:
    with running_daemon(folder, "sessions.heartbeat_interval_s=0.25") as running:
        yield running


@pytest.fixture
def relay(folder, daemon) -> Iterator[Relay]:
    with Relay(folder / "relay.sock", daemon.address) as running:
        yield running


@pytest.fixture(scope="module")
def ticks() -> np.ndarray:
    both = np.concatenate([tick_stream(1, TICKS // 2), tick_stream(2, TICKS // 2, instrument_id=2)])
    return both[np.argsort(both["ts_recv"], kind="stable")]


@pytest.fixture(scope="module")
def undisturbed(daemon, ticks) -> np.ndarray:
    return asyncio.run(all_at_once(daemon.address, ticks))


async def all_at_once(address: str, ticks: np.ndarray) -> np.ndarray:
    async with connect(address, instruments=INSTRUMENTS, pace=Pace.BULK) as session:
        reader = asyncio.create_task(read(session, len(ticks)))
        await session.send(ticks)
        await session.finish()
        return await reader


async def read(session: Session, count: int) -> np.ndarray:
    parts: list[np.ndarray] = []
    async with asyncio.timeout(90):
        async for batch in session.batches():
            assert not batch.errors
            parts.append(batch.predictions)
            if sum(map(len, parts)) >= count:
                break
    return np.concatenate(parts)


async def answered(session: Session, count: int) -> None:
    async with asyncio.timeout(90):
        while session.next_sequence - session.unanswered < count:  # noqa: ASYNC110 - The answers come in another task.
            await asyncio.sleep(0.001)


def digest(predictions: np.ndarray) -> str:
    hashed = PredictionHash()
    hashed.update(predictions)
    return hashed.hexdigest()


def assert_answered_in_order(predictions: np.ndarray, ticks: np.ndarray) -> None:
    assert predictions["sequence"].tolist() == list(range(len(ticks)))
    assert (predictions["ts_recv"] == ticks["ts_recv"]).all()
    assert (predictions["instrument_id"] == ticks["instrument_id"]).all()


async def test_every_tick_of_a_stream_is_answered_in_order(ticks, undisturbed):
    assert_answered_in_order(undisturbed, ticks)
    assert np.isfinite(undisturbed["forecasts"]["expected_return"]).all()


async def test_tcp_gives_the_same_predictions_as_the_socket(folder, ticks, undisturbed):
    with TemporaryDirectory(dir=folder) as own, running_daemon(Path(own), address="127.0.0.1:0") as other:
        assert digest(await all_at_once(other.address, ticks)) == digest(undisturbed)


async def test_lines_cut_again_and_again_cost_not_a_bit(relay, ticks, undisturbed):
    async with connect(relay.address, instruments=INSTRUMENTS, pace=Pace.BULK, reconnect=PATIENT) as session:
        reader = asyncio.create_task(read(session, len(ticks)))
        for start in range(0, len(ticks), 1000):
            await session.send(ticks[start : start + 1000])
            if start % 3000 == 2000:
                relay.cut()
            await asyncio.sleep(0.01)
        predictions = await reader
        assert session.reconnects >= 1  # A cut during a reconnect is one with it.
        assert session.welcome.state_origin == pb.STATE_ORIGIN_RESUMED
        await session.finish()
    assert digest(predictions) == digest(undisturbed)


async def test_a_frozen_line_is_noticed_by_its_silence_and_costs_not_a_bit(relay, ticks, undisturbed):
    async with connect(relay.address, instruments=INSTRUMENTS, pace=Pace.BULK, reconnect=PATIENT) as session:
        reader = asyncio.create_task(read(session, len(ticks)))
        await session.send(ticks[:6000])
        relay.freeze()
        await session.send(ticks[6000:])
        predictions = await reader
        assert session.reconnects >= 1
    assert digest(predictions) == digest(undisturbed)


def test_a_blocking_session_over_a_cut_line_costs_not_a_bit(relay, ticks, undisturbed):
    with (
        connect_blocking(relay.address, instruments=INSTRUMENTS, pace=Pace.BULK, reconnect=PATIENT) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        parts = pool.submit(lambda: [batch.predictions for batch in session.batches(timeout_s=60)])
        for start in range(0, len(ticks), 3000):
            session.send(ticks[start : start + 3000])
            if start == 3000:
                relay.cut()
        session.finish()
        assert session.reconnects >= 1
        assert digest(np.concatenate(parts.result())) == digest(undisturbed)


async def test_an_idle_session_stays_up_by_heartbeats(daemon):
    async with connect(daemon.address, instruments=INSTRUMENTS) as session:
        await asyncio.sleep(1.5)
        assert session.reconnects == 0
        await session.send(tick_stream(1, 1))
        assert len((await session.receive(20)).predictions) == 1


async def test_a_daemon_killed_and_started_again_answers_the_rest_from_a_rebuilt_state(folder, ticks, undisturbed):
    with TemporaryDirectory(dir=folder) as own:
        first = start_daemon(Path(own))
        async with connect(first.address, instruments=INSTRUMENTS, pace=Pace.BULK, reconnect=PATIENT) as session:
            reader = asyncio.create_task(read(session, len(ticks)))
            await session.send(ticks[:8000])
            await answered(session, 6000)
            first.kill()
            second = await asyncio.to_thread(start_daemon, Path(own))
            try:
                await session.send(ticks[8000:])
                predictions = await reader
                assert session.welcome.state_origin == pb.STATE_ORIGIN_COLD
                assert session.reconnects == 1
                await session.finish()
            finally:
                assert second.terminate() == 0
    assert_answered_in_order(predictions, ticks)
    warm = (predictions["flags"] & PredictionFlag.WARMING) == 0
    assert (warm == ((undisturbed["flags"] & PredictionFlag.WARMING) == 0)).all()
    returns = predictions["forecasts"]["expected_return"], undisturbed["forecasts"]["expected_return"]
    np.testing.assert_allclose(*returns, atol=1e-4 * float(np.abs(returns[1]).max()))


async def test_a_daemon_that_is_stopped_and_started_again_leaves_no_tick_without_its_answer(folder, ticks):
    with TemporaryDirectory(dir=folder) as own:
        first = start_daemon(Path(own))
        async with connect(first.address, instruments=INSTRUMENTS, pace=Pace.BULK, reconnect=PATIENT) as session:
            reader = asyncio.create_task(read(session, len(ticks)))
            sender = asyncio.create_task(session.send(ticks))
            await answered(session, 3000)
            assert await asyncio.to_thread(first.terminate) == 0
            second = await asyncio.to_thread(start_daemon, Path(own))
            try:
                await sender
                predictions = await reader
                await session.finish()
            finally:
                assert second.terminate() == 0
    assert_answered_in_order(predictions, ticks)


async def test_refusals_of_the_daemon_arrive_with_their_detail(daemon):
    with pytest.raises(SessionRefused) as caught:
        await connect(daemon.address, instruments=INSTRUMENTS, model="moon").open()
    assert (caught.value.code, caught.value.field, caught.value.value) == ("NOT_FOUND", "Hello.model", "moon")
    many = [Instrument(number, str(number)) for number in range(1000)]
    with pytest.raises(SessionRefused) as caught:
        await connect(daemon.address, instruments=many).open()
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "INSTRUMENTS")


async def test_ticks_that_nobody_can_predict_come_back_as_errors_and_change_nothing(daemon, ticks, undisturbed):
    async with connect(daemon.address, instruments=INSTRUMENTS, pace=Pace.BULK) as session:
        some = np.repeat(ticks[:500], 2)
        some["instrument_id"][1::2] = 77
        await session.send(some)
        answers = 0
        predictions, errors = [], []
        while answers < 1000:
            batch = await session.receive(20)
            predictions.append(batch.predictions)
            errors += batch.errors
            answers += len(batch.predictions) + len(batch.errors)
    assert [error.sequence for error in errors] == list(range(1, 1000, 2))
    assert {error.reason for error in errors} == {TickErrorReason.UNKNOWN_INSTRUMENT}
    kept = np.concatenate(predictions)
    assert kept["sequence"].tolist() == list(range(0, 1000, 2))
    assert (kept["forecasts"] == undisturbed["forecasts"][:500]).all()


async def test_operators_can_ask_about_models_latencies_and_health(daemon):
    await all_at_once(daemon.address, tick_stream(1, 10))
    models = admin.list_models(daemon.address)
    assert models.active in {model.name for model in models.models}
    assert admin.describe_model(daemon.address).model.name == models.active
    assert admin.get_latency(daemon.address).histograms
    assert next(admin.watch_latency(daemon.address, interval_ns=100_000_000)).taken_ns > 0
    assert admin.check_health(daemon.address) == "SERVING"
    assert admin.check_health(daemon.address, "penstock.v1.PredictionService") == "SERVING"
    with pytest.raises(SessionRefused, match="NOT_FOUND"):
        admin.describe_model(daemon.address, "moon")
    with pytest.raises(ConnectFailed, match="start penstockd"):
        admin.list_models("unix:/nowhere.sock", deadline_s=0.5)


PAGES = pytest.mark.parametrize(
    ("page", "kind"),
    [("README.md", 0), ("docs/client.md", 0), ("docs/client.md", 1)],
    ids=["readme", "async", "blocking"],
)
"""The strategies on pages; the second one of the client's page has no event loop."""


def run_the_strategy(text: str, kind: int, names: dict[str, Any], parts: Iterable[np.ndarray]) -> None:
    """Run the strategy of a page as it stands there on *parts*, in a thread; it must come to an end."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(blocks[kind], "page", "exec"), names)

    async def market() -> AsyncIterator[np.ndarray]:
        for part in parts:
            yield part

    async def strategy() -> None:
        await asyncio.wait_for(names["strategy"](market()), 20)

    if kind == 0:
        asyncio.run(strategy())
        return
    ended: Future[None] = Future()

    def blocking_strategy() -> None:
        try:
            names["strategy"](parts)
        except Exception as error:  # noqa: BLE001 - Policy: the caller gets whatever it was.
            ended.set_exception(error)
        else:
            ended.set_result(None)

    Thread(target=blocking_strategy, daemon=True).start()
    ended.result(20)


@pytest.fixture
def bare_daemon(folder: Path, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> RunningDaemon:
    """The daemon, where one without a configuration would listen."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert default_address() == daemon.address
    return daemon


@pytest.mark.usefixtures("bare_daemon")
@PAGES
def test_the_strategies_of_the_pages_work_as_they_stand(repository_root, page, kind):
    acted: list[np.ndarray] = []
    names: dict[str, Any] = {"act": acted.append, "print": acted.append}
    run_the_strategy((repository_root / page).read_text(), kind, names, np.array_split(tick_stream(1, 3000), 40))
    values = np.concatenate(acted)
    assert len(values) == 3000
    if page != "README.md":
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.usefixtures("bare_daemon")
@PAGES
def test_the_strategies_of_the_pages_end_with_the_error_of_their_feed(repository_root, page, kind):
    def feed() -> Iterator[np.ndarray]:
        yield tick_stream(1, 100)
        raise ZeroDivisionError("the feed is torn")

    names: dict[str, Any] = {"act": len, "print": len}
    with pytest.raises((ZeroDivisionError, ExceptionGroup)) as end:
        run_the_strategy((repository_root / page).read_text(), kind, names, feed())
    error = end.value.exceptions[0] if isinstance(end.value, ExceptionGroup) else end.value
    assert str(error) == "the feed is torn"


@pytest.mark.usefixtures("bare_daemon")
@PAGES
def test_the_strategies_of_the_pages_end_with_the_error_of_their_reader(repository_root, page, kind):
    def act(_: np.ndarray) -> None:
        raise ZeroDivisionError("nothing to act on")

    names: dict[str, Any] = {"act": act, "print": act}
    parts = itertools.repeat(tick_stream(1, 100))  # A market without an end.
    with pytest.raises((ZeroDivisionError, ExceptionGroup)) as end:
        run_the_strategy((repository_root / page).read_text(), kind, names, parts)
    error = end.value.exceptions[0] if isinstance(end.value, ExceptionGroup) else end.value
    assert str(error) == "nothing to act on"
