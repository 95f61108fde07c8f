"""The sections of ``penstock top``, each as lines of text that fit a width: pure functions of the facts.

    a section    (head, rows)     the head names it and its columns; rows beyond what fits are counted, not shown

A colour never says anything alone: beside it stands a word or a mark ("OVER", "!", "LOST").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.text import Text

from penstock_client.wording import microseconds_text

Facts = dict[str, Any]

_HEAD: Final = "bold"
_QUIET: Final = "dim"
_GOOD, _WARN, _BAD = "green", "yellow", "bold red"
_PATHS: Final = {"GRPC": "grpc", "SHARED_MEMORY": "shm", "FEED": "feed"}
_NONE: Final = "-"
_Part = tuple[str, str]  # Text, style.


def stage_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return the stages against their bounds."""
    bar = min(max(width - 74, 6), 24)
    columns = (f"{'rate/s':>9}", *(f"{name:>8}" for name in ("p50", "p99", "max", "bound")))
    head = Text(f"{'STAGES':<15} {' '.join(columns)} {'p99/bound':<{bar + 5}} {'over':>6}", style=_HEAD)
    if not facts["stages"]:
        return head, [Text("no tick yet: let a strategy send, or replay a file", style=_QUIET)]
    rows, before = [], None
    for one in facts["stages"]:
        path = _PATHS.get(one["path"], one["path"].lower()) + ("" if one["pace"] == "REALTIME" else "*")
        row = Text()
        row.append(f"{path if path != before else '':<5} ", style="bold cyan")
        before = path
        row.append(f"{one['stage'].lower():<9} ", style=_HEAD if one["stage"] == "TOTAL" else "")
        row.append(f"{one['per_s']:>9,.0f}" if one["count"] else f"{_NONE:>9}")
        for name in ("p50_ns", "p99_ns", "max_ns"):
            row.append(f" {_duration(one[name]):>8}")
        row.append(f" {_duration(one['bound_ns']):>8} ", style=_QUIET)
        _append_bar(row, one, bar)
        over = one["exceeded"]
        row.append(
            f" {_short(over) + ('!' if over else ''):>6}" if over is not None else f" {_NONE:>6}",
            style=_BAD if over else "",
        )
        rows.append(row)
    if any(one["pace"] == "BULK" for one in facts["stages"]):
        rows.append(Text("* bulk: as fast as it is taken, without a bound", style=_QUIET))
    return head, rows


def _append_bar(row: Text, one: Facts, width: int) -> None:
    """Append how much of its bound a stage's p99 takes, as a bar and a number."""
    if one["p99_ns"] is None or not one["bound_ns"]:
        row.append(" " * (width + 5))
        return
    share = one["p99_ns"] / one["bound_ns"]
    filled = min(max(round(share * width), 1 if share > 0 else 0), width)
    style = _BAD if share > 1 else _WARN if share > 0.8 else _GOOD
    row.append("█" * filled, style=style)
    row.append("░" * (width - filled), style=_QUIET)
    row.append(" OVER" if share > 1 else f" {share:4.0%}", style=style)


