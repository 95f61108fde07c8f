"""How every kernel is compiled, in one place: without the interpreter, without fastmath, and cached on disk.

``compiled`` is ``numba.njit`` with the settings that the same bits on any x86-64 depend on: no fastmath (sums keep
their order, multiply and add are never fused) and NumPy's rules for division by zero. Where the machine code is kept
between processes, and when it is made anew, is compile_cache's business.
"""

from __future__ import annotations

from collections.abc import Callable
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
    return njit(nogil=True, cache=True, error_model="numpy")(function)


def inlined(function: _Function) -> _Function:
    """Compile *function* into every kernel that calls it: for the insides of loops, above all for lane values.

    A call that is left to the compiler's judgement hands sixteen lanes over in memory: measured, a step takes 1.6 times
    as long. Such a function counts no references to its arrays (they are its caller's), so it cannot allocate.
    """
    return njit(nogil=True, cache=True, error_model="numpy", forceinline=True, _nrt=False)(function)
