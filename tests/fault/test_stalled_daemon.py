"""An engine that is stalled on purpose under a real daemon: flags, breaker, health, metrics and log say so, then end it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from penstock.v1 import latency_pb2, latency_pb2_grpc
from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import Clock, PredictionFlag, Stage, predictions_from_bytes
from penstock_client import Instrument
from penstock_client.blocking import connect
from penstock_client.cli import main
from support.daemon import RunningDaemon, running_daemon, small
from support.feed_rig import free_port, packet, send_to
from support.raw_stream import RawStream, run_through
from support.scrape import scrape
from support.tick_arrays import quotes

BURST = 64
STALL_S = 0.02  # More than three times the stale bound.
CLOSE_S = 3.0
GROUP = "239.255.77.9"
PATIENCE_S = 60.0
TOO_OLD = PredictionFlag.LATE | PredictionFlag.STALE | PredictionFlag.SKIPPED
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def port() -> int:
    return free_port(GROUP)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, repository_root: Path, port: int) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("stalled")
    sets = (
        f"feed.group={GROUP}:{port}",
        "feed.interface=lo",
        "feed.payload=dbn",
        "feed.instruments=A=1",
        "metrics.address=127.0.0.1:0",
        f"budget.breaker_run={BURST}",
        f"budget.breaker_close_s={CLOSE_S}",
        "budget.old_ticks=update",
        "budget.warn_every_s=3600",
        "budget_shared_memory.total_us=4500.5",
    )
    environment = {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(repository_root / "tests")])}
    with running_daemon(folder, *small(folder, *sets), module="support.stalling", environment=environment) as daemon:
        yield daemon


def unanswered(daemon: RunningDaemon) -> float:
    return sum(used for name, used in scrape(daemon).items() if name.startswith('penstock_ring_used{ring="ticks"'))


def through_a_stall(daemon: RunningDaemon, stream: RawStream, ticks: NDArray[np.void]) -> NDArray[np.void]:
    """Send *ticks* to an engine that stands still, let it go on once they are old in its ring, and return the answers."""
    os.kill(daemon.pid, signal.SIGUSR1)
    stream.ticks(ticks)
    deadline_s = time.monotonic() + PATIENCE_S
    while unanswered(daemon) < len(ticks):
        assert time.monotonic() < deadline_s, "the ticks are not in the ring"
    time.sleep(STALL_S)  # The stall itself: nothing is waited for.
    os.kill(daemon.pid, signal.SIGUSR2)
    return stream.predictions(len(ticks))


def stage_counts(daemon: RunningDaemon) -> dict[int, int]:
    """Return what was over its bound on gRPC, by stage."""
    with grpc.insecure_channel(daemon.address) as channel:
        latencies = latency_pb2_grpc.LatencyServiceStub(channel)
        answer = latencies.GetLatency(latency_pb2.GetLatencyRequest(path=latency_pb2.PATH_GRPC), timeout=PATIENCE_S)
    return {budget.stage - 1: budget.exceeded for budget in answer.budgets}


def test_stall_in_bulk_is_nobody_s_breach(daemon: RunningDaemon) -> None:
    before = scrape(daemon)
    with RawStream(daemon.address) as stream:
        stream.hello(pace=pb.PACE_BULK)
        answers = through_a_stall(daemon, stream, quotes(2 * BURST))
        stream.goodbye()
        assert stream.end().code == "OK"
    assert not (answers["flags"] & np.uint32(TOO_OLD)).any()
    assert answers["stage_ns"][:, Stage.RING].min() > STALL_S * 1e9, "it did stand still"
    after = scrape(daemon)
    counted = [name for name in after if name.startswith(("penstock_stage_over", "penstock_breaker", "penstock_old"))]
    assert len(counted) > 24
    assert [name for name in counted if after[name] != before[name]] == []
    assert daemon.events("breaker_opened") == []


def test_stall_is_flagged_counted_told_and_over_again(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    with grpc.insecure_channel(daemon.address) as channel, RawStream(daemon.address) as stream:
        service = health_pb2.HealthCheckRequest(service="penstock.v1.PredictionService")
        watch = health_pb2_grpc.HealthStub(channel).Watch(service, timeout=3 * PATIENCE_S)
        assert next(watch).status == SERVING
        assert stream.hello().budget_ns == 5_000_000
        before, stages_before = scrape(daemon), stage_counts(daemon)

        answers = through_a_stall(daemon, stream, quotes(BURST))
        assert ((answers["flags"] & np.uint32(TOO_OLD)) == np.uint32(TOO_OLD)).all()
        assert not any(answers["forecasts"].tobytes()), "they only updated the state"
        assert next(watch).status == NOT_SERVING
        during = scrape(daemon)
        assert main(["health", "--to", daemon.address]) == 3
        assert "NOT_SERVING" in capsys.readouterr().out
        assert during["penstock_breaker_open"] == 1
        assert during["penstock_serving"] == 1, "sessions are still taken"
        for name, count in (
            ("penstock_breaker_trips_total", 1),
            ("penstock_breaker_openings_total", 1),
            ("penstock_old_ticks_total", BURST),
            ("penstock_skipped_ticks_total", BURST),
            ("penstock_stale_predictions_total", BURST),
        ):
            assert during[name] - before[name] == count, name
        added = {stage: over - stages_before[stage] for stage, over in stage_counts(daemon).items()}
        assert added[Stage.RING] == added[Stage.TOTAL] == BURST
        labels = '{path="grpc",stage="total"}'
        assert during[f"penstock_stage_over_budget_total{labels}"] == stage_counts(daemon)[Stage.TOTAL]

        answered = run_through(stream, quotes(BURST))
        assert len(answered) == BURST, "sessions are answered while it is open"
        assert next(watch).status == SERVING
    assert main(["health", "--to", daemon.address]) == 0
    assert scrape(daemon)["penstock_breaker_open"] == 0

    (opened,) = daemon.events("breaker_opened")
    assert (opened["level"], opened["trips"], opened["stale"]) == ("error", 1, BURST)
    (closed,) = daemon.events("breaker_closed")
    assert closed["open_s"] >= CLOSE_S
    told = {line["stage"]: line for line in daemon.events("stage over budget") if line["path"] == "grpc"}
    assert {"RING", "TOTAL"} <= set(told)
    assert told["TOTAL"]["elapsed_ns"] > told["TOTAL"]["budget_ns"] == 5_000_000
    assert 0 <= told["TOTAL"]["sequence"] < BURST
    flags = {line["flag"]: line["count"] for line in daemon.events("predictions over budget")}
    assert flags["STALE"] <= flags["LATE"]


@contextlib.contextmanager
def stopped(daemon: RunningDaemon) -> Iterator[None]:
    """Stop a daemon as a whole, and let it go on once what the block has done is old."""
    os.kill(daemon.pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(daemon.pid, os.WUNTRACED)[1])
    yield
    time.sleep(STALL_S)  # The stall itself, as above.
    os.kill(daemon.pid, signal.SIGCONT)


def await_added(daemon: RunningDaemon, before: dict[str, float], expected: dict[str, float]) -> None:
    """Wait until the metrics say what was added since *before*: answers may come first."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        now = scrape(daemon)
        added = {name: now[name] - before[name] for name in expected}
        if added == expected:
            return
        assert time.monotonic() < deadline_s, added


