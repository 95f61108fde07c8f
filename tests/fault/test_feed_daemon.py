"""A whole daemon with a feed: what it refuses before all work, and what it says of a real one that goes wrong."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import grpc
from prometheus_client.parser import text_string_to_metric_families

from penstock.v1 import daemon_pb2, daemon_pb2_grpc, latency_pb2, moldudp64
from support.daemon import launch_daemon, running_daemon
from support.feed_rig import SESSION, free_port, packet, send_to

GROUP = "239.255.43.1"
PATIENCE_S = 60.0


def sets(port: int, **others: str) -> list[str]:
    given = {"group": f"{GROUP}:{port}", "interface": "lo", "payload": "dbn", "instruments": "ONE=1", **others}
    return [f"feed.{name}={value}" for name, value in given.items()]


def samples(address: str) -> dict[tuple[str, str], float]:
    """Return the feed's metrics by name and by their second label, where they have one."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("penstock_feed_"):
                second = next((value for name, value in sample.labels.items() if name != "feed"), "")
                found[sample.name.removeprefix("penstock_feed_"), second] = sample.value
    return found


def test_a_line_that_can_not_be_had_is_told_before_all_work(tmp_path: Path) -> None:
    daemon = launch_daemon(tmp_path, *sets(free_port(GROUP), interface="nowhere0"))
    assert daemon.process.wait(PATIENCE_S) == 2
    assert "penstockd: feed.interface: 'nowhere0' is no interface of this host; it has " in daemon.output()
    assert not daemon.events("serving")


def test_a_daemon_takes_in_a_feed_tells_what_goes_wrong_and_stops(tmp_path: Path) -> None:
    port = free_port(GROUP)
    with running_daemon(tmp_path, *sets(port), "metrics.address=127.0.0.1:0") as daemon:
        assert daemon.events("feed_listening")
        sender = send_to(GROUP, port)
        for data in (packet(1, 2), b"junk", packet(2), packet(5, 2)):
            sender.send(data)
        sender.send(moldudp64.pack_header(SESSION, 7, moldudp64.END_OF_SESSION))
        deadline_s = time.monotonic() + PATIENCE_S
        while not daemon.events("feed_session_ended") or not daemon.events("feed_gap_unrecovered"):
            assert time.monotonic() < deadline_s, daemon.output()
            time.sleep(0.02)
        found = samples(daemon.metrics_address)
        with grpc.insecure_channel(daemon.address) as channel:
            stub = daemon_pb2_grpc.DaemonServiceStub(channel)
            told = stub.DescribeDaemon(daemon_pb2.DescribeDaemonRequest(), timeout=PATIENCE_S).snapshot
        sender.close()
    assert found["packets_total", "a"] == 5
    assert found["malformed_packets_total", "short"] == 1
    assert found["packet_outcomes_total", "duplicate"] == 1
    assert (found["messages_total", "applied"], found["lost_messages_total", ""]) == (4, 2)
    assert (found["ticks_total", ""], found["sound_instruments", ""]) == (4, 1)
    assert found["named_instruments", ""] == 1
    feed = told.feed
    assert (feed.alive, feed.session, feed.ended, feed.gap_open) == (True, "DAY1", True, False)
    assert (feed.applied, feed.lost, feed.gaps, feed.gaps_unrecovered) == (4, 2, 1, 1)
    assert (feed.malformed, feed.ticks, feed.instruments, feed.sound) == (1, 4, 1, 1)
    assert {line.name: line.packets for line in feed.lines}["a"] == 5
    rings = {ring.kind: ring for ring in told.rings if ring.path == latency_pb2.PATH_FEED}
    assert rings[daemon_pb2.RING_KIND_TICKS].high_water >= 1
    assert [line["session"] for line in daemon.events("feed_session")] == ["DAY1"]
    assert daemon.events("feed_malformed")
    assert not daemon.events("feed_gone")
