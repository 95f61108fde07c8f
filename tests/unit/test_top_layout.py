"""What ``penstock top`` puts on a screen: all that matters, nothing over the edge, and what goes first where it is small."""

from __future__ import annotations

import io
import itertools
import sys
from typing import Any

import pytest
from rich.console import Console

from penstock.v1 import daemon_pb2 as pb
from penstock.v1 import histogram, latency_pb2, prediction_pb2
from penstock_client.cli import main
from penstock_client.top_command import plain_lines
from penstock_client.top_facts import facts_of
from penstock_client.top_layout import lay_out, waiting_lines
from penstock_client.top_message import as_plain

SIZES = [(80, 24), (80, 3), (80, 1), (100, 30), (132, 50), (220, 70), (40, 12), (1, 1)]
SECOND_NS = 1_000_000_000
TITLES = {
    "sessions": "SESSIONS",
    "rings": "RINGS",
    "engine": "ENGINE",
    "clocks": "CLOCKS",
    "feed": "FEED",
    "device": "DEVICE",
}


def snapshot(*, at_s: int = 1_700_000_000, sessions: int = 6, ticks: int = 1000, **changes: Any) -> pb.DaemonSnapshot:
    """Return a daemon that has everything, and a lot of it."""
    one = pb.DaemonSnapshot(
        taken_ns=at_s * SECOND_NS,
        identity=pb.DaemonIdentity(
            version="1.2.3", daemon_id=b"12345678", uptime_ns=90_061 * SECOND_NS, engine="cuda", device="NVIDIA H200"
        ),
        serving=True,
        sessions_max=16,
        budget=pb.BudgetStatus(late=7, stale=2),
        engine=pb.EngineStatus(busy_ns=at_s % 100 * 250_000_000, predictions=10**12, passes=2**62, cpus=[2, 3]),
        clocks=pb.ClocksStatus(stamps="tsc", tsc_hertz=2.6e9, tsc_drift_ppb=-12, maximum_error_ns=40_000),
        self_watch=pb.SelfWatchStatus(threads_watched=True, involuntary_switches=5, collector_longest_ns=100_000),
        feed=pb.FeedStatus(
            name="itch", alive=True, session="S000000001", applied=ticks * 10, instruments=5, sound=5, subscribers=3
        ),
        device=pb.DeviceStatus(name="NVIDIA H200 (cuda:0)", mode="graph", temperature_celsius=41.0, power_watts=123.4),
    )
    one.model.name, one.model.demonstration = "btc-2024", True
    one.clocks.synchronised = True
    one.clocks.offsets.add(of="ptp", against="monotonic", offset_ns=-5, error_ns=812)
    one.feed.lines.add(name="a", packets=10**9)
    for number in range(1, sessions + 1):
        one.sessions.add(
            session_id=number,
            client_name=f"strategy {number} with a name that is longer than any column",
            path=latency_pb2.PATH_GRPC,
            pace=prediction_pb2.PACE_REALTIME,
            state=pb.SESSION_STATE_ATTACHED,
            instruments=2,
            ticks=ticks * number,
        )
        for kind in (pb.RING_KIND_TICKS, pb.RING_KIND_PREDICTIONS):
            one.rings.add(kind=kind, session_id=number, used=1, slots=4096, high_water=100 * number)
    one.MergeFrom(pb.DaemonSnapshot(**changes))
    return one


