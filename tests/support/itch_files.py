"""Small ITCH 5.0 files for tests: messages of three types, with times that go up."""

from __future__ import annotations

import gzip
from pathlib import Path


def itch_message(kind: str, size: int, time_ns: int, locate: int = 1) -> bytes:
    """Return a message of *size* bytes whose body is zeros."""
    return kind.encode() + locate.to_bytes(2, "big") + bytes(2) + time_ns.to_bytes(6, "big") + bytes(size - 11)


def itch_messages(count: int = 40, *, start_ns: int = 34_200_000_000_000, gap_ns: int = 1_000_000) -> list[bytes]:
    """Return *count* messages: a system event, then deletions and additions in turn."""
    kinds = (("D", 19), ("A", 36), ("U", 35))
    first = [itch_message("S", 12, start_ns)]
    return first + [itch_message(*kinds[index % 3], start_ns + index * gap_ns) for index in range(1, count)]


def write_itch(path: Path, messages: list[bytes], *, lengths: bool = True) -> Path:
    """Write *messages*, each after its length, or after two zeros; packed where the name ends in .gz."""
    data = b"".join((len(one).to_bytes(2, "big") if lengths else bytes(2)) + one for one in messages)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