def session_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return who is connected, busiest first."""
    name_width = min(max(width - 67, 10), 32)
    title = f"SESSIONS {len(facts['sessions'])}/{facts['sessions_max']}"
    head = Text(
        f"{title:<{name_width + 6}} {'path':<5}{'pace':<9} {'state':<9}{'instr':>6} {'ticks/s':>9} {'ticks':>7} "
        f"{'wait':>6} {'bad':>4}",
        style=_HEAD,
    )
    rows = []
    for one in sorted(facts["sessions"], key=lambda one: (-(one["ticks_per_s"] or 0), one["session_id"])):
        lost = one["state"] == "LOST"
        row = Text(f"{one['session_id']:>5} {_fit(one['client_name'] or 'unnamed', name_width):<{name_width}} ")
        row.append(f"{_PATHS.get(one['path'], '?'):<5}{one['pace'].lower():<9} ")
        row.append(
            f"{one['state'] if lost else one['state'].lower():<9}",
            style=_WARN if lost else "",
        )
        rate = _NONE if one["ticks_per_s"] is None else f"{one['ticks_per_s']:,.0f}"
        row.append(f"{one['instruments']:>6} {rate:>9} {_short(one['ticks']):>7} {_short(one['unanswered']):>6} ")
        row.append(f"{_short(one['refused']):>4}", style=_WARN if one["refused"] else "")
        rows.append(row)
    return head, rows or [Text(f"none; {facts['sessions_opened']:,} were opened so far", style=_QUIET)]


def ring_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return how full the rings are, and were at most; a row for both rings of a session, fullest first."""
    bar = min(max((width - 64) // 2, 5), 16)
    head = Text(
        f"{'RINGS':<10}   {'ticks':<{bar}} {'now':>6} {'most':>6} {'slots':>6}   {'answers':<{bar}} {'now':>6} {'most':>6}",
        style=_HEAD,
    )
    pairs: dict[str, dict[str, Facts]] = {}
    for one in facts["rings"]:
        if one["kind"] != "CONTROL":
            name = f"#{one['session_id']}" if one["session_id"] else "feed"
            pairs.setdefault(name, {})[one["kind"]] = one
    rows = []
    for name, pair in sorted(pairs.items(), key=lambda item: -max(one["high_water"] for one in item[1].values())):
        row = Text(f"{name:<10}   ")
        for kind in ("TICKS", "PREDICTIONS"):
            one = pair.get(kind, {"used": 0, "slots": 1, "high_water": 0})
            _append_fill(row, one, bar)
            row.append(f" {_short(one['used']):>6} {_short(one['high_water']):>6}")
            if kind == "TICKS":
                row.append(f" {_short(one['slots']):>6}   ", style=_QUIET)
        rows.append(row)
    return head, rows or [Text("none", style=_QUIET)]


def _append_fill(row: Text, one: Facts, width: int) -> None:
    """Append a bar: what is in use now, and up to where it was at most."""
    slots = max(one["slots"], 1)
    now, most = (min(-(-one[name] * width // slots), width) for name in ("used", "high_water"))
    most = max(now, most)
    style = _BAD if most > 0.75 * width else _GOOD
    row.append("█" * now, style=style)
    row.append("▒" * (most - now), style=style)
    row.append("░" * (width - most), style=_QUIET)


def clock_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return what the stamps are worth."""
    clocks = facts["clocks"]
    words = {True: ("synchronised", _GOOD), False: ("NOT SYNCHRONISED", _WARN), None: ("sync unknown", _QUIET)}
    word, style = words[clocks["synchronised"]]
    parts = [("wall clock", ""), (word, style)]
    if clocks["maximum_error_ns"] is not None:
        parts.append((f"±{_duration(clocks['maximum_error_ns'])}", ""))
    parts.append((f"stages timed by {clocks['stamps']}", ""))
    if clocks["tsc_hertz"] is not None:
        parts.append((f"{clocks['tsc_hertz'] / 1e6:,.1f} MHz, drift {clocks['tsc_drift_ppb'] or 0:+,} ppb", ""))
    steps = f", last {clocks['last_step_ns'] / 1e9:+,.3f} s" if clocks["steps"] else ""
    more = [
        (f"steps {clocks['steps']}{steps}", _flag(clocks["steps"])),
        (f"sync lost {clocks['sync_losses']}", _flag(clocks["sync_losses"])),
        *((f"{one['of']}-{one['against']} ±{_duration(one['error_ns'])}", "") for one in clocks["offsets"]),
    ]
    more += [
        (f"{one['name']} ±{_duration(one['error_ns'])}" if one["synchronised"] else f"{one['name']} unsynchronised", "")
        for one in clocks["sources"]
        if one["epoch"] != "boot" and one["name"] != "realtime"
    ]
    if clocks["ptp_failures"]:
        more.append((f"{clocks['ptp']} silent {clocks['ptp_failures']} times", _WARN))
    return _line("CLOCKS", parts, width), [_line("", more, width)]


def watch_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return what the engine does, and what the daemon saw of itself."""
    seen, engine = facts["self_watch"], facts["engine"]
    cpus = ",".join(str(cpu) for cpu in engine["cpus"])
    head = _line(
        "ENGINE",
        [
            (f"busy {engine['busy_share']:.1%}", ""),
            (f"CPU {cpus}" if cpus else "any CPU", ""),
            (f"predictions {_short(engine['predictions'])}", ""),
            (f"sleeps {_short(engine['sleeps'])}", ""),
            (f"assisted {_short(engine['assisted'])}", ""),
            (f"passes {_short(engine['passes'])}", ""),
        ],
        width,
    )
    if seen is None:
        return head, []
    switches = seen["involuntary_switches"]
    parts = [
        (f"interrupted {_short(switches)}", _flag(cpus and switches)),
        (f"faults {_short(seen['minor_faults'])}, major {_short(seen['major_faults'])}", _flag(seen["major_faults"])),
    ]
    if seen["threads_watched"]:
        others = [one for one in seen["intruders"] if one["kind"] != "kernel"]
        names = ", ".join(_fit(one["name"], 15) for one in others[:3]) or "none"
        parts.append((f"intruders {names}", _flag(others)))
    for name, field in (("throttled", "throttled_periods"), ("heat", "heat_events")):
        if seen[field] is not None:
            parts.append((f"{name} {_short(seen[field])}", _flag(seen[field])))
    parts.append((f"collector {_duration(seen['collector_longest_ns'])}", ""))
    return head, [_line("", parts, width)]


def feed_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return how the feed is."""
    feed = facts["feed"]
    unsound = feed["instruments"] - feed["sound"]
    rate = "" if feed["applied_per_s"] is None else f", {feed['applied_per_s']:,.0f}/s"
    state = "GONE" if not feed["alive"] else "ended" if feed["ended"] else "alive"
    head = _line(
        "FEED",
        [
            (state, _GOOD if feed["alive"] else _BAD),
            (f"{_short(feed['applied'])} messages{rate}", ""),
            (f"sound {feed['sound']}/{feed['instruments']}", _WARN if unsound else _GOOD),
            (f"subscribers {feed['subscribers']}", ""),
            (f"{_fit(feed['name'], 16)} {_fit(feed['session'], 10)}", _QUIET),
        ],
        width,
    )
    gaps = [
        (f"gaps {_short(feed['gaps'])}, given up {_short(feed['gaps_unrecovered'])}", _flag(feed["gaps_unrecovered"])),
        *([("OPEN", _BAD)] if feed["gap_open"] else []),
        (f"lost {_short(feed['lost'])}", _flag(feed["lost"])),
        (f"held {_short(feed['held'])}", ""),
        (f"malformed {_short(feed['malformed'])}", _flag(feed["malformed"])),
        (f"ring drops {_short(feed['ring_drops'])}", _flag(feed["ring_drops"])),
        (f"twice {_short(feed['duplicates'])}", ""),
    ]
    lines: list[_Part] = []
    for one in feed["lines"]:
        lines.append((f"line {one['name']} {_short(one['packets'])} packets", ""))
        if one["socket_drops"]:
            lines.append((f"{_short(one['socket_drops'])} DROPPED", _BAD))
    lines.append((f"delivered {_short(feed['delivered'])}", ""))
    if feed["fell_behind"]:
        lines.append((f"{_short(feed['fell_behind'])} CUT OFF", _WARN))
    return head, [_line("", gaps, width), _line("", lines, width)]


def device_lines(facts: Facts, width: int) -> tuple[Text, list[Text]]:
    """Return how the GPU is; what it does not tell is left out."""
    device = facts["device"]
    state = ("LOST: the CPU predicts", _BAD) if device["degraded"] else ("serving", _GOOD)
    counts = f"{_short(device['launches'])} launches, {_short(device['ticks'])} ticks"
    head = _line("DEVICE", [(_fit(device["name"], 32), ""), state, (device["mode"], ""), (counts, "")], width)
    told: list[_Part] = [(f"SLOWED: {', '.join(device['slow_reasons'])}", _WARN)] if device["slow_reasons"] else []
    told += [
        (text.format(device[name] / scale), "")
        for name, text, scale in (
            ("temperature_celsius", "{:.0f} °C", 1),
            ("power_watts", "{:,.0f} W", 1),
            ("sm_clock_hertz", "SM {:,.0f} MHz", 1e6),
            ("memory_clock_hertz", "memory {:,.0f} MHz", 1e6),
            ("memory_used_bytes", "{:,.1f} GiB used", 2**30),
            ("predictions_per_joule", "{:,.0f} predictions/J", 1),
        )
        if device[name] is not None
    ]
    return head, [_line("", told or [("the card tells nothing", _QUIET)], width)]


def _line(name: str, parts: Sequence[_Part], width: int) -> Text:
    """Return a line of parts that are three cells apart; those that do not fit whole are left out, last ones first."""
    line = Text()
    line.append(f"{name:<11}", style=_HEAD)
    for number, (text, style) in enumerate(parts):
        gap = "   " if number else ""
        if line.cell_len + len(gap) + len(text) > width:
            break
        line.append(gap)
        line.append(text, style=style)
    return line


def alert_lines(alerts: Sequence[str], width: int) -> list[Text]:
    """Return what should be looked at first, in two lines at most."""
    if not alerts:
        return [Text("no alerts", style=_QUIET)]
    lines, rest = [Text("! ", style=_BAD)], list(alerts)
    while rest:
        more = f" (+{len(rest)} more)"
        room = width - lines[-1].cell_len - (len(more) if len(lines) == 2 else 0)
        piece = rest[0] if lines[-1].cell_len <= 2 else f"; {rest[0]}"
        if len(piece) <= room or lines[-1].cell_len <= 2:
            lines[-1].append(_fit(piece, max(room, 8)), style=_BAD)
            rest.pop(0)
        elif len(lines) < 2:
            lines.append(Text("  "))
        else:
            lines[-1].append(more, style=_BAD)
            break
    return lines


def _flag(present: object) -> str:
    return _WARN if present else ""


def _duration(ns: int | None) -> str:
    return _NONE if ns is None else f"{ns} ns" if ns < 1000 else microseconds_text(ns / 1000)


def _short(count: int) -> str:
    """Return a count in 5 characters or fewer."""
    if count < 100_000:
        return str(count)
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g}{letter}" if count < 999.5 * scale else f"{count / scale:.0f}{letter}"
    return str(count)


def _fit(text: str, width: int) -> str:
    """Return printable *text*, cut to *width* with an ellipsis."""
    text = "".join(one if one.isprintable() else "?" for one in text)
    return text if len(text) <= width else text[: width - 1] + "…"
