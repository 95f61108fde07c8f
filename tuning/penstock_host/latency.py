"""/dev/cpu_dma_latency: the longest wake-up that the kernel may choose a sleep state for, as long as a file is open.

    with no_sleep_states():         0 us from here ...
        serve()
                                    ... to here; also if the process is killed: the kernel forgets closed files

The daemon holds it while it serves; penstock-tune alone never does, since nothing of its outlives it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock_host.faults import UnreadableError, WriteRefusedError

if TYPE_CHECKING:
    from penstock_host.host import Host

DEVICE: Final = "/dev/cpu_dma_latency"
NO_LIMIT_US: Final = 2_000_000_000  # What the kernel answers while nobody asks for less.
_VALUE: Final = struct.Struct("=i")


@contextlib.contextmanager
def no_sleep_states(device: Path = Path(DEVICE), *, limit_us: int = 0) -> Iterator[None]:
    """Let no CPU sleep deeper than *limit_us* to wake from, for as long as the context lasts.

    Raises:
        WriteRefusedError: the device is absent, or closed to this user; nothing is held then.
    """
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as refusal:
        raise WriteRefusedError(f"{device}: {refusal.strerror}", refusal.errno) from refusal
    try:
        try:
            os.write(descriptor, _VALUE.pack(limit_us))
        except OSError as refusal:
            raise WriteRefusedError(f"{device}: {refusal.strerror}", refusal.errno) from refusal
        yield
    finally:
        os.close(descriptor)


def latency_limit_us(host: Host) -> int:
    """Return the limit that holds now, of all who ask.

    Raises:
        AbsentError: the kernel has no such device.
        UnreadableError: it is closed to this user.
    """
    data = host.read_bytes(DEVICE, _VALUE.size)
    if len(data) != _VALUE.size:
        raise UnreadableError(f"{DEVICE} gave {len(data)} bytes, not {_VALUE.size}")
    return int(_VALUE.unpack(data)[0])


def holders(host: Host, among: Iterable[int]) -> frozenset[int]:
    """Return which of the processes *among* have the device open, as far as that can be seen."""
    found = set()
    for process in among:
        for link in host.names(f"/proc/{process}/fd/*"):
            try:
                if os.readlink(host.path(link)) == DEVICE:  # noqa: PTH115 (a link that need not lead anywhere)
                    found.add(process)
            except OSError:
                continue
    return frozenset(found)
