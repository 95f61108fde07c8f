"""The clock in a network card, through /dev/ptp*: how far it is from CLOCK_REALTIME, with the bound of that.

    PTP_SYS_OFFSET_EXTENDED   system, card, system: the narrowest of SAMPLES            tried first
    PTP_SYS_OFFSET_PRECISE    card and system at one moment, where the hardware can     the next
    PTP_SYS_OFFSET            system and card in turn                                   the last resort

The way to the card over PCIe is what the bound is made of: about a microsecond. Stamps of a card are in its own base;
disciplined by ptp4l that is TAI, 37 s beside Unix time, and left alone it is anything. Untested on hardware: the packing
is tested against recorded bytes, and what is refused against this kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock_daemon.clocks.bracket import bracketed
from penstock_daemon.clocks.seam import Base, ClockError, Offset

SAMPLES: Final = 10
SAMPLES_MAX: Final = 25  # PTP_MAX_SAMPLES

_TIME: Final = struct.Struct("=qII")  # struct ptp_clock_time: seconds, nanoseconds, reserved.
_HEAD: Final = struct.Struct("=I12x")  # n_samples, reserved.
_MAGIC: Final = ord("=")
EXTENDED_BYTES: Final = _HEAD.size + 3 * SAMPLES_MAX * _TIME.size
PLAIN_BYTES: Final = _HEAD.size + (2 * SAMPLES_MAX + 1) * _TIME.size
PRECISE_BYTES: Final = 3 * _TIME.size + 16
CAPS_BYTES: Final = 80
SIOCETHTOOL: Final = 0x8946
TS_INFO: Final = struct.Struct("=IIiI12xI12x")  # struct ethtool_ts_info: the third is the number of the clock.
_ETHTOOL_GET_TS_INFO: Final = 0x41
_WRITE, _READ = 1, 2
_WITHOUT: Final = 'do without: clock.ptp = "", feed.stamps = "kernel"'
_NOT_THERE: Final = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

# Fills the buffer as ioctl(descriptor, request, buffer) does.
Ioctl = Callable[[int, int, bytearray], object]


def _request(direction: int, number: int, size: int) -> int:
    """Return an ioctl's number. Source: asm-generic/ioctl.h."""
    return direction << 30 | size << 16 | _MAGIC << 8 | number


PTP_CLOCK_GETCAPS: Final = _request(_READ, 1, CAPS_BYTES)
PTP_SYS_OFFSET: Final = _request(_WRITE, 5, PLAIN_BYTES)
PTP_SYS_OFFSET_PRECISE: Final = _request(_READ | _WRITE, 8, PRECISE_BYTES)
PTP_SYS_OFFSET_EXTENDED: Final = _request(_READ | _WRITE, 9, EXTENDED_BYTES)


def _times(buffer: bytes | bytearray, start: int, count: int) -> list[int]:
    """Return *count* times from *start* on, in nanoseconds."""
    rows = (_TIME.unpack_from(buffer, start + index * _TIME.size) for index in range(count))
    return [seconds * 1_000_000_000 + nanoseconds for seconds, nanoseconds, _ in rows]


