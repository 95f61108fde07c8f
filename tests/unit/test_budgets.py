"""Bounds from the configuration: what each key means to the engine, and what does not go together."""

from __future__ import annotations

import pytest

from penstock.v1.records import Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.budgets import bounds_of
from penstock_daemon.config import Config, ConfigError, load_config

CPUS = frozenset({0, 1})
PATHS = (memory.PATH_GRPC, memory.PATH_SHARED_MEMORY, memory.PATH_FEED)


def load(*sets: str) -> Config:
    return load_config(None, {}, sets, cpus=CPUS)


def faults(*sets: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        load(*sets)
    return list(refusal.value.faults)


def test_default_of_the_whole_is_5_ms_of_predict_1_ms_and_of_the_stages_together_the_whole() -> None:
    bounds = bounds_of(Config.defaults())
    for path in PATHS:
        assert bounds[path, Stage.TOTAL] == 5_000_000
        assert bounds[path, Stage.PREDICT] == 1_000_000
        assert sum(bounds[path, stage] for stage in Stage if stage is not Stage.TOTAL) == 5_000_000


def test_each_key_is_the_bound_of_its_own_path_and_stage_alone() -> None:
    usual = bounds_of(load())
    for path, name in enumerate(("grpc", "shared_memory", "feed")):
        for stage in Stage:
            bounds = bounds_of(load(f"budget_{name}.{stage.name.lower()}_us=123.5"))
            changed = {row for row in usual if bounds[row] != usual[row]}
            within = {(path, one) for one in Stage} if stage is Stage.TOTAL else {(path, stage)}
            assert changed == within, (name, stage)
            assert bounds[path, stage] == 123_500


def test_stage_bound_of_0_is_none_and_a_total_of_0_is_that_of_the_budget() -> None:
    bounds = bounds_of(load("budget_feed.predict_us=0", "budget_feed.total_us=0", "budget.total_us=4000"))
    assert (memory.PATH_FEED, Stage.PREDICT) not in bounds
    assert {bounds[path, Stage.TOTAL] for path in PATHS} == {4_000_000}


def test_bounds_may_be_of_single_nanoseconds() -> None:
    bounds = bounds_of(load("budget_grpc.predict_us=0.001", "budget_grpc.ring_us=2.0005"))
    assert bounds[memory.PATH_GRPC, Stage.PREDICT] == 1
    assert bounds[memory.PATH_GRPC, Stage.RING] in (2_000, 2_001)


def test_lowered_total_takes_the_defaults_of_the_stages_along() -> None:
    bounds = bounds_of(load("budget.total_us=400", "budget_feed.total_us=0.5"))
    assert bounds[memory.PATH_GRPC, Stage.PREDICT] == bounds[memory.PATH_GRPC, Stage.TOTAL] == 400_000
    assert bounds[memory.PATH_GRPC, Stage.FEATURES] == 250_000
    assert {bounds[memory.PATH_FEED, stage] for stage in Stage} == {500}


def test_all_that_does_not_go_together_is_said_at_once() -> None:
    found = faults(
        "budget.stale_us=4000",
        "budget_grpc.total_us=7000",
        "budget_grpc.ring_us=8000",
        "budget_shared_memory.predict_us=5000.5",
        "budget_feed.total_us=300",
        "budget_feed.upload_us=300.5",
    )
    assert found == [
        "budget.stale_us: must be at least budget.total_us (5000), was 4000",
        "budget_grpc.total_us: must be at most budget.stale_us (4000), was 7000.0",
        "budget_grpc.ring_us: must be at most budget_grpc.total_us (7000.0), was 8000.0",
        "budget_shared_memory.predict_us: must be at most budget.total_us (5000.0), was 5000.5",
        "budget_feed.upload_us: must be at most budget_feed.total_us (300.0), was 300.5",
    ]


@pytest.mark.parametrize("path", ["grpc", "shared_memory", "feed"])
def test_values_beyond_their_limits_are_refused_by_name(path: str) -> None:
    (fault,) = faults(f"budget_{path}.egress_us=0.0005")
    assert fault == f"budget_{path}.egress_us: must be 0.001 to 100_000_000; 0 is no bound, was 0.0005 (in --set)"
    (fault,) = faults(f"budget_{path}.total_us=-1")
    assert "0 is budget.total_us, was -1" in fault


def test_breaker_may_be_turned_off_but_may_not_close_at_once() -> None:
    assert load("budget.breaker_run=0").budget.breaker_run == 0
    (fault,) = faults("budget.breaker_close_s=0")
    assert fault == "budget.breaker_close_s: must be 0.1 to 3600, was 0 (in --set)"
