"""The report: how a host stands, what would be done, what was done, and whether it helped, as one page of HTML.

The page loads nothing from anywhere, and every word that came from the host (a command line, a label, a file's text)
is escaped, so that it can be opened, printed and sent as it is.

    what needs a hand comes first; what is fine comes last and small
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock_host.measure.compare import Comparison, compare, mend_of
from penstock_host.measure.compare import Verdict as Judged
from penstock_host.measure.result import Measurement, MeasurementError
from penstock_host.measure.runs import by_label
from penstock_host.measure.svg import escaped
from penstock_host.measure.words import verdict_words
from penstock_host.report.measured import comparison_section, measurement_section
from penstock_host.report.style import STYLE

_WORST_FIRST: Final = (
    "CONFLICT",
    "DRIFT",
    "PENDING",
    "NEEDS_REBOOT",
    "UNREADABLE",
    "REPORT_ONLY",
    "OK",
    "UNSUPPORTED",
)
_LOOKS: Final = {"CONFLICT": "bad", "DRIFT": "bad", "PENDING": "careful", "NEEDS_REBOOT": "careful", "OK": "good"}
_SEVERITIES: Final = ("must", "should", "info")
_SMALL: Final = frozenset({"OK", "UNSUPPORTED"})


@dataclass(frozen=True)
class JournalRow:
    """One value that was changed: for which item, where, from what to what."""

    item: str
    target: str
    original: str
    written: str


@dataclass(frozen=True)
class Report:
    """What stands in the report.

    Attributes:
        node: the host's name.
        made: when, for people.
        facts: name to value, of the host.
        picture: of its CPUs, as text.
        items: of `check --json`.
        plan: the shell that `plan` prints.
        journal: what was applied since the boot and not put back.
        measurements: oldest first; the first of each kind is compared with the others of it.
    """

    node: str
    made: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    picture: str = ""
    items: Sequence[Mapping[str, Any]] = ()
    plan: str = ""
    journal: Sequence[JournalRow] = ()
    measurements: Sequence[Measurement] = ()


def rendered(report: Report) -> str:
    """Return the page."""
    comparisons, alone = compared(report.measurements)
    parts = [
        f"<h1>{escaped(report.node)}</h1>",
        f'<p class="subtitle">Host tuning for penstock, {escaped(report.made)}</p>',
        f'<div class="tiles">{"".join(_tiles(report, comparisons))}</div>',
        *_notices(comparisons),
        *_measured(comparisons, alone),
        *_checked(report.items),
        *_planned(report.plan),
        *_journal(report.journal),
        *_host(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escaped(report.node)}: host tuning</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def compared(measurements: Sequence[Measurement]) -> tuple[list[Comparison], list[Measurement]]:
    """Return the first of each kind against every later one, and those that nothing can be compared with."""
    comparisons: list[Comparison] = []
    alone: list[Measurement] = []
    first: dict[str, Measurement] = {}
    for measurement in _sides(measurements):
        earlier = first.setdefault(measurement.kind, measurement)
        if earlier is measurement:
            continue
        try:
            comparisons.append(compare(earlier, measurement))
        except MeasurementError:  # No series in common: shown by itself.
            alone.append(measurement)
    used = {id(comparison.before) for comparison in comparisons}
    return comparisons, [*(one for one in first.values() if id(one) not in used), *alone]


def _sides(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the runs of one kind and label as one, where that makes sense."""
    kinds = dict.fromkeys(measurement.kind for measurement in measurements)
    sides: list[Measurement] = []
    for kind in kinds:
        alike = [measurement for measurement in measurements if measurement.kind == kind]
        try:
            sides += by_label(alike)
        except MeasurementError:  # Of different settings: each by itself.
            sides += alike
    return sides


def _tiles(report: Report, comparisons: Sequence[Comparison]) -> list[str]:
    tiles = []
    for comparison in comparisons[-2:]:
        look = {Judged.BETTER: "good", Judged.WORSE: "bad"}.get(comparison.verdict, "")
        tiles.append(_tile(verdict_words(comparison), f"{comparison.before.kind}, before and after", look))
    for severity in _SEVERITIES[:2] if report.items else ():
        wrong = sum(
            item["status"] not in _SMALL and item["status"] != "REPORT_ONLY"
            for item in report.items
            if item["severity"] == severity
        )
        whole = sum(item["severity"] == severity for item in report.items)
        tiles.append(_tile(f"{wrong} of {whole}", f"{severity} items not as wanted", "bad" if wrong else "good"))
    tiles.append(_tile(str(len(report.journal)), "values changed, that revert puts back", ""))
    return tiles


