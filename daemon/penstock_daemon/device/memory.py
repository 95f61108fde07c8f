"""What engine and device share, and what the engine remembers of the device: all of it taken before SERVING.

    pinned      work, results, done, bells, answers    the engine writes work, the device results; both in place
    on the device   states, running, models, scratch   and, where the transfer is ``copied``, work, results, done too
    bookkeeping     settings, words, what a micro-batch is made of; nobody but the engine's loop writes it

Compiled code gets one NamedTuple of arrays, kernels get one list of 64-bit words in the order of ``layout.ARGUMENTS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX
from penstock_daemon.arena import CACHE_LINE_BYTES, Arena
from penstock_daemon.device.backend import DeviceBackend, PinnedMemory
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.cuda import layout
from penstock_kernels.readout import FORECAST_WORDS

# --- Settings: written before the engine starts, constant after -----------------------------------------------------

LAUNCH_ADDRESS: Final = 0
QUERY_ADDRESS: Final = 1
STREAM: Final = 2
TRANSFER: Final = 3
MODE: Final = 4
TIMEOUT_NS: Final = 5
QUERY_NS: Final = 6  # Between two questions to the driver, while the done word does not come.
SPIN_NS: Final = 7  # How long the loop looks without a pause, where its core is not its own.
TICKS_AT: Final = 8  # For IN_PLACE: bytes from the address that offsets count from to the first tick slot,
JOURNAL_AT: Final = 9  # and to the first slot of the journals.
RESIDENT_BLOCKS: Final = 10  # Of the resident kernel; 0 for none.
RESIDENT_STREAM: Final = 11
SETTINGS: Final = 12


class Transfer(IntEnum):
    """How ticks reach the device and results come back."""

    STAGED = 0  # The host copies a tick into its work slot; the device reads and writes pinned memory.
    IN_PLACE = 1  # The device reads a tick where its source wrote it.
    COPIED = 2  # As STAGED, but the graph copies work and results to and from device memory.


class Mode(IntEnum):
    """How a micro-batch is handed to the device."""

    GRAPH = 0  # One launch of a captured graph.
    RESIDENT = 1  # A bell that a resident kernel hears.


# --- Words ----------------------------------------------------------------------------------------------------------

_LINE: Final = CACHE_LINE_BYTES // 8
GIVE_UP: Final = 0  # Anybody: 1 asks the engine to leave the device for good.
RESIDENT_MODEL: Final = 1  # Anybody: the model slot that the resident kernel is for; -1 for none.
FAULT: Final = _LINE  # Engine: why it left the device, a DeviceFault; 0 while it did not.
FAULT_DETAIL: Final = _LINE + 1  # Engine: what the driver, or the kernel, said.
LAUNCHES: Final = _LINE + 2  # Engine: micro-batches handed to the device.
ITEMS: Final = _LINE + 3  # Engine: ticks in them.
REBUILT: Final = _LINE + 4  # Engine: states that were rebuilt on the CPU after the fault.
NUMBER: Final = 2 * _LINE  # Engine alone, as all that follow: of the last launch.
FIRST_SOURCE: Final = 2 * _LINE + 1  # Whose ticks are gathered first.
LAUNCHED_NS: Final = 2 * _LINE + 2  # Host clock, before the last launch.
SEEN_NS: Final = 2 * _LINE + 3  # Host clock, when it was seen to be complete.
CLOCK_LOW_NS: Final = 2 * _LINE + 4  # Device clock minus host clock is at least this,
CLOCK_HIGH_NS: Final = 2 * _LINE + 5  # at most this,
CLOCK_AT_NS: Final = 2 * _LINE + 6  # as of this host time.
BATCH_SOURCES: Final = 3 * _LINE  # Of the micro-batch that is being made.
BATCH_ENTRIES: Final = 3 * _LINE + 1  # Ticks taken, refused ones included.
BATCH_ITEMS: Final = 3 * _LINE + 2
BATCH_BLOCKS: Final = 3 * _LINE + 3
GATHERED_NS: Final = 3 * _LINE + 4  # Host clock, when its ticks were taken.
RUNG: Final = 3 * _LINE + 5  # 1 if the last micro-batch was handed over by bells.
ASKED_NS: Final = 3 * _LINE + 6  # Host clock, when the driver was last asked about it.
AWAITED_NS: Final = 3 * _LINE + 7  # Host clock, when the loop began to wait for it.
WORDS: Final = 4 * _LINE


class DeviceFault(IntEnum):
    """Why the engine left the device; the detail says more."""

    NONE = 0
    LAUNCH = 1  # The launch was refused; the driver's code.
    QUERY = 2  # The driver reported an error while a launch ran; its code.
    TIMEOUT = 3  # No launch may take so long; nanoseconds.
    VANISHED = 4  # The stream is idle, but the launch never said that it was complete; its number.
    KERNEL = 5  # The kernel refused its work; layout.FAULT_*.
    ASKED = 6  # Somebody who knows more asked for it.
    LEFT = 7  # The resident kernel has left; layout.REASON_*.


# A resident block's notes.
CHAIN_FIRST: Final = 0  # Of the micro-batch: the first slot it is called for,
CHAIN_LAST: Final = 1  # the last one; NOBODY where it is not called.
HELD_STATE: Final = 2  # The state that it keeps; NOBODY for none.
RESIDENT_NOTES: Final = 3
NOBODY: Final = -1


# Positions in the rows of work and results, as int32 and as int64 words.
SLOT_HALVES: Final = layout.SLOT_BYTES // 4
SLOT_WORDS: Final = layout.SLOT_BYTES // 8
TICK_WORD: Final = layout.TICK_IN_SLOT // 8


def _place(dtype: np.dtype[Any], name: str, item_bytes: int) -> int:
    fields = dtype.fields
    assert fields is not None, "a slot has fields"
    return int(fields[name][1]) // item_bytes


HEAD_NUMBER: Final = _place(layout.WORK_HEAD_DTYPE, "number", 8)
HEAD_BLOCKS: Final = _place(layout.WORK_HEAD_DTYPE, "blocks", 4)
BLOCK_STATE: Final = _place(layout.WORK_SLOT_DTYPE, "state", 4)
BLOCK_MODEL: Final = _place(layout.WORK_SLOT_DTYPE, "model", 4)
BLOCK_FIRST: Final = _place(layout.WORK_SLOT_DTYPE, "first", 4)
BLOCK_COUNT: Final = _place(layout.WORK_SLOT_DTYPE, "count", 4)
BLOCK_FLAGS: Final = _place(layout.WORK_SLOT_DTYPE, "block_flags", 4)
BLOCK_NEXT: Final = _place(layout.WORK_SLOT_DTYPE, "next", 4)
ITEM_FLAGS: Final = _place(layout.WORK_SLOT_DTYPE, "item_flags", 4)
ITEM_OFFSET: Final = _place(layout.WORK_SLOT_DTYPE, "tick_offset", 8)
RESULT_FLAGS: Final = _place(layout.RESULT_DTYPE, "flags", 4)
RESULT_FAULT: Final = _place(layout.RESULT_DTYPE, "fault", 4)
RESULT_STARTED_NS: Final = _place(layout.RESULT_DTYPE, "started_ns", 8)
RESULT_DONE_NS: Final = _place(layout.RESULT_DTYPE, "done_ns", 8)


class DeviceBuffers(NamedTuple):
    """The arrays of the way to the device and back, in the form that compiled code takes as one argument."""

    words: NDArray[np.int64]  # (WORDS,)
    settings: NDArray[np.int64]  # (SETTINGS,)
    graphs: NDArray[np.int64]  # (buckets,): the graph of 1, 2, 4 ... blocks
    work_words: NDArray[np.int64]  # (items_max + 1, SLOT_WORDS), pinned; row 0 is the head
    work_halves: NDArray[np.int32]  # The same memory as (items_max + 1, SLOT_HALVES).
    result_words: NDArray[np.int64]  # (items_max, SLOT_WORDS), pinned
    result_halves: NDArray[np.int32]  # The same memory as (items_max, SLOT_HALVES).
    forecasts: NDArray[np.float32]  # The same memory: (items_max, HORIZONS_MAX, 4), of each result.
    done: NDArray[np.int64]  # (DONE_WORDS,), pinned
    bells: NDArray[np.int64]  # (resident_blocks * BELL_WORDS,), pinned
    answers: NDArray[np.int64]  # (resident_blocks * ANSWER_WORDS,), pinned
    resident: NDArray[np.int64]  # (resident_blocks, RESIDENT_NOTES): what the loop knows of each
    block_number: NDArray[np.int64]  # (states,): the launch that each state last had a block in
    block_of: NDArray[np.int64]  # (states,): which block that was
    cold: NDArray[np.int64]  # (states,): 1 where the next block begins with zeros
    lost: NDArray[np.int64]  # (states,): 0, or 1 + how far it is rebuilt after the device was lost
    block_next: NDArray[np.int64]  # (items_max,): the next item of each block, while they are placed
    entry_item: NDArray[np.int64]  # (items_max,): of each tick taken, its item; -1 for one that was refused
    batch_source: NDArray[np.int64]  # (sources,): whose ticks were taken, in this order
    batch_taken: NDArray[np.int64]  # (sources,): how many of each


@dataclass(frozen=True)
class DeviceSizes:
    """How much memory a device engine gets, on both sides.

    Attributes:
        engine: of the engine's memory.
        items_max: ticks of one micro-batch, and its blocks at most; a power of two.
        state_words: float32 words of a state on the device.
        half: reservoir weights are kept as float16 too, and read from there.
        scratch_words: float32 words that a block needs beside shared memory.
        transfer: how ticks get there.
        resident_blocks: of the resident kernel; at least 1.
    """

    engine: EngineSizes
    items_max: int
    state_words: int
    half: bool = False
    scratch_words: int = 0
    transfer: Transfer = Transfer.STAGED
    resident_blocks: int = 1

    def __post_init__(self) -> None:
        """Check what the buckets rely on."""
        if self.items_max < 1 or self.items_max & (self.items_max - 1):
            raise ValueError(f"engine.device_batch_max must be a power of two: device_batch_max={self.items_max}")

    @property
    def buckets(self) -> tuple[int, ...]:
        """Sizes of the captured graphs, in blocks."""
        return tuple(1 << power for power in range(self.items_max.bit_length()))

    @property
    def half_words(self) -> int:
        """Float16 words of one model slot; 0 for none."""
        return self.engine.reservoir_words if self.half else 0

    @property
    def pinned_parts(self) -> dict[str, int]:
        """Bytes of each part of the pinned memory."""
        return {
            "work": (self.items_max + 1) * layout.SLOT_BYTES,
            "results": self.items_max * layout.SLOT_BYTES,
            "done": layout.DONE_WORDS * 8,
            "bells": self.resident_blocks * layout.BELL_WORDS * 8,
            "answers": self.resident_blocks * layout.ANSWER_WORDS * 8,
        }

    @property
    def device_parts(self) -> dict[str, int]:
        """Bytes of each part of the device's memory."""
        sizes = self.engine
        parts = {
            "arrived": 4,  # One count of blocks.
            "states": sizes.states * self.state_words * 4,  # One for each instrument of every session.
            "running": sizes.states * sizes.running_words * 8,  # Their feature states.
            "headers": sizes.model_slots * sizes.header_words * 8,  # Models, as on the host.
            "weights": sizes.model_slots * sizes.weight_words * 4,
            "halves": sizes.model_slots * self.half_words * 2,
            "constants": sizes.model_slots * sizes.constant_words * 8,
            "scratch": self.items_max * self.scratch_words * 4,  # What shared memory has no room for.
        }
        if self.transfer == Transfer.COPIED:
            parts |= {f"{name}_copy": self.pinned_parts[name] for name in ("work", "results", "done")}
        return parts

    @property
    def pinned_bytes(self) -> int:
        """Pinned memory, each part on lines of its own."""
        return sum(_rounded(size) for size in self.pinned_parts.values())

    @property
    def device_bytes(self) -> int:
        """Device memory, without what the driver takes for itself."""
        return sum(self.device_parts.values())

    @property
    def bookkeeping_bytes(self) -> int:
        """Host memory of the loop's own notes."""
        size = 0
        size += self.engine.states * 4 * 8  # Which block it is in, cold, lost.
        size += self.items_max * 2 * 8  # Places of items.
        size += self.engine.sources * 2 * 8  # Whose they are.
        size += self.resident_blocks * RESIDENT_NOTES * 8  # What each keeps.
        size += (WORDS + SETTINGS + len(self.buckets)) * 8
        size += 16 * CACHE_LINE_BYTES  # Alignment.
        return size


