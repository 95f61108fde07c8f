"""The cycle counter: where it is refused, and why; how it is calibrated; that a jump or a drift breaks it for good."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from penstock_daemon.clocks.cycles import read_anchor
from penstock_daemon.clocks.tsc import BASELINE_NS, DRIFT_PPB, JUMP_NS, WANDER_PPB, TscClock, calibrate, refusal
from support.clocks import SimulatedCounter, SimulatedHost

SOUND = "fpu tsc constant_tsc nonstop_tsc"


def host_tree(root: Path, *flags: str, sources: str = "tsc hpet acpi_pm") -> Path:
    """Write what /proc and /sys say of a host's CPUs, one line of flags for each."""
    (root / "proc").mkdir()
    text = "".join(f"processor\t: {cpu}\nflags\t\t: {line}\n\n" for cpu, line in enumerate(flags))
    (root / "proc/cpuinfo").write_text(text)
    folder = root / "sys/devices/system/clocksource/clocksource0"
    folder.mkdir(parents=True)
    (folder / "available_clocksource").write_text(f"{sources}\n")
    return root


def calibrated(host: SimulatedHost, counter: SimulatedCounter) -> TscClock:
    first = counter.anchor()
    host.pass_ns(BASELINE_NS)
    return TscClock(first, counter.anchor())


def test_invariant_counter_is_taken(tmp_path: Path):
    assert refusal(host_tree(tmp_path, SOUND, SOUND), "x86_64") == ""


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("fpu tsc nonstop_tsc",), "lacks constant_tsc"),
        ((SOUND, "fpu tsc constant_tsc"), "lacks nonstop_tsc"),
        (("fpu tsc",), "lacks constant_tsc and nonstop_tsc"),
        (("fpu tsc hypervisor",), "the hypervisor hides or lacks it: pass the host's CPU flags through"),
        ((), "names no flags"),
    ],
)
def test_counter_that_is_not_invariant_is_refused(tmp_path: Path, flags: tuple[str, ...], sentence: str):
    assert sentence in refusal(host_tree(tmp_path, *flags), "x86_64")


def test_counter_that_the_kernel_gave_up_is_refused(tmp_path: Path):
    said = refusal(host_tree(tmp_path, SOUND, sources="kvm-clock acpi_pm"), "x86_64")
    assert said == "the kernel does not use the TSC itself: available_clocksource has kvm-clock acpi_pm"


def test_other_machines_have_no_such_counter(tmp_path: Path):
    assert refusal(host_tree(tmp_path, SOUND), "aarch64") == "this CPU (aarch64) has no TSC that a program may read"


def test_host_that_says_nothing_of_its_cpus_is_refused(tmp_path: Path):
    assert "/proc/cpuinfo can't be read" in refusal(tmp_path, "x86_64")


def test_rate_is_that_of_the_counter_within_its_error():
    host = SimulatedHost()
    counter = SimulatedCounter(host, 3.1e9)
    rate = calibrated(host, counter).rate
    assert rate.hertz == pytest.approx(3.1e9, rel=rate.error_ppb * 1e-9)
    assert rate.error_ppb < 20_000
    assert rate.ns(3_100_000) == pytest.approx(1_000_000, abs=1_000_000 * rate.error_ppb * 1e-9 + 1)


def test_rate_gets_better_and_the_error_shrinks_at_every_look():
    host = SimulatedHost()
    counter = SimulatedCounter(host)
    clock = calibrated(host, counter)
    host.pass_ns(10**9)
    grown_ns, first_ppb = clock.error_ns(counter.cycles()), clock.rate.error_ppb
    assert clock.watch(counter.anchor())
    assert clock.error_ns(counter.cycles()) < grown_ns
    assert clock.rate.error_ppb < first_ppb / 10


def test_bound_holds_for_an_oscillator_that_wanders_though_its_rate_is_well_known():
    host = SimulatedHost()
    counter = SimulatedCounter(host)
    clock = calibrated(host, counter)
    for _ in range(100):
        host.pass_ns(10**9)
        assert clock.watch(counter.anchor())
    assert clock.rate.error_ppb < 50
    counter.run_at(2.5e9 * (1 + 0.9 * WANDER_PPB * 1e-9))
    host.pass_ns(10 * 10**9)
    cycles = counter.cycles()
    off_ns = abs(clock.raw_ns(cycles) - host.now_ns)
    assert 8_000 < off_ns <= clock.error_ns(cycles)


def test_anchors_too_near_or_a_counter_that_stands_still_give_no_rate():
    host = SimulatedHost()
    first = SimulatedCounter(host).anchor()
    host.pass_ns(BASELINE_NS // 2)
    assert calibrate(first, first._replace(cycles=first.cycles + 10**6, raw_ns=host.now_ns)) is None
    host.pass_ns(BASELINE_NS)
    with pytest.raises(ValueError, match="the TSC does not count: 0 cycles in"):
        TscClock(first, first._replace(raw_ns=host.now_ns))


@pytest.mark.parametrize("cycles", [2.5 * 10 * JUMP_NS, -2.5 * 10 * JUMP_NS, -1e12])
def test_jump_breaks_it_for_good(cycles: float):
    host = SimulatedHost()
    counter = SimulatedCounter(host)
    clock = calibrated(host, counter)
    host.pass_ns(50_000_000)
    assert clock.watch(counter.anchor())
    counter.jump(cycles)
    host.pass_ns(50_000_000)
    assert not clock.watch(counter.anchor())
    assert clock.broken
    assert not clock.reading(counter.cycles()).synchronised
    counter.jump(-cycles)
    host.pass_ns(50_000_000)
    assert not clock.watch(counter.anchor()), "it came back to where it was"


def test_another_rate_breaks_it():
    host = SimulatedHost()
    counter = SimulatedCounter(host)
    clock = calibrated(host, counter)
    host.pass_ns(10**9)
    assert clock.watch(counter.anchor())
    counter.run_at(2.5e9 * (1 + 5 * DRIFT_PPB * 1e-9))
    host.pass_ns(10**9)
    assert not clock.watch(counter.anchor())
    assert "ns off after" in clock.broken


def test_slow_drift_beyond_the_bound_breaks_it_too():
    host = SimulatedHost()
    counter = SimulatedCounter(host)
    clock = calibrated(host, counter)
    looks = 0
    while clock.watch(counter.anchor()):
        looks += 1
        assert looks < 200, f"its rate is {clock.drift_ppb} ppb off, and nobody minds"
        counter.run_at(counter.hertz * (1 + 2e-6))  # 2 ppm more from each look to the next.
        host.pass_ns(10**9)
    assert "its rate moved by" in clock.broken
    assert looks >= 5, "a wander that is allowed"


@pytest.mark.skipif(bool(refusal()), reason=refusal() or "sound")
def test_this_host_s_counter_tells_the_time_within_its_bound():
    first = read_anchor()
    last = read_anchor()
    while last.raw_ns - first.raw_ns < BASELINE_NS:
        last = read_anchor()
    clock = TscClock(first, last)
    seen = read_anchor()
    assert abs(clock.raw_ns(seen.cycles) - seen.raw_ns) <= clock.error_ns(seen.cycles) + seen.error_ns
    assert clock.watch(seen), clock.broken
    before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert first.raw_ns <= seen.raw_ns <= before_ns
