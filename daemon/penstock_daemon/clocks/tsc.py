"""The time stamp counter as a clock: refused where it is not sound, calibrated, and watched from then on.

    sound        x86, constant_tsc and nonstop_tsc in /proc/cpuinfo, and the kernel has not given it up itself
    calibrated   rate = (raw_1 - raw_0) / (cycles_1 - cycles_0), off by at most (error_0 + error_1) / (raw_1 - raw_0)
    watched      at every later look:   |where the rate says it is - where it is|  <=  error_ns, else it is BROKEN

The bound of error is that of the last anchor, plus the time since times what the rate may be off: it grows, and each
look that finds the counter where it should be is the next anchor, so that it shrinks again. An oscillator may wander by
WANDER_PPB from one look to the next; beyond DRIFT_PPB in all, or a jump of more than JUMP_NS, the counter is given up for
good: a guest that moved to another machine, firmware that wrote it, sockets that are apart.

Its nanoseconds are those of CLOCK_MONOTONIC_RAW. CLOCK_MONOTONIC is steered by NTP, at most 500 ppm beside it: durations
within a tick's path are told apart by less than 3 ns in 5 us, and times of day never come from here.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.v1.records import Clock
from penstock_daemon.clocks.cycles import Anchor
from penstock_daemon.clocks.seam import PPB, Base, ClockReading, Epoch

FRACTION_BITS: Final = 32
BASELINE_NS: Final = 20_000_000  # Between the two first anchors, at least: the rate is then good to some 5 ppm.
WANDER_PPB: Final = 1_000
DRIFT_PPB: Final = 20_000  # 100 ns in 5 ms.
JUMP_NS: Final = 2_000
_X86: Final = frozenset({"x86_64", "amd64", "i686", "i386"})
_FLAGS: Final = ("constant_tsc", "nonstop_tsc")
_CLOCK_SOURCES: Final = "sys/devices/system/clocksource/clocksource0/available_clocksource"


def refusal(root: Path = Path("/"), machine: str | None = None) -> str:
    """Return why the counter can't be trusted on this host, or "" where it can.

    Args:
        root: of the host's files; tests give a tree.
        machine: its architecture; None asks the kernel.
    """
    machine = platform.machine() if machine is None else machine
    if machine.lower() not in _X86:
        return f"this CPU ({machine}) has no TSC that a program may read"
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"/proc/cpuinfo can't be read ({error.strerror}), so nobody says that the TSC is invariant"
    kinds = [frozenset(line.partition(":")[2].split()) for line in text.splitlines() if line.startswith("flags")]
    if not kinds:
        return "/proc/cpuinfo names no flags, so nobody says that the TSC is invariant"
    common = frozenset.intersection(*kinds)
    missing = [flag for flag in _FLAGS if flag not in common]
    if missing:
        guest = (
            "; the hypervisor hides or lacks it: pass the host's CPU flags through" if "hypervisor" in common else ""
        )
        return f"the TSC is not invariant: /proc/cpuinfo lacks {' and '.join(missing)}{guest}"
    try:
        sources = (root / _CLOCK_SOURCES).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return ""  # Nothing says otherwise.
    if "tsc" not in sources:
        return f"the kernel does not use the TSC itself: available_clocksource has {' '.join(sources) or 'nothing'}"
    return ""


@dataclass(frozen=True, slots=True)
class Rate:
    """How long a cycle is.

    Attributes:
        fraction: nanoseconds of a cycle, in 2^-FRACTION_BITS.
        error_ppb: by how much that is off at most.
    """

    fraction: int
    error_ppb: int

    @property
    def hertz(self) -> float:
        """Cycles of a second."""
        return PPB * 2**FRACTION_BITS / self.fraction

    def ns(self, cycles: int) -> int:
        """Return how long *cycles* take."""
        return (cycles * self.fraction) >> FRACTION_BITS


def calibrate(first: Anchor, last: Anchor) -> Rate | None:
    """Return the rate between two anchors, or None where they are too near, or the counter did not run forward."""
    cycles, ns = last.cycles - first.cycles, last.raw_ns - first.raw_ns
    if cycles <= 0 or ns < BASELINE_NS:
        return None
    fraction = ((ns << FRACTION_BITS) + cycles // 2) // cycles
    if fraction <= 0:
        return None
    rounding_ppb = PPB // (2 * fraction) + 1
    return Rate(fraction, -(-(first.error_ns + last.error_ns) * PPB // ns) + rounding_ppb)


class TscClock:
    """The counter, from its calibration on.

    Args:
        first, last: the anchors of the calibration, at least BASELINE_NS apart.

    Raises:
        ValueError: they give no rate: the counter stood still, or ran backwards.
    """

    def __init__(self, first: Anchor, last: Anchor) -> None:
        rate = calibrate(first, last)
        if rate is None:
            raise ValueError(
                f"the TSC does not count: {last.cycles - first.cycles} cycles in {last.raw_ns - first.raw_ns} ns"
            )
        self.rate = rate
        self.broken = ""  # Why it was given up; for good.
        self.drift_ppb = 0  # Of its rate since the calibration, as last seen.
        self._first = first
        self._anchor = last
        self._calibrated = rate

    def raw_ns(self, cycles: int) -> int:
        """Return CLOCK_MONOTONIC_RAW when the counter was at *cycles*."""
        return self._anchor.raw_ns + self.rate.ns(cycles - self._anchor.cycles)

    def error_ns(self, cycles: int) -> int:
        """Return by how much ``raw_ns`` is off at most, where the oscillator wanders by WANDER_PPB at most."""
        since_ns = abs(self.rate.ns(cycles - self._anchor.cycles))
        return self._anchor.error_ns + -(-since_ns * (self.rate.error_ppb + WANDER_PPB) // PPB) + 1

    def reading(self, cycles: int) -> ClockReading:
        """Return what the counter at *cycles* says, with its bound of error."""
        return ClockReading(
            Base.TSC,
            Clock.TSC,
            self.raw_ns(cycles),
            self.error_ns(cycles),
            synchronised=not self.broken,
            epoch=Epoch.BOOT,
        )

    def watch(self, seen: Anchor) -> bool:
        """Compare with a new look, and take it for the next anchor. Returns whether the counter is still sound."""
        if self.broken:
            return False
        elapsed_ns = seen.raw_ns - self._anchor.raw_ns
        cycles = seen.cycles - self._anchor.cycles
        if cycles <= 0 and elapsed_ns > seen.error_ns + self._anchor.error_ns:
            return self._break(f"it ran {-cycles} cycles backwards in {elapsed_ns} ns")
        off_ns = self.raw_ns(seen.cycles) - seen.raw_ns
        allowed_ns = self.error_ns(seen.cycles) + seen.error_ns
        if abs(off_ns) > allowed_ns + JUMP_NS + elapsed_ns * DRIFT_PPB // PPB:
            return self._break(f"it was {off_ns} ns off after {elapsed_ns} ns")
        long_rate = calibrate(self._first, seen)
        if long_rate is not None:
            self.drift_ppb = (long_rate.fraction - self._calibrated.fraction) * PPB // self._calibrated.fraction
            if abs(self.drift_ppb) > DRIFT_PPB + self._calibrated.error_ppb:
                return self._break(f"its rate moved by {self.drift_ppb} ppb since it was calibrated")
        recent = calibrate(self._anchor, seen)
        if abs(off_ns) > allowed_ns and recent is not None:  # It wanders: what it does now counts.
            self.rate, self._first = recent, self._anchor
        elif long_rate is not None and long_rate.error_ppb < self.rate.error_ppb:
            self.rate = long_rate
        self._anchor = seen
        return True

    def _break(self, reason: str) -> bool:
        self.broken = reason
        return False
