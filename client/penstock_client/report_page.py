"""The report as one file: an HTML page with everything in it, or a PNG of the figures.

The page loads nothing from anywhere, and looks right by day and by night: each figure is there in both.
"""

from __future__ import annotations

import base64
import html
import io
import os
import string
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

from penstock_client.errors import LocalUsageError
from penstock_client.extras import require
from penstock_client.instruments import Pace
from penstock_client.machine import machine_line
from penstock_client.replay import ReplayRun
from penstock_client.replay_summary import hash_sentences
from penstock_client.report_figures import WIDTH_IN, figures_of
from penstock_client.report_theme import DAY, NIGHT, Theme, settings_of
from penstock_client.wording import microseconds_text, share_text

SUFFIXES: Final = (".html", ".png")
_DOTS_PER_INCH: Final = 130


def check_report_name(path: str) -> None:
    """Refuse a name that can't be written, and a missing extra, before the replay.

    Raises:
        LocalUsageError: another suffix, or a folder that isn't there.
        MissingExtraError: penstock[report] is not installed.
    """
    if not path.endswith(SUFFIXES):
        raise LocalUsageError(f"--report must end in one of {', '.join(SUFFIXES)}: report={path!r}")
    if not Path(path).resolve().parent.is_dir():
        raise LocalUsageError(f"--report must be in a folder that is there: report={path!r}; make the folder first")
    require("matplotlib", extra="report", purpose="drawing the report")


def write_report(path: str, run: ReplayRun, summary: dict[str, Any]) -> None:
    """Write the report of *run* to *path*, all or nothing.

    Raises:
        LocalUsageError: the file can't be written.
        MissingExtraError: penstock[report] is not installed.
    """
    data = page(run, summary).encode() if path.endswith(".html") else picture(run, summary)
    scratch = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise LocalUsageError(f"--report can't be written: report={path!r}: {exc.strerror}") from exc


def page(run: ReplayRun, summary: dict[str, Any]) -> str:
    """Return the HTML page."""
    figures = "\n".join(
        f"<figure>{both_looks(draw, height, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, height, draw in figures_of(run)
    )
    template = string.Template(
        resources.files("penstock_client").joinpath("report_page.html").read_text(encoding="utf-8")
    )
    return template.substitute(
        title=html.escape(_title(summary)),
        subtitle=html.escape(_subtitle(summary)),
        notices="".join(f'<p class="notice">{html.escape(text)}</p>' for text in _notices(summary)),
        tiles="".join(_tile(*tile) for tile in _tiles(summary)),
        figures=figures or '<p class="notice">No tick was answered: there is nothing to draw.</p>',
        stages=_stages(summary),
        facts="".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(summary)),
    )


def picture(run: ReplayRun, summary: dict[str, Any]) -> bytes:
    """Return all figures below each other as a PNG."""
    matplotlib = require("matplotlib", extra="report", purpose="drawing the report")
    figure_of = require("matplotlib.figure", extra="report", purpose="drawing the report").Figure
    parts = figures_of(run)
    head_in = 1.1
    with matplotlib.rc_context(settings_of(DAY)):
        heights = [head_in, *(height for _, height, _ in parts)]
        figure = figure_of(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
        # One row more than figures: the head; a lone row would come back without a list around it.
        rows = figure.subfigures(len(heights) + 1, 1, height_ratios=[*heights, 0.01])
        rows[0].text(0.012, 0.72, _title(summary), fontsize=15, fontweight="bold", va="center")
        rows[0].text(0.012, 0.42, _subtitle(summary), fontsize=9.5, color=DAY.quiet, va="center")
        rows[0].text(0.012, 0.2, _figures_line(summary), fontsize=9.5, color=DAY.text, va="center")
        for row, (_, _, draw) in zip(rows[1:], parts, strict=False):
            draw(row, DAY)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": "penstock"})
    return buffer.getvalue()


def page_style() -> str:
    """Return the page's style sheet, for other pages of ours to look the same."""
    text = resources.files("penstock_client").joinpath("report_page.html").read_text(encoding="utf-8")
    return text.partition("<style>")[2].partition("</style>")[0]


def both_looks(draw: Callable[[Any, Theme], None], height_in: float, caption: str) -> str:
    """Return a figure as HTML, drawn for the day and for the night.

    Args:
        draw: draws into the figure that it is given.
        height_in: of the figure.
        caption: what it shows, in words.
    """
    day, night = (_svg(draw, height_in, theme) for theme in (DAY, NIGHT))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{night}">'
        f'<img src="{day}" alt="{html.escape(caption)}"></picture>'
    )


