"""What takes turns in the stamps benchmark: readings of clocks, a histogram's record, and the engine's step twice.

    measured       Buffers: the daemon's own drain, as it always runs
    unmeasured     UnmeasuredBuffers: the same drain, compiled with no clock read and nothing counted

The second is no switch that is turned off: engine_stages.measured is a constant of the compiled code, by the type of the
buffers, and what hangs on it is gone before code is made of it. Both predict the same ticks to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_stages import record_duration
from penstock_daemon.engine_ticks import drain
from penstock_daemon.native import clock_ns, cycles, store_release

SOURCE: Final = 1
STATE: Final = 1

_compile = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cfunc_wrapper=True)
_MONOTONIC = np.int32(1)
_UNMARKED = np.int64(0)
_PREDICT = int(Stage.PREDICT)


class UnmeasuredBuffers(Buffers):
    """The engine's buffers, the same memory, by a type of which nothing is measured."""

    __slots__ = ()
    MEASURED = False


@_compile
def read_cycles(count: int) -> int:
    """Read the processor's counter *count* times; what it returns keeps all of them."""
    kept = 0
    for _ in range(count):
        kept ^= cycles()
    return kept


@_compile
def read_clock(count: int) -> int:
    """Read CLOCK_MONOTONIC *count* times; what it returns keeps all of them."""
    kept = 0
    for _ in range(count):
        kept ^= clock_ns(_MONOTONIC)
    return kept


def read_clock_from_python(count: int) -> None:
    """Call time.monotonic_ns() *count* times."""
    read = time.monotonic_ns
    for _ in repeat(None, count):
        read()


@_compile
def record(m: Any, durations_ns: Any, count: int) -> None:
    """Record *count* of the durations, from the first on again and again, as PREDICT of a REALTIME source of gRPC."""
    for index in range(count):
        record_duration(m, memory.PATH_GRPC, 0, _PREDICT, index, durations_ns[index % durations_ns.shape[0]])


@_compile
def drain_all(m: Any, count: int, limit: int) -> None:
    """Predict *count* ticks that wait, *limit* a drain, and give the slots of their answers back."""
    base = SOURCE * memory.CURSOR_WORDS
    done = 0
    while done < count:
        done += drain(m, SOURCE, limit, _UNMARKED)
        store_release(m.cursors, base + memory.PREDICTION_CONSUMED, m.cursors[base + memory.PREDICTION_PUBLISHED])


class Step:
    """The engine's step on ticks of one instrument, in real time, by an engine whose thread does not run.

    Args:
        engine: its memory; a model is in slot 0. Source and state are overwritten.
        buffers: the engine's, or UnmeasuredBuffers of them.
        ticks: of one instrument, in order; at most as many as a ring holds.
        limit: ticks of a drain.
        fraction: what a cycle lasts, for Engine.use_cycles; 0 for CLOCK_MONOTONIC.
    """

    def __init__(self, engine: Engine, buffers: Buffers, ticks: NDArray[np.void], limit: int, fraction: int) -> None:
        self._engine = engine
        self._buffers = buffers
        self._ticks = np.frombuffer(ticks.tobytes(), TICK_DTYPE)
        self._ids = np.array([ticks["instrument_id"][0]], np.int64)
        self._states = np.array([STATE], np.int64)
        self._limit = limit
        self._fraction = fraction
        engine.buffers.source_table[SOURCE, memory.SOURCE_OPEN] = 1

    def time_ns(self) -> float:
        """Predict all ticks and return the nanoseconds of one."""
        engine, count = self._engine, len(self._ticks)
        engine.use_cycles(self._fraction)
        engine.reset_source(SOURCE)
        refused = engine.publish_ticks(
            SOURCE, self._ticks, 0, False, self._ids, self._states, received_ns=time.monotonic_ns()
        )
        assert refused == 0, "the ring takes every tick"
        started_ns = time.perf_counter_ns()
        drain_all(self._buffers, count, self._limit)
        return (time.perf_counter_ns() - started_ns) / count


class Loop:
    """A loop of *count* turns that *go* runs."""

    def __init__(self, go: Callable[[int], Any], count: int) -> None:
        self._go = go
        self._count = count
        go(2)  # Compiles.

    def time_ns(self) -> float:
        """Run it and return the nanoseconds of one turn."""
        started_ns = time.perf_counter_ns()
        self._go(self._count)
        return (time.perf_counter_ns() - started_ns) / self._count
