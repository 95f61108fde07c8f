"""A real engine in this process whose device is the host shim: for tests of the device's loop, below the server.

with device_engine(MODEL, transfer=Transfer.COPIED) as (engine, host):
    host.die(after=3)
    predictions = predict(engine, open_source(engine), ticks)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from penstock_daemon import engine_memory
from penstock_daemon.device.device import Device, DeviceSettings
from penstock_daemon.device.memory import Transfer
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.model import Model
from penstock_kernels.predictor import pack
from support.engines import SIZES
from support.host_device import SHARED_BYTES_MAX, HostDevice, host_device

DEVICE_SIZES = replace(SIZES, online_states=2)  # One set of sizes: loop and kernel are compiled once.
ITEMS_MAX = 64
WARM_UP_TICKS = 4
PATIENT_NS = 20_000_000_000
HURRIED_NS = 100_000_000


def device_settings(transfer: Transfer = Transfer.STAGED, *, timeout_ns: int = PATIENT_NS) -> DeviceSettings:
    """Settings for a device that shares two CPUs with everybody."""
    return DeviceSettings(
        transfer=transfer, batch_max=ITEMS_MAX, timeout_ns=timeout_ns, query_ns=200_000, spin_ns=20_000
    )


@contextlib.contextmanager
def device_engine(
    *models: Model,
    settings: EngineSettings | None = None,
    device: DeviceSettings | None = None,
    sizes: EngineSizes = DEVICE_SIZES,
    shared_bytes_max: int = SHARED_BYTES_MAX,
    late_ns: int = 0,
) -> Iterator[tuple[Engine, HostDevice]]:
    """An engine that runs on a host device, warm, with *models* in its first slots; launches begin so late."""
    with host_device(shared_bytes_max=shared_bytes_max) as host:
        host.delay(late_ns)
        engine = Engine(sizes, settings or EngineSettings(), Device(host, device or device_settings()))
        try:
            for slot, model in enumerate(models):
                engine.load_model(slot, pack(model), serial=100 + slot)
            engine.compile()
            engine.start()
            engine.warm_up(0, ticks=WARM_UP_TICKS)
            yield engine, host
        finally:
            engine.stop()
            engine.close()


@contextlib.contextmanager
def kept_asleep(engine: Engine) -> Iterator[None]:
    """Own the states as a helper does, so that all which is done meanwhile comes to the engine at once."""
    words = engine.buffers.words
    deadline_s = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline_s, "the engine never sleeps"
        if words[engine_memory.SLEEPING] == 1 and words[engine_memory.OWNER] == 0:
            words[engine_memory.OWNER] = 1
            if words[engine_memory.SLEEPING] == 1:  # Then it has not asked for them in between.
                break
            words[engine_memory.OWNER] = 0
        time.sleep(0.001)
    yield
    words[engine_memory.OWNER] = 0
