"""The device backend of the tests: the CUDA kernels run on this host, on real memory, by a thread of their own.

As on a GPU: a launch returns at once and is done in order, memory that the device shares with the host has another
address there, the device's clock has another zero, a thread must enter before it launches, and an error is for ever.
Beyond a GPU: memory is guarded on both sides, shared memory starts as NaN, and threads can run in another order.

    with host_device() as device: ...
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from ctypes import c_char_p, c_int, c_int32, c_int64, c_void_p
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
from support.host_compiler import RACES, compile_kernels, compile_runtime

SHARED_BYTES_MAX: Final = 227 * 1024  # Of a Hopper card.
RESIDENT: Final = "penstock_resident"  # Its blocks run together, one OS thread each.
LOST: Final = 700  # CUDA_ERROR_ILLEGAL_ADDRESS.
SYNCHRONIZE_S: Final = 10.0
CLOSE_S: Final = 5.0
FIRST_TO_LAST, LAST_TO_FIRST, SHUFFLED = 0, 1, 977  # The order of a block's threads; another number shuffles otherwise.

_GUARD_BYTES: Final = 256
_GUARD: Final = 0xA5
_FAIL_LAUNCH, _HANG, _DIE = 1, 2, 3


@functools.cache
def _runtime() -> Any:
    library = ctypes.CDLL(str(compile_runtime()))
    words = ctypes.POINTER(c_int64)
    for name, result, arguments in (
        ("shim_enter_thread", None, ()),
        ("shim_open", c_void_p, (c_int32,)),
        ("shim_close", c_int, (c_void_p, c_int64)),
        (
            "shim_exec_new",
            c_void_p,
            (c_void_p, c_void_p, c_int32, c_int32, c_int64, c_int32, words, c_int32, words, c_int32, words, c_int32),
        ),
        ("shim_exec_free", None, (c_void_p,)),
        ("shim_launch", c_int, (c_void_p, c_void_p)),
        ("shim_query", c_int, (c_void_p,)),
        ("shim_synchronize", c_int, (c_void_p, c_int64)),
        ("shim_launches", c_int64, (c_void_p,)),
        ("shim_message", c_char_p, (c_void_p,)),
        ("shim_clock_ns", c_int64, ()),
        ("shim_set_order", None, (c_void_p, c_int32)),
        ("shim_delay", None, (c_void_p, c_int64)),
        ("shim_inject", None, (c_void_p, c_int32, c_int32, c_int64)),
        ("shim_lose", None, (c_void_p, c_int32)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@dataclass(frozen=True)
class HostKernel:
    """A kernel of a compiled text: its address, that of the text's block runner, and what it was built for."""

    name: str
    address: int
    run_block: int
    shared_bytes: int


def _address(function: Any) -> int:
    address = ctypes.cast(function, c_void_p).value
    assert address is not None
    return address


def _words(values: Sequence[int]) -> Any:
    return (c_int64 * max(len(values), 1))(*[ctypes.c_int64(value).value for value in values])


def _copy_words(copies: Sequence[Copy]) -> Any:
    return _words([word for copy in copies for word in (copy.destination, copy.source, copy.size_bytes)])


