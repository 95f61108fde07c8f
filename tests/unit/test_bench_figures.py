"""Figures of benchmarks: each can be computed again from the raw times, and nothing lost is forgotten."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.figures import BOUND_NS, latency_figures, median_of
from penstock_tuning.bench.market import repeated
from penstock_tuning.bench.memory import floor_growth_kib
from penstock_tuning.bench.outcome import AIMS, Aim, Outcome, number_text
from penstock_tuning.bench.raw import check_raw_name, raw_rows, save_raw
from support.tick_arrays import quotes


@given(st.lists(st.integers(1, 20_000_000), min_size=1, max_size=300), st.integers(0, 3))
def test_percentiles_are_those_of_a_plain_sort(latencies_ns: list[int], lost: int) -> None:
    scheduled = np.arange(len(latencies_ns) + lost, dtype=np.int64) * 1000 + 10**15
    received = np.append(scheduled[: len(latencies_ns)] + latencies_ns, np.zeros(lost, dtype=np.int64))
    figures = latency_figures(scheduled, received)
    ascending = sorted(latencies_ns)
    for key, share in (("p50_us", 0.5), ("p95_us", 0.95), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)):
        assert figures[key] == ascending[max(math.ceil(share * len(ascending)), 1) - 1] / 1e3
    within = sum(latency <= BOUND_NS for latency in latencies_ns)
    assert figures["share_within_5ms"] == within / len(scheduled)


def test_figures_can_be_computed_again_from_the_raw_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    scheduled = np.sort(noise.integers(10**15, 10**15 + 10**9, 1000))
    received = scheduled + noise.integers(1, 8_000_000, 1000)
    received[[3, 500]] = 0
    save_raw(tmp_path / "raw.npy", [raw_rows(7, scheduled, scheduled + 5, received)])
    rows = np.load(tmp_path / "raw.npy")
    # The lines of docs/benchmarks.md.
    answered = rows[rows["received"] > 0]
    latency_us = (answered["received"] - answered["scheduled"]) / 1e3
    p99_us = np.percentile(latency_us, 99, method="inverted_cdf")
    share = np.count_nonzero(latency_us <= 5000) / len(rows)
    figures = latency_figures(scheduled, received)
    assert (p99_us, share) == (figures["p99_us"], figures["share_within_5ms"])
    assert rows["sequence"].tolist() == list(range(1000))
    assert set(rows["series"].tolist()) == {7}


def test_no_answer_at_all_gives_zero_shares_and_no_failure() -> None:
    figures = latency_figures(np.array([1, 2]), np.array([0, 0]))
    assert figures["share_within_5ms"] == 0
    assert figures["max_us"] == 0
    assert latency_figures(np.zeros(0, np.int64), np.zeros(0, np.int64))["share_within_5ms"] == 0


def test_repeats_give_medians_of_figures_and_sums_of_counts() -> None:
    repeats = [{"p50_us": 1.0, "lost": 0}, {"p50_us": 100.0, "lost": 1}, {"p50_us": 3.0, "lost": 0}]
    assert median_of(repeats, summed=["lost"]) == {"p50_us": 3.0, "lost": 1}


def test_repeated_ticks_go_on_in_time_and_keep_undefined_times() -> None:
    ticks = quotes(10)
    ticks["ts_event"][3] = 2**64 - 1
    more = repeated(ticks, 35)
    assert len(more) == 35
    assert np.all(np.diff(more["ts_recv"].astype(np.int64)) >= 0)
    assert (more["ts_event"] == np.uint64(2**64 - 1)).sum() == 4
    assert np.array_equal(more["bid_px"][30:], ticks["bid_px"][:5])


def test_growth_is_that_of_the_floor_under_the_buffers() -> None:
    buffers = [0, 3000, 1000, 0, 500, 2500, 0, 10]
    steady = [(index * 10, 1000 + more) for index, more in enumerate(buffers)]
    leaking = [(answered, kib + answered) for answered, kib in steady]
    assert floor_growth_kib(steady, 0) == 0
    assert floor_growth_kib(leaking, 0) == 2 * 60
    assert floor_growth_kib([(0, 5000), (5, 5000), *((10 + at, kib) for at, kib in steady)], 10) == 0


def test_missed_aim_is_in_json_text_and_list() -> None:
    figures = {"grpc_predictions_per_s": 99_999.0}
    outcome = Outcome("throughput", figures, {"market": "m"}, ("grpc_predictions_per_s",))
    assert outcome.missed == ["grpc_predictions_per_s >= 100000, was 99999"]
    assert outcome.as_json({"cores": 2})["aims"]["grpc_predictions_per_s"] == {"aim": ">= 100000", "met": False}
    assert "MISSED" in outcome.as_text()
    assert not Outcome("throughput", {"grpc_predictions_per_s": 100_000}, {}, ()).missed


def test_every_benchmark_has_an_aim() -> None:
    assert set(AIMS) == {
        "grpc",
        "load",
        "throughput",
        "memory",
        "startup",
        "kernels",
        "reference",
        "gpu",
        "feed",
        "shm",
        "stamps",
    }
    assert Aim("lost", 0).met({"lost": 0})
    assert not Aim("lost", 0).met({"lost": 1})


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1_500_000, "1,500,000"), (0.99951, "0.9995"), (310.06, "310.1"), (2048.7, "2,049")]
)
def test_numbers_keep_the_digits_that_tell_something(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize("name", ["raw.txt", "no/such/folder/raw.npy"])
def test_raw_file_that_cannot_be_written_is_refused_before_measuring(name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--raw must"):
        check_raw_name(tmp_path / name)
