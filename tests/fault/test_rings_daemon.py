"""The whole way through shared memory, against a real penstockd: the same bits as over gRPC, through deaths on both sides."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.v1.records import PredictionHash
from penstock_client import Instrument, ReconnectPolicy, SharedMemory, blocking, connect
from penstock_client.errors import SessionRefused
from penstock_client.replay import ReplayPlan, replay
from penstock_client.replay_schedule import MAX_SPEED
from support.client_runs import read, together
from support.daemon import RunningDaemon, small, start_daemon
from support.tick_stream import tick_stream
from support.victim import wait_until

TICKS = tick_stream(3, 3000)
IDS = sorted({int(number) for number in TICKS["instrument_id"]})
INSTRUMENTS = [Instrument(number, f"S{number}") for number in IDS]
PATIENT = ReconnectPolicy(initial_s=0.005, max_s=0.05)


@pytest.fixture(scope="module")
def daemon(rings_daemon: RunningDaemon) -> RunningDaemon:
    return rings_daemon


def digest(predictions: np.ndarray) -> str:
    hashed = PredictionHash()
    hashed.update(predictions)
    return hashed.hexdigest()


def through_blocking(address: str, shared_memory: bool | SharedMemory) -> np.ndarray:
    with blocking.connect(address, instruments=INSTRUMENTS, shared_memory=shared_memory) as session:
        session.send(TICKS)
        session.finish()
        return together(list(session.batches()))


@pytest.fixture(scope="module")
def over_grpc(daemon: RunningDaemon) -> str:
    return digest(through_blocking(daemon.address, shared_memory=False))


@pytest.mark.parametrize("shared_memory", [True, SharedMemory(spin_s=math.inf)], ids=["sleeping", "spinning"])
def test_predictions_are_those_of_grpc_to_the_bit(daemon: RunningDaemon, over_grpc: str, shared_memory):
    assert digest(through_blocking(daemon.address, shared_memory)) == over_grpc


def test_one_tick_at_a_time_gives_the_same_bits(daemon: RunningDaemon, over_grpc: str):
    got = []
    with blocking.connect(daemon.address, instruments=INSTRUMENTS, shared_memory=True) as session:
        for tick in TICKS:
            session.send(tick.tobytes())
            got.append(session.receive(20))
    assert [len(batch.predictions) for batch in got] == [1] * len(TICKS)
    assert digest(together(got)) == over_grpc


async def test_an_event_loop_gives_the_same_bits(daemon: RunningDaemon, over_grpc: str):
    async with connect(daemon.address, instruments=INSTRUMENTS, shared_memory=True) as session:
        reading = asyncio.create_task(read(session, len(TICKS)))
        for first in range(0, len(TICKS), 50):
            await session.send(TICKS[first : first + 50])
        assert digest(together(await reading)) == over_grpc


def test_ticks_filled_in_place_give_the_same_bits(daemon: RunningDaemon, over_grpc: str):
    hashed, sent, answered = PredictionHash(), 0, 0
    with blocking.connect(daemon.address, instruments=INSTRUMENTS, shared_memory=True) as session:
        rings = session.rings
        while answered < len(TICKS):
            claimed = rings.claim(len(TICKS) - sent) if sent < len(TICKS) else TICKS[:0]
            if len(claimed):
                claimed[:] = TICKS[sent : sent + len(claimed)]
                sent += rings.publish(len(claimed))
            peeked = rings.peek()
            hashed.update(peeked)
            answered += len(peeked)
            rings.release(len(peeked))
    assert hashed.hexdigest() == over_grpc


def test_a_replay_gives_the_same_bits(daemon: RunningDaemon, over_grpc: str):
    run = replay(ReplayPlan(INSTRUMENTS, TICKS, daemon.address, speed=MAX_SPEED, shared_memory=True))
    assert run.failure is None
    assert digest(run.predictions) == over_grpc


def test_a_tick_that_is_none_ends_the_session_with_the_daemons_reason(daemon: RunningDaemon):
    with blocking.connect(daemon.address, instruments=INSTRUMENTS, shared_memory=True) as session:
        session.send(TICKS[:5])
        claimed = session.rings.claim(1)
        claimed[:] = TICKS[:1]
        claimed["rtype"] = 7
        session.rings.publish(1)
        with pytest.raises(SessionRefused, match="rtype"):
            together(list(session.batches(20)))


def test_daemons_that_die_are_noticed_and_their_followers_lose_nothing(tmp_path: Path):
    settings = (*small(tmp_path), "sessions.heartbeat_interval_s=60")  # No heartbeat tells of it.
    daemons = [start_daemon(tmp_path, *settings)]
    try:
        with blocking.connect(
            daemons[0].address, instruments=INSTRUMENTS, shared_memory=True, reconnect=PATIENT
        ) as session:
            got, sent = [], 0
            for end in (RunningDaemon.kill, RunningDaemon.terminate):
                session.send(TICKS[sent : sent + 1000])
                sent += 1000
                got.append(session.receive(20))
                end(daemons[-1])
                wait_until(lambda: session._books.attached is None)  # Before there is another.
                sent += session.try_send(TICKS[sent : sent + 100])
                daemons.append(start_daemon(tmp_path, *settings))
            session.send(TICKS[sent:])
            session.finish()
            got += session.batches()
            assert session.reconnects == 2
        predictions = together(got)
        assert predictions["sequence"].tolist() == list(range(len(TICKS)))
        assert (predictions["ts_event"] == TICKS["ts_event"]).all()
        unbroken = through_blocking(daemons[-1].address, shared_memory=True)
        ours, theirs = (one["forecasts"]["expected_return"][-500:, 0] for one in (predictions, unbroken))
        assert np.abs(ours - theirs).max() < 1e-4
    finally:
        for daemon in daemons:
            if daemon.process.poll() is None:
                daemon.terminate()


def test_a_killed_strategy_leaves_the_daemon_as_it_was(daemon: RunningDaemon, over_grpc: str):
    program = (
        "import sys; from penstock_client import Instrument; from penstock_client.blocking import connect\n"
        "session = connect(sys.argv[1], instruments=[Instrument(1, 'A')], shared_memory=True); session.open()\n"
        "from support.tick_arrays import quotes\n"
        "print('open', flush=True)\n"
        "while True: session.send(quotes(100)); session.receive()\n"
    )
    environment_path = str(Path(__file__).resolve().parent.parent)
    strategy = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {environment_path!r})\n{program}", daemon.address],
        stdout=subprocess.PIPE,
    )
    try:
        assert strategy.stdout is not None
        assert strategy.stdout.readline() == b"open\n"
    finally:
        strategy.kill()
        strategy.wait()
        strategy.stdout.close()
    assert digest(through_blocking(daemon.address, shared_memory=True)) == over_grpc


LIVES = """
import os, signal, sys, threading, time
from penstock_client import Instrument
from penstock_client.blocking import connect
from penstock_client.errors import LocalUsageError
from support.tick_arrays import quotes

