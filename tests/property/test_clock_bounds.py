"""Whatever clocks do within what is allowed, the true offset lies within the bound that is given with the measured one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from penstock_daemon.clocks.bracket import measure
from penstock_daemon.clocks.ptp import narrowest
from penstock_daemon.clocks.seam import Base
from penstock_daemon.clocks.tsc import BASELINE_NS, WANDER_PPB, TscClock
from penstock_daemon.clocks.watch import SLEW_PPB, ClockWatch
from support.clocks import DISCIPLINED, SimulatedClock, SimulatedCounter, SimulatedHost

DELAYS = st.lists(st.integers(0, 2_000) | st.integers(0, 5_000_000), min_size=1, max_size=40)
OFFSETS = st.integers(-(10**18), 10**18)
DRIFTS = st.integers(-SLEW_PPB, SLEW_PPB)


def host_with(delays: list[int]) -> SimulatedHost:
    """Return a host whose looks take these times, in turn."""
    turns = iter(range(10**9))
    return SimulatedHost(delay_ns=lambda: delays[next(turns) % len(delays)])


@given(delays=DELAYS, offset_ns=OFFSETS, drift_ppb=DRIFTS, looks=st.integers(1, 6), later_ns=st.integers(0, 10**10))
def test_measured_offset_is_within_its_bound_now_and_later(
    delays: list[int], offset_ns: int, drift_ppb: int, looks: int, later_ns: int
) -> None:
    host = host_with(delays)
    clock = SimulatedClock(host, offset_ns, drift_ppb)
    measured = measure(Base.PTP, Base.MONOTONIC, clock.read_ns, host.monotonic_ns, looks)
    host.pass_ns(later_ns)
    aged = measured.aged(host.now_ns, SLEW_PPB)
    assert abs(aged.offset_ns - clock.true_offset_ns()) <= aged.error_ns + 1  # The simulated clock has whole ns.


@given(delays=DELAYS, first_ns=OFFSETS, second_ns=OFFSETS)
def test_chained_offset_is_within_the_sum_of_both_bounds(delays: list[int], first_ns: int, second_ns: int) -> None:
    host = host_with(delays)
    wall, card = SimulatedClock(host, first_ns), SimulatedClock(host, second_ns)
    triples = []
    for _ in range(4):
        system_ns, card_ns = wall.read_ns(), card.read_ns()
        triples.append((system_ns, card_ns, wall.read_ns()))
    offset_ns, error_ns = narrowest(triples)
    wall_offset = measure(Base.REALTIME, Base.MONOTONIC, wall.read_ns, host.monotonic_ns)
    card_offset = replace(wall_offset, of=Base.PTP, against=Base.REALTIME, offset_ns=offset_ns, error_ns=error_ns)
    chained = card_offset.then(wall_offset)
    assert chained.error_ns == error_ns + wall_offset.error_ns
    assert abs(chained.offset_ns - card.true_offset_ns()) <= chained.error_ns


@given(
    delays=st.lists(st.integers(0, 2_000), min_size=1, max_size=20),
    hertz=st.floats(0.5e9, 6e9),
    rounds=st.lists(st.tuples(st.integers(1_000_000, 3_000_000_000), st.floats(-0.4, 0.4)), min_size=1, max_size=12),
)
def test_counter_is_within_its_bound_while_its_oscillator_wanders(
    delays: list[int], hertz: float, rounds: list[tuple[int, float]]
) -> None:
    host = host_with(delays)
    counter = SimulatedCounter(host, hertz)
    first = counter.anchor()
    host.pass_ns(BASELINE_NS)
    clock = TscClock(first, counter.anchor())
    for elapsed_ns, wander in rounds:
        counter.run_at(hertz * (1 + wander * WANDER_PPB * 1e-9))
        host.pass_ns(elapsed_ns)
        cycles = counter.cycles()
        assert abs(clock.raw_ns(cycles) - host.now_ns) <= clock.error_ns(cycles)
        assert clock.watch(counter.anchor()), clock.broken


@given(
    delays=DELAYS,
    moves=st.lists(
        st.tuples(st.integers(1, 2_000_000_000), st.sampled_from([0, 0, 1, -1]), st.integers(0, 10**12)), max_size=20
    ),
)
def test_every_step_beyond_doubt_is_counted_and_nothing_else_is(
    delays: list[int], moves: list[tuple[int, int, int]]
) -> None:
    host = host_with(delays)
    wall = SimulatedClock(host, 10**18)
    published: list[int] = []
    watch = ClockWatch(
        published.append, realtime_ns=wall.read_ns, monotonic_ns=host.monotonic_ns, kernel=lambda: DISCIPLINED
    )
    for elapsed_ns, sign, size_ns in moves:
        steps, before = watch.steps, watch.offset
        host.pass_ns(elapsed_ns)
        wall.step(sign * size_ns)
        watch.look()
        doubt_ns = 2 * (before.error_ns + watch.offset.error_ns)
        doubt_ns += (watch.offset.taken_ns - before.taken_ns) * SLEW_PPB // 10**9
        if sign == 0:
            assert watch.steps == steps, "a clock that did not step"
        elif size_ns > doubt_ns:
            assert watch.steps == steps + 1
            assert abs(watch.last_step_ns - sign * size_ns) <= before.error_ns + watch.offset.error_ns
        assert abs(published[-1] - wall.true_offset_ns()) <= watch.offset.error_ns
