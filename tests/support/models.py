"""Valid models without training, for tests that need any model: drawn reservoir, drawn readout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from penstock_kernels.drawing import draw
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.model import Calibration, Horizon, HorizonKind, Model
from penstock_kernels.philox import Stream

HORIZONS = (
    Horizon("next", HorizonKind.NEXT_MOVE),
    Horizon("50ev", HorizonKind.EVENTS, events=50),
    Horizon("100ms", HorizonKind.TIME, duration_ns=100_000_000),
    Horizon("1s", HorizonKind.TIME, duration_ns=1_000_000_000),
)
_STREAM_READOUT = 100


def random_model(
    seed: int,
    *,
    units: int = 64,
    fan_in: int = 4,
    horizons: tuple[Horizon, ...] = HORIZONS[:3],
    features: tuple[str, ...] = FEATURE_NAMES,
    rebuild_ticks: int = 256,
    topology: str = "cyclic",
    time_base: str = "events",
    memory_gains: tuple[float, ...] = (),
    memory_lags: int = 0,
    products: int = 0,
    **changes: Any,
) -> Model:
    """Return a valid model whose forecasts vary with the ticks; *changes* replace any other field of it."""
    inputs = len(features)
    reservoir = draw(topology, seed, units=units, inputs=inputs, fan_in=fan_in, time_base=time_base)
    columns = units + products + inputs * (len(memory_gains) + memory_lags) + inputs + 1
    weights = Stream(seed, _STREAM_READOUT).uniform(3 * len(horizons) * columns, -1.0, 1.0) / np.sqrt(columns)
    model = Model(
        name=f"random-{seed}",
        version="1",
        topology=topology,
        seed=seed,
        recurrent=reservoir.recurrent,
        connections=reservoir.connections,
        input_weights=reservoir.input_weights,
        bias=reservoir.bias,
        leak=reservoir.leak,
        features=features,
        feature_mean=np.zeros(inputs),
        feature_scale=np.ones(inputs),
        clip=6.0,
        horizons=horizons,
        readout=weights.reshape(-1, columns).astype(np.float32),
        calibration=tuple(
            Calibration(return_scale=1e-4, deviation=2e-4, moved_slope=1.0, moved_offset=0.5) for _ in horizons
        ),
        rebuild_ticks=rebuild_ticks,
        demonstration=True,
        notice="Drawn at random for a test.",
        time_base=time_base,
        memory_gains=np.array(memory_gains, dtype=np.float32),
        memory_lags=memory_lags,
        products=products,
    )
    return replace(model, **changes) if changes else model
