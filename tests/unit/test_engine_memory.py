"""The layout of what engine and event loop share."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from penstock.v1.records import TICK_BYTES, TICK_DTYPE
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_sizes import EngineSizes, allocate
from penstock_kernels.model import FAN_IN_MAX
from penstock_kernels.predictor import pack
from support.engines import SIZES
from support.models import HORIZONS, random_model

_, BUFFERS = allocate(SIZES)


def test_tick_slot_begins_with_the_record_byte_for_byte() -> None:
    slot = memory.TICK_SLOT_DTYPE
    for name, (kind, offset) in TICK_DTYPE.fields.items():
        named = "record_length" if name == "length" else name
        assert slot.fields[named][:2] == (kind, offset), name
    own = {name: slot.fields[name][1] for name in slot.names[len(TICK_DTYPE.names) :]}
    assert own == {
        "session_sequence": 80,
        "received_ns": 88,
        "ringed_ns": 96,
        "wire_ns": 104,
        "state": 112,
        "refusal": 116,
        "rebuild": 117,
        "clock": 118,
        "first_ns": 120,
    }
    assert slot.itemsize == 128 == 2 * memory.CACHE_LINE_BYTES
    assert memory.TICK_WORDS * 8 == TICK_BYTES


def test_slot_is_no_tick_to_compiled_code() -> None:
    """Numba takes a record for another whose fields it begins with, and warns; which it would do depended on the order."""
    bid = njit(lambda tick: tick.bid_px)
    first = njit(lambda ticks: bid(ticks[0]))
    assert first(np.zeros(1, TICK_DTYPE)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first(np.zeros(1, memory.TICK_SLOT_DTYPE)) == 0


def test_word_views_share_the_memory_of_the_records() -> None:
    BUFFERS.tick_slots[2, 3]["bid_px"] = 77
    assert BUFFERS.tick_words[2, 3, 48 // 8] == 77
    BUFFERS.journal[4, 5]["ts_recv"] = 88
    assert BUFFERS.journal_words[4, 5, 32 // 8] == 88


def test_every_shared_word_has_a_cache_line_of_its_own() -> None:
    source = inspect.getsource(memory)
    words = source[: source.index("SHARED_WORDS")]
    names = re.findall(r"^([A-Z_]+): Final = \d+ \* WORDS_PER_LINE", words, re.MULTILINE)
    assert {"STOP", "SLEEPING", "LOOP_WAITING", "CONTROL_PUBLISHED", "TICKS"} <= set(names)
    shared = [getattr(memory, name) for name in names]
    assert [word * 8 // memory.CACHE_LINE_BYTES for word in shared] == list(range(len(shared)))
    assert len(shared) * memory.WORDS_PER_LINE == memory.SHARED_WORDS
    cursors = [
        memory.cursor(source, which)
        for source in range(2)
        for which in (
            memory.TICK_PUBLISHED,
            memory.TICK_CONSUMED,
            memory.PREDICTION_PUBLISHED,
            memory.PREDICTION_CONSUMED,
        )
    ]
    assert [word * 8 // memory.CACHE_LINE_BYTES for word in cursors] == list(range(8))


@pytest.mark.parametrize("slots", [0, 1, 3, 100])
def test_ring_slots_must_be_a_power_of_two(slots: int) -> None:
    with pytest.raises(ValueError, match=f"must be a power of two, at least 2: slots={slots}"):
        EngineSizes(sources=1, slots=slots, states=1, model_slots=1, units_max=64)


@pytest.mark.parametrize(
    "sizes",
    [
        SIZES,
        EngineSizes(sources=2, slots=64, states=2, model_slots=1, units_max=16),
        EngineSizes(sources=17, slots=8192, states=65, model_slots=4, units_max=2048),
        EngineSizes(sources=3, slots=2, states=100, model_slots=1, units_max=1000, journal_ticks=1),
        EngineSizes(sources=3, slots=64, states=2, model_slots=2, units_max=1000, dense_units_max=900),
    ],
)
def test_sum_of_the_sizes_is_what_the_arena_needs(sizes: EngineSizes) -> None:
    arena, _ = allocate(sizes)
    assert arena.sealed
    slack = sizes.arena_bytes - arena.used_bytes
    assert 0 <= slack <= (1 << 16) + 16 * sizes.units_max


def test_largest_model_fits_its_slot() -> None:
    engine = Engine(SIZES, EngineSettings())
    try:
        largest = pack(
            random_model(1, units=SIZES.units_max, fan_in=min(FAN_IN_MAX, SIZES.units_max - 1), horizons=HORIZONS)
        )
        engine.load_model(2, largest, serial=1)
        assert (engine.buffers.weights[2, : len(largest.weights)] == largest.weights).all()
        with pytest.raises(ValueError, match=r"weights=\d+ words, room for \d+; raise models.units_max"):
            engine.load_model(0, pack(random_model(1, units=16 * SIZES.units_max)), serial=1)
    finally:
        engine.close()


@pytest.mark.parametrize("module", ["engine_wake", "engine_segments"])
def test_whichever_module_comes_first_what_is_compiled_is_kept_by_all_sources(module: str, tmp_path: Path) -> None:
    program = (
        f"import numba, penstock_daemon.{module}, penstock_daemon.engine_wake as wake, penstock_daemon.engine_loop as loop;"
        "print(wake.wake_loop.stats.cache_path); print(loop.run.stats.cache_path)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PENSTOCK_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    for folder in found.stdout.split():
        assert Path(folder).is_relative_to(tmp_path), "Numba's own cache looks at one file, and not at what it inlined"
