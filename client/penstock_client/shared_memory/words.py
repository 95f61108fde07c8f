"""Cursors of a shared segment: loads with acquire, stores with release semantics, and one full fence, from Python.

x86-64. ``memoryview.cast("q")`` reads and writes an item by copying eight aligned bytes with a size known when CPython is
compiled, which compilers make one move: it can't be torn. The processor keeps loads in order with loads and stores in
order with stores (TSO), so a plain load acquires and a plain store releases; and no compiler moves anything across two
calls into the interpreter. What TSO does let happen is that a load overtakes an earlier store to another address. Where
that matters (store TICK_PUBLISHED, then load ENGINE_SLEEPING; store CLIENT_WAITING, then load PREDICTION_PUBLISHED) a
locked instruction must stand between them. Releasing a ``threading.Lock`` is one in every CPython: sem_post's atomic add,
or since 3.13 the compare-and-swap of PyMutex. Acquiring and releasing a lock that nobody else knows takes about 60 ns,
a tenth of a call through ctypes.

Others. TSO is x86's alone. There the same words go through libatomic, the compiler's own library of atomic operations,
by ctypes, each sequentially consistent, so that a load stays behind an earlier store whatever stands between them: slower,
and right. Without it the session is refused with a sentence, never served by luck.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from penstock_client.errors import LocalUsageError

WORD_BYTES: Final = 8
_TSO_MACHINES: Final = frozenset({"x86_64", "amd64"})
_SEQUENTIAL: Final = 5  # C's memory_order_seq_cst.


class Words(Protocol):
    """A segment as int64 words: ``words[i]`` loads with acquire semantics, ``words[i] = n`` stores with release."""

    def __getitem__(self, index: int, /) -> int:
        """Load word *index*."""

    def __setitem__(self, index: int, value: int, /) -> None:
        """Store word *index*."""


class Fences:
    """How this process orders its accesses to shared words.

    Attributes:
        full: waits until every store before it is seen by all, before any load after it. For one thread at a time.
        over: makes the words of a segment, from its bytes.
    """

    def __init__(self, full: Callable[[], None], over: Callable[[memoryview], Words]) -> None:
        self.full = full
        self.over = over


def fences(machine: str = "") -> Fences:
    """Return what this machine needs.

    Args:
        machine: as platform.machine() says; empty for this one.

    Raises:
        LocalUsageError: it needs libatomic, which is not here.
    """
    name = (machine or platform.machine()).lower()
    if name in _TSO_MACHINES:
        return Fences(_locked_instruction(), _plain_words)
    library = ctypes.util.find_library("atomic")
    try:
        atomic = ctypes.CDLL(library or "libatomic.so.1")
        fence = atomic.atomic_thread_fence
        operations = _AtomicCalls(atomic["__atomic_load_8"], atomic["__atomic_store_8"])
    except (OSError, AttributeError) as exc:
        raise LocalUsageError(
            f"shared_memory needs memory fences on this machine, and the library libatomic, which has them, can't be "
            f"loaded: machine={name!r}; install libatomic (libatomic1), or connect without shared_memory"
        ) from exc
    fence.argtypes, fence.restype = [ctypes.c_int], None
    return Fences(lambda: fence(_SEQUENTIAL), operations.over)


def _locked_instruction() -> Callable[[], None]:
    lock = threading.Lock()
    acquire, release = lock.acquire, lock.release

    def full() -> None:
        acquire(
            False
        )  # Never waits: an interrupt between the two calls leaves it taken, and the next fence gives it back.
        release()

    return full


def _plain_words(segment: memoryview) -> Words:
    return segment.cast("q")


class _AtomicCalls:
    """The two operations of libatomic, and the words that are reached through them."""

    def __init__(self, load: Any, store: Any) -> None:
        load.argtypes, load.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_int64
        store.argtypes, store.restype = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int], None
        self.load = load
        self.store = store

    def over(self, segment: memoryview) -> Words:
        """Return the words of *segment*."""
        return _FencedWords(self, segment)


class _FencedWords:
    """Words that are reached through libatomic."""

    def __init__(self, calls: _AtomicCalls, segment: memoryview) -> None:
        self._calls = calls
        self._held = (ctypes.c_char * segment.nbytes).from_buffer(segment)  # Keeps the mapping where it is.
        self._address = ctypes.addressof(self._held)
        self._words = segment.nbytes // WORD_BYTES

    def __getitem__(self, index: int, /) -> int:
        assert 0 <= index < self._words, "a word outside the segment"
        value: int = self._calls.load(self._address + WORD_BYTES * index, _SEQUENTIAL)
        return value

    def __setitem__(self, index: int, value: int, /) -> None:
        assert 0 <= index < self._words, "a word outside the segment"
        self._calls.store(self._address + WORD_BYTES * index, value, _SEQUENTIAL)
