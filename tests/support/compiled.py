"""What one test compiled is given to all: an engine's code takes half a minute of a processor, and lies in a cache.

A file is put there whole, where there is none, and the index of a function before its code: a process that looks, or
compiles the same at this moment, finds all of it, or compiles.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

INDEX, CODE = ".nbi", ".nbc"


def share(compiled: Path, shared: Path) -> None:
    """Put what lies in one cache of compiled code, *compiled*, into another where it is missing there."""
    for index in compiled.rglob(f"*{INDEX}"):
        target = shared / index.relative_to(compiled)
        if _put(index, target):
            for code in index.parent.glob(f"{index.stem}.*{CODE}"):
                _put(code, target.with_name(code.name))


def _put(path: Path, target: Path) -> bool:
    """Copy a file unless there is one. Returns whether there was none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside, contextlib.suppress(FileExistsError):
        os.link(shutil.copy2(path, aside), target)
        return True
    return False
