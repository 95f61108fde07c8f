"""What stands between us and the CUDA driver: CuPy's modules, errors as sentences, NVRTC, and C functions by address.

    cuda = import_cuda()                     CuPy's runtime, driver, nvrtc and Stream; DeviceError where it is missing
    with asked("take memory"): ...           whatever CUDA, CuPy or the loader raises becomes one DeviceError

CuPy is used for what it binds, one CUDA call each. Its RawModule is not: it appends ``-ftz=true`` to every
compilation (CuPy 13 and 14, ``cupy/cuda/compiler.py``), which turns the smallest float32 into 0, and the CPU kernels don't.
So a kernel is compiled by CuPy's NVRTC and loaded by CuPy's driver, with our options and no others. That also needs no
header of CUDA: a driver and the NVRTC library are enough.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock_daemon.device.backend import DeviceError

LEAST_CAPABILITY: Final = (8, 0)
LIBRARY: Final = "libcuda.so.1"
EXTRAS: Final = "pip install 'penstock[cuda13]', or 'penstock[cuda12]' where the driver is of CUDA 12"

# Errors of CUDA that an operator can mend; the runtime and the driver number these alike.
_MENDS: Final = {
    2: "lower models.units_max, models.slots or sessions.states_max, or free memory of the GPU",
    35: "install an NVIDIA driver for CUDA 12 or 13",
    46: "another process has the GPU for itself; stop it, or name another GPU",
    100: "check with nvidia-smi that the driver sees a GPU",
    101: "name a GPU that is there",
    209: "install the CUDA extra that fits the driver",
    214: "the GPU's memory has an error that can't be corrected; see nvidia-smi -q",
    700: "report this; the GPU is unusable until the daemon starts again",
    719: "report this; the GPU is unusable until the daemon starts again",
    803: "the driver's libraries and its kernel module differ; restart the host",
    804: "install an NVIDIA driver for CUDA 12 or 13",
}
_ANY_MEND: Final = 'the log of the kernel (dmesg) may say more; set engine.device = "cpu" to go without'
_IN_WHEELS: Final = {13: "cu13/lib", 12: "cuda_nvrtc/lib"}  # Below the package nvidia.


@dataclass(frozen=True)
class Cuda:
    """CuPy's bindings: modules, as both of its supported versions have them."""

    runtime: Any
    driver: Any
    nvrtc: Any
    stream_type: Any
    version: str


