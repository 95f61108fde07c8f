"""penstock_predict on the host device, without an engine: models and states in device memory, micro-batches by hand.

rig = KernelRig(device, [packed, other], states=3)
results = rig.launch([Batch(state=0, ticks=ticks), Batch(state=2, model=1, ticks=others, cold=True)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE
from penstock_daemon.device.backend import DeviceBackend, LaunchShape
from penstock_kernels.cuda import layout, source
from penstock_kernels.packed import COLUMNS_PADDED, MEMORY_COLUMNS, UNITS, PackedModel
from penstock_kernels.predictor import running_words

# One plan for all small models, so that a text is compiled once.
SMALL = (144, 256, 64)  # Units, columns, words of linear memory.

STAGED_OFFSET = layout.SLOT_BYTES + layout.TICK_IN_SLOT  # Of slot 0, from the head of the work.


@dataclass(frozen=True)
class Batch:
    """The ticks of one state in a micro-batch; *advance* are the positions that only advance it."""

    state: int
    ticks: NDArray[np.void]
    model: int = 0
    cold: bool = False
    advance: tuple[int, ...] = ()


class KernelRig:
    """Device memory for some models and states, and launches of penstock_predict over them."""

    def __init__(
        self,
        device: DeviceBackend,
        models: Sequence[PackedModel],
        *,
        states: int = 1,
        items_max: int = 16,
        half: bool = False,
        staged: bool = True,
        bounds: tuple[int, int, int] = SMALL,
        shared_bytes_max: int | None = None,
    ) -> None:
        headers = np.stack([model.header for model in models])
        self.device, self.items_max, self.staged = device, items_max, staged
        for word, bound in zip((UNITS, COLUMNS_PADDED, MEMORY_COLUMNS), bounds, strict=True):
            assert headers[:, word].max() <= bound, "the plan is for smaller models: give other bounds"
        self.plan = source.plan_predict(
            *bounds,
            device.facts.shared_bytes_max if shared_bytes_max is None else shared_bytes_max,
            half=half,
        )
        self.kernel = device.build(self.plan.source, self.plan.options, self.plan.name, self.plan.shared_bytes)
        state_words = source.device_state_words(bounds[0], bounds[2])
        self.states = np.zeros((states, state_words), np.float32)
        self.running = np.zeros((states, running_words(headers[0])), np.float64)
        weights = _rows([model.weights for model in models], spare=1)  # Not all models' weights are aligned then.
        constants = _rows([model.constants for model in models])
        halves = _rows(
            [source.half_precision(model.header, model.weights) for model in models]
            if half
            else [np.zeros(1, np.uint16)]
        )
        if half:  # Nobody reads them then.
            for row, model in zip(weights, models, strict=True):
                row[: source.half_words(model.header)] = np.nan
        self.work = device.take_pinned((items_max + 1) * layout.SLOT_BYTES)
        self.results = device.take_pinned(items_max * layout.SLOT_BYTES)
        self.done = device.take_pinned(layout.DONE_WORDS * 8)
        self.ticks = device.take_pinned(items_max * TICK_BYTES)
        self.number = 0
        self.addresses = {
            "work": self.work.device_address,
            "ticks": (self.work if staged else self.ticks).device_address,
            "tick_bytes": len((self.work if staged else self.ticks).bytes),
            "results": self.results.device_address,
            "done": self.done.device_address,
            "arrived": device.take(4),
            "states": self._uploaded(self.states),
            "running": self._uploaded(self.running),
            "headers": self._uploaded(headers),
            "weights": self._uploaded(weights),
            "halves": self._uploaded(halves),
            "constants": self._uploaded(constants),
            "scratch": device.take(max(4 * self.plan.scratch_words * (items_max + 1), 4)),
            "states_count": states,
            "models_count": len(models),
            "items_max": items_max,
            "state_words": state_words,
            "running_words": self.running.shape[1],
            "header_words": headers.shape[1],
            "weight_words": weights.shape[1],
            "half_words": halves.shape[1],
            "constant_words": constants.shape[1],
            "scratch_words": self.plan.scratch_words,
        }

    @property
    def slots(self) -> NDArray[np.void]:
        """The work's slots, to be written before ``ring``."""
        return self.work.bytes[layout.SLOT_BYTES :].view(layout.WORK_SLOT_DTYPE)

    @property
    def answers(self) -> NDArray[np.void]:
        """The results."""
        return self.results.bytes.view(layout.RESULT_DTYPE)

    @property
    def done_words(self) -> NDArray[np.int64]:
        """The done words."""
        return self.done.bytes.view(np.int64)

    def write(self, batches: Sequence[Batch]) -> int:
        """Write the work of *batches*; returns how many items."""
        item = 0
        for block, batch in enumerate(batches):
            slot = self.slots[block]
            slot["state"], slot["model"], slot["first"], slot["count"] = (
                batch.state,
                batch.model,
                item,
                len(batch.ticks),
            )
            slot["block_flags"] = layout.BLOCK_COLD * batch.cold
            for position in range(len(batch.ticks)):
                self._write_item(item, batch.ticks[position : position + 1], position in batch.advance)
                item += 1
        return item

    def launch(self, batches: Sequence[Batch], *, blocks: int | None = None) -> NDArray[np.void]:
        """Run one launch to its end; returns the results of its items, in the order of the batches."""
        items = self.write(batches)
        self.ring(len(batches), blocks=blocks)
        return self.answers[:items].copy()

    def ring(self, asked: int, *, blocks: int | None = None) -> None:
        """Launch what is written: *asked* blocks, of maybe more *blocks* launched."""
        self.number += 1
        head = self.work.bytes[: layout.SLOT_BYTES].view(layout.WORK_HEAD_DTYPE)
        head["number"], head["blocks"] = self.number, asked
        arguments = [self.addresses.get(name, 0) for name in layout.ARGUMENTS]
        shape = LaunchShape(blocks or asked, self.plan.threads, self.plan.shared_bytes)
        self.device.launch(self.kernel, shape, arguments)
        self.device.synchronize()
        assert self.done_words[layout.DONE_NUMBER] == self.number

    def read_states(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return states and running feature states as the device has them."""
        states, running = np.empty_like(self.states), np.empty_like(self.running)
        self.device.download(self.addresses["states"], states)
        self.device.download(self.addresses["running"], running)
        return states, running

    def _write_item(self, item: int, tick: NDArray[np.void], advance: bool) -> None:
        slot = self.slots[item]
        slot["item_flags"] = layout.ITEM_ADVANCE * advance
        raw = tick.view(np.uint8)
        assert tick.dtype == TICK_DTYPE
        if self.staged:
            slot["tick_offset"] = STAGED_OFFSET + item * layout.SLOT_BYTES
            start = int(slot["tick_offset"])
            self.work.bytes[start : start + TICK_BYTES] = raw
        else:
            place = self.items_max - 1 - item  # Anywhere but at the item's own number.
            slot["tick_offset"] = place * TICK_BYTES
            self.ticks.bytes[place * TICK_BYTES : (place + 1) * TICK_BYTES] = raw

    def _uploaded(self, array: NDArray[Any]) -> int:
        address = self.device.take(array.nbytes)
        self.device.upload(address, np.ascontiguousarray(array))
        return address


def _rows(arrays: Sequence[NDArray[Any]], spare: int = 0) -> NDArray[Any]:
    """Lay arrays of different lengths out as rows of one, padded with zeros, *spare* words longer than the longest."""
    rows = np.zeros((len(arrays), max(len(array) for array in arrays) + spare), arrays[0].dtype)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return rows