@dataclass(frozen=True)
class DeviceMemory:
    """All of it: what compiled code takes, and where the device finds it.

    Attributes:
        sizes: how much there is.
        buffers: for compiled code.
        host: addresses on the device of the pinned parts, by name.
        device: addresses of the device's own parts, by name; 0 for an empty one.
    """

    sizes: DeviceSizes
    buffers: DeviceBuffers
    host: dict[str, int]
    device: dict[str, int]

    def seen_by_kernel(self, name: str) -> int:
        """Return where the kernel finds work, results or done."""
        return self.device.get(f"{name}_copy") or self.host[name]

    def arguments(
        self, *, ticks: int = 0, tick_bytes: int = 0, watchdog_ns: int = 0, resident_model: int = 0
    ) -> tuple[int, ...]:
        """Return what every kernel gets, in the order of ``layout.ARGUMENTS``.

        Args:
            ticks: device address that tick offsets count from, for IN_PLACE; else they lie in the work.
            tick_bytes: that may be read from there.
            watchdog_ns: of the resident kernel.
            resident_model: of the resident kernel.
        """
        sizes, engine = self.sizes, self.sizes.engine
        in_place = sizes.transfer == Transfer.IN_PLACE
        values = {
            **self.device,
            **{name: self.seen_by_kernel(name) for name in ("work", "results", "done")},
            "ticks": ticks if in_place else self.seen_by_kernel("work"),
            "tick_bytes": tick_bytes if in_place else sizes.pinned_parts["work"],
            "states_count": engine.states,
            "models_count": engine.model_slots,
            "items_max": sizes.items_max,
            "state_words": sizes.state_words,
            "running_words": engine.running_words,
            "header_words": engine.header_words,
            "weight_words": engine.weight_words,
            "half_words": sizes.half_words,
            "constant_words": engine.constant_words,
            "scratch_words": sizes.scratch_words,
            "bells": self.host["bells"],
            "answers": self.host["answers"],
            "watchdog_ns": watchdog_ns,
            "resident_model": resident_model,
        }
        return tuple(values[name] for name in layout.ARGUMENTS)


