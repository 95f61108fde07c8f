"""Which ticks a benchmark runs on: a file that is named, the recorded Binance file, or a simulated market.

Figures say which: bursts make the tail of every latency, so those of two markets can't be compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.files import merge, open_ticks
from penstock_client.instruments import Instrument
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.market.recording import write_market
from penstock_tuning.market.settings import MarketSettings

RECORDED: Final = "binance_usdm_20240808.mbp-1.dbn.zst"
SIMULATED_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Market:
    """Ticks to measure with.

    Attributes:
        path: the file that holds them.
        name: for the figures.
    """

    path: Path
    name: str

    def read(self) -> tuple[list[Instrument], NDArray[np.void]]:
        """Return its instruments and ticks.

        Raises:
            TickFileError: the file is not sound.
        """
        return merge([open_ticks(self.path)])


def find_market(named: Path | None, folder: Path) -> Market:
    """Return the market to measure with.

    Args:
        named: by the user; None for the recorded file where there is one, else a simulated market.
        folder: where a simulated one is written.

    Raises:
        BenchError: the named file is not there.
    """
    if named is not None:
        if not named.is_file():
            raise BenchError(f"--ticks names no file: ticks={str(named)!r}")
        return Market(named, named.name)
    recorded = Path(os.environ.get("PENSTOCK_DATA") or "../shared/data") / RECORDED
    if recorded.is_file():
        return Market(recorded, recorded.name)
    path = folder / "market.dbn.zst"
    if not path.exists():
        write_market(path, MarketSettings(), SIMULATED_SECONDS)
    return Market(path, f"simulated, {SIMULATED_SECONDS:.0f} s, seed {MarketSettings().seed}")


def repeated(ticks: NDArray[np.void], count: int) -> NDArray[np.void]:
    """Return *count* ticks: *ticks* again and again, with times that go on where the last round ended.

    Args:
        ticks: shape (any,), at least one.
        count: of the result.
    """
    found = np.resize(ticks, count)
    rounds = np.arange(count, dtype=np.uint64) // np.uint64(len(ticks))
    length_ns = np.uint64(int(ticks["ts_recv"].max()) - int(ticks["ts_recv"].min()) + 1_000_000)
    for name in ("ts_recv", "ts_event"):
        defined = found[name] < np.uint64(2**63)
        found[name][defined] += (rounds * length_ns)[defined]
    return found
