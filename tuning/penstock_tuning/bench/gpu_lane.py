"""A lane to the device for measurements and checks: models, states and one work buffer, with nothing of the engine.

Micro-batches go the engine's way: slots in pinned memory, one graph for each size, completion by a word in pinned
memory. What the engine adds (rings, sessions, fall-back) is left out, so that a time is the device's road alone.

    lane = Lane(backend, [packed], states=64, blocks_max=64)
    results = lane.send([Visit(state=3, ticks=ticks)])
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE
from penstock_daemon.device.backend import Copy, DeviceBackend, DeviceError, LaunchShape, PinnedMemory
from penstock_kernels.compiled import Int64s
from penstock_kernels.cuda import layout, source
from penstock_kernels.packed import COLUMNS_PADDED, MEMORY_COLUMNS, UNITS, PackedModel
from penstock_kernels.predictor import running_words
from penstock_tuning.bench import gpu_loop

_TIMEOUT_NS: Final = 5_000_000_000
_ARRIVED_BYTES: Final = 256


class Transfer(StrEnum):
    """How a micro-batch crosses the bus; docs/gpu.md says more."""

    STAGED = "staged"  # The host copies each tick into its slot; the device reads slots and writes results in place.
    IN_PLACE = "in_place"  # Ticks are read where their source wrote them.
    COPIED = "copied"  # As staged, but the graph copies work to device memory and results back.


@dataclass(frozen=True, eq=False)
class Visit:
    """What one block is told: a state, a model, and ticks in order.

    Attributes:
        state: number of the state.
        ticks: of one instrument, shape (any, at least 1).
        model: number of the model.
        cold: begin with zeros, whatever the state holds.
        advance: advance the state alone.
    """

    state: int
    ticks: NDArray[np.void]
    model: int = 0
    cold: bool = False
    advance: bool = False


@dataclass
class StartTimes:
    """Where the start went, in seconds."""

    compile_s: float = 0.0
    first_launch_s: float = 0.0
    capture_s: float = 0.0
    graphs: int = 0


@dataclass(frozen=True)
class _Room:
    """The largest of everything, over all models."""

    units: int
    columns: int
    memory: int
    header: int
    weights: int
    constants: int
    running: int

    @staticmethod
    def of(models: Sequence[PackedModel]) -> _Room:
        def most(words: Any) -> int:
            return max(int(words(model)) for model in models)

        return _Room(
            units=most(lambda model: model.header[UNITS]),
            columns=most(lambda model: model.header[COLUMNS_PADDED]),
            memory=most(lambda model: model.header[MEMORY_COLUMNS]),
            header=most(lambda model: len(model.header)),
            weights=most(lambda model: len(model.weights)),
            constants=most(lambda model: len(model.constants)),
            running=most(lambda model: running_words(model.header)),
        )


@dataclass
class _Addresses:
    """Device addresses by the name of the argument; what is not there is 0."""

    words: dict[str, int] = field(default_factory=dict)

    def in_order(self, **changes: int) -> list[int]:
        """Return the arguments as every kernel takes them."""
        return [(self.words | changes).get(name, 0) for name in layout.ARGUMENTS]


class Lane:
    """Models and states on a device, and one micro-batch at a time through them.

    Args:
        backend: the device; closed by its owner.
        models: packed; visits name them by their position.
        states: how many.
        items_max: ticks of a micro-batch, and its blocks, at most.
        transfer: how micro-batches cross the bus.
        half: weights of the reservoir as float16; *models* must then have been rounded.
        room_for: further models that the kernel must have room for: it is compiled for the largest.

    Raises:
        DeviceError: the device refuses.
        ValueError: a model does not fit the device.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        models: Sequence[PackedModel],
        *,
        states: int,
        items_max: int,
        transfer: Transfer = Transfer.STAGED,
        half: bool = False,
        room_for: Sequence[PackedModel] = (),
    ) -> None:
        self.backend, self.models, self.transfer = backend, tuple(models), transfer
        self.states, self.items_max = states, items_max
        self.times = StartTimes()
        self.number = 0
        self.pause_ns = 0  # Between looks at the done word; 0: spins.
        self._graphs: dict[tuple[str, int], int] = {}
        self._kernels: dict[str, Any] = {}
        self.device_bytes = 0
        room = self._room = _Room.of([*models, *room_for])
        self.plan = source.plan_predict(
            room.units, room.columns, room.memory, backend.facts.shared_bytes_max, half=half
        )
        self.work = backend.take_pinned((1 + items_max) * layout.SLOT_BYTES)
        self.head = self.work.bytes[: layout.SLOT_BYTES].view(layout.WORK_HEAD_DTYPE)
        self.slots = self.work.bytes[layout.SLOT_BYTES :].view(layout.WORK_SLOT_DTYPE)
        self.result_memory = backend.take_pinned(items_max * layout.SLOT_BYTES)
        self.results = self.result_memory.bytes.view(layout.RESULT_DTYPE)
        self.done_memory = backend.take_pinned(layout.DONE_WORDS * 8)
        self.done: Int64s = self.done_memory.bytes.view(np.int64)
        self.tick_memory = backend.take_pinned(items_max * TICK_BYTES)
        self.ticks = self.tick_memory.bytes[: items_max * TICK_BYTES].view(TICK_DTYPE)
        self._given = self._place(half=half)

    @property
    def state_bytes(self) -> int:
        """Device memory of one state: reservoir, linear memory, running features."""
        return 4 * self._given.words["state_words"] + 8 * self._given.words["running_words"]

    def _take(self, size_bytes: int) -> int:
        self.device_bytes += size_bytes
        return self.backend.take(max(size_bytes, 1))

    def _place(self, *, half: bool) -> _Addresses:
        """Put everything on the device and return the arguments."""
        room, count = self._room, len(self.models)
        state_words = source.device_state_words(room.units, room.memory)
        given = {
            "states": self._take(4 * self.states * state_words),
            "running": self._take(8 * self.states * room.running),
            "headers": self._stacked([model.header for model in self.models], room.header, np.int64),
            "weights": self._stacked([model.weights for model in self.models], room.weights, np.float32),
            "constants": self._stacked([model.constants for model in self.models], room.constants, np.float64),
            "arrived": self._take(_ARRIVED_BYTES),
            "states_count": self.states,
            "models_count": count,
            "items_max": self.items_max,
            "state_words": state_words,
            "running_words": room.running,
            "header_words": room.header,
            "weight_words": room.weights,
            "constant_words": room.constants,
            "scratch_words": self.plan.scratch_words,
            "work": self.work.device_address,
            "results": self.result_memory.device_address,
            "done": self.done_memory.device_address,
            "ticks": self.work.device_address,
            "tick_bytes": (1 + self.items_max) * layout.SLOT_BYTES,
        }
        if half:
            halves = [source.half_precision(model.header, model.weights) for model in self.models]
            given["half_words"] = max(len(one) for one in halves)
            given["halves"] = self._stacked(halves, given["half_words"], np.uint16)
        if self.plan.scratch_words:
            given["scratch"] = self._take(4 * self.items_max * self.plan.scratch_words)
        if self.transfer == Transfer.IN_PLACE:
            given["ticks"], given["tick_bytes"] = self.tick_memory.device_address, len(self.ticks) * TICK_BYTES
        if self.transfer == Transfer.COPIED:
            given["work"] = given["ticks"] = self._take((1 + self.items_max) * layout.SLOT_BYTES)
            given["results"] = self._take(self.items_max * layout.SLOT_BYTES)
            given["done"] = self._take(layout.DONE_WORDS * 8)
        return _Addresses(given)

    def _stacked(self, rows: Sequence[NDArray[Any]], words: int, dtype: Any) -> int:
        table = np.zeros((len(rows), words), dtype)
        for row, values in zip(table, rows, strict=True):
            row[: len(values)] = values
        address = self._take(table.nbytes)
        self.backend.upload(address, table)
        return address

    # --- Kernels and graphs -------------------------------------------------------------------------------------------

    def kernel(self, name: str = source.PREDICT) -> Any:
        """Return a compiled kernel, loaded."""
        if name not in self._kernels:
            started_s = time.perf_counter()
            plan = self._plan_of(name)
            kernel = self.backend.build(plan.source, plan.options, plan.name, plan.shared_bytes)
            compiled_s = time.perf_counter()
            self.head["blocks"] = 0  # Once, without work: what a driver loads at a first launch must not be captured.
            self.backend.launch(kernel, self.shape(1, name), self.arguments())
            self.backend.synchronize()
            self._kernels[name] = kernel
            self.times.compile_s += compiled_s - started_s
            self.times.first_launch_s += time.perf_counter() - compiled_s
        return self._kernels[name]

    def _plan_of(self, name: str) -> source.KernelPlan:
        return self.plan if name == source.PREDICT else source.plan_small(name)

    def graph(self, blocks: int, name: str = source.PREDICT) -> int:
        """Return the captured graph of a kernel for so many blocks; the first time it is captured."""
        if (name, blocks) not in self._graphs:
            kernel = self.kernel(name)
            started_s = time.perf_counter()
            copies_in, copies_out = self._copies(blocks)
            shape = self.shape(blocks, name)
            executable = self.backend.capture(kernel, shape, self.arguments(), copies_in, copies_out)
            self._graphs[name, blocks] = executable
            self.times.capture_s += time.perf_counter() - started_s
            self.times.graphs += 1
        return self._graphs[name, blocks]

    def shape(self, blocks: int, name: str = source.PREDICT) -> LaunchShape:
        """Return the size of a launch."""
        plan = self._plan_of(name)
        return LaunchShape(blocks, plan.threads, plan.shared_bytes)

    def arguments(self, **changes: int) -> list[int]:
        """Return the 64-bit words that every kernel takes; *changes* replace some by name."""
        return self._given.in_order(**changes)

    def _copies(self, blocks: int) -> tuple[list[Copy], list[Copy]]:
        if self.transfer != Transfer.COPIED:
            return [], []
        given = self._given.words
        size_bytes = min(blocks, self.items_max) * layout.SLOT_BYTES
        work = Copy(given["work"], self.work.device_address, size_bytes + layout.SLOT_BYTES, to_device=True)
        results = Copy(self.result_memory.device_address, given["results"], size_bytes, to_device=False)
        done = Copy(self.done_memory.device_address, given["done"], layout.DONE_WORDS * 8, to_device=False)
        return [work], [results, done]

    # --- One micro-batch ------------------------------------------------------------------------------------------------

    def write(self, visits: Sequence[Visit]) -> int:
        """Write a micro-batch into the work, one block for each visit, and return how many items it has."""
        self.head["blocks"] = len(visits)
        item = 0
        for block, visit in enumerate(visits):
            count = len(visit.ticks)
            assert 0 < count <= self.items_max - item, f"the lane has room for items_max={self.items_max} ticks"
            slot = self.slots[block]
            slot["state"], slot["model"], slot["first"], slot["count"] = visit.state, visit.model, item, count
            slot["block_flags"] = layout.BLOCK_COLD if visit.cold else 0
            for tick in visit.ticks:
                self._write_item(item, tick, advance=visit.advance)
                item += 1
        return item

    def _write_item(self, item: int, tick: np.void, *, advance: bool) -> None:
        slot = self.slots[item]
        slot["item_flags"] = layout.ITEM_ADVANCE if advance else 0
        if self.transfer == Transfer.IN_PLACE:
            self.ticks[item] = tick
            slot["tick_offset"] = item * TICK_BYTES
        else:
            slot["tick"] = tick.tobytes()
            slot["tick_offset"] = (1 + item) * layout.SLOT_BYTES + layout.TICK_IN_SLOT

    def route(self, executable: int, staged: int) -> Int64s:
        """Return what gpu_loop.trips() needs to send micro-batches by a graph."""
        route = np.zeros(gpu_loop.ROUTE_WORDS, np.int64)
        route[gpu_loop.LAUNCH_ADDRESS] = self.backend.launch_address
        route[gpu_loop.EXECUTABLE] = executable
        route[gpu_loop.STREAM] = self.backend.stream
        route[gpu_loop.STAGED_ITEMS] = staged
        route[gpu_loop.TIMEOUT_NS] = _TIMEOUT_NS
        route[gpu_loop.NUMBER] = self.number
        route[gpu_loop.PAUSE_NS] = self.pause_ns
        return route

    def trips(self, route: Int64s, ticks: NDArray[np.void], times: Int64s) -> None:
        """Send the micro-batch that lies in the work once per row of *times*; see gpu_loop.trips().

        Raises:
            DeviceError: a launch failed, or did not complete in time.
        """
        words = gpu_loop.as_words
        nothing = np.zeros(1, np.int64)
        made = gpu_loop.trips(
            route, words(self.work.bytes), words(ticks), words(self.results), self.done, nothing, nothing, times
        )
        self.number = int(route[gpu_loop.NUMBER])
        if made == gpu_loop.REFUSED:
            raise DeviceError(f"a graph did not launch: number={self.number}")
        if made == gpu_loop.NOT_DONE:
            raise DeviceError(f"a launch did not complete within {_TIMEOUT_NS // 10**9} s: number={self.number}")

    def send(self, visits: Sequence[Visit], *, eager: bool = False, blocks: int = 0) -> NDArray[np.void]:
        """Send one micro-batch and return a copy of its results, one per tick in the order of the visits.

        Args:
            visits: no two of one state.
            eager: by a launch of its own, not by a graph.
            blocks: of the launch; 0 for as many as there are visits, else not fewer.

        Raises:
            DeviceError: as trips(); or a block met a fault.
        """
        self.kernel()  # Before there is work.
        items = self.write(visits)
        blocks = max(blocks, len(visits))
        if self.transfer == Transfer.COPIED:
            blocks = max(blocks, items)  # The graph's copies are as long as its bucket.
        self.results[:items]["fault"] = -1
        if eager:
            self.launch(blocks)
        else:
            times = np.zeros((1, gpu_loop.TIME_COLUMNS), np.int64)
            self.trips(self.route(self.graph(blocks), 0), self.ticks, times)
        self.backend.synchronize()
        results = self.results[:items].copy()
        if results["fault"].any() or self.done[layout.DONE_FAULT]:
            raise DeviceError(f"a block met a fault: faults={sorted(set(results['fault'].tolist()))}")
        return results

    def launch(self, blocks: int) -> None:
        """Launch the kernel by itself, through the interpreter, and wait for its word.

        Raises:
            DeviceError: the device refuses, or it did not complete in time.
        """
        assert self.transfer != Transfer.COPIED, "an eager launch copies nothing"
        self.number += 1
        self.head["number"] = self.number
        self.backend.launch(self.kernel(), self.shape(blocks), self.arguments())
        deadline_ns = time.monotonic_ns() + _TIMEOUT_NS
        done = self.done
        while done[layout.DONE_NUMBER] != self.number:
            if time.monotonic_ns() > deadline_ns:
                raise DeviceError(f"a launch did not complete within {_TIMEOUT_NS // 10**9} s: number={self.number}")
            if self.pause_ns:
                time.sleep(self.pause_ns / 1e9)

    def state(self, number: int) -> NDArray[np.float32]:
        """Return the words of one state, from the device."""
        words = self._given.words["state_words"]
        row = np.zeros(words, np.float32)
        self.backend.download(self._given.words["states"] + 4 * words * number, row)
        return row

    def spoil(self, number: int, value: float) -> None:
        """Overwrite one state, running features and all, with *value*."""
        words, running = self._given.words["state_words"], self._given.words["running_words"]
        self.backend.upload(self._given.words["states"] + 4 * words * number, np.full(words, value, np.float32))
        self.backend.upload(self._given.words["running"] + 8 * running * number, np.full(running, value))


__all__ = ["Lane", "PinnedMemory", "StartTimes", "Transfer", "Visit"]
