"""What a measurement found: one JSON file with the host's facts, that can be read and compared a year later.

Measurement   what was measured, when, on which host, and its series
Series        one CPU, or one stage of the daemon's path: a histogram, sums, and its slices in time
Slice         a stretch of it, from which intervals are drawn

loaded(saved(m)) == m      for every measurement m
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from penstock_host.faults import HostError
from penstock_host.measure.histogram import OVERFLOW_BUCKET, QUANTILES, count_from, quantile_ns

FORMAT_VERSION: Final = 1
OVER_US: Final = (10, 50, 100, 1000)
JUDGED_US: Final = 50  # A gap that a 5 ms budget does not feel: TUNING's bound of ample.


class MeasurementError(HostError):
    """A measurement can't be taken, read or kept; the sentence says what to do."""


@dataclass(frozen=True)
class Slice:
    """A stretch of a series.

    Attributes:
        duration_ns: how long was measured.
        count: of gaps, or of durations.
        sum_ns: of them.
        max_ns: the longest; 0 for none.
        over: how many were JUDGED_US or longer.
        p50_ns: 0 where it is not kept.
        p99_ns: 0 where it is not kept.
    """

    duration_ns: int
    count: int
    sum_ns: int
    max_ns: int
    over: int
    p50_ns: int = 0
    p99_ns: int = 0


@dataclass(frozen=True)
class Series:
    """One CPU, or one stage of the daemon's path.

    Attributes:
        name: "CPU 2", or "TOTAL".
        counts: of each bucket of histogram.py, those not empty.
        sum_ns: of all durations.
        max_ns: the longest, exact where the tool says it exactly.
        duration_ns: how long was measured; 0 where durations overlap, or nobody says.
        slices: in order of time; empty where a tool keeps none.
        floor_ns: what the method itself costs: the median and p99 of its step; empty where unknown.
        extra: what a tool said beside, as it said it.
        run_lengths: how many slices each run has, where several were taken together; never saved.
    """

    name: str
    counts: dict[int, int]
    sum_ns: int
    max_ns: int
    duration_ns: int
    slices: tuple[Slice, ...] = ()
    floor_ns: dict[str, int] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    run_lengths: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.counts.values())

    def figures(self) -> dict[str, Any]:
        """Return what people read of it: quantiles, the longest, and how many were over each bound."""
        return {
            "count": self.count,
            **{f"{name}_us": quantile_ns(self.counts, share) / 1000 for name, share in QUANTILES.items()},
            "max_us": self.max_ns / 1000,
            **{f"over_{bound}us": count_from(self.counts, bound * 1000) for bound in OVER_US},
            "share_of_time": self.sum_ns / self.duration_ns if self.duration_ns else 0.0,
        }


@dataclass(frozen=True)
class Measurement:
    """What one command measured.

    Attributes:
        kind: "jitter", "path", "cyclictest", ...
        label: the operator's own word for it, such as "before".
        taken: when it began, ISO 8601 in UTC.
        seconds: how long was asked for.
        settings: what must be the same in two that are compared.
        notes: sentences that a reader of the figures needs.
        host: facts of facts.py.
        series: in the order of their names' numbers.
    """

    kind: str
    label: str
    taken: str
    seconds: float
    settings: dict[str, Any]
    notes: tuple[str, ...]
    host: dict[str, Any]
    series: tuple[Series, ...]


def rendered(measurement: Measurement) -> dict[str, Any]:
    """Return the measurement as what JSON can hold, with the figures people read."""
    found = asdict(measurement)
    found["notes"] = list(measurement.notes)
    found["series"] = [
        {
            "name": one.name,
            **one.figures(),
            "sum_ns": one.sum_ns,
            "max_ns": one.max_ns,
            "duration_ns": one.duration_ns,
            "floor_ns": one.floor_ns,
            "extra": one.extra,
            "histogram": {"buckets": sorted(one.counts), "counts": [one.counts[key] for key in sorted(one.counts)]},
            "slices": {name: [getattr(piece, name) for piece in one.slices] for name in _SLICE_FIELDS},
        }
        for one in measurement.series
    ]
    return {"penstock_measurement": FORMAT_VERSION, **found}


