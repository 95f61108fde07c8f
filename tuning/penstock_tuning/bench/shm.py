"""``penstock-bench shm``: the round trip of one tick through shared memory, beside everything that it is made of.

    echo        a tick's bytes into a ring, a prediction's bytes out of another; nobody predicts
    step        features, reservoir and readout of one tick, in a compiled loop of this process
    rtt         session.send(tick), session.receive() over rings, spinning; a real daemon predicts
    blocking    the same, sleeping on the socket until the daemon rings
    grpc        the same over gRPC, on an event loop
    replay      the recorded file at the market's pace through rings, open loop
    throughput  a BULK session over rings at full speed

The strategy has one half of the processors, the other side the other. Who spins wants a processor of its own, so sides take
turns by repeat and not by block: the echo, then a daemon whose engine spins, then one that leaves its processor to gRPC.
Figures are medians over repeats.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from penstock_tuning.bench import load
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.figures import Figures, latency_figures, median_of
from penstock_tuning.bench.market import Market
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.placement import SPLIT, Placement
from penstock_tuning.bench.processes import DaemonOptions, daemon, ring_echo
from penstock_tuning.bench.raw import Raw, raw_rows
from penstock_tuning.bench.settings import Bench

SIDES: Final = (
    "rtt",
    "blocking",
    "grpc",
    "echo",
)  # The series of the raw file is four times the repeat, plus the place.
SHOWN: Final = (
    "rtt_p50_us",
    "rtt_p99_us",
    "blocking_p50_us",
    "grpc_p50_us",
    "speedup_p50",
    "echo_p50_us",
    "step_us",
    "ratio_to_floor",
    "predictions_per_s",
    "replay_p50_us",
    "replay_p99_us",
    "replay_share_within_5ms",
    "replay_lost",
    "lost",
)
_PART_TIMEOUT_S: Final = 120.0
_REPLAYED: Final = ("p50_us", "p99_us", "share_within_5ms", "share_within_5ms_outside_stalls", "probe_max_us", "lost")


@dataclass(frozen=True)
class ShmSettings:
    """How many round trips of each side and how many ticks at full speed, how long a replay, how many repeats."""

    trips: int = 20_000
    count: int = 500_000
    seconds: float = 10.0
    repeat: int = 5

    def __post_init__(self) -> None:
        """Check the user's numbers."""
        if not 1 <= self.repeat <= 1000:
            raise BenchError(f"--repeat must be from 1 to 1,000: repeat={self.repeat}")
        if not 1 <= self.trips <= 10_000_000:
            raise BenchError(f"--trips must be from 1 to 10,000,000: trips={self.trips}")
        if not 1 <= self.count <= 5_000_000:
            raise BenchError(f"--count must be from 1 to 5,000,000: count={self.count}")
        load.LoadSettings(1.0, self.seconds, self.repeat)


def measure(settings: ShmSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: a process does not serve, or a side broke its promise.
    """
    market = bench.market()
    place = bench.placement(SPLIT)
    runs = [_Repeat(number, settings, bench, market, place) for number in range(settings.repeat)]
    repeats = [run.measure() for run in runs]
    numbers: list[Figures] = [{key: value for key, value in one.items() if key != "stall_probe"} for one in repeats]
    figures: dict[str, Any] = dict(median_of(numbers, summed=("lost", "replay_lost")))
    figures["stall_probe"] = repeats[0]["stall_probe"]
    figures["repeats"] = repeats
    conditions = bench.conditions(market, place)
    conditions |= {"trips": settings.trips, "count": settings.count, "seconds": settings.seconds}
    return Outcome("shm", figures, conditions, SHOWN, [rows for run in runs for rows in run.raw])


class _Repeat:
    """One run of every side."""

    def __init__(self, number: int, settings: ShmSettings, bench: Bench, market: Market, place: Placement) -> None:
        self._number = number
        self._settings = settings
        self._bench = bench
        self._market = market
        self._place = place
        self.raw: list[Raw] = []

    def measure(self) -> dict[str, Any]:
        """Measure all sides and return the figures."""
        bench, place = self._bench, self._place
        spinning = DaemonOptions(bench.daemon.model, ("engine.idle=spin", *bench.daemon.sets))
        title = f"shm: repeat {self._number + 1} of {self._settings.repeat}"
        figures: dict[str, Any] = {}
        with bench.progress.step(f"{title}: empty echo"), ring_echo(bench.folder, place.daemon) as echo:
            figures["step_us"] = self._part("echo", echo.address, figures)["step_us"]
        with daemon(bench.folder, spinning, place.daemon) as served:
            with bench.progress.step(f"{title}: rings"):
                figures |= self._part("rings", served.address, figures)
            with bench.progress.step(f"{title}: open loop", self._settings.seconds):
                wanted = dataclasses.replace(load.LoadSettings(seconds=self._settings.seconds), shared_memory=True)
                replayed, _ = load.one_repeat(0, wanted, bench.folder, self._market, place, served)
        figures |= {f"replay_{name}": replayed[name] for name in _REPLAYED}
        figures["stall_probe"] = replayed["stall_probe"]
        with bench.progress.step(f"{title}: gRPC"), daemon(bench.folder, bench.daemon, place.daemon) as served:
            self._part("grpc", served.address, figures)
        figures["speedup_p50"] = round(figures["grpc_p50_us"] / figures["rtt_p50_us"], 2)
        floor_us = figures["echo_p50_us"] + figures["step_us"]
        figures["ratio_to_floor"] = round(figures["rtt_p50_us"] / floor_us, 3)
        return figures

    def _part(self, side: str, address: str, figures: dict[str, Any]) -> dict[str, Any]:
        """Run one side in a process of its own, add its latencies to *figures*, and return what else it found."""
        times = self._bench.folder / "shm.npz"
        plan = {
            "side": side,
            "address": address,
            "model": self._bench.daemon.model,
            "ticks": str(self._market.path),
            "times": str(times),
            "trips": self._settings.trips,
            "count": self._settings.count,
        }
        found = run_part("shm_client", plan, self._bench.folder, _PART_TIMEOUT_S, self._place.strategy)
        with np.load(times) as named:
            for name, (sent_ns, received_ns) in named.items():
                self.raw.append(raw_rows(4 * self._number + SIDES.index(name), sent_ns, sent_ns, received_ns))
                latency = latency_figures(sent_ns, received_ns)
                figures |= {f"{name}_{key}": latency[key] for key in ("p50_us", "p99_us", "max_us")}
        return found
