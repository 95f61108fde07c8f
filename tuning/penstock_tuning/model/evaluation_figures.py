"""The figures of an evaluation, one per instrument and target, each drawn into a figure that it is given.

    differences   model minus each baseline, with its interval           calibration   what was said, what came
    course        skill of all tested rows so far, and of each block      bursts        skill by how fast ticks came
    weights       sizes of the readout's weights by column group and by feature

the model has the main colour everywhere, and every panel says what a coin or a forecast of no change would get
"""

from __future__ import annotations

from typing import Any, Final

from penstock_client.report_theme import Theme
from penstock_tuning.model.evaluation_text import METRICS

HEIGHT_IN: Final = 9.4
HEIGHT_WITHOUT_WEIGHTS_IN: Final = 6.4
WIDTH_PER_ROW: Final = 0.8
FEATURES_SHOWN: Final = 10
_DASHED: Final = (0, (4, 3))


def draw_target(figure: Any, theme: Theme, target: dict[str, Any], weights: dict[str, Any] | None) -> None:
    """Draw all panels of one target; the weights' only where there are some."""
    panels = figure.subplots(3 if weights else 2, 2)
    _draw_differences(panels[0][0], theme, target)
    _draw_calibration(panels[0][1], theme, target)
    _draw_course(panels[1][0], theme, target)
    _draw_bursts(panels[1][1], theme, target)
    if weights:
        _draw_sizes(panels[2][0], theme, weights["groups"], "Which columns the readout leans on")
        largest = dict(sorted(weights["features"].items(), key=lambda one: -one[1])[:FEATURES_SHOWN])
        _draw_sizes(panels[2][1], theme, largest, "Which features, over all their columns")


