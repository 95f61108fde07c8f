"""The seam between the engine and a device: what the engine asks of it, and nothing else.

CUDA stands behind it through CuPy (``cuda_backend.py``); the tests put the same kernels, compiled for the host, behind
it. All of this is called before SERVING, or off the engine thread. While ticks flow the engine knows four numbers
alone: the addresses of two C functions and two streams, which its compiled loop calls.

    launch(exec, stream) -> 0, or an error       cuGraphLaunch
    query(stream)        -> 0 done, NOT_READY, or an error      cuStreamQuery
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from numpy.typing import NDArray

NOT_READY: Final = 600  # CUDA_ERROR_NOT_READY: work is under way.


class DeviceError(Exception):
    """The device can't be had, or has failed; the sentence says what was asked of it and the mend."""


@dataclass(frozen=True)
class DeviceFacts:
    """Who the device is and what it has.

    Attributes:
        name: as the vendor prints it.
        architecture: such as ``sm_90``.
        index: among the devices of this process.
        bus_id: PCI address, by which NVML finds it; empty for none.
        multiprocessors: blocks that are sure to be resident at once, one each.
        shared_bytes_max: dynamic shared memory that one block may opt in to.
        memory_bytes: of the device.
        driver: version, such as ``13.0``.
    """

    name: str
    architecture: str
    index: int
    bus_id: str
    multiprocessors: int
    shared_bytes_max: int
    memory_bytes: int
    driver: str


@dataclass(frozen=True)
class PinnedMemory:
    """Page-locked host memory that the device reads and writes in place.

    Attributes:
        bytes: shape (size,), uint8, zeroed, 4096-byte aligned.
        device_address: where the device sees its first byte.
    """

    bytes: NDArray[Any]
    device_address: int


@dataclass(frozen=True)
class LaunchShape:
    """A launch's size: blocks, threads of each, and dynamic shared memory of each, in bytes."""

    blocks: int
    threads: int
    shared_bytes: int


@dataclass(frozen=True)
class Copy:
    """A copy inside a graph; one side is pinned host memory, the other device memory, both as addresses."""

    destination: int
    source: int
    size_bytes: int
    to_device: bool


@dataclass
class DeviceCounters:
    """What must stand still once the engine serves.

    Attributes:
        eager_launches: kernels launched one by one, not by a graph.
        allocations: of device memory and of pinned memory.
    """

    eager_launches: int = 0
    allocations: int = 0


class DeviceBackend(Protocol):
    """A device and its memory; every method raises DeviceError where the device refuses."""

    facts: DeviceFacts
    counters: DeviceCounters
    launch_address: int
    query_address: int
    stream: int
    resident_stream: int  # Of the resident kernel alone: graphs go on beside it.

    def enter_thread(self) -> None:
        """Make the calling thread one that may launch; once per thread."""

    def build(self, source: str, options: Sequence[str], name: str, shared_bytes: int) -> Any:
        """Compile *source* for this device and return its kernel *name*, opted in to *shared_bytes* of shared memory."""

    def page_lock(self, address: int, size_bytes: int) -> int:
        """Page-lock existing host memory, in whole pages, until ``close``; returns its address on the device."""

    def take_pinned(self, size_bytes: int) -> PinnedMemory:
        """Return new pinned memory, valid until ``close``."""

    def take(self, size_bytes: int) -> int:
        """Return the address of new device memory, zeroed, 256-byte aligned, valid until ``close``."""

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous host array to device memory and wait for it; never from the engine thread."""

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Overwrite a contiguous host array with device memory and wait for it."""

    def launch(self, kernel: Any, shape: LaunchShape, arguments: Sequence[int]) -> None:
        """Launch a kernel at once, on ``stream``, and do not wait; counted as eager. The resident one has its own stream."""

    def capture(
        self,
        kernel: Any,
        shape: LaunchShape,
        arguments: Sequence[int],
        copies_in: Sequence[Copy] = (),
        copies_out: Sequence[Copy] = (),
    ) -> int:
        """Capture copies in, one launch, and copies out into a graph; returns what ``launch`` at its address takes."""

    def synchronize(self) -> None:
        """Wait for ``stream``."""

    def clock_ns(self) -> tuple[int, int, int]:
        """Read the device's clock once: host monotonic ns before, device ns, host monotonic ns after."""

    def close(self) -> None:
        """Give everything back; nothing may run. After a fault the device may refuse, which is not an error here."""
