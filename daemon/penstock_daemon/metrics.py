"""Prometheus metrics on a loopback port: what the daemon's numbers are called, and the server that shows them.

Nothing is counted here. A scrape calls ``take``, which the daemon gives, and that reads counters it has anyway; so a
tick costs no more with metrics than without, and without a scrape there is no work at all.

    penstock_latency_seconds_bucket{le="0.005"}     durations below 5 ms, exact: every bound is a histogram edge

A scrape takes milliseconds of Python, more than the event loop can wait for the interpreter: it is done in slices of
some 0.1 ms, with pauses in between in which the event loop goes first.

The collector and the names are this file, but for those of a GPU, the clocks, the budget and the self-watch, which stand
beside what they count; the server is ``metrics_server``.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from penstock.v1.histogram import bucket_of, lower_edge_ns
from penstock_daemon.budget_metrics import BudgetSnapshot, budget_families
from penstock_daemon.clocks.metrics import ClocksSnapshot, clock_families
from penstock_daemon.device.metrics import DeviceSnapshot, device_families
from penstock_daemon.feed.metrics import FeedSnapshot, feed_families
from penstock_daemon.recorder import RecorderStats
from penstock_daemon.self_watch.metrics import SelfWatchSnapshot, self_watch_families
from penstock_daemon.subscriptions import SubscriptionCounts

BOUNDS_NS: Final = (
    *(1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 300_000, 500_000, 700_000),
    *(1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 6_000_000, 8_000_000),
    *(10_000_000, 20_000_000, 50_000_000, 100_000_000, 200_000_000, 500_000_000),
    *(1_000_000_000, 2_000_000_000, 5_000_000_000, 10_000_000_000),
)
assert all(lower_edge_ns(bucket_of(bound_ns)) == bound_ns for bound_ns in BOUNDS_NS), "a bound is no bucket's edge"
_BUCKETS_OF_BOUNDS: Final = np.array([bucket_of(bound_ns) for bound_ns in BOUNDS_NS])

LATENCY: Final = "penstock_latency_seconds"

_SLICE_SAMPLES: Final = 16
_PAUSE_S: Final = 0.0001


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """One histogram table, as it stands."""

    path: str  # "grpc", "shared_memory", "feed".
    stage: str  # Lower case, as in records.Stage: "receive" to "total".
    pace: str  # "realtime" or "bulk".
    counts: NDArray[np.integer]  # Shape (histogram.BUCKETS,). Copied when taken, or only ever grown.
    sum_ns: int
    max_ns: int = 0
    negative: int = 0  # Durations below 0; they are in bucket 0.


@dataclass(frozen=True, slots=True)
class RingOccupancy:
    """How full one ring is."""

    ring: str  # What it is for: "ticks", "predictions", "control".
    source: str  # Whose it is, from a bounded set: the session's slot, not its id.
    used: int
    slots: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that new sessions get."""

    name: str
    version: str
    content_hash: str  # Hexadecimal.
    demonstration: bool


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Everything that is shown, as it stands. Counters only grow while a daemon lives."""

    serving: bool = False
    ticks: Mapping[str, int] = field(default_factory=dict)  # Accepted, by pace.
    predictions: Mapping[str, int] = field(default_factory=dict)  # By pace.
    rebuild_ticks: int = 0
    tick_errors: Mapping[str, int] = field(default_factory=dict)  # Ticks answered by TickError, by reason.
    refusals: Mapping[str, int] = field(default_factory=dict)  # Streams and messages, by Fault.reason.
    late: int = 0  # Predictions flagged LATE.
    stale: int = 0  # Predictions flagged STALE.
    sessions: int = 0  # With a stream.
    sessions_resumable: int = 0  # Lost, states kept.
    sessions_opened: int = 0
    sessions_resumed: int = 0
    sessions_max: int = 0
    segments: int = 0  # Attached through shared memory.
    segments_max: int = 0
    segments_attached: int = 0
    segments_lost: Mapping[str, int] = field(default_factory=dict)  # By why.
    states: int = 0  # In use.
    states_max: int = 0
    rings: Sequence[RingOccupancy] = ()
    engine_busy_share: float = 0.0  # 0 to 1, over the last second or so.
    engine_busy_ns: int = 0
    engine_passes: int = 0
    arena_bytes: int = 0
    arena_locked: bool = False
    histograms: Sequence[LatencyHistogram] = ()
    recorder: RecorderStats | None = None  # None: nothing is recorded.
    model: ModelInfo | None = None
    clocks: ClocksSnapshot | None = None  # None: nobody looks after them.
    self_watch: SelfWatchSnapshot | None = None  # None: nobody watches.
    device: DeviceSnapshot | None = None  # None: the CPU predicts.
    budget: BudgetSnapshot = field(default_factory=BudgetSnapshot)
    subscriptions: SubscriptionCounts | None = None  # None: there is no feed.
    feed: FeedSnapshot | None = None  # None: there is no feed.
    host: Mapping[tuple[str, str], int] = field(default_factory=dict)  # Items of its checklist, by severity and status.


class SnapshotCollector(Collector):
    """Shows one snapshot per scrape."""

    def __init__(self, take: Callable[[], MetricsSnapshot], version: str) -> None:
        """Show what *take* returns; it is called from the server's thread, once per scrape."""
        self._take = take
        self._version = version

    def describe(self) -> Iterator[Metric]:
        """Yield nothing, so that registering takes no snapshot."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of a new snapshot."""
        snapshot = self._take()
        yield InfoMetricFamily(
            "penstock_build",
            "What runs.",
            value={"version": self._version, "python": platform.python_version(), "machine": platform.machine()},
        )
        if snapshot.model is not None:
            yield InfoMetricFamily("penstock_model", "The model that new sessions get.", value=_labels(snapshot.model))
        yield from _ticks(snapshot)
        yield from _sessions(snapshot)
        yield from _engine(snapshot)
        if snapshot.clocks is not None:
            yield from clock_families(snapshot.clocks)
        if snapshot.self_watch is not None:
            yield from self_watch_families(snapshot.self_watch)
        if snapshot.device is not None:
            yield from device_families(snapshot.device)
        if snapshot.feed is not None:
            yield from feed_families(snapshot.feed)
        yield _host(snapshot.host)
        yield from budget_families(snapshot.budget)
        if snapshot.subscriptions is not None:
            yield from _subscriptions(snapshot.subscriptions)
        yield from _latency(snapshot.histograms)
        if snapshot.recorder is not None:
            yield from _recorder(snapshot.recorder)


