"""The parts of a DaemonSnapshot that no test's host has: a GPU, a quota, a card's clock, intruders."""

from __future__ import annotations

from penstock_daemon.clocks.metrics import ClocksSnapshot
from penstock_daemon.clocks.seam import Base, Offset
from penstock_daemon.daemon_status import clocks_status, device_status, feed_status, self_watch_status
from penstock_daemon.device.metrics import DeviceSnapshot
from penstock_daemon.device.nvml import DeviceIdentity, DeviceReading
from penstock_daemon.feed.metrics import FeedSnapshot
from penstock_daemon.self_watch.foreign import Intruder, Kind
from penstock_daemon.self_watch.metrics import SelfWatchSnapshot
from penstock_daemon.subscriptions import SubscriptionCounts


def fields(message: object) -> set[str]:
    return {field.name for field, _ in message.ListFields()}  # type: ignore[attr-defined]


def test_card_that_tells_all_is_told_and_one_that_tells_nothing_is_left_out() -> None:
    reading = DeviceReading(1, 2, 41.5, 1.9e9, 2.6e9, 300.0, 5.0, ("power_cap",))
    identity = DeviceIdentity("H200", "GPU-1", "0:1", "580.1")
    told = device_status(
        DeviceSnapshot(
            "H200 (cuda:0)", mode="resident", degraded=True, launches=3, items=9, identity=identity, reading=reading
        )
    )
    assert (told.name, told.mode, told.degraded, told.launches, told.ticks) == ("H200 (cuda:0)", "resident", True, 3, 9)
    assert (told.driver, told.temperature_celsius, told.power_watts) == ("580.1", 41.5, 300.0)
    assert (told.sm_clock_hertz, told.memory_clock_hertz) == (1.9e9, 2.6e9)
    assert (told.memory_used_bytes, told.memory_total_bytes, list(told.slow_reasons)) == (1, 2, ["power_cap"])
    silent = device_status(DeviceSnapshot("H200 (cuda:0)"))
    assert fields(silent) == {"name", "mode"}
    cold = device_status(DeviceSnapshot("H200 (cuda:0)", reading=DeviceReading(temperature_celsius=0.0)))
    assert cold.HasField("temperature_celsius"), "0 degrees are told, and not the same as nothing"


def test_what_the_host_does_not_tell_is_left_out_and_nothing_seen_is_zero() -> None:
    assert not {"throttled_periods", "throttled_ns", "heat_events"} & fields(self_watch_status(SelfWatchSnapshot()))
    seen = self_watch_status(
        SelfWatchSnapshot(
            watched=("quota", "heat", "threads"),
            intruders=(Intruder(10, 11, "cron", Kind.FOREIGN, 2, 5_000),),
            involuntary=4,
        )
    )
    assert seen.HasField("throttled_periods")
    assert seen.HasField("heat_events")
    assert (seen.threads_watched, seen.involuntary_switches) == (True, 4)
    (one,) = seen.intruders
    assert (one.name, one.kind, one.process_id, one.thread_id, one.ran_ns) == ("cron", "foreign", 10, 11, 5_000)


def test_clock_that_nobody_vouches_for_has_no_error() -> None:
    unknown = clocks_status(ClocksSnapshot())
    assert not {"synchronised", "maximum_error_ns", "tsc_hertz"} & fields(unknown)
    drifting = clocks_status(ClocksSnapshot(synchronised=False))
    assert drifting.HasField("synchronised")
    assert not drifting.HasField("maximum_error_ns")
    card = clocks_status(
        ClocksSnapshot(
            synchronised=True,
            maximum_error_ns=0,
            steps=2,
            last_step_ns=-1_300_000_000,
            offsets=(Offset(Base.PTP, Base.MONOTONIC, -7, 800, 1),),
            ptp="/dev/ptp0",
            ptp_failures=3,
        )
    )
    assert (card.synchronised, card.maximum_error_ns, card.last_step_ns) == (True, 0, -1_300_000_000)
    assert (card.offsets[0].of, card.offsets[0].against, card.offsets[0].offset_ns) == ("ptp", "monotonic", -7)
    assert (card.ptp, card.ptp_failures) == ("/dev/ptp0", 3)


def test_feed_counts_the_gap_that_is_open_and_its_subscribers() -> None:
    one = FeedSnapshot(
        "itch",
        alive=True,
        packets={"a": 5, "b": 4},
        socket_drops={"a": 1},
        malformed={"short": 2, "cut": 1},
        messages={"applied": 9, "duplicate": 8},
        gaps={"closed": 1, "recovered": 1, "unrecovered": 1},
        counters={"lost_messages": 6, "ticks": 7, "ring_drops": 3},
        gap_open=True,
    )
    told = feed_status(one, SubscriptionCounts(subscribers=2, delivered=14, fell_behind=1))
    assert (told.gaps, told.gaps_unrecovered, told.gap_open, told.malformed) == (4, 1, True, 3)
    assert [(line.name, line.packets, line.socket_drops) for line in told.lines] == [("a", 5, 1), ("b", 4, 0)]
    assert (told.subscribers, told.delivered, told.fell_behind) == (2, 14, 1)
    assert feed_status(one, None).subscribers == 0
