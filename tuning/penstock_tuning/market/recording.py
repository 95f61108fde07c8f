"""A simulated market as a file: what ``penstock-train simulate`` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock_client.files import TickFileError, write_dbn
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import Market, simulate


def write_market(
    path: Path, settings: MarketSettings, seconds: float, on_progress: Callable[[float], None] | None = None
) -> Market:
    """Simulate *seconds* of the market of *settings* into the DBN file *path*; zstd where its name ends in ``.zst``.

    Args:
        path: ends in .dbn or .dbn.zst. Overwritten.
        settings: of the market.
        seconds: of market time.
        on_progress: called with the simulated seconds, now and then.

    Raises:
        MarketError: *seconds* is out of range.
        TickFileError: the file can't be written, or its name says another format.
    """
    if not path.name.endswith((".dbn", ".dbn.zst")):
        raise TickFileError(path, "the simulator writes DBN", mend="end the name in .dbn or .dbn.zst")
    if not path.absolute().parent.is_dir():
        raise TickFileError(path, "can't be written: its folder is not there", mend="make the folder first")
    market = simulate(settings, seconds, on_progress)
    write_dbn(path, market.ticks, market.instruments, market.dataset)
    return market
