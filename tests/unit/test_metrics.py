"""Metrics as Prometheus sees them: over HTTP, parsed by its own parser."""

from __future__ import annotations

import dataclasses
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import CapturingLogger

from penstock.v1.histogram import BUCKETS, bucket_of
from penstock_daemon import metrics_server
from penstock_daemon.addresses import TcpAddress
from penstock_daemon.budget_metrics import BudgetSnapshot, StageBudget
from penstock_daemon.clocks.metrics import ClocksSnapshot
from penstock_daemon.clocks.seam import Base, Offset
from penstock_daemon.device.metrics import DeviceSnapshot
from penstock_daemon.feed.metrics import FeedSnapshot
from penstock_daemon.metrics import (
    BOUNDS_NS,
    LatencyHistogram,
    MetricsSnapshot,
    ModelInfo,
    RingOccupancy,
    cumulative_buckets,
    make_registry,
)
from penstock_daemon.metrics_server import MetricsServer
from penstock_daemon.recorder import RecorderStats
from penstock_daemon.self_watch.foreign import Intruder, Kind
from penstock_daemon.self_watch.metrics import RingHighWater, SelfWatchSnapshot
from penstock_daemon.socket_guard import ListenError
from penstock_daemon.subscriptions import SubscriptionCounts

ANY_PORT = TcpAddress("127.0.0.1", 0)


def histogram(durations_ns: list[int]) -> LatencyHistogram:
    counts = np.zeros(BUCKETS, dtype=np.int64)
    for duration_ns in durations_ns:
        counts[bucket_of(duration_ns)] += 1
    return LatencyHistogram("grpc", "total", "realtime", counts, sum(durations_ns), max(durations_ns, default=0), 2)


FULL = MetricsSnapshot(
    serving=True,
    ticks={"realtime": 12, "bulk": 30},
    predictions={"realtime": 11, "bulk": 30},
    refusals={"SEQUENCE_GAP": 2, 'odd"\n': 1},
    tick_errors={"UNKNOWN_INSTRUMENT": 3},
    sessions=2,
    sessions_max=16,
    segments=2,
    segments_lost={"CURSOR": 1},
    states=3,
    states_max=64,
    rings=[RingOccupancy("ticks", "0", 5, 8192), RingOccupancy("predictions", "0", 0, 8192)],
    engine_busy_share=0.25,
    engine_busy_ns=1_500_000_000,
    histograms=[histogram([900_000, 1_000_000, 4_999_999, 5_000_000, 7_000_000])],
    recorder=RecorderStats(ticks_written=9, ticks_dropped=4),
    model=ModelInfo("demo", "1", "ab" * 32, demonstration=True),
    clocks=ClocksSnapshot(stamps="tsc", steps=3, offsets=(Offset(Base.PTP, Base.MONOTONIC, -5_000, 700, 1),)),
    self_watch=SelfWatchSnapshot(
        involuntary=4,
        major_faults=1,
        throttled_ns=1_500_000_000,
        watched=("quota", "threads"),
        intruder_ns={"foreign": 2_000_000},
        intruders=(Intruder(7, 8, "busy", Kind.FOREIGN, 3, 2_000_000),),
        collector_runs=5,
        stalls=6,
        rings=(RingHighWater("ticks", "0", 77, 8192),),
    ),
    feed=FeedSnapshot("nasdaq", packets={"a": 3}, malformed={"cut": 1}, counters={"ticks": 2}, sound=1),
    device=DeviceSnapshot("NVIDIA H200 (cuda:0)"),
    budget=BudgetSnapshot(
        stages=[StageBudget("feed", "total", 5_000_000, 7)],
        breaker_open=True,
        breaker_opened=2,
        breaker_trips=3,
        old_ticks=11,
        skipped=4,
    ),
    subscriptions=SubscriptionCounts(subscribers=2, opened=5, delivered=70, fell_behind=1),
    host={("must", "DRIFT"): 2, ("info", "OK"): 1},
)


@contextmanager
def served(snapshot: MetricsSnapshot) -> Iterator[TcpAddress]:
    server = MetricsServer(ANY_PORT, lambda: snapshot, "0.1.0")
    try:
        yield server.address
    finally:
        server.close()


def get(address: TcpAddress, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in sorted(sample.labels))] = (
                sample.value
            )
    return found


