"""The report's figures, each drawn into a (sub)figure that it is given: latency, its course, predictions, skill.

Every axis has a unit, the budget stands in every picture of latency, and no line has more points than a screen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PROBABILITY_ONE
from penstock_client.replay import ReplayRun
from penstock_client.replay_schedule import MAX_SPEED
from penstock_client.replay_summary import BUDGET_NS, percentile_ns
from penstock_client.report_skill import Skill, measure_skill, mids
from penstock_client.report_theme import Theme
from penstock_client.wording import microseconds_text, share_text

COLUMNS: Final = 160  # Of a course over time.
COLUMN_TICKS_MIN: Final = 20  # On average: a p99 of a handful is noise.
POINTS_MAX: Final = 1500
BURST_NS: Final = 10_000_000  # What a burst rate is counted over.
CLOSE_UP_TICKS: Final = 2500  # Of the predictions' close-up.
WIDTH_IN: Final = 9.6

_MARKED: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_NINES: Final = {
    "0 %": 0.0,
    "50 %": 0.5,
    "90 %": 0.9,
    "99 %": 0.99,
    "99.9 %": 0.999,
    "99.99 %": 0.9999,
    "99.999 %": 0.99999,
}


def figures_of(run: ReplayRun) -> list[tuple[str, float, Callable[[Any, Theme], None]]]:
    """Return what can be drawn of *run*: a caption, a height in inches, and a function that draws it."""
    if not run.answered:
        return []
    found: list[tuple[str, float, Callable[[Any, Theme], None]]] = [
        (
            "How many predictions were there in time. The vertical axis counts nines: each step up is ten times rarer.",
            3.6,
            lambda figure, theme: draw_distribution(figure, theme, run),
        ),
        (
            "The same latencies in the order of the market, above how fast ticks came.",
            4.6,
            lambda figure, theme: draw_course(figure, theme, run),
        ),
    ]
    if run.predicted.any():
        found.append(
            (
                "The busiest moments of the busiest instrument: what was predicted, under the mid that followed.",
                4.4,
                lambda figure, theme: draw_predictions(figure, theme, run),
            )
        )
    skill = measure_skill(run)
    if skill is not None:
        found.append(
            (
                "Dots on the diagonal mean that a probability can be taken at its word; larger dots are more ticks.",
                3.6,
                lambda figure, theme: draw_skill(figure, theme, skill),
            )
        )
    return found


def draw_distribution(figure: Any, theme: Theme, run: ReplayRun) -> None:
    """Draw the latency's cumulative distribution on a scale of nines."""
    latencies_ns = np.sort(run.latencies_ns)
    count = len(latencies_ns)
    ranks = _spread_ranks(count)
    latency_ms = np.maximum(latencies_ns[ranks], 1) / 1e6
    axes = figure.add_subplot()
    axes.plot(latency_ms, _nines((ranks + 0.5) / count), color=theme.main, drawstyle="steps-post")
    axes.axvspan(BUDGET_NS / 1e6, max(latency_ms[-1], BUDGET_NS / 1e6) * 3, color=theme.budget, alpha=0.07, lw=0)
    axes.axvline(BUDGET_NS / 1e6, color=theme.budget, lw=1.4)
    axes.set_xscale("log")
    axes.set_xlim(min(latency_ms[0], 1) * 0.8, max(latency_ms[-1], BUDGET_NS / 1e6) * 1.6)
    top = _nines(1 - 0.5 / count) + 0.15
    for label, share in _MARKED.items():
        value_ms = max(percentile_ns(latencies_ns, share), 1) / 1e6
        if (1 - share) * count < 1:
            continue
        axes.plot([value_ms], [_nines(share)], "o", color=theme.main, ms=5)
        axes.annotate(
            f"{label}  {microseconds_text(value_ms * 1e3)}",
            (value_ms, _nines(share)),
            xytext=(-8, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=theme.text,
            bbox=_behind_text(theme),
        )
    within = int(np.searchsorted(latencies_ns, BUDGET_NS, side="right")) / max(run.sent, 1)
    axes.annotate(
        f"budget 5 ms\n{share_text(within)} within",
        (BUDGET_NS / 1e6, 0),
        xytext=(6, 6),
        textcoords="offset points",
        fontsize=8.5,
        color=theme.budget,
    )
    labels = {text: share for text, share in _NINES.items() if _nines(share) <= top}
    axes.set_yticks([float(_nines(share)) for share in labels.values()], list(labels))
    axes.set_ylim(0, top)
    _duration_axis(axes.xaxis)
    axes.set_xlabel(f"from {_since(run)} until the prediction was here")
    axes.set_ylabel("share of ticks")
    axes.set_title("Latency")


def draw_course(figure: Any, theme: Theme, run: ReplayRun) -> None:
    """Draw latency over market time, with the rate of ticks under it."""
    (answered,) = np.nonzero(run.received_ns[: run.sent] > 0)
    market_s = _market_s(run)
    latency_ms = np.maximum(run.received_ns[answered] - run.scheduled_ns[answered], 1) / 1e6
    end_s = max(float(market_s[-1]), 1e-6)
    edges = np.linspace(0, end_s, min(COLUMNS, max(len(answered) // COLUMN_TICKS_MIN, 1)) + 1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
    columns = np.clip(np.searchsorted(edges, market_s[answered], side="right") - 1, 0, len(edges) - 2)
    order = np.argsort(columns, kind="stable")
    present, starts = np.unique(columns[order], return_index=True)
    parts = np.split(np.asarray(latency_ms)[order], starts[1:])
    centres = (edges[present] + edges[present + 1]) / 2
    shown = {
        label: np.array([np.quantile(part, share) for part in parts]) for label, share in (("p50", 0.5), ("p99", 0.99))
    }
    worst = np.array([part.max() for part in parts])
    above.plot(centres, worst, ".", ms=3.5, color=theme.faint, label="slowest")
    above.plot(centres, shown["p99"], color=theme.second, lw=1.1, label="p99")
    above.plot(centres, shown["p50"], color=theme.main, label="p50")
    above.axhline(BUDGET_NS / 1e6, color=theme.budget, lw=1.2)
    above.annotate(
        "budget 5 ms", (1, BUDGET_NS / 1e6), xycoords=("axes fraction", "data"), xytext=(-4, 3),
        textcoords="offset points", ha="right", fontsize=8.5, color=theme.budget, bbox=_behind_text(theme),
    )  # fmt: skip
    above.set_yscale("log")
    above.set_ylim(min(float(shown["p50"].min()), 1) * 0.7, max(float(worst.max()), BUDGET_NS / 1e6) * 2.2)
    _duration_axis(above.yaxis)
    above.set_ylabel("latency")
    above.set_title("Latency as the market went")
    _legend_above(above, markerscale=2)
    _draw_rate(below, theme, market_s, edges)
    below.set_xlabel("seconds of market time since the first tick")
    below.xaxis.set_major_formatter(_plain_number)
    below.set_xlim(0, end_s)


def draw_predictions(figure: Any, theme: Theme, run: ReplayRun) -> None:
    """Draw the mid of the busiest instrument over its busiest stretch, and what was predicted under it."""
    ticks = run.plan.ticks[: run.sent]
    ids, counts = np.unique(ticks["instrument_id"], return_counts=True)
    busiest = int(ids[np.argmax(counts)])
    symbol = next((one.symbol for one in run.plan.instruments if one.instrument_id == busiest), str(busiest))
    (of_it,) = np.nonzero((ticks["instrument_id"] == busiest) & run.predicted[: run.sent])
    market_s = _market_s(run)
    of_it = of_it[_close_up(market_s[of_it])]
    seconds, mid = market_s[of_it], mids(ticks[of_it])
    forecast = run.predictions["forecasts"][of_it, 0]
    lean = (forecast["probability_up"].astype(np.float64) - forecast["probability_down"]) / PROBABILITY_ONE
    step = max(len(of_it) // POINTS_MAX, 1)
    seconds, mid, lean = seconds[::step], mid[::step], lean[::step]
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.3))
    above.plot(seconds, mid, color=theme.text, lw=1.2, drawstyle="steps-post")
    above.set_ylabel("mid, quote currency")
    above.yaxis.set_major_formatter(_plain_number)
    horizon = run.welcome.horizons[0].name if run.welcome.horizons else "first horizon"
    above.set_title(f"{symbol}: predictions against the mid")
    below.fill_between(seconds, 0, lean, where=lean >= 0, color=theme.up, alpha=0.75, lw=0, step="post", label="up")
    below.fill_between(seconds, 0, lean, where=lean <= 0, color=theme.down, alpha=0.75, lw=0, step="post", label="down")
    below.axhline(0, color=theme.quiet, lw=0.8)
    limit = min(max(float(np.abs(lean).max(initial=0)) * 1.15, 0.05), 1)
    below.set_ylim(-limit, limit)
    below.set_ylabel(f"P(up) - P(down)\n{horizon}")
    below.set_xlabel("seconds of market time since the first tick")
    below.xaxis.set_major_formatter(_plain_number)
    _legend_above(below)
    if len(seconds) > 1:
        below.set_xlim(seconds[0], max(seconds[-1], seconds[0] + 1e-6))


def draw_skill(figure: Any, theme: Theme, skill: Skill) -> None:
    """Draw how often it went up where a probability of up was said."""
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    left.plot([0, 1], [0, 1], color=theme.quiet, lw=1, ls=(0, (4, 3)))
    there = skill.counts > 0
    sizes = 18 + 260 * skill.counts[there] / skill.counts.max()
    left.scatter(skill.said_up[there], skill.was_up[there], s=sizes, color=theme.main, alpha=0.75, lw=0)
    left.set_xlim(0, 1)
    left.set_ylim(0, 1)
    left.set_xlabel("probability of up that was said, given a move")
    left.set_ylabel("share that went up")
    left.set_title("Can the probability be taken at its word?")
    names = ("this model", "queue imbalance,\nnothing fitted")
    values = (skill.auc, skill.baseline_auc)
    right.axvline(0.5, color=theme.quiet, lw=1, ls=(0, (4, 3)))
    right.annotate("a coin", (0.5, 1.62), xytext=(5, 0), textcoords="offset points", fontsize=8.5, color=theme.quiet)
    for row, (value, color) in enumerate(zip(values, (theme.main, theme.second), strict=True)):
        right.plot([0.5, value], [row, row], color=color, lw=3, alpha=0.5, solid_capstyle="round")
        right.plot([value], [row], "o", color=color, ms=9)
        right.annotate(
            f"{value:.3f}", (value, row), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9.5
        )
    right.set_yticks(range(2), names)
    right.set_ylim(1.75, -0.6)
    right.set_xlim(min(0.45, *values) - 0.05, max(0.6, *values) + 0.05)
    right.grid(visible=False, axis="y")
    right.set_xlabel(f"AUC of the next move's direction, {skill.scored:,} ticks")
    right.set_title("Does it know where the mid goes?")


def _draw_rate(axes: Any, theme: Theme, market_s: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    """Draw ticks per second: the mean of each column, and the fastest burst in it."""
    width_s = edges[1] - edges[0]
    mean = np.histogram(market_s, edges)[0] / width_s
    burst_s = BURST_NS / 1e9
    bins, counts = np.unique((market_s / burst_s).astype(np.int64), return_counts=True)  # Years may lie between two.
    at = np.clip(np.searchsorted(edges, bins * burst_s, side="right") - 1, 0, len(mean) - 1)
    peak = np.zeros(len(mean))
    np.maximum.at(peak, at, counts / burst_s)
    axes.fill_between(edges, np.append(mean, mean[-1]), step="post", color=theme.main, alpha=0.35, lw=0, label="mean")
    axes.plot(edges[:-1] + width_s / 2, np.maximum(peak, 1), color=theme.second, lw=0.9, label="fastest 10 ms")
    axes.set_yscale("symlog", linthresh=100)
    axes.set_ylim(0, max(float(peak.max()), float(mean.max()), 100) * 3)
    axes.yaxis.set_major_formatter(_plain_number)
    axes.set_ylabel("ticks/s")
    _legend_above(axes)


def _market_s(run: ReplayRun) -> NDArray[np.float64]:
    """Return the market time of each sent tick since the first, shape (sent,), in seconds, ascending."""
    times = np.maximum.accumulate(run.plan.ticks["ts_recv"][: run.sent].astype(np.int64))
    return np.asarray((times - times[0]) / 1e9)


def _close_up(seconds: NDArray[np.float64]) -> slice:
    """Return the CLOSE_UP_TICKS ticks that came in the shortest time."""
    if len(seconds) <= CLOSE_UP_TICKS:
        return slice(0, len(seconds))
    start = int(np.argmin(seconds[CLOSE_UP_TICKS - 1 :] - seconds[: len(seconds) - CLOSE_UP_TICKS + 1]))
    return slice(start, start + CLOSE_UP_TICKS)


def _spread_ranks(count: int) -> NDArray[np.int64]:
    """Return ranks to draw, ascending: all of a short list, else close together towards the tail."""
    if count <= POINTS_MAX:
        return np.arange(count)
    even = np.linspace(0, count - 1, POINTS_MAX // 2)
    tail = count - np.geomspace(count, 1, POINTS_MAX // 2)
    return np.unique(np.concatenate([even, tail]).astype(np.int64))


def _nines(share: Any) -> Any:
    return -np.log10(1 - np.asarray(share))


def _behind_text(theme: Theme) -> dict[str, Any]:
    """Return a box that keeps lines out of a text."""
    return {"facecolor": theme.background, "edgecolor": "none", "alpha": 0.8, "pad": 1}


def _legend_above(axes: Any, **settings: Any) -> None:
    """Put the legend over the right end of the axes, out of the data's way."""
    axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0, **settings)


def _since(run: ReplayRun) -> str:
    return "when the session took a tick" if run.plan.speed == MAX_SPEED else "when a tick was due"


def _duration_axis(axis: Any) -> None:
    """Label a logarithmic axis of milliseconds with units that suit each value."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high / low < 300:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _position: _short_duration(value)))
    axis.set_minor_formatter(NullFormatter())


def _plain_number(value: float, _position: int) -> str:
    """Return a tick's label without an exponent or an offset."""
    return f"{value:,.10g}"


def _short_duration(milliseconds: float) -> str:
    if milliseconds < 1:
        return f"{milliseconds * 1e3:g} µs"
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1e3:g} s"
