"""An engine over a device in this process, opened, fed and compared with the CPU: for tests on a card.

with device_engine(backend, [model]) as engine: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock_daemon.device.backend import DeviceBackend
from penstock_daemon.device.device import Device, DeviceSettings
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Idle
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.model import Model
from penstock_kernels.predictor import pack
from support import engines

SIZES = replace(engines.SIZES, units_max=256, states=9)


@contextlib.contextmanager
def device_engine(
    backend: DeviceBackend,
    models: Sequence[Model],
    settings: DeviceSettings | None = None,
    sizes: EngineSizes = SIZES,
) -> Iterator[Engine]:
    """An engine over *backend*, which it closes, warm, with *models* in its first slots."""
    device = Device(backend, settings or DeviceSettings(batch_max=64, timeout_ns=2_000_000_000))
    engine = Engine(sizes, EngineSettings(idle=Idle.BLOCK), device)
    try:
        for slot, model in enumerate(models):
            engine.load_model(slot, pack(model), serial=100 + slot)
        engine.compile()
        engine.start()
        engine.warm_up(0, ticks=8)
        yield engine
    finally:
        engine.stop()
        engine.close()


def assert_cpu_bits(model: Model, ticks: NDArray[np.void], answers: NDArray[np.void], *, but_flags: int = 0) -> None:
    """Check answers of one instrument, from a cold state on, against the CPU's; flags in *but_flags* play no part."""
    forecasts, flags = engines.driven(pack(model), ticks)
    assert np.array_equal(answers["forecasts"][:, : len(model.horizons)], forecasts[:, : len(model.horizons)])
    assert np.array_equal(answers["flags"].astype(np.int64) & ~but_flags, flags & ~but_flags)
