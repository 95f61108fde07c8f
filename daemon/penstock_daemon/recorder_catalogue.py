"""``metadata.json`` beside the recordings: what a DBN header has no place for.

It is the file that tick-file readers look into for size scales; entries and keys of others are left as they are.

    {"files": [{"file": NAME, "rows": 1200, "size_scale": {"1": 1000}, ...}]}      one entry per file

The file is replaced whole, so a reader sees the old one or the new one.
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
        self._read()

    def note(self, file_name: str, entry: dict[str, Any]) -> None:
        """Write *entry* for *file_name*, in place of an older one.

        Raises:
            CatalogueError: someone has written something else over the catalogue.
            OSError: it can't be written; it is as it was.
        """
        whole = self._read()
        others = [one for one in whole.get("files", []) if one.get("file") != file_name]
        whole["files"] = [*others, {"file": file_name, **entry}]
        self._write(whole)

    def forget(self, file_name: str) -> None:
        """Remove the entry of *file_name*, where there is one.

        Raises:
            CatalogueError, OSError: as ``note``.
        """
        whole = self._read()
        entries = whole.get("files", [])
        others = [one for one in entries if one.get("file") != file_name]
        if len(others) < len(entries):
            whole["files"] = others
            self._write(whole)

    def find(self, file_name: str) -> dict[str, Any] | None:
        """Return the entry of *file_name*, or None.

        Raises:
            CatalogueError, OSError: as ``note``.
        """
        return next((one for one in self._read().get("files", []) if one.get("file") == file_name), None)

    def _read(self) -> dict[str, Any]:
        try:
            whole = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as refusal:
            raise CatalogueError(f"{self._path} is no catalogue of recordings: {refusal}; {_MEND}") from refusal
        entries = whole.get("files", []) if isinstance(whole, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise CatalogueError(f"{self._path} is no catalogue of recordings; {_MEND}")
        return dict(whole)

    def _write(self, whole: dict[str, Any]) -> None:
        scratch = self._path.with_name(f".{CATALOGUE_NAME}.{os.getpid()}")
        try:
            scratch.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
            scratch.replace(self._path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise
