"""The stamps benchmark: its JSON has the promised fields, its two steps are one, and off measures nothing at all."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_kernels.predictor import pack
from penstock_tuning.bench import cli, stamp_sides, stamps
from support.engines import SIZES, driven, frozen
from support.models import random_model
from support.tick_stream import tick_stream

MODEL = random_model(1)
TICKS = tick_stream(41, 200)
MEASURED_WORDS = (memory.LATE, memory.STALE, memory.STALE_RUN, memory.STALE_LAST_NS)


def step(buffers_of: Any) -> tuple[Engine, np.ndarray]:
    """Drain TICKS, all of them STALE, through buffers of that type; return the engine and the answers."""
    engine = Engine(SIZES, EngineSettings(budget_ns=1, stale_ns=1))
    engine.load_model(0, pack(MODEL), serial=1)
    engine.buffers.source_table[stamp_sides.SOURCE, memory.SOURCE_OPEN] = 1
    ids, states = np.array([1], np.int64), np.array([stamp_sides.STATE], np.int64)
    engine.publish_ticks(stamp_sides.SOURCE, frozen(TICKS), 0, False, ids, states, time.monotonic_ns())
    stamp_sides.drain_all(buffers_of(*engine.buffers), len(TICKS), 64)
    return engine, engine.buffers.prediction_slots[stamp_sides.SOURCE, : len(TICKS)].copy()


def test_stamps_has_every_figure_and_they_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["stamps", "--json", "--quick", "--rounds", "3"])
    said = capsys.readouterr()
    assert code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    assert found["benchmark"] == "stamps"
    assert found["scale"].startswith("quick")
    for name in ("stamp_tsc_ns", "stamp_clock_ns", "stamp_python_ns", "record_ns", "step_on_ns", "step_off_ns"):
        assert found[name] > 0, name
    assert found["overhead_ns"] == pytest.approx(found["overhead_share"] * found["step_off_ns"])
    assert found["aims"].keys() == {"overhead_share"}


def test_overhead_is_that_of_each_round() -> None:
    times = {name: [1.0, 1.0, 1.0] for name in stamps.STAMPS}
    for name, on, on_clock in (
        ("step", [102.0, 206.0, 404.0], [110.0] * 3),
        ("batched_step", [100.0, 200.0, 400.0], [1.0] * 3),
    ):
        times |= {f"{name}_off": [100.0, 200.0, 400.0], f"{name}_on": on, f"{name}_on_clock": on_clock}
    figures = stamps.figures_of(times)
    assert figures["overhead_share"] == pytest.approx(0.02)
    assert figures["batched_overhead_share"] == 0
    assert figures["overhead_share_on_clock"] == pytest.approx(-0.45)
    assert figures["step_on_ns"] == 206


def test_step_without_measuring_predicts_the_same_and_measures_nothing() -> None:
    found = {}
    for buffers_of in (memory.Buffers, stamp_sides.UnmeasuredBuffers):
        engine, found[buffers_of] = step(buffers_of)
        try:
            buffers, off = engine.buffers, buffers_of is stamp_sides.UnmeasuredBuffers
            tables = (buffers.histograms, buffers.totals, buffers.high_water, found[buffers_of]["stage_ns"])
            assert [bool(table.any()) for table in tables] == [not off] * 4
            assert [bool(buffers.words[word]) for word in MEASURED_WORDS] == [not off] * 4
            assert buffers.words[memory.PREDICTIONS] == len(TICKS)
        finally:
            engine.close()
    on, off = found[memory.Buffers], found[stamp_sides.UnmeasuredBuffers]
    assert on["forecasts"].tobytes() == off["forecasts"].tobytes() == driven(pack(MODEL), TICKS)[0].tobytes()
