"""``metadata.json`` beside tick files: what neither DBN nor CSV has a place for.

    {"files": [{"file": "a.dbn.zst", "size_scale": {"1": 1000}}]}     instrument_id to scale, or one scale for all

The daemon's recorder writes more into it: the full names of instruments, and which session a file belongs to. Keys
and entries that are not ours stay as they are.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock_client.files.errors import TickFileError
from penstock_client.instruments import Instrument

SIZE_SCALE_MAX: Final = 2**64 - 1
CATALOGUE_NAME: Final = "metadata.json"
_MEND: Final = 'write {"files": [{"file": NAME, "size_scale": {"1": 1000}}]}, or remove the file'


@dataclass(frozen=True)
class Recording:
    """What the daemon's recorder says about a file of its own.

    Attributes:
        session_id: unique in the life of that daemon; the next one counts from 1 again.
        first_tick: of the session, from 0, rebuild ticks and the file's own gaps before its first tick included.
        rebuild_ticks: how many of the file's first ticks rebuilt a state and were not predicted.
        missing_ticks: how many ticks the disk was too slow for, or refused.
        cut_short: whether the daemon was killed while it wrote the file.
    """

    session_id: int
    first_tick: int
    rebuild_ticks: int
    missing_ticks: int
    cut_short: bool = False


@dataclass(frozen=True)
class Entry:
    """What the catalogue says about one file; all empty where it says nothing.

    Attributes:
        scales: instrument_id to size scale; the key None stands for every other instrument.
        names: instrument_id to (dataset, symbol), where a DBN header could not hold them.
        recording: of a session, or None.
    """

    scales: Mapping[int | None, int] = field(default_factory=dict)
    names: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    recording: Recording | None = None

    def scale_of(self, instrument_id: int) -> int:
        """Return the size scale of *instrument_id*, 1 where none is given."""
        return self.scales.get(instrument_id, self.scales.get(None, 1))


def read_entry(path: Path) -> Entry:
    """Return what ``metadata.json`` beside *path* says about it.

    Raises:
        TickFileError: the catalogue is there but is no such JSON, or a value in the entry doesn't fit.
    """
    catalogue = path.parent / CATALOGUE_NAME
    entries = _read_entries(catalogue)
    fitting = [one for one in entries if one.get("file") == path.name]
    fitting += [one for one in entries if fnmatch.fnmatchcase(path.name, str(one.get("file", "")))]
    if not fitting:
        return Entry()
    entry = fitting[0]
    scales = entry.get("size_scale", {})
    named = entry.get("instruments", {})
    if not isinstance(named, dict):
        named = {}  # Somebody's description, in words of their own.
    return Entry(
        scales={_instrument_id(catalogue, key): _scale(catalogue, value) for key, value in scales.items()}
        if isinstance(scales, dict)
        else {None: _scale(catalogue, scales)},
        names={
            _instrument_id(catalogue, key): (str(value.get("dataset", "")), str(value["symbol"]))
            for key, value in named.items()
            if isinstance(value, dict) and "symbol" in value
        },
        recording=_recording(catalogue, entry) if "session_id" in entry else None,
    )


def write_scales(path: Path, instruments: Iterable[Instrument]) -> None:
    """Note the scales of *instruments* for *path* in ``metadata.json`` beside it, in place of an older entry.

    Nothing is written where every scale is 1 and there is no older entry.

    Raises:
        TickFileError: the catalogue is there but is not ours to extend, or can't be written.
    """
    catalogue = path.parent / CATALOGUE_NAME
    scales = {str(one.instrument_id): one.size_scale for one in instruments if one.size_scale != 1}
    entries = _read_entries(catalogue)
    others = [entry for entry in entries if entry.get("file") != path.name]
    if not scales and len(others) == len(entries):
        return
    whole = json.loads(catalogue.read_bytes()) if catalogue.exists() else {}
    whole["files"] = [*others, {"file": path.name, "size_scale": scales}] if scales else others
    if not whole["files"]:
        del whole["files"]
    scratch = catalogue.with_name(f".{catalogue.name}.{os.getpid()}")
    try:
        if whole:
            scratch.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
            scratch.replace(catalogue)
        else:
            catalogue.unlink()
    except OSError as exc:
        raise TickFileError(
            catalogue, f"the size scales can't be noted: {exc.strerror}", mend="make the folder writable"
        ) from exc


def _read_entries(catalogue: Path) -> list[dict[str, Any]]:
    try:
        whole = json.loads(catalogue.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as exc:
        raise TickFileError(catalogue, f"this is no JSON that tells size scales: {exc}", mend=_MEND) from exc
    entries = whole.get("files", []) if isinstance(whole, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TickFileError(catalogue, 'its "files" must be a list of objects', mend=_MEND)
    return entries


def _recording(catalogue: Path, entry: dict[str, Any]) -> Recording:
    try:
        return Recording(
            session_id=int(entry["session_id"]),
            first_tick=int(entry.get("first_tick", 0)),
            rebuild_ticks=int(entry.get("rebuild_ticks", 0)),
            missing_ticks=sum(int(gap["ticks"]) for gap in entry.get("gaps", [])),
            cut_short=bool(entry.get("cut_short", False)),
        )
    except (TypeError, ValueError, KeyError, OverflowError) as exc:
        raise TickFileError(
            catalogue, f"its entry of a recording is broken: {exc!r}", mend=_MEND, field="file", value=entry.get("file")
        ) from exc


def _instrument_id(catalogue: Path, key: str) -> int:
    if key.isascii() and key.isdigit() and len(key) <= 10:
        return int(key)
    raise TickFileError(catalogue, "a key is an instrument_id", mend=_MEND, field="instrument_id", value=key)


def _scale(catalogue: Path, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SIZE_SCALE_MAX:
        return value
    raise TickFileError(
        catalogue, "a size_scale is a whole number, at least 1", mend=_MEND, field="size_scale", value=value
    )
