"""What the kernel itself says of its clock: the error that it admits to, whether anybody disciplines it, TAI's distance.

    maximum error    grows by 500 ppm from one correction of the clock to the next: the bound
    estimated error  what the last correction was off
    STA_UNSYNC       nobody corrects it, or did for too long

``adjtimex`` with no mode set changes nothing and needs no right; a sandbox may refuse it all the same. Through ctypes,
so for now and then alone: it costs some microseconds.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock_daemon.clocks.seam import ClockError

STA_UNSYNC: Final = 0x0040
STA_NANO: Final = 0x2000
TIME_ERROR: Final = 5  # The clock is not synchronised.
_SHIFTED_PPM: Final = 65_536  # freq is in 2^-16 ppm.
_RESERVED_WORDS: Final = 11


class _Timex(ctypes.Structure):
    """``struct timex`` of 64-bit Linux. Source: linux/timex.h."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("fraction", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * _RESERVED_WORDS),
    )


@dataclass(frozen=True, slots=True)
class KernelTime:
    """The kernel's word on CLOCK_REALTIME.

    Attributes:
        synchronised: somebody disciplines it.
        maximum_error_ns, estimated_error_ns: how far it may be from UTC, and is believed to be.
        tai_offset_s: TAI - UTC; 0 where nobody told the kernel.
        frequency_ppm: how much faster the clock is made to run than its oscillator.
    """

    synchronised: bool
    maximum_error_ns: int
    estimated_error_ns: int
    tai_offset_s: int
    frequency_ppm: float


def read_kernel_time(call: Callable[[_Timex], int] | None = None) -> KernelTime:
    """Ask the kernel.

    Args:
        call: fills a ``struct timex`` and returns what ``adjtimex`` returns; None asks the C library.

    Raises:
        ClockError: it does not answer.
    """
    timex = _Timex()
    try:
        state = (call or _adjtimex)(timex)
    except OSError as error:
        raise ClockError(
            f"adjtimex: the kernel does not say how far its clock is off ({error.strerror}); a sandbox may forbid it: "
            "allow adjtimex to read (it changes nothing), or trust the clock's errors to be unknown"
        ) from error
    return KernelTime(
        synchronised=state != TIME_ERROR and not timex.status & STA_UNSYNC,
        maximum_error_ns=timex.maxerror * 1_000,  # Microseconds, whatever STA_NANO says.
        estimated_error_ns=timex.esterror * 1_000,
        tai_offset_s=timex.tai,
        frequency_ppm=timex.freq / _SHIFTED_PPM,
    )


def _adjtimex(timex: _Timex) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "adjtimex", None)
    if function is None:
        raise OSError(0, "the C library has no adjtimex")
    state = int(function(ctypes.byref(timex)))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return state