def make_registry(take: Callable[[], MetricsSnapshot], version: str) -> CollectorRegistry:
    """Return a registry of the daemon's own: *take*'s numbers, and the process's memory, CPU time and files."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(take, version))
    ProcessCollector(registry=registry)
    return registry


def _labels(model: ModelInfo) -> dict[str, str]:
    return {
        "name": model.name,
        "version": model.version,
        "content_hash": model.content_hash,
        "demonstration": "true" if model.demonstration else "false",
    }


def _ticks(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    yield _counter("penstock_ticks", "Ticks accepted to be predicted.", "pace", snapshot.ticks)
    yield _counter("penstock_predictions", "Predictions made.", "pace", snapshot.predictions)
    yield _counter("penstock_rebuild_ticks", "Ticks that restored a state.", None, {"": snapshot.rebuild_ticks})
    yield _counter("penstock_tick_errors", "Ticks answered by an error.", "reason", snapshot.tick_errors)
    yield _counter("penstock_refusals", "Streams and calls refused.", "reason", snapshot.refusals)
    yield _counter("penstock_late_predictions", "Predictions over the budget.", None, {"": snapshot.late})
    yield _counter("penstock_stale_predictions", "Predictions over the stale bound.", None, {"": snapshot.stale})


def _sessions(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    yield _gauge("penstock_serving", "1 while the daemon takes sessions.", snapshot.serving)
    yield _gauge("penstock_sessions", "Sessions with a stream.", snapshot.sessions)
    yield _gauge("penstock_sessions_resumable", "Lost sessions whose states are kept.", snapshot.sessions_resumable)
    yield _gauge("penstock_sessions_max", "The bound of sessions.", snapshot.sessions_max)
    yield _counter("penstock_sessions_opened", "Sessions opened.", None, {"": snapshot.sessions_opened})
    yield _counter("penstock_sessions_resumed", "Sessions resumed.", None, {"": snapshot.sessions_resumed})
    yield _gauge("penstock_segments", "Strategies attached through shared memory.", snapshot.segments)
    yield _gauge("penstock_segments_max", "The bound of those.", snapshot.segments_max)
    yield _counter("penstock_segments_attached", "Segments attached.", None, {"": snapshot.segments_attached})
    yield _counter("penstock_segments_lost", "Segments that ended by their strategy.", "reason", snapshot.segments_lost)
    yield _gauge("penstock_states", "Reservoir states in use.", snapshot.states)
    yield _gauge("penstock_states_max", "The bound of states.", snapshot.states_max)


def _subscriptions(counts: SubscriptionCounts) -> Iterator[Metric]:
    yield _gauge("penstock_subscribers", "Strategies that subscribe to the feed.", counts.subscribers)
    yield _counter("penstock_subscriptions_opened", "Subscriptions opened.", None, {"": counts.opened})
    yield _counter("penstock_subscriptions_fell_behind", "Subscribers cut off.", None, {"": counts.fell_behind})
    yield _counter("penstock_predictions_delivered", "Predictions sent to subscribers.", None, {"": counts.delivered})


def _engine(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    used = GaugeMetricFamily("penstock_ring_used", "Slots of a ring in use.", labels=["ring", "source"])
    slots = GaugeMetricFamily("penstock_ring_slots", "Slots of a ring.", labels=["ring", "source"])
    for one in snapshot.rings:
        used.add_metric([one.ring, one.source], one.used)
        slots.add_metric([one.ring, one.source], one.slots)
    yield used
    yield slots
    yield _gauge("penstock_engine_busy_share", "Share of time with ticks to work on.", snapshot.engine_busy_share)
    yield _counter("penstock_engine_busy_seconds", "Time spent on ticks.", None, {"": snapshot.engine_busy_ns / 1e9})
    yield _counter("penstock_engine_passes", "Passes over the rings.", None, {"": snapshot.engine_passes})
    yield _gauge("penstock_arena_bytes", "Memory of rings, states and weights.", snapshot.arena_bytes)
    yield _gauge("penstock_arena_locked", "1 where that memory is locked.", snapshot.arena_locked)


def _host(items: Mapping[tuple[str, str], int]) -> Metric:
    text = "Items of the host's checklist, as they stood at the start."
    family = GaugeMetricFamily("penstock_host_items", text, labels=["severity", "status"])
    for labels, count in items.items():
        family.add_metric(labels, count)
    return family


def _latency(histograms: Sequence[LatencyHistogram]) -> Iterator[Metric]:
    labels = ["path", "stage", "pace"]
    seconds = HistogramMetricFamily(LATENCY, "Durations of a tick's stages, in buckets of less than le.", labels=labels)
    longest = GaugeMetricFamily(f"{LATENCY}_max", "The longest duration of a stage.", labels=labels)
    negative = CounterMetricFamily(
        "penstock_latency_negative", "Durations below 0: clocks that disagree. They count as 0.", labels=labels
    )
    for one in histograms:
        time.sleep(_PAUSE_S)
        values = [one.path, one.stage, one.pace]
        seconds.add_metric(values, buckets=cumulative_buckets(one.counts), sum_value=one.sum_ns / 1e9)
        longest.add_metric(values, one.max_ns / 1e9)
        negative.add_metric(values, one.negative)
    seconds.samples = _Unhurried(seconds.samples)
    yield from (seconds, longest, negative)


class _Unhurried(list[Sample]):
    """Samples that let the event loop go first, now and then, while they are written out."""

    def __iter__(self) -> Iterator[Sample]:
        """Yield them, slice by slice."""
        for index, sample in enumerate(super().__iter__()):
            if index % _SLICE_SAMPLES == 0:
                time.sleep(_PAUSE_S)
            yield sample


def cumulative_buckets(counts: NDArray[np.integer]) -> list[tuple[str, float]]:
    """Return (bound in seconds, durations below it) for every bound, and for "+Inf"; exact.

    Args:
        counts: shape (histogram.BUCKETS,); copied first, so that a table which grows meanwhile stays cumulative.
    """
    below = np.concatenate(([0], np.cumsum(np.array(counts, dtype=np.int64))))
    pairs = [
        (repr(bound_ns / 1e9), float(below[bucket]))
        for bound_ns, bucket in zip(BOUNDS_NS, _BUCKETS_OF_BOUNDS, strict=True)
    ]
    return [*pairs, ("+Inf", float(below[-1]))]


def _recorder(stats: RecorderStats) -> Iterator[Metric]:
    yield _counter("penstock_recorder_ticks_written", "Ticks in recordings.", None, {"": stats.ticks_written})
    yield _counter("penstock_recorder_ticks_dropped", "Ticks left out: no room.", None, {"": stats.ticks_dropped})
    yield _counter("penstock_recorder_ticks_missed", "Of those: a tap was full.", None, {"": stats.ticks_missed})
    yield _counter("penstock_recorder_ticks_lost", "Ticks left out: disk refused.", None, {"": stats.ticks_lost})
    yield _counter("penstock_recorder_gaps", "Places where ticks are missing.", None, {"": stats.gaps})
    yield _counter("penstock_recorder_write_errors", "Writes that failed.", None, {"": stats.write_errors})
    yield _counter("penstock_recorder_files_completed", "Files completed.", None, {"": stats.files_completed})
    yield _counter("penstock_recorder_written_bytes", "Bytes of records written.", None, {"": stats.bytes_written})
    yield _gauge("penstock_recorder_queued_bytes", "Bytes that wait for the disk.", stats.queued_bytes)
    yield _gauge("penstock_recorder_queue_bytes", "The bound of bytes that wait.", stats.queue_bytes)
    yield _gauge("penstock_recorder_sessions", "Recordings that are open.", stats.sessions)


def _counter(name: str, help_text: str, label: str | None, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label] if label else [])
    for value_label, value in values.items():
        family.add_metric([value_label] if label else [], value)
    return family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)
