"""DeviceBackend on an NVIDIA GPU, through CuPy and the driver's own functions.

    stream     of launches and graphs; the engine waits on words in pinned memory, never on it
    copies     a second stream, for uploads, downloads and the clock: they go on while the resident kernel runs on a third

All are non-blocking, so nothing here waits for the default stream, and nothing synchronises the device. Copies go
through a pinned buffer: copying pageable memory has waits of the driver's own. A call may come from any thread.

A copy waits for the kernels that ``launch`` started before it, but for the resident one. A graph that was launched by
address is not waited for: its completion word says when it is done.

This has not run on a card where this line still stands; what needs no card is tested without one.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.device.backend import (
    NOT_READY,
    Copy,
    DeviceCounters,
    DeviceError,
    DeviceFacts,
    LaunchShape,
    PinnedMemory,
)
from penstock_daemon.device.cuda_driver import (
    LEAST_CAPABILITY,
    Cuda,
    DriverCalls,
    asked,
    compile_image,
    count_devices,
    driver_calls,
    import_cuda,
)
from penstock_kernels.cuda.layout import ARGUMENTS, DONE_CLOCK_NS, DONE_WORDS
from penstock_kernels.cuda.source import CLOCK, RESIDENT, plan_small

PAGE_BYTES: Final = 4096
_PORTABLE_MAPPED: Final = 1 | 2  # Of cudaHostAlloc and of cudaHostRegister: any context, and seen by the device.
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind.
_SHARED_BYTES: Final = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
_THREAD_LOCAL: Final = 1  # cudaStreamCaptureModeThreadLocal: other threads may do what they like meanwhile.
_CAPABILITY: Final = (75, 76)  # cudaDeviceAttr: major, minor.
_MULTIPROCESSORS: Final = 16
_SHARED_OPTIN: Final = 97
_BOUNCE_BYTES: Final = 1024 * 1024
_CLOCK_S: Final = 1.0  # How long the clock kernel may take.
_CLOSE_S: Final = 2.0  # How long work under way may take to end.
_ABANDONED: Final[list[Any]] = []  # What could not be given back.


@dataclass(frozen=True)
class CudaKernel:
    """A kernel that is loaded: CUfunction and CUmodule, and whether it runs until it is told to stop."""

    name: str
    function: int
    module: int
    shared_bytes: int

    @property
    def endless(self) -> bool:
        """Whether nobody may wait for it."""
        return self.name == RESIDENT


class LaunchWords:
    """Arguments of a launch as CUDA takes them, words and the address of each; it reads them during the call alone."""

    def __init__(self, arguments: Sequence[int]) -> None:
        self.words = np.array([argument & 0xFFFF_FFFF_FFFF_FFFF for argument in arguments], np.uint64)
        self.pointers = np.arange(len(arguments), dtype=np.uint64) * np.uint64(8) + np.uint64(self.words.ctypes.data)

    @property
    def address(self) -> int:
        """What cuLaunchKernel takes as its parameters."""
        return int(self.pointers.ctypes.data)


class CudaBackend:
    """A GPU and its memory; see DeviceBackend.

    Args:
        index: of the GPU, as CUDA counts them.
        cuda, calls: CuPy's bindings and the driver's functions; None for those that are installed.

    Raises:
        DeviceError: CuPy, the driver or the GPU is missing or too old; the sentence says what to do.
    """

    def __init__(self, index: int = 0, cuda: Cuda | None = None, calls: DriverCalls | None = None) -> None:
        cuda = self._cuda = cuda or import_cuda()
        count = count_devices(cuda)
        if not 0 <= index < count:
            here = "this host has 1, cuda:0" if count == 1 else f"this host has {count}, cuda:0 to cuda:{count - 1}"
            raise DeviceError(f"there is no GPU of index {index}: {here}")
        self._index = index
        calls = calls or driver_calls()
        self.counters = DeviceCounters()
        self.launch_address, self.query_address = calls.launch, calls.query
        self._device_pointer = calls.device_pointer
        self._context = 0
        with asked("begin"):
            cuda.runtime.setDevice(index)
            self.facts = self._ask_facts()
        self._check_capability()
        with asked("make its streams"):
            self._stream = cuda.stream_type(non_blocking=True)
            self.stream = int(self._stream.ptr)
            flags = cuda.runtime.streamNonBlocking
            self._copies, self.resident_stream = (int(cuda.runtime.streamCreateWithFlags(flags)) for _ in range(2))
            self._context = int(cuda.driver.ctxGetCurrent())
        self._pending = False  # Something that ``launch`` started may still run.
        self._copying = threading.Lock()  # Of the pinned buffer that copies go through.
        self._graphs: list[Any] = []
        self._images: dict[tuple[str, tuple[str, ...]], bytes] = {}
        self._modules: list[int] = []
        self._taken: list[int] = []
        self._pinned: list[int] = []
        self._locked: list[int] = []
        self._clock: tuple[int, NDArray[np.int64]] | None = None  # Its graph, and its words.
        self._closed = False
        self._bounce = self.take_pinned(_BOUNCE_BYTES).bytes

    def _ask_facts(self) -> DeviceFacts:
        runtime = self._cuda.runtime
        major, minor = (int(runtime.deviceGetAttribute(one, self._index)) for one in _CAPABILITY)
        name = runtime.getDeviceProperties(self._index)["name"]
        version = int(runtime.driverGetVersion())
        return DeviceFacts(
            name=name.decode(errors="replace") if isinstance(name, bytes) else str(name),
            architecture=f"sm_{major}{minor}",
            index=self._index,
            bus_id=str(runtime.deviceGetPCIBusId(self._index)),
            multiprocessors=int(runtime.deviceGetAttribute(_MULTIPROCESSORS, self._index)),
            shared_bytes_max=int(runtime.deviceGetAttribute(_SHARED_OPTIN, self._index)),
            memory_bytes=int(runtime.memGetInfo()[1]),
            driver=f"{version // 1000}.{version % 1000 // 10}",
        )

    def _check_capability(self) -> None:
        if self._capability < LEAST_CAPABILITY:
            raise DeviceError(
                f"{self.facts.name} is too old: compute capability {self._capability[0]}.{self._capability[1]}, at least "
                f"{LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]} is needed; name another GPU, or none"
            )

    @property
    def _capability(self) -> tuple[int, int]:
        digits = self.facts.architecture.removeprefix("sm_")
        return int(digits[:-1]), int(digits[-1])

    def enter_thread(self) -> None:
        """Make the calling thread one that may launch; once per thread."""
        with asked("take another thread"):
            self._enter()

    def _enter(self) -> None:
        self._cuda.runtime.setDevice(self._index)
        self._cuda.driver.ctxSetCurrent(self._context)

    # --- Kernels --------------------------------------------------------------------------------------------------

    def build(self, source: str, options: Sequence[str], name: str, shared_bytes: int) -> CudaKernel:
        """Compile *source* for this GPU and load its kernel *name*, opted in to so much shared memory."""
        if shared_bytes > self.facts.shared_bytes_max:
            raise DeviceError(
                f"kernel {name}: shared_bytes must be at most {self.facts.shared_bytes_max}, was {shared_bytes}"
            )
        driver = self._cuda.driver
        text = (source, tuple(options))
        if text not in self._images:  # The trial compiles what the engine then serves with.
            self._images[text] = compile_image(self._cuda, source, options, self._capability)
        image = self._images[text]
        with asked(f"load kernel {name}"):
            self._enter()
            module = int(driver.moduleLoadData(image))
            self._modules.append(module)
            function = int(driver.moduleGetFunction(module, name))
            driver.funcSetAttribute(function, _SHARED_BYTES, shared_bytes)
        return CudaKernel(name, function, module, shared_bytes)

    def launch(self, kernel: CudaKernel, shape: LaunchShape, arguments: Sequence[int]) -> None:
        """Launch a kernel at once, on ``stream``, and do not wait; counted as eager. The resident one has its own stream."""
        self.counters.eager_launches += 1
        with asked(f"launch {kernel.name}"):
            self._enter()
            self._launch(kernel, shape, arguments, self.resident_stream if kernel.endless else self.stream)
        self._pending |= not kernel.endless

    def _launch(self, kernel: CudaKernel, shape: LaunchShape, arguments: Sequence[int], stream: int) -> None:
        words = LaunchWords(arguments)
        self._cuda.driver.launchKernel(
            kernel.function, shape.blocks, 1, 1, shape.threads, 1, 1, shape.shared_bytes, stream, words.address, 0
        )

    def capture(
        self,
        kernel: CudaKernel,
        shape: LaunchShape,
        arguments: Sequence[int],
        copies_in: Sequence[Copy] = (),
        copies_out: Sequence[Copy] = (),
    ) -> int:
        """Capture copies in, one launch, and copies out into a graph; returns what ``launch`` at its address takes.

        The kernel must have been launched once before, so that nothing of it is loaded while it is captured.
        """
        with asked(f"capture a graph of {kernel.name}"):
            self._enter()
            self._stream.begin_capture(_THREAD_LOCAL)
            try:
                self._copy_all(copies_in)
                self._launch(kernel, shape, arguments, self.stream)
                self._copy_all(copies_out)
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    self._stream.end_capture()  # Else the stream takes nothing more.
                raise
            graph = self._stream.end_capture()
            self._graphs.append(graph)  # A graph that is forgotten is destroyed.
            graph.upload(self._stream)
            self._cuda.runtime.streamSynchronize(self.stream)
        return int(graph.graphExec)

    def _copy_all(self, copies: Sequence[Copy]) -> None:
        for copy in copies:
            kind = _TO_DEVICE if copy.to_device else _TO_HOST
            self._cuda.runtime.memcpyAsync(copy.destination, copy.source, copy.size_bytes, kind, self.stream)

    # --- Memory ---------------------------------------------------------------------------------------------------

    def page_lock(self, address: int, size_bytes: int) -> int:
        """Page-lock existing host memory, in whole pages, until ``close``; returns its address on the device."""
        if address % PAGE_BYTES or size_bytes % PAGE_BYTES or size_bytes <= 0:
            raise DeviceError(f"page_lock takes whole pages: address={address:#x}, size_bytes={size_bytes}")
        with asked(f"page-lock {size_bytes} bytes"):
            self._enter()
            self._cuda.runtime.hostRegister(address, size_bytes, _PORTABLE_MAPPED)
        self._locked.append(address)
        return self._seen_at(address)

    def take_pinned(self, size_bytes: int) -> PinnedMemory:
        """Return new pinned memory, valid until ``close``."""
        mapped_bytes = size_bytes + PAGE_BYTES  # A small one may begin anywhere in a page.
        with asked(f"take {mapped_bytes} bytes of pinned memory"):
            self._enter()
            address = int(self._cuda.runtime.hostAlloc(mapped_bytes, _PORTABLE_MAPPED))
        self._pinned.append(address)
        self.counters.allocations += 1
        skipped = -address % PAGE_BYTES
        view = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address + skipped))
        view[:] = 0
        return PinnedMemory(view, self._seen_at(address) + skipped)

    def _seen_at(self, address: int) -> int:
        """Return where the device sees page-locked memory: the same address, but for systems that can't do that."""
        seen = ctypes.c_uint64()
        status = self._device_pointer(ctypes.byref(seen), address, 0)
        if status != 0:
            raise DeviceError(f"the GPU does not see page-locked host memory: error {status} of the driver")
        return int(seen.value)

    def take(self, size_bytes: int) -> int:
        """Return the address of new device memory, zeroed, 256-byte aligned, valid until ``close``."""
        runtime = self._cuda.runtime
        with asked(f"take {size_bytes} bytes of its memory"):
            self._enter()
            address = int(runtime.malloc(max(size_bytes, 1)))
            self._taken.append(address)
            runtime.memsetAsync(address, 0, max(size_bytes, 1), self._copies)
            runtime.streamSynchronize(self._copies)
        self.counters.allocations += 1
        return address

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous host array to device memory and wait for it; never from the engine thread."""
        assert array.flags.c_contiguous, "upload takes contiguous arrays"
        self._copy(address, array.reshape(-1).view(np.uint8), _TO_DEVICE)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Overwrite a contiguous host array with device memory and wait for it."""
        assert array.flags.c_contiguous, "download takes contiguous arrays"
        assert array.flags.writeable, "download overwrites its array"
        self._copy(address, array.reshape(-1).view(np.uint8), _TO_HOST)

    def _copy(self, address: int, host: NDArray[np.uint8], kind: int) -> None:
        runtime, bounce = self._cuda.runtime, int(self._bounce.ctypes.data)
        with self._copying, asked("copy memory"):
            self._enter()
            self._settle()
            for first in range(0, len(host), _BOUNCE_BYTES):
                part = host[first : first + _BOUNCE_BYTES]
                if kind == _TO_DEVICE:
                    self._bounce[: len(part)] = part
                    runtime.memcpyAsync(address + first, bounce, len(part), kind, self._copies)
                    runtime.streamSynchronize(self._copies)
                else:
                    runtime.memcpyAsync(bounce, address + first, len(part), kind, self._copies)
                    runtime.streamSynchronize(self._copies)
                    part[:] = self._bounce[: len(part)]

    # --- Waiting --------------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Wait for ``stream``."""
        with asked("finish"):
            self._enter()
            self._cuda.runtime.streamSynchronize(self.stream)
        self._pending = False

    def _settle(self) -> None:
        """Wait for what ``launch`` started."""
        if self._pending:
            self._cuda.runtime.streamSynchronize(self.stream)
            self._pending = False

    def clock_ns(self) -> tuple[int, int, int]:
        """Read the device's clock once: host monotonic ns before, device ns, host monotonic ns after.

        A graph does it, so that a daemon that serves may read it again without an eager launch. The first call makes the
        graph: before a resident kernel starts.
        """
        with self._copying, asked("read its clock"):
            self._enter()
            if self._clock is None:
                self._clock = self._make_clock()
            graph, words = self._clock
            words[DONE_CLOCK_NS] = 0
            before_ns = time.monotonic_ns()
            self._cuda.runtime.graphLaunch(graph, self._copies)
            deadline_ns = before_ns + int(_CLOCK_S * 1e9)
            while words[DONE_CLOCK_NS] == 0:
                if time.monotonic_ns() > deadline_ns:
                    raise DeviceError(f"the GPU did not read its clock within {_CLOCK_S:g} s")
            after_ns = time.monotonic_ns()
            self._cuda.runtime.streamSynchronize(self._copies)
        return before_ns, int(words[DONE_CLOCK_NS]), after_ns

    def _make_clock(self) -> tuple[int, NDArray[np.int64]]:
        plan = plan_small(CLOCK)
        kernel = self.build(plan.source, plan.options, plan.name, plan.shared_bytes)
        shape = LaunchShape(1, plan.threads, plan.shared_bytes)
        memory = self.take_pinned(DONE_WORDS * 8)
        arguments = [memory.device_address if name == "done" else 0 for name in ARGUMENTS]  # It looks at nothing else.
        self.launch(kernel, shape, arguments)
        self._settle()
        return self.capture(kernel, shape, arguments), memory.bytes.view(np.int64)

    # --- The end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give everything back; nothing may run. After a fault the device may refuse, which is not an error here.

        What still runs after two seconds keeps its memory, until the process ends: freeing it would wait for ever.
        Arrays of pinned memory must not be touched any more.
        """
        if self._closed:
            return
        self._closed, runtime, driver = True, self._cuda.runtime, self._cuda.driver
        refused = contextlib.suppress(RuntimeError)
        with refused:
            self._enter()
        if self._busy():
            _ABANDONED.extend((self._graphs, self._stream))  # So that they are not destroyed either.
            return
        self._graphs.clear()
        for give_back, parts in (
            (driver.moduleUnload, self._modules),
            (runtime.hostUnregister, self._locked),
            (runtime.freeHost, self._pinned),
            (runtime.free, self._taken),
            (runtime.streamDestroy, [self._copies, self.resident_stream]),
        ):
            for part in parts:
                with refused:
                    give_back(part)
            parts.clear()

    def _busy(self) -> bool:
        """Wait a little for the streams; returns whether work is under way still. After a fault nothing is."""
        deadline_s = time.monotonic() + _CLOSE_S
        query, streams = self._cuda.runtime.streamQuery, (self.stream, self.resident_stream, self._copies)
        while NOT_READY in map(query, streams):
            if time.monotonic() > deadline_s:
                return True
            time.sleep(0.001)
        return False