def test_scrape_shows_every_number_of_the_snapshot(repository_root):
    with served(FULL) as address:
        status, content_type, text = get(address)
    assert status == 200
    assert content_type.startswith("text/plain")
    found = samples(text)
    assert found["penstock_ticks_total"] == {("realtime",): 12, ("bulk",): 30}
    assert found["penstock_predictions_total"] == {("realtime",): 11, ("bulk",): 30}
    assert found["penstock_refusals_total"] == {("SEQUENCE_GAP",): 2, ('odd"\n',): 1}
    assert found["penstock_tick_errors_total"] == {("UNKNOWN_INSTRUMENT",): 3}
    assert found["penstock_sessions"] == {(): 2}
    assert found["penstock_segments"] == {(): 2}
    assert found["penstock_segments_lost_total"] == {("CURSOR",): 1}
    assert found["penstock_states"] == {(): 3}
    assert found["penstock_ring_used"] == {("ticks", "0"): 5, ("predictions", "0"): 0}
    assert found["penstock_ring_slots"] == {("ticks", "0"): 8192, ("predictions", "0"): 8192}
    assert found["penstock_engine_busy_share"] == {(): 0.25}
    assert found["penstock_engine_busy_seconds_total"] == {(): 1.5}
    assert found["penstock_recorder_ticks_written_total"] == {(): 9}
    assert found["penstock_recorder_ticks_dropped_total"] == {(): 4}
    assert found["penstock_subscribers"] == {(): 2}
    assert found["penstock_subscriptions_opened_total"] == {(): 5}
    assert found["penstock_subscriptions_fell_behind_total"] == {(): 1}
    assert found["penstock_predictions_delivered_total"] == {(): 70}
    assert found["penstock_serving"] == {(): 1}
    assert found["penstock_clock_steps_total"] == {(): 3}
    assert found["penstock_engine_switches_total"] == {("involuntary",): 4, ("voluntary",): 0}
    assert found["penstock_engine_page_faults_total"] == {("major",): 1, ("minor",): 0}
    assert found["penstock_engine_stalls_total"] == {(): 6}
    assert found["penstock_throttled_seconds_total"] == {(): 1.5}
    assert found["penstock_intruder_seconds_total"] == {("foreign",): 0.002}
    assert found["penstock_intruders"] == {(): 1}
    assert found["penstock_collector_runs_total"] == {(): 5}
    page = (repository_root / "docs" / "metrics.md").read_text(encoding="utf-8")
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in found}
    assert [name for name in sorted(families) if name.startswith("penstock_") and f"`{name}`" not in page] == []
    assert found["penstock_ring_high_water"] == {("ticks", "0"): 77}
    assert "penstock_heat_events_total" not in found, "this host does not tell"
    assert found["penstock_clock_offset_seconds"] == {("monotonic", "ptp"): -5e-6}
    assert found["penstock_clock_offset_error_seconds"] == {("monotonic", "ptp"): 7e-7}
    assert "penstock_clock_maximum_error_seconds" not in found, "nobody vouches for it"
    assert found["penstock_host_items"] == {("must", "DRIFT"): 2, ("info", "OK"): 1}
    assert found["penstock_model_info"] == {("ab" * 32, "true", "demo", "1"): 1}
    assert next(iter(found["penstock_build_info"]))[-1] == "0.1.0"
    assert found["process_resident_memory_bytes"][()] > 0


def test_every_field_of_the_snapshot_is_shown():
    empty = rendered(MetricsSnapshot())
    names = [declared.name for declared in dataclasses.fields(MetricsSnapshot)]
    changed = [dataclasses.replace(MetricsSnapshot(), **{name: getattr(FULL, name) or 7}) for name in names]
    assert [name for name, snapshot in zip(names, changed, strict=True) if rendered(snapshot) == empty] == []


def rendered(snapshot: MetricsSnapshot) -> list[str]:
    text = generate_latest(make_registry(lambda: snapshot, "0.1.0")).decode()
    return [line for line in text.splitlines() if "process_" not in line]


