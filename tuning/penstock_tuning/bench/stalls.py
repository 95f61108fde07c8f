"""Which ticks fell into a stall of the machine: moments in which a processor ran nothing of ours, whatever we did.

a stall is [due, woke] of a sleeper that woke more than STALL_NS after it was due
a tick is stalled where [scheduled, received] overlaps any stall; a lost tick never is: nothing excuses it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.bench.figures import BOUND_NS, Figures, share_within

STALL_NS: Final = 1_000_000


@dataclass(frozen=True)
class Stalls:
    """What the probe saw.

    Attributes:
        windows_ns: shape (stalls, 2), due and woke, monotonic nanoseconds, in any order, overlaps allowed.
        worst_ns: the longest oversleep, stall or not.
        priority: "fifo" where the sleepers outran every ordinary thread, so that only the machine could hold them up;
            "ordinary" where that was not allowed, and busy neighbours (ourselves among them) count as stalls too.
    """

    windows_ns: NDArray[np.int64]
    worst_ns: int
    priority: str

    def mask(self, scheduled_ns: NDArray[np.int64], received_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which ticks are stalled, shape (ticks,)."""
        merged = self.merged_ns
        if not len(merged):
            return np.zeros(len(scheduled_ns), dtype=bool)
        # Merged windows ascend without overlap: the first that ends at or after `scheduled` is the one to look at.
        index = np.searchsorted(merged[:, 1], scheduled_ns, side="left")
        starts = np.append(merged[:, 0], np.iinfo(np.int64).max)[index]
        return (starts <= received_ns) & (received_ns > 0)

    @property
    def merged_ns(self) -> NDArray[np.int64]:
        """The windows of all processors as one ascending list without overlaps, shape (windows, 2)."""
        merged: list[list[int]] = []
        for start, end in sorted((int(start), int(end)) for start, end in self.windows_ns):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        return np.array(merged, dtype=np.int64).reshape(-1, 2)

    def figures(self, scheduled_ns: NDArray[np.int64], received_ns: NDArray[np.int64]) -> Figures:
        """Return share_within_5ms_outside_stalls, probe_max_us, stalls, stalled_ms and ticks_in_stalls."""
        stalled = self.mask(scheduled_ns, received_ns)
        merged = self.merged_ns
        return {
            "share_within_5ms_outside_stalls": share_within(scheduled_ns[~stalled], received_ns[~stalled], BOUND_NS),
            "probe_max_us": self.worst_ns / 1e3,
            "stalls": len(merged),
            "stalled_ms": float(np.sum(merged[:, 1] - merged[:, 0])) / 1e6,
            "ticks_in_stalls": int(np.count_nonzero(stalled)),
        }
