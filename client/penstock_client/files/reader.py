"""One door to every kind of tick file, told apart by what they hold; only a CSV is known by its name."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.files.columns import OWN, ColumnMapping, read_mapping
from penstock_client.files.dbn import DBN_MAGIC, ZSTD_MAGIC, read_dbn, write_dbn
from penstock_client.files.errors import TickFileError
from penstock_client.files.table_files import read_csv, read_parquet, write_csv, write_parquet
from penstock_client.files.tick_file import TickFile
from penstock_client.instruments import Instrument

PARQUET_MAGIC: Final = b"PAR1"
CSV_SUFFIXES: Final = (".csv", ".csv.gz", ".csv.zst")
DBN_SUFFIXES: Final = (".dbn", ".dbn.zst")
PARQUET_SUFFIX: Final = ".parquet"


def open_ticks(
    path: str | os.PathLike[str], columns: ColumnMapping | str = OWN, *, dataset: str | None = None
) -> TickFile:
    """Read a whole tick file.

    Args:
        path: a DBN file (plain or zstd), a Parquet file, or a CSV file whose name says so.
        columns: what the columns of a CSV or Parquet file mean: a mapping, or what ``--columns`` takes.
        dataset: takes the place of the file's own for every instrument; None to keep it.

    Raises:
        TickFileError: the file can't be read, or isn't a sound tick file; says why and what to do.
        MissingExtraError: penstock[files] is not installed.
    """
    path = Path(path)
    mapping = read_mapping(columns) if isinstance(columns, str) else columns
    try:
        with path.open("rb") as plain:
            magic = plain.read(4)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise TickFileError(path, f"can't be read: {reason}", mend="name a file that is there and readable") from exc
    if path.name.endswith(CSV_SUFFIXES):
        file = read_csv(path, mapping)
    elif magic[:3] == DBN_MAGIC or magic == ZSTD_MAGIC:
        file = read_dbn(path)
    elif magic == PARQUET_MAGIC:
        file = read_parquet(path, mapping)
    else:
        start = f"it starts with {magic.hex(' ')}" if magic else "it is empty"
        raise TickFileError(
            path, f"this is no tick file: {start}", mend="name a DBN or Parquet file, or a CSV whose name ends in .csv"
        )
    if dataset is not None:
        renamed = [replace(one, dataset=dataset) for one in file.instruments]
        file = replace(file, instruments=renamed)
    return file


def write_ticks(
    path: str | os.PathLike[str], ticks: NDArray[np.void], instruments: list[Instrument], dataset: str = ""
) -> None:
    """Write *ticks* in the format that the name of *path* asks for.

    Args:
        path: ends in .dbn, .dbn.zst, .parquet, .csv, .csv.gz or .csv.zst. Overwritten.
        ticks: shape (any,), dtype TICK_DTYPE.
        instruments: one for each instrument_id of *ticks*.
        dataset: of a DBN header; empty for that of the instruments, where they have the same.

    Raises:
        TickFileError: another name, or the file can't hold or take it.
        MissingExtraError: penstock[files] is not installed.
    """
    name = Path(path).name
    if name.endswith(DBN_SUFFIXES):
        datasets = sorted({one.dataset for one in instruments})
        if not dataset and len(datasets) > 1:
            raise TickFileError(
                path,
                "a DBN file has one dataset",
                mend="write each dataset to a file of its own, or write .parquet",
                field="dataset",
                value=datasets,
            )
        write_dbn(path, ticks, instruments, dataset or next(iter(datasets), ""))
    elif name.endswith(PARQUET_SUFFIX):
        write_parquet(path, ticks, instruments)
    elif name.endswith(CSV_SUFFIXES):
        write_csv(path, ticks, instruments)
    else:
        endings = ", ".join((*DBN_SUFFIXES, PARQUET_SUFFIX, *CSV_SUFFIXES))
        raise TickFileError(path, "the name says no format that is written", mend=f"end it in one of {endings}")
