"""Where size scales live: ``metadata.json`` beside the files, since neither DBN nor CSV has a place for them.

{"files": [{"file": "a.dbn.zst", "size_scale": {"1": 1000}}]}     instrument_id to scale, or one scale for all
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from penstock_client.files.errors import TickFileError
from penstock_client.instruments import Instrument

SIZE_SCALE_MAX: Final = 2**64 - 1
SIDECAR_NAME: Final = "metadata.json"
_MEND: Final = 'write {"files": [{"file": NAME, "size_scale": {"1": 1000}}]}, or remove the file'


def read_size_scales(path: Path) -> dict[int | None, int]:
    """Return what ``metadata.json`` beside *path* says about it.

    Returns:
        instrument_id to scale; the key None stands for every other instrument. Empty without such a file or entry.

    Raises:
        TickFileError: the sidecar is there but is no such JSON, or a scale is no whole number from 1 to 2**64 - 1.
    """
    sidecar = path.parent / SIDECAR_NAME
    for entry in _read_entries(sidecar):
        if not fnmatch.fnmatchcase(path.name, str(entry.get("file", ""))):
            continue
        scales = entry.get("size_scale", {})
        if not isinstance(scales, dict):
            scales = {None: scales}
        return {_instrument_id(sidecar, key): _scale(sidecar, value) for key, value in scales.items()}
    return {}


def write_size_scales(path: Path, instruments: Iterable[Instrument]) -> None:
    """Note the scales of *instruments* for *path* in ``metadata.json`` beside it; other entries stay.

    Nothing is written where every scale is 1 and no older entry says otherwise.

    Raises:
        TickFileError: the sidecar is there but is not ours to extend, or can't be written.
    """
    sidecar = path.parent / SIDECAR_NAME
    scales = {str(one.instrument_id): one.size_scale for one in instruments if one.size_scale != 1}
    entries = _read_entries(sidecar)
    others = [entry for entry in entries if entry.get("file") != path.name]
    if not scales and len(others) == len(entries):
        return
    whole = json.loads(sidecar.read_bytes()) if sidecar.exists() else {}
    whole["files"] = [*others, {"file": path.name, "size_scale": scales}] if scales else others
    if not whole["files"]:
        del whole["files"]
    scratch = sidecar.with_name(f".{sidecar.name}.{os.getpid()}")
    try:
        if whole:
            scratch.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
            scratch.replace(sidecar)
        else:
            sidecar.unlink()
    except OSError as exc:
        raise TickFileError(
            sidecar, f"the size scales can't be noted: {exc.strerror}", mend="make the folder writable"
        ) from exc


def _read_entries(sidecar: Path) -> list[dict[str, Any]]:
    try:
        whole = json.loads(sidecar.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as exc:
        raise TickFileError(sidecar, f"this is no JSON that tells size scales: {exc}", mend=_MEND) from exc
    entries = whole.get("files", []) if isinstance(whole, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TickFileError(sidecar, 'its "files" must be a list of objects', mend=_MEND)
    return entries


def _instrument_id(sidecar: Path, key: str | None) -> int | None:
    if key is None:
        return None
    if key.isascii() and key.isdigit() and len(key) <= 10:
        return int(key)
    raise TickFileError(sidecar, "a key of size_scale is an instrument_id", mend=_MEND, field="size_scale", value=key)


def _scale(sidecar: Path, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SIZE_SCALE_MAX:
        return value
    raise TickFileError(
        sidecar, "a size_scale is a whole number, at least 1", mend=_MEND, field="size_scale", value=value
    )
