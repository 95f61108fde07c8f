"""An evaluation as a person reads it in a terminal: one table per instrument and target, the caveat last.

a figure never stands without its baselines, and a difference never without its interval
"""

from __future__ import annotations

from typing import Any, Final

METRICS: Final = {"auc": "AUC of the direction", "r2": "R2 of the return"}
_ROW: Final = "    {:8}{:>9}{:>10}   {:>9}  {:22}{}"


def evaluation_lines(report: dict[str, Any]) -> list[str]:
    """Return *report*, as evaluate or evaluate_model gives it, in lines."""
    lines = []
    for instrument in report["instruments"]:
        size = f"{instrument['ticks']} ticks over {instrument['seconds']:.0f} s"
        lines.append(f"{instrument['name']}: {size}, {len(instrument['features'])} features")
        for name, target in instrument["targets"].items():
            lines += ["", f"  {name}: {METRICS[target['metric']]}, {target['rows']} tested rows", *_table(target)]
        lines.append("")
    lines += [f"  {notice}" for notice in report.get("notices", [])]
    summary = _summary(report["instruments"])
    if summary:
        lines += [
            "  model - it, over all instruments: above 0 / open / below 0 by its interval, and the mean",
            *summary,
            "",
        ]
    return [
        *lines,
        "  QI queue imbalance, unfitted; c ridge on the features; d2 ridge on features, averages and lags; f d2 and random",
        "  units; W0 the model without recurrence; GB gradient boosting on d2. Log-loss of a fair coin 0.693; R2 of no change 0.",
        "  [ ] 95 % of a paired moving-block bootstrap; * does not hold 0.",
        f"  {report['caveat']}",
    ]


def figure(value: float | None, *, signed: bool = False) -> str:
    """Return *value* to four places."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.4f}"


def is_clear(interval: list[float | None]) -> bool:
    """Whether *interval* does not hold 0."""
    low, high = interval
    return low is not None and high is not None and (low > 0.0 or high < 0.0)


def _table(target: dict[str, Any]) -> list[str]:
    differences = target.get("differences", {})
    lines = [_ROW.format("", "skill", "log-loss", "model - it" if differences else "", "", "seeds").rstrip()]
    names = ["model", *(name for name in target["skill"] if name != "model")]
    for name in (one for one in names if one in target["skill"]):
        skill, difference = target["skill"][name], differences.get(name)
        low, high = (difference or skill)["interval"]
        between = f"[{figure(low, signed=bool(difference))}, {figure(high, signed=bool(difference))}]"
        seeds = "  ".join(figure(one) for one in skill.get("seeds", {}).values())
        lines.append(
            _ROW.format(
                name,
                figure(skill["value"]),
                figure(skill.get("log_loss")),
                figure(difference["value"], signed=True) if difference else "",
                between + (" *" if difference and is_clear(difference["interval"]) else ""),
                seeds,
            ).rstrip()
        )
    return lines


def _summary(instruments: list[dict[str, Any]]) -> list[str]:
    """Return how often the model was clearly better or worse than each baseline, target by target."""
    if len(instruments) < 2:
        return []
    lines = []
    for name in instruments[0]["targets"]:
        found = []
        differences = [one["targets"][name].get("differences", {}) for one in instruments]
        for other in differences[0]:
            values = [one[other] for one in differences]
            above = sum(is_clear(one["interval"]) and one["value"] > 0.0 for one in values)
            below = sum(is_clear(one["interval"]) and one["value"] < 0.0 for one in values)
            mean = sum(one["value"] for one in values) / len(values)
            found.append(f"{other} {above}/{len(values) - above - below}/{below} {mean:+.4f}")
        if found:
            lines.append(f"    {name:10}{'   '.join(found)}")
    return lines