def _draw_differences(axes: Any, theme: Theme, target: dict[str, Any]) -> None:
    differences = target.get("differences", {})
    axes.axvline(0.0, color=theme.quiet, lw=1, ls=_DASHED)
    for row, one in enumerate(differences.values()):
        low, high = one["interval"]
        if low is None or high is None:
            continue
        color = theme.up if low > 0.0 else theme.down if high < 0.0 else theme.quiet
        axes.plot([low, high], [row, row], color=color, lw=3, alpha=0.55, solid_capstyle="round")
        axes.plot([one["value"]], [row], "o", color=color, ms=7)
        axes.annotate(
            f"{one['value']:+.4f}",
            (one["value"], row),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set_ylim(max(len(differences), 1) - 0.5, -0.7)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{target['metric'].upper()} of the model minus that of the baseline, 95 %")
    axes.set_title("Model minus baseline")


def _draw_calibration(axes: Any, theme: Theme, target: dict[str, Any]) -> None:
    bins = target.get("calibration", [])
    is_direction = target["metric"] == "auc"
    unit = 1.0 if is_direction else 1e4  # Returns in basis points.
    said = [one["said"] * unit for one in bins]
    came = [one["came"] * unit for one in bins]
    ends = (0.0, 1.0) if is_direction else (min([*said, *came, 0.0]), max([*said, *came, 0.0]))
    axes.plot(ends, ends, color=theme.quiet, lw=1, ls=_DASHED)
    most = max((one["rows"] for one in bins), default=1)
    sizes = [16 + 150 * one["rows"] / most for one in bins]
    axes.scatter(said, came, s=sizes, color=theme.main, alpha=0.75, lw=0)
    axes.set_xlabel("probability of up that was said" if is_direction else "return that was foretold, basis points")
    axes.set_ylabel("share that went up" if is_direction else "return that came, basis points")
    axes.set_title("Can it be taken at its word?")


def _draw_course(axes: Any, theme: Theme, target: dict[str, Any]) -> None:
    course = target["course"]
    axes.axhline(_nothing(target), color=theme.quiet, lw=1, ls=_DASHED)
    for name in _in_order(course):
        values = [float("nan") if one is None else one for one in course[name]]
        shares = [100.0 * (number + 1) / len(values) for number in range(len(values))]
        axes.plot(shares, values, **_look(theme, name), label=name)
    rows = sum(one["rows"] for one in target["blocks"])
    done = 0
    for one in target["blocks"]:
        value = one["skill"].get("model")
        if value is not None and rows:
            axes.plot([100.0 * (done + one["rows"] / 2) / rows], [value], "o", color=theme.main, ms=5, alpha=0.6)
        done += one["rows"]
    axes.set_xlim(0, 100)
    shown = [one for values in course.values() for one in values[len(values) // 6 :] if one is not None]
    dots = [one["skill"]["model"] for one in target["blocks"] if one["skill"].get("model") is not None]
    _limit(axes, [*shown, *dots, _nothing(target)])
    axes.set_xlabel("% of the tested rows, in order of time")
    axes.set_ylabel(METRICS[target["metric"]])
    axes.set_title("Skill so far; dots: the model, block by block")
    axes.legend(ncols=4, loc="lower right", fontsize=7.5, handlelength=1.2, columnspacing=0.9)


def _draw_bursts(axes: Any, theme: Theme, target: dict[str, Any]) -> None:
    axes.axhline(_nothing(target), color=theme.quiet, lw=1, ls=_DASHED)
    ticks: list[str] = []
    seen = [_nothing(target)]
    for window, groups in target["bursts"].items():
        first = len(ticks)
        ticks += [_range_text(one) for one in groups]
        for name in _in_order(target["course"]):
            values = [one["skill"].get(name) for one in groups]
            known = [(first + place, value) for place, value in enumerate(values) if value is not None]
            seen += [value for _, value in known] if name == "model" else []
            axes.plot(*zip(*known, strict=True), marker="o", ms=4, **_look(theme, name)) if known else None
        axes.annotate(
            f"last {window[:-2]} ms", (first - 0.3, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -10),
            textcoords="offset points", fontsize=8.5, color=theme.quiet,
        )  # fmt: skip
    _limit(axes, seen)
    axes.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right", fontsize=7.5)
    axes.set_xlabel("ticks in the last 10 ms and in the last 100 ms")
    axes.set_ylabel(METRICS[target["metric"]])
    axes.set_title("Skill from calm to burst")


def _draw_sizes(axes: Any, theme: Theme, sizes: dict[str, float], title: str) -> None:
    names = list(sizes)
    axes.barh(range(len(names)), list(sizes.values()), color=theme.main, alpha=0.75, height=WIDTH_PER_ROW)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("root of summed (weight x deviation of the column) squared")
    axes.set_title(title)


def _in_order(found: dict[str, Any]) -> list[str]:
    """Return the contenders' names, the model last so that it is drawn on top."""
    return [*(name for name in found if name != "model"), *(name for name in found if name == "model")]


def _look(theme: Theme, name: str) -> dict[str, Any]:
    looks = {
        "model": (theme.main, 2.4, "-"),
        "GB": (theme.second, 1.5, "-"),
        "d2": (theme.up, 1.3, "-"),
        "f": (theme.up, 1.1, "--"),
        "c": (theme.down, 1.1, "-"),
        "QI": (theme.quiet, 1.1, "-"),
        "W0": (theme.faint, 1.6, "-"),
    }
    color, width, style = looks.get(name, (theme.faint, 1.0, "-"))
    return {"color": color, "lw": width, "ls": style}


def _limit(axes: Any, values: list[float]) -> None:
    """Show *values*, with a little room; what is far beyond them may leave the picture."""
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 0.05
    axes.set_ylim(low - room, high + room)


def _nothing(target: dict[str, Any]) -> float:
    return 0.5 if target["metric"] == "auc" else 0.0


def _range_text(group: dict[str, Any]) -> str:
    low, high = group["ticks_min"], group["ticks_max"]
    return f"{low}" if low == high else f"{low}-{high}"
