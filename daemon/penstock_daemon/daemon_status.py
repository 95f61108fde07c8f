"""The parts of a DaemonSnapshot, each made of what its owner says: pure but for reading the engine's words.

What an owner does not know is left out, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.v1 import daemon_pb2 as pb
from penstock.v1 import latency_pb2
from penstock_daemon import engine_memory as memory
from penstock_daemon.budget_metrics import BudgetSnapshot
from penstock_daemon.clocks.metrics import ClocksSnapshot
from penstock_daemon.clocks.seam import UNKNOWN_NS
from penstock_daemon.device.metrics import DeviceSnapshot
from penstock_daemon.device.nvml import DeviceReading
from penstock_daemon.engine import Engine
from penstock_daemon.feed.metrics import FeedSnapshot
from penstock_daemon.self_watch.metrics import SelfWatchSnapshot
from penstock_daemon.subscriptions import SubscriptionCounts


def rings_of(engine: Engine, source: int, session_id: int, path: latency_pb2.Path) -> Iterator[pb.RingStatus]:
    """Yield the two rings of one of *engine*'s sources, which is open.

    Args:
        engine: warm.
        source: its slot.
        session_id: whose it is; 0 for the feed's.
        path: the road of its ticks.
    """
    for kind, published, consumed, most in (
        (pb.RING_KIND_TICKS, memory.TICK_PUBLISHED, memory.TICK_CONSUMED, memory.HIGH_WATER_TICKS),
        (
            pb.RING_KIND_PREDICTIONS,
            memory.PREDICTION_PUBLISHED,
            memory.PREDICTION_CONSUMED,
            memory.HIGH_WATER_PREDICTIONS,
        ),
    ):
        taken = engine.cursor(source, consumed)  # First: never more than published.
        slots = engine.sizes.slots
        yield pb.RingStatus(
            kind=kind,
            session_id=session_id,
            path=path,
            used=min(max(engine.cursor(source, published) - taken, 0), slots),
            slots=slots,
            high_water=int(engine.buffers.high_water[source, most]),
        )


def engine_status(engine: Engine, busy_share: float, stalls: int) -> pb.EngineStatus:
    """Return what *engine*'s words say."""
    words = engine.buffers.words
    return pb.EngineStatus(
        busy_share=busy_share,
        busy_ns=int(words[memory.BUSY_NS]),
        passes=int(words[memory.PASSES]),
        sleeps=int(words[memory.SLEEPS]),
        ticks=int(words[memory.TICKS]),
        predictions=int(words[memory.PREDICTIONS]),
        assisted=int(words[memory.ASSISTED]),
        stalls=stalls,
        cpus=sorted(engine.settings.cpus),
    )


def budget_status(one: BudgetSnapshot, engine: Engine) -> pb.BudgetStatus:
    """Return what came too late."""
    return pb.BudgetStatus(
        breaker_open=one.breaker_open,
        breaker_openings=one.breaker_opened,
        late=int(engine.buffers.words[memory.LATE]),
        stale=int(engine.buffers.words[memory.STALE]),
        old_ticks=one.old_ticks,
        skipped=one.skipped,
    )


def clocks_status(one: ClocksSnapshot) -> pb.ClocksStatus:
    """Return what the stamps are worth."""
    status = pb.ClocksStatus(
        stamps=one.stamps,
        stamps_why=one.why,
        tsc_hertz=one.tsc_hertz,
        tsc_drift_ppb=one.tsc_drift_ppb,
        maximum_error_ns=None if one.maximum_error_ns >= UNKNOWN_NS else one.maximum_error_ns,
        steps=one.steps,
        last_step_ns=one.last_step_ns,
        sync_losses=one.sync_losses,
        offsets=[
            pb.ClockOffset(of=each.of, against=each.against, offset_ns=each.offset_ns, error_ns=each.error_ns)
            for each in one.offsets
        ],
        ptp=one.ptp,
        ptp_failures=one.ptp_failures,
        sources=[
            pb.ClockSource(
                name=each.base,
                epoch=each.epoch,
                synchronised=each.synchronised,
                error_ns=None if each.error_ns >= UNKNOWN_NS else each.error_ns,
            )
            for each in one.readings
        ],
    )
    if one.synchronised is not None:
        status.synchronised = one.synchronised
    return status


def self_watch_status(one: SelfWatchSnapshot) -> pb.SelfWatchStatus:
    """Return what could break the promise."""
    quota, heat = "quota" in one.watched, "heat" in one.watched
    return pb.SelfWatchStatus(
        voluntary_switches=one.voluntary,
        involuntary_switches=one.involuntary,
        minor_faults=one.minor_faults,
        major_faults=one.major_faults,
        throttled_periods=one.throttled_periods if quota else None,
        throttled_ns=one.throttled_ns if quota else None,
        heat_events=one.heat_events if heat else None,
        threads_watched="threads" in one.watched,
        intruders=[
            pb.IntruderThread(
                name=each.name, kind=each.kind, process_id=each.process, thread_id=each.thread, ran_ns=each.ran_ns
            )
            for each in one.intruders
        ],
        collector_runs=one.collector_runs,
        collector_longest_ns=one.collector_longest_ns,
    )


def feed_status(one: FeedSnapshot, subscriptions: SubscriptionCounts | None) -> pb.FeedStatus:
    """Return how the feed is, and who has its predictions."""
    counts = subscriptions or SubscriptionCounts()
    return pb.FeedStatus(
        name=one.feed,
        alive=one.alive,
        session=one.session,
        ended=one.ended,
        lines=[
            pb.FeedLine(name=line, packets=packets, socket_drops=one.socket_drops.get(line, 0))
            for line, packets in one.packets.items()
        ],
        duplicates=one.messages["duplicate"],
        malformed=sum(one.malformed.values()),
        applied=one.messages["applied"],
        refused=sum(one.refused.values()),
        lost=one.counters["lost_messages"],
        gaps=sum(one.gaps.values()) + one.gap_open,
        gaps_unrecovered=one.gaps["unrecovered"],
        gap_open=one.gap_open,
        held=one.held,
        ticks=one.counters["ticks"],
        ring_drops=one.counters["ring_drops"],
        instruments=one.instruments,
        sound=one.sound,
        subscribers=counts.subscribers,
        delivered=counts.delivered,
        fell_behind=counts.fell_behind,
    )


def device_status(one: DeviceSnapshot) -> pb.DeviceStatus:
    """Return how the GPU is; what the card does not tell is left out."""
    card = one.reading or DeviceReading()
    return pb.DeviceStatus(
        name=one.device,
        degraded=one.degraded,
        mode=one.mode,
        launches=one.launches,
        ticks=one.items,
        driver=one.identity.driver if one.identity else "",
        temperature_celsius=card.temperature_celsius,
        sm_clock_hertz=card.sm_clock_hertz,
        memory_clock_hertz=card.memory_clock_hertz,
        power_watts=card.power_watts,
        memory_used_bytes=card.memory_used_bytes,
        memory_total_bytes=card.memory_total_bytes,
        slow_reasons=card.slow_reasons or (),
        predictions_per_joule=one.predictions_per_joule,
    )
