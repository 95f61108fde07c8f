"""``penstock-bench feed``: a recorded feed over loopback multicast, from the kernel's stamp of a packet on.

    p50_us .. max_us             kernel stamp to prediction published, by the stamps in each prediction
    delivery_p50_us ..           kernel stamp to receipt by a subscriber in another process, on one host's clock

The player is ``penstock feed`` at the recording's own pace, open loop, from its busiest stretch; how late the player itself
was is given beside it, and is no part of the figures: a packet's time begins when the kernel has it. A stall probe runs
beside all, as with ``load``.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock_client.feed_file import PAYLOAD_ITCH, open_feed_file
from penstock_host.affinity import online_cpus
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.feed_client import PLAYER_EXTRA_S
from penstock_tuning.bench.figures import latency_figures
from penstock_tuning.bench.machine import stolen_ms
from penstock_tuning.bench.market import Market
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.placement import SPLIT, Placement
from penstock_tuning.bench.processes import DaemonOptions, Served, daemon
from penstock_tuning.bench.raw import Raw, raw_rows
from penstock_tuning.bench.settings import Bench
from penstock_tuning.bench.stall_probe import StallProbe
from penstock_tuning.bench.stretch import StretchSettings, over_repeats

GROUP: Final = "239.255.82.1"
COUNTS: Final = ("messages", "predictions", "lost", "gaps", "packets", "unsound", "unstamped")
SHOWN: Final = (
    "p50_us",
    "p99_us",
    "max_us",
    "delivery_p50_us",
    "delivery_p99_us",
    "delivery_max_us",
    "delivery_share_within_5ms",
    "delivery_share_within_5ms_outside_stalls",
    "player_late_p50_us",
    "player_late_p99_us",
    "probe_max_us",
    *COUNTS,
)
_LOST: Final = ("penstock_feed_lost_messages_total", "penstock_feed_ring_drops_total")
_GAPS: Final = "penstock_feed_gaps_total"


@dataclass(frozen=True)
class FeedSettings(StretchSettings):
    """What is played, how fast, how often; *date* is an ITCH file's day, and says that --ticks names one."""

    date: str = ""

    def __post_init__(self) -> None:
        """Check the user's values."""
        super().__post_init__()
        if self.date:
            try:
                dt.date.fromisoformat(self.date)
            except ValueError as error:
                raise BenchError(f"--date must be a day as YYYY-MM-DD: date={self.date!r}") from error


def measure(settings: FeedSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: the daemon does not serve, or a play failed.
    """
    if settings.date and bench.ticks is None:
        raise BenchError("--date is for an ITCH file: name one with --ticks")
    market = bench.market()
    place = bench.placement(SPLIT)
    group = f"{GROUP}:{_free_port()}"
    options = DaemonOptions(bench.daemon.model, (*_feed_sets(market, settings.date, group), *bench.daemon.sets))
    with daemon(bench.folder, options, place.daemon) as served:

        def once(number: int) -> tuple[dict[str, Any], Raw]:
            return _one_repeat(number, settings, bench.folder, market, place, served, group)

        figures, raw = over_repeats("feed", settings, bench, once, counts=COUNTS)
    conditions = bench.conditions(market, place) | settings.conditions
    conditions |= {"payload": figures["repeats"][0]["payload"], "interface": "lo"}
    return Outcome("feed", figures, conditions, SHOWN, raw)


def _one_repeat(
    number: int,
    settings: FeedSettings,
    folder: Path,
    market: Market,
    place: Placement,
    served: Served,
    group: str,
) -> tuple[dict[str, Any], Raw]:
    """Play once and return its figures and rows."""
    times = folder / "feed.npy"
    flags = [str(market.path), "--group", group, "--speed", f"{settings.speed:g}", "--seconds", f"{settings.seconds:g}"]
    flags += ["--date", settings.date] if settings.date else ["--start-busiest"]  # A book is built from its start.
    timeout_s = settings.seconds / settings.speed + PLAYER_EXTRA_S
    plan = {"daemon": served.address, "player": flags, "times": str(times), "timeout_s": timeout_s}
    before, stolen_before_ms = _feed_counts(served), stolen_ms()
    with StallProbe(online_cpus()) as probe:
        found = run_part("feed_client", plan, folder, timeout_s + PLAYER_EXTRA_S, place.strategy)
    counted = {name: value - before.get(name, 0) for name, value in _feed_counts(served).items()}
    stolen = stolen_ms() - stolen_before_ms
    player = found["player"]
    wire_ns, published_ns, received_ns = np.load(times)
    lost = int(sum(value for name, value in counted.items() if name.startswith(_LOST))) + found["missing"]
    if player["payload"] != PAYLOAD_ITCH:  # Each message is a tick, and each tick has one prediction.
        lost = player["messages"] - found["predictions"]
    stalled = probe.stalls.mask(wire_ns, received_ns)
    beside = probe.stalls.figures(wire_ns, received_ns)
    beside["delivery_share_within_5ms_outside_stalls"] = beside.pop("share_within_5ms_outside_stalls")
    delivery = latency_figures(wire_ns, received_ns)
    figures: dict[str, Any] = {
        **latency_figures(wire_ns, published_ns),
        **{f"delivery_{name}": value for name, value in delivery.items()},
        "player_late_p50_us": player["late_p50_us"],
        "player_late_p99_us": player["late_p99_us"],
        **beside,
        "stolen_ms": stolen,
        "messages": player["messages"],
        "packets": player["packets"],
        "predictions": found["predictions"],
        "lost": lost,
        "gaps": int(sum(value for name, value in counted.items() if name.startswith(_GAPS))),
        "unsound": found["unsound"],
        "unstamped": found["unstamped"],
        "payload": player["payload"],
        "stall_probe": probe.stalls.priority,
    }
    return figures, raw_rows(number, wire_ns, published_ns, received_ns, stalled)


def _feed_sets(market: Market, date: str, group: str) -> tuple[str, ...]:
    """Return the daemon's settings for a feed of this file."""
    sets = (f"feed.group={group}", "feed.interface=lo", "metrics.address=127.0.0.1:0")
    if not date:
        instruments, _ = market.read()
        named = ", ".join(f"{one.symbol}={one.instrument_id}:{one.size_scale}" for one in instruments)
        return (*sets, "feed.payload=dbn", f"feed.instruments={named}")
    file = open_feed_file(market.path, dt.date.fromisoformat(date))
    stocks = []
    for start, end in zip(file.starts, file.starts[1:], strict=False):
        message = file.blocks[start + 2 : end]
        if message[0] == ord("R"):
            stocks.append(bytes(message[11:19]).decode("ascii").strip())
    return (*sets, "feed.payload=itch", f"feed.date={date}", f"feed.instruments={', '.join(dict.fromkeys(stocks))}")


def _free_port() -> int:
    """Return a UDP port of the group that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
        trying.bind((GROUP, 0))
        port: int = trying.getsockname()[1]
    return port


def _feed_counts(served: Served) -> dict[str, float]:
    """Return the daemon's counters of its feed, by name with labels.

    Raises:
        BenchError: it shows none.
    """
    lines = served.log.read_text(encoding="utf-8", errors="replace").splitlines()
    serving = [json.loads(line) for line in lines if line.startswith("{") and '"serving"' in line]
    if not serving:
        raise BenchError(f"penstockd did not say where its metrics are: {served.log}")
    host, _, port = str(serving[-1]["metrics"]).rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    rows = [line.rpartition(" ") for line in text.splitlines() if line.startswith("penstock_feed_")]
    return {name: float(value) for name, _, value in rows}