def _tile(value: str, label: str, look: str) -> str:
    return f'<div class="tile"><b class="{look}">{escaped(value)}</b><span>{escaped(label)}</span></div>'


def _notices(comparisons: Sequence[Comparison]) -> list[str]:
    return [f'<p class="notice">{_coded(mend_of(one).capitalize())}.</p>' for one in comparisons if one.worse]


def _measured(comparisons: Sequence[Comparison], alone: Sequence[Measurement]) -> list[str]:
    if not comparisons and not alone:
        advice = (
            "None yet. <code>penstock-tune measure jitter --hot --label before</code> before tuning, and the same with "
            "<code>--label after</code> after it, say whether it helped."
        )
        return ["<h2>Measurements</h2>", f'<p class="quiet">{advice}</p>']
    return [
        "<h2>Did it help?</h2>" if comparisons else "<h2>Measurements</h2>",
        *(comparison_section(one) for one in comparisons),
        *(measurement_section(one) for one in alone),
    ]


def _checked(items: Sequence[Mapping[str, Any]]) -> list[str]:
    if not items:
        return []
    ordered = sorted(
        items, key=lambda item: (_place(item["status"], _WORST_FIRST), _place(item["severity"], _SEVERITIES))
    )
    large = [item for item in ordered if item["status"] not in _SMALL]
    small = [item for item in ordered if item["status"] in _SMALL]
    parts = ["<h2>How the host stands</h2>", *(_item(item) for item in large)]
    for status, title in (("OK", "As wanted"), ("UNSUPPORTED", "Not on this host")):
        names = [
            f'<div><span class="{_LOOKS.get(status, "quiet")}">{escaped(item["id"])}</span> {escaped(item["title"])}'
            + (f'<br><span class="quiet">{escaped(_short(item["found"]))}</span>' if status == "OK" else "")
            + "</div>"
            for item in small
            if item["status"] == status
        ]
        if names:
            parts.append(f'<h3>{title} ({len(names)})</h3><div class="few">{"".join(names)}</div>')
    return parts


def _item(item: Mapping[str, Any]) -> str:
    status = str(item["status"])
    rows = [("want", item["wanted"]), ("was", item["found"]), ("mend", item["mend"])]
    facts = "".join(f"<dt>{name}</dt><dd>{escaped(_few(str(value)))}</dd>" for name, value in rows if value)
    return (
        f'<div class="item"><div class="status {_LOOKS.get(status, "quiet")}">{escaped(status.replace("_", " "))}<br>'
        f'<span class="quiet">{escaped(item["severity"])}</span></div>'
        f'<div class="what"><b>{escaped(item["id"])}</b> {escaped(item["title"])}<dl>{facts}</dl></div></div>'
    )


def _coded(text: str) -> str:
    """Return *text* escaped, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def _few(text: str, most: int = 3) -> str:
    """Return the first of what may be a long list; the plan has every line."""
    parts = text.split("; ")
    return text if len(parts) <= most + 1 else f"{'; '.join(parts[:most])}; and {len(parts) - most} more like these"


def _planned(plan: str) -> list[str]:
    if not plan.strip():
        return []
    return ["<h2>What apply would do</h2>", f"<pre>{escaped(plan.rstrip())}</pre>"]


def _journal(journal: Sequence[JournalRow]) -> list[str]:
    if not journal:
        return [
            "<h2>Journal</h2>",
            '<p class="quiet">Nothing is applied since this boot: there is nothing to revert.</p>',
        ]
    rows = "".join(
        f"<tr><td>{escaped(row.item)}</td><td>{escaped(row.target)}</td><td>{escaped(_short(row.original))}</td>"
        f"<td>{escaped(_short(row.written))}</td></tr>"
        for row in journal
    )
    head = "<tr><th>item</th><th>what</th><th>was</th><th>is now</th></tr>"
    return [
        "<h2>Journal</h2>",
        '<p class="quiet">Applied since this boot. <code>sudo penstock-tune revert</code> puts every value back.</p>',
        f'<div class="scroll"><table class="left">{head}{rows}</table></div>',
    ]


def _host(report: Report) -> list[str]:
    facts = "".join(
        f"<dt>{escaped(str(name).replace('_', ' '))}</dt><dd>{escaped(_fact(value))}</dd>"
        for name, value in report.facts.items()
        if value not in (None, "", [], {})
    )
    picture = f"<pre>{escaped(report.picture)}</pre>" if report.picture.strip() else ""
    return ["<h2>The host</h2>", picture, f"<dl>{facts}</dl>"]


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _short(text: object, most: int = 160) -> str:
    words = str(text)
    return words if len(words) <= most else f"{words[:most]}..."


def _place(word: object, order: Sequence[str]) -> int:
    return order.index(str(word)) if word in order else len(order)