def save(measurement: Measurement, folder: Path) -> Path:
    """Write *measurement* into *folder*, which is made where it is missing, all or nothing. Return its path.

    Raises:
        MeasurementError: it can't be written.
    """
    moment = re.sub(r"[-:]|\+.*", "", measurement.taken)
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", measurement.label).strip("-.")
    stem = "-".join(part for part in (measurement.kind, moment, word) if part)
    text = json.dumps(rendered(measurement), indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem}.json"
        number = 1
        while path.exists():
            number += 1
            path = folder / f"{stem}-{number}.json"
        scratch = folder / f".{path.name}.{os.getpid()}"
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as refusal:
        raise MeasurementError(
            f"--out: must be a folder that can be written, was {folder}: {refusal.strerror}; name another with --out"
        ) from refusal
    return path


def load(path: Path) -> Measurement:
    """Read a measurement.

    Raises:
        MeasurementError: the file can't be read, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as refusal:
        reason = refusal.strerror if isinstance(refusal, OSError) else "it is no text"
        raise MeasurementError(f"{path}: can't be read: {reason}; name a file that `measure` saved") from refusal
    try:
        found = json.loads(text)
        version = found["penstock_measurement"]
        if version == FORMAT_VERSION:
            return _parsed(found)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as refusal:
        raise MeasurementError(
            f"{path}: is no measurement ({refusal!r}); name a file that `measure` saved"
        ) from refusal
    raise MeasurementError(
        f"{path}: want format {FORMAT_VERSION}, was {version!r}; read it with the penstock-tune that wrote it"
    )


def results_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where measurements are kept when nobody says otherwise: the XDG folder for state.

    Args:
        environ: XDG_STATE_HOME and HOME are read.
    """
    named = environ.get("XDG_STATE_HOME", "")
    state = Path(named) if named.startswith("/") else Path(environ.get("HOME") or "/var/lib") / ".local" / "state"
    return state / "penstock" / "measurements"


def when(measurement: Measurement) -> str:
    """Return when it was taken, as people read it."""
    try:
        return datetime.fromisoformat(measurement.taken).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return measurement.taken


def title_of(measurement: Measurement) -> str:
    """Return the label, or else when it was taken."""
    return measurement.label or when(measurement)


_SLICE_FIELDS: Final = ("duration_ns", "count", "sum_ns", "max_ns", "over", "p50_ns", "p99_ns")


def _natural(value: object) -> int:
    """Return a count or a duration: nothing here is negative, and nothing lasts a thousand years."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 65:
        raise ValueError(f"want a whole number from 0, was {value!r}")
    return value


def _seconds(value: Any) -> float:
    if not 0 <= value < 1e9:
        raise ValueError(f"want seconds, was {value!r}")
    return float(value)


def _plain(value: Any) -> Any:
    """Return a fact as a word, a number or a list of words."""
    if isinstance(value, list):
        return [str(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def _parsed(found: dict[str, Any]) -> Measurement:
    if not found["series"]:
        raise ValueError("it has no series")
    return Measurement(
        kind=str(found["kind"]),
        label=str(found["label"]),
        taken=str(found["taken"]),
        seconds=_seconds(found["seconds"]),
        settings={str(name): _plain(value) for name, value in found["settings"].items()},
        notes=tuple(str(note) for note in found["notes"]),
        host={str(name): _plain(value) for name, value in found["host"].items()},
        series=tuple(_parsed_series(one) for one in found["series"]),
    )


def _parsed_series(one: dict[str, Any]) -> Series:
    histogram = one["histogram"]
    columns = [[_natural(value) for value in one["slices"][name]] for name in _SLICE_FIELDS]
    buckets = [_natural(bucket) for bucket in histogram["buckets"]]
    if max(buckets, default=0) > OVERFLOW_BUCKET:
        raise ValueError(f"no bucket is {max(buckets)}")
    return Series(
        name=str(one["name"]),
        counts={key: count for key, count in zip(buckets, map(_natural, histogram["counts"]), strict=True) if count},
        sum_ns=_natural(one["sum_ns"]),
        max_ns=_natural(one["max_ns"]),
        duration_ns=_natural(one["duration_ns"]),
        slices=tuple(Slice(*row) for row in zip(*columns, strict=True)),
        floor_ns={str(name): int(value) for name, value in one["floor_ns"].items()},
        extra=dict(one["extra"]),
    )
