"""A process that breaks its GPU on purpose, since an illegal address ends every use of the context: prints JSON.

python -m support.device_victim illegal     a kernel writes where nothing is; what every later call says
python -m support.device_victim engine      the same under an engine that serves; what its sessions get
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Final

import numpy as np

from penstock.v1.records import PredictionFlag
from penstock_daemon.device.backend import DeviceBackend, DeviceError, LaunchShape
from penstock_daemon.device.device import DeviceSettings
from penstock_daemon.device.memory import DeviceFault
from penstock_kernels.cuda import layout, source
from penstock_tuning.bench import gpu_device
from support import device_runs, engines
from support.models import random_model
from support.tick_stream import tick_stream

KERNEL: Final = "penstock_stray"
STRAY: Final = f'extern "C" __global__ void {KERNEL}(PENSTOCK_PARAMETERS) {{ *(volatile int *)arrived = 1; }}\n'
BEFORE: Final = 150
AFTER: Final = 250


def stray(backend: DeviceBackend) -> None:
    """Launch a kernel that writes to an address that nobody was given."""
    kernel = backend.build(source.defines({}) + STRAY, source.OPTIONS, KERNEL, 0)
    words = [8 if name == "arrived" else 0 for name in layout.ARGUMENTS]
    backend.launch(kernel, LaunchShape(1, 32, 0), words)


def said_by(call: Any) -> str:
    """Return the sentence of the DeviceError that a call raises; nothing where it raises none."""
    try:
        call()
    except DeviceError as error:
        return str(error)
    return ""


def illegal() -> dict[str, Any]:
    """Break the device with nobody on it."""
    backend, _ = gpu_device.open_cuda()
    address = backend.take(64)
    stray(backend)
    found = {
        "synchronize": said_by(backend.synchronize),
        "upload": said_by(lambda: backend.upload(address, np.zeros(16, np.float32))),
    }
    backend.close()
    return found


def engine() -> dict[str, Any]:
    """Break the device under an engine, between two bursts."""
    model = random_model(9, units=150, rebuild_ticks=512)
    ticks = tick_stream(90, BEFORE + AFTER)
    backend, _ = gpu_device.open_cuda()
    settings = DeviceSettings(batch_max=64, timeout_ns=500_000_000)
    with device_runs.device_engine(backend, [model], settings) as serving:
        device = serving.device
        assert device is not None
        opened = engines.open_source(serving)
        first = engines.predict(serving, opened, ticks[:BEFORE])
        with contextlib.suppress(DeviceError):
            stray(backend)
        rest = engines.predict(serving, opened, ticks[BEFORE:], first=BEFORE)
        answers = np.concatenate([first, rest])
        but_flags = int(PredictionFlag.LATE | PredictionFlag.STALE | PredictionFlag.DEGRADED)
        device_runs.assert_cpu_bits(model, ticks, answers, but_flags=but_flags)
        degraded = answers["flags"] & int(PredictionFlag.DEGRADED) != 0
        return {
            "answers": len(answers),
            "in_order": bool(np.array_equal(answers["sequence"], np.arange(len(ticks)))),
            "degraded_before": int(degraded[:BEFORE].sum()),
            "degraded_after": int(degraded[BEFORE:].sum()),
            "fault": device.fault.name,
            "lost": device.fault != DeviceFault.NONE,
            "fault_text": device.fault_text,
        }


if __name__ == "__main__":
    print(json.dumps({"illegal": illegal, "engine": engine}[sys.argv[1]]()))
