"""What time it is within a drain: cycles scaled to nanoseconds from one reading of the clock on, never far from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from penstock.v1 import histogram
from penstock.v1.records import Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import engine_stages, native
from penstock_daemon.engine import Engine
from penstock_kernels.predictor import pack
from support.engines import close_source, driven, open_source, predict, running_engine
from support.models import random_model
from support.tick_stream import tick_stream

MODEL = random_model(1)
WORD = st.integers(-(2**63), 2**63 - 1)
SLOWEST = 1  # 2^-32 ns a cycle: whatever a test takes, no nanosecond is over.

pytestmark = pytest.mark.skipif(not native.HAS_CYCLES, reason="this processor has no counter that a process may read")


@njit
def _bucket_of(duration_ns: int) -> int:
    return engine_stages.bucket_of(duration_ns)


@njit
def _scaled(count: int, fraction: int) -> int:
    return native.scaled_cycles(count, fraction)


@njit
def _cycles() -> int:
    return native.cycles()


@njit
def _start(m: Any) -> tuple[int, int, int]:
    return engine_stages.start_clock(m)


@njit
def _read(m: Any, clock: tuple[int, int, int]) -> int:
    return engine_stages.read_clock(m, clock)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine(MODEL) as engine:
        yield engine


# --- Buckets and cycles -------------------------------------------------------------------------------------------------


def test_compiled_buckets_have_the_edges_of_the_contract() -> None:
    for edge_ns in histogram.lower_edges_ns().tolist():
        for duration_ns in (edge_ns - 1, edge_ns, edge_ns + 1):
            assert _bucket_of(duration_ns) == histogram.bucket_of(duration_ns)


@given(WORD | st.integers(-10, 10**12))
def test_compiled_bucket_is_that_of_the_contract(duration_ns: int) -> None:
    assert _bucket_of(duration_ns) == histogram.bucket_of(duration_ns)


@given(WORD, st.integers(0, 2**63 - 1))
def test_scaling_is_exact_however_many_cycles(count: int, fraction: int) -> None:
    expected = (count * fraction >> 32) % 2**64
    assert _scaled(count, fraction) == expected - (2**64 if expected >= 2**63 else 0)


def test_counter_of_cycles_goes_on() -> None:
    first = _cycles()
    while _cycles() == first:  # Some counters are slow.
        pass
    assert _cycles() > first


# --- The clock of a drain -----------------------------------------------------------------------------------------------


def test_clock_goes_on_from_its_anchor_by_the_scaled_cycles(engine: Engine) -> None:
    anchor = _cycles()
    read_ns = _read(engine.buffers, (SLOWEST, 12_345, anchor))
    assert 0 <= read_ns - 12_345 <= _scaled(_cycles() - anchor, SLOWEST)
    low = _cycles() - anchor
    read_ns = _read(engine.buffers, (2**24, 12_345, anchor))  # A nanosecond is 256 cycles.
    high = _cycles() - anchor
    assert low >> 8 <= read_ns - 12_345 <= high >> 8


@pytest.mark.parametrize(
    ("fraction", "moved"), [(0, 0), (2**32, 10**12), (2**32, -(10**12))], ids=["none", "back", "far-ahead"]
)
def test_counter_that_can_not_be_believed_gives_way_to_the_clock(engine: Engine, fraction: int, moved: int) -> None:
    before_ns = time.monotonic_ns()
    read_ns = _read(engine.buffers, (fraction, 1, _cycles() + moved))
    assert before_ns <= read_ns <= time.monotonic_ns()


def test_drain_starts_at_the_clock_and_takes_the_fraction_of_that_moment(engine: Engine) -> None:
    for fraction in (0, SLOWEST, 0):
        engine.use_cycles(fraction)
        engine.buffers.words[memory.ANCHOR_CYCLES] = 0
        before_ns = time.monotonic_ns()
        found, anchor_ns, anchor = _start(engine.buffers)
        assert found in (fraction, 0)  # Who is interrupted again and again does without cycles.
        assert before_ns <= anchor_ns <= time.monotonic_ns()
        assert (anchor == 0) == (found == 0)


def test_cycles_time_the_stages_from_the_next_drain_on_and_change_no_forecast(engine: Engine) -> None:
    ticks = tick_stream(1, 300)
    source = open_source(engine)
    found = []
    for first, fraction in ((0, SLOWEST), (100, 0), (200, SLOWEST)):
        engine.use_cycles(fraction)
        found.append(predict(engine, source, ticks[first : first + 100], first=first))
    engine.use_cycles(0)
    close_source(engine, source)
    assert np.concatenate(found)["forecasts"].tobytes() == driven(pack(MODEL), ticks)[0].tobytes()
    by_cycles, by_clock = np.concatenate([found[0], found[2]])["stage_ns"], found[1]["stage_ns"]
    for stage in (Stage.FEATURES, Stage.PREDICT):
        assert not by_cycles[:, stage].any(), "cycles that last no time"
        assert (by_clock[:, stage] > 0).all()


def test_anchor_is_good_for_a_while_and_no_longer(engine: Engine) -> None:
    words = engine.buffers.words
    engine.use_cycles(SLOWEST)
    kept = False
    for _ in range(1000):  # Unless something comes between, the first.
        words[memory.ANCHOR_NS], words[memory.ANCHOR_CYCLES] = 12_345, _cycles()
        _, anchor_ns, anchor = _start(engine.buffers)
        if kept := anchor_ns == 12_345:
            assert words[memory.ANCHOR_CYCLES] <= anchor <= _cycles()
            break
    assert kept, "an anchor taken just now is used again"
    for moved in (-(1 << 18), 1 << 50):
        words[memory.ANCHOR_NS], words[memory.ANCHOR_CYCLES] = 12_345, _cycles() + moved
        before_ns = time.monotonic_ns()
        _, anchor_ns, _ = _start(engine.buffers)
        assert before_ns <= anchor_ns <= time.monotonic_ns()
        assert words[memory.ANCHOR_NS] in (anchor_ns, 12_345)
    engine.use_cycles(0)


def test_counter_that_is_slow_makes_no_anchor_older_or_wider(engine: Engine) -> None:
    slow = 40 << 32  # 25 MHz, as some processors of Arm have it: few cycles are a long time.
    engine.use_cycles(slow)
    engine.buffers.words[memory.ANCHOR_NS] = 12_345
    engine.buffers.words[memory.ANCHOR_CYCLES] = _cycles() - 10_000  # As if 0.4 ms ago.
    before_ns = time.monotonic_ns()
    _, anchor_ns, _ = _start(engine.buffers)
    assert before_ns <= anchor_ns <= time.monotonic_ns()
    engine.use_cycles(2**62)  # Whatever lies between two looks is too long.
    engine.buffers.words[memory.ANCHOR_CYCLES] = 0
    before_ns = time.monotonic_ns()
    found, anchor_ns, _ = _start(engine.buffers)
    assert found == 0, "a clock that does without cycles"
    assert before_ns <= anchor_ns <= time.monotonic_ns()
    engine.use_cycles(0)


@pytest.mark.parametrize("fraction", [-1, 2**63])
def test_fraction_that_is_none_is_refused(engine: Engine, fraction: int) -> None:
    with pytest.raises(ValueError, match=f"a cycle must last from 0 to 2\\^63 - 1 parts: fraction={fraction}"):
        engine.use_cycles(fraction)
    assert engine.buffers.settings[memory.CYCLE_FRACTION] == 0
