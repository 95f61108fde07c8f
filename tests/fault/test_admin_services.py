"""Health, reflection, latencies and metrics of a real daemon: what operators look at agrees with what was done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from penstock.v1 import histogram, latency_pb2, latency_pb2_grpc
from penstock.v1 import prediction_pb2 as pb
from penstock_client.cli import main
from penstock_daemon.clocks import tsc
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, end_of, hash_of, instruments, run_through
from support.scrape import scrape
from support.tick_arrays import quotes
from support.victim import wait_until

SERVICES = tuple(f"penstock.v1.{name}Service" for name in ("Prediction", "Model", "Latency", "Daemon"))
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("admin")
    with running_daemon(folder, *small(folder, "metrics.address=127.0.0.1:0"), address="127.0.0.1:0") as daemon:
        yield daemon


@pytest.fixture
def channel(daemon: RunningDaemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.address) as channel:
        yield channel


def test_daemon_on_a_free_port_says_which(daemon: RunningDaemon) -> None:
    host, port = daemon.address.split(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_health_is_told_for_the_daemon_and_each_service(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=20).status == SERVING
        assert next(iter(health.Watch(request, timeout=20))).status == SERVING
    listed = health.List(health_pb2.HealthListRequest(), timeout=20).statuses
    assert {name: one.status for name, one in listed.items()} == dict.fromkeys(("", *SERVICES), SERVING)
    with pytest.raises(grpc.RpcError) as unknown:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_every_service_and_its_methods(channel: grpc.Channel, version: str) -> None:
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = (
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICES[0]),
    )
    listed, file = ask(iter(requests), timeout=20)
    names = {one.name for one in listed.list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
    found = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in file.file_descriptor_response.file_descriptor_proto
    ]
    methods = {method.name for one in found for service in one.service for method in service.method}
    assert {"StreamPredictions", "Subscribe"} <= methods


def test_garbage_is_refused_by_every_service(daemon: RunningDaemon, channel: grpc.Channel) -> None:
    before = scrape(daemon).get('penstock_refusals_total{reason="MESSAGE_UNREADABLE"}', 0)
    calls = [
        lambda: channel.unary_unary("/penstock.v1.ModelService/LoadModel")(b"\xff", timeout=20),
        lambda: channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff", timeout=20),
        lambda: list(channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff", timeout=20)),
        lambda: list(channel.unary_stream("/penstock.v1.LatencyService/WatchLatency")(b"\xff", timeout=20)),
        lambda: list(channel.unary_stream("/penstock.v1.DaemonService/WatchDaemon")(b"\xff", timeout=20)),
        lambda: list(
            channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(
                iter([b"\xff"]), timeout=20
            )
        ),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        end = end_of(refused.value)
        assert (end.code, end.reason) == ("INVALID_ARGUMENT", "MESSAGE_UNREADABLE")
    assert scrape(daemon)['penstock_refusals_total{reason="MESSAGE_UNREADABLE"}'] == before + len(calls)


def test_metrics_agree_with_what_was_done(daemon: RunningDaemon) -> None:
    ticks = quotes(500, (1, 2))
    ticks["instrument_id"][100] = 9
    before = scrape(daemon)
    with RawStream(daemon.address) as stream:
        stream.hello(instruments=instruments(1, 2))
        stream.rebuild(ticks[:50])
        predictions = run_through(stream, ticks)
        during = scrape(daemon)
        stream.goodbye()
        assert stream.end().code == "OK"
    after = scrape(daemon)

    def added(name: str, later: dict[str, float] = after) -> float:
        return later[name] - before.get(name, 0)

    assert added('penstock_ticks_total{pace="realtime"}') == 500
    assert added('penstock_predictions_total{pace="realtime"}') == len(predictions) == 499
    assert added('penstock_tick_errors_total{reason="UNKNOWN_INSTRUMENT"}') == 1
    assert added("penstock_rebuild_ticks_total") == 50, "it only grows, although the session is gone"
    assert added("penstock_sessions_opened_total") == 1
    assert (during["penstock_sessions"], during["penstock_states"]) == (1, 2)
    assert (after["penstock_sessions"], after["penstock_states"]) == (0, 0)
    assert after["penstock_serving"] == 1
    for stage in ("receive", "ring", "features", "predict", "egress", "total"):
        labels = f'pace="realtime",path="grpc",stage="{stage}"'
        assert added(f"penstock_latency_seconds_count{{{labels}}}") == 499, stage
        bounds = [f'penstock_latency_seconds_bucket{{le="{le}",{labels}}}' for le in ("0.001", "0.005", "+Inf")]
        values = [after[name] for name in bounds]
        assert values == sorted(values)
        assert values[-1] == after[f"penstock_latency_seconds_count{{{labels}}}"]
    assert 0 <= after["penstock_engine_busy_share"] <= 1
    assert added("penstock_engine_busy_seconds_total") > 0


def test_latency_command_tells_every_stage_since_the_start_and_of_some_seconds(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    with RawStream(daemon.address) as stream:
        stream.hello(instruments=instruments(1))
        run_through(stream, quotes(50))
        stream.goodbye()
    assert main(["latency", "--to", daemon.address, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (whole,) = found["intervals"]
    counts = {one["stage"]: sum(one["counts"]) for one in whole["histograms"]}
    assert counts["TOTAL"] == counts["PREDICT"] >= 50
    bounds = {(budget["path"], budget["stage"]): budget["bound_ns"] for budget in found["budgets"]}
    assert bounds["GRPC", "TOTAL"] == 5_000_000
    assert (bounds["FEED", "PREDICT"], len(bounds)) == (1_000_000, 24)
    assert found["breaker_open"] is False
    assert main(["latency", "--to", daemon.address]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[-4:] == ["p99.9", "max", "bound", "over"]
    (predict,) = (row.split() for row in shown if row.split()[1:3] == ["REALTIME", "PREDICT"])
    assert predict[-1] == str(budgets_of(found)["GRPC", "PREDICT"])
    assert main(["latency", "--to", daemon.address, "--seconds", "0.4", "--interval", "0.2", "--json"]) == 0
    watched = json.loads(capsys.readouterr().out)
    assert [sum(sum(one["counts"]) for one in piece["histograms"]) for piece in watched["intervals"]] == [0, 0]
    assert main(["latency", "--to", daemon.address, "--seconds", "0.2", "--interval", "0.2"]) == 0
    assert "no tick came" in capsys.readouterr().out
    assert main(["latency", "--to", daemon.address, "--interval", "0.01"]) == 2


def budgets_of(answer: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Return what was over each bound, by path and stage."""
    return {(one["path"], one["stage"]): one["exceeded"] for one in answer["budgets"]}


