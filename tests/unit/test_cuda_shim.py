"""The host shim itself: barriers, guards, launches and failures behave as the tests above it rely on."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock_daemon.device.backend import NOT_READY, Copy, DeviceError, LaunchShape
from support.host_device import FIRST_TO_LAST, LAST_TO_FIRST, LOST, SHUFFLED, HostDevice, HostKernel, host_device

SOURCE = """
extern "C" __global__ void turn_round(float* out, long long rounds) {
    float* line = (float*)PENSTOCK_SHARED;
    line[threadIdx.x] = (float)(blockIdx.x * 1000 + threadIdx.x);
    for (long long i = 0; i < rounds; ++i) {
        __syncthreads();
        float next = line[(threadIdx.x + 1) % blockDim.x];
        __syncthreads();
        line[threadIdx.x] = next;
    }
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = line[threadIdx.x];
}
extern "C" __global__ void without_barrier(float* out) {
    float* line = (float*)PENSTOCK_SHARED;
    line[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = line[(threadIdx.x + 1) % blockDim.x];
}
extern "C" __global__ void misses_barrier() {
    if (threadIdx.x == 3) return;
    __syncthreads();
}
extern "C" __global__ void parts_at_barriers() {
    if (threadIdx.x < 3)
        __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void overruns(long long offset) { ((unsigned char*)PENSTOCK_SHARED)[offset] = 1; }
extern "C" __global__ void writes(float* out, long long index) {
    if (threadIdx.x == 0) out[index] = 7.0f;
}
extern "C" __global__ void adds(float* values, const float* host, int* count) {
    values[threadIdx.x] += host[threadIdx.x];
    atomicAdd(count, 1);
}
extern "C" __global__ void waits_for_ever(long long* begun) {
    for (;;) {
        if (threadIdx.x == 0) store_system(begun, 1);
        __syncthreads();
    }
}
extern "C" __global__ void reads_clock(long long* out) {
    if (threadIdx.x == 0) store_system(out, device_clock_ns());
}
extern "C" __global__ void penstock_resident(long long* bells, long long* answers) {
    long long* seen = (long long*)PENSTOCK_SHARED;
    if (threadIdx.x == 0) *seen = 0;
    __syncthreads();
    for (;;) {
        if (threadIdx.x == 0) {
            long long bell;
            while ((bell = load_system(bells + blockIdx.x)) == *seen) pause_ns(100);
            *seen = bell;
        }
        __syncthreads();
        if (*seen < 0) return;
        if (threadIdx.x == 0) store_system(answers + blockIdx.x, *seen * 2);
        __syncthreads();
    }
}
"""
SHARED_BYTES = 1024


@pytest.fixture
def device() -> Iterator[HostDevice]:
    with host_device() as opened:
        yield opened


def _kernel(device: HostDevice, name: str) -> HostKernel:
    return device.build(SOURCE, (), name, SHARED_BYTES)


def _floats(device: HostDevice, count: int) -> tuple[int, np.ndarray]:
    return device.take(count * 4), np.zeros(count, np.float32)


def _launch(device: HostDevice, exec_address: int) -> int:
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(device.launch_address)
    return int(function(exec_address, device.stream))


def _query(device: HostDevice, stream: int = 0) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(device.query_address)(stream or device.stream))


@pytest.mark.parametrize("order", [FIRST_TO_LAST, LAST_TO_FIRST, SHUFFLED])
def test_barriers_order_shared_memory_in_any_order_of_threads(order: int) -> None:
    with host_device(order=order) as device:
        address, out = _floats(device, 3 * 64)
        device.launch(_kernel(device, "turn_round"), LaunchShape(3, 64, 256), (address, 5))
        device.download(address, out)
    expected = [block * 1000 + (thread + 5) % 64 for block in range(3) for thread in range(64)]
    assert out.tolist() == expected


def test_a_missing_barrier_shows_by_the_order_of_threads_and_by_poison(device: HostDevice) -> None:
    address, out = _floats(device, 8)
    kernel = _kernel(device, "without_barrier")
    device.launch(kernel, LaunchShape(1, 8, 32), (address,))
    device.download(address, out)
    assert np.isnan(out[:7]).all()
    device.set_order(LAST_TO_FIRST)
    device.launch(kernel, LaunchShape(1, 8, 32), (address,))
    device.download(address, out)
    assert np.isnan(out[7])
    assert out[:7].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("name", "said"), [("misses_barrier", "not all threads reach"), ("parts_at_barriers", "different barriers")]
)
def test_a_barrier_that_threads_miss_is_an_error(device: HostDevice, name: str, said: str) -> None:
    device.launch(_kernel(device, name), LaunchShape(1, 8, 0), ())
    with pytest.raises(DeviceError, match=said):
        device.synchronize()


@pytest.mark.parametrize("offset", [64, 64 + 4000, -1])
def test_a_write_outside_shared_memory_is_an_error(device: HostDevice, offset: int) -> None:
    device.launch(_kernel(device, "overruns"), LaunchShape(1, 1, 64), (offset,))
    with pytest.raises(DeviceError, match="outside its shared memory: bytes=64"):
        device.synchronize()
    assert _query(device) == LOST


def test_a_write_outside_device_memory_fails_the_test_that_made_it() -> None:
    opened = contextlib.ExitStack()
    device = opened.enter_context(host_device())
    address, _ = _floats(device, 16)
    device.launch(_kernel(device, "writes"), LaunchShape(1, 1, 0), (address, 16))
    device.synchronize()
    with pytest.raises(AssertionError, match="64 bytes was written outside"):
        opened.close()


def test_a_read_that_is_not_aligned_stops_the_process_as_it_would_a_gpu(repository_root: Path) -> None:
    script = """
from support.host_device import LaunchShape, host_device
SOURCE = 'extern "C" __global__ void halves(double* values) { values[0] /= 2.0; }'
with host_device() as device:
    device.launch(device.build(SOURCE, (), "halves", 0), LaunchShape(1, 1, 0), (device.take(16) + 4,))
    device.synchronize()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=repository_root / "tests", check=False, timeout=60)
    assert -ended.returncode in {signal.SIGILL, signal.SIGTRAP}


def test_a_graph_copies_in_runs_and_copies_out(device: HostDevice) -> None:
    address, zeros = _floats(device, 32)
    device.upload(address, zeros)
    count = device.take(4)
    pinned, shown = device.take_pinned(128), device.take_pinned(4)
    pinned.bytes.view(np.float32)[:] = np.arange(32)
    shown.bytes.view(np.int32)[0] = 5
    assert pinned.device_address != pinned.bytes.ctypes.data
    graph = device.capture(
        _kernel(device, "adds"),
        LaunchShape(1, 32, 0),
        (address, pinned.device_address, count),
        (Copy(count, shown.bytes.ctypes.data, 4, to_device=True),),
        (Copy(shown.bytes.ctypes.data, count, 4, to_device=False),),
    )
    assert device.counters.eager_launches == 0
    for _ in range(3):
        assert _launch(device, graph) == 0
    device.download(address, zeros)
    assert zeros.tolist() == [3 * i for i in range(32)]
    assert shown.bytes.view(np.int32)[0] == 101
    assert (_query(device), device.launches()) == (0, 3)


def test_launch_returns_before_the_work_is_done(device: HostDevice) -> None:
    device.delay(50_000_000)
    began = time.monotonic_ns()
    device.launch(_kernel(device, "misses_barrier"), LaunchShape(1, 1, 0), ())
    assert _query(device) == NOT_READY
    device.synchronize()
    assert time.monotonic_ns() - began >= 50_000_000


def test_a_thread_that_did_not_enter_may_not_launch(device: HostDevice) -> None:
    codes = []
    graph = device.capture(_kernel(device, "misses_barrier"), LaunchShape(1, 1, 0), ())

    def launch() -> None:
        codes.append(_launch(device, graph))
        device.enter_thread()
        codes.append(_launch(device, graph))

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    assert codes == [201, 0]


def test_a_failed_launch_leaves_the_others_alone(device: HostDevice) -> None:
    graph = device.capture(_kernel(device, "misses_barrier"), LaunchShape(1, 1, 0), ())
    device.fail_launch(2, after=1)
    assert [_launch(device, graph) for _ in range(3)] == [0, 2, 0]
    device.synchronize()


def test_a_launch_that_hangs_is_never_ready_and_closes(device: HostDevice) -> None:
    address, out = _floats(device, 1)
    graph = device.capture(_kernel(device, "writes"), LaunchShape(1, 1, 0), (address, 0))
    device.hang()
    assert _launch(device, graph) == 0
    time.sleep(0.01)
    assert _query(device) == NOT_READY
    assert ctypes.c_float.from_address(address).value == out[0]


def test_a_kernel_that_dies_takes_the_device_with_it(device: HostDevice) -> None:
    graph = device.capture(_kernel(device, "misses_barrier"), LaunchShape(1, 1, 0), ())
    device.die(after=1)
    assert _launch(device, graph) == 0
    device.synchronize()
    assert _launch(device, graph) == 0
    with pytest.raises(DeviceError, match=r"code=700 .*died"):
        device.synchronize()
    assert (_launch(device, graph), _query(device)) == (LOST, LOST)


def test_the_clock_of_the_device_has_another_zero_and_the_same_pace(device: HostDevice) -> None:
    before, of_device, after = device.clock_ns()
    pinned = device.take_pinned(8)
    device.launch(_kernel(device, "reads_clock"), LaunchShape(1, 4, 0), (pinned.device_address,))
    device.synchronize()
    later = int(pinned.bytes.view(np.int64)[0])
    assert of_device > after + 10**17
    assert 0 <= later - of_device <= time.monotonic_ns() - before


def _ring(bells: np.ndarray, answers: np.ndarray, number: int) -> None:
    bells[:] = number
    give_up = time.monotonic() + 10
    while (answers != 2 * number).any():
        assert time.monotonic() < give_up, "no answer"
        time.sleep(0)


def _resident(device: HostDevice) -> tuple[np.ndarray, np.ndarray]:
    bells, answers = device.take_pinned(16), device.take_pinned(16)
    arguments = (bells.device_address, answers.device_address)
    device.launch(_kernel(device, "penstock_resident"), LaunchShape(2, 16, 64), arguments)
    return bells.bytes.view(np.int64), answers.bytes.view(np.int64)


def test_a_resident_kernel_answers_its_bells_and_stops(device: HostDevice) -> None:
    bells, answers = _resident(device)
    for number in (1, 2, 3):
        _ring(bells, answers, number)
    assert _query(device, device.resident_stream) == NOT_READY
    assert _query(device) == 0
    bells[:] = -1
    give_up = time.monotonic() + 10
    while _query(device, device.resident_stream) != 0:
        assert time.monotonic() < give_up, "it goes on"
        time.sleep(0)


def test_a_resident_kernel_ends_with_a_lost_device(device: HostDevice) -> None:
    bells, answers = _resident(device)
    _ring(bells, answers, 1)
    device.lose()
    assert _query(device) == LOST


def test_a_kernel_without_end_ends_with_a_closed_device(device: HostDevice) -> None:
    pinned = device.take_pinned(8)
    device.launch(_kernel(device, "waits_for_ever"), LaunchShape(1, 4, 0), (pinned.device_address,))
    give_up = time.monotonic() + 10
    while not pinned.bytes[0]:
        assert time.monotonic() < give_up, "not begun"
    device.close()
    assert "closed" in device.message()


def test_wrong_use_is_refused_with_a_sentence(device: HostDevice) -> None:
    kernel = _kernel(device, "writes")
    with pytest.raises(DeviceError, match="at most 232448"):
        device.build(SOURCE, (), "writes", 1 << 20)
    with pytest.raises(DeviceError, match="no kernel named nothing"):
        _kernel(device, "nothing")
    with pytest.raises(DeviceError, match="built for 1024 bytes"):
        device.launch(kernel, LaunchShape(1, 1, 2048), ())
    with pytest.raises(DeviceError, match="refuses the launch"):
        device.launch(kernel, LaunchShape(1, 2048, 0), ())
    with pytest.raises(DeviceError, match="not in device memory"):
        device.upload(4096, np.zeros(4))
    with pytest.raises(DeviceError, match="refuses the source"):
        device.build("this is no C++", (), "writes", 0)
    with pytest.raises(DeviceError, match="whole pages"):
        device.page_lock(4096, 100)
