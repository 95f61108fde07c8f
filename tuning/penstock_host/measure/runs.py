"""Several runs of one setting as one side of a comparison: what differs from run to run is chance too.

    the slices of a side are those of its runs, one after the other, and where each run ends is kept

Runs of one side have the operator's label in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from penstock_host.measure.histogram import merged
from penstock_host.measure.result import Measurement, MeasurementError, Series, Slice, title_of

_DAY_S: Final = 86_400.0


def by_label(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return one side per label, in the order in which labels come; runs without one, or all of one, stay apart.

    Raises:
        MeasurementError: runs of one label are of different kinds or settings.
    """
    sides: dict[object, list[Measurement]] = {}
    for measurement in measurements:
        sides.setdefault(measurement.label or id(measurement), []).append(measurement)
    if len(sides) < 2:
        return list(measurements)
    return [together(runs) for runs in sides.values()]


def latest_sides(measurements: Sequence[Measurement]) -> list[int]:
    """Return which of *measurements* are the two sides that were measured last, oldest first.

    A side is every run of one label within a day before its last: runs taken in turns, before, after, before, after, are two
    sides. Runs of another kind or other settings than the last one's are left out. Without two labels they are the two
    latest runs; of fewer there is nothing to choose.

    Args:
        measurements: oldest first.
    """
    alike = [
        place
        for place, one in enumerate(measurements)
        if (one.kind, one.settings) == (measurements[-1].kind, measurements[-1].settings)
    ]
    labels = dict.fromkeys(measurements[place].label for place in reversed(alike))
    if len(labels) < 2 or "" in list(labels)[:2]:
        return alike[-2:]
    chosen: list[int] = []
    for label in list(labels)[:2]:
        of_label = [place for place in alike if measurements[place].label == label]
        last_s = _moment_s(measurements[of_label[-1]])
        chosen += [place for place in of_label if last_s - _moment_s(measurements[place]) <= _DAY_S]
    return sorted(chosen)


def _moment_s(measurement: Measurement) -> float:
    try:
        return datetime.fromisoformat(measurement.taken).timestamp()
    except ValueError:  # Somebody else's file: as old as can be.
        return 0.0


def together(runs: Sequence[Measurement]) -> Measurement:
    """Return *runs* as one measurement, of the series that all of them have.

    Raises:
        MeasurementError: they are of different kinds or settings, or have no series in common.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        if (other.kind, other.settings) != (first.kind, first.settings):
            raise MeasurementError(
                f"{title_of(first)}: want runs of one kind and the same settings under one label, was "
                f"{first.kind} {first.settings} and {other.kind} {other.settings}; give them other labels"
            )
    common = [name for name in _names(first) if all(name in _names(run) for run in runs)]
    if not common:
        raise MeasurementError(f"{title_of(first)}: want series in common in all runs of the label, was none")
    found = [_joined([next(one for one in run.series if one.name == name) for run in runs]) for name in common]
    notes = dict.fromkeys(note for run in runs for note in run.notes)
    return replace(
        first,
        seconds=sum(run.seconds for run in runs),
        notes=(f"{len(runs)} runs taken together.", *notes),
        series=tuple(found),
    )


def runs_of(series: Series) -> list[tuple[Slice, ...]]:
    """Return the slices of each run of *series*."""
    if not series.run_lengths:
        return [series.slices]
    runs = []
    start = 0
    for length in series.run_lengths:
        runs.append(series.slices[start : start + length])
        start += length
    return runs


def _joined(parts: Sequence[Series]) -> Series:
    return Series(
        name=parts[0].name,
        counts=merged(part.counts for part in parts),
        sum_ns=sum(part.sum_ns for part in parts),
        max_ns=max(part.max_ns for part in parts),
        duration_ns=sum(part.duration_ns for part in parts),
        slices=tuple(piece for part in parts for piece in part.slices),
        floor_ns=parts[0].floor_ns,
        extra=parts[0].extra,
        run_lengths=tuple(len(part.slices) for part in parts),
    )


def _names(measurement: Measurement) -> list[str]:
    return [series.name for series in measurement.series]
