"""The arena: named buffers of one mapping, until it is sealed."""

from __future__ import annotations

import ctypes
import mmap
import re
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from penstock_daemon.arena import CACHE_LINE_BYTES, Arena

_CAPABILITY_VERSION = 0x20080522
_CAP_IPC_LOCK = 14


def test_buffers_are_zeroed_aligned_and_apart() -> None:
    arena = Arena(1 << 16)
    first = arena.take("first", (3,), np.uint8, holds="three bytes")
    second = arena.take("second", (4, 5), np.float32, holds="a table")
    for buffer in (first, second):
        assert buffer.ctypes.data % CACHE_LINE_BYTES == 0
        assert buffer.flags.c_contiguous
        assert buffer.flags.writeable
        assert not buffer.any()
    first[:] = 255
    assert not second.any()
    second[:] = 1
    assert first.tolist() == [255, 255, 255]


def test_table_of_buffers_says_where_the_memory_went() -> None:
    arena = Arena(1 << 16)
    arena.take("one", (10,), np.int64, holds="ten words")
    arena.take("two", (1,), np.int64, holds="one word")
    assert [(one.name, one.offset, one.size_bytes, one.holds) for one in arena.buffers] == [
        ("one", 0, 80, "ten words"),
        ("two", 128, 8, "one word"),
    ]
    assert arena.used_bytes == 136


def test_take_after_seal_is_a_mistake() -> None:
    arena = Arena(1 << 12)
    assert not arena.sealed
    arena.seal()
    assert arena.sealed
    with pytest.raises(AssertionError, match="sealed: take 'late' before"):
        arena.take("late", (1,), np.int64, holds="nothing")


def test_name_taken_twice_is_a_mistake() -> None:
    arena = Arena(1 << 12)
    arena.take("rings", (1,), np.int64, holds="rings")
    with pytest.raises(AssertionError, match="taken twice: 'rings'"):
        arena.take("rings", (1,), np.int64, holds="rings")


def test_arena_that_is_too_small_says_for_what() -> None:
    arena = Arena(4096)
    arena.take("rings", (500,), np.int64, holds="rings")
    with pytest.raises(MemoryError, match="arena: states wants 800 bytes, 64 are left of 4096"):
        arena.take("states", (100,), np.int64, holds="states")
    arena.take("words", (8,), np.int64, holds="words")  # To the last byte.


def test_arena_larger_than_the_host_names_the_keys_to_lower() -> None:
    with pytest.raises(MemoryError, match=r"would take 8796093022208 MiB, this host has \d+; lower sessions.max, "):
        Arena(1 << 63)


def test_touch_changes_nothing() -> None:
    arena = Arena(8 * mmap.PAGESIZE)
    data = arena.take("data", (6 * mmap.PAGESIZE,), np.uint8, holds="data")
    data[:] = np.arange(len(data)) % 251
    before = data.copy()
    arena.touch()
    assert (data == before).all()


def lock_with_limit(arena: Arena, limit_bytes: int) -> str:
    """Lock *arena* as a user without privileges would, under a limit; capabilities are the calling thread's own."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit_bytes <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit_bytes, hard))
    sets[0] &= ~(1 << _CAP_IPC_LOCK)
    notes = []

    def lock() -> None:
        assert libc.capset(header, sets) == 0
        notes.append(arena.lock())

    thread = threading.Thread(target=lock)
    thread.start()
    thread.join()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    return notes[0]


def locked_kib() -> int:
    return int(re.search(r"VmLck:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def test_lock_within_the_limit_locks() -> None:
    arena = Arena(1 << 20)
    arena.take("data", (10_000,), np.uint8, holds="data")
    before = locked_kib()
    assert lock_with_limit(arena, 64 << 10) == ""
    assert locked_kib() > before


def test_lock_over_the_limit_says_what_to_raise() -> None:
    arena = Arena(64 << 20)
    arena.take("data", (50 << 20,), np.uint8, holds="data")
    assert re.fullmatch(
        r"memory is not locked: mlock of 51200 KiB failed \(.+\); raise the limit: "
        r"LimitMEMLOCK=51200K in the systemd unit, or 'ulimit -l 51200' before the start",
        lock_with_limit(arena, 64 << 10),
    )
