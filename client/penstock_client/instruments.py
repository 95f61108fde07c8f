"""What a session declares before its first tick: instruments and pace.

Checked here, before anything is sent, so that a mistake of the caller costs no round trip and names the argument.
Imports neither gRPC nor NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import SupportsIndex

from penstock_client.errors import LocalUsageError

NAME_CHARACTERS_MAX = 64  # Of symbol and client_name, by the contract.


class Pace(IntEnum):
    """How a session's ticks arrive; the numbers are those of the contract."""

    REALTIME = 1  # As the market makes them: budgets, LATE and STALE apply.
    BULK = 2  # As fast as they are taken: a replay.


@dataclass(frozen=True, slots=True)
class Instrument:
    """One thing that a session's ticks are about.

    Args:
        instrument_id: stands in the tick records; any u32, unique in a session.
        symbol: the venue's name, 1 to 64 characters.
        dataset: where the symbol is defined, such as "BINANCE.USDM"; (dataset, symbol) is unique in a session.
        size_scale: how many units of the records' size fields make one contract or coin.
    """

    instrument_id: int
    symbol: str
    dataset: str = ""
    size_scale: int = 1


def checked_instruments(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """Return *instruments* as a tuple.

    Raises:
        LocalUsageError: none at all, a field out of its range, or two that can't be told apart.
    """
    checked = tuple(instruments)
    if not checked:
        raise LocalUsageError("instruments must name at least one: instruments=[]; pass [Instrument(1, 'BTCUSDT')]")
    ids: set[int] = set()
    names: set[tuple[str, str]] = set()
    for index, instrument in enumerate(checked):
        where = f"instruments[{index}]"
        if not isinstance(instrument, Instrument):
            raise LocalUsageError(f"{where} must be an Instrument: was {type(instrument).__name__}")
        _check_number(f"{where}.instrument_id", instrument.instrument_id, 0, 2**32 - 1)
        _check_number(f"{where}.size_scale", instrument.size_scale, 1, 2**64 - 1)
        check_text(f"{where}.symbol", instrument.symbol, at_least=1)
        check_text(f"{where}.dataset", instrument.dataset, at_least=0)
        if instrument.instrument_id in ids:
            raise LocalUsageError(
                f"{where}.instrument_id must be unique in a session: instrument_id={instrument.instrument_id}; "
                "give each instrument a number of its own"
            )
        if (instrument.dataset, instrument.symbol) in names:
            raise LocalUsageError(
                f"{where} must be unique by (dataset, symbol): dataset={instrument.dataset!r}, "
                f"symbol={instrument.symbol!r}; drop one, or name another dataset"
            )
        ids.add(instrument.instrument_id)
        names.add((instrument.dataset, instrument.symbol))
    return checked


def check_text(name: str, value: object, *, at_least: int) -> None:
    """Raise LocalUsageError unless *value* is a string of *at_least* to 64 characters."""
    if not isinstance(value, str) or not at_least <= len(value) <= NAME_CHARACTERS_MAX:
        raise LocalUsageError(
            f"{name} must be a string of {at_least} to {NAME_CHARACTERS_MAX} characters: was {value!r}"
        )


def _check_number(name: str, value: object, lowest: int, highest: int) -> None:
    """Raise LocalUsageError unless *value* is an integer in *lowest* to *highest*."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise LocalUsageError(f"{name} must be an integer: was {value!r}")
    if not lowest <= value.__index__() <= highest:
        raise LocalUsageError(f"{name} must be in {lowest} to {highest}: was {value!r}")
