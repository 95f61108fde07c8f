"""CSV and Parquet files: read through a column mapping, written in our own names and units."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_client.extras import require
from penstock_client.files.catalogue import read_entry, write_scales
from penstock_client.files.columns import ColumnMapping
from penstock_client.files.errors import TickFileError
from penstock_client.files.tables import table_of_ticks, ticks_of_table, wanted_columns
from penstock_client.files.tick_file import TickFile, check_ticks
from penstock_client.instruments import Instrument

_READING = "reading CSV and Parquet files"
_WRITING = "writing CSV and Parquet files"


def read_csv(path: Path, mapping: ColumnMapping) -> TickFile:
    """Read a CSV file with a header line; ``.gz`` and ``.zst`` are unpacked. Columns that no field wants are left out.

    Raises:
        TickFileError: no CSV, a row of another length, or a value that doesn't fit.
        MissingExtraError: penstock[files] is not installed.
    """
    pyarrow = require("pyarrow", extra="files", purpose=_READING)
    csv = require("pyarrow.csv", extra="files", purpose=_READING)
    one_thread = csv.ReadOptions(use_threads=False)  # So that a faulty row is named by its number.
    try:
        with (
            pyarrow.input_stream(os.fspath(path), compression="detect") as stream,
            csv.open_csv(stream, one_thread) as head,
        ):
            names = head.schema.names
        wanted = list(wanted_columns(path, names, mapping).values())
        options = csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pyarrow.string()),
            include_columns=list(dict.fromkeys(wanted)),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        with pyarrow.input_stream(os.fspath(path), compression="detect") as stream:
            table = csv.read_csv(stream, one_thread, convert_options=options)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as exc:
        raise TickFileError(path, f"this CSV can't be read: {exc}", mend="mend or fetch the file again") from exc
    return _tick_file(path, "CSV", table, mapping)


def read_parquet(path: Path, mapping: ColumnMapping) -> TickFile:
    """Read a Parquet file. Columns that no field wants are left out.

    Raises:
        TickFileError: truncated, corrupt, or with a value that doesn't fit.
        MissingExtraError: penstock[files] is not installed.
    """
    pyarrow = require("pyarrow", extra="files", purpose=_READING)
    parquet = require("pyarrow.parquet", extra="files", purpose=_READING)
    try:
        with parquet.ParquetFile(os.fspath(path), page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            wanted = list(dict.fromkeys(wanted_columns(path, names, mapping).values()))
            table = file.read(columns=wanted)
            table.validate(full=True)
    except TickFileError:
        raise
    # Arrow's readers tell corruption by all of these, UnicodeDecodeError among the ValueErrors.
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as exc:
        raise TickFileError(
            path, f"this Parquet file is cut or corrupt: {exc}", mend="fetch or write the file again"
        ) from exc
    return _tick_file(path, "Parquet", table, mapping)


def write_csv(path: str | os.PathLike[str], ticks: NDArray[np.void], instruments: list[Instrument]) -> None:
    """Write *ticks* as CSV in our own names and units; packed where the name ends in ``.gz`` or ``.zst``.

    Raises:
        TickFileError: the folder can't be written.
        MissingExtraError: penstock[files] is not installed.
    """
    pyarrow = require("pyarrow", extra="files", purpose=_WRITING)
    csv = require("pyarrow.csv", extra="files", purpose=_WRITING)

    def write(table: Any, scratch: Path) -> None:
        packing = {".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix)
        with pyarrow.output_stream(os.fspath(scratch), compression=packing) as stream:
            csv.write_csv(table, stream)

    _write(Path(path), ticks, instruments, write)


def write_parquet(path: str | os.PathLike[str], ticks: NDArray[np.void], instruments: list[Instrument]) -> None:
    """Write *ticks* as Parquet (zstd, with page checksums) in our own names and units.

    Raises:
        TickFileError: the folder can't be written.
        MissingExtraError: penstock[files] is not installed.
    """
    parquet = require("pyarrow.parquet", extra="files", purpose=_WRITING)

    def write(table: Any, scratch: Path) -> None:
        parquet.write_table(table, os.fspath(scratch), compression="zstd", write_page_checksum=True)

    _write(Path(path), ticks, instruments, write)


def _tick_file(path: Path, form: str, table: Any, mapping: ColumnMapping) -> TickFile:
    instruments, ticks = ticks_of_table(path, table, mapping, read_entry(path))
    check_ticks(path, ticks)
    return TickFile(path, form, instruments, ticks)


def _write(path: Path, ticks: NDArray[np.void], instruments: list[Instrument], write: Any) -> None:
    """Write all or nothing, with the scales beside."""
    pyarrow = require("pyarrow", extra="files", purpose=_WRITING)
    check_ticks(path, ticks)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(table_of_ticks(ticks, instruments), scratch)
        scratch.replace(path)
    except (OSError, pyarrow.ArrowException) as exc:
        scratch.unlink(missing_ok=True)
        raise TickFileError(path, f"can't be written: {exc}", mend="name a folder that is there and writable") from exc
    write_scales(path, instruments)
