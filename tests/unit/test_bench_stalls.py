"""Stalls of the machine: which ticks they excuse, and that the probe sees one."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_tuning.bench.stall_probe import StallProbe
from penstock_tuning.bench.stalls import Stalls

MS = 1_000_000


def stalls(*windows: tuple[int, int]) -> Stalls:
    return Stalls(np.array(windows, dtype=np.int64).reshape(-1, 2), 0, "fifo")


def test_tick_is_stalled_where_its_way_overlaps_a_window() -> None:
    seen = stalls((100, 200), (400, 500))
    scheduled = np.array([10, 50, 150, 199, 201, 390, 501])
    received = np.array([99, 100, 160, 900, 399, 450, 600])
    assert seen.mask(scheduled, received).tolist() == [False, True, True, True, False, True, False]


def test_lost_tick_is_never_excused() -> None:
    seen = stalls((100, 200))
    scheduled, received = np.array([150, 150]), np.array([160, 0])
    assert seen.mask(scheduled, received).tolist() == [True, False]
    figures = seen.figures(scheduled, received)
    assert figures["share_within_5ms_outside_stalls"] == 0
    assert figures["ticks_in_stalls"] == 1


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=6),
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)), min_size=1, max_size=8),
)
def test_mask_is_the_overlap_with_any_window(windows: list[tuple[int, int]], ticks: list[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in windows]
    ways = [(scheduled, scheduled + took) for scheduled, took in ticks]
    expected = [any(start <= way[1] and end >= way[0] for start, end in spans) for way in ways]
    scheduled, received = np.array(ways).T
    assert stalls(*spans).mask(scheduled, received).tolist() == expected


def test_share_outside_stalls_leaves_out_exactly_the_stalled_ticks() -> None:
    scheduled = np.arange(1, 101) * 10 * MS
    received = scheduled + MS
    received[[20, 70]] = scheduled[[20, 70]] + 8 * MS
    seen = stalls((int(scheduled[20]) + MS, int(scheduled[20]) + 7 * MS))
    figures = seen.figures(scheduled, received)
    assert figures["share_within_5ms_outside_stalls"] == 98 / 99
    assert (figures["stalls"], figures["stalled_ms"], figures["ticks_in_stalls"]) == (1, 6.0, 1)


def test_probe_sees_a_sleeper_that_was_held_up() -> None:
    processor = min(os.sched_getaffinity(0))
    with StallProbe([processor]) as probe:
        time.sleep(0.02)
        probe._sleepers[0].send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        after_ns = time.monotonic_ns()
        probe._sleepers[0].send_signal(signal.SIGCONT)
        time.sleep(0.02)
    assert probe.stalls.worst_ns >= 45 * MS
    held = [(due, woke) for due, woke in probe.stalls.windows_ns.tolist() if woke >= after_ns and due <= after_ns]
    assert len(held) == 1
    assert probe.stalls.priority in {"fifo", "ordinary"}
    assert all(sleeper.poll() == 0 for sleeper in probe._sleepers)
