"""A device as the engine holds it: its memory, its graphs, its models, and what became of it.

    Device(backend, settings) -> take_memory -> load_model ... -> build -> [engine warms up] -> seal -> ... -> close

The engine's thread runs ``run``; everything else happens before SERVING or, as load_model, while nobody names what is
written. After the seal nothing is launched eagerly and nothing is allocated: two counters show it, and stay 0.
"""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.arena import Arena
from penstock_daemon.device import loop, memory
from penstock_daemon.device.backend import DeviceBackend, DeviceCounters, DeviceError
from penstock_daemon.device.graphs import StartTimes, build_graphs
from penstock_daemon.device.memory import DeviceBuffers, DeviceFault, DeviceMemory, DeviceSizes, Mode, Transfer
from penstock_daemon.device.resident import reason_text, resident_blocks, start_resident, stop_resident
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.compiled import Int64s
from penstock_kernels.cuda.resident import plan_resident
from penstock_kernels.cuda.source import device_state_words, half_precision, plan_predict
from penstock_kernels.predictor import PackedModel

_FAULTS: Final = {
    DeviceFault.NONE: "",
    DeviceFault.LAUNCH: "a launch was refused with driver error {detail}",
    DeviceFault.QUERY: "a launch failed with driver error {detail}",
    DeviceFault.TIMEOUT: "a launch was not complete after {detail} ns",
    DeviceFault.VANISHED: "launch {detail} ended without its results",
    DeviceFault.KERNEL: "the kernel refused its work, fault {detail}",
    DeviceFault.ASKED: "it was given up from outside",
    DeviceFault.LEFT: "the resident kernel left: {reason}",
}

_START_TIMEOUT_NS: Final = 2_000_000_000  # What a driver loads late, a card that wakes up: no fault of it at the start.


@dataclass(frozen=True)
class DeviceSettings:
    """How a device is used.

    Attributes:
        transfer: how ticks reach it.
        mode: how a micro-batch is handed to it.
        half: reservoir weights in half precision; models must be rounded before they are packed.
        batch_max: ticks of one micro-batch, and its blocks at most; a power of two.
        timeout_ns: a launch that takes longer is lost; one of many ticks, and all at the start, have longer.
        query_ns: how long the done word may stay away before the driver is asked.
        spin_ns: how long the loop looks at the done word without a pause; less where cores are shared.
        watchdog_ns: a resident kernel that hears no heartbeat of the engine for so long leaves.
    """

    transfer: Transfer = Transfer.STAGED
    mode: Mode = Mode.GRAPH
    half: bool = False
    batch_max: int = 1024
    timeout_ns: int = 20_000_000
    query_ns: int = 1_000_000
    spin_ns: int = 1_000_000_000
    watchdog_ns: int = 5_000_000_000


