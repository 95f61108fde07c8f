"""What a simulated market is made of: its instruments, how busy it is, and how much its book tells.

    the same settings give the same ticks, byte for byte, on every platform and NumPy version

Every instrument has its own tick, price and size scale, taken from a short list that repeats with other symbols, so
that a market of many instruments mixes large-tick and small-tick prices as a real one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INSTRUMENTS_MAX: Final = 64
SECONDS_MAX: Final = 7 * 24 * 3600
RATE_MAX: Final = 100_000
DATASET: Final = "PENSTOCK.SIM"
START_NS: Final = 1_704_067_200_000_000_000  # 2024-01-01 00:00:00 UTC.


class MarketError(ValueError):
    """A setting of the simulator is out of its range; the sentence names it, its value and the mend."""


@dataclass(frozen=True)
class Listing:
    """One instrument's fixed numbers."""

    symbol: str
    tick_price: int  # Smallest price step, in 1e-9 of the quote currency.
    first_ticks: int  # First bid, in tick_price.
    size_unit: int  # Size of the smallest order, in the instrument's size scale.
    size_scale: int  # Sizes in the records are in 1/size_scale of the asset.


_LISTINGS: Final = (
    Listing("SIMA", 1_000_000_000, 60_000, 25, 1000),
    Listing("SIMB", 100_000_000, 25_000, 40, 1000),
    Listing("SIMC", 10_000, 110_000, 1, 1),
    Listing("SIMD", 10_000_000, 25_000, 3, 1),
)


@dataclass(frozen=True)
class MarketSettings:
    """Settings of one simulated market.

    Raises:
        MarketError: a value is out of range.
    """

    seed: int = 1
    instruments: int = 2  # The first one leads: its moves pull the flow of the others.
    ticks_per_second: float = 450.0  # Of the whole market, in the long run; bursts are a hundred times as dense.
    signal: float = 1.0  # In [0, 1]. 1: an emptied queue always moves the price its way; 0: directions are fair coins.
    start_ns: int = START_NS

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if not 0 <= self.seed < 2**64:
            raise MarketError(f"seed must be a whole number from 0 to 2**64 - 1: seed={self.seed}")
        if not 1 <= self.instruments <= INSTRUMENTS_MAX:
            raise MarketError(f"instruments must be from 1 to {INSTRUMENTS_MAX}: instruments={self.instruments}")
        if not 1.0 <= self.ticks_per_second <= RATE_MAX:
            raise MarketError(f"rate must be from 1 to {RATE_MAX} ticks per second: rate={self.ticks_per_second}")
        if not 0.0 <= self.signal <= 1.0:
            raise MarketError(f"signal must be from 0 (fair coins) to 1: signal={self.signal}")
        if not 0 < self.start_ns < 2**62:
            raise MarketError(f"start_ns must be a Unix time in nanoseconds from 1 to 2**62: start_ns={self.start_ns}")

    def listings(self) -> list[Listing]:
        """Return one listing per instrument, in order of instrument id (which starts at 1)."""
        rows = []
        for index in range(self.instruments):
            base = _LISTINGS[index % len(_LISTINGS)]
            round_number = index // len(_LISTINGS)
            symbol = base.symbol if round_number == 0 else f"{base.symbol}{round_number}"
            rows.append(Listing(symbol, base.tick_price, base.first_ticks, base.size_unit, base.size_scale))
        return rows
