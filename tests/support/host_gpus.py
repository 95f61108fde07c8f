"""A daemon whose GPUs are of this host: the kernels run by the shim, behind everything that chooses and serves a GPU.

python -m support.host_gpus --set ...      penstockd with one such GPU; SIGUSR1 loses it
HOST_GPU_DIES_AFTER=60                     it dies at its 61st launch
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from penstock_daemon import main
from penstock_daemon.device import select
from penstock_daemon.device.backend import DeviceError
from support.host_device import HostDevice


class HostGpus:
    """GPUs of this host, each a HostDevice; one that is refused says so."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = refusals
        self.opened: list[HostDevice] = []

    def count(self) -> int:
        if not self.refusals:
            raise DeviceError("the driver sees no GPU")
        return len(self.refusals)

    def open(self, index: int) -> HostDevice:
        if self.refusals[index]:
            raise DeviceError(self.refusals[index])
        device = HostDevice()
        device.facts = replace(device.facts, index=index)
        if "HOST_GPU_DIES_AFTER" in os.environ:
            device.die(after=int(os.environ["HOST_GPU_DIES_AFTER"]))
        self.opened.append(device)
        return device


def serve() -> int:
    gpus = HostGpus("")
    select.CudaGpus = lambda: gpus  # type: ignore[assignment,misc] - The host's stand in for NVIDIA's.
    signal.signal(signal.SIGUSR1, lambda *_: gpus.opened[0].lose())
    return main.main()


if __name__ == "__main__":
    sys.exit(serve())
