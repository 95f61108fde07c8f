"""One door to every kind of tick file, told apart by what they hold and not by their names."""

from __future__ import annotations

import os
from pathlib import Path

from penstock_client.files.dbn import DBN_MAGIC, ZSTD_MAGIC, read_dbn
from penstock_client.files.errors import TickFileError
from penstock_client.files.tick_file import TickFile


def open_ticks(path: str | os.PathLike[str]) -> TickFile:
    """Read a whole tick file.

    Raises:
        TickFileError: the file can't be read, or isn't a sound tick file; says why and what to do.
        MissingExtraError: penstock[files] is not installed.
    """
    path = Path(path)
    try:
        with path.open("rb") as plain:
            magic = plain.read(4)
    except OSError as exc:
        raise TickFileError(path, f"can't be read: {exc.strerror}", mend="name a file that is there") from exc
    if magic[:3] == DBN_MAGIC or magic == ZSTD_MAGIC:
        return read_dbn(path)
    raise TickFileError(
        path,
        f"this is no tick file: it starts with {magic.hex(' ') or 'nothing'}",
        mend="name a DBN, CSV or Parquet file",
    )
