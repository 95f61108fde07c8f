"""``penstock latency``: how long ticks take inside a daemon, stage by stage, as its own histograms say.

Without ``--seconds`` it is everything since the daemon started, or what was added since the answer that ``--since`` names;
with it, what was added meanwhile, one interval after the other. Beside each stage stands its bound, and how many
durations of REALTIME sessions were over it, counted exactly by the daemon. JSON carries the histograms themselves (buckets of penstock/v1/histogram.py), so that others can merge them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock_client.daemon_commands import add_call_arguments
from penstock_client.errors import LocalUsageError
from penstock_client.exits import Exit
from penstock_client.latency_difference import difference, read_answer
from penstock_client.wording import microseconds_text

if TYPE_CHECKING:
    from penstock_client.daemon_calls import DaemonCalls

_INTERVAL_S_MIN: Final = 0.1  # The daemon's own.
_SECONDS_MAX: Final = 86_400.0
_QUANTILES: Final = (0.5, 0.99, 0.999)


def add_latency(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``penstock``."""
    latency = commands.add_parser(
        "latency",
        help="tell how long ticks take inside a daemon",
        description="Asks a daemon for its latency, stage by stage: since it started, or over the next --seconds.",
        epilog=(
            "examples:\n  penstock latency\n  penstock latency --seconds 60\n"
            "  penstock latency --json > before.json; ...; penstock latency --since before.json"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    latency.set_defaults(run=run_latency)
    latency.add_argument("--seconds", type=float, metavar="S", help="measure what comes for this long")
    latency.add_argument(
        "--since",
        type=Path,
        metavar="FILE",
        help="leave out what an earlier answer of this command (--json) has already",
    )
    latency.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="one row of histograms each (default: %(default)g)"
    )
    add_call_arguments(latency)


def run_latency(options: argparse.Namespace) -> int:
    """Print the latency.

    Raises:
        PenstockError: nobody answered, or the daemon refused.
    """
    _check(options)
    earlier = None if options.since is None else read_answer(options.since)
    from penstock_client.daemon_calls import DaemonCalls

    with DaemonCalls(options.to, options.timeout) as daemon:
        found = _found(daemon, options)
    if earlier is not None:
        found = difference(found, earlier)
    sys.stdout.write((json.dumps(found) if options.json else _table(found)) + "\n")
    return Exit.DONE


def _check(options: argparse.Namespace) -> None:
    if options.since is not None and options.seconds is not None:
        raise LocalUsageError("--since and --seconds are two ways to say from when on: give one of them")
    if not _INTERVAL_S_MIN <= options.interval <= _SECONDS_MAX:
        raise LocalUsageError(f"--interval must be in {_INTERVAL_S_MIN} to {_SECONDS_MAX:g}: was {options.interval:g}")
    if options.seconds is not None and not options.interval <= options.seconds <= _SECONDS_MAX:
        raise LocalUsageError(
            f"--seconds must be in --interval ({options.interval:g}) to {_SECONDS_MAX:g}: was {options.seconds:g}"
        )


def _found(daemon: DaemonCalls, options: argparse.Namespace) -> dict[str, Any]:
    if options.seconds is None:
        answers: list[Any] = [daemon.latency()]
    else:
        answers = list(daemon.watch_latency(round(options.interval * 1e9), round(options.seconds / options.interval)))
    return {
        "address": options.to,
        "interval_s": None if options.seconds is None else options.interval,
        "since_ns": answers[0].since_ns,
        "breaker_open": answers[-1].breaker_open,
        "intervals": [
            {"taken_ns": answer.taken_ns, "histograms": [_histogram(one) for one in answer.histograms]}
            for answer in answers
        ],
        "budgets": _budgets(answers),
    }


def _histogram(one: Any) -> dict[str, Any]:
    from penstock.v1 import latency_pb2, prediction_pb2

    return {
        "path": latency_pb2.Path.Name(one.path).removeprefix("PATH_"),
        "stage": latency_pb2.Stage.Name(one.stage).removeprefix("STAGE_"),
        "pace": prediction_pb2.Pace.Name(one.pace).removeprefix("PACE_"),
        "buckets": list(one.buckets),
        "counts": list(one.counts),
        "sum_ns": one.sum_ns,
        "max_ns": one.max_ns,  # Since the daemon started, in an interval too.
        "negative": one.negative,
    }


def _budgets(answers: list[Any]) -> list[dict[str, Any]]:
    """Return the bounds in force, with what was over each in all *answers* together."""
    from penstock.v1 import latency_pb2

    over: dict[tuple[int, int], int] = {}
    for answer in answers:
        for budget in answer.budgets:
            over[budget.path, budget.stage] = over.get((budget.path, budget.stage), 0) + budget.exceeded
    return [
        {
            "path": latency_pb2.Path.Name(budget.path).removeprefix("PATH_"),
            "stage": latency_pb2.Stage.Name(budget.stage).removeprefix("STAGE_"),
            "bound_ns": budget.bound_ns,
            "exceeded": over[budget.path, budget.stage],
        }
        for budget in answers[-1].budgets
    ]


def _table(found: dict[str, Any]) -> str:
    """Return the stages as rows, in the order of a tick's way."""
    import numpy as np

    from penstock.v1 import histogram

    merged: dict[tuple[str, str, str], Any] = {}
    longest_ns: dict[tuple[str, str, str], int] = {}
    for interval in found["intervals"]:
        for one in interval["histograms"]:
            key = (one["path"], one["pace"], one["stage"])
            counts = merged.setdefault(key, np.zeros(histogram.BUCKETS, dtype=np.int64))
            counts[one["buckets"]] += np.array(one["counts"], dtype=np.int64)
            longest_ns[key] = max(longest_ns.get(key, 0), one["max_ns"])
    if not merged:
        return _below("no tick came: replay a file, or let a strategy send, and ask again", found)
    budgets = {(one["path"], "REALTIME", one["stage"]): one for one in found["budgets"]}
    columns = ("ticks", "p50", "p99", "p99.9", "max", "bound", "over")
    rows = [f"{'path':14} {'pace':9} {'stage':9} {columns[0]:>12} " + " ".join(f"{name:>9}" for name in columns[1:])]
    for key, counts in merged.items():
        path, pace, stage = key
        shown = [microseconds_text(histogram.percentile_ns(counts, share) / 1000) for share in _QUANTILES]
        shown.append(microseconds_text(longest_ns[key] / 1000))
        budget = budgets.get(key)
        shown += [microseconds_text(budget["bound_ns"] / 1000), f"{budget['exceeded']:,}"] if budget else ["-", "-"]
        rows.append(f"{path:14} {pace:9} {stage:9} {int(counts.sum()):12,} " + " ".join(f"{text:>9}" for text in shown))
    if found["interval_s"] is not None or "since_taken_ns" in found:
        rows.append("max is since the daemon started; the rest is of this time")
    return _below("\n".join(rows), found)


def _below(text: str, found: dict[str, Any]) -> str:
    """Return *text* with what must not be missed under it."""
    if found["breaker_open"]:
        text += "\nthe breaker is open: predictions come too late in a row, and health says NOT_SERVING"
    return text
