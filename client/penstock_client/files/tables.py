"""A table of somebody's columns as ticks, and ticks as a table of ours.

    ticks_of_table(table_of_ticks(ticks, instruments), OWN) == ticks        to the byte

What a table does not tell: an undefined time or price, size 0, action T where a price and a size are, else M; side N;
flags LAST; all other fields 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import (
    TICK_DTYPE,
    TICK_LENGTH_WORDS,
    TICK_RTYPE,
    UNDEFINED_PRICE,
    UNDEFINED_TIME,
    BookFlag,
)
from penstock_client.extras import require
from penstock_client.files import values
from penstock_client.files.catalogue import Entry
from penstock_client.files.columns import REQUIRED_FIELDS, ColumnMapping
from penstock_client.files.errors import TickFileError
from penstock_client.instruments import NAME_CHARACTERS_MAX, Instrument

PRICE_FIELDS: Final = ("price", "bid_px", "ask_px")
SIZE_FIELDS: Final = ("size", "bid_sz", "ask_sz")
TIME_FIELDS: Final = ("ts_recv", "ts_event")
CODE_FIELDS: Final = ("action", "side")
PLAIN_FIELDS: Final = ("publisher_id", "flags", "depth", "ts_in_delta", "sequence", "bid_ct", "ask_ct")
_TRADE, _MODIFY, _NONE = ord("T"), ord("M"), ord("N")


def wanted_columns(path: Path, names: list[str], mapping: ColumnMapping) -> dict[str, str]:
    """Return field of the tick to column of the file, for every field that the file tells.

    Raises:
        TickFileError: a column is missing or there twice.
    """
    there = frozenset(names)
    fields = (*(name for name in TICK_DTYPE.names or () if name not in ("length", "rtype")), "symbol", "dataset")
    found = {}
    for name in fields:
        column = mapping.column_of(name, there)
        if column is None and name in REQUIRED_FIELDS:
            raise TickFileError(
                path,
                f"no column tells {name}; there are {', '.join(names) or 'no columns'}",
                mend=f"name it: --columns {name}=COLUMN, or see docs/tick-files.md",
                field=name,
            )
        if column is None:
            continue
        if names.count(column) != 1:
            problem = "there is no such column" if column not in there else "several columns have this name"
            raise TickFileError(path, problem, mend=f"the columns are {', '.join(names)}", field=name, value=column)
        found[name] = column
    return found


def ticks_of_table(
    path: Path, table: Any, mapping: ColumnMapping, entry: Entry
) -> tuple[list[Instrument], NDArray[np.void]]:
    """Make ticks of a table.

    Args:
        path: for the sentences, and its name for the symbol where nothing else tells one.
        table: a pyarrow.Table.
        mapping: what its columns mean.
        entry: of metadata.json, for size scales; the mapping's own scale comes first.

    Raises:
        TickFileError: a column is missing, a value doesn't fit, or instruments contradict each other.
    """
    columns = {
        name: values.Column(path, name, column, _flat(table.column(column)))
        for name, column in wanted_columns(path, table.column_names, mapping).items()
    }
    ticks = np.zeros(table.num_rows, dtype=TICK_DTYPE)
    ticks["length"], ticks["rtype"] = TICK_LENGTH_WORDS, TICK_RTYPE
    instruments = _instruments(path, ticks, columns, mapping, entry)
    scale: NDArray[np.uint64] | int = 1
    if instruments:
        ids = np.array([one.instrument_id for one in instruments], dtype=np.uint32)
        by_id = np.array([one.size_scale for one in instruments], dtype=np.uint64)
        scale = by_id[np.searchsorted(ids, ticks["instrument_id"])]
    for name in TIME_FIELDS:
        ticks[name] = values.times(columns[name], mapping, UNDEFINED_TIME) if name in columns else UNDEFINED_TIME
    for name in PRICE_FIELDS:
        ticks[name] = values.prices(columns[name], mapping, UNDEFINED_PRICE) if name in columns else UNDEFINED_PRICE
    for name in SIZE_FIELDS:
        if name in columns:
            ticks[name] = values.sizes(columns[name], mapping, scale)
    for name in PLAIN_FIELDS:
        if name in columns:
            ticks[name] = values.integers(columns[name], 0)
    if "flags" not in columns:
        ticks["flags"] = BookFlag.LAST
    trades = (ticks["price"] != UNDEFINED_PRICE) & (ticks["size"] > 0)
    ticks["action"] = (
        values.codes(columns["action"], _MODIFY) if "action" in columns else np.where(trades, _TRADE, _MODIFY)
    )
    ticks["side"] = values.codes(columns["side"], _NONE) if "side" in columns else _NONE
    return instruments, ticks


def table_of_ticks(ticks: NDArray[np.void], instruments: list[Instrument]) -> Any:
    """Return a pyarrow.Table that holds all of *ticks*: our field names and units, with symbol and dataset.

    Undefined prices and venue times are null; action and side are characters, or hexadecimal where they are none.
    """
    pyarrow = require("pyarrow", extra="files", purpose="writing CSV and Parquet files")
    arrays: dict[str, Any] = {}
    for name in TICK_DTYPE.names or ():
        whole = np.ascontiguousarray(ticks[name])
        if name in ("length", "rtype"):
            continue
        if name in CODE_FIELDS:
            text = np.array(
                [chr(code) if chr(code).isalnum() and code < 128 else f"0x{code:02x}" for code in range(256)]
            )
            arrays[name] = pyarrow.array(text[whole])
        elif name in (*PRICE_FIELDS, *TIME_FIELDS):
            undefined = UNDEFINED_PRICE if name in PRICE_FIELDS else UNDEFINED_TIME
            arrays[name] = pyarrow.array(whole, mask=whole == undefined)
        else:
            arrays[name] = pyarrow.array(whole)
    ids = np.array([one.instrument_id for one in instruments], dtype=np.uint32)
    order = np.argsort(ids)
    which = (
        order[np.searchsorted(ids, ticks["instrument_id"], sorter=order)] if len(ids) else np.zeros(0, dtype=np.int64)
    )
    for name in ("symbol", "dataset"):
        choices = pyarrow.array([getattr(one, name) for one in instruments], pyarrow.string())
        arrays[name] = choices.take(pyarrow.array(which))
    return pyarrow.table(arrays)


def _flat(column: Any) -> Any:
    """Return one array of a chunked column, dictionaries decoded."""
    pyarrow = require("pyarrow", extra="files", purpose="reading CSV and Parquet files")
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    flat = column.combine_chunks()
    return flat if isinstance(flat, pyarrow.Array) else pyarrow.concat_arrays(flat.chunks)


def _instruments(
    path: Path,
    ticks: NDArray[np.void],
    columns: dict[str, values.Column],
    mapping: ColumnMapping,
    entry: Entry,
) -> list[Instrument]:
    """Fill in the ids of *ticks* and name them; ids that no column tells count from 1 in order of appearance."""
    symbol, symbols = _labels(columns.get("symbol"), len(ticks))
    dataset, datasets = _labels(columns.get("dataset"), len(ticks))
    name = symbol.astype(np.int64) * max(len(datasets), 1) + dataset
    if "instrument_id" in columns:
        ticks["instrument_id"] = values.integers(columns["instrument_id"], 0)
        if "symbol" not in columns:
            name = ticks["instrument_id"].astype(np.int64)
        _check_agreement(path, ticks["instrument_id"], name)
    else:
        _, first, inverse = np.unique(name, return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.uint32)
        rank[np.argsort(first)] = np.arange(1, len(first) + 1)
        ticks["instrument_id"] = rank[inverse]
    ids, first = np.unique(ticks["instrument_id"], return_index=True)
    instruments = []
    for one, record in zip(ids.tolist(), first.tolist(), strict=True):
        if "symbol" in columns:
            text = symbols[symbol[record]]
        elif len(ids) == 1:
            text = mapping.symbol or path.name.partition(".")[0][:NAME_CHARACTERS_MAX]
        else:
            text = str(one)
        scale = mapping.size_scale or entry.scale_of(one)
        home = datasets[dataset[record]] or mapping.dataset
        for field, value, least in (("symbol", text, 1), ("dataset", home, 0)):
            if not least <= len(value) <= NAME_CHARACTERS_MAX:
                limits = f"a session takes {least} to {NAME_CHARACTERS_MAX} characters"
                raise TickFileError(path, limits, mend="rename it", record=record, field=field, value=value)
        instruments.append(Instrument(one, text, home, scale))
    return instruments


def _labels(column: values.Column | None, length: int) -> tuple[NDArray[np.int64], list[str]]:
    """Return the index of each record's text, and the texts."""
    if column is None:
        return np.zeros(length, dtype=np.int64), [""]
    encoded = values.texts(column)
    return np.asarray(encoded.indices).astype(np.int64), encoded.dictionary.to_pylist()


def _check_agreement(path: Path, ids: NDArray[np.uint32], names: NDArray[np.int64]) -> None:
    """Refuse an id with two names, or a name with two ids."""
    for one, other, problem in (
        (ids.astype(np.int64), names, "one instrument_id stands for two symbols"),
        (names, ids.astype(np.int64), "one symbol has two instrument_ids"),
    ):
        _, first, inverse = np.unique(one, return_index=True, return_inverse=True)
        wrong = np.flatnonzero(other != other[first][inverse]) if len(first) else first
        if wrong.size:
            record = int(wrong[0])
            raise TickFileError(
                path,
                problem,
                mend="map only one of the two columns",
                record=record,
                field="instrument_id",
                value=int(ids[record]),
            )
