"""When ticks are due, which ticks are taken, and a timer that wakes on time."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.replay_schedule import SPLIT_TICKS_MAX, cut, due_offsets_ns, parse_speed, random_splits
from penstock_client.replay_timer import LoopTimer, tighten_timer_slack

TIMES = st.lists(st.integers(0, 2**63 - 1), max_size=30).map(lambda times: np.array(times, dtype=np.uint64))


def test_at_true_speed_ticks_are_due_as_they_came():
    times = np.array([100, 100, 350, 1_000_000_350], dtype=np.uint64)
    assert due_offsets_ns(times, 1).tolist() == [0, 0, 250, 1_000_000_250]


def test_at_a_higher_speed_the_gaps_shrink():
    times = np.array([0, 1000, 3001], dtype=np.uint64)
    assert due_offsets_ns(times, 2).tolist() == [0, 500, 1500]
    assert due_offsets_ns(times, 0.5).tolist() == [0, 2000, 6002]


def test_at_full_speed_all_are_due_at_once():
    assert due_offsets_ns(np.array([5, 7, 2**62], dtype=np.uint64), math.inf).tolist() == [0, 0, 0]


def test_a_time_that_runs_backwards_is_due_with_the_tick_before():
    assert due_offsets_ns(np.array([50, 40, 60, 10], dtype=np.uint64), 1).tolist() == [0, 0, 10, 10]


@given(TIMES, st.floats(0.001, 1e6))
def test_no_tick_is_due_before_the_one_in_front_of_it(times, speed):
    offsets = due_offsets_ns(times, speed)
    assert len(offsets) == len(times)
    assert (np.diff(offsets) >= 0).all()
    assert (offsets[:1] == 0).all()


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("50", 50.0), ("0.25", 0.25), ("max", math.inf)])
def test_a_speed_is_a_number_or_max(text, speed):
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf", ""])
def test_another_speed_is_refused(text):
    with pytest.raises(ValueError, match="speed must be a number above 0, or max"):
        parse_speed(text)


def test_a_cut_takes_seconds_of_market_time():
    times = np.array([0, 1, 2, 2, 3, 9], dtype=np.uint64) * np.uint64(10**9)
    assert cut(times, 0, None) == slice(0, 6)
    assert cut(times, 1, 2) == slice(1, 4)
    assert cut(times, 4, 1) == slice(4, 5)
    assert cut(times, 5, 1e-12) == slice(5, 6)
    assert cut(times, 6, 3) == slice(6, 6)


@given(st.integers(1, 5000), st.integers(0, 2**63))
def test_random_splits_cover_every_tick_once(ticks, seed):
    splits = random_splits(ticks, seed)
    sizes = np.diff(splits, prepend=0)
    assert splits[-1] == ticks
    assert sizes.min() >= 1
    assert sizes.max() <= SPLIT_TICKS_MAX
    assert splits.tolist() == random_splits(ticks, seed).tolist()


async def test_the_timer_calls_back_at_its_time_and_not_before():
    fired: list[int] = []
    done = asyncio.Event()
    with LoopTimer(lambda: (fired.append(time.monotonic_ns()), done.set())) as timer:
        due_ns = time.monotonic_ns() + 3_000_000
        timer.arm(due_ns)
        await asyncio.wait_for(done.wait(), 10)
    assert len(fired) == 1
    assert fired[0] >= due_ns


async def test_arming_again_takes_the_place_of_the_earlier_time():
    fired: list[int] = []
    done = asyncio.Event()
    with LoopTimer(lambda: (fired.append(1), done.set())) as timer:
        timer.arm(time.monotonic_ns() + 3_600_000_000_000)
        timer.arm(0)
        await asyncio.wait_for(done.wait(), 10)
        await asyncio.sleep(0.01)
        assert fired == [1]
        timer.arm(time.monotonic_ns() + 1_000_000)
    await asyncio.sleep(0.01)
    assert fired == [1], "a closed timer calls nobody"


def test_the_timer_slack_becomes_a_nanosecond():
    tighten_timer_slack()
    assert Path("/proc/self/timerslack_ns").read_text() == "1\n"
