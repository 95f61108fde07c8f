"""The histogram's buckets: every bound that people use is an edge, nothing falls between, three digits are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1 import histogram
from penstock.v1.histogram import BUCKETS, OVERFLOW_BUCKET, bucket_of, lower_edge_ns, lower_edges_ns

HUNDRED_SECONDS_NS = 100_000_000_000

durations_ns = st.one_of(
    st.integers(0, HUNDRED_SECONDS_NS - 1),
    st.integers(0, 2_000),
    st.builds(lambda digits, decade: digits * 10**decade, st.integers(1, 999), st.integers(0, 8)),
).filter(lambda duration_ns: duration_ns < HUNDRED_SECONDS_NS)


def test_lower_edge_of_every_bucket_falls_into_that_bucket() -> None:
    assert [bucket_of(lower_edge_ns(bucket)) for bucket in range(BUCKETS)] == list(range(BUCKETS))


def test_last_duration_before_every_edge_falls_into_the_bucket_before() -> None:
    assert [bucket_of(lower_edge_ns(bucket) - 1) for bucket in range(1, BUCKETS)] == list(range(BUCKETS - 1))


def test_edges_rise_from_zero_to_a_hundred_seconds() -> None:
    edges_ns = lower_edges_ns()
    assert edges_ns.dtype == np.int64
    assert edges_ns.shape == (BUCKETS,) == (8_201,)
    assert (edges_ns[0], edges_ns[1_000], edges_ns[OVERFLOW_BUCKET]) == (0, 1_000, HUNDRED_SECONDS_NS)
    assert (np.diff(edges_ns) > 0).all()


@pytest.mark.parametrize("bound_ms", [0.1, 0.5, 1, 2, 3, 4, 5, 6, 10, 100, 1_000, 10_000])
def test_bounds_that_people_use_are_edges(bound_ms: float) -> None:
    bound_ns = int(bound_ms * 1_000_000)
    assert lower_edge_ns(bucket_of(bound_ns)) == bound_ns


@given(durations_ns)
def test_bucket_holds_the_duration_and_keeps_three_digits(duration_ns: int) -> None:
    bucket = bucket_of(duration_ns)
    lower_ns, upper_ns = lower_edge_ns(bucket), lower_edge_ns(bucket + 1)
    assert lower_ns <= duration_ns < upper_ns
    assert upper_ns - lower_ns <= max(1, lower_ns / 100)


@given(st.integers(HUNDRED_SECONDS_NS, 2**64))
def test_everything_from_a_hundred_seconds_on_overflows(duration_ns: int) -> None:
    assert bucket_of(duration_ns) == OVERFLOW_BUCKET


@given(st.integers(-(2**64), -1))
def test_negative_durations_fall_into_the_first_bucket(duration_ns: int) -> None:
    assert bucket_of(duration_ns) == 0


@given(durations_ns, durations_ns)
def test_longer_durations_never_fall_into_an_earlier_bucket(one_ns: int, other_ns: int) -> None:
    assert (bucket_of(one_ns) <= bucket_of(other_ns)) is (
        one_ns <= other_ns or bucket_of(one_ns) == bucket_of(other_ns)
    )


@pytest.mark.parametrize("bucket", [-1, BUCKETS])
def test_bucket_that_does_not_exist_is_refused_with_its_number(bucket: int) -> None:
    with pytest.raises(ValueError, match=rf"0 to {BUCKETS - 1}: bucket={bucket}"):
        lower_edge_ns(bucket)


def counts_of(taken_ns: list[int]) -> np.ndarray:
    return np.bincount([bucket_of(duration_ns) for duration_ns in taken_ns], minlength=BUCKETS).astype(np.int64)


@given(st.lists(durations_ns, max_size=60), st.sampled_from([1_000_000, 5_000_000, 6_000_000, 100, 0]))
def test_count_below_an_edge_is_exact(taken_ns: list[int], bound_ns: int) -> None:
    assert histogram.count_below(counts_of(taken_ns), bound_ns) == sum(taken < bound_ns for taken in taken_ns)


@given(st.lists(durations_ns, min_size=1, max_size=60), st.floats(0, 1))
def test_percentile_is_the_bucket_of_the_ranked_duration(taken_ns: list[int], share: float) -> None:
    rank = min(max(int(np.ceil(share * len(taken_ns))), 1), len(taken_ns))
    assert histogram.percentile_ns(counts_of(taken_ns), share) == lower_edge_ns(bucket_of(sorted(taken_ns)[rank - 1]))


def test_percentile_of_nothing_is_zero() -> None:
    assert histogram.percentile_ns(np.zeros(BUCKETS, np.int64), 0.99) == 0
