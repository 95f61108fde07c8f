"""Jitter: gaps that are really there are found, and what cannot be measured is said; the histogram is the daemon's."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1 import histogram as daemons
from penstock_host.measure import histogram as ours
from penstock_host.measure import jitter as measure_jitter
from penstock_host.measure import spin as measure_spin
from penstock_host.measure.histogram import count_from, counted, quantile_ns
from penstock_host.measure.progress import Progress
from penstock_host.measure.result import MeasurementError

ALLOWED = frozenset(os.sched_getaffinity(0))
CPU = min(ALLOWED)
SPIN = Path(measure_spin.__file__)


def order(**changes: int) -> dict[str, int]:
    soon_ns = time.monotonic_ns() + 200_000_000
    usual = {"cpu": CPU, "start_ns": soon_ns, "slice_ns": 50_000_000, "slices": 4, "threshold_ns": 1000}
    return {**usual, "parent": os.getpid(), **changes}


def test_buckets_are_those_of_the_daemons_latencies() -> None:
    bounds = [daemons.lower_edge_ns(bucket) for bucket in range(0, daemons.BUCKETS, 7)]
    assert [ours.lower_edge_ns(ours.bucket_of(bound)) for bound in bounds] == bounds
    assert ours.OVERFLOW_BUCKET == daemons.OVERFLOW_BUCKET
    with pytest.raises(ValueError, match="bucket must be in"):
        ours.lower_edge_ns(ours.OVERFLOW_BUCKET + 1)


@given(st.integers(-10, 2 * 10**11))
def test_any_duration_falls_into_the_daemons_bucket(duration_ns: int) -> None:
    assert ours.bucket_of(duration_ns) == daemons.bucket_of(duration_ns)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_is_that_of_the_ordered_list_to_a_bucket(durations: list[int], share: float) -> None:
    ordered = sorted(durations)
    rank = next(number for number in range(1, len(ordered) + 1) if number >= share * len(ordered))
    expected = ours.lower_edge_ns(ours.bucket_of(ordered[rank - 1]))
    assert quantile_ns(counted(durations), share) == expected


def test_child_that_was_stopped_tells_of_the_gap() -> None:
    """A stopped process is what a CPU taken away looks like from inside."""
    child = subprocess.Popen([sys.executable, "-I", "-S", SPIN, json.dumps(order(slices=24))], stdout=subprocess.PIPE)
    while child.poll() is None:  # Again and again: some of these fall into its slices, however long its start takes.
        time.sleep(0.1)
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.08)
        child.send_signal(signal.SIGCONT)
    output, _ = child.communicate(timeout=60)
    found = json.loads(output)
    longest = max(gap for _, gaps in found["slices"] for gap in gaps)
    assert longest >= 70_000_000
    assert all(sum(gaps) <= duration for duration, gaps in found["slices"])


def test_busy_neighbour_on_the_same_cpu_is_seen_as_gaps() -> None:
    code = f"import os, time\nos.sched_setaffinity(0, {{{CPU}}})\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    neighbour = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
    try:
        measured = measure_jitter.measure_jitter(frozenset({CPU}), seconds=1.0)
    finally:
        neighbour.kill()
        neighbour.wait()
    (series,) = measured.series
    assert series.name == f"CPU {CPU}"
    assert series.sum_ns / series.duration_ns > 0.2, "a fair scheduler gives each about half"
    assert count_from(series.counts, 1_000_000) >= 1
    assert series.max_ns == max(piece.max_ns for piece in series.slices)
    assert series.count == sum(piece.count for piece in series.slices)
    assert series.floor_ns["median"] > 0
    assert any("own step" in note for note in measured.notes)


def test_gap_is_written_down_with_its_length_and_ends_its_slice_when_there_is_no_room() -> None:
    times = iter([0, 100, 5_100, 5_200, 9_200, 9_300, 20_000])
    room = [0, 0]
    assert measure_spin._spin(lambda: next(times), 15_000, 1_000, room) == (2, 9_200)
    assert room == [5_000, 4_000]


def test_child_ends_with_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", SPIN, json.dumps(order(parent=1, slices=10_000))],
        capture_output=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert found["orphaned"]
    assert len(found["slices"]) <= 1


def test_threshold_is_at_least_four_steps_of_the_method() -> None:
    measured = measure_jitter.measure_jitter(frozenset({CPU}), seconds=0.1, threshold_us=0.1)
    floor_ns = measured.series[0].floor_ns["median"]
    assert min(ours.lower_edge_ns(bucket) for bucket in measured.series[0].counts) >= min(4 * floor_ns, 990)
    assert any("threshold was raised" in note for note in measured.notes)


def test_child_that_starts_late_measures_all_the_same() -> None:
    late = order(start_ns=time.monotonic_ns() - 10**9, slices=2)
    done = subprocess.run(
        [sys.executable, "-I", "-S", SPIN, json.dumps(late)], capture_output=True, check=True, timeout=20
    )
    assert json.loads(done.stdout)["slices"]


def test_cpu_that_may_not_be_used_is_a_sentence() -> None:
    with pytest.raises(MeasurementError, match=r"CPU 4000: want a CPU that this process may use.*choose among"):
        measure_jitter.measure_jitter(frozenset({4000}), seconds=0.1)


@pytest.mark.parametrize(
    ("cpus", "seconds", "threshold_us", "said"),
    [
        (frozenset(), 1.0, 1.0, "--cpus: want at least one"),
        (frozenset({0}), 0.0, 1.0, "--seconds: want 0.1 to 86,400"),
        (frozenset({0}), 1.0, 0.0, "--threshold-us: want 0.1"),
        (frozenset({0}), float("nan"), 1.0, "--seconds"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(cpus, seconds, threshold_us, said) -> None:
    with pytest.raises(MeasurementError, match=said):
        measure_jitter.measure_jitter(cpus, seconds=seconds, threshold_us=threshold_us)


def test_measuring_leaves_this_process_where_it_was() -> None:
    measure_jitter.measure_jitter(frozenset({CPU}), seconds=0.1)
    assert os.sched_getaffinity(0) == ALLOWED


class Terminal:
    """A stream that says that somebody looks."""

    def __init__(self, *, looked_at: bool) -> None:
        self.text = ""
        self._looked_at = looked_at

    def isatty(self) -> bool:
        return self._looked_at

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_bar_is_drawn_on_a_terminal_alone_and_cleared() -> None:
    for looked_at in (True, False):
        stream = Terminal(looked_at=looked_at)
        with Progress("jitter", 10.0, stream) as progress:  # type: ignore[arg-type]
            assert progress.wait_s == (1.0 if looked_at else None)
        assert stream.text.endswith("\r\x1b[K") is looked_at
        assert bool(stream.text) is looked_at
    assert progress.line(5.0) == f"jitter [{'#' * 15}{'.' * 15}]  50%  5 s left"
    assert "100%" in progress.line(99.0)


def test_histogram_sums_are_the_same_however_slices_are_cut() -> None:
    draws = random.Random(3)
    gaps = [int(draws.lognormvariate(9, 1)) for _ in range(300)]
    whole = counted(gaps)
    assert ours.merged([counted(gaps[:100]), counted(gaps[100:])]) == whole
    assert count_from(whole, 50_000) == sum(gap >= 50_000 for gap in gaps)