class HostDevice:
    """A device on this host; see the top of this file.

    Launches left over when it closes are ended at their next barrier or pause.
    """

    def __init__(
        self,
        *,
        multiprocessors: int = 4,
        shared_bytes_max: int = SHARED_BYTES_MAX,
        order: int = FIRST_TO_LAST,
        races: bool = False,
    ) -> None:
        self._options = (RACES,) if races else ()
        self._library = _runtime()
        self._library.shim_enter_thread()
        self._stream: int = self._library.shim_open(order)
        self._resident: int = self._library.shim_open(order)
        self._closed = False
        self._execs: list[int] = []
        self._taken: list[tuple[NDArray[Any], int, int]] = []
        self._pinned: list[tuple[mmap.mmap, mmap.mmap]] = []
        self._locked: list[tuple[int, int]] = []
        self.facts = DeviceFacts(
            name="host shim",
            architecture="host",
            index=0,
            bus_id="",
            multiprocessors=multiprocessors,
            shared_bytes_max=shared_bytes_max,
            memory_bytes=4 << 30,
            driver="0.0",
        )
        self.counters = DeviceCounters()
        self.launch_address = _address(self._library.shim_launch)
        self.query_address = _address(self._library.shim_query)
        self.stream = self._stream
        self.resident_stream = self._resident

    # --- As DeviceBackend says ------------------------------------------------------------------------------------------

    def enter_thread(self) -> None:
        self._library.shim_enter_thread()

    def build(self, source: str, options: Sequence[str], name: str, shared_bytes: int) -> HostKernel:
        if shared_bytes > self.facts.shared_bytes_max:
            raise DeviceError(
                f"kernel {name}: shared_bytes must be at most {self.facts.shared_bytes_max}, was {shared_bytes}"
            )
        try:
            library = ctypes.CDLL(str(compile_kernels(source, (*options, *self._options))))
        except RuntimeError as exc:
            raise DeviceError(str(exc)) from exc
        if not hasattr(library, name):
            raise DeviceError(f"the source has no kernel named {name}; declare it extern C")
        return HostKernel(name, _address(getattr(library, name)), _address(library.shim_run_block), shared_bytes)

    def page_lock(self, address: int, size_bytes: int) -> int:
        if address % mmap.PAGESIZE or size_bytes % mmap.PAGESIZE or size_bytes <= 0:
            raise DeviceError(f"page_lock takes whole pages: address={address:#x}, size_bytes={size_bytes}")
        if any(address < end and start < address + size_bytes for start, end in self._locked):
            raise DeviceError(f"already page-locked: address={address:#x}, size_bytes={size_bytes}")
        self._locked.append((address, address + size_bytes))
        return address

    def take_pinned(self, size_bytes: int) -> PinnedMemory:
        size_bytes_mapped = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("pinned")
        try:
            os.ftruncate(descriptor, size_bytes_mapped)
            of_host, of_device = (mmap.mmap(descriptor, size_bytes_mapped) for _ in range(2))
        finally:
            os.close(descriptor)
        self._pinned.append((of_host, of_device))
        self.counters.allocations += 1
        view = np.frombuffer(of_host, np.uint8, size_bytes)
        return PinnedMemory(view, np.frombuffer(of_device, np.uint8).ctypes.data)

    def take(self, size_bytes: int) -> int:
        buffer = np.zeros(size_bytes + 2 * _GUARD_BYTES + 256, np.uint8)
        start = -(buffer.ctypes.data + _GUARD_BYTES) % 256 + _GUARD_BYTES
        buffer[:start] = buffer[start + size_bytes :] = _GUARD
        self._taken.append((buffer, start, size_bytes))
        self.counters.allocations += 1
        return int(buffer.ctypes.data) + start

    def upload(self, address: int, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        self._check_span(address, array.nbytes)
        self.synchronize()
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, address: int, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        assert array.flags.writeable
        self._check_span(address, array.nbytes)
        self.synchronize()
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def launch(self, kernel: Any, shape: LaunchShape, arguments: Sequence[int]) -> None:
        self.counters.eager_launches += 1
        stream = self._resident if kernel.name == RESIDENT else self._stream
        code = self._library.shim_launch(self._exec(kernel, shape, arguments, (), ()), stream)
        if code:
            raise DeviceError(f"launch of {kernel.name} failed: code={code} {self.message()}")

    def capture(
        self,
        kernel: Any,
        shape: LaunchShape,
        arguments: Sequence[int],
        copies_in: Sequence[Copy] = (),
        copies_out: Sequence[Copy] = (),
    ) -> int:
        for copy in copies_in:
            assert copy.to_device
            self._check_span(copy.destination, copy.size_bytes)
        for copy in copies_out:
            assert not copy.to_device
            self._check_span(copy.source, copy.size_bytes)
        return self._exec(kernel, shape, arguments, copies_in, copies_out)

    def synchronize(self) -> None:
        code = self._library.shim_synchronize(self._stream, int(SYNCHRONIZE_S * 1e9))
        if code == NOT_READY:
            raise DeviceError(f"the device did not finish within {SYNCHRONIZE_S:g} s")
        if code:
            raise DeviceError(f"the device failed: code={code} {self.message()}")

    def clock_ns(self) -> tuple[int, int, int]:
        before = time.monotonic_ns()
        of_device = int(self._library.shim_clock_ns())
        return before, of_device, time.monotonic_ns()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        left = [self._library.shim_close(stream, int(CLOSE_S * 1e9)) for stream in (self._resident, self._stream)]
        assert not any(left), (
            "a kernel comes to no barrier and no pause, and can't be ended: does it spin without pause_ns?"
        )
        for exec_address in self._execs:
            self._library.shim_exec_free(exec_address)

    # --- What only the tests ask --------------------------------------------------------------------------------------

    def message(self) -> str:
        """Return the sentence of the first error, empty for none."""
        return str(self._library.shim_message(self._stream).decode())

    def launches(self) -> int:
        """Return how many launches were taken on, by graph or not."""
        return int(self._library.shim_launches(self._stream))

    def set_order(self, order: int) -> None:
        """Run the threads of later blocks in another order."""
        for stream in (self._stream, self._resident):
            self._library.shim_set_order(stream, order)

    def fail_launch(self, code: int = LOST, *, after: int = 0) -> None:
        """Let *after* launches go well; the next returns *code* and does nothing."""
        self._library.shim_inject(self._stream, _FAIL_LAUNCH, code, after)

    def hang(self, *, after: int = 0) -> None:
        """Let *after* launches go well; the next never completes."""
        self._library.shim_inject(self._stream, _HANG, 0, after)

    def die(self, code: int = LOST, *, after: int = 0) -> None:
        """Let *after* launches go well; the next dies, and every call returns *code* from then on."""
        self._library.shim_inject(self._stream, _DIE, code, after)

    def lose(self, code: int = LOST) -> None:
        """Lose the device now, whatever runs on it."""
        for stream in (self._stream, self._resident):
            self._library.shim_lose(stream, code)

    def delay(self, span_ns: int) -> None:
        """Begin later launches so much later; 0 ends that."""
        self._library.shim_delay(self._stream, span_ns)

    def overruns(self) -> list[str]:
        """Return a sentence for each device allocation that was written outside its bounds."""
        found = []
        for buffer, start, size_bytes in self._taken:
            before, after = buffer[:start], buffer[start + size_bytes :]
            if (before != _GUARD).any() or (after != _GUARD).any():
                found.append(f"device memory of {size_bytes} bytes was written outside its bounds")
        return found

    def _check_span(self, address: int, size_bytes: int) -> None:
        for buffer, start, size_bytes_taken in self._taken:
            first = buffer.ctypes.data + start
            if first <= address and address + size_bytes <= first + size_bytes_taken:
                return
        raise DeviceError(f"not in device memory: address={address:#x}, size_bytes={size_bytes}")

    def _exec(
        self,
        kernel: HostKernel,
        shape: LaunchShape,
        arguments: Sequence[int],
        copies_in: Sequence[Copy],
        copies_out: Sequence[Copy],
    ) -> int:
        if shape.shared_bytes > kernel.shared_bytes:
            raise DeviceError(
                f"kernel {kernel.name} was built for {kernel.shared_bytes} bytes of shared memory,"
                f" launched with {shape.shared_bytes}"
            )
        made = self._library.shim_exec_new(
            kernel.run_block,
            kernel.address,
            shape.blocks,
            shape.threads,
            shape.shared_bytes,
            kernel.name == RESIDENT,
            _words(arguments),
            len(arguments),
            _copy_words(copies_in),
            len(copies_in),
            _copy_words(copies_out),
            len(copies_out),
        )
        if not made:
            raise DeviceError(f"the device refuses the launch: {shape}, arguments={len(arguments)}")
        self._execs.append(made)
        return int(made)


@contextlib.contextmanager
def host_device(
    *,
    multiprocessors: int = 4,
    shared_bytes_max: int = SHARED_BYTES_MAX,
    order: int = FIRST_TO_LAST,
    races: bool = False,
) -> Iterator[HostDevice]:
    """Open a host device; when done, close it and fail if kernels wrote outside its memory.

    With *races* memory that two threads touch between two barriers, one of them writing, is an error of the launch.
    """
    device = HostDevice(multiprocessors=multiprocessors, shared_bytes_max=shared_bytes_max, order=order, races=races)
    try:
        yield device
    finally:
        device.close()
    assert not device.overruns(), device.overruns()
