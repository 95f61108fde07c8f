"""What a clock tells, and how two of them compare: a reading, an offset, and the bound of error that each carries.

    reading    ns on a base, off from its epoch by at most error_ns
    offset     of - against, off by at most error_ns when it was taken, and by more as time goes on
    across     a difference between two bases carries the errors of all that it was computed from, added

Nothing is averaged into a bound: it is what must be true, and not what is likely. A difference may be negative; it is
given as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from penstock.v1.records import Clock

UNKNOWN_NS: Final = 2**62  # The error of a clock that nobody vouches for.
PPB: Final = 1_000_000_000


class Base(StrEnum):
    """What counts the nanoseconds."""

    MONOTONIC = (
        "monotonic"  # The host's, at the rate that NTP gives it, without steps. Every duration inside the daemon.
    )
    MONOTONIC_RAW = "monotonic_raw"  # The same at the rate of its oscillator.
    REALTIME = "realtime"  # Unix time; can be stepped.
    TAI = "tai"  # The same without leap seconds, as far as the kernel was told how many there were.
    TSC = "tsc"  # The CPU's counter of cycles, as nanoseconds of MONOTONIC_RAW.
    PTP = "ptp"  # The clock in a network card.
    GPU = "gpu"  # %globaltimer.


class Epoch(StrEnum):
    """Where a base begins."""

    BOOT = "boot"
    UNIX = "unix"
    TAI = "tai"
    OWN = "own"  # The device's own; with PTP's daemon it is TAI.


class ClockError(Exception):
    """A clock can't be had here; the sentence says why, and what to do."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One look at a clock.

    Attributes:
        base: what counted.
        source: how a stamp from it is labelled in a prediction.
        ns: since the epoch, nanoseconds.
        error_ns: by how much it may be off from the epoch's true time; UNKNOWN_NS where nobody vouches. A base that
            begins at boot is its own truth: 0.
        synchronised: somebody disciplines it; always true of a base that is its own truth.
        epoch: where ns begins.
    """

    base: Base
    source: Clock
    ns: int
    error_ns: int
    synchronised: bool
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Offset:
    """How far two bases are apart.

    Attributes:
        of, against: the bases.
        offset_ns: of minus against.
        error_ns: by how much it was off at most, when it was taken.
        taken_ns: when, on CLOCK_MONOTONIC.
    """

    of: Base
    against: Base
    offset_ns: int
    error_ns: int
    taken_ns: int

    def aged(self, now_ns: int, drift_ppb: int) -> Offset:
        """Return it as it can be relied on at *now_ns*, where the bases drift apart by at most *drift_ppb*."""
        age_ns = max(now_ns - self.taken_ns, 0)
        return replace(self, error_ns=self.error_ns + -(-age_ns * drift_ppb // PPB))

    def then(self, other: Offset) -> Offset:
        """Return ``self.of`` against ``other.against``; the errors add. The older of the two stamps stays."""
        assert other.of == self.against, "offsets chain where one ends and the other begins"
        return Offset(
            self.of,
            other.against,
            self.offset_ns + other.offset_ns,
            self.error_ns + other.error_ns,
            min(self.taken_ns, other.taken_ns),
        )

    def turned(self) -> Offset:
        """Return ``against`` against ``of``."""
        return replace(self, of=self.against, against=self.of, offset_ns=-self.offset_ns)

    def map_ns(self, ns: int) -> int:
        """Return a time on ``of`` as a time on ``against``; it is off by error_ns at most, beside its own error."""
        return ns - self.offset_ns


@dataclass(frozen=True, slots=True)
class Difference:
    """A duration and by how much it may be off; it may be negative."""

    ns: int
    error_ns: int

    @property
    def certainly_negative(self) -> bool:
        """True where no error of the clocks explains it: the later stamp is before the earlier one."""
        return self.ns + self.error_ns < 0


def difference(later: ClockReading, earlier: ClockReading, offset: Offset | None = None) -> Difference:
    """Return later - earlier with the bound of its error.

    On one base the distance from the epoch cancels. Across two, a measured offset brings its own error (chained ones
    the sum of theirs); without one, two bases of one epoch are compared as they stand, with the sum of both errors.

    Args:
        later, earlier: two readings.
        offset: of later's base against earlier's.

    Raises:
        ValueError: the bases have no epoch in common, and no offset is given.
    """
    if later.base == earlier.base:
        return Difference(later.ns - earlier.ns, 0)
    if offset is not None:
        assert (offset.of, offset.against) == (later.base, earlier.base), "the offset is of the later base"
        return Difference(offset.map_ns(later.ns) - earlier.ns, offset.error_ns)
    if later.epoch != earlier.epoch or later.epoch == Epoch.OWN:
        raise ValueError(
            f"clocks of two epochs need an offset: later={later.base} ({later.epoch}), "
            f"earlier={earlier.base} ({earlier.epoch})"
        )
    return Difference(later.ns - earlier.ns, min(later.error_ns + earlier.error_ns, UNKNOWN_NS))


class ReadableClock(Protocol):
    """A clock of this host."""

    @property
    def base(self) -> Base:
        """What counts."""

    def read(self) -> ClockReading:
        """Look at it once.

        Raises:
            ClockError: it can't be read.
        """
