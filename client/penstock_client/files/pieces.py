"""A tick file piece by piece, for readers that must not hold a whole one in memory.

    the pieces, one after the other      ==      the ticks of open_ticks, in the order of the file

Instruments are the same over the pieces where (dataset, symbol) is; ids may differ from piece to piece, since a piece
knows nothing of the later ones. A CSV or Parquet file whose instruments can only be named when all of it is known
(ids without symbols) comes as one piece.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_client.extras import require
from penstock_client.files.catalogue import Entry, read_entry
from penstock_client.files.columns import OWN, ColumnMapping, read_mapping
from penstock_client.files.dbn import AGAIN, DBN_MAGIC, SENT_DTYPE, ZSTD_MAGIC, read_header
from penstock_client.files.errors import TickFileError
from penstock_client.files.reader import CSV_SUFFIXES, PARQUET_MAGIC, open_ticks
from penstock_client.files.symbols import intervals_of, resolve
from penstock_client.files.tables import ticks_of_table, wanted_columns
from penstock_client.files.tick_file import check_ticks
from penstock_client.instruments import Instrument

PIECE_TICKS: Final = 131_072
_READING: Final = "reading tick files"

Piece = tuple[list[Instrument], NDArray[np.void]]


def open_pieces(
    path: str | os.PathLike[str], columns: ColumnMapping | str = OWN, piece_ticks: int = PIECE_TICKS
) -> Iterator[Piece]:
    """Yield the instruments and ticks of each piece of a tick file.

    Args:
        path: as ``open_ticks`` takes it.
        columns: as ``open_ticks`` takes it.
        piece_ticks: most ticks of a piece; a table's pieces may be those of its row groups' batches and smaller.

    Raises:
        TickFileError: the file can't be read, or isn't a sound tick file; records are counted from the file's start.
        MissingExtraError: penstock[files] is not installed.
    """
    path = Path(path)
    mapping = read_mapping(columns) if isinstance(columns, str) else columns
    try:
        with path.open("rb") as plain:
            magic = plain.read(4)
    except (OSError, ValueError):
        magic = b""
    if path.name.endswith(CSV_SUFFIXES) and magic:
        yield from _pieces_of_csv(path, mapping, piece_ticks)
    elif magic[:3] == DBN_MAGIC or magic == ZSTD_MAGIC:
        yield from _pieces_of_dbn(path, piece_ticks)
    elif magic == PARQUET_MAGIC:
        yield from _pieces_of_parquet(path, mapping, piece_ticks)
    else:
        file = open_ticks(path, mapping)  # Says what is wrong with it.
        yield file.instruments, file.ticks


def _pieces_of_dbn(path: Path, piece_ticks: int) -> Iterator[Piece]:
    pyarrow = require("pyarrow", extra="files", purpose=_READING)
    with ExitStack() as stack:
        stream: Any = stack.enter_context(pyarrow.OSFile(os.fspath(path)))
        with path.open("rb") as plain:
            if plain.read(4) == ZSTD_MAGIC:
                stream = stack.enter_context(pyarrow.CompressedInputStream(stream, "zstd"))
        data = _read(path, stream, 8)
        if len(data) == 8 and data[:3] == DBN_MAGIC:
            data += _read(path, stream, int.from_bytes(data[4:8], "little") + 2)  # And the first record's rtype.
        metadata, body_at = read_header(path, data)
        left = data[body_at:]
        dtype = SENT_DTYPE if metadata.ts_out else TICK_DTYPE
        intervals = intervals_of(metadata.mappings, ids_are_keys=str(metadata.stype_in) == "instrument_id")
        entry = read_entry(path)
        done = 0
        while True:
            data = left + _read(path, stream, piece_ticks * dtype.itemsize - len(left))
            whole = len(data) // dtype.itemsize
            records = np.frombuffer(data, dtype=dtype, count=whole)
            left = data[whole * dtype.itemsize :]
            ticks: NDArray[np.void] = records
            if metadata.ts_out:
                ticks = records["tick"].copy()
                ticks["length"] -= np.uint8(2)
            try:
                check_ticks(path, ticks)
            except TickFileError as exc:
                raise exc.moved(done) from exc
            done += whole
            if left and whole < piece_ticks:
                raise TickFileError(
                    path,
                    f"the file ends inside a record: {len(left)} of {dtype.itemsize} bytes",
                    mend=AGAIN,
                    record=done,
                )
            if not whole:
                return
            yield resolve(path, ticks, intervals, metadata.dataset, entry)


def _read(path: Path, stream: Any, size: int) -> bytes:
    """Return *size* bytes of *stream*, fewer at its end."""
    parts: list[bytes] = []
    missing = size
    try:
        while missing > 0 and (part := stream.read(missing)):
            parts.append(part)
            missing -= len(part)
    except OSError as exc:
        raise TickFileError(path, f"its zstd stream is cut or corrupt: {exc}", mend=AGAIN) from exc
    return b"".join(parts)


def _pieces_of_csv(path: Path, mapping: ColumnMapping, piece_ticks: int) -> Iterator[Piece]:
    pyarrow = require("pyarrow", extra="files", purpose=_READING)
    csv = require("pyarrow.csv", extra="files", purpose=_READING)
    one_thread = csv.ReadOptions(use_threads=False, block_size=max(4096, 128 * piece_ticks))
    try:
        with (
            pyarrow.input_stream(os.fspath(path), compression="detect") as stream,
            csv.open_csv(stream, one_thread) as head,
        ):
            names = head.schema.names
        found = wanted_columns(path, names, mapping)
        if not _named_at_once(found, read_entry(path)):
            file = open_ticks(path, mapping)
            yield file.instruments, file.ticks
            return
        options = csv.ConvertOptions(
            column_types=dict.fromkeys(found.values(), pyarrow.string()),
            include_columns=list(dict.fromkeys(found.values())),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        with (
            pyarrow.input_stream(os.fspath(path), compression="detect") as stream,
            csv.open_csv(stream, one_thread, convert_options=options) as batches,
        ):
            yield from _pieces_of_tables(path, (pyarrow.Table.from_batches([one]) for one in batches), mapping)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as exc:
        raise TickFileError(path, f"this CSV can't be read: {exc}", mend="mend or fetch the file again") from exc


def _pieces_of_parquet(path: Path, mapping: ColumnMapping, piece_ticks: int) -> Iterator[Piece]:
    pyarrow = require("pyarrow", extra="files", purpose=_READING)
    parquet = require("pyarrow.parquet", extra="files", purpose=_READING)
    try:
        with parquet.ParquetFile(os.fspath(path), page_checksum_verification=True) as file:
            found = wanted_columns(path, file.schema_arrow.names, mapping)
            if not _named_at_once(found, read_entry(path)):
                whole = open_ticks(path, mapping)
                yield whole.instruments, whole.ticks
                return
            batches = file.iter_batches(piece_ticks, columns=list(dict.fromkeys(found.values())), use_threads=False)
            yield from _pieces_of_tables(path, (pyarrow.Table.from_batches([one]) for one in batches), mapping)
    except TickFileError:
        raise
    # Arrow's readers tell corruption by all of these, UnicodeDecodeError among the ValueErrors.
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as exc:
        raise TickFileError(
            path, f"this Parquet file is cut or corrupt: {exc}", mend="fetch or write the file again"
        ) from exc


def _pieces_of_tables(path: Path, tables: Iterator[Any], mapping: ColumnMapping) -> Iterator[Piece]:
    entry = read_entry(path)
    named: dict[int, tuple[str, str]] = {}
    done = 0
    for table in tables:
        table.validate(full=True)
        try:
            instruments, ticks = ticks_of_table(path, table, mapping, entry)
            check_ticks(path, ticks)
        except TickFileError as exc:
            raise exc.moved(done) from exc
        if "instrument_id" in wanted_columns(path, table.column_names, mapping):
            for one in instruments:
                name = (one.dataset, one.symbol)
                if named.setdefault(one.instrument_id, name) != name:
                    raise TickFileError(
                        path,
                        "one instrument_id stands for two symbols",
                        mend="map only one of the two columns",
                        field="instrument_id",
                        value=one.instrument_id,
                    )
        done += len(ticks)
        yield instruments, ticks


def _named_at_once(columns: dict[str, str], entry: Entry) -> bool:
    """Whether a piece of a table tells the names and scales of its instruments without the other pieces."""
    if "instrument_id" in columns:
        return "symbol" in columns
    one_scale = not set(entry.scales) - {None}
    return ("symbol" in columns or "dataset" not in columns) and (one_scale or "symbol" not in columns)
