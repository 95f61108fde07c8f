"""What ``penstock top`` shows, as one plain object: a daemon's snapshot, and its latencies of one interval.

    facts_of(snapshot, latency, earlier)       pure; the object is what --json prints

Names and units are those of daemon.proto; what is not known is None. Rates are differences to the facts before. Everything
that a person should look at first is a sentence in ``alerts``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock.v1 import daemon_pb2, histogram, latency_pb2, prediction_pb2
from penstock_client.top_message import as_plain
from penstock_client.wording import microseconds_text

Facts = dict[str, Any]
STAGES: Final = tuple(name.removeprefix("STAGE_") for name in latency_pb2.Stage.keys()[1:])
RING_FULL_SHARE: Final = 0.75
_DEVICE_STAGES: Final = frozenset({"UPLOAD", "DOWNLOAD"})
_CLOCK_ERROR_NS: Final = 10_000_000  # A wall clock that is off by more tells nothing about 5 ms.


def facts_of(
    snapshot: daemon_pb2.DaemonSnapshot,
    latency: latency_pb2.WatchLatencyResponse | None,
    earlier: Facts | None,
    *,
    address: str,
) -> Facts:
    """Return what is shown.

    Args:
        snapshot: the daemon as it stands.
        latency: of the interval that ended; None before the first has.
        earlier: what was returned before, for rates; None for the first, or of another daemon.
        address: as the caller knows the daemon.
    """
    facts: Facts = as_plain(snapshot)
    if earlier is not None and earlier["identity"]["daemon_id"] != facts["identity"]["daemon_id"]:
        earlier = None
    seconds = (facts["taken_ns"] - earlier["taken_ns"]) / 1e9 if earlier else 0.0
    facts["address"] = address
    facts["interval_s"] = (latency.taken_ns - latency.since_ns) / 1e9 if latency is not None else None
    facts["stages"] = _stages(facts, latency, earlier)
    ticks_before = {one["session_id"]: one["ticks"] for one in earlier["sessions"]} if earlier else {}
    for session in facts["sessions"]:
        before = ticks_before.get(session["session_id"])
        session["ticks_per_s"] = _rate(session["ticks"], before, seconds)
    feed, engine = facts["feed"], facts["engine"]
    if feed is not None:
        before = earlier["feed"]["applied"] if earlier and earlier["feed"] else None
        feed["applied_per_s"] = _rate(feed["applied"], before, seconds)
    if engine is not None and earlier and earlier["engine"] and seconds > 0:
        share = (engine["busy_ns"] - earlier["engine"]["busy_ns"]) / (seconds * 1e9)
        engine["busy_share"] = min(max(share, 0.0), 1.0)
    facts["alerts"] = _alerts(facts, earlier)
    return facts


def _rate(now: int, before: int | None, seconds: float) -> float | None:
    if before is None or seconds <= 0:
        return None
    return max(now - before, 0) / seconds


def _stages(facts: Facts, latency: latency_pb2.WatchLatencyResponse | None, earlier: Facts | None) -> list[Facts]:
    """Return a row for each stage of each path that is in use, in a tick's order."""
    if latency is None:
        return []
    seconds = max((latency.taken_ns - latency.since_ns) / 1e9, 1e-9)
    budgets: dict[tuple[int, int], Any] = {(one.path, one.stage): one for one in latency.budgets}
    came: dict[tuple[int, int, int], Any] = {(one.path, one.pace, one.stage): one for one in latency.histograms}
    wanted = set(came) | _rows_in_use(facts, earlier)
    rows = []
    for path, pace, stage in sorted(wanted):
        counts, longest_ns = _counts(came.get((path, pace, stage)))
        count = int(counts.sum())
        budget = budgets.get((path, stage)) if pace == prediction_pb2.PACE_REALTIME else None
        rows.append(
            {
                "path": latency_pb2.Path.Name(path).removeprefix("PATH_"),
                "pace": prediction_pb2.Pace.Name(pace).removeprefix("PACE_"),
                "stage": latency_pb2.Stage.Name(stage).removeprefix("STAGE_"),
                "count": count,
                "per_s": count / seconds,
                "p50_ns": histogram.percentile_ns(counts, 0.5) if count else None,
                "p99_ns": histogram.percentile_ns(counts, 0.99) if count else None,
                "max_ns": longest_ns if count else None,
                "bound_ns": budget.bound_ns if budget is not None else None,
                "exceeded": budget.exceeded if budget is not None else None,
            }
        )
    return rows


