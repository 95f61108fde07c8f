"""One column of a table as the integers of a tick's field: exact, or refused with the record that does not fit.

Text goes through decimals, never through floats, so that "0.1" is 100,000,000 units of 1e-9 and nothing near it.
An empty cell, null or NaN is "undefined" in prices and in ts_event, and 0 (or the field's own default) elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_client.extras import require
from penstock_client.files.columns import ColumnMapping
from penstock_client.files.errors import TickFileError

_NO_VALUE: Final = ("", "nan", "null", "none", "na", "n/a")  # Any case.
_DIGITS_OF_UNIT: Final = {"s": 9, "ms": 6, "us": 3, "ns": 0}  # Decimal places that make nanoseconds.
_INT64: Final = np.iinfo(np.int64)


@dataclass(frozen=True)
class Column:
    """A column of a file, and the field of the tick it is for."""

    path: Path
    field: str
    name: str  # In the file.
    values: Any  # pyarrow.Array.

    def refuse(self, record: int, mend: str) -> TickFileError:
        """Return the sentence that says that the value of *record* doesn't fit."""
        value = self.values[record].as_py() if record < len(self.values) else None
        where = self.field if self.name == self.field else f"{self.field}, column {self.name}"
        return TickFileError(self.path, "this value does not fit", mend=mend, record=record, field=where, value=value)


def prices(column: Column, mapping: ColumnMapping, undefined: int) -> NDArray[np.int64]:
    """Return prices in 1e-9 of the quote currency, shape (records,).

    Raises:
        TickFileError: no number, more than 9 decimal places, or beyond an int64.
    """
    if mapping.price_unit == "1e-9":
        mend = 'whole numbers of 1e-9 are wanted; say price_unit = "decimal" for prices in the currency itself'
        return _decimals(column, 0, undefined, mend)
    return _decimals(column, 9, undefined, "a price with at most 9 decimal places, below 9.2e9, is wanted")


def times(column: Column, mapping: ColumnMapping, undefined: int) -> NDArray[np.uint64]:
    """Return times in nanoseconds since the Unix epoch, shape (records,).

    Raises:
        TickFileError: no time of the mapping's unit, or before 1970.
    """
    pyarrow = _pyarrow()
    values = column.values
    unit = mapping.time_unit
    if unit == "iso8601" and _is_text(values):
        mend = 'times such as 2024-08-08T23:54:15.123456789Z are wanted; say time_unit = "ns" for nanoseconds'
        values = _blank_to_null(values)
        with_zone = bool(_compute().any(_compute().match_substring_regex(values, r"(Z|[+-]\d\d:?\d\d)\s*$")).as_py())
        kind = pyarrow.timestamp("ns", tz="UTC") if with_zone else pyarrow.timestamp("ns")
        values = _cast(column, values, kind, mend)
    if pyarrow.types.is_timestamp(values.type):
        mend = "a time from 1970 to 2262 is wanted"
        values = _cast(column, _cast(column, values, pyarrow.timestamp("ns", tz=values.type.tz), mend), "int64", mend)
        digits = 0
    elif unit == "iso8601":
        raise column.refuse(0, 'the column holds numbers; say time_unit = "ns", or what they are')
    else:
        mend = f'times in {unit} since 1970 are wanted; say time_unit = "iso8601" for dates, or another unit'
        digits = _DIGITS_OF_UNIT[unit]
    if digits == 0 and not pyarrow.types.is_decimal(values.type) and not pyarrow.types.is_floating(values.type):
        return _integers(column, values, np.uint64, undefined, mend)
    whole = _decimals(Column(column.path, column.field, column.name, values), digits, _INT64.min, mend)
    negative = np.flatnonzero((whole < 0) & (whole != _INT64.min))
    if negative.size:
        raise column.refuse(int(negative[0]), mend)
    return np.where(whole == _INT64.min, np.uint64(undefined), whole.astype(np.uint64))