def latency(*, predict_ns: int = 100_000, exceeded: int = 0) -> latency_pb2.WatchLatencyResponse:
    """Return an interval of 2 s with 1,000 ticks: 980 took half of *predict_ns*, 20 all of it."""
    found = latency_pb2.WatchLatencyResponse(since_ns=10 * SECOND_NS, taken_ns=12 * SECOND_NS)
    for path in (latency_pb2.PATH_GRPC, latency_pb2.PATH_FEED):
        for stage in range(1, 9):
            buckets = sorted([histogram.bucket_of(predict_ns // 2), histogram.bucket_of(predict_ns)])
            found.histograms.add(
                path=path,
                stage=stage,
                pace=prediction_pb2.PACE_REALTIME,
                buckets=buckets,
                counts=[980, 20],
                max_ns=90_000_000,
            )
            over = exceeded if stage == latency_pb2.STAGE_PREDICT and path == latency_pb2.PATH_GRPC else 0
            found.budgets.add(path=path, stage=stage, bound_ns=1_000_000, exceeded=over)
    return found


def facts(**changes: Any) -> dict[str, Any]:
    before = facts_of(snapshot(at_s=1_700_000_000), None, None, address="unix:/run/penstock.sock")
    later = snapshot(at_s=1_700_000_002, ticks=1500, **changes)
    return facts_of(later, latency(), before, address="unix:/run/penstock.sock")


def shown(found: dict[str, Any], width: int, height: int | None, **more: Any) -> list[str]:
    return [line.plain for line in lay_out(found, width, height, keys="q quit", **more)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("sessions", [0, 1, 6, 60])
def test_nothing_is_wider_or_higher_than_the_screen(width: int, height: int, sessions: int) -> None:
    found = facts_of(snapshot(sessions=sessions), latency(exceeded=10**9), None, address="unix:/" + "long/" * 20)
    lines = lay_out(found, width, height, keys="q quit  p pause", note="DAEMON GONE for 100 s, waiting for it")
    assert len(lines) <= height
    console = Console(width=width, height=height, file=io.StringIO(), record=True, force_terminal=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    printed = console.export_text().splitlines()
    assert len(printed) == len(lines), "no line wraps"
    assert max(len(line) for line in printed) <= width


def test_large_screen_shows_every_section_and_its_facts() -> None:
    lines = shown(facts(), 132, 80)
    text = "\n".join(lines)
    for wanted in (
        *("SERVING", "up 1d 01h", "late 7 stale 2", "btc-2024 (demonstration)", "1.2.3", "unix:/run/penstock.sock"),
        *("STAGES", "grpc", "feed", "predict", "10%", *TITLES.values()),
        *("6/16", "strategy 6 with a name", "busy 25.0%", "CPU 2,3", "1T", "synchronised", "±40 µs", "ptp-monotonic"),
        *("±812 ns", "sound 5/5", "2,500/s", "1G packets", "NVIDIA H200 (cuda:0)", "41 °C", "123 W", "graph"),
    ):
        assert wanted in text, wanted
    assert "hidden" not in text
    (busiest,) = (line for line in lines if line.strip().startswith("6 strategy"))
    assert "1,500" in busiest, "3,000 ticks more in 2 s"


def test_stage_has_the_rate_and_percentiles_of_its_interval_alone() -> None:
    rows = {(one["path"], one["stage"]): one for one in facts()["stages"]}
    assert len(rows) == 16
    one = rows["GRPC", "PREDICT"]
    assert (one["count"], one["per_s"], one["p50_ns"], one["p99_ns"]) == (1000, 500.0, 50_000, 100_000)
    assert 100_000 <= one["max_ns"] < 101_000, "not the 90 ms since the daemon's start"
    assert (one["bound_ns"], one["exceeded"]) == (1_000_000, 0)


def test_too_small_a_screen_loses_sections_in_the_stated_order() -> None:
    found = facts()
    present: list[set[str]] = []
    for height in range(60, 3, -1):
        text = "\n".join(shown(found, 120, height))
        present.append({name for name, title in TITLES.items() if f"\n{title}" in text})
        assert "STAGES" in text
        assert "SERVING" in text
    gone = [name for before, after in itertools.pairwise(present) for name in before - after]
    assert gone == ["rings", "engine", "clocks", "device", "feed", "sessions"]
    assert all(after <= before for before, after in itertools.pairwise(present)), "what is gone stays gone"
    small = "\n".join(shown(found, 80, 24))
    assert "lines hidden" in small


def test_path_without_a_tick_gives_its_room_up_first() -> None:
    came = latency()
    silent = [one for one in came.histograms if one.path == latency_pb2.PATH_GRPC]
    del came.histograms[:]
    came.histograms.extend(silent)
    found = facts_of(snapshot(sessions=1), came, None, address="a")
    whole, small = shown(found, 120, 60), shown(found, 120, 29)
    assert sum("predict " in line for line in whole) == 2
    assert sum("predict " in line for line in small) == 1
    assert [line.split()[:2] for line in small if line.startswith("feed ")] == [["feed", "total"]]
    assert any(line.startswith("DEVICE") for line in small), "nothing else had to go"


def test_over_its_bound_is_said_in_words_beside_the_colour() -> None:
    found = facts_of(snapshot(), latency(predict_ns=1_200_000, exceeded=20), None, address="a")
    lines = shown(found, 80, 60)
    (row,) = (line for line in lines if "predict" in line and "20!" in line)
    assert "OVER" in row
    assert lines[1].startswith("! GRPC PREDICT over its bound 20 times")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"serving": False, "reasons": [pb.NOT_SERVING_REASON_BREAKER]}, "BREAKER OPEN: predictions come too late"),
        ({"reasons": [pb.NOT_SERVING_REASON_STALLED]}, "STALLED: the engine stands still"),
        ({"reasons": [pb.NOT_SERVING_REASON_DRAINING]}, "DRAINING: the daemon is stopping"),
        ({"device": pb.DeviceStatus(degraded=True)}, "DEVICE LOST: the CPU predicts"),
        ({"feed": pb.FeedStatus(gap_open=True)}, "FEED GAP: a message is missing"),
        ({"feed": pb.FeedStatus(instruments=8)}, "3 of 8 books unsound"),
        ({"feed": pb.FeedStatus(lost=4)}, "messages lost by the feed: 4"),
        ({"clocks": pb.ClocksStatus(steps=1)}, "wall clock stepped: 1"),
        ({"clocks": pb.ClocksStatus(maximum_error_ns=20_000_000)}, "wall clock may be off by 20.00 ms"),
        ({"self_watch": pb.SelfWatchStatus(involuntary_switches=9)}, "engine interrupted: 4"),
        ({"self_watch": pb.SelfWatchStatus(throttled_periods=3)}, "CPU quota used up: 3"),
        (
            {"rings": [pb.RingStatus(kind=pb.RING_KIND_TICKS, session_id=3, used=90, slots=100)]},
            "ring of ticks of session 3 nearly full",
        ),
    ],
)
def test_what_should_be_looked_at_is_said_at_the_top(changes: dict[str, Any], sentence: str) -> None:
    found = facts(**changes)
    assert any(alert.startswith(sentence) for alert in found["alerts"]), found["alerts"]
    assert sentence[:20] in "\n".join(shown(found, 80, 24)[1:3])
    assert any(sentence in line for line in plain_lines(found))


def test_nothing_to_look_at_says_so() -> None:
    assert facts()["alerts"] == []
    assert shown(facts(), 80, 24)[1] == "no alerts"


def test_daemon_that_warms_up_has_few_sections_and_breaks_nothing() -> None:
    bare = pb.DaemonSnapshot(reasons=[pb.NOT_SERVING_REASON_STARTING])
    for part in ("identity", "budget", "clocks"):
        getattr(bare, part).SetInParent()
    found = facts_of(bare, None, None, address="a")
    text = "\n".join(shown(found, 80, 24))
    assert "NOT SERVING" in text
    assert "the daemon warms up" in text
    assert "RINGS" not in text
    assert found["clocks"]["synchronised"] is None
    assert found["model"] is None


def test_rates_begin_anew_with_another_daemon() -> None:
    before = facts_of(snapshot(), None, None, address="a")
    other = snapshot(at_s=1_700_000_002, ticks=1)
    other.identity.daemon_id = b"87654321"
    found = facts_of(other, latency(), before, address="a")
    assert {one["ticks_per_s"] for one in found["sessions"]} == {None}


def test_terminal_without_unicode_gets_ascii_alone() -> None:
    assert all(line.isascii() for line in shown(facts(), 132, 80, ascii_only=True))
    waiting = waiting_lines("unix:/ü", "…", 80, 24, "q quit", ascii_only=True)
    assert all(line.plain.isascii() for line in waiting)


def test_hostile_client_name_cannot_move_the_cursor() -> None:
    one = snapshot(sessions=1)
    one.sessions[0].client_name = "\x1b[2Jboo\r\n\x07"
    text = "".join(shown(facts_of(one, latency(), None, address="a"), 132, 80))
    assert "boo" in text
    assert not any(character in text for character in "\x1b\r\n\x07")


def test_message_becomes_plain_with_what_is_absent_as_none() -> None:
    plain = as_plain(pb.ClocksStatus(stamps="tsc", offsets=[pb.ClockOffset(of="ptp", offset_ns=-3)]))
    assert (plain["tsc_hertz"], plain["synchronised"], plain["steps"]) == (None, None, 0)
    assert plain["offsets"] == [{"of": "ptp", "against": "", "offset_ns": -3, "error_ns": 0}]
    assert as_plain(pb.SessionStatus(state=pb.SESSION_STATE_LOST))["state"] == "LOST"
    assert as_plain(pb.DaemonIdentity(daemon_id=b"\x01\xff"))["daemon_id"] == "01ff"


def test_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["top", "--once", "--to", "unix:/nowhere.sock"]) == 2
    assert "needs rich, which is not installed: pip install 'penstock[report]'" in capsys.readouterr().err
