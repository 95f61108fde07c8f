"""The GPU's %globaltimer against the host's clock, from the bounds that the device loop keeps of every launch.

    no block began before its launch; no end was seen before it was
        low <= device - host <= high      loosened by 1 part in 4,096 of the time since (``device/submit.py``)

Nothing is measured here: what the engine knows is read, while it may be writing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.clocks.seam import PPB, Base, Offset
from penstock_daemon.device import memory

DRIFT_PPB: Final = PPB // 4_096  # What the loop allows the two clocks to drift apart.
_TRIES: Final = 4


def device_offset(words: NDArray[np.int64]) -> Offset | None:
    """Return the GPU's clock against CLOCK_MONOTONIC as of the last launch; None where it moves while it is read.

    Args:
        words: of a device's engine, ``DeviceBuffers.words``.
    """
    for _ in range(_TRIES):
        taken_ns = int(words[memory.CLOCK_AT_NS])
        low_ns, high_ns = int(words[memory.CLOCK_LOW_NS]), int(words[memory.CLOCK_HIGH_NS])
        again_ns = (int(words[memory.CLOCK_LOW_NS]), int(words[memory.CLOCK_HIGH_NS]), int(words[memory.CLOCK_AT_NS]))
        if (low_ns, high_ns, taken_ns) == again_ns:
            middle_ns = (low_ns + high_ns) // 2
            error_ns = max(high_ns - middle_ns, middle_ns - low_ns)
            return Offset(Base.GPU, Base.MONOTONIC, middle_ns, error_ns, taken_ns)
    return None
