"""A card that fails: the sentence, the engine's move to the CPU, and memory that is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from penstock_daemon.device.backend import DeviceBackend, DeviceError
from support import device_victim

pytestmark = pytest.mark.gpu


def victim(what: str) -> dict[str, Any]:
    """Break the card in a process of its own, with our own folders on its path."""
    path = os.pathsep.join(name for name in sys.path if name)
    done = subprocess.run(
        [sys.executable, "-m", "support.device_victim", what],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.usefixtures("cuda")
def test_an_illegal_address_is_a_sentence_from_every_later_call() -> None:
    found = victim("illegal")
    assert found["synchronize"]
    assert found["upload"]
    assert "illegal" in found["synchronize"].lower() or "700" in found["synchronize"]


@pytest.mark.usefixtures("cuda")
def test_an_engine_whose_card_is_lost_goes_on_with_the_cpus_bits_and_answers_every_tick() -> None:
    found = victim("engine")
    assert found["answers"] == device_victim.BEFORE + device_victim.AFTER
    assert found["in_order"]
    assert found["lost"], found
    assert found["degraded_before"] == 0
    assert found["degraded_after"] == device_victim.AFTER
    assert found["fault_text"]


def test_memory_that_is_not_there_is_a_sentence_and_the_card_stays_usable(cuda: DeviceBackend) -> None:
    with pytest.raises(DeviceError, match=r"\w"):
        cuda.take(1 << 50)
    address = cuda.take(4096)
    sent = np.arange(1024, dtype=np.float32)
    cuda.upload(address, sent)
    back = np.zeros_like(sent)
    cuda.download(address, back)
    assert np.array_equal(sent, back)


def test_source_that_does_not_compile_is_the_compilers_own_words(cuda: DeviceBackend) -> None:
    with pytest.raises(DeviceError, match="undefined_name"):
        cuda.build('extern "C" __global__ void broken() { undefined_name(); }', (), "broken", 0)


def test_the_devices_clock_runs_with_the_hosts(cuda: DeviceBackend) -> None:
    first, second = cuda.clock_ns(), cuda.clock_ns()
    assert first[0] <= first[2] <= second[0] <= second[2]
    elapsed_ns = second[1] - first[1]
    assert 0 <= elapsed_ns <= second[2] - first[0] + 1_000_000, "the same span on both clocks, to a millisecond"


def test_new_memory_is_zeros_and_aligned(cuda: DeviceBackend) -> None:
    for size_bytes in (1, 1000, 1 << 20):
        address = cuda.take(size_bytes)
        held = np.ones(size_bytes, np.uint8)
        cuda.download(address, held)
        assert address % 256 == 0
        assert not held.any()
    pinned = cuda.take_pinned(10_000)
    assert (pinned.bytes.ctypes.data % 4096, pinned.bytes.any(), len(pinned.bytes)) == (0, False, 10_000)
