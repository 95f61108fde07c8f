"""``penstock-bench load``: recorded ticks at the market's own pace, open loop, from their busiest stretch.

    latency = received - scheduled       scheduled: when the market would have sent the tick, whatever happened before

The sender is ``penstock replay`` in a process of its own: what is published is what a user's replay gives. A stall
probe runs beside it, and figures are given with and without the moments in which the machine stood still.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock_host.affinity import online_cpus
from penstock_tuning.bench.figures import latency_figures
from penstock_tuning.bench.machine import stolen_ms
from penstock_tuning.bench.market import Market
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.placement import SPLIT, Placement
from penstock_tuning.bench.processes import Served, daemon, run_tool
from penstock_tuning.bench.raw import Raw, raw_rows
from penstock_tuning.bench.settings import Bench
from penstock_tuning.bench.stall_probe import StallProbe
from penstock_tuning.bench.stretch import StretchSettings, over_repeats

COUNTS: Final = ("ticks", "predictions", "refused", "lost")
SHOWN: Final = (
    "p50_us",
    "p95_us",
    "p99_us",
    "p999_us",
    "max_us",
    "share_within_5ms",
    "share_within_5ms_outside_stalls",
    "probe_max_us",
    *COUNTS,
)
_TOOL_EXTRA_S: Final = 60.0


@dataclass(frozen=True)
class LoadSettings(StretchSettings):
    """What is replayed, how fast, how often, and whether through shared memory."""

    shared_memory: bool = False


def measure(settings: LoadSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: the daemon does not serve, or a replay failed.
    """
    market = bench.market()
    place = bench.placement(SPLIT)
    with daemon(bench.folder, bench.daemon, place.daemon) as served:

        def once(number: int) -> tuple[dict[str, Any], Raw]:
            return one_repeat(number, settings, bench.folder, market, place, served)

        figures, raw = over_repeats("load", settings, bench, once, counts=COUNTS)
    conditions = bench.conditions(market, place) | settings.conditions
    return Outcome("load", figures, conditions, SHOWN, raw)


def one_repeat(
    number: int, settings: LoadSettings, folder: Path, market: Market, place: Placement, served: Served
) -> tuple[dict[str, Any], Raw]:
    """Replay once and return its figures and rows."""
    times = folder / "replay.npy"
    replay = [
        *(sys.executable, "-m", "penstock_client.cli", "replay", str(market.path), "--to", served.address),
        *("--speed", f"{settings.speed:g}", "--seconds", f"{settings.seconds:g}", "--start-busiest"),
        *("--raw", str(times), "--json"),
        *(["--shared-memory"] if settings.shared_memory else []),
    ]
    timeout_s = settings.seconds / settings.speed + _TOOL_EXTRA_S
    stolen_before_ms = stolen_ms()
    with StallProbe(online_cpus()) as probe:
        summary = json.loads(run_tool("penstock replay", replay, folder, timeout_s, place.strategy))
    stolen = stolen_ms() - stolen_before_ms
    rows = np.load(times)
    scheduled_ns, sent_ns, received_ns = rows["scheduled"], rows["sent"], rows["received"]
    figures: dict[str, Any] = {
        **latency_figures(scheduled_ns, received_ns),
        "ticks": int(summary["ticks"]),
        "predictions": int(summary["predictions"]),
        "refused": int(summary["errors"]),
        "lost": int(summary["lost"]),
        **probe.stalls.figures(scheduled_ns, received_ns),
        "stolen_ms": stolen,
        "sender_behind_p50_us": summary["sender_behind_us"]["p50"],
        "sender_behind_p99_us": summary["sender_behind_us"]["p99"],
        "stall_probe": probe.stalls.priority,
        "stages_us": summary["stages_us"],
        "prediction_hash": summary["prediction_hash"],
    }
    stalled = probe.stalls.mask(scheduled_ns, received_ns)
    return figures, raw_rows(number, scheduled_ns, sent_ns, received_ns, stalled)
