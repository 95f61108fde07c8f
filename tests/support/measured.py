"""Measurements made of numbers, not of time: gaps drawn from a seed, for tests of what is said of them."""

from __future__ import annotations

import random
from dataclasses import replace

from penstock_host.measure.histogram import counted, merged
from penstock_host.measure.jitter import cpu_name
from penstock_host.measure.result import JUDGED_US, Measurement, Series, Slice

SETTINGS = {"slice_ms": 500.0, "threshold_us": 1.0}


def gaps_of(draws: random.Random, scale: float) -> list[int]:
    """Return one slice's gaps in ns: many short ones, and a few whose length goes with *scale*."""
    short = [int(draws.lognormvariate(8.2, 0.7)) for _ in range(draws.randint(30, 60))]
    return [*short, *(int(scale * draws.uniform(40_000, 160_000)) for _ in range(draws.randint(1, 5)))]


def series_of(name: str, slices: list[list[int]]) -> Series:
    """Return slices of half a second that hold these gaps."""
    pieces = tuple(
        Slice(500_000_000, len(gaps), sum(gaps), max(gaps, default=0), sum(gap >= JUDGED_US * 1000 for gap in gaps))
        for gaps in slices
    )
    return Series(
        name=name,
        counts=merged(counted(gaps) for gaps in slices),
        sum_ns=sum(piece.sum_ns for piece in pieces),
        max_ns=max((piece.max_ns for piece in pieces), default=0),
        duration_ns=500_000_000 * len(pieces),
        slices=pieces,
        floor_ns={"median": 90, "p99": 120},
    )


def jitter(
    label: str,
    *,
    scale: float = 1.0,
    seed: int = 1,
    cpus: tuple[int, ...] = (2, 3),
    slices: int = 60,
    host: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
) -> Measurement:
    """Return a measurement whose rare gaps are *scale* times as long as those of scale 1."""
    draws = random.Random(seed)
    return Measurement(
        kind="jitter",
        label=label,
        taken="2026-05-04T10:00:00+00:00",
        seconds=slices / 2,
        settings=dict(settings or SETTINGS),
        notes=("The method's own step is 0.09 us (median).",),
        host={"node": "colo-1", "cpu_model": "A CPU", "virtualised": "no", "kernel": "6.8", **(host or {})},
        series=tuple(series_of(cpu_name(cpu), [gaps_of(draws, scale) for _ in range(slices)]) for cpu in cpus),
    )


def restless(seed: int, *, slices: int, spell: int) -> Measurement:
    """Return a measurement of a busy guest: stalls come in spells of some *spell* slices, ten times as many as between."""
    draws = random.Random(seed)
    busy = draws.random() < 0.5
    gaps = []
    for _ in range(slices):
        busy ^= draws.random() < 1 / spell
        rare = draws.randint(8, 14) if busy else draws.randint(0, 2)
        gaps.append([60_000, *(int(20_000 * min(draws.paretovariate(1.3), 2_000)) for _ in range(rare))])
    return replace(jitter("restless", slices=1), series=(series_of(cpu_name(2), gaps),))


def halves(whole: Measurement) -> tuple[Measurement, Measurement]:
    """Return the first and the second half of a measurement of one CPU, each as one by itself."""
    (series,) = whole.series
    middle = len(series.slices) // 2
    first, second = (
        replace(whole, label=label, series=(replace(series, slices=pieces),))
        for label, pieces in (("first", series.slices[:middle]), ("second", series.slices[middle:]))
    )
    return first, second
