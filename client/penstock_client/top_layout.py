"""Which sections of ``penstock top`` stand where, and what goes when there is no room: pure, lines in, lines out.

    head and alerts, stages, sessions, rings, engine, clocks, feed, device, foot        from top to bottom

No line is wider than the width, and there are never more than the height. Where they do not fit, this goes, in this order:
blank lines; the stages but TOTAL of paths on which no tick came; rows of rings and then of sessions beyond three; then whole sections: rings, engine, clocks, device, feed,
sessions; at last the stages' last rows. What goes is counted in the foot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rich.text import Text

from penstock_client import top_sections as sections

Facts = dict[str, Any]
WIDTH_MIN: Final = 80  # Narrower terminals see the left part.
DROP_ORDER: Final = ("rings", "engine", "clocks", "device", "feed", "sessions")
ROWS_KEPT: Final = 3
_ADDRESS_LEAST: Final = 16  # Cells; less says nothing.
_ASCII: Final = str.maketrans({"█": "#", "▒": "=", "░": ".", "…": "~", "µ": "u", "±": "+", "°": " ", "·": "-"})
_Section = tuple[Text, list[Text]]


def lay_out(
    facts: Facts, width: int, height: int | None, *, note: str = "", keys: str = "", ascii_only: bool = False
) -> list[Text]:
    """Return the lines of a screen.

    Args:
        facts: as ``facts_of`` returns them.
        width: cells of a line.
        height: lines at most, from 1 on; None for all that there is to say.
        note: what the screen itself has to say, such as that the daemon is gone; stands before the alerts.
        keys: what the foot says of keys; no foot where it is empty.
        ascii_only: without a character that is not ASCII.
    """
    inner = max(width, WIDTH_MIN)
    top = [_head(facts, inner), *_alerts(facts, inner, note)]
    parts = _sections(facts, inner)
    folded = sections.stage_lines(_without_idle_stages(facts), inner)
    lines = _fitted(top, parts, folded, None if height is None else max(height - bool(keys), 1))
    hidden = sum(len(rows) + 1 for _, rows in parts.values()) - (len([one for one in lines if one.plain]) - len(top))
    if keys:
        lines.append(_foot(facts, keys, max(hidden, 0)))
    lines = lines if height is None else lines[:height]
    return [_cut(line, width, ascii_only=ascii_only) for line in lines]


def waiting_lines(address: str, reason: str, width: int, height: int, keys: str, *, ascii_only: bool) -> list[Text]:
    """Return the lines of a screen while no daemon has answered yet."""
    lines = [Text("penstock top", style="bold"), Text(f"waiting for a daemon at {address}", style="yellow")]
    lines += [Text(reason, style="dim"), Text(keys, style="dim")]
    return [_cut(line, width, ascii_only=ascii_only) for line in lines[:height]]


def _cut(line: Text, width: int, *, ascii_only: bool) -> Text:
    if ascii_only:
        plain = line.plain.translate(_ASCII).encode("ascii", "replace").decode()
        line = Text(plain, spans=line.spans, style=line.style)
    line.no_wrap = True
    line.truncate(width, overflow="crop")
    return line


def _sections(facts: Facts, width: int) -> dict[str, _Section]:
    """Return the sections that there is something to say about, from top to bottom."""
    makers: tuple[tuple[str, Callable[[Facts, int], _Section], bool], ...] = (
        ("stages", sections.stage_lines, True),
        ("sessions", sections.session_lines, True),
        ("rings", sections.ring_lines, any(one["kind"] != "CONTROL" for one in facts["rings"])),
        ("engine", sections.watch_lines, facts["engine"] is not None),
        ("clocks", sections.clock_lines, facts["clocks"] is not None),
        ("feed", sections.feed_lines, facts["feed"] is not None),
        ("device", sections.device_lines, facts["device"] is not None),
    )
    return {name: make(facts, width) for name, make, present in makers if present}


def _without_idle_stages(facts: Facts) -> Facts:
    """Return the facts with TOTAL alone of each path on which no tick came."""
    busy = {(one["path"], one["pace"]) for one in facts["stages"] if one["count"]}
    kept = [one for one in facts["stages"] if one["stage"] == "TOTAL" or (one["path"], one["pace"]) in busy]
    return facts | {"stages": kept}


def _fitted(top: list[Text], parts: dict[str, _Section], folded: _Section, height: int | None) -> list[Text]:
    parts = dict(parts)

    def stacked(*, blank: bool) -> list[Text]:
        lines = list(top)
        for head, rows in parts.values():
            lines += [*([Text("")] if blank else []), head, *rows]
        return lines

    lines = stacked(blank=True)
    if height is None or len(lines) <= height:
        return lines
    lines = stacked(blank=False)
    if len(lines) > height:
        parts["stages"] = folded
        lines = stacked(blank=False)
    for name in ("rings", "sessions"):
        while len(lines) > height and name in parts and len(parts[name][1]) > ROWS_KEPT:
            head, rows = parts[name]
            spare = min(len(lines) - height, len(rows) - ROWS_KEPT)
            parts[name] = (head, rows[: len(rows) - spare])
            lines = stacked(blank=False)
    for name in DROP_ORDER:
        if len(lines) > height and name in parts:
            del parts[name]
            lines = stacked(blank=False)
    return lines[:height]


def _head(facts: Facts, width: int) -> Text:
    """Return the first line; what does not fit goes, the least important first."""
    identity, model, budget = facts["identity"], facts["model"], facts["budget"]
    serving = facts["serving"]
    line = Text()
    line.append("penstock top  ", style="bold")
    line.append("SERVING" if serving else "NOT SERVING", style="bold green" if serving else "bold red")
    parts = [
        f"up {_uptime(identity['uptime_ns'] // 1_000_000_000)}",
        f"late {budget['late']:,} stale {budget['stale']:,}",
        *([model["name"] + (" (demonstration)" if model["demonstration"] else "")] if model is not None else []),
        identity["device"],
        identity["version"],
        facts["address"],
    ]
    address = parts.pop()
    room = width - line.cell_len - 2 - sum(len(part) + 2 for part in parts[:3])
    if room >= _ADDRESS_LEAST:  # Before device and version: it tells daemons apart.
        parts.insert(3, address if len(address) <= room else "…" + address[-(room - 1) :])
    for part in parts:
        if line.cell_len + 2 + len(part) <= width:
            line.append(f"  {part}")
    return line


def _alerts(facts: Facts, width: int, note: str) -> list[Text]:
    return sections.alert_lines([*([note] if note else []), *facts["alerts"]], width)


def _foot(facts: Facts, keys: str, hidden: int) -> Text:
    interval = facts["interval_s"]
    line = Text(f"{keys}   ", style="dim")
    line.append("first figures in a moment" if interval is None else f"figures of the last {interval:.1f} s")
    if hidden:
        line.append(f"   {hidden} lines hidden: enlarge the window")
    return line


def _uptime(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s"