def _svg(draw: Callable[[Any, Theme], None], height_in: float, theme: Theme) -> str:
    matplotlib = require("matplotlib", extra="report", purpose="drawing the report")
    figure_of = require("matplotlib.figure", extra="report", purpose="drawing the report").Figure
    with matplotlib.rc_context(settings_of(theme)):
        figure = figure_of(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _title(summary: dict[str, Any]) -> str:
    symbols = [one["symbol"] for one in summary["instruments"]]
    named = ", ".join(symbols[:4]) + (f" and {len(symbols) - 4} more" if len(symbols) > 4 else "")
    return f"Replay of {named}"


def _subtitle(summary: dict[str, Any]) -> str:
    at = "at full speed" if summary["speed"] == "max" else f"at {summary['speed']:g}x the market's speed"
    files = ", ".join(Path(file).name for file in summary["files"])
    return f"{summary['ticks']:,} ticks of {files} {at}, {summary['seconds']:.1f} s"


def _figures_line(summary: dict[str, Any]) -> str:
    latency = "   ".join(f"{name} {microseconds_text(summary[f'{name}_us'])}" for name in ("p50", "p99", "max"))
    in_time = f"   {share_text(summary['share_within_5ms'])} within 5 ms" if _budgets_apply(summary) else ""
    return f"{latency}{in_time}"


def _budgets_apply(summary: dict[str, Any]) -> bool:
    """Return whether the session had the market's pace: beyond it ticks queue by design."""
    return bool(summary["pace"] == Pace.REALTIME.name)


def _notices(summary: dict[str, Any]) -> list[str]:
    found = []
    if summary["failure"]:
        found.append(f"The replay ended early: {summary['failure']}")
    if summary["interrupted"]:
        found.append(f"Interrupted: {summary['ticks']:,} of {summary['ticks_planned']:,} ticks were sent.")
    if summary["latency_from"] == "sent":
        found.append(
            "At full speed latency is mostly queueing: it says how far ahead the sender ran, not how fast a tick is."
        )
    found += [f"The prediction hash is {sentence}." for sentence in hash_sentences(summary)]
    if summary["model"]["demonstration"]:
        found.append(summary["model"]["notice"] or "This model is a demonstration: never trade on it.")
    return found


def _tiles(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (label, value, whether it is good)."""
    good = {True: "good", False: "bad"}
    within = summary["share_within_5ms"]
    paced = _budgets_apply(summary)
    in_time = [("within 5 ms", share_text(within), good[within >= 0.999])] if paced else []
    return [
        ("median latency", microseconds_text(summary["p50_us"]), ""),
        ("p99", microseconds_text(summary["p99_us"]), good[summary["p99_us"] <= 5000] if paced else ""),
        ("p99.9", microseconds_text(summary["p999_us"]), ""),
        ("slowest", microseconds_text(summary["max_us"]), ""),
        *in_time,
        ("predictions", f"{summary['predictions']:,}", ""),
        ("per second", f"{summary['predictions_per_s']:,.0f}", ""),
        ("lost", f"{summary['lost']:,}", good[summary["lost"] == 0]),
    ]


def _tile(label: str, value: str, mark: str) -> str:
    return f'<div class="tile {mark}"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'


def _stages(summary: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{microseconds_text(stage[key])}</td>" for key in ("p50", "p99", "max"))
        + "</tr>"
        for name, stage in summary["stages_us"].items()
    )
    head = "<tr><th>stage inside the daemon</th><th>p50</th><th>p99</th><th>max</th></tr>"
    return f"<table>{head}{rows}</table>" if rows else ""


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    model = summary["model"]
    behind = ", ".join(f"{name} {microseconds_text(value)}" for name, value in summary["sender_behind_us"].items())
    return [
        ("prediction hash", summary["prediction_hash"]),
        ("model", f"{model['name']} {model['version']}, sha256 {model['content_hash']}"),
        ("horizons", ", ".join(model["horizons"])),
        ("files", ", ".join(summary["files"])),
        ("daemon", f"penstockd {summary['daemon_version']} at {summary['address']}"),
        ("answers", f"{summary['predictions']:,} predictions, {summary['errors']:,} errors, {summary['lost']:,} lost"),
        ("flags", ", ".join(f"{name} {count:,}" for name, count in summary["flags"].items()) or "none"),
        *([("sender behind", behind)] if summary["latency_from"] == "scheduled" else []),
        ("machine", machine_line(summary["machine"])),
    ]
