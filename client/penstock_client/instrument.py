"""What a session's ticks are about: an id in the records, a name for people, and the scale of the sizes.

An instrument_id is unique in a session, and so is (dataset, symbol), which is what two recordings have in common where
their ids differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INSTRUMENT_ID_MAX: Final = 2**32 - 1
SYMBOL_CHARACTERS_MAX: Final = 64
SIZE_SCALE_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument of a session, as in ``penstock.v1.Instrument``.

    Attributes:
        instrument_id: stands in the tick records; any u32.
        symbol: the venue's name, 1 to 64 characters.
        dataset: where the symbol is defined, such as "BINANCE.USDM"; may be empty.
        size_scale: how many units of the records' size fields make one contract or coin; at least 1.

    Raises:
        ValueError: a field is out of range; names it.
    """

    instrument_id: int
    symbol: str
    dataset: str = ""
    size_scale: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.instrument_id <= INSTRUMENT_ID_MAX:
            raise ValueError(f"instrument_id must be in 0 to {INSTRUMENT_ID_MAX}: instrument_id={self.instrument_id}")
        if not 1 <= len(self.symbol) <= SYMBOL_CHARACTERS_MAX:
            raise ValueError(f"symbol must have 1 to {SYMBOL_CHARACTERS_MAX} characters: symbol={self.symbol!r}")
        if not 1 <= self.size_scale <= SIZE_SCALE_MAX:
            raise ValueError(f"size_scale must be in 1 to {SIZE_SCALE_MAX}: size_scale={self.size_scale}")

    @property
    def key(self) -> tuple[str, str]:
        """(dataset, symbol): what makes two instruments the same one."""
        return (self.dataset, self.symbol)
