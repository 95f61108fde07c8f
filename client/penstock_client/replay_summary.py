"""The figures of a replay: counts, percentiles, the hash; as a dictionary for machines and as text for people.

    latency = received - scheduled       open loop: a sender that falls behind makes it longer, never shorter

At full speed nothing is scheduled, and latency runs from when the session took the tick: it is mostly queueing, and says
how far ahead the sender ran.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PredictionFlag, PredictionHash, Stage
from penstock_client.instruments import Pace
from penstock_client.machine import describe_machine, machine_line
from penstock_client.replay import ReplayRun
from penstock_client.replay_schedule import MAX_SPEED
from penstock_client.wording import microseconds_text, share_text

BUDGET_NS: Final = 5_000_000  # What `share_within_5ms` is about, whatever the daemon's own budget.
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}
SHOWN_PERCENTILES: Final = {"p50": "p50_us", "p95": "p95_us", "p99": "p99_us", "p99.9": "p999_us", "max": "max_us"}
ERRORS_SHOWN: Final = 5
_HASHED_AT_ONCE: Final = 1 << 16


def percentile_ns(ascending: NDArray[np.int64], share: float) -> int:
    """Return the smallest duration that *share* of all don't exceed: one that was measured; 0 for none.

    Args:
        ascending: shape (any,), sorted.
        share: in 0 to 1.
    """
    if not len(ascending):
        return 0
    rank = int(np.ceil(share * len(ascending)))
    return int(ascending[min(max(rank, 1), len(ascending)) - 1])


def prediction_hash(run: ReplayRun) -> str:
    """Return the digest of all predictions in the order of the session, 64 hexadecimal characters."""
    digest = PredictionHash()
    predictions = run.predictions[: run.sent]
    for start in range(0, run.sent, _HASHED_AT_ONCE):
        part = slice(start, start + _HASHED_AT_ONCE)
        digest.update(predictions[part][run.predicted[: run.sent][part]])
    return digest.hexdigest()


def summarise(run: ReplayRun, files: list[str]) -> dict[str, Any]:
    """Return everything that ``--json`` prints.

    Args:
        run: finished, failed or interrupted.
        files: what was replayed, as the user named it.
    """
    latencies_ns = np.sort(run.latencies_ns)
    sent = run.sent
    behind_ns = np.sort(run.sent_ns[:sent] - run.scheduled_ns[:sent])
    answered_ns = run.received_ns[:sent]
    elapsed_s = max(int(answered_ns.max(initial=0)) - run.start_ns, 1) / 1e9 if run.answered else 0.0
    budget_ns = int(run.welcome.budget_ns) or BUDGET_NS
    flags = run.predictions["flags"][:sent][run.predicted[:sent]]
    return {
        "files": files,
        "address": run.plan.address,
        "speed": "max" if run.plan.speed == MAX_SPEED else run.plan.speed,
        "pace": run.plan.pace.name,
        "latency_from": "sent" if run.plan.speed == MAX_SPEED else "scheduled",
        "seconds": round(elapsed_s, 6),
        "ticks_planned": len(run.plan.ticks),
        "ticks": sent,
        "predictions": int(np.count_nonzero(run.predicted)),
        "errors": run.errors,
        "lost": run.lost,
        "resumed": run.resumed,
        "predictions_per_s": round(run.answered / elapsed_s, 1) if elapsed_s else 0.0,
        **{f"{name}_us": percentile_ns(latencies_ns, share) / 1e3 for name, share in PERCENTILES.items()},
        "max_us": percentile_ns(latencies_ns, 1.0) / 1e3,
        "share_within_5ms": _share_within(latencies_ns, BUDGET_NS, sent),
        "budget_us": budget_ns / 1e3,
        "share_within_budget": _share_within(latencies_ns, budget_ns, sent),
        "sender_behind_us": {
            "p50": percentile_ns(behind_ns, 0.5) / 1e3,
            "p99": percentile_ns(behind_ns, 0.99) / 1e3,
            "max": percentile_ns(behind_ns, 1.0) / 1e3,
        },
        "stages_us": _stages(run),
        "flags": {str(one.name): int(np.count_nonzero(flags & one)) for one in PredictionFlag if np.any(flags & one)},
        "prediction_hash": prediction_hash(run),
        "recording": None
        if (of := run.plan.recording) is None
        else asdict(of) | {"hash_differs_because": of.hash_differs_because},
        "instruments": [
            {
                "instrument_id": one.instrument_id,
                "dataset": one.dataset,
                "symbol": one.symbol,
                "size_scale": one.size_scale,
            }
            for one in run.plan.instruments
        ],
        "model": {
            "name": run.welcome.model.name,
            "version": run.welcome.model.version,
            "content_hash": run.welcome.model.content_hash.hex(),
            "serial": run.welcome.model.serial,
            "demonstration": run.welcome.model.demonstration,
            "notice": run.welcome.model.notice,
            "horizons": [one.name for one in run.welcome.horizons],
        },
        "online_readout": run.plan.online_readout,
        "daemon_version": run.welcome.daemon_version,
        "interrupted": run.interrupted_by.name if run.interrupted_by is not None else "",
        "failure": str(run.failure) if run.failure is not None else "",
        "machine": describe_machine(),
    }


def closing_text(summary: dict[str, Any], tick_errors: list[str]) -> str:
    """Return the report that a person reads when the replay is over.

    Args:
        summary: of summarise().
        tick_errors: sentences of the daemon, the first few are shown.
    """
    model = summary["model"]
    at = "full speed" if summary["speed"] == "max" else f"{summary['speed']:g}x the market's speed"
    since = "taken by the session" if summary["latency_from"] == "sent" else "due"
    latency = "   ".join(f"{label} {microseconds_text(summary[key])}" for label, key in SHOWN_PERCENTILES.items())
    regained = f"; connection regained {summary['resumed']} times" if summary["resumed"] else ""
    behind = f"the sender itself was behind by p99 {microseconds_text(summary['sender_behind_us']['p99'])}"
    notice = f": {model['notice']}" if model["notice"] else ""
    if summary["pace"] == Pace.REALTIME.name:
        budget = [("budget", f"{share_text(summary['share_within_5ms'])} within 5 ms; {behind}")]
    else:  # Faster than the market, ticks queue by design, and no budget applies.
        budget = [] if summary["latency_from"] == "sent" else [("", behind)]
    lines = [
        ("replayed", f"{summary['ticks']:,} ticks at {at} in {summary['seconds']:.1f} s"),
        ("", f"{summary['predictions_per_s']:,.0f} predictions/s"),
        (
            "answers",
            f"{summary['predictions']:,} predictions, {summary['errors']:,} errors, {summary['lost']:,} lost{regained}",
        ),
        ("latency", latency),
        ("", f"from when a tick was {since} until its prediction was here"),
        *budget,
        ("model", f"{model['name']} {model['version']} ({model['content_hash'][:12]}){notice}"),
        ("hash", summary["prediction_hash"]),
        *(("", sentence) for sentence in hash_sentences(summary)),
        ("machine", machine_line(summary["machine"])),
        *(("error", sentence) for sentence in tick_errors[:ERRORS_SHOWN]),
    ]
    if summary["errors"] > ERRORS_SHOWN:
        lines.append(("", f"and {summary['errors'] - ERRORS_SHOWN:,} more errors"))
    if summary["interrupted"]:
        lines.append(("interrupted", f"by {summary['interrupted']}; {summary['ticks_planned']:,} ticks were planned"))
    if summary["failure"]:
        lines.append(("failed", summary["failure"]))
    return "\n".join(f"{label:<13}{text}" for label, text in lines)


def hash_sentences(summary: dict[str, Any]) -> list[str]:
    """Return what is to be said where the hash can't be that of the recorded session; nothing otherwise."""
    recording = summary["recording"]
    if recording is None or not recording["hash_differs_because"]:
        return []
    why = "; ".join(recording["hash_differs_because"])
    return [f"not the hash that recorded session {recording['session_id']} had: {why}"]


def _share_within(ascending: NDArray[np.int64], bound_ns: int, sent: int) -> float:
    """Return the share of all *sent* ticks that were answered within *bound_ns*; a lost one never was."""
    return int(np.searchsorted(ascending, bound_ns, side="right")) / sent if sent else 0.0


def _stages(run: ReplayRun) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of the daemon's own stages, as the records tell them."""
    stages_ns = run.predictions["stage_ns"][: run.sent][run.predicted[: run.sent]]
    found = {}
    for index, ascending in enumerate(np.sort(stages_ns, axis=0).T):
        if len(ascending) and ascending[-1]:
            p50, p99 = (percentile_ns(ascending, share) / 1e3 for share in (0.5, 0.99))
            found[Stage(index).name.lower()] = {"p50": p50, "p99": p99, "max": int(ascending[-1]) / 1e3}
    return found
