"""What every benchmark is told: the market, the daemon, the placement, who watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock_tuning.bench import placement
from penstock_tuning.bench.market import Market, find_market
from penstock_tuning.bench.placement import Placement
from penstock_tuning.bench.processes import DaemonOptions
from penstock_tuning.bench.progress import Progress


@dataclass(frozen=True)
class Bench:
    """The setting of one benchmark.

    Attributes:
        folder: private, for sockets, logs and simulated ticks.
        daemon: how daemons are started.
        ticks: the tick file that was named, if one was.
        placement_name: "split" or "free"; empty for the benchmark's own choice.
        progress: told what is being done.
    """

    folder: Path
    daemon: DaemonOptions = field(default_factory=DaemonOptions)
    ticks: Path | None = None
    placement_name: str = ""
    progress: Progress = field(default_factory=lambda: Progress(enabled=False))

    def market(self) -> Market:
        """Return the market to measure with; see find_market()."""
        return find_market(self.ticks, self.folder)

    def placement(self, default: str) -> Placement:
        """Return where the two sides run: *default*, unless the user chose."""
        return placement.choose(self.placement_name or default)

    def conditions(self, market: Market | None, place: Placement | None) -> dict[str, Any]:
        """Return under which conditions figures hold, for their JSON and text."""
        found: dict[str, Any] = {"market": market.name if market else "", "placement": place.words() if place else ""}
        found["model"] = Path(self.daemon.model).name if self.daemon.model else "the embedded demonstration model"
        found["settings"] = list(self.daemon.sets)
        return found
