"""CPU sets as the kernel writes them: lists (``0-3,8``) and masks (``ff,00000000``), read and written.

parse(format(cpus)) == cpus        for both forms
"""

from __future__ import annotations

from typing import Final

from penstock_host.affinity import format_cpus

__all__ = ["format_cpus", "format_mask", "parse_cpus", "parse_mask"]

CPUS_MAX: Final = 8192  # What kernels are built for at most; a larger number is no CPU.
_TEXT_MAX: Final = 8 * CPUS_MAX  # Longer than every second CPU by itself.
_GROUP_BITS: Final = 32
_DIGITS: Final = frozenset("0123456789abcdefABCDEF")


def parse_cpus(text: str) -> frozenset[int]:
    """Return the CPUs of a list such as ``0-3,8``; an empty text or ``(null)`` has none.

    Raises:
        ValueError: it is no list of CPUs.
    """
    cpus: set[int] = set()
    text = _bounded(text)
    if text in {"", "(null)"}:
        return frozenset()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not (low.isascii() and low.isdigit()) or (dash and not (high.isascii() and high.isdigit())):
            raise ValueError(f"CPUs must be a list such as 2-5,8, was {text!r}")
        first, last = int(low), int(high) if dash else int(low)
        if first > last or last >= CPUS_MAX:
            raise ValueError(f"CPUs must be a list such as 2-5,8, was {text!r}")
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def parse_mask(text: str) -> frozenset[int]:
    """Return the CPUs of a mask such as ``ff,00000000``: groups of 32 bits, the highest first.

    Raises:
        ValueError: it is no mask.
    """
    bits = 0
    text = _bounded(text)
    for group in text.split(","):
        if not group or len(group) > _GROUP_BITS // 4 or set(group) - _DIGITS:
            raise ValueError(f"a CPU mask must be hexadecimal, was {text!r}")
        bits = bits << _GROUP_BITS | int(group, 16)
    if bits >> CPUS_MAX:
        raise ValueError(f"a CPU mask must have at most {CPUS_MAX} bits, was {text!r}")
    return frozenset(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def _bounded(text: str) -> str:
    if len(text) > _TEXT_MAX:
        raise ValueError(f"CPUs must take at most {_TEXT_MAX} characters, was {len(text)}")
    return text.strip()


def format_mask(cpus: frozenset[int]) -> str:
    """Return *cpus* as a mask of groups of 32 bits, the highest first."""
    bits = sum(1 << cpu for cpu in cpus)
    groups = [f"{bits & 0xFFFFFFFF:08x}"]
    while bits := bits >> _GROUP_BITS:
        groups.insert(0, f"{bits & 0xFFFFFFFF:08x}")
    return ",".join(groups)
