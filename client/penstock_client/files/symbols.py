"""Which symbol a record of a DBN file is about.

A DBN header maps symbols to instrument ids by date, so that one id can be two instruments and one instrument can
have two ids. In a session an id is one instrument and an instrument has one id:

    one symbol <-> one instrument_id        after resolve(); ids stay as they are wherever that already holds
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_client.files.catalogue import Entry
from penstock_client.files.errors import TickFileError
from penstock_client.instruments import NAME_CHARACTERS_MAX, Instrument

_DAY_NS = 86_400 * 10**9
_EPOCH = dt.date(1970, 1, 1)


class Interval(NamedTuple):
    """From *start_ns* until before *end_ns* (by ts_recv), *instrument_id* stands for *symbol*."""

    instrument_id: int
    symbol: str
    start_ns: int
    end_ns: int


def intervals_of(mappings: Mapping[str, Iterable[Mapping[str, Any]]], *, ids_are_keys: bool) -> list[Interval]:
    """Flatten the mappings of a DBN header; what maps to no id (or from none) is left out.

    Args:
        mappings: as ``databento_dbn.Metadata.mappings``.
        ids_are_keys: the file was asked for by instrument id, so its keys are ids and its values symbols.
    """
    found = []
    for key, values in mappings.items():
        for value in values:
            text, symbol = (key, str(value["symbol"])) if ids_are_keys else (str(value["symbol"]), key)
            if symbol and text.isascii() and text.isdigit() and int(text) < 2**32:
                start, end = (_ns(value["start_date"]), _ns(value["end_date"]))
                found.append(Interval(int(text), symbol, start, max(end, start + _DAY_NS)))
    return found


def resolve(
    path: Path, ticks: NDArray[np.void], intervals: list[Interval], dataset: str, entry: Entry
) -> tuple[list[Instrument], NDArray[np.void]]:
    """Name the instruments of *ticks*; an id that nothing names is named by its number.

    Args:
        path: for the sentence.
        ticks: shape (any,), dtype TICK_DTYPE.
        intervals: of the header.
        dataset: of the header.
        entry: of the catalogue; its names come before the header's.

    Returns:
        instruments: in order of instrument_id.
        ticks: the same array, or a copy with other ids where an id was two instruments or an instrument had two.

    Raises:
        TickFileError: a symbol is longer than sessions allow.
    """
    present = [int(one) for one in np.unique(ticks["instrument_id"])]
    symbols: dict[int, set[str]] = {one: set() for one in present}
    for interval in intervals:
        if interval.instrument_id in symbols:
            symbols[interval.instrument_id].add(interval.symbol)
    names = {one: min(found, default=str(one)) for one, found in symbols.items()}
    if len(set(names.values())) < len(names) or any(len(found) > 1 for found in symbols.values()):
        names, ticks = _split(ticks, intervals, names)
    instruments = []
    for one, in_header in sorted(names.items()):
        home, symbol = entry.names.get(one, (dataset, in_header))
        if len(symbol) > NAME_CHARACTERS_MAX:
            raise TickFileError(
                path,
                f"a session takes symbols of 1 to {NAME_CHARACTERS_MAX} characters",
                mend="convert the file with a shorter symbol",
                field="symbol",
                value=symbol,
            )
        instruments.append(Instrument(one, symbol, home, entry.scale_of(one)))
    return instruments, ticks


def _split(
    ticks: NDArray[np.void], intervals: list[Interval], names: dict[int, str]
) -> tuple[dict[int, str], NDArray[np.void]]:
    """Give each symbol one id: the first it has in the file, or the smallest free one where that is taken."""
    order: dict[str, int] = {}
    which = np.empty(len(ticks), dtype=np.int64)
    for one, symbol in names.items():
        which[ticks["instrument_id"] == one] = order.setdefault(symbol, len(order))
    for interval in intervals:
        within = (
            (ticks["instrument_id"] == interval.instrument_id)
            & (ticks["ts_recv"] >= interval.start_ns)
            & (ticks["ts_recv"] < interval.end_ns)
        )
        which[within] = order.setdefault(interval.symbol, len(order))
    mended = ticks.copy()
    named: dict[int, str] = {}
    seen, first = np.unique(which, return_index=True)
    by_index = {index: symbol for symbol, index in order.items()}
    for index in seen[np.argsort(first)]:
        one = int(ticks["instrument_id"][first[np.searchsorted(seen, index)]])
        if one in named:
            one = next(free for free in range(1, 2**32) if free not in named and free not in names)
        named[one] = by_index[int(index)]
        mended["instrument_id"][which == index] = one
    return named, mended


def date_of(time_ns: int) -> dt.date:
    """Return the UTC day of *time_ns*, Unix nanoseconds."""
    return _EPOCH + dt.timedelta(days=time_ns // _DAY_NS)


def _ns(date: dt.date) -> int:
    return max((date - _EPOCH).days, 0) * _DAY_NS