def sizes(column: Column, mapping: ColumnMapping, size_scale: NDArray[np.uint64] | int) -> NDArray[np.uint32]:
    """Return sizes in the instrument's scale, shape (records,).

    Args:
        column: of trades' or of the book's sizes.
        mapping: says whether they are in units or decimal.
        size_scale: units per contract or coin, for all or for each record.

    Raises:
        TickFileError: no number, not whole after scaling, or beyond a u32.
    """
    if mapping.size_unit == "units":
        mend = 'whole numbers below 2**32 are wanted; say size_unit = "decimal" and a size_scale for contracts or coins'
        return _integers(column, column.values, np.uint32, 0, mend)
    mend = f"times size_scale it must be whole and below 2**32; choose another size_scale than {np.max(size_scale)}"
    billionths = _decimals(column, 9, 0, "a size with at most 9 decimal places is wanted")
    estimate = billionths * np.asarray(size_scale, dtype=np.float64) / 1e9
    beyond = np.flatnonzero((billionths < 0) | (estimate >= 2**32))
    if beyond.size:
        raise column.refuse(int(beyond[0]), mend)
    product = billionths * np.asarray(size_scale).astype(np.int64)
    uneven = np.flatnonzero(product % 10**9)
    if uneven.size:
        raise column.refuse(int(uneven[0]), mend)
    return (product // 10**9).astype(np.uint32)


def codes(column: Column, default: int) -> NDArray[np.uint8]:
    """Return one-byte codes, shape (records,), from characters ("T"), bytes in hexadecimal ("0x07") or integers.

    Raises:
        TickFileError: neither of them.
    """
    mend = "one ASCII character is wanted, as in DBN"
    if not _is_text(column.values):
        return _integers(column, column.values, np.uint8, default, mend)
    encoded = _blank_to_null(column.values).dictionary_encode()
    table = np.empty(len(encoded.dictionary) + 1, dtype=np.uint8)
    table[-1] = default
    for index, text in enumerate(encoded.dictionary.to_pylist()):
        code = _code(text)
        if code is None:
            record = int(np.flatnonzero(np.asarray(encoded.indices.fill_null(-1)) == index)[0])
            raise column.refuse(record, mend)
        table[index] = code
    return table[np.asarray(encoded.indices.fill_null(-1))]


def integers(column: Column, default: int) -> NDArray[Any]:
    """Return whole numbers in the dtype of the tick's field, shape (records,); empty ones are *default*.

    Raises:
        TickFileError: no whole number, or beyond the field.
    """
    dtype = TICK_DTYPE[column.field]
    bounds = np.iinfo(dtype)
    return _integers(
        column, column.values, dtype.type, default, f"a whole number from {bounds.min} to {bounds.max} is wanted"
    )


def texts(column: Column) -> Any:
    """Return a pyarrow.DictionaryArray of texts; null is the empty text.

    Raises:
        TickFileError: no text.
    """
    values = column.values
    if _pyarrow().types.is_integer(values.type):
        values = values.cast("string")
    values = _cast(column, values, "string", "a text is wanted")
    return values.fill_null("").dictionary_encode()


def _code(text: str) -> int | None:
    if len(text) == 1 and text.isascii():
        return ord(text)
    if len(text) == 4 and text.startswith("0x") and all(one in "0123456789abcdefABCDEF" for one in text[2:]):
        return int(text, 16)
    return None


def _integers(column: Column, values: Any, dtype: Any, default: int, mend: str) -> NDArray[Any]:
    pyarrow = _pyarrow()
    if _is_text(values):
        values = _blank_to_null(values)
    values = _cast(column, values, pyarrow.from_numpy_dtype(np.dtype(dtype)), mend)
    return np.asarray(values.fill_null(pyarrow.scalar(default, values.type)))


def _decimals(column: Column, digits: int, default: int, mend: str) -> NDArray[np.int64]:
    """Return round-free *digits*-place decimals as int64, shape (records,)."""
    pyarrow, compute = _pyarrow(), _compute()
    values = column.values
    if _is_text(values):
        values = _blank_to_null(values)
    elif pyarrow.types.is_floating(values.type):
        if values.type != pyarrow.float64() and len(values):
            raise column.refuse(0, "float32 and float16 hold no prices and times: store float64, decimals or text")
        values = compute.if_else(compute.is_nan(values), pyarrow.scalar(None, values.type), values)
    if digits == 0:
        values = _cast(column, values, "int64", mend)
        return np.asarray(values.fill_null(default))  # Refuses fractions, where a decimal of 0 places would round.
    values = _cast(column, values, pyarrow.decimal128(38, digits), mend)
    words = np.frombuffer(values.buffers()[1], dtype=np.int64)[2 * values.offset :][: 2 * len(values)].reshape(-1, 2)
    low, high = words[:, 0], words[:, 1]
    undefined = np.asarray(values.is_null())
    beyond = np.flatnonzero((high != low >> 63) & ~undefined)
    if beyond.size:
        raise column.refuse(int(beyond[0]), mend)
    return np.where(undefined, np.int64(default), low)


def _cast(column: Column, values: Any, kind: Any, mend: str) -> Any:
    """Cast exactly, or refuse the first record that can't be."""
    pyarrow = _pyarrow()
    if pyarrow.types.is_boolean(values.type) and len(values):
        raise column.refuse(0, mend)  # Arrow would take true as 1.

    def works(start: int, length: int) -> bool:
        try:
            values.slice(start, length).cast(kind)
        except (pyarrow.ArrowException, ValueError):
            return False
        return True

    try:
        return values.cast(kind)
    except (pyarrow.ArrowException, ValueError) as exc:
        record = _first_failure(works, len(values))
        raise column.refuse(record, mend) from exc


def _first_failure(works: Callable[[int, int], bool], length: int) -> int:
    """Return the first record that fails in a stretch that does, by halving it."""
    start = 0
    while length > 1:
        half = length // 2
        if works(start, half):
            start += half
            length -= half
        else:
            length = half
    return start


def _is_text(values: Any) -> bool:
    types = _pyarrow().types
    return bool(types.is_string(values.type) or types.is_large_string(values.type))


def _blank_to_null(values: Any) -> Any:
    pyarrow, compute = _pyarrow(), _compute()
    trimmed = compute.utf8_trim_whitespace(values)
    blank = compute.is_in(compute.utf8_lower(trimmed), value_set=pyarrow.array(_NO_VALUE, trimmed.type))
    return compute.if_else(blank, pyarrow.scalar(None, trimmed.type), trimmed)


def _pyarrow() -> Any:
    return require("pyarrow", extra="files", purpose="reading CSV and Parquet files")


def _compute() -> Any:
    return require("pyarrow.compute", extra="files", purpose="reading CSV and Parquet files")
