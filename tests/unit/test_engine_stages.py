"""What is measured of a tick: durations against bounds, ages against LATE and STALE, the breaker's run, old ticks.

Here nobody runs: ages are given by hand, and ticks are drained by the test itself, so that every count is exact.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from penstock.v1 import histogram
from penstock.v1.records import PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import engine_stages
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import OldTick
from penstock_daemon.engine_sizes import allocate
from penstock_daemon.engine_ticks import drain
from penstock_kernels.predictor import pack
from support.engines import SIZES, Source, driven, frozen
from support.models import random_model
from support.tick_stream import tick_stream

MODEL = random_model(1)
AGED = np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)
LONG_AGO_NS = 60_000_000_000
BUDGET_NS = 5_000_000
STALE_NS = 6_000_000
UNMARKED = np.int64(0)

_, TABLES = allocate(SIZES)


@njit
def _age_flags(m: Any, path: int, bulk: int, age_ns: int, now_ns: int) -> int:
    return engine_stages.age_flags(m, path, bulk, age_ns, now_ns)  # Which itself has no way in from Python.


@njit
def _record(m: Any, path: int, bulk: int, stage: int, sequence: int, duration_ns: int) -> None:
    engine_stages.record_duration(m, path, bulk, stage, sequence, duration_ns)


def idle_engine(**settings: object) -> Engine:
    """An engine that nobody started, with a model and a source 1 that is open for instrument 1, in real time."""
    engine = Engine(SIZES, EngineSettings(**settings))  # type: ignore[arg-type]  # As the caller names them.
    engine.load_model(0, pack(MODEL), serial=1)
    engine.buffers.source_table[1, memory.SOURCE_OPEN] = 1
    return engine


@pytest.fixture(scope="module")
def shared() -> Iterator[Engine]:
    """One whose breaker trips at a run of 3; for tests that look at differences."""
    engine = idle_engine(breaker_run=3)
    yield engine
    engine.close()


def drained(engine: Engine, ticks: np.ndarray, ages_ns: list[int], *, rebuild: bool = False) -> np.ndarray:
    """Publish *ticks*, each with a first stamp of its own age, drain them, and return their answers."""
    source = Source(1, np.array([1], np.int64), np.array([1], np.int64))
    engine.reset_source(1)
    engine.publish_ticks(1, frozen(ticks), 0, rebuild, source.ids, source.states, time.monotonic_ns())
    slots = engine.buffers.tick_slots[1, : len(ticks)]
    slots["first_ns"] = slots["ringed_ns"] - np.array(ages_ns)
    assert drain(engine.buffers, 1, len(ticks), UNMARKED) == len(ticks)
    return engine.buffers.prediction_slots[1, : len(ticks)].copy()


# --- Durations ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-(10**12), 10**13) | st.sampled_from([0, 999, 1000, 5_000_000, 10**11]), min_size=1),
    st.tuples(st.integers(0, memory.PATHS - 1), st.integers(0, memory.PACES - 1), st.integers(0, memory.STAGES - 1)),
    st.sampled_from([0, 1000, 4_999_999, 5_000_000, memory.NO_BOUND]),
)
@example([5_000_000, 5_000_001, 5_000_000], (0, 0, 7), 5_000_000)
def test_durations_are_counted_where_the_contract_says(
    durations: list[int], row: tuple[int, int, int], bound_ns: int
) -> None:
    path, bulk, stage = row
    for table in (TABLES.histograms, TABLES.totals, TABLES.breaches):
        table[:] = 0
    TABLES.bounds[:] = 0
    TABLES.bounds[path, stage] = bound_ns
    for sequence, duration in enumerate(durations, 100):
        _record(TABLES, path, bulk, stage, sequence, duration)
    expected = np.zeros(histogram.BUCKETS, np.int64)
    for duration in durations:
        expected[histogram.bucket_of(duration)] += 1
    assert (TABLES.histograms[row] == expected).all()
    assert TABLES.histograms.sum() == len(durations), "no other row was touched"
    over = [] if bulk else [(100 + index, ns) for index, ns in enumerate(durations) if ns > bound_ns]
    negative = sum(duration < 0 for duration in durations)
    assert TABLES.totals[row].tolist() == [sum(durations), max(0, *durations), negative, len(over)]
    assert tuple(TABLES.breaches[path, stage]) == (over[-1] if over else (0, 0))
    assert np.count_nonzero(TABLES.breaches) <= 2


def test_stages_count_from_the_first_stamp_and_add_up_to_the_total(shared: Engine) -> None:
    for table in (shared.buffers.histograms, shared.buffers.totals):
        table[:] = 0
    (answer,) = drained(shared, tick_stream(1, 1), [3_000_000_000])
    assert answer["stage_ns"][Stage.RECEIVE] == 3_000_000_000
    shared.release_answers(1, memory.PATH_GRPC, False, 1)
    totals = shared.buffers.totals[memory.PATH_GRPC, 0, :, engine_stages.SUM]
    assert totals[Stage.RECEIVE] == 3_000_000_000
    assert totals[Stage.TOTAL] == totals[: Stage.TOTAL].sum()
    assert totals[Stage.EGRESS] > 0


@pytest.mark.parametrize("age_ns", [-5_000_000, 10_000_000_000], ids=["of-the-future", "too-long-for-a-record"])
def test_first_stamp_that_is_far_off_is_no_time_of_the_egress(shared: Engine, age_ns: int) -> None:
    for table in (shared.buffers.histograms, shared.buffers.totals):
        table[:] = 0
    drained(shared, tick_stream(1, 2), [age_ns, age_ns])
    shared.release_answers(1, memory.PATH_GRPC, False, 2)
    totals = shared.buffers.totals[memory.PATH_GRPC, 0]
    sums = totals[:, engine_stages.SUM]
    assert sums[Stage.RECEIVE] == 2 * age_ns
    assert sums[Stage.TOTAL] == sums[: Stage.TOTAL].sum()
    assert totals[Stage.EGRESS, engine_stages.NEGATIVE] == 0
    assert totals[Stage.RECEIVE, engine_stages.NEGATIVE] == (2 if age_ns < 0 else 0)


def test_breach_of_a_stage_is_counted_with_the_sequence_of_its_tick() -> None:
    engine = idle_engine(bounds={(memory.PATH_GRPC, Stage.RECEIVE): 1_000_000})
    try:
        drained(engine, tick_stream(1, 4), [1_000_000, 1_000_001, 900_000, 1_000_000])
        engine.release_answers(1, memory.PATH_GRPC, False, 4)
        exceeded = engine.buffers.totals[memory.PATH_GRPC, 0, :, engine_stages.EXCEEDED]
        assert exceeded[Stage.RECEIVE] == 1
        assert engine.buffers.breaches[memory.PATH_GRPC, Stage.RECEIVE].tolist() == [1, 1_000_001]
        assert not exceeded[[Stage.RING, Stage.FEATURES, Stage.PREDICT, Stage.EGRESS]].any(), "those have no bound"
    finally:
        engine.close()


def test_every_path_has_the_budget_as_the_bound_of_its_total_and_no_other() -> None:
    engine = idle_engine(budget_ns=7, bounds={(memory.PATH_FEED, Stage.TOTAL): 9, (memory.PATH_FEED, Stage.RING): 8})
    try:
        bounds = engine.buffers.bounds
        assert bounds[:, Stage.TOTAL].tolist() == [7, 7, 9]
        assert bounds[memory.PATH_FEED, Stage.RING] == 8
        assert (bounds[:2, : Stage.TOTAL] == memory.NO_BOUND).all()
    finally:
        engine.close()


# --- Age ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_ns", "expected"),
    [
        (-1, 0),
        (BUDGET_NS, 0),
        (BUDGET_NS + 1, PredictionFlag.LATE),
        (STALE_NS, PredictionFlag.LATE),
        (STALE_NS + 1, PredictionFlag.LATE | PredictionFlag.STALE),
    ],
)
def test_age_at_its_bound_passes_and_a_nanosecond_more_does_not(shared: Engine, age_ns: int, expected: int) -> None:
    words = shared.buffers.words
    before = words.copy()
    for path in range(memory.PATHS):
        assert _age_flags(shared.buffers, path, 0, age_ns, 1) == expected
        assert _age_flags(shared.buffers, path, 1, age_ns, 1) == 0
    assert words[memory.LATE] - before[memory.LATE] == (3 if expected & PredictionFlag.LATE else 0)
    assert words[memory.STALE] - before[memory.STALE] == (3 if expected & PredictionFlag.STALE else 0)


def test_late_is_by_the_budget_of_the_path(shared: Engine) -> None:
    shared.buffers.bounds[memory.PATH_SHARED_MEMORY, Stage.TOTAL] = 100
    try:
        assert _age_flags(shared.buffers, memory.PATH_SHARED_MEMORY, 0, 101, 1) == PredictionFlag.LATE
        assert _age_flags(shared.buffers, memory.PATH_GRPC, 0, 101, 1) == 0
    finally:
        shared.buffers.bounds[memory.PATH_SHARED_MEMORY, Stage.TOTAL] = BUDGET_NS


def test_breaker_trips_at_a_run_of_stale_predictions_and_wakes_the_loop_at_once(shared: Engine) -> None:
    words, old, fresh = shared.buffers.words, STALE_NS + 1, STALE_NS
    words[memory.STALE_RUN] = 0
    trips = words[memory.BREAKER_TRIPS]
    runs = []
    shared.arm_loop()
    for now_ns, (age_ns, bulk) in enumerate(
        [(old, 0), (old, 0), (fresh, 0), (old, 0), (old, 0), (fresh, 1), (old, 1), (old, 0), (old, 0)], 1000
    ):
        _age_flags(shared.buffers, 0, bulk, age_ns, now_ns)
        runs.append(int(words[memory.STALE_RUN]))
        if now_ns < 1007:
            with pytest.raises(BlockingIOError):
                os.eventfd_read(shared.loop_event)
    assert runs == [1, 2, 0, 1, 2, 2, 2, 0, 1], "bulk neither adds to a run nor ends it"
    assert words[memory.BREAKER_TRIPS] == trips + 1
    assert words[memory.STALE_LAST_NS] == 1008
    assert os.eventfd_read(shared.loop_event) == 1


def test_breaker_that_is_never_to_trip_does_not() -> None:
    engine = idle_engine()
    try:
        for _ in range(100):
            _age_flags(engine.buffers, 0, 0, STALE_NS + 1, 1)
        assert engine.buffers.words[memory.BREAKER_TRIPS] == 0
        assert engine.buffers.words[memory.STALE_RUN] == 100
    finally:
        engine.close()


# --- Old ticks ----------------------------------------------------------------------------------------------------------

AGES_NS = [0] * 30 + [LONG_AGO_NS] * 20 + [0] * 30


def test_old_ticks_are_predicted_and_flagged_where_the_policy_says_so() -> None:
    engine = idle_engine(budget_ns=LONG_AGO_NS // 2, stale_ns=LONG_AGO_NS // 2)
    try:
        ticks = tick_stream(2, 80)
        found = drained(engine, ticks, AGES_NS)
        assert found["forecasts"].tobytes() == driven(pack(MODEL), ticks)[0].tobytes()
        assert ((found["flags"] & AGED) != 0).tolist() == [age > 0 for age in AGES_NS]
        words = engine.buffers.words
        assert [words[word] for word in (memory.OLD_TICKS, memory.SKIPPED, memory.PREDICTIONS)] == [20, 0, 80]
    finally:
        engine.close()


def test_old_ticks_only_update_their_state_where_the_policy_says_so() -> None:
    engine = idle_engine(budget_ns=LONG_AGO_NS // 2, stale_ns=LONG_AGO_NS // 2, old_ticks=OldTick.UPDATE)
    try:
        ticks = tick_stream(2, 80)
        found = drained(engine, ticks, AGES_NS)
        old = np.array(AGES_NS) > 0
        forecasts, flags = driven(pack(MODEL), ticks)
        assert found["forecasts"][~old].tobytes() == forecasts[~old].tobytes(), "the state took the old ones in"
        assert not any(found["forecasts"][old].tobytes())
        expected = flags | np.where(old, int(AGED) | int(PredictionFlag.SKIPPED), 0)
        assert found["flags"].tolist() == expected.tolist()
        assert found["sequence"].tolist() == list(range(80)), "each has one answer"
        assert engine.buffers.seen[1] == 80
        journal = engine.buffers.journal_words[1, :80, : memory.TICK_WORDS]
        assert journal.tobytes() == ticks.tobytes()
        words = engine.buffers.words
        assert [words[word] for word in (memory.OLD_TICKS, memory.SKIPPED, memory.PREDICTIONS)] == [20, 20, 60]
    finally:
        engine.close()


def test_rebuild_ticks_have_no_age() -> None:
    engine = idle_engine(old_ticks=OldTick.UPDATE, breaker_run=1)
    try:
        found = drained(engine, tick_stream(3, 10), [LONG_AGO_NS] * 10, rebuild=True)
        assert not (found["flags"] & (AGED | np.uint32(PredictionFlag.SKIPPED))).any()
        words = engine.buffers.words
        assert not any(words[word] for word in (memory.OLD_TICKS, memory.LATE, memory.STALE, memory.BREAKER_TRIPS))
    finally:
        engine.close()


# --- High water -----------------------------------------------------------------------------------------------------------


def test_high_water_is_the_fullest_that_each_ring_was() -> None:
    engine = idle_engine()
    try:
        highest = engine.buffers.high_water[1]
        drained(engine, tick_stream(4, 50), [0] * 50)
        assert highest.tolist() == [50, 50]
        engine.release_answers(1, memory.PATH_GRPC, False, 50)
        for first in (50, 60):
            ids, states = np.array([1], np.int64), np.array([1], np.int64)
            engine.publish_ticks(1, frozen(tick_stream(4, 40)), first, False, ids, states, time.monotonic_ns())
        assert drain(engine.buffers, 1, 60, UNMARKED) == 60
        assert highest.tolist() == [80, 60]
        assert drain(engine.buffers, 1, 60, UNMARKED) == 20
        assert highest.tolist() == [80, 80]
        engine.reset_source(1)
        assert not highest.any()
    finally:
        engine.close()
