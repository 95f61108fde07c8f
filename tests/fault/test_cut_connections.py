"""Connections cut anywhere, many at once: the daemon keeps its sessions, its memory, its descriptors and its log clean."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from pathlib import Path

from grpc._cython import cygrpc

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon.lost_clients import LostClients
from support.cutting_proxy import cutting_proxy
from support.daemon import running_daemon, small
from support.raw_stream import RawStream, StreamEndError, hash_of, hello, run_through, undisturbed
from support.scrape import scrape
from support.tick_arrays import quotes
from support.victim import wait_until

STRATEGIES = 4
CONNECTIONS = 30
TICKS = quotes(8000)


def live_dangerously(address: str, folder: Path, number: int) -> None:
    """Open one connection after another and talk until it is cut, or a little longer."""
    draw = random.Random(number)
    for connection in range(CONNECTIONS):
        after_bytes = draw.choice([50, 300, 700, 2_000, 10_000, 100_000, 10**9])
        with (
            cutting_proxy(folder / f"{number}-{connection}", address, after_bytes=after_bytes) as cut_address,
            RawStream(cut_address) as stream,
            contextlib.suppress(StreamEndError, TimeoutError),
        ):
            stream.send(hello=hello())
            if draw.random() < 0.2:
                continue
            stream.receive("welcome")
            for _ in range(draw.randrange(20)):
                size = draw.randrange(1, 200)
                stream.ticks(TICKS[stream.next_sequence : stream.next_sequence + size])
                if draw.random() < 0.6:
                    stream.receive(timeout_s=0.2)
            if draw.random() < 0.3:
                stream.send(goodbye=pb.Goodbye())
                stream.end()


def test_connections_cut_anywhere_leave_nothing_behind(tmp_path: Path) -> None:
    sets = ("sessions.resume_grace_s=0", "metrics.address=127.0.0.1:0", "sessions.in_flight_max=8192")
    sets = (*sets, "budget.breaker_run=0")  # A busy machine may well make predictions late: not what this is about.
    with running_daemon(tmp_path, *small(tmp_path, *sets)) as daemon:
        descriptors = Path(f"/proc/{daemon.pid}/fd")
        expected = hash_of(undisturbed(daemon.address, TICKS[:2000]))
        before = len(list(descriptors.iterdir()))
        with RawStream(daemon.address) as witness:
            witness.hello()
            strategies = [
                threading.Thread(target=live_dangerously, args=(daemon.address, tmp_path, number))
                for number in range(STRATEGIES)
            ]
            for strategy in strategies:
                strategy.start()
            first = run_through(witness, TICKS[:1000], split=10)
            for strategy in strategies:
                strategy.join()
            rest = run_through(witness, TICKS[1000:2000])
            assert hash_of(first, rest) == expected, "the witness noticed nothing"
            wait_until(lambda: scrape(daemon)["penstock_states"] == 1)
        wait_until(lambda: scrape(daemon)["penstock_sessions"] == 0)
        wait_until(lambda: len(list(descriptors.iterdir())) <= before)
        assert len(daemon.events("session_opened")) > STRATEGIES * CONNECTIONS / 4
        assert not [line for line in daemon.log() if line["level"] == "error"]


def test_log_is_spared_tracebacks_of_lost_clients_and_no_others() -> None:
    """What gRPC says when a client is gone before its status; too rare to be had on purpose."""

    def kept(error: Exception) -> bool:
        record = logging.LogRecord("grpc", logging.ERROR, "", 0, "raised", (), (type(error), error, None))
        return LostClients().filter(record)

    assert not kept(cygrpc.ExecuteBatchError("Failed execute_batch"))
    assert kept(ValueError("a mistake of ours"))
    assert LostClients().filter(logging.LogRecord("grpc", logging.ERROR, "", 0, "said", (), None))
