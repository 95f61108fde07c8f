"""What the CUDA backend does up to a card: arguments, order, memory, threads, errors. No kernel runs here."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from penstock_daemon.device import cuda_driver
from penstock_daemon.device.backend import Copy, DeviceError, LaunchShape
from penstock_daemon.device.cuda_backend import CudaBackend
from penstock_daemon.device.cuda_driver import asked, compile_image, count_devices, import_cuda
from penstock_kernels.cuda.layout import ARGUMENTS
from penstock_kernels.cuda.source import CLOCK, plan_small
from support.scripted_cuda import DEVICE_CLOCK_NS, MAPPED_AT, CudaError, ScriptedCuda

SHAPE = LaunchShape(3, 64, 1024)
WORDS = [-1, 0, (1 << 63) + 5, *range(len(ARGUMENTS) - 3)]


@pytest.fixture
def script():
    return ScriptedCuda()


@pytest.fixture
def backend(script):
    return CudaBackend(0, script.bindings(), script.entry_points())


def kernel_of(backend, name="penstock_predict"):
    return backend.build("source", ("--fmad=false",), name, 200_000)


def test_facts_are_those_of_the_card(backend):
    facts = backend.facts
    assert (facts.name, facts.architecture, facts.bus_id) == ("Scripted 0", "sm_90", "0000:00:00.0")
    assert (facts.driver, facts.multiprocessors, facts.shared_bytes_max) == ("13.1", 132, 227 * 1024)
    assert (backend.launch_address, backend.query_address, backend.stream) == (11, 12, 21)


def test_arguments_arrive_as_64_bit_words_whatever_their_sign(backend, script):
    backend.launch(kernel_of(backend), SHAPE, WORDS)
    (launched,) = script.launches
    assert launched == ("penstock_predict", (3, 64, 1024), ((1 << 64) - 1, 0, (1 << 63) + 5, *WORDS[3:]))
    assert backend.counters.eager_launches == 1


def test_kernel_is_compiled_for_the_card_with_our_options_alone(backend, script):
    kernel_of(backend)
    assert script.compiled == [("--gpu-architecture=sm_90", "--fmad=false")]
    assert "funcSetAttribute" in script.calls


def test_card_newer_than_nvrtc_gets_the_newest_intermediate_code():
    script = ScriptedCuda(capability=(13, 0))
    assert compile_image(script.bindings(), "source", (), (13, 0)) == b"ptx"
    assert script.compiled == [("--gpu-architecture=compute_120",)]


@pytest.mark.parametrize("folder", ["cuda_nvrtc/lib", "lib64"])
def test_nvrtc_that_cupy_does_not_find_is_looked_for_in_wheels_and_toolkits(script, folder, tmp_path, monkeypatch):
    library = tmp_path / "nvidia" / folder / "libnvrtc.so.12"
    library.parent.mkdir(parents=True)
    library.touch()
    (tmp_path / "nvidia" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nvidia"))
    loaded = []
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", loaded.append)
    monkeypatch.setattr(script, "driver_get_build_version", lambda: 12_090)
    script.fail("getVersion", 0, "CuPy failed to load libnvrtc.so.12")
    compile_image(script.bindings(), "source", (), (9, 0))
    assert loaded[0] == str(library)


def test_source_that_nvrtc_refuses_comes_with_the_log(backend, script):
    script.fail("compileProgram", 6, "NVRTC_ERROR_COMPILATION")
    with pytest.raises(
        DeviceError, match=r"(?s)NVRTC refuses the kernels \(NVRTC_ERROR_COMPILATION.*error: said by a script"
    ):
        kernel_of(backend)
    assert script.calls[-1] == "destroyProgram"


def test_graph_holds_copies_in_then_the_launch_then_copies_out_and_runs_nothing(backend, script):
    taken, pinned = backend.take(256), backend.take_pinned(256)
    into = Copy(taken, pinned.device_address, 128, to_device=True)
    out = Copy(pinned.device_address, taken, 64, to_device=False)
    kernel = kernel_of(backend)
    launched = backend.capture(kernel, SHAPE, WORDS, [into], [out])
    assert launched == 1
    assert [step[0] for step in script.graphs[0]] == ["copy", "launch", "copy"]
    assert script.graphs[0][0] == ("copy", taken, pinned.device_address, 128, 1)
    assert script.graphs[0][2] == ("copy", pinned.device_address, taken, 64, 2)
    assert (script.launches, backend.counters.eager_launches) == ([], 0)
    assert script.calls[-2:] == ["upload 21", "streamSynchronize"]


def test_capture_that_fails_half_way_is_ended(backend, script):
    kernel = kernel_of(backend)
    script.fail("launchKernel", 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    with pytest.raises(DeviceError, match="capture a graph of penstock_predict: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
        backend.capture(kernel, SHAPE, WORDS)
    assert script.capturing is None
    script.failures.clear()
    backend.capture(kernel, SHAPE, WORDS)


def test_memory_is_zeroed_aligned_and_counted(backend):
    counted = backend.counters.allocations
    address = backend.take(1000)
    held = np.ones(1000, np.uint8)
    backend.download(address, held)
    assert address % 256 == 0
    assert not held.any()
    pinned = backend.take_pinned(1000)
    assert (pinned.bytes.shape, pinned.bytes.ctypes.data % 4096, pinned.bytes.any()) == ((1000,), 0, False)
    assert pinned.device_address == pinned.bytes.ctypes.data + MAPPED_AT
    assert backend.counters.allocations == counted + 2


@pytest.mark.parametrize("words", [0, 1, 300_000])  # The last takes two pieces of the pinned buffer.
def test_what_is_uploaded_comes_back(backend, words):
    sent = np.arange(words, dtype=np.float64).reshape(-1, 1)
    address = backend.take(sent.nbytes)
    backend.upload(address, sent)
    back = np.zeros_like(sent)
    backend.download(address, back)
    assert np.array_equal(back, sent)


def test_copy_waits_for_a_launch_but_not_for_the_resident_kernel(backend, script):
    address, word = backend.take(8), np.zeros(1)
    for name, waits in (("penstock_resident", 1), ("penstock_predict", 2)):
        backend.launch(kernel_of(backend, name), SHAPE, WORDS)
        script.calls.clear()
        backend.upload(address, word)
        assert script.calls.count("streamSynchronize") == waits


def test_page_locked_memory_has_an_address_of_its_own_and_is_whole_pages(backend, script):
    assert backend.page_lock(8192, 4096) == 8192 + MAPPED_AT
    with pytest.raises(DeviceError, match="page_lock takes whole pages"):
        backend.page_lock(8192, 100)
    script.fail("hostRegister", 712, "cudaErrorHostMemoryAlreadyRegistered")
    with pytest.raises(DeviceError, match="asked to page-lock 4096 bytes: cudaErrorHostMemoryAlreadyRegistered"):
        backend.page_lock(8192, 4096)


def test_any_thread_may_call(backend, script):
    kernel = kernel_of(backend)
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(backend.launch, kernel, SHAPE, WORDS).result()
    assert len(script.launches) == 1


def test_clock_is_read_by_a_graph_between_two_looks_at_the_host_s(backend, script):
    backend.clock_ns()
    eager, taken = backend.counters.eager_launches, backend.counters.allocations
    before_ns, device_ns, after_ns = backend.clock_ns()
    assert before_ns <= device_ns - DEVICE_CLOCK_NS <= after_ns
    assert (backend.counters.eager_launches, backend.counters.allocations) == (eager, taken)
    assert script.calls.count("graphLaunch") == 2


def test_close_gives_everything_back_in_order_and_once(backend, script):
    kernel_of(backend)
    backend.take(64)
    backend.page_lock(8192, 4096)
    script.calls.clear()
    backend.close()
    backend.close()
    order = ["moduleUnload", "hostUnregister", "freeHost", "free", "streamDestroy", "streamDestroy"]
    assert [call for call in script.calls if call in order] == order
    assert script.memory == {}


def test_close_after_a_fault_is_no_error(backend, script):
    kernel_of(backend)
    for name in ("setDevice", "moduleUnload", "freeHost", "streamDestroy"):
        script.fail(name, 700, "cudaErrorIllegalAddress")
    backend.close()


def test_close_leaves_what_a_running_kernel_may_touch(backend, script, monkeypatch):
    monkeypatch.setattr("penstock_daemon.device.cuda_backend._CLOSE_S", 0.0)
    script.busy = True
    backend.take(64)
    backend.close()
    assert "free" not in script.calls
    assert "freeHost" not in script.calls


# --- What is refused, and the mend -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "index", "sentence"),
    [
        (ScriptedCuda(devices=1), 2, "there is no GPU of index 2: this host has 1, cuda:0"),
        (ScriptedCuda(devices=4), 4, "there is no GPU of index 4: this host has 4, cuda:0 to cuda:3"),
        (ScriptedCuda(devices=0), 0, "the driver sees no GPU; check with nvidia-smi"),
        (
            ScriptedCuda(capability=(7, 5)),
            0,
            r"Scripted 0 is too old: compute capability 7\.5, at least 8\.0 is needed",
        ),
    ],
)
def test_unusable_gpu_is_refused_with_a_sentence(script, index, sentence):
    with pytest.raises(DeviceError, match=sentence):
        CudaBackend(index, script.bindings(), script.entry_points())


def test_more_shared_memory_than_the_card_has_is_refused(backend):
    with pytest.raises(DeviceError, match="shared_bytes must be at most 232448, was 300000"):
        backend.build("source", (), "penstock_predict", 300_000)


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (CudaError(2, "cudaErrorMemoryAllocation"), "lower models.units_max"),
        (CudaError(35, "cudaErrorInsufficientDriver"), "install an NVIDIA driver for CUDA 12 or 13"),
        (CudaError(12345, "cudaErrorUnheardOf"), 'set engine.device = "cpu" to go without'),
        (RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file"), "install NVRTC with: pip install"),
        (OSError("libcuda.so.1: cannot open shared object file"), "install an NVIDIA driver"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_error_of_cuda_becomes_a_sentence_with_a_mend(error, mend):
    with pytest.raises(DeviceError) as refusal, asked("work"):
        raise error
    assert str(refusal.value).startswith("the GPU was asked to work: ")
    assert mend in str(refusal.value)


def test_missing_cupy_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"CuPy is not installed; install it with: pip install 'penstock\[cuda13\]'"):
        import_cuda()


def test_settings_that_would_wait_for_the_resident_kernel_are_not_the_drivers(monkeypatch):
    for name, value in (("LAUNCH_BLOCKING", "1"), ("DEVICE_MAX_CONNECTIONS", "1"), ("MODULE_LOADING", "LAZY")):
        monkeypatch.setenv(f"CUDA_{name}", value)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError):
        import_cuda()
    assert os.environ["CUDA_MODULE_LOADING"] == "EAGER"
    assert not {"CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS"} & set(os.environ)


# --- With the real CuPy, where it is installed --------------------------------------------------------------------------


@pytest.fixture
def cuda():
    pytest.importorskip("cupy")
    return import_cuda()


def test_script_takes_what_cupy_documents(cuda):
    script = ScriptedCuda()
    for part, module in (("runtime", cuda.runtime), ("driver", cuda.driver), ("nvrtc", cuda.nvrtc)):
        for name in script._functions(part):
            scripted = getattr(script, f"{part}_{name}")
            documented = (getattr(module, name).__doc__ or "").splitlines()[0]
            parameters = [
                one.split("=")[0].split()[-1] for one in documented.split("(")[1].split(")")[0].split(",") if one
            ]
            assert parameters == list(scripted.__code__.co_varnames[1 : scripted.__code__.co_argcount]), documented
    assert cuda.runtime.streamNonBlocking == 1
    assert cuda.runtime.streamCaptureModeThreadLocal == 1
    assert cuda.runtime.hostAllocMapped | cuda.runtime.hostAllocPortable == 3
    assert (cuda.runtime.memcpyHostToDevice, cuda.runtime.memcpyDeviceToHost) == (1, 2)
    assert cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8
    assert (cuda.runtime.cudaDevAttrMultiProcessorCount, cuda.runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin) == (
        16,
        97,
    )
    for name in ("begin_capture", "end_capture", "ptr"):
        assert hasattr(cuda.stream_type, name) or name == "ptr"


def test_host_without_a_driver_is_told_to_install_one(cuda):
    try:
        cuda.runtime.getDeviceCount()
    except cuda.runtime.CUDARuntimeError as error:
        if error.status not in (35, 100):
            raise
    else:
        pytest.skip("this host has a driver")
    with pytest.raises(
        DeviceError, match=r"cudaErrorInsufficientDriver.*install an NVIDIA driver for CUDA 12 or 13|no GPU"
    ):
        count_devices(cuda)
    with pytest.raises(DeviceError):
        CudaBackend(0)
    with pytest.raises(DeviceError, match=r"asked to load its driver: .*libcuda"):
        cuda_driver.driver_calls()


def test_cupy_s_nvrtc_compiles_the_kernels_without_a_card(cuda):
    plan = plan_small(CLOCK)
    try:
        image = compile_image(cuda, plan.source, plan.options, (9, 0))
    except DeviceError as error:
        if "install NVRTC" in str(error):
            pytest.skip("no NVRTC is installed for this CuPy")
        raise
    assert image.startswith(b"\x7fELF")
    with pytest.raises(DeviceError, match=r"(?s)NVRTC refuses the kernels .*penstock.cu\(1\): error"):
        compile_image(cuda, "nonsense", (), (9, 0))
