"""Labels look ahead exactly as far as they say, and no row is trained on with a label from a later segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.v1.records import UNDEFINED_PRICE
from penstock_kernels.model import Horizon, HorizonKind
from penstock_tuning.model.labelled import NO_SEGMENT, label
from penstock_tuning.model.recordings import Stream
from penstock_tuning.model.targets import NEVER_NS, doubled_mid, make_targets, stamps
from support.tick_arrays import quotes

HORIZONS = (
    Horizon("next", HorizonKind.NEXT_MOVE),
    Horizon("next_2ms", HorizonKind.NEXT_MOVE, duration_ns=2_000_000),
    Horizon("3ev", HorizonKind.EVENTS, events=3),
    Horizon("2ms", HorizonKind.TIME, duration_ns=2_000_000),
)


@st.composite
def streams(draw: st.DrawFn) -> np.ndarray:
    """Draw the ticks of one instrument: flat stretches, shared stamps, clocks that step back, one-sided books."""
    ticks = quotes(draw(st.integers(1, 40)), seed=draw(st.integers(0, 1000)), gap_ns=draw(st.sampled_from([1, 10**6])))
    steps = draw(st.lists(st.sampled_from([-1, 0, 0, 0, 1]), min_size=len(ticks), max_size=len(ticks)))
    ticks["bid_px"] = 10**12 + 10**7 * np.cumsum(steps)
    ticks["ask_px"] = ticks["bid_px"] + 10**7
    for row in draw(st.lists(st.integers(0, len(ticks) - 1), max_size=4)):
        ticks[draw(st.sampled_from(["bid_px", "ask_px"]))][row] = UNDEFINED_PRICE
    for row in draw(st.lists(st.integers(0, len(ticks) - 1), max_size=4)):
        ticks["ts_recv"][row] -= np.uint64(draw(st.integers(0, 5 * 10**6)))
    return ticks


def plain_label(ticks: np.ndarray, horizon: Horizon, row: int) -> tuple[float, int, int] | None:
    """The definition, read aloud: (return, direction, known_ns) of one row, or None."""
    mid, stamp = [int(one) for one in doubled_mid(ticks)], [int(one) for one in stamps(ticks)]
    if mid[row] <= 0:
        return None
    if horizon.kind == HorizonKind.NEXT_MOVE:
        for end in range(row + 1, len(ticks)):
            if stamp[end] > stamp[row] + horizon.duration_ns and mid[end] != mid[end - 1] and mid[end - 1] > 0:
                return mid[end] / mid[row] - 1.0, (1 if mid[end] > mid[end - 1] else -1), stamp[end]
        return None
    if horizon.kind == HorizonKind.EVENTS:
        if row + horizon.events >= len(ticks):
            return None
        end = row + horizon.events
        known_ns = stamp[end]
    else:
        known_ns = stamp[row] + horizon.duration_ns
        if stamp[-1] <= known_ns:
            return None
        end = max(index for index in range(len(ticks)) if stamp[index] <= known_ns)
    return mid[end] / mid[row] - 1.0, int(np.sign(mid[end] - mid[row])), known_ns


@pytest.mark.parametrize("horizon", HORIZONS, ids=lambda one: one.name)
@settings(max_examples=60, deadline=None)
@given(ticks=streams())
def test_labels_are_those_of_the_plain_definition(horizon: Horizon, ticks: np.ndarray) -> None:
    targets = make_targets(ticks, horizon)
    for row in range(len(ticks)):
        expected = plain_label(ticks, horizon, row)
        assert bool(targets.known[row]) == (expected is not None)
        if expected is not None:
            assert targets.returns[row] == pytest.approx(expected[0], abs=1e-15)
            assert (targets.direction[row], targets.known_ns[row]) == expected[1:]


@pytest.mark.parametrize("horizon", HORIZONS, ids=lambda one: one.name)
@settings(max_examples=60, deadline=None)
@given(ticks=streams(), cut=st.integers(0, 40), shift=st.sampled_from([-(10**9), 10**9]))
def test_no_tick_stamped_after_a_label_was_known_can_change_it(
    horizon: Horizon, ticks: np.ndarray, cut: int, shift: int
) -> None:
    before = make_targets(ticks, horizon)
    changed = ticks.copy()
    changed["bid_px"][cut:] = 10**12 + shift
    changed["ask_px"][cut:] = 10**12 + shift + 10**7
    after = make_targets(changed, horizon)
    first_changed_ns = stamps(ticks)[min(cut, len(ticks) - 1)] if cut < len(ticks) else NEVER_NS
    sure = before.known & (before.known_ns < first_changed_ns)
    assert (after.returns[sure] == before.returns[sure]).all()
    assert (after.direction[sure] == before.direction[sure]).all()
    assert (after.known_ns[sure] == before.known_ns[sure]).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), first=st.floats(0.0, 1.0), second=st.floats(0.0, 1.0))
def test_segments_are_purged_of_labels_that_were_known_only_later(seed: int, first: float, second: float) -> None:
    ticks = quotes(600, seed=seed)
    span = stamps(ticks)
    boundaries = sorted(int(span[0] + share * (span[-1] - span[0])) for share in (first, second))
    labelled = label(Stream("one", ticks), HORIZONS, boundaries)
    edges = [int(span[0]), *boundaries, NEVER_NS]
    for row in np.flatnonzero(labelled.segment != NO_SEGMENT):
        segment = labelled.segment[row]
        assert edges[segment] <= span[row]
        for targets in labelled.targets:
            assert targets.known[row]
            assert targets.known_ns[row] < edges[segment + 1]
    dropped = np.flatnonzero(labelled.segment[256:] == NO_SEGMENT) + 256
    for row in dropped:
        cut = [edge for edge in boundaries if span[row] < edge]
        later = max(int(targets.known_ns[row]) for targets in labelled.targets)
        assert later == NEVER_NS or any(later >= edge for edge in cut), "a row was dropped without a reason"


@pytest.mark.parametrize("horizon", HORIZONS, ids=lambda one: one.name)
@given(ticks=streams())
def test_a_row_counts_less_the_more_rows_wait_for_the_same_change(ticks: np.ndarray, horizon: Horizon) -> None:
    found = make_targets(ticks, horizon)
    if horizon.kind != HorizonKind.NEXT_MOVE:
        assert (found.weights == 1.0).all()
        return
    mid, stamp = doubled_mid(ticks), stamps(ticks)
    changes = [row for row in range(1, len(mid)) if mid[row] != mid[row - 1] and mid[row - 1] > 0]

    def awaited(row: int) -> int | None:
        return next((one for one in changes if one > row and stamp[one] > stamp[row] + horizon.duration_ns), None)

    ends = [awaited(row) for row in range(len(mid))]
    for row in np.flatnonzero(found.known):
        assert found.weights[row] == 1.0 / np.sqrt(ends.count(ends[row]))
