"""What tests of client sessions share: ticks that are told apart, answers gathered, scripts for a scripted server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import status_pb2
from penstock_client import Batch, Instrument, ReconnectPolicy, Session
from support.model_daemon import Windows
from support.scripted_server import Script, ServerStream
from support.tick_arrays import quotes

INSTRUMENTS = [Instrument(1, "BTCUSDT"), Instrument(2, "ETHUSDT")]
QUICK = ReconnectPolicy(initial_s=0.001, max_s=0.01)
HASTY = ReconnectPolicy(initial_s=0.001, max_s=0.01, give_up_after_s=1.0)  # For who is to be given up.
Responses = Iterator[pb.StreamPredictionsResponse | bytes]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
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


def refuse(code: grpc.StatusCode, message: str, **fault: str) -> Script:
    """End the stream at Hello with a status and a fault."""

    def script(stream: ServerStream) -> Responses:
        stream.hello()
        stream.abort(code, message, status_pb2.Fault(**fault) if fault else None)
        yield b""

    return script


def drops_after(answers: int, *, restart: bool = False) -> Script:
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
