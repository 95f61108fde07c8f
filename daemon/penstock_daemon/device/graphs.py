"""The kernel of a micro-batch: compiled, launched once, and captured into a graph for each number of blocks.

    build -> one eager launch -> capture 1, 2, 4 ... blocks -> replay each once, as the loop will

A graph's buffers never move, so a launch is one call with two addresses. Everything here runs before SERVING; afterwards
nothing is launched but graphs, which the backend's counters show.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_daemon.device import memory
from penstock_daemon.device.backend import Copy, DeviceBackend, DeviceError, LaunchShape
from penstock_daemon.device.memory import DeviceFault, DeviceMemory, Transfer
from penstock_daemon.device.submit import run_empty
from penstock_kernels.cuda import layout
from penstock_kernels.cuda.source import KernelPlan

_FIRST: Final = 1  # Number of the eager launch.


@dataclass(frozen=True)
class StartTimes:
    """Where the start of a device engine went, in seconds.

    Attributes:
        compile_s: kernels, by the device's compiler.
        first_launch_s: the eager launch, with what the driver loads for it.
        capture_s: every graph, replayed once.
    """

    compile_s: float
    first_launch_s: float
    capture_s: float


def build_graphs(backend: DeviceBackend, plan: KernelPlan, held: DeviceMemory, arguments: Sequence[int]) -> StartTimes:
    """Compile *plan* and fill ``held.buffers.graphs``; every graph has run once when this returns.

    Args:
        backend: the device; the calling thread has entered it.
        plan: of the kernel that predicts.
        held: memory of the device engine; its settings are written.
        arguments: of the kernel, in the order of ``layout.ARGUMENTS``.

    Raises:
        DeviceError: the kernel can't be built, or does not complete.
    """
    started_s = time.monotonic()
    kernel = backend.build(plan.source, plan.options, plan.name, plan.shared_bytes)
    compiled_s = time.monotonic()
    _launch_once(backend, kernel, LaunchShape(1, plan.threads, plan.shared_bytes), held, arguments)
    launched_s = time.monotonic()
    buffers = held.buffers
    for place, blocks in enumerate(held.sizes.buckets):
        shape = LaunchShape(blocks, plan.threads, plan.shared_bytes)
        copies_in, copies_out = copies(held, blocks)
        buffers.graphs[place] = backend.capture(kernel, shape, arguments, copies_in, copies_out)
    buffers.words[memory.NUMBER] = _FIRST
    for place, blocks in enumerate(held.sizes.buckets):
        fault = DeviceFault(run_empty(buffers, place))
        if fault != DeviceFault.NONE:
            raise DeviceError(
                f"the graph of {blocks} blocks did not run: {fault.name}, detail {buffers.words[memory.FAULT_DETAIL]}; "
                "set engine.device to cpu, or raise engine.device_timeout_ms if it is a TIMEOUT"
            )
    return StartTimes(compiled_s - started_s, launched_s - compiled_s, time.monotonic() - launched_s)


def copies(held: DeviceMemory, blocks: int) -> tuple[tuple[Copy, ...], tuple[Copy, ...]]:
    """Return what the graph of so many blocks copies in and out; nothing, unless the transfer is COPIED."""
    if held.sizes.transfer != Transfer.COPIED:
        return (), ()
    host, device, slot = held.host, held.device, layout.SLOT_BYTES
    done_bytes = held.sizes.pinned_parts["done"]
    copy_in = Copy(device["work_copy"], host["work"], (blocks + 1) * slot, to_device=True)
    results = Copy(host["results"], device["results_copy"], blocks * slot, to_device=False)
    done = Copy(host["done"], device["done_copy"], done_bytes, to_device=False)  # After what it speaks of.
    return (copy_in,), (results, done)


def _launch_once(
    backend: DeviceBackend, kernel: object, shape: LaunchShape, held: DeviceMemory, arguments: Sequence[int]
) -> None:
    """Launch the kernel eagerly, without any work, and look whether it says so."""
    buffers, copied = held.buffers, held.sizes.transfer == Transfer.COPIED
    buffers.work_words[0, memory.HEAD_NUMBER] = _FIRST
    buffers.work_halves[0, memory.HEAD_BLOCKS] = 0
    if copied:
        backend.upload(held.device["work_copy"], np.ascontiguousarray(buffers.work_words[0]))
    backend.launch(kernel, shape, arguments)
    backend.synchronize()
    done = buffers.done
    if copied:
        done = np.zeros(layout.DONE_WORDS, np.int64)
        backend.download(held.device["done_copy"], done)
    if done[layout.DONE_NUMBER] != _FIRST:
        raise DeviceError(
            f"the kernel ran but did not say so: done word {done[layout.DONE_NUMBER]}, wanted {_FIRST}; set engine.device "
            "to cpu and report this"
        )
