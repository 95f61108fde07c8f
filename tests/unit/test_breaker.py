"""When the breaker opens and closes, by a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock_daemon.breaker import Breaker, BreakerState, Transition
from support.clock import HandClock

CLOSE_NS = 5_000_000_000


def test_breaker_opens_at_a_trip_and_closes_after_so_long_without_a_stale_prediction() -> None:
    clock, breaker = HandClock(), Breaker(CLOSE_NS)
    assert breaker.look(clock(), 0, 0) is None
    stale_ns = clock.advance(seconds=1)
    assert breaker.look(clock(), 1, stale_ns) == Transition(BreakerState.OPEN, trips=1, open_ns=0)
    assert breaker.open
    clock.advance(ns=CLOSE_NS - 1)
    assert breaker.look(clock(), 1, stale_ns) is None
    clock.advance(ns=1)
    assert breaker.look(clock(), 1, stale_ns) == Transition(BreakerState.CLOSED, trips=0, open_ns=CLOSE_NS)
    assert not breaker.open


def test_single_stale_predictions_open_nothing_but_keep_open_what_is() -> None:
    clock, breaker = HandClock(), Breaker(CLOSE_NS)
    for _ in range(10):
        assert breaker.look(clock.advance(seconds=1), 0, clock()) is None
    breaker.look(clock(), 1, clock())
    for _ in range(10):
        stale_ns = clock.advance(ns=CLOSE_NS - 1)
        assert breaker.look(clock(), 1, stale_ns) is None, "one STALE prediction is enough to wait anew"
    assert breaker.open


def test_trips_while_it_is_open_are_told_when_it_closes() -> None:
    clock, breaker = HandClock(), Breaker(CLOSE_NS)
    breaker.look(clock(), 2, clock())
    for trips in (3, 4, 5):
        assert breaker.look(clock.advance(seconds=1), trips, clock()) is None
    stale_ns = clock()
    clock.advance(seconds=5)
    assert breaker.look(clock(), 5, stale_ns) == Transition(BreakerState.CLOSED, trips=3, open_ns=8_000_000_000)
    assert breaker.look(clock(), 5, stale_ns) is None
    assert breaker.look(clock(), 6, clock()) == Transition(BreakerState.OPEN, trips=1, open_ns=0)
    assert breaker.opened == 2


def test_trip_that_is_seen_late_still_opens_it_for_the_whole_time() -> None:
    clock, breaker = HandClock(), Breaker(CLOSE_NS)
    stale_ns = clock()
    clock.advance(seconds=60)  # A daemon that was stopped as a whole.
    assert breaker.look(clock(), 1, stale_ns) is not None
    assert breaker.look(clock.advance(seconds=1), 1, stale_ns) is None
    assert breaker.look(clock.advance(seconds=4), 1, stale_ns) is not None


def test_trips_of_the_past_open_nothing() -> None:
    clock, breaker = HandClock(), Breaker(CLOSE_NS, trips=7)
    assert breaker.look(clock(), 7, clock()) is None
    assert breaker.look(clock(), 8, clock()) == Transition(BreakerState.OPEN, trips=1, open_ns=0)


@given(st.lists(st.tuples(st.integers(0, 3 * CLOSE_NS), st.sampled_from([0, 0, 1, 3]), st.booleans()), max_size=60))
def test_whatever_comes_it_neither_flaps_nor_stays_open_for_ever(steps: list[tuple[int, int, bool]]) -> None:
    clock, breaker = HandClock(), Breaker(CLOSE_NS)
    trips = told = stale_ns = opened_ns = 0
    for step_ns, tripped, stale in steps:
        now_ns = clock.advance(ns=step_ns)
        trips += tripped
        if tripped or stale:
            stale_ns = now_ns
        was_open = breaker.open
        transition = breaker.look(now_ns, trips, stale_ns)
        assert (transition is not None) == (breaker.open != was_open)
        if transition is not None:
            told += transition.trips
            if breaker.open:
                assert tripped
                opened_ns = now_ns
            else:
                assert now_ns - opened_ns >= CLOSE_NS
                assert now_ns - stale_ns >= CLOSE_NS
                assert transition.open_ns == now_ns - opened_ns
        elif tripped:
            assert breaker.open, "a trip leaves it open in any case"
        assert breaker.open or told == trips, "every trip is told once"
    clock.advance(ns=CLOSE_NS)
    breaker.look(clock(), trips, stale_ns)
    assert not breaker.open