def take_memory(backend: DeviceBackend, sizes: DeviceSizes) -> DeviceMemory:
    """Take every buffer of a device engine.

    Raises:
        DeviceError: the device, or the host's pinned memory, has less.
    """
    pinned = backend.take_pinned(sizes.pinned_bytes)
    host, parts = _divide(pinned, sizes.pinned_parts)
    device = {name: backend.take(size) if size else 0 for name, size in sizes.device_parts.items()}
    slots = sizes.items_max
    results = parts["results"].view(layout.RESULT_DTYPE)
    arena = Arena(sizes.bookkeeping_bytes)
    take = arena.take
    states, sources = (sizes.engine.states,), (sizes.engine.sources,)
    buffers = DeviceBuffers(
        words=take("words", (WORDS,), np.int64, holds="what the loop notes, and says"),
        settings=take("settings", (SETTINGS,), np.int64, holds="constants of the loop"),
        graphs=take("graphs", (len(sizes.buckets),), np.int64, holds="a graph for each bucket"),
        work_words=parts["work"].view(np.int64).reshape(slots + 1, SLOT_WORDS),
        work_halves=parts["work"].view(np.int32).reshape(slots + 1, SLOT_HALVES),
        result_words=parts["results"].view(np.int64).reshape(slots, SLOT_WORDS),
        result_halves=parts["results"].view(np.int32).reshape(slots, SLOT_HALVES),
        forecasts=results["forecasts"],
        done=parts["done"].view(np.int64),
        bells=parts["bells"].view(np.int64),
        answers=parts["answers"].view(np.int64),
        resident=take("resident", (sizes.resident_blocks, RESIDENT_NOTES), np.int64, holds="notes of resident blocks"),
        block_number=take("block_number", states, np.int64, holds="launch of each state's last block"),
        block_of=take("block_of", states, np.int64, holds="that block"),
        cold=take("cold", states, np.int64, holds="states that begin with zeros"),
        lost=take("lost", states, np.int64, holds="states that wait to be rebuilt"),
        block_next=take("block_next", (slots,), np.int64, holds="next item of each block"),
        entry_item=take("entry_item", (slots,), np.int64, holds="item of each tick"),
        batch_source=take("batch_source", sources, np.int64, holds="sources of the micro-batch"),
        batch_taken=take("batch_taken", sources, np.int64, holds="ticks of each"),
    )
    arena.seal()
    assert buffers.forecasts.shape == (slots, HORIZONS_MAX, FORECAST_WORDS), "a result holds every horizon"
    buffers.cold[:] = 1
    buffers.resident[:] = NOBODY
    buffers.words[RESIDENT_MODEL] = NOBODY
    return DeviceMemory(sizes, buffers, host, device)


def _divide(pinned: PinnedMemory, sizes: dict[str, int]) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
    """Cut the pinned memory into its parts. Returns their device addresses, and the parts."""
    addresses, parts, offset = {}, {}, 0
    for name, size in sizes.items():
        addresses[name] = pinned.device_address + offset
        parts[name] = pinned.bytes[offset : offset + size]
        offset += _rounded(size)
    return addresses, parts


def _rounded(size_bytes: int) -> int:
    """Return *size_bytes* rounded up to whole slots, so that no two parts share a line."""
    return -(-size_bytes // layout.SLOT_BYTES) * layout.SLOT_BYTES