class Device:
    """A device for one engine.

    Args:
        backend: the device; closed by ``close``.
        settings: how it is used.
    """

    def __init__(self, backend: DeviceBackend, settings: DeviceSettings | None = None) -> None:
        self.backend = backend
        self.settings = settings or DeviceSettings()
        self.start_times = StartTimes(0.0, 0.0, 0.0)
        self._entered = threading.local()
        self._held: DeviceMemory | None = None
        self._at_seal: DeviceCounters | None = None
        self._ticks = (0, 0)  # Address and bytes of the page-locked part of the arena.
        self._headers: dict[int, Int64s] = {}  # Of the models, by slot.
        self._resides = False  # A resident kernel was started.
        self.not_resident = ""
        self.enter_thread()

    def take_memory(self, sizes: EngineSizes, arena: Arena) -> None:
        """Take all memory; for IN_PLACE, page-lock the arena's rings and journals too.

        Raises:
            DeviceError: there is less.
        """
        assert self._held is None, "a device takes its memory once"
        settings, facts = self.settings, self.backend.facts
        self.plan = plan_predict(
            sizes.units_max, sizes.columns, sizes.memory_words, facts.shared_bytes_max, half=settings.half
        )
        wanted = DeviceSizes(
            sizes,
            items_max=settings.batch_max,
            state_words=device_state_words(sizes.units_max, sizes.memory_words),
            half=settings.half,
            scratch_words=self.plan.scratch_words,
            transfer=settings.transfer,
            resident_blocks=resident_blocks(facts, sizes.states),
        )
        if wanted.device_bytes > facts.memory_bytes:
            raise DeviceError(
                f"states and models would take {wanted.device_bytes >> 20} MiB, {facts.name} has "
                f"{facts.memory_bytes >> 20}; lower sessions.states_max, models.slots or models.units_max, or set "
                "engine.device to cpu"
            )
        self._held = memory.take_memory(self.backend, wanted)
        words, values = self.buffers.words, self.buffers.settings
        values[memory.LAUNCH_ADDRESS] = self.backend.launch_address
        values[memory.QUERY_ADDRESS] = self.backend.query_address
        values[memory.STREAM] = self.backend.stream
        values[memory.TRANSFER] = settings.transfer
        values[memory.MODE] = settings.mode
        values[memory.TIMEOUT_NS] = max(settings.timeout_ns, _START_TIMEOUT_NS)  # Until the seal.
        values[memory.QUERY_NS] = settings.query_ns
        values[memory.SPIN_NS] = settings.spin_ns
        values[memory.RESIDENT_BLOCKS] = wanted.resident_blocks if settings.mode == Mode.RESIDENT else 0
        values[memory.RESIDENT_STREAM] = self.backend.resident_stream
        values[memory.TICKS_AT] = arena.start_of("tick_slots")
        values[memory.JOURNAL_AT] = arena.start_of("journal")
        if settings.transfer == Transfer.IN_PLACE:
            size = max(arena.end_of("tick_slots"), arena.end_of("journal"))
            size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self._ticks = (self.backend.page_lock(arena.address, size), size)
        before_ns, device_ns, after_ns = self.backend.clock_ns()
        words[memory.CLOCK_LOW_NS] = device_ns - after_ns
        words[memory.CLOCK_HIGH_NS] = device_ns - before_ns
        words[memory.CLOCK_AT_NS] = after_ns

    @property
    def memory(self) -> DeviceMemory:
        """What it holds; take_memory was called."""
        assert self._held is not None, "take_memory comes first"
        return self._held

    @property
    def buffers(self) -> DeviceBuffers:
        """What compiled code takes."""
        return self.memory.buffers

    def load_model(self, slot: int, packed: PackedModel) -> None:
        """Write a model that fits its slot to the device; nobody names the slot now, and not from the engine thread.

        A device that refuses while it serves is given up: its engine then predicts on the CPU, which has the model.

        Raises:
            DeviceError: it refuses before it serves.
        """
        if self.fault != DeviceFault.NONE:
            return
        self._headers[slot] = packed.header
        if slot == self.buffers.words[memory.RESIDENT_MODEL]:
            self.buffers.words[memory.RESIDENT_MODEL] = memory.NOBODY  # What the kernel keeps is of the last one.
        sizes, at = self.memory.sizes, self.memory.device
        parts: list[tuple[str, int, NDArray[Any]]] = [
            ("headers", sizes.engine.header_words, packed.header),
            ("weights", sizes.engine.weight_words, packed.weights),
            ("constants", sizes.engine.constant_words, packed.constants),
        ]
        if sizes.half:
            parts.append(("halves", sizes.half_words, half_precision(packed.header, packed.weights)))
        try:
            self.enter_thread()
            for name, words, array in parts:
                self.backend.upload(at[name] + slot * words * array.itemsize, np.ascontiguousarray(array))
        except DeviceError:
            if self._at_seal is None:
                raise
            self.give_up()

    def build(self) -> None:
        """Compile the kernel, capture a graph for each bucket, and run each once; and compile the loop.

        Raises:
            DeviceError: the device can't.
        """
        self.enter_thread()
        address, size = self._ticks
        arguments = self.memory.arguments(ticks=address, tick_bytes=size)
        self.start_times = build_graphs(self.backend, self.plan, self.memory, arguments)

    def make_resident(self, slot: int) -> bool:
        """Where the mode asks for it, keep a kernel resident for the model of *slot*; before the seal.

        Returns:
            False where the graphs go on for it: the mode is another, or the model does not fit (``not_resident`` says why).

        Raises:
            DeviceError: the kernel does not compile, launch or answer.
        """
        settings = self.settings
        if settings.mode != Mode.RESIDENT:
            return False
        assert settings.transfer != Transfer.COPIED, "the configuration refuses that"
        try:
            plan = plan_resident(self._headers[slot], self.backend.facts.shared_bytes_max, half=settings.half)
        except ValueError as error:
            self.not_resident = str(error)
            return False
        self.enter_thread()
        address, size = self._ticks
        arguments = self.memory.arguments(
            ticks=address, tick_bytes=size, watchdog_ns=settings.watchdog_ns, resident_model=slot
        )
        self._resides = True
        start_resident(self.backend, plan, self.buffers, arguments, slot)
        return True

    @property
    def resident(self) -> bool:
        """Whether a resident kernel has micro-batches of its model."""
        return int(self.buffers.words[memory.RESIDENT_MODEL]) != memory.NOBODY

    def run(self, buffers: Buffers) -> None:
        """Be the engine's loop until it is stopped; the thread has entered."""
        loop.run(buffers, self.buffers)

    def enter_thread(self) -> None:
        """Make the calling thread one that may use the device."""
        if not getattr(self._entered, "done", False):
            self.backend.enter_thread()
            self._entered.done = True

    def seal(self) -> None:
        """End the start: from here on the two counters count, and so do launches and ticks.

        Raises:
            DeviceError: the device failed during the warm-up.
        """
        self.buffers.settings[memory.TIMEOUT_NS] = self.settings.timeout_ns
        counters = self.backend.counters
        self._at_seal = DeviceCounters(counters.eager_launches, counters.allocations)
        self.buffers.words[memory.LAUNCHES] = 0
        self.buffers.words[memory.ITEMS] = 0
        if self.fault != DeviceFault.NONE:
            raise DeviceError(f"the device failed while it warmed up: {self.fault_text}; set engine.device to cpu")

    @property
    def counters(self) -> DeviceCounters:
        """What was launched eagerly and allocated since the seal; 0 both, or something is wrong."""
        now, then = self.backend.counters, self._at_seal
        if then is None:
            return DeviceCounters()
        return DeviceCounters(now.eager_launches - then.eager_launches, now.allocations - then.allocations)

    @property
    def launches(self) -> int:
        """Micro-batches since the seal."""
        return int(self.buffers.words[memory.LAUNCHES])

    @property
    def items(self) -> int:
        """Ticks in them."""
        return int(self.buffers.words[memory.ITEMS])

    @property
    def fault(self) -> DeviceFault:
        """Why the engine left it; NONE while it did not."""
        return DeviceFault(int(self.buffers.words[memory.FAULT]))

    @property
    def fault_text(self) -> str:
        """The fault as a sentence; empty for none."""
        detail = int(self.buffers.words[memory.FAULT_DETAIL])
        return _FAULTS[self.fault].format(detail=detail, reason=reason_text(detail))

    def give_up(self) -> None:
        """Ask the engine to leave the device for good; for who knows that it is lost."""
        self.buffers.words[memory.GIVE_UP] = 1

    def close(self) -> None:
        """Give everything back; the engine's thread has stopped."""
        if self._resides and self.fault == DeviceFault.NONE:  # Else it was asked to stop then.
            stop_resident(self.buffers)
        self.backend.close()
