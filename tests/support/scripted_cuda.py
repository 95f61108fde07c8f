"""CuPy's bindings as ``cuda_backend`` uses them, on memory of this host: for what leads up to a card, not for kernels.

Every function has the parameters that CuPy 13 and 14 document (a test compares them where CuPy is installed) and
writes its name down. Memory is real, copies copy, and the clock kernel writes a clock; any other launch is only noted.
A call can be told to fail, as CUDA fails.
"""

# ruff: noqa: N802, N803 - CUDA names its functions and parameters.

from __future__ import annotations

import ctypes
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

from penstock_daemon.device.cuda_driver import Cuda, DriverCalls
from penstock_kernels.cuda.layout import ARGUMENTS, DONE_CLOCK_NS

MAPPED_AT = 1 << 40  # Where the device sees host memory, beyond where the host does.
DEVICE_CLOCK_NS = 1_000_000_000_000  # Of the device's clock, beyond the host's.
PAGE_BYTES = 4096


class CudaError(RuntimeError):
    def __init__(self, status: int, name: str) -> None:
        super().__init__(f"{name}: said by a script")
        self.status = status


@dataclass
class ScriptedCuda:
    devices: int = 1
    capability: tuple[int, int] = (9, 0)
    archs: tuple[int, ...] = (80, 90, 120)
    calls: list[str] = field(default_factory=list)
    failures: dict[str, CudaError] = field(default_factory=dict)
    launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    contexts: dict[int, int] = field(default_factory=dict)  # By thread.
    busy: bool = False
    streams: int = 0  # Beside that of the graphs.
    memory: dict[int, object] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    capturing: list | None = None
    graphs: list[list] = field(default_factory=list)
    compiled: list[tuple[str, ...]] = field(default_factory=list)

    def bindings(self) -> Cuda:
        return Cuda(
            SimpleNamespace(streamNonBlocking=1, **self._functions("runtime")),
            SimpleNamespace(**self._functions("driver")),
            SimpleNamespace(NVRTCError=CudaError, **self._functions("nvrtc")),
            self._stream,
            "0",
        )

    def entry_points(self) -> DriverCalls:
        def device_pointer(seen, address, flags):
            assert flags == 0
            seen._obj.value = address + MAPPED_AT
            return 0

        return DriverCalls(launch=11, query=12, device_pointer=device_pointer)

    def fail(self, name: str, status: int, error: str) -> None:
        self.failures[name] = CudaError(status, error)

    def _functions(self, module):
        prefix = f"{module}_"
        return {name.removeprefix(prefix): self._noted(name) for name in dir(self) if name.startswith(prefix)}

    def _noted(self, name):
        function = getattr(self, name)

        def noted(*arguments):
            short = name.partition("_")[2]
            self.calls.append(short)
            if short in self.failures:
                raise self.failures[short]
            return function(*arguments)

        return noted

    # --- Runtime --------------------------------------------------------------------------------------------------------

    def runtime_getDeviceCount(self):
        return self.devices

    def runtime_setDevice(self, device):
        assert 0 <= device < self.devices

    def runtime_deviceGetAttribute(self, attrib, device):
        assert device < self.devices
        return {75: self.capability[0], 76: self.capability[1], 16: 132, 97: 227 * 1024}[attrib]

    def runtime_getDeviceProperties(self, device):
        return {"name": f"Scripted {device}".encode()}

    def runtime_deviceGetPCIBusId(self, device):
        return f"0000:{device:02X}:00.0"

    def runtime_driverGetVersion(self):
        return 13_010

    def runtime_memGetInfo(self):
        return 1 << 30, 2 << 30

    def runtime_streamCreateWithFlags(self, flags):
        assert flags == 1
        self.contexts[threading.get_ident()] = 77
        self.streams += 1
        return 21 + self.streams

    def runtime_streamDestroy(self, stream):
        assert stream in (22, 23)

    def runtime_streamSynchronize(self, stream):
        assert stream in (21, 22)
        assert self.capturing is None or stream != 21, "a stream that is captured can't be waited for"

    def runtime_streamQuery(self, stream):
        return 600 if self.busy and stream == 21 else 0

    def runtime_hostAlloc(self, size, flags):
        assert flags == 3
        page = self._take(512 + size, PAGE_BYTES)
        self.memory[page + 512] = self.memory.pop(page)  # Beside what somebody else took.
        return page + 512

    def runtime_freeHost(self, ptr):
        del self.memory[ptr]

    def runtime_malloc(self, size):
        return self._take(size, 256)

    def runtime_free(self, ptr):
        del self.memory[ptr]

    def runtime_hostRegister(self, ptr, size, flags):
        assert (ptr % PAGE_BYTES, size % PAGE_BYTES, flags) == (0, 0, 3)

    def runtime_hostUnregister(self, ptr):
        assert ptr % PAGE_BYTES == 0

    def runtime_memsetAsync(self, ptr, value, size, stream):
        assert stream in (21, 22)
        ctypes.memset(ptr, value, size)

    def runtime_memcpyAsync(self, dst, src, size, kind, stream):
        assert kind in (1, 2)
        if self.capturing is not None and stream == 21:
            self.capturing.append(("copy", dst, src, size, kind))
        else:
            ctypes.memmove(dst, src, size)

    def runtime_graphLaunch(self, graphExec, stream):
        assert stream in (21, 22)
        for kind, *rest in self.graphs[graphExec - 1]:
            if kind == "launch":
                self._run(*rest)

    # --- Driver ---------------------------------------------------------------------------------------------------------

    def driver_get_build_version(self):
        return 13_020

    def driver_ctxGetCurrent(self):
        return self.contexts.get(threading.get_ident(), 0)

    def driver_ctxSetCurrent(self, ctx):
        self.contexts[threading.get_ident()] = ctx

    def driver_moduleLoadData(self, image):
        self._context()
        assert isinstance(image, bytes)
        return 31

    def driver_moduleGetFunction(self, module, funcname):
        assert module == 31
        self.functions.append(funcname)
        return len(self.functions)

    def driver_moduleUnload(self, module):
        assert module == 31

    def driver_funcSetAttribute(self, f, attribute, value):
        assert attribute == 8
        assert 0 <= value <= 227 * 1024
        assert self.functions[f - 1]

    def driver_launchKernel(
        self,
        f,
        grid_dim_x,
        grid_dim_y,
        grid_dim_z,
        block_dim_x,
        block_dim_y,
        block_dim_z,
        shared_mem_bytes,
        stream,
        kernel_params,
        extra,
    ):
        self._context()
        assert (grid_dim_y, grid_dim_z, block_dim_y, block_dim_z, extra) == (1, 1, 1, 1, 0)
        addresses = (ctypes.c_uint64 * len(ARGUMENTS)).from_address(kernel_params)
        words = tuple(ctypes.c_uint64.from_address(address).value for address in addresses)
        step = self.functions[f - 1], (grid_dim_x, block_dim_x, shared_mem_bytes), words
        if self.capturing is not None and stream == 21:
            self.capturing.append(("launch", *step))
        else:
            self._run(*step)

    # --- NVRTC ----------------------------------------------------------------------------------------------------------

    def nvrtc_getVersion(self):
        return 13, 0

    def nvrtc_getSupportedArchs(self):
        return self.archs

    def nvrtc_createProgram(self, src, name, headers, include_names):
        assert isinstance(src, str)
        assert (name, headers, include_names) == ("penstock.cu", (), ())
        return 41

    def nvrtc_compileProgram(self, prog, options):
        assert prog == 41
        self.compiled.append(tuple(options))

    def nvrtc_getCUBIN(self, prog):
        assert prog == 41
        return b"cubin"

    def nvrtc_getPTX(self, prog):
        assert prog == 41
        return b"ptx"

    def nvrtc_getProgramLog(self, prog):
        assert prog == 41
        return "penstock.cu(1): error: said by a script\n"

    def nvrtc_destroyProgram(self, prog):
        assert prog == 41

    # --- Behind them ----------------------------------------------------------------------------------------------------

    def _stream(self, non_blocking):
        assert non_blocking
        return SimpleNamespace(
            ptr=21, begin_capture=self._noted("stream_begin_capture"), end_capture=self._noted("stream_end_capture")
        )

    def stream_begin_capture(self, mode=None):
        assert mode == 1
        assert self.capturing is None
        self.capturing = []

    def stream_end_capture(self):
        steps, self.capturing = self.capturing, None
        self.graphs.append(steps)
        return SimpleNamespace(
            graphExec=len(self.graphs), upload=lambda stream: self.calls.append(f"upload {stream.ptr}")
        )

    def _context(self):
        assert self.contexts.get(threading.get_ident()) == 77, "this thread has no context"

    def _take(self, size, alignment):
        buffer = ctypes.create_string_buffer(b"\xa5" * (size + alignment), size + alignment)
        address = -(-ctypes.addressof(buffer) // alignment) * alignment
        self.memory[address] = buffer
        return address

    def _run(self, name, shape, words):
        self.launches.append((name, shape, words))
        if name == "penstock_clock":
            done = words[ARGUMENTS.index("done")] - MAPPED_AT
            ctypes.c_int64.from_address(done + 8 * DONE_CLOCK_NS).value = time.monotonic_ns() + DEVICE_CLOCK_NS
