"""``penstock-bench throughput``: predictions per second at full speed, by gRPC and in process.

grpc_predictions_per_s         one BULK session over a Unix socket, client and daemon in processes of their own
in_process_predictions_per_s   the daemon's rings and engine thread, without gRPC
kernel_predictions_per_s       features, reservoir and readout in a plain loop
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.in_process import engine_in_process, engine_rate, kernel_rate
from penstock_tuning.bench.market import repeated
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.placement import SPLIT
from penstock_tuning.bench.processes import daemon
from penstock_tuning.bench.pump import PumpRun, pump
from penstock_tuning.bench.raw import raw_rows
from penstock_tuning.bench.settings import Bench

TICKS_MAX = 5_000_000  # Everything is held in memory.
SHOWN = (
    "grpc_predictions_per_s",
    "in_process_predictions_per_s",
    "kernel_predictions_per_s",
    "ticks",
    "refused",
    "lost",
)


@dataclass(frozen=True)
class ThroughputSettings:
    """How many ticks, how often."""

    ticks: int = 500_000
    repeat: int = 3

    def __post_init__(self) -> None:
        """Check the user's numbers."""
        if not 1 <= self.ticks <= TICKS_MAX:
            raise BenchError(f"--count must be from 1 to {TICKS_MAX:,}: count={self.ticks}")
        if not 1 <= self.repeat <= 1000:
            raise BenchError(f"--repeat must be from 1 to 1,000: repeat={self.repeat}")


def measure(settings: ThroughputSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: the daemon does not serve.
    """
    market = bench.market()
    instruments, recorded = market.read()
    ticks = repeated(recorded, settings.ticks)
    place = bench.placement(SPLIT)
    runs: list[PumpRun] = []
    with daemon(bench.folder, bench.daemon, place.daemon) as served:
        for number in range(settings.repeat):
            with bench.progress.step(f"throughput: gRPC, {settings.ticks:,} ticks, {number + 1} of {settings.repeat}"):
                runs.append(pump(bench.folder, served, market, settings.ticks, place.strategy))
    with bench.progress.step("throughput: in process"), engine_in_process(bench.daemon, instruments) as engine:
        in_process = [engine_rate(engine, ticks) for _ in range(settings.repeat)]
        kernels = [kernel_rate(engine.packed, ticks) for _ in range(settings.repeat)]
    figures: dict[str, Any] = {
        "grpc_predictions_per_s": round(median(run.predictions_per_s for run in runs), 1),
        "in_process_predictions_per_s": round(median(in_process), 1),
        "kernel_predictions_per_s": round(median(kernels), 1),
        "ticks": sum(len(run.sent_ns) for run in runs),
        "predictions": sum(run.answered - run.refused for run in runs),
        "refused": sum(run.refused for run in runs),
        "lost": sum(run.lost for run in runs),
        "repeats": [
            {
                "grpc_predictions_per_s": round(run.predictions_per_s, 1),
                "in_process_predictions_per_s": round(engine_one, 1),
                "kernel_predictions_per_s": round(kernel_one, 1),
            }
            for run, engine_one, kernel_one in zip(runs, in_process, kernels, strict=True)
        ],
    }
    raw = [raw_rows(number, run.sent_ns, run.sent_ns, run.received_ns) for number, run in enumerate(runs)]
    return Outcome("throughput", figures, bench.conditions(market, place), SHOWN, raw)
