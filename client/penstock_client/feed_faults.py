"""Faults made on purpose, to try a feed handler out: packets lost, doubled and put in another order.

The same seed and packets give the same faults, so that what went wrong once can be looked at again. A packet that is kept
back for another order goes out right after the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_client.errors import LocalUsageError

ON_A: Final = "a"
ON_BOTH: Final = "both"


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """How often a packet has a fault.

    Attributes:
        drop, duplicate, reorder: shares of packets, 0 to 1; drawn in that order, at most one fault for a packet.
        seed: of the draws.
        lines: ON_A, so that line B has everything; or ON_BOTH, the same faults on both, so that gaps are real.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    seed: int = 0
    lines: str = ON_A

    def __post_init__(self) -> None:
        """Raise LocalUsageError for shares that are none."""
        for name in ("drop", "duplicate", "reorder"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise LocalUsageError(f"--{name} must be a share of packets, 0 to 1: {name}={value}")
        if self.drop + self.duplicate + self.reorder > 1:
            raise LocalUsageError(
                "--drop, --duplicate and --reorder must be at most 1 together: "
                f"sum={self.drop + self.duplicate + self.reorder:g}"
            )
        if self.seed < 0:
            raise LocalUsageError(f"--seed must be 0 or more: seed={self.seed}")

    @property
    def any(self) -> bool:
        """Whether there are faults at all."""
        return bool(self.drop or self.duplicate or self.reorder)


class FaultMaker:
    """What becomes of each packet, in order.

    Attributes:
        dropped, duplicated, reordered: packets so far.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._noise = np.random.Generator(np.random.Philox(plan.seed))
        self._kept_back: bytes | None = None
        self.dropped = self.duplicated = self.reordered = 0

    def packets(self, packet: bytes) -> list[bytes]:
        """Return what is sent now in the place of *packet*."""
        plan, draw = self._plan, self._noise.random()
        sent: list[bytes] = []
        if draw < plan.drop:
            self.dropped += 1
        elif draw < plan.drop + plan.duplicate:
            self.duplicated += 1
            sent = [packet, packet]
        elif draw < plan.drop + plan.duplicate + plan.reorder and self._kept_back is None:
            self.reordered += 1
            self._kept_back = packet
            return []
        else:
            sent = [packet]
        return sent + self.rest()

    def rest(self) -> list[bytes]:
        """Return the packet that was kept back, if there is one: nothing comes for a while that it could follow."""
        kept, self._kept_back = self._kept_back, None
        return [] if kept is None else [kept]
