"""penstock_resident on the host device, without an engine: bells rung by hand, beside launches of penstock_predict.

with ResidentRig(device, packed, states=3) as rig:
    results = rig.call([Batch(state=0, ticks=ticks)])
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.device.backend import LaunchShape
from penstock_kernels.cuda import layout
from penstock_kernels.cuda.resident import UNIT_THREADS_MAX, plan_resident
from penstock_kernels.packed import PackedModel
from support.host_device import HostDevice
from support.kernel_rig import Batch, KernelRig

PATIENCE_S = 60.0


class ResidentRig(KernelRig):
    """KernelRig whose first model stays on the device in so many *blocks*; the kernel runs.

    It is compiled for the first model whatever *resident_model* says it will find.
    """

    def __init__(
        self,
        device: HostDevice,
        *models: PackedModel,
        states: int = 1,
        blocks: int = 1,
        half: bool = False,
        shared_bytes_max: int | None = None,
        watchdog_ns: int = 60_000_000_000,
        resident_model: int = 0,
        unit_threads_max: int = UNIT_THREADS_MAX,
    ) -> None:
        super().__init__(device, models, states=states, half=half)
        self.blocks = blocks
        self.bells = device.take_pinned(blocks * layout.BELL_WORDS * 8)
        self.answered = device.take_pinned(blocks * layout.ANSWER_WORDS * 8)
        plan = self.resident_plan = plan_resident(
            models[0].header,
            shared_bytes_max or device.facts.shared_bytes_max,
            half=half,
            unit_threads_max=unit_threads_max,
        )
        kernel = device.build(plan.source, plan.options, plan.name, plan.shared_bytes)
        self.addresses |= {
            "bells": self.bells.device_address,
            "answers": self.answered.device_address,
            "watchdog_ns": watchdog_ns,
            "resident_model": resident_model,
        }
        arguments = [self.addresses.get(name, 0) for name in layout.ARGUMENTS]
        device.launch(kernel, LaunchShape(blocks, plan.threads, plan.shared_bytes), arguments)

    def __enter__(self) -> Self:
        """Return the rig."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop the kernel, if it has not left."""
        self.stop()

    @property
    def bell_words(self) -> NDArray[np.int64]:
        """The bells, a row each."""
        return self.bells.bytes.view(np.int64).reshape(self.blocks, layout.BELL_WORDS)

    @property
    def answer_words(self) -> NDArray[np.int64]:
        """The resident blocks' answers, a row each."""
        return self.answered.bytes.view(np.int64).reshape(self.blocks, layout.ANSWER_WORDS)

    def call(self, batches: Sequence[Batch]) -> NDArray[np.void]:
        """Have the resident blocks walk *batches*, each by that of its state; returns the items' results."""
        items = self.write(batches)
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for slot, batch in enumerate(batches):
            self.slots[slot]["next"] = layout.LAST_SLOT
            block = batch.state % self.blocks
            if block in last:
                self.slots[last[block]]["next"] = slot
            first.setdefault(block, slot)
            last[block] = slot
        self.ring_bells(first)
        return self.answers[:items].copy()

    def forget(self) -> None:
        """Have every resident block keep no state."""
        self.ring_bells(dict.fromkeys(range(self.blocks), layout.CALL_FORGET))

    def ring_bells(self, firsts: dict[int, int]) -> None:
        """Ring bells, each for its first slot, and wait for their answers."""
        self.number += 1
        for block, first in firsts.items():
            self.bell_words[block, layout.BELL_CALL] = self.number << layout.CALL_NUMBER_SHIFT | first
        for block in firsts:
            self.wait(block, int(self.bell_words[block, layout.BELL_CALL]))

    def wait(self, block: int, answer: int) -> None:
        """Wait until a resident block's answer is *answer*."""
        give_up_s = time.monotonic() + PATIENCE_S
        while self.answer_words[block, layout.ANSWER_CALL] != answer:
            self.bell_words[0, layout.BELL_HEARTBEAT] += 1
            assert time.monotonic() < give_up_s, f"resident block {block} answers {self.answer_words[block]}"
            time.sleep(0.0002)

    def stop(self) -> None:
        """End the kernel and wait for that."""
        self.bell_words[:, layout.BELL_CALL] = layout.BELL_STOP
        for block in range(self.blocks):
            self.wait(block, layout.ANSWER_ENDED)
