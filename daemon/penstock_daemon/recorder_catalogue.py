"""``metadata.json`` beside the recordings: what a DBN header has no place for.

It is the file that tick-file readers look into for size scales; entries and keys of others are left as they are.

    {"files": [{"file": NAME, "rows": 1200, "size_scale": {"1": 1000}, ...}]}      one entry per file, one per line

The file is replaced whole, so a reader sees the old one or the new one. What stands in it is kept as encoded lines, and
only read again when someone else has changed it: with a thousand recordings, noting one more must not keep the
interpreter from the event loop.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

CATALOGUE_NAME: Final = "metadata.json"
_MEND: Final = 'it must be JSON such as {"files": []}; move it away, or choose another folder'


class CatalogueError(Exception):
    """The folder's metadata.json is not one that can be extended."""


class Catalogue:
    """The catalogue of one folder, written by one thread."""

    def __init__(self, folder: Path) -> None:
        """Look into *folder*.

        Raises:
            CatalogueError: there is a metadata.json that is no catalogue.
            OSError: it can't be read.
        """
        self._path = folder / CATALOGUE_NAME
        self._head = ""  # The other keys, encoded, each with a comma after it.
        self._lines: dict[str, str] = {}  # Encoded entries by their file; those without one by a name of no file.
        self._seen: tuple[int, int, int] | None = None  # What the file looked like when it was last read or written.
        self._refresh()

    def note(self, file_name: str, entry: dict[str, Any]) -> None:
        """Write *entry* for *file_name*, in place of an older one.

        Raises:
            CatalogueError: someone has written something else over the catalogue.
            OSError: it can't be written; it is as it was.
        """
        self._refresh()
        line = json.dumps({"file": file_name, **entry})
        self._write({**self._lines, file_name: line})

    def forget(self, file_name: str) -> None:
        """Remove the entry of *file_name*, where there is one.

        Raises:
            CatalogueError, OSError: as ``note``.
        """
        self._refresh()
        if file_name in self._lines:
            self._write({name: line for name, line in self._lines.items() if name != file_name})

    def find(self, file_name: str) -> dict[str, Any]:
        """Return the entry of *file_name*, without its name; empty where there is none.

        Raises:
            CatalogueError, OSError: as ``note``.
        """
        self._refresh()
        entry: dict[str, Any] = json.loads(self._lines.get(file_name, "{}"))
        entry.pop("file", None)
        return entry

    def _refresh(self) -> None:
        """Read the file where it is not the one that was read or written last."""
        try:
            with self._path.open("rb") as file:
                looks = _looks(os.fstat(file.fileno()))
                if looks == self._seen:
                    return
                content = file.read()
        except FileNotFoundError:
            self._head, self._lines, self._seen = "", {}, None
            return
        try:
            whole = json.loads(content)
        except (ValueError, RecursionError) as refusal:
            raise CatalogueError(f"{self._path} is no catalogue of recordings: {refusal}; {_MEND}") from refusal
        entries = whole.pop("files", []) if isinstance(whole, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise CatalogueError(f"{self._path} is no catalogue of recordings; {_MEND}")
        self._head = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in whole.items())
        self._lines = {}
        for number, entry in enumerate(entries):
            name = entry.get("file")
            own = isinstance(name, str) and name not in self._lines
            self._lines[name if own else f"/{number}"] = json.dumps(entry)
        self._seen = looks

    def _write(self, lines: dict[str, str]) -> None:
        scratch = self._path.with_name(f".{CATALOGUE_NAME}.{os.getpid()}")
        try:
            with scratch.open("w", encoding="utf-8") as file:
                file.write("{" + self._head + '"files": [\n' + ",\n".join(lines.values()) + "\n]}\n")
                file.flush()
                looks = _looks(os.fstat(file.fileno()))
            scratch.replace(self._path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise
        self._lines, self._seen = lines, looks


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
