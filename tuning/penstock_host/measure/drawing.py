"""Measurements as pictures: how often gaps of each length came, CPU by CPU, before and after; and what changed.

Small multiples share their scales, so that eyes can compare them: lengths from left to right in tenfold steps, how
often from bottom to top in tenfold steps. Both scales come from the data of all panels together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock_host.measure.compare import Comparison, Row, Verdict
from penstock_host.measure.histogram import lower_edge_ns
from penstock_host.measure.result import Measurement, Series, title_of
from penstock_host.measure.svg import Drawing
from penstock_host.measure.words import change_text, microseconds_text, values_text, verdict_words

WIDTH: Final = 960
PANEL_WIDTH: Final = 304
PANEL_HEIGHT: Final = 190
PANELS_MAX: Final = 12
_COLUMNS: Final = 3
_STEPS: Final = 6  # Bars per tenfold of length.
_REACHES: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_NOUNS: Final = {
    "path": "time of a tick",
    "cyclictest": "lateness of a wake-up",
    "rtla-timerlat": "lateness of a wake-up",
}
_LOOKS: Final = {Verdict.BETTER: "better", Verdict.WORSE: "worse", Verdict.SAME: "same", Verdict.UNKNOWN: "same"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 20, 26, 34


@dataclass(frozen=True)
class Scales:
    """What panels share: decades of nanoseconds, and decades of how often."""

    first_decade: int
    last_decade: int
    low: int
    high: int
    often: str
    noun: str = "length of a gap"


@dataclass(frozen=True)
class Panel:
    """A series before, after, or both."""

    name: str
    before: Series | None
    after: Series | None


def panels_of(before: Measurement | None, after: Measurement) -> list[Panel]:
    """Return a panel per series of *after*, the worst first where there are more than are drawn."""
    earlier = {series.name: series for series in before.series} if before else {}
    shown = list(after.series)
    if len(shown) > PANELS_MAX:
        worst = sorted(shown, key=lambda series: -series.max_ns)[:PANELS_MAX]
        shown = [series for series in shown if series in worst]
    return [Panel(series.name, earlier.get(series.name), series) for series in shown]


def scales_of(panels: Sequence[Panel], kind: str) -> Scales:
    """Return scales that hold everything in *panels*, of measurements of *kind*."""
    series = [one for panel in panels for one in (panel.before, panel.after) if one is not None]
    lengths = [max(lower_edge_ns(bucket), 1) for one in series for bucket in one.counts] or [1000]
    rates = [rate for one in series for _, rate in _bars(one)] or [1.0]
    first = math.floor(math.log10(min(lengths)))
    last = max(math.floor(math.log10(max(lengths))) + 1, first + 2)
    low = math.floor(math.log10(min(rates)))
    often = "per second" if all(one.duration_ns for one in series) else "share"
    noun = _NOUNS.get(kind, "length of a gap")
    return Scales(first, last, low, max(math.ceil(math.log10(max(rates)) + 1e-9), low + 1), often, noun)


def draw_panel(panel: Panel, scales: Scales) -> Drawing:
    """Return one small picture: how often (upwards) a gap was how long (to the right)."""
    drawing = Drawing(PANEL_WIDTH, PANEL_HEIGHT, f"{panel.name}: how often, by {scales.noun}")
    left, right, top, bottom = _LEFT, PANEL_WIDTH - _RIGHT, _TOP, PANEL_HEIGHT - _BOTTOM
    drawing.words(left, 14, panel.name, size=12, bold=True)
    longest = [("before-area", panel.before), ("after-area", panel.after)]
    text = " -> ".join(microseconds_text(one.max_ns / 1000) for _, one in longest if one is not None)
    drawing.words(right, 14, f"longest {text}", look="quiet", size=10, anchor="end")
    for decade in range(scales.first_decade, scales.last_decade + 1):
        x = _x(10**decade, scales)
        drawing.line(x, top, x, bottom, "grid")
        drawing.words(x, bottom + 13, _length_text(decade), look="quiet", size=9.5, anchor="middle")
    step = max(math.ceil((scales.high - scales.low) / 4), 1)
    for power in range(scales.low, scales.high + 1, step):
        y = _y(10.0**power, scales)
        drawing.line(left, y, right, y, "grid")
        drawing.words(left - 5, y + 3, _rate_text(power, scales), look="quiet", size=9.5, anchor="end")
    for series, look, opacity in ((panel.before, "before", 0.22), (panel.after, "after", 0.18)):
        if series is not None:
            points = _outline(series, scales)
            drawing.area(points, f"{look}-area", opacity=opacity)
            drawing.polyline(points, look)
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.words((left + right) / 2, PANEL_HEIGHT - 6, scales.noun, look="quiet", size=9.5, anchor="middle")
    if panel.after is not None and not panel.after.counts and (panel.before is None or not panel.before.counts):
        drawing.words((left + right) / 2, (top + bottom) / 2, "no histogram", look="quiet", anchor="middle")
    return drawing


def draw_comparison(comparison: Comparison) -> Drawing:
    """Return the whole comparison: what changed, with intervals, and a panel per series."""
    panels = panels_of(comparison.before, comparison.after)
    scales = scales_of(panels, comparison.after.kind)
    changes = draw_changes(comparison.judged)
    rows = math.ceil(len(panels) / _COLUMNS)
    head = 74
    below = head + changes.height + 34
    drawing = Drawing(WIDTH, below + rows * (PANEL_HEIGHT + 10) + 26, "Before and after")
    look = _LOOKS[comparison.verdict]
    drawing.words(
        16, 30, f"{comparison.before.kind}: {verdict_words(comparison)}", size=19, look=f"{look}-words", bold=True
    )
    x = 16.0
    for name, measurement in (("before", comparison.before), ("after", comparison.after)):
        drawing.rectangle(x, 46, 14, 10, f"{name}-area", opacity=0.75)
        title = title_of(measurement)
        text = f"{title if title == name else f'{name}: {title}'}, {measurement.seconds:g} s"
        drawing.words(x + 20, 55, text[:58], look="quiet", size=11.5)
        x += 430
    drawing.place(changes, 0, head)
    drawing.words(
        16,
        below - 12,
        f"{scales.noun.capitalize()}, and {often_words(scales)}; both scales in tenfold steps",
        size=12,
        bold=True,
    )
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        drawing.place(draw_panel(panel, scales), 16 + column * (PANEL_WIDTH + 8), below + row * (PANEL_HEIGHT + 10))
    left_out = len(comparison.after.series) - len(panels)
    if left_out:
        text = f"and {left_out} more with shorter longest gaps; the JSON has them"
        drawing.words(16, drawing.height - 10, text, look="quiet")
    return drawing


def draw_changes(rows: Sequence[Row]) -> Drawing:
    """Return a line per figure: its change in percent with its interval, better to the left of the middle."""
    line_height, top = 34, 24
    drawing = Drawing(
        WIDTH, top + line_height * len(rows) + 22, "What changed, with intervals of 95 % for all figures together"
    )
    reach = reach_of(rows)
    first, last = 300.0, 660.0
    middle = (first + last) / 2

    def place(share: float) -> float:
        return middle + max(min(share / reach, 1.0), -1.0) * (last - first) / 2

    drawing.words(first, 12, "better", look="better-words", size=10.5)
    drawing.words(last, 12, "worse", look="worse-words", size=10.5, anchor="end")
    bottom = top + line_height * len(rows)
    for mark in (-1.0, -0.5, 0.0, 0.5, 1.0):
        if mark * reach < -1:  # Nothing can become less than nothing.
            continue
        x = place(mark * reach)
        drawing.line(x, top - 6, x, bottom, "axis" if mark == 0 else "grid")
        drawing.words(x, bottom + 13, f"{mark * reach:+.0%}" if mark else "0", look="quiet", size=9.5, anchor="middle")
    for number, row in enumerate(rows):
        y = top + line_height * (number + 0.5)
        look = _LOOKS[row.verdict]
        drawing.words(16, y - 2, row.figure.words, size=12)
        drawing.words(16, y + 12, values_text(row), look="quiet", size=10.5)
        drawing.words(last + 24, y - 2, row.verdict.value, look=f"{look}-words", size=12, bold=True)
        drawing.words(last + 24, y + 12, change_text(row), look="quiet", size=10)
        share = row.change_share
        if share is None:
            continue
        if row.interval is not None:
            low, high = (place(value / abs(row.before)) for value in (row.interval.low, row.interval.high))
            drawing.line(low, y, high, y, look, wide=2)
            for x in (low, high):
                drawing.line(x, y - 5, x, y + 5, look, wide=2)
        drawing.dot(place(share), y, 4.5, f"{look}-words")
    return drawing


def reach_of(rows: Sequence[Row]) -> float:
    """Return the share at the ends of the scale of changes: 25 % to tenfold, by what there is to see."""
    seen = [
        abs(value / row.before)
        for row in rows
        if row.before and row.interval
        for value in (row.interval.low, row.interval.high)
    ]
    largest = max(seen, default=0.25)
    return next((reach for reach in _REACHES if largest <= reach), _REACHES[-1])


def _bars(series: Series) -> list[tuple[int, float]]:
    """Return how often gaps of each step of length came: per second, or as a share of all."""
    counts: dict[int, int] = {}
    for bucket, count in series.counts.items():
        step = math.floor(math.log10(max(lower_edge_ns(bucket), 1)) * _STEPS + 1e-9)
        counts[step] = counts.get(step, 0) + count
    whole = series.duration_ns / 1e9 if series.duration_ns else float(max(series.count, 1))
    return [(step, counts[step] / whole) for step in sorted(counts)]


def _outline(series: Series, scales: Scales) -> list[tuple[float, float]]:
    """Return the bars' outline, closed along the bottom."""
    ground = float(PANEL_HEIGHT - _BOTTOM)
    points: list[tuple[float, float]] = []
    end: int | None = None
    for step, rate in _bars(series):
        x, far = _x(10 ** (step / _STEPS), scales), _x(10 ** ((step + 1) / _STEPS), scales)
        if end is not None and step != end:
            points.append((_x(10 ** (end / _STEPS), scales), ground))
        if step != end:
            points.append((x, ground))
        y = _y(rate, scales)
        points += [(x, y), (far, y)]
        end = step + 1
    if end is not None:
        points.append((_x(10 ** (end / _STEPS), scales), ground))
    return points


def _x(length_ns: float, scales: Scales) -> float:
    share = (math.log10(length_ns) - scales.first_decade) / (scales.last_decade - scales.first_decade)
    return _LEFT + share * (PANEL_WIDTH - _RIGHT - _LEFT)


def _y(rate: float, scales: Scales) -> float:
    # A little of the scale lies below its lowest power, so that the rarest bar is seen.
    share = (math.log10(rate) - scales.low + 0.3) / (scales.high - scales.low + 0.3)
    bottom = PANEL_HEIGHT - _BOTTOM
    return bottom - share * (bottom - _TOP)


def _length_text(decade: int) -> str:
    if decade < 3:
        return f"{10**decade} ns"
    if decade < 6:
        return f"{10 ** (decade - 3)} us"
    return f"{10 ** (decade - 6)} ms" if decade < 9 else f"{10 ** (decade - 9)} s"


def _rate_text(power: int, scales: Scales) -> str:
    if scales.often == "share":
        return f"{100 * 10.0**power:g} %"
    return f"{10.0**power:g}/s" if power >= -3 else f"1e{power}/s"


def often_words(scales: Scales) -> str:
    """Return what the scale upwards says."""
    return "how often per second" if scales.often == "per second" else "as a share of all"
