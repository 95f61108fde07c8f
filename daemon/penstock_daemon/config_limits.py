"""What a configuration value may be: one small object per kind of limit, used as part of a field's type.

A limit looks at a value that already has its field's Python type. ``fault`` returns None, or a clause that begins
with "must"; ``words`` says the limit to people, in the docs and in ``--print-config``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock_daemon.addresses import TcpAddress, UnixAddress, parse_address

CPUS_MAX: Final = 8192  # More than Linux can be built for.
_CUDA_INDEX: Final = re.compile(r"cuda:(0|[1-9][0-9]?)", re.ASCII)
_PTP_PATH: Final = re.compile(r"/dev/ptp(0|[1-9][0-9]{0,3})", re.ASCII)
_ONLINE_REGRESSORS: Final = 20  # Of an online readout beside online.units: a test compares it with the kernels, and
_ONLINE_LABELS_EACH: Final = 8  # this: labels that its memory must hold for each. Theirs would import Numba.


class Limit(Protocol):
    """What a value may be."""

    def words(self) -> str:
        """Return the limit as people read it; may be empty."""

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Return what is wrong with *value*, or None; *cpus* are those that are online."""


@dataclass(frozen=True, slots=True)
class Between:
    """A number within bounds, both included."""

    low: float
    high: float

    def words(self) -> str:
        """Return the bounds."""
        return f"{number_text(self.low)} to {number_text(self.high)}"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is outside, and NaN."""
        del cpus
        assert isinstance(value, int | float), "Between limits numbers"
        return None if self.low <= value <= self.high else f"must be {self.words()}"


@dataclass(frozen=True, slots=True)
class OffOrBetween:
    """A number within bounds, both included, or 0, which stands for *zero*."""

    low: float
    high: float
    zero: str = "off"

    def words(self) -> str:
        """Return the bounds."""
        return f"{number_text(self.low)} to {number_text(self.high)}; 0 is {self.zero}"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is neither, and NaN."""
        del cpus
        assert isinstance(value, int | float), "OffOrBetween limits numbers"
        return None if value == 0 or self.low <= value <= self.high else f"must be {self.words()}"


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """A power of two within bounds, both included."""

    low: int
    high: int

    def words(self) -> str:
        """Return the bounds."""
        return f"a power of two, {number_text(self.low)} to {number_text(self.high)}"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is outside or no power of two."""
        del cpus
        assert isinstance(value, int), "PowerOfTwo limits integers"
        fits = self.low <= value <= self.high and value & (value - 1) == 0
        return None if fits else f"must be {self.words()}"


@dataclass(frozen=True, slots=True)
class Cpus:
    """CPU numbers, each online and named once; none stands for an automatic choice."""

    def words(self) -> str:
        """Return the limit."""
        return "CPU numbers that are online; [] is automatic"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse CPUs that are not online, and those named twice."""
        assert isinstance(value, tuple), "Cpus limits tuples"
        offline = [cpu for cpu in value if cpu not in cpus]
        if offline:
            return f"must be online (this host has {cpu_ranges(cpus)})"
        return "must name each CPU once" if len(set(value)) != len(value) else None


@dataclass(frozen=True, slots=True)
class DeviceName:
    """Where predictions may be computed: the CPU, a GPU by its index, or what works."""

    def words(self) -> str:
        """Return the choices."""
        return '"auto" | "cpu" | "cuda" | "cuda:N", the GPU of index N'

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is none of them; whether there is such a GPU is found out at the start."""
        del cpus
        assert isinstance(value, str), "DeviceName limits strings"
        fits = value in ("auto", "cpu", "cuda") or _CUDA_INDEX.fullmatch(value)
        return None if fits else 'must be "auto", "cpu", "cuda", or "cuda:N" for the GPU of index N'


@dataclass(frozen=True, slots=True)
class PtpDevice:
    """The clock of a network card: one by its path, the first that there is, or none."""

    def words(self) -> str:
        """Return the choices."""
        return '"" for none | "auto" | "/dev/ptpN"'

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is none of them; whether there is such a clock is found out at the start."""
        del cpus
        assert isinstance(value, str), "PtpDevice limits strings"
        fits = value in ("", "auto") or _PTP_PATH.fullmatch(value)
        return None if fits else 'must be "" for none, "auto" for the first there is, or a path such as "/dev/ptp0"'


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the gRPC server may listen: a Unix socket, or TCP that only this host can reach."""

    def words(self) -> str:
        """Return the limit."""
        return "unix:PATH (at most 107 bytes) or a loopback HOST:PORT"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is no address, and TCP beyond loopback."""
        del cpus
        return _address_fault(value, unix=True)