def _rows_in_use(facts: Facts, earlier: Facts | None) -> set[tuple[int, int, int]]:
    """Return the rows that stay though no tick came: of sessions that are open, of the feed, and those shown before."""
    rows = {(one["path"], one["pace"]) for one in facts["sessions"]}
    if facts["feed"] is not None:
        rows.add(("FEED", "REALTIME"))
    found = {
        (path, pace, stage)
        for path, pace in rows
        for stage in STAGES
        if facts["device"] is not None or stage not in _DEVICE_STAGES
    }
    found |= {(one["path"], one["pace"], one["stage"]) for one in (earlier["stages"] if earlier else ())}
    return {
        (
            latency_pb2.Path.Value(f"PATH_{path}"),
            prediction_pb2.Pace.Value(f"PACE_{pace}"),
            latency_pb2.Stage.Value(f"STAGE_{stage}"),
        )
        for path, pace, stage in found
    }


def _counts(one: latency_pb2.Histogram | None) -> tuple[Any, int]:
    """Return the counts of a histogram by bucket, and the longest duration among them, to a bucket's width."""
    counts = np.zeros(histogram.BUCKETS, dtype=np.int64)
    if one is None or not one.buckets:
        return counts, 0
    counts[np.array(one.buckets)] = np.array(one.counts, dtype=np.int64)
    last = max(one.buckets)
    edge_ns = histogram.lower_edge_ns(last + 1) - 1 if last < histogram.OVERFLOW_BUCKET else int(one.max_ns)
    return counts, min(edge_ns, int(one.max_ns))  # The maximum is since the daemon's start.


def _alerts(facts: Facts, earlier: Facts | None) -> list[str]:
    """Return what should be looked at, worst first; counts are of the time since the facts before."""
    found = []
    words = {
        "STARTING": "STARTING: the daemon warms up",
        "DRAINING": "DRAINING: the daemon is stopping",
        "STALLED": "STALLED: the engine stands still",
        "BREAKER": "BREAKER OPEN: predictions come too late in a row",
    }
    found += [words.get(reason, reason) for reason in facts["reasons"]]
    device, feed, clocks = facts["device"], facts["feed"], facts["clocks"]
    if device is not None and device["degraded"]:
        found.append("DEVICE LOST: the CPU predicts")
    if feed is not None:
        if not feed["alive"]:
            found.append("FEED THREAD GONE")
        if feed["gap_open"]:
            found.append("FEED GAP: a message is missing")
        unsound = feed["instruments"] - feed["sound"]
        if unsound:
            found.append(f"{unsound} of {feed['instruments']} books unsound")
    found += [
        f"{one['path']} {one['stage']} over its bound {one['exceeded']:,} times"
        for one in facts["stages"]
        if one["exceeded"]
    ]
    if clocks is not None:
        if clocks["synchronised"] is False:
            found.append("wall clock not synchronised")
        elif (clocks["maximum_error_ns"] or 0) > _CLOCK_ERROR_NS:
            found.append(f"wall clock may be off by {microseconds_text(clocks['maximum_error_ns'] / 1000)}")
    full = [one for one in facts["rings"] if one["used"] > RING_FULL_SHARE * one["slots"]]
    found += [f"ring of {one['kind'].lower()} of session {one['session_id']} nearly full" for one in full]
    found += _risen(facts, earlier)
    return found


def _risen(facts: Facts, earlier: Facts | None) -> list[str]:
    """Return what grew since the facts before, and should not have."""
    if earlier is None:
        return []
    watched = (
        ("clocks", "steps", "wall clock stepped"),
        ("self_watch", "major_faults", "page faults of the engine"),
        ("self_watch", "throttled_periods", "CPU quota used up"),
        ("self_watch", "heat_events", "CPU slowed by heat"),
        ("engine", "stalls", "engine stood still"),
        ("feed", "lost", "messages lost by the feed"),
        ("feed", "ring_drops", "ticks of the feed dropped"),
        ("feed", "fell_behind", "subscribers cut off"),
    )
    found = []
    for part, name, sentence in watched:
        now, before = (one[part] and one[part][name] for one in (facts, earlier))
        if now and now > (before or 0):
            found.append(f"{sentence}: {now - (before or 0):,}")
    if facts["self_watch"] and facts["self_watch"]["threads_watched"] and earlier["self_watch"]:
        more = facts["self_watch"]["involuntary_switches"] - earlier["self_watch"]["involuntary_switches"]
        if more > 0:
            found.append(f"engine interrupted: {more:,}")
    return found
