"""The whole engine over a device, and over the CPU: from publishing ticks into its rings until the answers lie there.

What the lane leaves out is in it: rings, gathering, the answer's other fields, and this thread's own Python at both
ends. One batch is under way at a time, one tick for each state; the next goes out when all its answers are taken.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_daemon import engine_memory as memory
from penstock_daemon.device.backend import DeviceBackend
from penstock_daemon.device.device import Device, DeviceSettings
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command, Idle
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.compiled import Int64s
from penstock_kernels.packed import UNITS, PackedModel
from penstock_tuning.bench.errors import BenchError

_SOURCE: Final = 1
_SERIAL: Final = 1
_JOURNAL_TICKS: Final = 64
_WARM_UP_TICKS: Final = 64
_TIMEOUT_NS: Final = 2_000_000_000
_PATIENCE_NS: Final = 10_000_000_000


class EngineSide:
    """An engine that runs, with one source of *states* instruments.

    Args:
        packed: the model.
        states: instruments.
        backend: the device, which the engine closes; None for the CPU.
        idle: SPIN where the engine has a core of its own.
    """

    def __init__(self, packed: PackedModel, states: int, backend: DeviceBackend | None, idle: Idle) -> None:
        slots = max(1 << (2 * states - 1).bit_length(), 2 * _WARM_UP_TICKS)
        sizes = EngineSizes(
            sources=2,
            slots=slots,
            states=states + 1,
            model_slots=1,
            units_max=int(packed.header[UNITS]),
            journal_ticks=_JOURNAL_TICKS,
        )
        batch_max = max(1 << (states - 1).bit_length(), 1)
        device = Device(backend, DeviceSettings(batch_max=batch_max, timeout_ns=_TIMEOUT_NS)) if backend else None
        self.engine = Engine(sizes, EngineSettings(idle=idle, batch_max=states), device)
        self._ids: NDArray[np.int64] = np.arange(1, states + 1, dtype=np.int64)
        self._states = states
        self._sequence = 0
        self.engine.load_model(0, packed, _SERIAL)
        self.engine.compile()
        self.engine.arena.touch()
        self.engine.start()
        self.engine.warm_up(0, ticks=_WARM_UP_TICKS)
        self.engine.wait_applied(self.engine.command(Command.OPEN_SOURCE, _SOURCE, 0, memory.PATH_GRPC, 1))

    def close(self) -> None:
        """Stop the thread, and close the device."""
        self.engine.stop()
        self.engine.close()

    def trips_ns(self, ticks: NDArray[np.void], count: int) -> Int64s:
        """Return how long each of *count* batches took, shape (count,), ns.

        Raises:
            BenchError: the engine took no ticks, or gave no answer.
        """
        batch = np.resize(ticks, self._states)
        batch["instrument_id"] = self._ids
        batch = np.frombuffer(batch.tobytes(), TICK_DTYPE)
        times = np.zeros(count, np.int64)
        for trip in range(count):
            due_ns = time.monotonic_ns()
            taken = self.engine.publish_ticks(_SOURCE, batch, self._sequence, False, self._ids, self._ids, due_ns)
            if taken < 0:
                raise BenchError(f"the engine's ring refused {self._states} ticks: publish_ticks={taken}")
            self._sequence += self._states
            left = self._states
            while left:
                _, ready, _ = self.engine.answers(_SOURCE, left)
                if ready:
                    self.engine.release_answers(_SOURCE, memory.PATH_GRPC, True, ready)
                    left -= ready
                elif time.monotonic_ns() - due_ns > _PATIENCE_NS:
                    raise BenchError(f"the engine gave no answer within {_PATIENCE_NS // 10**9} s")
            times[trip] = time.monotonic_ns() - due_ns
        return times


@contextlib.contextmanager
def engine_side(
    packed: PackedModel, states: int, backend: DeviceBackend | None = None, idle: Idle = Idle.SPIN
) -> Iterator[EngineSide]:
    """An engine for the length of a block."""
    side = EngineSide(packed, states, backend, idle)
    try:
        yield side
    finally:
        side.close()
