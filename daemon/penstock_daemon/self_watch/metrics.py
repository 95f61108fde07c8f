"""Self-watch's part of the metrics: what was seen that could break the promise. Counters begin when the daemon serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock_daemon.self_watch.foreign import Intruder


@dataclass(frozen=True, slots=True)
class RingHighWater:
    """The fullest that a session's ring was since it was opened."""

    ring: str  # "ticks" or "predictions".
    source: str  # The session's slot.
    most: int
    slots: int


@dataclass(frozen=True, slots=True)
class SelfWatchSnapshot:
    """What was seen since the daemon serves. Counters only grow.

    Attributes:
        voluntary, involuntary: context switches of the engine's thread: it slept, its CPU was taken.
        minor_faults, major_faults: its page faults.
        throttled_periods, throttled_ns: the control group's quota stopped the daemon.
        heat_events: a CPU of the engine was slowed for its temperature.
        watched: which of "quota" and "heat" this host tells of, and "threads" where the engine has CPUs of its own.
        intruder_looks: how often all threads of the host were looked at.
        intruder_ns: how long others ran that used the engine's CPUs, by kind; an upper bound.
        intruders: those of the last look, longest first.
        collector_runs, collector_paused_ns, collector_longest_ns: of Python's garbage collector.
        stalls: how often the engine stood still for seconds.
        rings: of the sessions that are open.
    """

    voluntary: int = 0
    involuntary: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    heat_events: int = 0
    watched: tuple[str, ...] = ()
    intruder_looks: int = 0
    intruder_ns: Mapping[str, int] = field(default_factory=dict)
    intruders: tuple[Intruder, ...] = ()
    collector_runs: int = 0
    collector_paused_ns: int = 0
    collector_longest_ns: int = 0
    stalls: int = 0
    rings: tuple[RingHighWater, ...] = ()


def self_watch_families(one: SelfWatchSnapshot) -> Iterator[Metric]:
    """Yield every metric of the self-watch; what this host does not tell is left out."""
    yield _by(
        "penstock_engine_switches",
        "Context switches of the engine's thread.",
        "kind",
        {"voluntary": one.voluntary, "involuntary": one.involuntary},
    )
    yield _by(
        "penstock_engine_page_faults",
        "Page faults of the engine's thread.",
        "kind",
        {"minor": one.minor_faults, "major": one.major_faults},
    )
    yield CounterMetricFamily("penstock_engine_stalls", "Times the engine stood still for seconds.", value=one.stalls)
    if "quota" in one.watched:
        for name, text, value in (
            (
                "penstock_throttled_periods",
                "Periods in which the daemon's quota of CPU was used up.",
                one.throttled_periods,
            ),
            ("penstock_throttled_seconds", "How long it stood still for that.", one.throttled_ns / 1e9),
        ):
            yield CounterMetricFamily(name, text, value=value)
    if "heat" in one.watched:
        yield CounterMetricFamily(
            "penstock_heat_events", "Times a CPU of the engine was slowed for its temperature.", value=one.heat_events
        )
    if "threads" in one.watched:
        yield _by(
            "penstock_intruder_seconds",
            "How long threads ran that used the engine's CPUs, at most.",
            "kind",
            {kind: ns / 1e9 for kind, ns in one.intruder_ns.items()},
        )
        yield GaugeMetricFamily(
            "penstock_intruders", "Threads on the engine's CPUs at the last look.", value=len(one.intruders)
        )
        yield CounterMetricFamily("penstock_intruder_looks", "Looks at the host's threads.", value=one.intruder_looks)
    for name, text, value in (
        ("penstock_collector_runs", "Runs of Python's garbage collector.", one.collector_runs),
        ("penstock_collector_paused_seconds", "How long they took.", one.collector_paused_ns / 1e9),
    ):
        yield CounterMetricFamily(name, text, value=value)
    yield GaugeMetricFamily(
        "penstock_collector_longest_seconds", "The longest of them.", value=one.collector_longest_ns / 1e9
    )
    most = GaugeMetricFamily(
        "penstock_ring_high_water", "The fullest that a session's ring was.", labels=["ring", "source"]
    )
    for ring in one.rings:
        most.add_metric([ring.ring, ring.source], ring.most)
    yield most


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value_label, value in values.items():
        family.add_metric([value_label], value)
    return family
