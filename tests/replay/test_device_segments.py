"""Over a device too, a strategy's segment gets the CPU's bits, and keeps getting them when the device is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.v1.records import PredictionFlag
from penstock.v1.shared_ring import REFUSED_FLAG
from penstock_daemon.engine_tap import PUBLISHED, TICK_COLUMNS, tap_parts
from penstock_kernels.predictor import pack
from support.device_engines import DEVICE_SIZES, device_engine
from support.engines import driven
from support.models import random_model
from support.segment_rig import SLOTS, attached
from support.tick_stream import tick_stream

SIZES = replace(DEVICE_SIZES, segment_instruments=4, tap_ticks=1024)
MODEL = random_model(1)
TICKS = tick_stream(12, 600)
UNTIMED = ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE | PredictionFlag.DEGRADED)


def test_two_strategies_have_the_bits_of_the_cpu_before_and_after_the_device_is_lost() -> None:
    forecasts, flags = driven(pack(MODEL), TICKS)
    with (
        device_engine(MODEL, sizes=SIZES) as (engine, host),
        attached(engine, 1, states=(1,)) as first,
        attached(engine, 2, states=(2,)) as second,
    ):
        tap_parts(engine.buffers.tap).recordings[2] = 1
        found: dict[int, list[np.ndarray]] = {1: [], 2: []}
        for start in range(0, len(TICKS), SLOTS // 2):
            if start == 5 * SLOTS:
                host.die(after=1)
            part = TICKS[start : start + SLOTS // 2]
            first.publish(part)
            second.publish(part)
            found[1].append(first.predictions(len(part)))
            found[2].append(second.predictions(len(part)))
        stranger = TICKS[:1].copy()
        stranger["instrument_id"] = 99
        first.publish(stranger)
        assert first.predictions(1)["flags"][0] & REFUSED_FLAG
        kept = tap_parts(engine.buffers.tap).slots[: len(TICKS), :TICK_COLUMNS].tobytes()
        assert (kept, engine.buffers.tap[PUBLISHED]) == (TICKS.tobytes(), len(TICKS)), "as a recording has it"
    degraded = 0
    for parts in found.values():
        predictions = np.concatenate(parts)
        assert predictions["sequence"].tolist() == list(range(len(TICKS)))
        assert (predictions["flags"] & UNTIMED).tolist() == flags.tolist()
        degraded += int(((predictions["flags"] & PredictionFlag.DEGRADED) != 0).sum())
        kept = (predictions["flags"] & PredictionFlag.DEGRADED) == 0
        assert predictions["forecasts"][kept].tobytes() == forecasts[kept].tobytes()
        assert np.allclose(
            predictions["forecasts"]["expected_return"], forecasts["expected_return"], rtol=1e-3, atol=1e-6
        ), "rebuilt states agree"
    assert 0 < degraded < 2 * len(TICKS)
