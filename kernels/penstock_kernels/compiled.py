"""How every kernel is compiled, in one place: without the interpreter, without fastmath, and cached on disk.

``compiled`` is ``numba.njit`` with the settings that the same bits on any x86-64 depend on: no fastmath (sums keep
their order, multiply and add are never fused) and NumPy's rules for division by zero.

Numba's cache looks only at the file of the function itself, so that a change in a file that it calls would leave
stale machine code behind. Here the key is a digest of every source file of this package and of the function's own:

    a change of any kernel source     compiles all kernels, and all loops built on them, anew
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int64 = int | np.int64  # Inside compiled code always 64 bits.

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile *function* as a kernel: nogil, cached, no fastmath, division by zero as in NumPy.

    The function must allocate nothing and take only arrays and numbers.
    """
    dispatcher = njit(nogil=True, cache=True, error_model="numpy")(function)
    _stamp_cache(dispatcher, Path(function.__code__.co_filename).parent)
    return dispatcher


def _stamp_cache(dispatcher: Any, folder: Path) -> None:
    """Make *dispatcher*'s cache depend on every source of this package and of *folder*."""
    cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if cache_file is not None:  # None when caching is switched off, as by NUMBA_DISABLE_JIT.
        stamp = (sources_digest(Path(__file__).parent), sources_digest(folder))
        cache_file._source_stamp = stamp  # noqa: SLF001  # Numba has no public way to say what a cache depends on.


@functools.cache
def sources_digest(folder: Path) -> str:
    """Return the sha256 of every Python file directly in *folder*, 64 hexadecimal characters."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