def test_latency_buckets_are_exact_at_whole_milliseconds():
    with served(FULL) as address:
        found = samples(get(address)[2])
    buckets = {labels[0]: value for labels, value in found["penstock_latency_seconds_bucket"].items()}
    assert [buckets[le] for le in ("0.001", "0.002", "0.003", "0.004", "0.005", "0.006", "0.01", "+Inf")] == [
        1, 2, 2, 2, 3, 4, 5, 5,
    ]  # fmt: skip
    assert list(found["penstock_latency_seconds_count"].values()) == [5]
    assert list(found["penstock_latency_seconds_sum"].values()) == [pytest.approx(0.018899999)]
    assert found["penstock_latency_seconds_max"] == {("realtime", "grpc", "total"): 0.007}
    assert found["penstock_latency_negative_total"] == {("realtime", "grpc", "total"): 2}


@given(st.lists(st.sampled_from(BOUNDS_NS) | st.integers(0, 2 * 10**11), max_size=50))
def test_cumulative_counts_are_those_of_a_plain_count(durations_ns):
    pairs = dict(cumulative_buckets(histogram(durations_ns).counts))
    for bound_ns in BOUNDS_NS:
        assert pairs[repr(bound_ns / 1e9)] == sum(duration_ns < bound_ns for duration_ns in durations_ns)
    assert pairs["+Inf"] == len(durations_ns)


def test_bounds_hold_the_budget_in_whole_milliseconds():
    assert {millisecond * 1_000_000 for millisecond in range(1, 7)} <= set(BOUNDS_NS)
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))


def test_open_metrics_is_spoken_to_who_prefers_it():
    with served(FULL) as address:
        _, content_type, text = get(address, Accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 404), ("/metrics/", "GET", 404), ("/metrics?x=1", "GET", 200), ("/metrics", "POST", 501)],
)
def test_nothing_but_metrics_is_served(path, method, status):
    with served(FULL) as address:
        assert get(address, path, method)[0] == status


def test_head_has_no_body():
    with served(FULL) as address:
        assert get(address, method="HEAD")[::2] == (200, "")


def test_snapshot_that_fails_costs_one_scrape_alone(monkeypatch):
    answers = [FULL]
    log = CapturingLogger()
    monkeypatch.setattr(metrics_server, "log", log)

    def take() -> MetricsSnapshot:
        return answers.pop()

    server = MetricsServer(ANY_PORT, take, "0.1.0")
    try:
        assert get(server.address)[0] == 200
        assert get(server.address)[0] == 500
        answers.append(FULL)
        assert get(server.address)[0] == 200
    finally:
        server.close()
    assert [(call.method_name, call.args) for call in log.calls] == [("exception", ("metrics can't be shown",))]


def test_no_snapshot_is_taken_without_a_scrape():
    taken = []
    server = MetricsServer(ANY_PORT, lambda: taken.append(1) or FULL, "0.1.0")
    server.close()
    assert taken == []


def test_client_that_says_nothing_keeps_no_other_waiting():
    with served(FULL) as address, socket.create_connection((address.host, address.port)):
        assert get(address)[0] == 200


def test_closed_server_frees_its_port_and_its_thread():
    server = MetricsServer(ANY_PORT, lambda: FULL, "0.1.0")
    get(server.address)
    server.close()
    server.close()
    assert "penstock-metrics" not in {thread.name for thread in threading.enumerate()}
    again = MetricsServer(server.address, lambda: FULL, "0.1.0")
    again.close()


def test_port_in_use_is_refused_with_a_sentence():
    with served(FULL) as address, pytest.raises(ListenError, match=rf"metrics\.address: must be free, was {address}"):
        MetricsServer(address, lambda: FULL, "0.1.0")


def test_metrics_are_served_over_ipv6_where_there_is_one():
    try:
        server = MetricsServer(TcpAddress("::1", 0), lambda: FULL, "0.1.0")
    except ListenError as refusal:
        pytest.skip(f"no IPv6 on loopback: {refusal}")
    try:
        assert get(server.address)[0] == 200
    finally:
        server.close()


def test_every_number_of_the_budget_is_shown():
    shown = rendered(FULL)
    labels = '{path="feed",stage="total"}'
    for line in (
        f"penstock_stage_budget_seconds{labels} 0.005",
        f"penstock_stage_over_budget_total{labels} 7.0",
        "penstock_breaker_open 1.0",
        "penstock_breaker_openings_total 2.0",
        "penstock_breaker_trips_total 3.0",
        "penstock_old_ticks_total 11.0",
        "penstock_skipped_ticks_total 4.0",
    ):
        assert line in shown
