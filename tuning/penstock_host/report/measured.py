"""The report's measurements: what changed with its intervals, a picture per CPU or stage, and the figures as a table."""

from __future__ import annotations

from typing import Final

from penstock_host.measure.compare import Comparison, Row, Verdict
from penstock_host.measure.drawing import draw_panel, often_words, panels_of, reach_of, scales_of
from penstock_host.measure.result import Measurement, title_of, when
from penstock_host.measure.svg import escaped
from penstock_host.measure.words import (
    change_text,
    host_line,
    microseconds_text,
    slices_line,
    values_text,
    verdict_words,
)

_LOOKS: Final = {Verdict.BETTER: "good", Verdict.WORSE: "bad"}
_COLUMNS: Final = ("p50", "p99", "p99.9", "p99.99", "max")


def comparison_section(comparison: Comparison) -> str:
    """Return two measurements side by side, with the verdict."""
    before, after = comparison.before, comparison.after
    look = _LOOKS.get(comparison.verdict, "")
    legend = (
        f'<p class="legend"><span class="swatch" style="background:var(--before);margin-left:0"></span>'
        f"{escaped(title_of(before))}: {before.seconds:g} s, {escaped(when(before))}"
        f'<span class="swatch" style="background:var(--after)"></span>'
        f"{escaped(title_of(after))}: {after.seconds:g} s, {escaped(when(after))}</p>"
    )
    warnings = "".join(f'<p class="notice careful-line">{escaped(text)}.</p>' for text in comparison.warnings)
    changed = "".join(f"<dt>changed</dt><dd>{escaped(text)}</dd>" for text in comparison.changed)
    return (
        f'<h3>{escaped(before.kind)}: <span class="{look}">{escaped(verdict_words(comparison))}</span></h3>{legend}{warnings}'
        f'<p class="legend">{escaped(slices_line(after))}; to the left of the middle is better</p>'
        + "".join(_figure(row, reach_of(comparison.judged)) for row in comparison.judged)
        + _panels(before, after)
        + _table(before)
        + _table(after)
        + (f"<dl>{changed}</dl>" if changed else "")
    )


def measurement_section(measurement: Measurement) -> str:
    """Return a measurement that stands alone."""
    return (
        f"<h3>{escaped(measurement.kind)}: {escaped(title_of(measurement))}</h3>"
        f'<p class="legend">{measurement.seconds:g} s, {escaped(when(measurement))}</p>'
        + _panels(None, measurement)
        + _table(measurement)
    )


def _figure(row: Row, reach: float) -> str:
    look = _LOOKS.get(row.verdict, "quiet")
    return (
        f'<div class="figure"><div>{escaped(row.figure.words)}<br><small>{escaped(values_text(row))}</small></div>'
        f'<div class="track {look}"><i></i>{_interval(row, reach)}</div>'
        f'<div><b class="{look}">{escaped(row.verdict.value)}</b><br><small>{escaped(change_text(row))}</small></div></div>'
    )


def _interval(row: Row, reach: float) -> str:
    share = row.change_share
    if share is None:
        return ""
    bar = ""
    if row.interval is not None:
        low, high = (_percent(value / abs(row.before), reach) for value in (row.interval.low, row.interval.high))
        bar = f'<u style="left:{low:.1f}%;width:{high - low:.1f}%"></u>'
    return f'{bar}<s style="left:{_percent(share, reach):.1f}%"></s>'


def _percent(share: float, reach: float) -> float:
    """Return where a change lies on a track from 3 to 97 per cent of its width, the middle being no change."""
    return 50 + 47 * max(min(share / reach, 1.0), -1.0)


def _panels(before: Measurement | None, after: Measurement) -> str:
    panels = [panel for panel in panels_of(before, after) if panel.after and (panel.after.counts or panel.before)]
    if not any(one.counts for panel in panels for one in (panel.before, panel.after) if one):
        return ""
    scales = scales_of(panels, after.kind)
    drawn = "".join(f"<div>{draw_panel(panel, scales).rendered()}</div>" for panel in panels)
    words = f"{scales.noun.capitalize()}, and {often_words(scales)}; both scales in tenfold steps."
    return f'<div class="panels">{drawn}</div><p class="legend">{escaped(words)}</p>'


def _table(measurement: Measurement) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("count", *_COLUMNS, "≥50 us", "≥1 ms"))
    rows = []
    for series in measurement.series:
        found = series.figures()
        cells = [f"{found['count']:,}"]
        cells += [
            microseconds_text(found[f"{name}_us"]) if series.counts or name == "max" else "-" for name in _COLUMNS
        ]
        cells += [f"{found['over_50us']:,}", f"{found['over_1000us']:,}"]
        rows.append(f"<tr><td>{escaped(series.name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    notes = " ".join((*measurement.notes, f"{host_line(measurement)}."))
    return (
        f'<div class="scroll"><table><tr><th>{escaped(title_of(measurement))}</th>{head}</tr>{"".join(rows)}</table></div>'
        f'<p class="legend">{escaped(notes)}</p>'
    )
