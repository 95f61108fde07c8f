"""The kernel's clocks: CLOCK_MONOTONIC and its raw sister, CLOCK_REALTIME and CLOCK_TAI with the error they admit to.

MONOTONIC, MONOTONIC_RAW    begin at boot and never step: their own truth
REALTIME, TAI               are as good as the kernel says; not synchronised, nobody knows how good
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.v1.records import Clock
from penstock_daemon.clocks.kernel_time import KernelTime, read_kernel_time
from penstock_daemon.clocks.seam import UNKNOWN_NS, Base, ClockError, ClockReading, Epoch

CLOCK_TAI: Final = 11
_IDS: Final = {
    Base.MONOTONIC: time.CLOCK_MONOTONIC,
    Base.MONOTONIC_RAW: time.CLOCK_MONOTONIC_RAW,
    Base.REALTIME: time.CLOCK_REALTIME,
    Base.TAI: CLOCK_TAI,
}


def reader_ns(base: Base) -> Callable[[], int]:
    """Return what reads one of the kernel's clocks, in nanoseconds."""
    clock = _IDS[base]
    return lambda: time.clock_gettime_ns(clock)


@dataclass(frozen=True)
class SteadyClock:
    """A clock that begins at boot.

    Attributes:
        base: MONOTONIC or MONOTONIC_RAW.
        read_ns: reads it.
    """

    base: Base
    read_ns: Callable[[], int]

    def read(self) -> ClockReading:
        """Look at it once."""
        return ClockReading(self.base, Clock.USER, self.read_ns(), 0, synchronised=True, epoch=Epoch.BOOT)


@dataclass(frozen=True)
class WallClock:
    """A clock that says what time it is in the world, with the kernel's word on how far it is off.

    Attributes:
        base: REALTIME or TAI.
        read_ns: reads it.
        kernel: returns the kernel's word; raises ClockError.
    """

    base: Base
    read_ns: Callable[[], int]
    kernel: Callable[[], KernelTime] = read_kernel_time

    def read(self) -> ClockReading:
        """Look at it once.

        Raises:
            ClockError: TAI, and nobody told the kernel how far it is from UTC: it would be Unix time by another name.
        """
        ns = self.read_ns()
        try:
            word = self.kernel()
        except ClockError:
            if self.base == Base.TAI:
                raise
            return ClockReading(self.base, Clock.USER, ns, UNKNOWN_NS, synchronised=False, epoch=Epoch.UNIX)
        if self.base == Base.TAI and word.tai_offset_s == 0:
            raise ClockError(
                "clock tai: the kernel was not told how far TAI is from UTC, so it equals Unix time; let the clock's "
                "daemon tell it (leapsectz of chrony, or ptp4l with phc2sys)"
            )
        error_ns = word.maximum_error_ns if word.synchronised else UNKNOWN_NS
        epoch = Epoch.TAI if self.base == Base.TAI else Epoch.UNIX
        return ClockReading(self.base, Clock.USER, ns, error_ns, synchronised=word.synchronised, epoch=epoch)
