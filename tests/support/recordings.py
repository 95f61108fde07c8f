"""Reading a folder of recordings the way a user's tools would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import databento_dbn as dbn
import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE


@dataclass(frozen=True)
class RecordedFile:
    """One complete file: what its header, its records and the catalogue say."""

    path: Path
    metadata: Any
    ticks: NDArray[np.void]
    entry: dict[str, Any]


def read_recordings(folder: Path) -> list[RecordedFile]:
    """Read every complete file of *folder* through databento-dbn, by name."""
    entries = {one["file"]: one for one in json.loads((folder / "metadata.json").read_bytes())["files"]}
    found = []
    for path in sorted(folder.glob("*.mbp-1.dbn")):
        decoder = dbn.DBNDecoder(compression=dbn.Compression.NONE)
        metadata, *records = decoder.write_and_decode(path.read_bytes())
        assert decoder.buffer() == b"", "a part of a record is left over"
        ticks = np.frombuffer(b"".join(bytes(record) for record in records), dtype=TICK_DTYPE)
        found.append(RecordedFile(path, metadata, ticks, entries[path.name]))
    return found
