"""All memory of the tick path: one anonymous mapping, handed out by name, then sealed.

Nothing on the tick path is allocated after start-up (S4): every ring, state, table and model slot is a named buffer of
the arena, and ``seal()`` ends the handing out. The mapping is page-locked where the limit allows, so that no tick
waits for a page fault.

    sum of the buffers, each rounded up to a cache line  <=  capacity
"""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

CACHE_LINE_BYTES: Final = 64


@dataclass(frozen=True)
class ArenaBuffer:
    """What the arena gave away: for people who ask where the memory went."""

    name: str
    offset: int
    size_bytes: int
    holds: str


class Arena:
    """A bounded mapping that hands out zeroed, cache-line aligned arrays until it is sealed.

    Args:
        capacity_bytes: the bound; untouched pages cost nothing until they are locked.

    Raises:
        MemoryError: this host has less; the sentence names the keys to lower.
    """

    def __init__(self, capacity_bytes: int) -> None:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        if capacity_bytes > memory_bytes:
            raise MemoryError(
                f"the arena of rings, states and models would take {capacity_bytes >> 20} MiB, this host has "
                f"{memory_bytes >> 20}; lower sessions.max, sessions.in_flight_max, sessions.states_max, online.states, "
                "models.units_max or models.dense_units_max"
            )
        self._map = mmap.mmap(-1, capacity_bytes)
        self._capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._sealed = False
        self.buffers: list[ArenaBuffer] = []

    def take(self, name: str, shape: tuple[int, ...], dtype: Any, *, holds: str) -> NDArray[Any]:
        """Return a zeroed array of the arena, C-contiguous.

        Args:
            name: unique, for the table of what the arena holds.
            shape: of the array.
            dtype: of the array.
            holds: one phrase for people.

        Raises:
            MemoryError: the arena is too small.
        """
        assert not self._sealed, f"the arena is sealed: take {name!r} before start-up ends"
        assert all(buffer.name != name for buffer in self.buffers), f"taken twice: {name!r}"
        item = np.dtype(dtype)
        size_bytes = int(np.prod(shape, dtype=np.int64)) * item.itemsize
        offset = -(-self._used_bytes // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
        if offset + size_bytes > self._capacity_bytes:
            raise MemoryError(
                f"arena: {name} wants {size_bytes} bytes, {self._capacity_bytes - offset} are left of "
                f"{self._capacity_bytes}"
            )
        self._used_bytes = offset + size_bytes
        self.buffers.append(ArenaBuffer(name, offset, size_bytes, holds))
        count = size_bytes // item.itemsize
        return np.frombuffer(self._map, dtype=item, count=count, offset=offset).reshape(shape)

    def seal(self) -> None:
        """End the handing out; from here on the tick path's memory is fixed."""
        self._sealed = True

    @property
    def sealed(self) -> bool:
        """True once ``seal`` was called."""
        return self._sealed

    @property
    def used_bytes(self) -> int:
        """Bytes handed out, alignment included."""
        return self._used_bytes

    @property
    def address(self) -> int:
        """Where the mapping begins, at a page; for a device that reads it in place."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def start_of(self, name: str) -> int:
        """Return how far into the mapping the buffer *name* begins, in bytes."""
        return next(one.offset for one in self.buffers if one.name == name)

    def end_of(self, name: str) -> int:
        """Return how far into the mapping the buffer *name* reaches, in bytes."""
        return self.start_of(name) + next(one.size_bytes for one in self.buffers if one.name == name)

    def lock(self) -> str:
        """Lock the used pages into memory.

        Returns:
            An empty string when they are locked, else what stands in the way and how to mend it.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(self._used_bytes)) == 0:
            return ""
        error = ctypes.get_errno()
        kilobytes = -(-self._used_bytes // 1024)
        return (
            f"memory is not locked: mlock of {kilobytes} KiB failed ({os.strerror(error)}); "
            f"raise the limit: LimitMEMLOCK={kilobytes}K in the systemd unit, or 'ulimit -l {kilobytes}' before the start"
        )

    def touch(self) -> None:
        """Write every used page once, so that its first use on the tick path is not a page fault."""
        for offset in range(0, self._used_bytes, mmap.PAGESIZE):
            self._map[offset] = self._map[offset]
