"""Where compiled kernels are kept between processes, keyed by every source that can be inlined into them.

Numba's own cache looks at the file of the compiled function alone: a change in a function that it inlines from
another file would go unseen, and an upgraded daemon would serve yesterday's arithmetic. So the cache folder's name
holds a digest of all our sources that a kernel can consist of, and of the versions beneath them: whole packages, since
their numbers are inlined too, and of the tuning package each file that speaks of compiled code.

    a different source, Numba or Python  =>  a different folder
    the folder can be written by nobody else: what lies in it is run
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

_WHOLE_PACKAGES: Final = ("penstock", "penstock_kernels", "penstock_daemon")
_PACKAGES: Final = (*_WHOLE_PACKAGES, "penstock_tuning")
_MARKS: Final = (b"njit", b"intrinsic", b"compiled")
_KEPT: Final = 4  # Folders of other versions that stay, so that two checkouts do not undo each other's work.


def use() -> Path | None:
    """Point Numba at the folder of these sources; to be called before Numba is imported.

    Returns:
        The folder, or None where ``NUMBA_CACHE_DIR`` was set by somebody else and is left alone.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return None
    base = _base_folder()
    folder = base / _digest()
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:  # Imported before us, by an application: the variable alone comes too late.
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    _prune(base, keep=folder)
    return folder


def _base_folder() -> Path:
    """Return a folder of this user's: the first that works of PENSTOCK_CACHE_DIR, the cache home, a temporary one."""
    candidates = []
    if named := os.environ.get("PENSTOCK_CACHE_DIR"):
        candidates.append(Path(named) / "compiled")
    if home := os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(home) / "penstock" / "compiled")
    with contextlib.suppress(RuntimeError):  # A user without a home folder.
        candidates.append(Path.home() / ".cache" / "penstock" / "compiled")
    candidates.append(Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}" / "compiled")
    for folder in candidates:
        if _is_ours(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="penstock-"))  # For this process alone: every start compiles.


def _is_ours(folder: Path) -> bool:
    """Make *folder* where it is missing. Returns whether it and its parent are this user's and can be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owners = {folder.stat().st_uid, folder.parent.stat().st_uid}
    except OSError:
        return False
    return owners <= {os.getuid(), 0} and os.access(folder, os.W_OK)


def _digest() -> str:
    """Return 16 hexadecimal characters that change whenever a kernel could."""
    digest = hashlib.sha256(sys.version.encode())
    for distribution in ("numba", "llvmlite", "numpy"):
        digest.update(f"{distribution}={importlib.metadata.version(distribution)}".encode())
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            for source in sorted(Path(location).rglob("*.py")):
                text = source.read_bytes()
                if package in _WHOLE_PACKAGES or any(mark in text for mark in _MARKS):
                    digest.update(source.name.encode() + hashlib.sha256(text).digest())
    return digest.hexdigest()[:16]


def _prune(base: Path, *, keep: Path) -> None:
    """Remove all but the newest folders; a folder that another process is removing too is its business."""
    others = [folder for folder in base.iterdir() if folder.is_dir() and folder != keep]
    others.sort(key=lambda folder: folder.stat().st_mtime if folder.exists() else 0.0, reverse=True)
    for folder in others[_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
