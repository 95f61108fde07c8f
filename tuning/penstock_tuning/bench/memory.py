"""``penstock-bench memory``: what a daemon holds, what a state costs, and what a million ticks add.

growth       of the floor of the daemon's resident memory: the least of the second half of the ticks after warm-up,
             minus the least of the first half, twice; buffers that come and go lie above the floor, a leak lifts it
allocations  in the engine's compiled loop, and what the event loop keeps: see allocations.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.v1.records import PREDICTION_BYTES
from penstock_kernels.predictor import pack, running_words, state_words
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.in_process import read_model, sizes_of
from penstock_tuning.bench.market import Market
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.processes import DaemonOptions, daemon
from penstock_tuning.bench.pump import pump
from penstock_tuning.bench.raw import raw_rows
from penstock_tuning.bench.settings import Bench
from penstock_tuning.bench.throughput import TICKS_MAX

WARM_UP_TICKS = 200_000
ENGINE_TICKS = 200_000
MESSAGES = 20_000
SHOWN = (
    "resident_mib",
    "growth_kib_over_million_ticks",
    "bytes_per_state",
    "engine_allocations",
    "engine_page_faults",
    "loop_blocks_kept_per_message",
    "ticks",
)
_TICK_SLOT_BYTES = 128
_TOOL_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class MemorySettings:
    """How many ticks growth is measured over."""

    ticks: int = 1_000_000

    def __post_init__(self) -> None:
        """Check the user's number."""
        if not 1 <= self.ticks <= TICKS_MAX:
            raise BenchError(f"--count must be from 1 to {TICKS_MAX:,}: count={self.ticks}")


def measure(settings: MemorySettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: a process does not serve, or counts nothing.
    """
    market = bench.market()
    with (
        bench.progress.step(f"memory: {settings.ticks + WARM_UP_TICKS:,} ticks through a daemon"),
        daemon(bench.folder, bench.daemon) as served,
    ):
        at_start_kib = served.resident_kib
        run = pump(bench.folder, served, market, settings.ticks + WARM_UP_TICKS)
        samples = [*run.resident_kib, (run.answered, served.resident_kib)]
    figures: dict[str, Any] = {
        "resident_mib": round(samples[-1][1] / 1024, 1),
        "resident_at_start_mib": round(at_start_kib / 1024, 1),
        "growth_kib_over_million_ticks": round(floor_growth_kib(samples, WARM_UP_TICKS) * 1e6 / settings.ticks, 1),
        **bytes_per_state(bench.daemon),
        "ticks": len(run.sent_ns),
        "refused": run.refused,
        "lost": run.lost,
        "resident_kib_by_ticks": samples,
    }
    with bench.progress.step("memory: allocations, counted from inside"):
        figures |= _allocations(bench, market, settings.ticks)
    raw = [raw_rows(0, run.sent_ns, run.sent_ns, run.received_ns)]
    return Outcome("memory", figures, bench.conditions(market, None), SHOWN, raw)


def floor_growth_kib(samples: list[tuple[int, int]], warm_up_ticks: int) -> int:
    """Return how much the least resident memory grew from the first half of the ticks after warm-up to the second, twice.

    Args:
        samples: (ticks answered, resident KiB), ascending.
        warm_up_ticks: samples before them don't count, as long as two others are left.
    """
    warm = [kib for answered, kib in samples if answered >= warm_up_ticks]
    if len(warm) < 2:
        warm = [kib for _, kib in samples]
    half = len(warm) // 2
    return 2 * (min(warm[half:]) - min(warm[:half] or warm))


def bytes_per_state(options: DaemonOptions) -> dict[str, int]:
    """Return what the arena holds for each state, for a model of the largest size allowed and for the one in use."""
    sizes = sizes_of(options)
    header = pack(read_model(options).model).header
    found = {
        "bytes_per_state_reservoir": sizes.state_words * 4,
        "bytes_per_state_features": sizes.running_words * 8,
        "bytes_per_state_journal": sizes.journal_ticks * _TICK_SLOT_BYTES,
        "bytes_per_state_used_by_model": state_words(header) * 4 + running_words(header) * 8,
        "bytes_per_session_rings": sizes.slots * (_TICK_SLOT_BYTES + PREDICTION_BYTES),
        "arena_bytes": sizes.arena_bytes,
    }
    found["bytes_per_state"] = sum(found[f"bytes_per_state_{part}"] for part in ("reservoir", "features", "journal"))
    return found


def _allocations(bench: Bench, market: Market, ticks: int) -> dict[str, Any]:
    """Count in a process of its own."""
    plan = {
        "ticks": str(market.path),
        "model": bench.daemon.model,
        "sets": bench.daemon.sets,
        "engine_ticks": min(ENGINE_TICKS, ticks),
        "messages": min(MESSAGES, ticks),
    }
    return run_part("allocations", plan, bench.folder, _TOOL_TIMEOUT_S)
