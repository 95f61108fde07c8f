"""A lane to the resident kernel: one model, no launch for a tick; bells are rung and answers awaited in pinned memory.

State s belongs to resident block s modulo their number. What a block is to walk hangs together by the slots' "next".

    with ResidentLane(backend, packed, states=8, items_max=64) as lane: ...
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.device.backend import DeviceBackend, DeviceError, LaunchShape
from penstock_kernels.compiled import Int64s
from penstock_kernels.cuda import layout
from penstock_kernels.cuda.resident import plan_resident
from penstock_kernels.packed import PackedModel
from penstock_tuning.bench import gpu_loop
from penstock_tuning.bench.gpu_lane import Lane, Visit

_WATCHDOG_NS: Final = 20_000_000_000  # Between cells of a benchmark nobody rings.
_PATIENCE_S: Final = 5.0


class ResidentLane(Lane):
    """A lane whose kernel stays on the device from ``__enter__`` to ``__exit__``.

    Args:
        backend: the device.
        packed: the one model.
        states: how many.
        items_max: ticks of a micro-batch, at most.
        half: as of Lane.
        blocks_max: resident blocks, at most; one for each multiprocessor where 0.

    Raises:
        DeviceError: the device refuses.
        ValueError: the model can't stay resident on this device.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        packed: PackedModel,
        *,
        states: int,
        items_max: int,
        half: bool = False,
        blocks_max: int = 0,
    ) -> None:
        self.resident_plan = plan_resident(packed.header, backend.facts.shared_bytes_max, half=half)
        super().__init__(backend, [packed], states=states, items_max=items_max, half=half)
        self.blocks = min(states, blocks_max or backend.facts.multiprocessors)
        self._bell_memory = backend.take_pinned(self.blocks * layout.BELL_WORDS * 8)
        self._answer_memory = backend.take_pinned(self.blocks * layout.ANSWER_WORDS * 8)
        self.bells: Int64s = self._bell_memory.bytes.view(np.int64)
        self.answers: Int64s = self._answer_memory.bytes.view(np.int64)

    def __enter__(self) -> Self:
        started_s = time.perf_counter()
        plan = self.resident_plan
        kernel = self.backend.build(plan.source, plan.options, plan.name, plan.shared_bytes)
        self.times.compile_s += time.perf_counter() - started_s
        self.backend.launch(
            kernel,
            LaunchShape(self.blocks, plan.threads, plan.shared_bytes),
            self.arguments(
                bells=self._bell_memory.device_address,
                answers=self._answer_memory.device_address,
                watchdog_ns=_WATCHDOG_NS,
                resident_model=0,
            ),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bells[layout.BELL_CALL :: layout.BELL_WORDS] = layout.BELL_STOP
        deadline_s = time.monotonic() + _PATIENCE_S
        while np.any(self.answers[layout.ANSWER_CALL :: layout.ANSWER_WORDS] != layout.ANSWER_ENDED):
            if time.monotonic() > deadline_s:
                if error is None:
                    raise DeviceError(f"the resident kernel did not stop within {_PATIENCE_S:g} s")
                return
            time.sleep(0.0001)

    def write(self, visits: Sequence[Visit]) -> int:
        """Write a micro-batch as Lane does, and hang together what each resident block is to walk."""
        items = super().write(visits)
        self._first = dict[int, int]()
        last: dict[int, int] = {}
        for slot, visit in enumerate(visits):
            block = visit.state % self.blocks
            if block in last:
                self.slots[last[block]]["next"] = slot
            self._first.setdefault(block, slot)
            self.slots[slot]["next"] = layout.LAST_SLOT
            last[block] = slot
        return items

    def route(self, executable: int, staged: int) -> Int64s:
        """Return a route that rings: the micro-batch must have state b in slot b, from 0 on."""
        assert executable == 0, "a resident kernel has no graph"
        route = super().route(0, staged)
        route[gpu_loop.RESIDENT_BLOCKS] = len(self._first)
        return route

    def trips(self, route: Int64s, ticks: NDArray[np.void], times: Int64s) -> None:
        """Ring for the micro-batch that lies in the work once per row of *times*.

        Raises:
            DeviceError: a block did not answer in time, or has left.
        """
        words = gpu_loop.as_words
        given = (words(self.work.bytes), words(ticks), words(self.results), self.done, self.bells, self.answers)
        made = gpu_loop.trips(route, *given, times)
        self.number = int(route[gpu_loop.NUMBER])
        if made != len(times):
            raise DeviceError(f"a resident block did not answer: number={self.number}, reasons={self._reasons()}")

    def send(self, visits: Sequence[Visit], *, eager: bool = False, blocks: int = 0) -> NDArray[np.void]:  # noqa: ARG002  # Lane's.
        """Send one micro-batch; see Lane.send. Nothing is launched."""
        items = self.write(visits)
        self.results[:items]["fault"] = -1
        self.number += 1
        self.head["number"] = self.number
        call = (self.number % layout.CALL_NUMBERS) << layout.CALL_NUMBER_SHIFT
        self.bells[layout.BELL_HEARTBEAT] = self.number
        for block, slot in self._first.items():
            self.bells[block * layout.BELL_WORDS + layout.BELL_CALL] = call | slot
        deadline_s = time.monotonic() + _PATIENCE_S
        for block, slot in self._first.items():
            while self.answers[block * layout.ANSWER_WORDS + layout.ANSWER_CALL] != call | slot:
                if time.monotonic() > deadline_s:
                    raise DeviceError(f"a resident block did not answer: block={block}, reasons={self._reasons()}")
                if self.pause_ns:
                    time.sleep(self.pause_ns / 1e9)
        results = self.results[:items].copy()
        if results["fault"].any():
            raise DeviceError(f"a block met a fault: faults={sorted(set(results['fault'].tolist()))}")
        return results

    def _reasons(self) -> list[Any]:
        reasons: list[Any] = self.answers[layout.ANSWER_REASON :: layout.ANSWER_WORDS].tolist()
        return reasons
