"""How the engine wakes the event loop: one word that the loop arms before it sleeps, one eventfd.

    the loop     stores 1 into LOOP_WAITING, a full fence, then looks at the rings once more, then sleeps
    the engine   publishes, a full fence, then signals where it finds a 1, and takes it back to 0

So either the loop's last look sees what was published, or the engine sees that the loop waits. Other words that the
loop should see at once, such as a breaker that tripped, are published the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon import engine_memory as memory
from penstock_daemon.native import eventfd_signal, fence, load_acquire, store_release

# For what compiled code alone calls: the way in from Python would cost as much to compile as the function.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_part
def wake_loop(m: Any) -> None:
    """Signal the event loop, if it waits: what was published before is visible to it after. m: Buffers."""
    fence()
    if load_acquire(m.words, memory.LOOP_WAITING) != 0:
        store_release(m.words, memory.LOOP_WAITING, 0)
        store_release(m.words, memory.WAKES, m.words[memory.WAKES] + 1)
        eventfd_signal(np.int32(m.settings[memory.LOOP_EVENT]))
