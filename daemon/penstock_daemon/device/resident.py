"""The resident kernel from its launch to its end: what runs before the engine rings, and after it has stopped.

    launch on a stream of its own -> every block answers an empty call -> the engine rings -> stop -> every block has left

One model is resident, the one that is active at the start. Others, and what is loaded later, go through the graphs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from penstock_daemon.device import memory
from penstock_daemon.device.backend import DeviceBackend, DeviceError, DeviceFacts, LaunchShape
from penstock_daemon.device.memory import DeviceBuffers
from penstock_kernels.cuda import layout
from penstock_kernels.cuda.source import KernelPlan

_START_S: Final = 10.0
_STOP_S: Final = 2.0
_LOOK_S: Final = 0.0005
_REASONS: Final = {
    layout.REASON_STOPPED: "it was stopped",
    layout.REASON_WATCHDOG: "it heard no heartbeat of the engine",
    layout.REASON_MODEL: "it was compiled for another model",
}


def resident_blocks(facts: DeviceFacts, states: int) -> int:
    """Return how many blocks stay: one for each state, but no more than half of the multiprocessors, for the graphs' sake."""
    return max(1, min(states, facts.multiprocessors // 2))


def start_resident(
    backend: DeviceBackend, plan: KernelPlan, buffers: DeviceBuffers, arguments: Sequence[int], model_slot: int
) -> None:
    """Launch the kernel, see every block answer, and hand it over to the engine; nobody else rings meanwhile.

    Args:
        backend: the device; the calling thread has entered it.
        plan: of the kernel, for the model of *model_slot*.
        buffers: whose bells and answers it has.
        arguments: of the kernel.
        model_slot: whose micro-batches it gets from now on.

    Raises:
        DeviceError: it does not compile, launch or answer.
    """
    blocks = int(buffers.settings[memory.RESIDENT_BLOCKS])
    kernel = backend.build(plan.source, plan.options, plan.name, plan.shared_bytes)
    calls = buffers.bells.reshape(blocks, layout.BELL_WORDS)[:, layout.BELL_CALL]
    answers = buffers.answers.reshape(blocks, layout.ANSWER_WORDS)
    calls[:] = layout.CALL_FORGET  # Number 0, which the engine never uses.
    backend.launch(kernel, LaunchShape(blocks, plan.threads, plan.shared_bytes), arguments)
    deadline_s = time.monotonic() + _START_S
    while (answers[:, layout.ANSWER_CALL] != layout.CALL_FORGET).any():
        left = answers[:, layout.ANSWER_CALL] == layout.ANSWER_ENDED
        if left.any() or time.monotonic() > deadline_s:
            calls[:] = layout.BELL_STOP
            why = f"no answer within {_START_S:g} s"
            if left.any():
                why = reason_text(int(answers[left, layout.ANSWER_REASON][0]))
            raise DeviceError(f"the resident kernel does not work ({why}); set engine.device_mode to graph")
        time.sleep(_LOOK_S)
    buffers.words[memory.RESIDENT_MODEL] = model_slot


def stop_resident(buffers: DeviceBuffers) -> bool:
    """Stop the kernel, which was started; the engine's thread has ended. Returns whether every block has left."""
    blocks = int(buffers.settings[memory.RESIDENT_BLOCKS])
    buffers.words[memory.RESIDENT_MODEL] = memory.NOBODY
    buffers.bells.reshape(blocks, layout.BELL_WORDS)[:, layout.BELL_CALL] = layout.BELL_STOP
    answers = buffers.answers.reshape(blocks, layout.ANSWER_WORDS)[:, layout.ANSWER_CALL]
    deadline_s = time.monotonic() + _STOP_S
    while (answers != layout.ANSWER_ENDED).any():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_S)
    return True


def reason_text(reason: int) -> str:
    """Return why the kernel left, as half a sentence."""
    return _REASONS.get(reason, f"reason {reason}")
