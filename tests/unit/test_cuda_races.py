"""No two threads of a block touch the same memory between two barriers, one of them writing: in every kernel, any order.

The order of threads on a card is none that a test can run them in. So every access is watched, and what two threads
share without a barrier between them is an error even where this order of theirs gave the right bits.
"""

from __future__ import annotations

import ctypes
import time

import pytest

from penstock_daemon.device.backend import NOT_READY, DeviceError, LaunchShape
from penstock_kernels.half_weights import nearest_half
from penstock_kernels.packed import pack
from support.host_compiler import watches_races
from support.host_device import host_device
from support.kernel_rig import Batch, KernelRig
from support.models import HORIZONS, random_model
from support.resident_rig import ResidentRig
from support.tick_arrays import quotes

pytestmark = pytest.mark.skipif(not watches_races(), reason="needs g++, which can watch every access of a kernel")

SOURCE = """
extern "C" __global__ void turns_round(float* out, long long apart) {
    float* line = (float*)PENSTOCK_SHARED;
    line[threadIdx.x] = (float)threadIdx.x;
    if (apart) __syncthreads();
    out[threadIdx.x] = line[(threadIdx.x + 1) % blockDim.x];
}
extern "C" __global__ void all_write(float* out, long long apart) { out[apart ? threadIdx.x : 0] = 1.0f; }
extern "C" __global__ void halves_of_a_word(float* out, long long) {
    ((unsigned short*)out)[threadIdx.x] = (unsigned short)threadIdx.x;
    atomicAdd((int*)out + 32, 1);
    *(volatile int*)(out + 33) = 1;
}
"""
WHOLE = {
    "units": 40,
    "fan_in": 9,
    "products": 16,
    "memory_gains": (0.1, 0.02),
    "memory_lags": 2,
    "time_base": "seconds",
}
MODELS = {
    "cyclic": WHOLE,
    "sparse": {"units": 20, "topology": "sparse", "horizons": HORIZONS[:1]},
    "dense": {"units": 20, "topology": "dense", "horizons": HORIZONS[:1]},
}


@pytest.mark.parametrize(
    ("name", "apart", "said"),
    [
        ("turns_round", 0, r"block 0: threads 0 and 1 race for shared memory: offset=4"),
        ("turns_round", 1, ""),
        ("all_write", 0, "threads 0 and 1 race for global memory"),
        ("all_write", 1, ""),
        ("halves_of_a_word", 0, ""),
    ],
)
def test_a_race_is_told_and_nothing_else_is(name: str, apart: int, said: str) -> None:
    with host_device(races=True) as device:
        device.launch(device.build(SOURCE, (), name, 128), LaunchShape(1, 32, 128), (device.take(256), apart))
        if said:
            with pytest.raises(DeviceError, match=said):
                device.synchronize()
        else:
            device.synchronize()


@pytest.mark.parametrize("staged", [True, False])
def test_a_micro_batch_has_no_race(staged: bool) -> None:
    models = [pack(random_model(7, **given)) for given in MODELS.values()]
    with host_device(races=True) as device:
        rig = KernelRig(device, models, states=3, items_max=32, staged=staged)
        batches = [Batch(state, quotes(6 - 2 * state, seed=state), state, advance=(1,)) for state in range(3)]
        for cold in (False, True):
            batches[0] = Batch(0, quotes(17), 0, cold=cold)  # More than two chunks: one is written over another.
            assert not rig.launch(batches[: 2 - cold], blocks=3)["fault"].any()
            assert not rig.launch(batches[2:])["fault"].any()


def test_a_micro_batch_in_scratch_with_half_weights_has_no_race() -> None:
    model = pack(nearest_half(random_model(7, **WHOLE)))
    with host_device(races=True) as device:
        rig = KernelRig(device, [model], states=2, half=True, shared_bytes_max=4608)
        assert rig.plan.scratch_words > 0
        assert not rig.launch([Batch(0, quotes(9)), Batch(1, quotes(3))])["fault"].any()


@pytest.mark.parametrize("half", [False, True])
def test_a_resident_kernel_has_no_race(half: bool) -> None:
    drawn = random_model(3, **WHOLE | {"units": 140})
    with host_device(races=True) as device:
        with ResidentRig(
            device, pack(nearest_half(drawn) if half else drawn), half=half, states=2, unit_threads_max=64
        ) as rig:
            for parts in ((1, 1), (2, 14), (16, 0)):  # One block walks two states, and keeps the last.
                batches = [Batch(state, quotes(count, seed=state)) for state, count in enumerate(parts) if count]
                assert not rig.call(batches)["fault"].any()
                rig.forget()
        query = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(device.query_address)
        deadline_s = time.monotonic() + 60.0
        while (code := int(query(device.resident_stream))) == NOT_READY:
            assert time.monotonic() < deadline_s, "it goes on"
            time.sleep(0.001)
        assert code == 0, "a race, or another error"