def refused(verb, *arguments):
    try:
        verb(*arguments)
    except LocalUsageError as error:
        return "forked" in str(error)
    return False

session = connect(sys.argv[1], instruments=[Instrument(1, 'A')], shared_memory=True)
session.open()
session.send(quotes(5))
session.receive(60)
rings = session.rings
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        session.close()
        verbs = [(session.send, quotes(1)), (session.receive,), (session.finish,), (rings.claim, 1), (rings.peek,)]
        os._exit(0 if all(refused(*verb) for verb in verbs) else 1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != -signal.SIGSEGV:  # gRPC's own, at times, before the child has begun.
        break
session.send(quotes(5))
print(ended in (0, -signal.SIGSEGV), session.receive(60).predictions["sequence"].tolist(), session.reconnects)
threading.Thread(target=session.receive, daemon=True).start()
while not session._wait.sleepers:
    time.sleep(0.001)
"""


def test_a_forked_child_leaves_the_session_to_its_parent_whose_exit_ends_waits_without_a_word(daemon: RunningDaemon):
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    command = [sys.executable, "-c", path + LIVES, daemon.address]
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert (done.returncode, done.stdout) == (0, "True [5, 6, 7, 8, 9] 0\n"), done.stderr
    assert "Traceback" not in done.stderr
