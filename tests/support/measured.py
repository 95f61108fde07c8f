"""Measurements made of numbers, not of time: gaps drawn from a seed, for tests of what is said of them."""

from __future__ import annotations

import random

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