def test_latency_since_an_earlier_answer_is_exactly_what_came_in_between(
    daemon: RunningDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["latency", "--to", daemon.address, "--json"]
    answers = []
    with RawStream(daemon.address) as stream:
        stream.hello(instruments=instruments(1))
        for count in (20, 30):
            run_through(stream, quotes(count))
            assert main(ask) == 0
            answers.append(capsys.readouterr().out)
        stream.goodbye()
    before = tmp_path / "before.json"
    before.write_text(answers[0], encoding="utf-8")
    assert main([*ask, "--since", str(before)]) == 0
    added = json.loads(capsys.readouterr().out)
    counts = {one["stage"]: sum(one["counts"]) for one in added["intervals"][0]["histograms"]}
    assert set(counts.values()) == {30}
    whole, earlier = (budgets_of(json.loads(answer)) for answer in reversed(answers))
    assert budgets_of(added) == {row: over - earlier[row] for row, over in whole.items()}
    assert main(["latency", "--to", daemon.address, "--since", str(before)]) == 0
    assert "the rest is of this time" in capsys.readouterr().out

    other = json.loads(answers[0]) | {"since_ns": 1}
    for text, sentence in (
        (json.dumps(other), "--since: that answer is of another daemon, or this one was started again after it"),
        (json.dumps(json.loads(answers[0]) | {"interval_s": 1.0}), "is of some seconds alone; write one without"),
        ("{}", "was not written by penstock latency --json"),
        ("[" * 100_000, "was not written by penstock latency --json"),
    ):
        before.write_text(text, encoding="utf-8")
        assert main([*ask, "--since", str(before)]) == 2
        assert sentence in capsys.readouterr().err
    assert main([*ask, "--since", str(tmp_path / "none.json")]) == 2
    assert main([*ask, "--since", str(before), "--seconds", "1"]) == 2


def test_answers_sent_again_are_not_counted_again(daemon: RunningDaemon) -> None:
    ticks = quotes(120)
    ticks["instrument_id"][60] = 9
    before = scrape(daemon)
    with RawStream(daemon.address) as stream:
        token = stream.hello().resume_token
        first = run_through(stream, ticks)
    with RawStream(daemon.address) as stream:
        stream.hello(resume_token=token, next_prediction_sequence=20)
        again = stream.predictions(100)
        stream.goodbye()
        assert stream.end().code == "OK"
    after = scrape(daemon)
    assert hash_of(again) == hash_of(first[20:])
    for name, count in (
        ('penstock_latency_seconds_count{pace="realtime",path="grpc",stage="total"}', 119),
        ('penstock_tick_errors_total{reason="UNKNOWN_INSTRUMENT"}', 1),
        ('penstock_ticks_total{pace="realtime"}', 120),
        ("penstock_sessions_resumed_total", 1),
    ):
        assert after[name] - before.get(name, 0) == count, name


def test_latency_service_gives_the_same_histograms(daemon: RunningDaemon, channel: grpc.Channel) -> None:
    latencies = latency_pb2_grpc.LatencyServiceStub(channel)
    watching = iter(latencies.WatchLatency(latency_pb2.WatchLatencyRequest(interval_ns=1), timeout=30))
    before = latencies.GetLatency(latency_pb2.GetLatencyRequest(stage=latency_pb2.STAGE_TOTAL), timeout=20)
    with RawStream(daemon.address) as stream:
        stream.hello(pace=pb.PACE_BULK)
        predictions = run_through(stream, quotes(300), split=100)
        stream.goodbye()
        assert stream.end().code == "OK"
    after = latencies.GetLatency(latency_pb2.GetLatencyRequest(stage=latency_pb2.STAGE_TOTAL), timeout=20)
    assert not (predictions["flags"] & np.uint32(6)).any(), "nothing is late in bulk"

    def bulk(response: latency_pb2.GetLatencyResponse) -> np.ndarray:
        counts = np.zeros(histogram.BUCKETS, np.int64)
        for one in response.histograms:
            assert one.stage == latency_pb2.STAGE_TOTAL
            if one.pace == pb.PACE_BULK:
                counts[list(one.buckets)] = one.counts
                assert one.max_ns >= histogram.lower_edge_ns(one.buckets[-1])
        return counts

    assert (bulk(after) - bulk(before)).sum() == 300
    assert {(budget.stage, budget.bound_ns) for budget in after.budgets} == {(latency_pb2.STAGE_TOTAL, 5_000_000)}
    assert len(after.budgets) == 3
    assert before.since_ns == after.since_ns < before.taken_ns < after.taken_ns
    watched = 0
    while watched < 300:
        added = next(watching)
        watched += sum(sum(one.counts) for one in added.histograms if one.stage == 8 and one.pace == pb.PACE_BULK)
    assert watched == 300


def test_metrics_server_answers_nothing_else(daemon: RunningDaemon) -> None:
    counted = scrape(daemon)
    assert counted["penstock_arena_bytes"] > 0
    assert counted['penstock_ring_slots{ring="control",source="loop"}'] == 1024
    assert any(name.startswith("process_resident_memory_bytes") for name in counted)
    assert not any(name.startswith("penstock_recorder") for name in counted), "nothing is recorded"


def test_clocks_and_the_watch_over_itself_are_said_and_shown(daemon: RunningDaemon) -> None:
    (said,) = daemon.events("clocks")
    sound = tsc.refusal() == ""
    assert said["stages"] == ("tsc" if sound else "monotonic")
    events = [line["event"] for line in daemon.log()]
    assert events.index("clocks") < events.index("serving")
    with RawStream(daemon.address) as stream:
        stream.hello(instruments=instruments(1))
        behind = quotes(200, (1,))
        behind["ts_event"] = behind["ts_recv"] + 1_300_000_000
        before = scrape(daemon)
        run_through(stream, behind)
        shown = scrape(daemon)
        stream.goodbye()
        stream.end()
    counted = "penstock_clock_behind_venue_ticks_total"
    assert shown[counted] == before[counted] + 200
    assert shown["penstock_clock_behind_venue_max_seconds"] >= 1.3
    assert shown["penstock_clock_steps_total"] == 0
    assert shown['penstock_clock_offset_seconds{against="monotonic",clock="realtime"}'] == pytest.approx(
        time.time() - time.monotonic(), abs=5
    )
    assert ("penstock_clock_tsc_hertz" in shown) == sound
    assert max(value for name, value in shown.items() if name.startswith("penstock_ring_high_water{")) >= 1
    names = {name.partition("{")[0] for name in shown}
    assert {
        "penstock_engine_switches_total",
        "penstock_engine_page_faults_total",
        "penstock_collector_runs_total",
    } <= names
    wait_until(lambda: scrape(daemon)['penstock_engine_switches_total{kind="voluntary"}'] > 0)
    assert "watch_failed" not in events
