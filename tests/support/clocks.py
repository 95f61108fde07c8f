"""A host's clocks moved by hand: true time, and clocks that differ from it by an offset, a rate, and what a test does.

Whatever a test does to a simulated clock is known exactly, so that a bound of error can be held against the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock_daemon.clocks.cycles import ORDER_NS, Anchor
from penstock_daemon.clocks.kernel_time import KernelTime


@dataclass
class SimulatedHost:
    """True time, and how long it takes to look at a clock.

    Attributes:
        now_ns: true time since boot, which nothing but this object moves.
        delay_ns: returns how long the next look takes; half of it before the clock is read, half of it after, rounded.
    """

    now_ns: int = 1_000_000_000
    delay_ns: Callable[[], int] = lambda: 100

    def pass_ns(self, ns: int) -> None:
        self.now_ns += ns

    def look(self, clock: Callable[[], int]) -> int:
        """Look at a clock as a program does: it takes time."""
        delay_ns = self.delay_ns()
        self.now_ns += delay_ns // 2
        seen = clock()
        self.now_ns += delay_ns - delay_ns // 2
        return seen

    def monotonic_ns(self) -> int:
        return self.look(lambda: self.now_ns)


@dataclass
class SimulatedClock:
    """A clock of a simulated host that is off by an offset and runs at a rate of its own."""

    host: SimulatedHost
    offset_ns: int = 0
    drift_ppb: int = 0
    _since_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self._since_ns = self.host.now_ns

    def true_offset_ns(self) -> int:
        """Return this clock minus the host's true time, now."""
        return self.offset_ns + (self.host.now_ns - self._since_ns) * self.drift_ppb // 1_000_000_000

    def ns(self) -> int:
        return self.host.now_ns + self.true_offset_ns()

    def step(self, ns: int) -> None:
        self.offset_ns += ns

    def read_ns(self) -> int:
        return self.host.look(self.ns)


@dataclass
class SimulatedCounter:
    """A cycle counter of a simulated host; its rate may be changed and its count moved at any time."""

    host: SimulatedHost
    hertz: float = 2.5e9
    count: float = 1e12
    _since_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self._since_ns = self.host.now_ns

    def cycles(self) -> int:
        self.count += (self.host.now_ns - self._since_ns) * self.hertz / 1e9
        self._since_ns = self.host.now_ns
        return int(self.count)

    def run_at(self, hertz: float) -> None:
        """Change its rate from now on."""
        self.cycles()
        self.hertz = hertz

    def jump(self, cycles: float) -> None:
        """Move its count."""
        self.cycles()
        self.count += cycles

    def anchor(self) -> Anchor:
        """Look at it and at the host's clock, as ``cycles.read_anchor`` does."""
        before_ns = self.host.monotonic_ns()
        seen = self.host.look(self.cycles)
        after_ns = self.host.monotonic_ns()
        return Anchor(seen, (before_ns + after_ns) // 2, (after_ns - before_ns) // 2 + 1 + ORDER_NS)


DISCIPLINED = KernelTime(True, 3_000_000, 20_000, 37, 1.5)
LEFT_ALONE = KernelTime(False, 16_000_000_000, 16_000_000_000, 0, 0.0)