@dataclass(frozen=True, slots=True)
class UnixSocketOrNone:
    """A Unix socket; "" stands for one next to the server's."""

    def words(self) -> str:
        """Return the limit."""
        return "unix:PATH (at most 107 bytes)"

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is no address, and TCP."""
        del cpus
        if value == "":
            return None
        assert isinstance(value, str), "addresses are strings"
        return _address_fault(value, unix=True) if value.startswith("unix:") else "must be unix:PATH"


@dataclass(frozen=True, slots=True)
class LoopbackOrOff:
    """A TCP port that only this host can reach; "" stands for off."""

    def words(self) -> str:
        """Return the limit."""
        return 'a loopback HOST:PORT; "" is off'

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what is no TCP address, and one beyond loopback."""
        del cpus
        return None if value == "" else _address_fault(value, unix=False)


@dataclass(frozen=True, slots=True)
class PathText:
    """A path, or a name; "" stands for none."""

    bytes_max: int = 4095  # PATH_MAX less its closing zero.

    def words(self) -> str:
        """Return nothing: any path will do."""
        return ""

    def fault(self, value: object, cpus: Collection[int]) -> str | None:
        """Refuse what the kernel would."""
        del cpus
        assert isinstance(value, str), "PathText limits strings"
        if "\0" in value:
            return "must not have a zero byte"
        return f"must have at most {self.bytes_max} bytes" if len(os.fsencode(value)) > self.bytes_max else None


def _address_fault(value: object, *, unix: bool) -> str | None:
    assert isinstance(value, str), "addresses are strings"
    try:
        address = parse_address(value)
    except ValueError as fault:
        return str(fault)
    if isinstance(address, UnixAddress):
        return None if unix else "must be HOST:PORT, such as 127.0.0.1:9464"
    assert isinstance(address, TcpAddress)
    if not address.loopback:
        return (
            "must be on loopback, such as 127.0.0.1 or [::1] (TCP beyond this host needs TLS, which is not there yet)"
        )
    return None


def number_text(number: float) -> str:
    """Return *number* as TOML writes it, with its thousands set apart from 10,000 on."""
    return f"{number:_}" if isinstance(number, int) and number >= 10_000 else repr(number)


def cpu_ranges(cpus: Collection[int]) -> str:
    """Return *cpus* as the kernel writes them, such as "0-3,8"."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def parse_cpu_ranges(text: str) -> tuple[int, ...]:
    """Return the CPUs of "2,3", "2-5,8" or "[2, 3]", in the order written.

    Raises:
        ValueError: *text* is none of these.
    """
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    cpus: list[int] = []
    for part in inner.split(",") if inner.strip() else []:
        low_text, dash, high_text = part.strip().partition("-")
        low = _cpu_number(low_text)
        high = _cpu_number(high_text) if dash else low
        if high < low:
            raise ValueError(f"the range {part.strip()} runs backwards")
        cpus.extend(range(low, high + 1))
    return tuple(cpus)


def _cpu_number(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) < CPUS_MAX):
        raise ValueError(f"{digits[:20]!r} is no CPU number")
    return int(digits)


def online_cpus() -> frozenset[int]:
    """Return the CPUs that are online; where the kernel does not say, those that this process may use."""
    try:
        return frozenset(parse_cpu_ranges(Path("/sys/devices/system/cpu/online").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return frozenset(os.sched_getaffinity(0))


def forgetting_least(units: int) -> float:
    """Return the least online.forgetting that an online readout may have which looks at *units* of the reservoir."""
    return 1.0 - 1.0 / (_ONLINE_LABELS_EACH * (_ONLINE_REGRESSORS + units))
