"""A clock that a test moves by hand, for whatever takes its clock as a parameter.

clock = HandClock()
watch = Watch(..., clock=clock)
clock.advance(seconds=5)
"""

from __future__ import annotations


class HandClock:
    """Monotonic nanoseconds that stand still until they are moved.

    Args:
        now_ns: where it begins; not 0, as no clock of a running machine is.
    """

    def __init__(self, now_ns: int = 1_000_000_000_000) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, *, seconds: float = 0.0, ns: int = 0) -> int:
        """Move it forward, and return the time it then shows."""
        step_ns = round(seconds * 1e9) + ns
        assert step_ns >= 0, "a monotonic clock does not go back"
        self.now_ns += step_ns
        return self.now_ns
