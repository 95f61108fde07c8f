"""DaemonService of a real daemon: who it is, what it serves and what it saw, as others see it too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from importlib import metadata

import grpc
import pytest

from penstock.v1 import daemon_pb2 as pb
from penstock.v1 import daemon_pb2_grpc, latency_pb2, prediction_pb2
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, instruments, run_through
from support.scrape import scrape
from support.segment_client import attach
from support.tick_arrays import quotes
from support.victim import wait_until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("described")
    sets = ("metrics.address=127.0.0.1:0", "server.drain_s=30", "sessions.in_flight_max=4096")
    with running_daemon(folder, *small(folder, *sets)) as daemon:
        yield daemon


@pytest.fixture
def service(daemon: RunningDaemon) -> Iterator[daemon_pb2_grpc.DaemonServiceStub]:
    with grpc.insecure_channel(daemon.address) as channel:
        yield daemon_pb2_grpc.DaemonServiceStub(channel)


def described(service: daemon_pb2_grpc.DaemonServiceStub) -> pb.DaemonSnapshot:
    return service.DescribeDaemon(pb.DescribeDaemonRequest(), timeout=20).snapshot


def test_daemon_says_who_it_is_and_that_it_serves(
    daemon: RunningDaemon, service: daemon_pb2_grpc.DaemonServiceStub
) -> None:
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(instruments=instruments(1))
        stream.goodbye()
        assert stream.end().code == "OK"
    first, second = described(service), described(service)
    one = first.identity
    assert (one.version, one.process_id) == (metadata.version("penstock"), daemon.pid)
    assert (one.daemon_id, one.engine, one.device) == (welcome.daemon_id, "cpu", "cpu")
    assert one.device_why
    assert 0 < one.uptime_ns < second.identity.uptime_ns
    assert abs(first.taken_ns - time.time_ns()) < 60e9
    assert (first.serving, list(first.reasons)) == (True, [])
    assert first.model == welcome.model
    assert first.sessions_opened >= 1
    assert {field.name for field, _ in first.ListFields()} & {"feed", "device"} == set()


def test_session_and_its_rings_are_told_as_they_stand(
    daemon: RunningDaemon, service: daemon_pb2_grpc.DaemonServiceStub
) -> None:
    ticks = quotes(300, (1, 2))
    ticks["instrument_id"][:3] = 9
    before = described(service)
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(instruments=instruments(1, 2), client_name="a strategy", pace=prediction_pb2.PACE_BULK)
        stream.rebuild(quotes(40))
        run_through(stream, ticks)
        during = described(service)
        (session,) = during.sessions
        assert (session.session_id, session.client_name) == (welcome.session_id, "a strategy")
        assert (session.path, session.pace) == (latency_pb2.PATH_GRPC, prediction_pb2.PACE_BULK)
        assert (session.state, session.model) == (pb.SESSION_STATE_ATTACHED, welcome.model.name)
        assert (session.instruments, session.ticks, session.refused) == (2, 300, 3)
        assert (session.unanswered, during.states - before.states) == (0, 2)
        rings = {(ring.session_id, ring.kind): ring for ring in during.rings}
        ring = rings[welcome.session_id, pb.RING_KIND_TICKS]
        assert (ring.used, ring.slots, ring.path) == (0, 4096, latency_pb2.PATH_GRPC)
        assert 40 <= ring.high_water <= 340, "the rebuild ticks came as one batch"
        assert rings[welcome.session_id, pb.RING_KIND_PREDICTIONS].high_water > 0
        assert rings[0, pb.RING_KIND_CONTROL].slots > 0
        stream.goodbye()
        assert stream.end().code == "OK"
    after = described(service)
    assert not after.sessions
    assert after.engine.predictions - before.engine.predictions == 297
    assert after.engine.ticks - before.engine.ticks == 340
    assert after.engine.busy_ns > before.engine.busy_ns


def test_lost_session_and_one_with_a_segment_say_so(
    daemon: RunningDaemon, service: daemon_pb2_grpc.DaemonServiceStub
) -> None:
    with RawStream(daemon.address) as lost:
        number = lost.hello(instruments=instruments(1)).session_id
        run_through(lost, quotes(10))
    with RawStream(daemon.address) as stream:
        welcome = stream.hello(instruments=instruments(1), shared_memory=True)
        with attach(welcome) as segment:
            segment.publish(quotes(20))
            segment.predictions(20)

            def told() -> dict[int, pb.SessionStatus]:
                return {one.session_id: one for one in described(service).sessions}

            wait_until(lambda: told()[welcome.session_id].ticks == 20)
            found = told()
            assert found[welcome.session_id].state == pb.SESSION_STATE_SEGMENT
            assert found[welcome.session_id].path == latency_pb2.PATH_SHARED_MEMORY
            assert found[number].state == pb.SESSION_STATE_LOST
            assert told()[number].silent_ns > found[number].silent_ns > 0
            stream.goodbye()
            assert stream.end().code == "OK"


def test_clocks_self_watch_and_budget_agree_with_the_metrics(
    daemon: RunningDaemon, service: daemon_pb2_grpc.DaemonServiceStub
) -> None:
    shown, one = scrape(daemon), described(service)
    assert one.clocks.stamps in ("tsc", "monotonic")
    assert one.clocks.stamps_why
    assert one.clocks.HasField("tsc_hertz") == (one.clocks.stamps == "tsc")
    (realtime,) = (offset for offset in one.clocks.offsets if offset.of == "realtime")
    assert realtime.against == "monotonic"
    sources = {source.name: source for source in one.clocks.sources}
    assert {"monotonic", "monotonic_raw", "realtime"} <= set(sources)
    assert (sources["monotonic"].epoch, sources["monotonic"].error_ns) == ("boot", 0)
    assert sources["realtime"].HasField("error_ns") == one.clocks.HasField("maximum_error_ns")
    assert abs(realtime.offset_ns - (time.time_ns() - time.monotonic_ns())) < 60e9
    assert one.self_watch.minor_faults >= shown['penstock_engine_page_faults_total{kind="minor"}']
    assert one.self_watch.voluntary_switches >= shown['penstock_engine_switches_total{kind="voluntary"}']
    assert one.self_watch.HasField("throttled_periods") == ("penstock_throttled_periods_total" in shown)
    assert one.budget.late >= shown["penstock_late_predictions_total"]
    assert (one.budget.breaker_open, one.engine.stalls) == (False, 0)


def test_watch_tells_at_once_and_again_and_of_an_interval_at_least(
    service: daemon_pb2_grpc.DaemonServiceStub,
) -> None:
    call = service.WatchDaemon(pb.WatchDaemonRequest(interval_ns=1), timeout=20)
    first, second = next(call).snapshot, next(call).snapshot
    assert second.identity.uptime_ns - first.identity.uptime_ns >= 100_000_000
    assert 0 <= second.engine.busy_share <= 1
    call.cancel()


def test_draining_daemon_still_tells_how_it_is(
    daemon: RunningDaemon, service: daemon_pb2_grpc.DaemonServiceStub
) -> None:
    """The last of this file: the daemon is gone after it."""
    watch = service.WatchDaemon(pb.WatchDaemonRequest(interval_ns=100_000_000), timeout=20)
    next(watch)
    with RawStream(daemon.address) as deaf:
        deaf.hello()
        for _ in range(16):  # More answers than a connection holds: its stream can't end before it is read.
            deaf.ticks(quotes(256))
        os.kill(daemon.pid, signal.SIGTERM)
        told = next(one.snapshot for one in watch if not one.snapshot.serving)
        assert list(told.reasons) == [pb.NOT_SERVING_REASON_DRAINING]
        assert told.sessions
