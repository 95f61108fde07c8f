"""An evaluation as one HTML page with everything in it: tables, and a figure per instrument and target.

The page loads nothing from anywhere, looks right by day and by night, and says first that no figure includes costs.
"""

from __future__ import annotations

import html
import string
from importlib import resources
from typing import Any

from penstock_client.report_page import both_looks, page_style
from penstock_tuning.model.evaluation_figures import HEIGHT_IN, HEIGHT_WITHOUT_WEIGHTS_IN, draw_target
from penstock_tuning.model.evaluation_text import METRICS, figure, is_clear

_CAPTION = (
    "Above: differences from each baseline on the same bootstrap draws, and whether what was said came true (larger dots "
    "are more rows). Middle: skill in order of time, and from calm rows to bursts. Below: what the last readout is made of."
)


def page(report: dict[str, Any]) -> str:
    """Return the HTML page of *report*, as evaluate or evaluate_model gives it.

    Raises:
        MissingExtraError: penstock[report] is not installed.
    """
    template = resources.files("penstock_tuning.model").joinpath("evaluation_page.html").read_text(encoding="utf-8")
    names = ", ".join(one["name"] for one in report["instruments"])
    notices = [report["caveat"], *report.get("notices", [])]
    return string.Template(template).substitute(
        title=html.escape(f"Evaluation of {_model_text(report)}"),
        subtitle=html.escape(f"{names}: {report['protocol']['text']}."),
        style=page_style(),
        notices="".join(f'<p class="notice">{html.escape(text)}</p>' for text in notices),
        instruments="\n".join(_instrument(one) for one in report["instruments"]),
        facts="".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(report)),
    )


def _model_text(report: dict[str, Any]) -> str:
    if "model" in report:
        return f"{report['model']['name']} {report['model']['version']}".strip()
    model = report["settings"]["model"]
    return f"{model['units']} {model.get('topology', 'cyclic')} units"


def _instrument(instrument: dict[str, Any]) -> str:
    parts = [
        f"<h2>{html.escape(instrument['name'])}</h2>",
        f'<p class="subtitle">{instrument["ticks"]:,} ticks over {instrument["seconds"]:,.0f} s</p>',
    ]
    for name, target in instrument["targets"].items():
        weights = instrument.get("weights", {}).get(name)
        caption = f"{instrument['name']}, {name}. {_CAPTION}"
        picture = both_looks(
            lambda drawn, theme, target=target, weights=weights: draw_target(drawn, theme, target, weights),  # type: ignore[misc]
            HEIGHT_IN if weights else HEIGHT_WITHOUT_WEIGHTS_IN,
            caption,
        )
        parts += [
            f"<h3>{html.escape(name)}: {METRICS[target['metric']]}, {target['rows']:,} tested rows</h3>",
            _table(target),
            f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>",
        ]
    return "\n".join(parts)


def _table(target: dict[str, Any]) -> str:
    head = (
        "<tr><th></th><th>skill</th><th>95 %</th><th>seeds</th><th>log-loss</th><th>model - it</th><th>95 %</th></tr>"
    )
    differences = target.get("differences", {})
    rows = []
    for name in ("model", *(one for one in target["skill"] if one != "model")):
        if name not in target["skill"]:
            continue
        skill, difference = target["skill"][name], differences.get(name)
        cells = [
            f"<td>{html.escape(name)}</td>",
            f"<td>{figure(skill['value'])}</td>",
            f"<td>{_between(skill['interval'])}</td>",
            f"<td>{' '.join(figure(one) for one in skill.get('seeds', {}).values())}</td>",
            f"<td>{figure(skill.get('log_loss'))}</td>",
        ]
        if difference:
            mark = (
                ("clear-above" if difference["value"] > 0 else "clear-below")
                if is_clear(difference["interval"])
                else ""
            )
            cells += [
                f'<td class="{mark}">{figure(difference["value"], signed=True)}</td>',
                f"<td>{_between(difference['interval'], signed=True)}</td>",
            ]
        else:
            cells += ["<td></td>", "<td></td>"]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{head}{''.join(rows)}</table>"


def _between(interval: list[float | None], *, signed: bool = False) -> str:
    return f"{figure(interval[0], signed=signed)} to {figure(interval[1], signed=signed)}"


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("QI", "queue imbalance of the tick, unfitted"),
        ("c", "ridge on the features of the tick"),
        ("d2", "ridge on the features, their averages over 2, 5, 10, 30 events and their last 5 values"),
        ("f", "d2 with 512 random tanh units of its columns"),
        ("W0", "the model itself with recurrence 0"),
        ("GB", "histogram gradient boosting on the columns of d2, fitted anew for each block"),
        ("protocol", report["protocol"]["text"]),
    ]
    if "settings" in report:
        settings = report["settings"]
        facts.append(("model", ", ".join(f"{name} {value}" for name, value in settings["model"].items())))
        facts.append(("seeds", ", ".join(str(one) for one in settings["seeds"])))
    else:
        facts.append(("model", f"{_model_text(report)}, sha256 {report['model']['content_hash']}"))
    facts += [("data", f"{one['name']}: {one['ticks']:,} ticks, sha256 {one['sha256']}") for one in report["data"]]
    return facts
