"""``penstock-bench grpc``: the round trip of one tick, against a bare grpc.aio echo of messages of the same sizes.

    bare      write the bytes of a TickBatch, read the bytes of a PredictionBatch, nothing else
    penstock  session.send(tick), session.receive(): a real daemon predicts

Both servers run in processes of their own with the same options and event loop, both clients on one loop of a third
process with the same channel options, and small blocks take turns (each pair in the other order than the last), so that
whatever the machine does meanwhile happens to both. Closed loop: one message is under way at any time. A process is
faster or slower than its twin by a tenth for as long as it lives, by where its threads and pages came to lie: so all
three are started anew for each repeat, and figures are medians over repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.figures import Figures, latency_figures, median_of
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.placement import SPLIT
from penstock_tuning.bench.processes import daemon, echo_server
from penstock_tuning.bench.raw import Raw, raw_rows
from penstock_tuning.bench.round_trip_client import BARE, PENSTOCK
from penstock_tuning.bench.settings import Bench

SHOWN: Final = (
    "p50_ratio",
    "p99_ratio",
    "penstock_p50_us",
    "bare_p50_us",
    "penstock_p99_us",
    "bare_p99_us",
    "trips",
)
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class RoundTripSettings:
    """How many round trips each side makes in each repeat, how many at a time, and how many repeats there are."""

    trips: int = 3_000
    block: int = 100
    repeat: int = 5

    def __post_init__(self) -> None:
        """Check the user's numbers."""
        if not 1 <= self.repeat <= 1000:
            raise BenchError(f"--repeat must be from 1 to 1,000: repeat={self.repeat}")
        if not 1 <= self.trips <= 10_000_000:
            raise BenchError(f"--trips must be from 1 to 10,000,000: trips={self.trips}")
        if not 1 <= self.block <= self.trips:
            raise BenchError(f"--block must be from 1 to --trips={self.trips}: block={self.block}")


def measure(settings: RoundTripSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: a server does not serve.
    """
    market = bench.market()
    place = bench.placement(SPLIT)
    times = bench.folder / "round_trips.npy"
    repeats: list[Figures] = []
    raw: list[Raw] = []
    for number in range(settings.repeat):
        with (
            bench.progress.step(f"grpc: {settings.trips:,} round trips each way, {number + 1} of {settings.repeat}"),
            echo_server(bench.folder, place.daemon) as echo,
            daemon(bench.folder, bench.daemon, place.daemon) as served,
        ):
            plan = {
                "echo": echo.address,
                "daemon": served.address,
                "ticks": str(market.path),
                "times": str(times),
                "trips": settings.trips,
                "block": settings.block,
            }
            timeout_s = _TIMEOUT_S + 0.02 * settings.trips
            run_part("round_trip_client", plan, bench.folder, timeout_s, place.strategy)
        sent_ns, received_ns = np.load(times)
        repeats.append(_compared(sent_ns, received_ns))
        raw += [raw_rows(2 * number + one, sent_ns[one], sent_ns[one], received_ns[one]) for one in (BARE, PENSTOCK)]
    figures: dict[str, Any] = {**median_of(repeats, summed=("trips",)), "repeats": repeats}
    return Outcome("grpc", figures, bench.conditions(market, place), SHOWN, raw)


def _compared(sent_ns: NDArray[np.int64], received_ns: NDArray[np.int64]) -> Figures:
    """Return both ratios and both sides' microseconds, of times of shape (2, trips)."""
    bare, penstock = (latency_figures(sent_ns[side], received_ns[side]) for side in (BARE, PENSTOCK))
    return {
        **{f"{key}_ratio": round(penstock[f"{key}_us"] / bare[f"{key}_us"], 4) for key in ("p50", "p99")},
        **{f"penstock_{key}": value for key, value in penstock.items() if key.endswith("_us")},
        **{f"bare_{key}": value for key, value in bare.items() if key.endswith("_us")},
        "trips": sent_ns.shape[1],
    }
