"""What an online readout has learned, as a file: written aside and renamed, and refused whole where anything is odd.

    32 bytes     sha256 of all that follows
    8 bytes      length of the header, little-endian
    header       JSON: format, version, whose it is, the sha256 of the model file, shapes, counters
    body         for each horizon: weights (3, width), root (regressors, width); float32, little-endian

A snapshot belongs to a client name, a model and an instrument. It holds no pending rows and no book: those begin anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import online_layout as layout
from penstock_kernels.model import OUTPUTS_PER_HORIZON

FORMAT: Final = "penstock-online"
FORMAT_VERSION: Final = "1"
SUFFIX: Final = ".online"
FILE_BYTES_MAX: Final = 64 * 2**20
_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 8
_OWN_FIELDS: Final = ("client", "model", "model_sha256", "dataset", "symbol")


class SnapshotError(Exception):
    """A snapshot that can't be read, written or used; the message names the file and says why."""


@dataclass(frozen=True)
class Owner:
    """Whose snapshot it is."""

    client: str
    model: str
    model_sha256: str  # Of the model file: another model of the same name has other regressors.
    dataset: str
    symbol: str

    @property
    def file_name(self) -> str:
        """The name of its file: a digest, since the names may hold anything."""
        key = json.dumps([self.client, self.model, self.dataset, self.symbol]).encode()
        return hashlib.sha256(key).hexdigest()[:32] + SUFFIX


def snapshot_bytes(owner: Owner, words: NDArray[np.int64], values: NDArray[np.float32]) -> bytes:
    """Return the snapshot of one online readout."""
    header = {name: getattr(owner, name) for name in _OWN_FIELDS} | _shapes(words)
    header |= {"format": FORMAT, "format_version": FORMAT_VERSION}
    header |= {"learned": int(words[layout.LEARNED]), "skipped": int(words[layout.SKIPPED])}
    text = json.dumps(header, sort_keys=True).encode()
    body = b"".join(
        part.astype("<f4").tobytes()
        for horizon in range(int(words[layout.HORIZONS]))
        for part in layout.learned_parts(words, values, horizon)
    )
    rest = len(text).to_bytes(_LENGTH_BYTES, "little") + text + body
    return hashlib.sha256(rest).digest() + rest


def restore(data: bytes, owner: Owner, words: NDArray[np.int64], values: NDArray[np.float32]) -> None:
    """Write what a snapshot holds into an online readout that was laid out for its model.

    Args:
        data: of the file.
        owner: who asks.
        words: laid out. Counters overwritten.
        values: laid out. Weights and roots overwritten.

    Raises:
        SnapshotError: damaged, of another version, another owner or other settings; nothing was overwritten.
    """
    rest = data[_DIGEST_BYTES:]
    if len(data) < _DIGEST_BYTES + _LENGTH_BYTES or hashlib.sha256(rest).digest() != data[:_DIGEST_BYTES]:
        raise SnapshotError(f"it is damaged: {len(data)} bytes whose sha256 is not the one at their head")
    length = int.from_bytes(rest[:_LENGTH_BYTES], "little")
    try:
        header = json.loads(rest[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (ValueError, RecursionError) as error:
        raise SnapshotError("its header is no JSON") from error
    wanted: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    wanted |= {name: getattr(owner, name) for name in _OWN_FIELDS} | _shapes(words)
    if not isinstance(header, dict):
        raise SnapshotError("its header is no JSON object")
    for name, value in wanted.items():
        if header.get(name) != value:
            raise SnapshotError(f"{name} is {header.get(name)!r:.80}, wanted {value!r:.80}")
    learned, skipped = header.get("learned"), header.get("skipped")
    if not (isinstance(learned, int) and isinstance(skipped, int) and 0 <= learned < 2**62 and 0 <= skipped < 2**62):
        raise SnapshotError(f"its counters are {learned!r:.40} and {skipped!r:.40}, wanted whole numbers")
    count, width, horizons = (int(words[index]) for index in (layout.COUNT, layout.WIDTH, layout.HORIZONS))
    body = rest[_LENGTH_BYTES + length :]
    size = horizons * (OUTPUTS_PER_HORIZON + count) * width
    if len(body) != 4 * size:
        raise SnapshotError(f"it holds {len(body)} bytes of numbers, wanted {4 * size}")
    numbers = np.frombuffer(body, "<f4").reshape(horizons, OUTPUTS_PER_HORIZON + count, width)
    roots = numbers[:, OUTPUTS_PER_HORIZON:, :count]
    if not np.isfinite(numbers).all() or np.triu(roots, 1).any() or (np.diagonal(roots, axis1=1, axis2=2) <= 0).any():
        raise SnapshotError("its numbers are not those of a readout")
    for horizon in range(horizons):
        weights, root = layout.learned_parts(words, values, horizon)
        weights[:] = numbers[horizon, :OUTPUTS_PER_HORIZON]
        root[:] = numbers[horizon, OUTPUTS_PER_HORIZON:]
    words[layout.LEARNED], words[layout.SKIPPED] = learned, skipped


def _shapes(words: NDArray[np.int64]) -> dict[str, Any]:
    """Return what weights and roots depend on beside the model."""
    return {
        "regressors": int(words[layout.COUNT]),
        "units": int(words[layout.UNITS]),
        "horizons": int(words[layout.HORIZONS]),
    }


def read_snapshot(folder: Path, owner: Owner) -> bytes | None:
    """Return the file of *owner*, or None where there is none.

    Raises:
        SnapshotError: it is there and can't be read.
    """
    try:
        with (folder / owner.file_name).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(f"it can't be read: {error.strerror}") from error
    return data


def write_snapshot(folder: Path, owner: Owner, data: bytes) -> None:
    """Write the file of *owner*, aside first and then renamed, so that there is never half a one.

    Raises:
        SnapshotError: it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{owner.file_name}.", delete=False) as file:
            aside = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                aside.replace(folder / owner.file_name)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise SnapshotError(f"it can't be written: {error.strerror}") from error
