"""The clocks' part of the metrics: what stamps are worth, how far clocks are apart, and how often they misbehaved.

What is not known is not shown: no error of a clock that nobody vouches for, no card's clock where none is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from penstock_daemon.clocks.seam import UNKNOWN_NS, ClockReading, Offset


@dataclass(frozen=True, slots=True)
class ClocksSnapshot:
    """The clocks as they stand. Counters only grow while a daemon lives.

    Attributes:
        stamps: what the engine times its stages with, "tsc" or "monotonic".
        why: why that one.
        tsc_hertz, tsc_error_ppb, tsc_drift_ppb: of the cycle counter; None where it is not used.
        tsc_failures: how often it was given up while serving: 0 or 1.
        synchronised: the kernel's clock is disciplined; None where the kernel does not say.
        maximum_error_ns, estimated_error_ns: that it admits to; UNKNOWN_NS where it is not disciplined.
        tai_offset_s: TAI - UTC as the kernel was told; 0 where it was not.
        steps, last_step_ns: of the wall clock.
        sync_losses: how often it was no longer disciplined.
        readings: one of each clock of the host, with its error.
        offsets: between clocks, with their errors as of now.
        ptp: the card's clock that is compared; "" for none.
        ptp_failures: comparisons that the card refused.
        behind_venue, behind_venue_max_ns: ticks that their recorder stamped before their venue did, and by how much at most.
    """

    stamps: str = "monotonic"
    why: str = ""
    tsc_hertz: float | None = None
    tsc_error_ppb: int | None = None
    tsc_drift_ppb: int | None = None
    tsc_failures: int = 0
    synchronised: bool | None = None
    maximum_error_ns: int = UNKNOWN_NS
    estimated_error_ns: int = UNKNOWN_NS
    tai_offset_s: int = 0
    steps: int = 0
    last_step_ns: int = 0
    sync_losses: int = 0
    readings: tuple[ClockReading, ...] = ()
    offsets: tuple[Offset, ...] = ()
    ptp: str = ""
    ptp_failures: int = 0
    behind_venue: int = 0
    behind_venue_max_ns: int = 0


def clock_families(one: ClocksSnapshot) -> Iterator[Metric]:
    """Yield every metric of the clocks."""
    yield InfoMetricFamily(
        "penstock_clock",
        "What stages are timed with, and why.",
        value={"stamps": one.stamps, "why": one.why, "ptp": one.ptp},
    )
    for name, text, value in (
        ("penstock_clock_steps", "Steps of the wall clock.", one.steps),
        ("penstock_clock_sync_losses", "How often nobody disciplined the wall clock any more.", one.sync_losses),
        (
            "penstock_clock_behind_venue_ticks",
            "Ticks that their recorder stamped before their venue.",
            one.behind_venue,
        ),
        ("penstock_clock_tsc_failures", "Times the cycle counter was given up while serving.", one.tsc_failures),
    ):
        yield CounterMetricFamily(name, text, value=value)
    if one.ptp:
        yield CounterMetricFamily(
            "penstock_clock_ptp_failures", "Comparisons with the card's clock that failed.", value=one.ptp_failures
        )
    yield GaugeMetricFamily(
        "penstock_clock_last_step_seconds", "By how much the wall clock stepped last.", value=one.last_step_ns / 1e9
    )
    yield GaugeMetricFamily(
        "penstock_clock_behind_venue_max_seconds", "By how much at most.", value=one.behind_venue_max_ns / 1e9
    )
    if one.synchronised is not None:
        yield GaugeMetricFamily(
            "penstock_clock_synchronised", "1 while the wall clock is disciplined.", value=one.synchronised
        )
    for name, text, ns in (
        (
            "penstock_clock_maximum_error_seconds",
            "How far it may be from UTC, as the kernel says.",
            one.maximum_error_ns,
        ),
        ("penstock_clock_estimated_error_seconds", "How far it is believed to be.", one.estimated_error_ns),
    ):
        if ns != UNKNOWN_NS:
            yield GaugeMetricFamily(name, text, value=ns / 1e9)
    if one.tai_offset_s:
        yield GaugeMetricFamily(
            "penstock_clock_tai_offset_seconds", "TAI minus UTC, as the kernel was told.", value=one.tai_offset_s
        )
    for name, text, rate in (
        ("penstock_clock_tsc_hertz", "Rate of the cycle counter.", one.tsc_hertz),
        ("penstock_clock_tsc_error_ratio", "By how much that is off at most.", _ratio(one.tsc_error_ppb)),
        ("penstock_clock_tsc_drift_ratio", "How much it changed since the start.", _ratio(one.tsc_drift_ppb)),
    ):
        if rate is not None:
            yield GaugeMetricFamily(name, text, value=rate)
    own = GaugeMetricFamily("penstock_clock_error_seconds", "How far a clock may be from its epoch.", labels=["clock"])
    for reading in one.readings:
        if reading.error_ns != UNKNOWN_NS:
            own.add_metric([reading.base], reading.error_ns / 1e9)
    yield own
    labels = ["clock", "against"]
    offsets = GaugeMetricFamily("penstock_clock_offset_seconds", "How far two clocks are apart.", labels=labels)
    errors = GaugeMetricFamily("penstock_clock_offset_error_seconds", "By how much that is off at most.", labels=labels)
    for offset in one.offsets:
        offsets.add_metric([offset.of, offset.against], offset.offset_ns / 1e9)
        errors.add_metric([offset.of, offset.against], offset.error_ns / 1e9)
    yield offsets
    yield errors


def _ratio(ppb: int | None) -> float | None:
    return None if ppb is None else ppb / 1e9