def import_cuda() -> Cuda:
    """Import CuPy.

    Raises:
        DeviceError: it is missing, or can't be imported.
    """
    # A kernel that never ends must keep nobody waiting: not who launches it, nor other streams, nor one that is loaded late.
    for name in ("CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS"):
        os.environ.pop(name, None)
    os.environ["CUDA_MODULE_LOADING"] = "EAGER"
    try:
        import cupy
        from cupy.cuda import Stream, driver, nvrtc, runtime
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] == "cupy":
            raise DeviceError(f"CuPy is not installed; install it with: {EXTRAS}") from None
        raise DeviceError(f"CuPy can't be imported ({_one_line(error)}); install it anew with: {EXTRAS}") from error
    return Cuda(runtime, driver, nvrtc, Stream, str(cupy.__version__))


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Turn what CUDA or CuPy raises inside into a DeviceError that says what was asked of the GPU."""
    try:
        yield
    except DeviceError:
        raise
    except (RuntimeError, OSError, MemoryError) as error:
        status = getattr(error, "status", None)
        mend = _MENDS.get(status, _ANY_MEND) if isinstance(status, int) else _ANY_MEND
        if status is None and "libnvrtc" in str(error):
            mend = f"install NVRTC with: {EXTRAS}"
        elif status is None and "libcuda" in str(error):
            mend = _MENDS[35]
        raise DeviceError(f"the GPU was asked to {what}: {_one_line(error)}; {mend}") from error


def count_devices(cuda: Cuda) -> int:
    """Return how many GPUs there are.

    Raises:
        DeviceError: no driver, or it has none.
    """
    with asked("say how many there are"):
        count = int(cuda.runtime.getDeviceCount())
    if count < 1:
        raise DeviceError(f"the driver sees no GPU; {_MENDS[100]}")
    return count


def compile_image(cuda: Cuda, source: str, options: Sequence[str], capability: tuple[int, int]) -> bytes:
    """Compile a self-contained *source* and return what the driver loads: machine code for *capability*.

    A card that is newer than NVRTC gets the newest intermediate code there is, which the driver translates.

    Raises:
        DeviceError: NVRTC is missing, or refuses the source; its log is in the sentence.
    """
    nvrtc = cuda.nvrtc
    _find_nvrtc(cuda)
    with asked("be compiled for"):
        flag, ready = _target(nvrtc.getSupportedArchs(), capability)
        program = nvrtc.createProgram(source, "penstock.cu", (), ())
        try:
            nvrtc.compileProgram(program, (flag, *options))
            image = nvrtc.getCUBIN(program) if ready else nvrtc.getPTX(program)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program).strip()
            raise DeviceError(f"NVRTC refuses the kernels ({error}, {flag}); report this:\n{log}") from error
        finally:
            nvrtc.destroyProgram(program)
    return bytes(image)


def _target(supported: Sequence[int], capability: tuple[int, int]) -> tuple[str, bool]:
    """Return NVRTC's option for the card, and whether it gives machine code."""
    number = 10 * capability[0] + capability[1]
    if number in supported:
        return f"--gpu-architecture=sm_{number}", True
    older = [one for one in supported if one < number]
    if not older:
        raise DeviceError(f"this NVRTC compiles for no GPU of compute capability {capability[0]}.{capability[1]}")
    return f"--gpu-architecture=compute_{max(older)}", False


def _find_nvrtc(cuda: Cuda) -> None:
    """Load NVRTC where CuPy does not find it by itself: CuPy 13 looks in the loader's folders alone, not into wheels."""
    try:
        cuda.nvrtc.getVersion()
    except (RuntimeError, OSError):
        for library in _nvrtc_libraries(int(cuda.driver.get_build_version()) // 1000):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library))  # What asks for it by its name gets this one from now on.
                return


def _nvrtc_libraries(major: int) -> Iterator[Path]:
    """Yield where NVRTC of CUDA *major* is installed: wheels first, then toolkits."""
    package = importlib.util.find_spec("nvidia")
    folders = [
        Path(root) / _IN_WHEELS[major]
        for root in (package.submodule_search_locations or () if package is not None else ())
        if major in _IN_WHEELS
    ]
    toolkits = (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda", f"/usr/local/cuda-{major}")
    folders += [Path(toolkit) / "lib64" for toolkit in toolkits if toolkit]
    yield from (library for folder in folders if (library := folder / f"libnvrtc.so.{major}").is_file())


@dataclass(frozen=True)
class DriverCalls:
    """C functions of the driver, by address.

    Attributes:
        launch: cuGraphLaunch(exec, stream).
        query: cuStreamQuery(stream).
        device_pointer: cuMemHostGetDevicePointer(device address, host address, flags), to be called from Python.
    """

    launch: int
    query: int
    device_pointer: Any


def driver_calls() -> DriverCalls:
    """Return the driver's functions; the names are those that cuda.h maps the calls to.

    Raises:
        DeviceError: there is no driver.
    """
    with asked("load its driver"):
        library = ctypes.CDLL(LIBRARY)
    device_pointer = library.cuMemHostGetDevicePointer_v2
    device_pointer.restype = ctypes.c_int
    device_pointer.argtypes = (ctypes.POINTER(ctypes.c_uint64), ctypes.c_void_p, ctypes.c_uint)
    return DriverCalls(_address(library.cuGraphLaunch), _address(library.cuStreamQuery), device_pointer)


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None, "a function has an address"
    return address


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
