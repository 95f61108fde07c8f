"""DBN files, the Databento Binary Encoding, versions 1 to 3, plain and zstd: read whole, checked, written.

The header goes through databento-dbn; the records are the wire's own, so the rest is a view and a check.

    file = header (8 bytes + the length it names) + records of 80 bytes (88 where the header says ts_out)
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_client.extras import require
from penstock_client.files.catalogue import read_entry, write_scales
from penstock_client.files.errors import TickFileError
from penstock_client.files.symbols import date_of, intervals_of, resolve
from penstock_client.files.tick_file import TickFile, check_ticks, rtype_name
from penstock_client.instruments import Instrument

DBN_MAGIC: Final = b"DBN"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
VERSIONS: Final = (1, 2, 3)
BYTES_MAX: Final = 16 * 2**30  # Of records in memory: a file that grows past this is refused before memory ends.

_READ_BYTES: Final = 8 * 2**20
AGAIN: Final = "fetch or copy the file again"
_SCHEMA: Final = "request the schema mbp-1"
SENT_DTYPE: Final = np.dtype([("tick", TICK_DTYPE), ("ts_out", "<u8")])  # ts_out: when the gateway sent it.


class _MappingInterval(NamedTuple):
    """What databento-dbn wants to see in a mapping: it declares the shape and offers no class."""

    start_date: dt.date
    end_date: dt.date
    symbol: str


class _SymbolMapping(NamedTuple):
    """As _MappingInterval."""

    raw_symbol: str
    intervals: list[_MappingInterval]


def read_dbn(path: Path) -> TickFile:
    """Read a DBN file, plain or zstd, by what it holds and not by its name.

    Raises:
        TickFileError: truncated, corrupt, of another version or schema, or holding any record but mbp-1.
        MissingExtraError: penstock[files] is not installed.
    """
    data = _read_bytes(path)
    metadata, body_at = read_header(path, data)
    dtype = SENT_DTYPE if metadata.ts_out else TICK_DTYPE
    whole, left = divmod(len(data) - body_at, dtype.itemsize)
    records = np.frombuffer(data, dtype=dtype, count=whole, offset=body_at)
    if metadata.ts_out:
        ticks = records["tick"].copy()
        ticks["length"] -= np.uint8(2)
    else:
        ticks = records
    check_ticks(path, ticks)
    if left:
        raise TickFileError(
            path,
            f"the file ends inside a record: {left} of {dtype.itemsize} bytes",
            mend=AGAIN,
            record=whole,
        )
    ids_are_keys = str(metadata.stype_in) == "instrument_id"
    entry = read_entry(path)
    instruments, ticks = resolve(
        path,
        ticks,
        intervals_of(metadata.mappings, ids_are_keys=ids_are_keys),
        metadata.dataset,
        entry,
    )
    return TickFile(path, f"DBN v{data[3]}", instruments, ticks, metadata.dataset, entry.recording)


def write_dbn(
    path: str | os.PathLike[str], ticks: NDArray[np.void], instruments: list[Instrument], dataset: str
) -> None:
    """Write *ticks* as DBN v3, schema mbp-1, in their order; zstd where the name ends in ``.zst``.

    Scales other than 1 go into ``metadata.json`` beside the file. The file appears whole or not at all.

    Args:
        path: overwritten.
        ticks: shape (any,), dtype TICK_DTYPE.
        instruments: one for each instrument_id of *ticks*; a DBN header has one dataset, so theirs are left out.
        dataset: of all of them; 1 to 16 characters.

    Raises:
        TickFileError: a tick without an instrument, two instruments of one symbol, a dataset that doesn't fit, or
            a folder that can't be written.
        MissingExtraError: penstock[files] is not installed.
    """
    path = Path(path)
    check_ticks(path, ticks)
    header = _encode_header(path, ticks, instruments, dataset)
    body = np.ascontiguousarray(ticks, dtype=TICK_DTYPE).view(np.uint8).data
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.name.endswith(".zst"):
            pyarrow = require("pyarrow", extra="files", purpose="writing zstd files")
            with scratch.open("wb") as plain, pyarrow.CompressedOutputStream(plain, "zstd") as packed:
                packed.write(header)
                packed.write(body)
        else:
            with scratch.open("wb") as plain:
                plain.write(header)
                plain.write(body)
        scratch.replace(path)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise TickFileError(path, f"can't be written: {exc}", mend="name a folder that is there and writable") from exc
    write_scales(path, instruments)


def _read_bytes(path: Path) -> bytes:
    """Return the whole file, unpacked."""
    try:
        with path.open("rb") as plain:
            magic = plain.read(4)
            if magic != ZSTD_MAGIC:
                return magic + plain.read()
    except OSError as exc:
        raise TickFileError(path, f"can't be read: {exc.strerror}", mend="name a file that is there") from exc
    pyarrow = require("pyarrow", extra="files", purpose="reading zstd files")
    parts: list[bytes] = []
    size = 0
    try:
        with pyarrow.OSFile(os.fspath(path)) as packed, pyarrow.CompressedInputStream(packed, "zstd") as plain_stream:
            while part := plain_stream.read(_READ_BYTES):
                parts.append(part)
                size += len(part)
                if size > BYTES_MAX:
                    raise TickFileError(
                        path, f"its records take more than {BYTES_MAX} bytes of memory", mend="split the file"
                    )
    except OSError as exc:
        raise TickFileError(path, f"its zstd stream is cut or corrupt: {exc}", mend=AGAIN) from exc
    return b"".join(parts)


def read_header(path: Path, data: bytes) -> tuple[Any, int]:
    """Return the metadata and where the records start."""
    if data[:3] != DBN_MAGIC:
        raise TickFileError(path, f"this is no DBN file: it starts with {data[:8].hex(' ')}", mend=_SCHEMA + " in DBN")
    if len(data) < 8:
        raise TickFileError(path, f"the file ends inside its header: {len(data)} bytes", mend=AGAIN)
    if data[3] not in VERSIONS:
        raise TickFileError(
            path,
            "DBN versions 1 to 3 are read",
            mend="convert the file with the dbn tool, or upgrade penstock",
            field="version",
            value=data[3],
        )
    body_at = 8 + int.from_bytes(data[4:8], "little")
    if body_at > len(data):
        raise TickFileError(
            path, f"the file ends inside its header: {len(data)} of {body_at} bytes", mend=AGAIN, field="header"
        )
    dbn = require("databento_dbn", extra="files", purpose="reading DBN files")
    try:
        metadata = dbn.Metadata.decode(data[:body_at])
        schema = None if metadata.schema is None else str(metadata.schema)
        _ = metadata.mappings, metadata.dataset, metadata.stype_in
    except (dbn.DBNError, ValueError, OverflowError) as exc:
        raise TickFileError(path, f"its DBN header is corrupt: {exc}", mend=AGAIN, field="header") from exc
    if schema not in (None, "mbp-1"):
        rtype = data[body_at + 1] if len(data) > body_at + 1 else None
        records = "no records" if rtype is None else f"records of rtype {rtype_name(rtype)}"
        raise TickFileError(
            path,
            f"only mbp-1 files can be replayed, this one is {schema} with {records}",
            mend=_SCHEMA,
            field="schema",
            value=schema,
        )
    return metadata, body_at


def _encode_header(path: Path, ticks: NDArray[np.void], instruments: list[Instrument], dataset: str) -> bytes:
    known = {one.instrument_id: one.symbol for one in instruments}
    missing = [int(one) for one in np.unique(ticks["instrument_id"]) if int(one) not in known]
    if missing:
        raise TickFileError(
            path, "a tick has no instrument", mend="name its instrument", field="instrument_id", value=missing[0]
        )
    if len(set(known.values())) < len(instruments) or len(known) < len(instruments):
        raise TickFileError(
            path,
            "a DBN header has one dataset, in which each symbol and each id stands once",
            mend="write the instruments of different datasets to different files",
            field="symbol",
            value=sorted(one.symbol for one in instruments),
        )
    dbn = require("databento_dbn", extra="files", purpose="writing DBN files")
    start_ns = int(ticks["ts_recv"].min()) if len(ticks) else 0
    end_ns = int(ticks["ts_recv"].max()) + 1 if len(ticks) else 0
    start, end = date_of(start_ns), date_of(end_ns) + dt.timedelta(days=1)
    try:
        metadata = dbn.Metadata(
            dataset=dataset,
            start=start_ns,
            end=end_ns,
            stype_in=dbn.SType.RAW_SYMBOL,
            stype_out=dbn.SType.INSTRUMENT_ID,
            schema=dbn.Schema.MBP_1,
            symbols=[one.symbol for one in instruments],
            mappings=[
                _SymbolMapping(one.symbol, [_MappingInterval(start, end, str(one.instrument_id))])
                for one in instruments
            ],
            ts_out=False,
            version=max(VERSIONS),
        )
        return bytes(metadata.encode())
    except (dbn.DBNError, ValueError, OverflowError) as exc:
        raise TickFileError(
            path, f"no DBN header holds this: {exc}", mend="shorten it", field="dataset", value=dataset
        ) from exc