def narrowest(triples: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Return (card - system, error) of the narrowest of (system, card, system), nanoseconds.

    A wall clock that was set back in between leaves a triple that means nothing; it is passed over.

    Raises:
        ClockError: none is of use.
    """
    sound = [bracketed(*triple) for triple in triples if triple[0] <= triple[2]]
    if not sound:
        raise ClockError("PTP clock: the system clock ran backwards while it was compared; ask again")
    return min(sound, key=lambda one: one[1])


def unpack_extended(buffer: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Return (system, card, system) of each sample of a filled ``struct ptp_sys_offset_extended``."""
    times = _times(buffer, _HEAD.size, 3 * _count(buffer))
    return list(zip(times[::3], times[1::3], times[2::3], strict=True))


def unpack_plain(buffer: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Return (system, card, system) of each sample of a filled ``struct ptp_sys_offset``."""
    times = _times(buffer, _HEAD.size, 2 * _count(buffer) + 1)
    return list(zip(times[:-1:2], times[1::2], times[2::2], strict=True))


def unpack_precise(buffer: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Return the one sample of a filled ``struct ptp_sys_offset_precise``, in the same form."""
    card, system, _ = _times(buffer, 0, 3)
    return [(system, card, system)]


def _count(buffer: bytes | bytearray) -> int:
    (count,) = _HEAD.unpack_from(buffer)
    if not 1 <= count <= SAMPLES_MAX:
        raise ClockError(f"PTP clock: the driver returned {count} samples; ask for 1 to {SAMPLES_MAX}")
    return int(count)


def _counted(size: int) -> bytearray:
    buffer = bytearray(size)
    _HEAD.pack_into(buffer, 0, SAMPLES)
    return buffer


_WAYS: Final = (
    ("extended", PTP_SYS_OFFSET_EXTENDED, lambda: _counted(EXTENDED_BYTES), unpack_extended),
    ("precise", PTP_SYS_OFFSET_PRECISE, lambda: bytearray(PRECISE_BYTES), unpack_precise),
    ("plain", PTP_SYS_OFFSET, lambda: _counted(PLAIN_BYTES), unpack_plain),
)


class PtpClock:
    """One open clock of a card.

    Args:
        path: such as /dev/ptp0.
        ioctl: asks the kernel; tests give another.

    Raises:
        ClockError: there is none, or this user may not read it.
    """

    def __init__(self, path: str, ioctl: Ioctl = fcntl.ioctl) -> None:
        self.path = path
        self.way = ""  # How the offset was had last.
        self._ioctl = ioctl
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ClockError(_refused(path, error)) from error
        try:
            ioctl(self._descriptor, PTP_CLOCK_GETCAPS, bytearray(CAPS_BYTES))
        except OSError as error:
            self.close()
            raise ClockError(f"{path}: is no PTP clock ({error.strerror}); name one of /dev/ptp*") from error

    def offset(self) -> Offset:
        """Return how far the card's clock is from CLOCK_REALTIME.

        Raises:
            ClockError: the driver tells in none of the three ways.
        """
        reasons = []
        for way, request, empty, unpack in _WAYS:
            buffer = empty()
            taken_ns = time.monotonic_ns()
            try:
                self._ioctl(self._descriptor, request, buffer)
            except OSError as error:
                reasons.append(f"{way}: {error.strerror}")
                if error.errno not in _NOT_THERE:
                    break
                continue
            offset_ns, error_ns = narrowest(unpack(buffer))
            self.way = way
            return Offset(Base.PTP, Base.REALTIME, offset_ns, error_ns + 1, taken_ns)
        raise ClockError(f"{self.path}: the driver does not compare its clock with the system's ({'; '.join(reasons)})")

    def close(self) -> None:
        """Let go of it. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _refused(path: str, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path}: this user may not read it; let the daemon's user read it (a udev rule), or {_WITHOUT}"
    if error.errno == errno.ENOENT:
        return f"{path}: there is no such clock; name one of /dev/ptp*, or {_WITHOUT}"
    return f"{path}: can't be opened ({error.strerror}); name one of /dev/ptp*, or {_WITHOUT}"


def told_index(interface: str, ioctl: Callable[[int, int, bytes], object] = fcntl.ioctl) -> int:
    """Return the N of /dev/ptpN that stamps an interface's packets, by its driver (ETHTOOL_GET_TS_INFO); -1 for none.

    Args:
        interface: its name; a VLAN answers for the card below it.
        ioctl: asks the kernel; tests give another.
    """
    answer = ctypes.create_string_buffer(TS_INFO.pack(_ETHTOOL_GET_TS_INFO, 0, -1, 0, 0), TS_INFO.size)
    request = struct.pack("=16sQ16x", os.fsencode(interface), ctypes.addressof(answer))  # struct ifreq
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        ioctl(asking.fileno(), SIOCETHTOOL, request)
        return int(TS_INFO.unpack(answer.raw)[2])
    return -1


def clock_of_interface(interface: str, root: Path = Path("/"), told: Callable[[str], int] = told_index) -> str:
    """Return the clock of a network interface, such as /dev/ptp0, or "" where it has none.

    Its driver is asked first: a card can have several clocks, and an interface above a card has no folder of it.
    """
    index = told(interface)
    if index >= 0:
        return f"/dev/ptp{index}"
    folder = root / "sys/class/net" / interface / "device/ptp"
    names = sorted(path.name for path in folder.glob("ptp[0-9]*")) if folder.is_dir() else []
    return f"/dev/{names[0]}" if names else ""


def interfaces_of_clock(path: str, root: Path = Path("/")) -> list[str]:
    """Return the network interfaces whose clock is *path*; a card with several ports has one clock for all."""
    name = path.rpartition("/")[2]
    return sorted(found.parts[-4] for found in (root / "sys/class/net").glob(f"*/device/ptp/{name}"))


def first_clock(root: Path = Path("/")) -> str:
    """Return the first clock of a network interface, or "" where this host has none."""
    found = sorted(path.name for path in (root / "sys/class/net").glob("*/device/ptp/ptp[0-9]*"))
    return f"/dev/{found[0]}" if found else ""
