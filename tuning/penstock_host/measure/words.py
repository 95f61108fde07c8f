"""Measurements and comparisons in words: figures in the unit that suits them, tables, and verdicts for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock_host.measure.compare import Comparison, Row, Verdict, mend_of
from penstock_host.measure.result import Measurement, title_of, when

_COLUMNS: Final = ("p50", "p99", "p99.9", "p99.99", "max")
_GAP_KINDS: Final = frozenset({"jitter", "oslat"})


def microseconds_text(microseconds: float) -> str:
    """Return a duration in the unit that suits it."""
    size = abs(microseconds)
    if size < 10:
        return f"{microseconds:.2f} us"
    if size < 1000:
        return f"{microseconds:.0f} us"
    if size < 1_000_000:
        return f"{microseconds / 1000:.2f} ms"
    return f"{microseconds / 1e6:.2f} s"


def value_text(value: float, unit: str, beside: float = 0.0) -> str:
    """Return a figure with its unit; one that stands beside a large one has that one's."""
    if unit == "us":
        return microseconds_text(value)
    if unit == "ppm" and max(abs(value), abs(beside)) >= 10_000:
        return f"{value / 10_000:.2f} %"
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.2f} {unit}"


def values_text(row: Row) -> str:
    """Return a figure before and after."""
    beside = max(row.before, row.after)
    return " -> ".join(value_text(value, row.figure.unit, beside) for value in (row.before, row.after))


def change_text(row: Row) -> str:
    """Return how much a figure changed, with its interval."""
    change = row.after - row.before
    share = row.change_share
    text = f"{share:+.0%}" if share is not None and abs(share) < 10 else _signed(change, row.figure.unit)
    if row.interval is None:
        return text
    beside = max(row.before, row.after)
    low, high = (_signed(value, row.figure.unit, beside) for value in (row.interval.low, row.interval.high))
    return f"{text} ({low} to {high})"


def measurement_text(measurement: Measurement) -> str:
    """Return a table of the series, with the notes and what the host was."""
    words = f"{measurement.kind}, {measurement.seconds:g} s, {when(measurement)}"
    lines = [words + (f", {measurement.label}" if measurement.label else ""), host_line(measurement), ""]
    width = max(len(series.name) for series in measurement.series)
    head = f"{'':{width}} {'count':>11}" + "".join(f"{name:>10}" for name in _COLUMNS)
    gaps = measurement.kind in _GAP_KINDS
    head += f"{'>=10us':>9}{'>=50us':>8}{'>=100us':>8}{'>=1ms':>7}" + (f"{'taken':>11}" if gaps else "")
    lines.append(head)
    for series in measurement.series:
        found = series.figures()
        line = f"{series.name:{width}} {found['count']:>11,}"
        line += "".join(
            f"{microseconds_text(found[f'{name}_us']) if found['count'] or name == 'max' else '-':>10}"
            for name in _COLUMNS
        )
        line += f"{found['over_10us']:>9,}{found['over_50us']:>8,}{found['over_100us']:>8,}{found['over_1000us']:>7,}"
        line += f"{value_text(found['share_of_time'] * 1e6, 'ppm'):>11}" if gaps else ""
        lines.append(line)
    lines += ["", *measurement.notes]
    return "\n".join(lines)


def host_line(measurement: Measurement) -> str:
    """Return the host in one line."""
    host = measurement.host
    parts = [
        str(host.get("cpu_model", "an unknown CPU")),
        f"kernel {host.get('kernel', 'unknown')}",
        f"isolated {host.get('isolated') or 'none'}",
        f"governor {host.get('governors', 'unknown')}",
        f"clock {host.get('clocksource', 'unknown')}",
        f"virtualised {host.get('virtualised', 'unknown')}",
        f"load {_listed(host.get('load')) or 'unknown'}",
    ]
    return ", ".join(parts)


def _listed(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


def comparison_text(comparison: Comparison) -> str:
    """Return a line per figure with its verdict, and what to do about it."""
    before, after = comparison.before, comparison.after
    lines = [
        f"{before.kind}: {title_of(before)} -> {title_of(after)}: {verdict_words(comparison)}",
        slices_line(after),
        "",
    ]
    lines += _rows(comparison.judged)
    if comparison.shown:
        lines += ["", "each by itself, no part of the verdict:", *_rows(comparison.shown)]
    lines += [""] if comparison.warnings or comparison.changed else []
    lines += [f"careful: {warning}" for warning in comparison.warnings]
    lines += [f"changed: {change}" for change in comparison.changed]
    mend = mend_of(comparison)
    return "\n".join([*lines, *(["", mend] if mend else [])])


def verdict_words(comparison: Comparison) -> str:
    """Return the verdict as a whole."""
    return {
        Verdict.BETTER: "it helped",
        Verdict.WORSE: "it made things WORSE",
        Verdict.SAME: "no difference that can be told from chance",
        Verdict.UNKNOWN: "can't say",
    }[comparison.verdict]


def slices_line(measurement: Measurement) -> str:
    """Return how the intervals were made, or that there are none."""
    number = min((len(series.slices) for series in measurement.series), default=0)
    if not number:
        return "no slices, so no intervals"
    length = measurement.settings.get("slice_ms")
    words = f"{length:g} ms" if isinstance(length, int | float) else "an unknown length"
    return f"{number} slices of {words}; intervals of 95 %, all figures together, by a block bootstrap over them"


def _rows(rows: Sequence[Row]) -> list[str]:
    width = max(len(f"{row.series}: {row.figure.words}") for row in rows)
    return [
        f"{row.verdict.value:<14} {f'{row.series}: {row.figure.words}':<{width}}  "
        f"{values_text(row)}, {change_text(row)}"
        for row in rows
    ]


def _signed(value: float, unit: str, beside: float = 0.0) -> str:
    text = value_text(value, unit, beside)
    return text if value < 0 else f"+{text}"