def over(path: str, stage: str) -> str:
    return f'penstock_stage_over_budget_total{{path="{path}",stage="{stage}"}}'


def test_ticks_that_grew_old_while_the_whole_daemon_was_stopped_are_told_as_that(daemon: RunningDaemon) -> None:
    before = scrape(daemon)
    found: list[NDArray[np.void]] = []
    with connect(daemon.address, instruments=[Instrument(1, "SYMBOL1")], shared_memory=True) as session:
        assert session.welcome.budget_ns == 4_500_500, "each path has its own"
        with stopped(daemon):
            session.send(quotes(BURST))  # Into memory: nobody has to be there.
        while sum(map(len, found)) < BURST:
            batch = session.receive(PATIENCE_S)
            assert batch is not None
            found.append(batch.predictions)
    answers = np.concatenate(found)
    assert ((answers["flags"] & np.uint32(TOO_OLD)) == np.uint32(TOO_OLD)).all()
    assert answers["stage_ns"][:, Stage.RING].min() > STALL_S * 1e9
    expected = {
        "penstock_old_ticks_total": BURST,
        over("shared_memory", "ring"): BURST,
        over("shared_memory", "total"): BURST,
        over("grpc", "total"): 0,
    }
    await_added(daemon, before, expected)


def test_packets_that_grew_old_in_the_socket_are_told_by_the_kernel_s_stamps(daemon: RunningDaemon, port: int) -> None:
    before = scrape(daemon)
    subscribe = "/penstock.v1.PredictionService/Subscribe"
    with grpc.insecure_channel(daemon.address) as channel, send_to(GROUP, port) as line:
        call = channel.unary_stream(subscribe, response_deserializer=pb.SubscribeResponse.FromString)
        stream = call(pb.SubscribeRequest().SerializeToString(), timeout=3 * PATIENCE_S)
        assert next(stream).subscribed.budget_ns == 5_000_000
        with stopped(daemon):
            for number in range(1, BURST + 1):
                line.send(packet(number))
        found: list[NDArray[np.void]] = []
        while sum(map(len, found)) < BURST:
            found.append(predictions_from_bytes(next(stream).predictions.records))
    answers = np.concatenate(found)
    assert set(answers["clock"]) == {Clock.KERNEL}
    assert ((answers["flags"] & np.uint32(TOO_OLD)) == np.uint32(TOO_OLD)).all()
    assert answers["stage_ns"][:, Stage.RECEIVE].min() > STALL_S * 1e9, "they waited in the socket"
    expected = {
        "penstock_breaker_trips_total": 1,
        "penstock_old_ticks_total": BURST,
        over("feed", "receive"): BURST,
        over("feed", "total"): BURST,
        over("shared_memory", "total"): 0,
    }
    await_added(daemon, before, expected)
