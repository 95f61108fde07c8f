"""The seam of clocks: what readings and offsets are worth, the kernel's own clocks and its word on them, read for real."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest

from penstock.v1.records import Clock
from penstock_daemon.clocks.bracket import measure
from penstock_daemon.clocks.gpu import device_offset
from penstock_daemon.clocks.kernel_time import STA_UNSYNC, TIME_ERROR, KernelTime, _Timex, read_kernel_time
from penstock_daemon.clocks.seam import UNKNOWN_NS, Base, ClockError, ClockReading, Epoch, Offset, difference
from penstock_daemon.clocks.system import SteadyClock, WallClock, reader_ns
from penstock_daemon.device import memory
from support.clocks import DISCIPLINED, LEFT_ALONE, SimulatedClock, SimulatedHost


def reading(base: Base, ns: int, error_ns: int = 0, epoch: Epoch = Epoch.BOOT) -> ClockReading:
    return ClockReading(base, Clock.USER, ns, error_ns, synchronised=True, epoch=epoch)


def refuse(_timex: object) -> int:
    raise PermissionError(1, "Operation not permitted")


def test_difference_on_one_clock_carries_no_error():
    later, earlier = reading(Base.REALTIME, 90, 5, Epoch.UNIX), reading(Base.REALTIME, 100, 5, Epoch.UNIX)
    assert (difference(later, earlier).ns, difference(later, earlier).error_ns) == (-10, 0)


def test_difference_across_clocks_of_one_epoch_carries_the_sum_of_both_errors():
    venue, host = reading(Base.REALTIME, 1_000, 300, Epoch.UNIX), reading(Base.PTP, 950, 40, Epoch.UNIX)
    apart = difference(host, venue)
    assert (apart.ns, apart.error_ns, apart.certainly_negative) == (-50, 340, False)
    assert difference(reading(Base.PTP, 600, 40, Epoch.UNIX), venue).certainly_negative


def test_difference_across_clocks_carries_the_errors_of_chained_offsets():
    card = Offset(Base.PTP, Base.REALTIME, 37_000, 400, 10).then(Offset(Base.REALTIME, Base.MONOTONIC, 5_000, 60, 12))
    apart = difference(reading(Base.PTP, 50_000, epoch=Epoch.TAI), reading(Base.MONOTONIC, 7_000), card)
    assert (apart.ns, apart.error_ns) == (1_000, 460)
    assert card.taken_ns == 10
    assert card.turned().map_ns(8_000) == 50_000


def test_clocks_of_two_epochs_are_not_compared_without_an_offset():
    with pytest.raises(ValueError, match=r"need an offset: later=ptp \(own\), earlier=realtime \(unix\)"):
        difference(reading(Base.PTP, 1, epoch=Epoch.OWN), reading(Base.REALTIME, 1, epoch=Epoch.UNIX))
    with pytest.raises(ValueError, match="need an offset"):
        difference(reading(Base.PTP, 1, epoch=Epoch.OWN), reading(Base.GPU, 1, epoch=Epoch.OWN))


def test_error_of_an_offset_grows_with_its_age():
    offset = Offset(Base.GPU, Base.MONOTONIC, 0, 100, taken_ns=1_000)
    assert offset.aged(1_000, 500_000).error_ns == 100
    assert offset.aged(1_000 + 10**9, 500_000).error_ns == 500_100
    assert offset.aged(1, 500_000).error_ns == 100, "a look from before it was taken"


def test_narrowest_of_several_looks_is_the_one_that_counts():
    waits = iter(
        [0, 50_000, 50_000, 10, 10, 90_000, 90_000]
    )  # A look at the host, then the other and the host, in turn.
    host = SimulatedHost(delay_ns=lambda: next(waits))
    clock = SimulatedClock(host, 7_000)
    offset = measure(Base.PTP, Base.MONOTONIC, clock.read_ns, host.monotonic_ns, looks=3)
    widths = (25_000 + 50_000, 25_000 + 10 + 5, 5 + 90_000 + 45_000)
    assert offset.error_ns == -(-min(widths) // 2)


@pytest.mark.parametrize("base", [Base.MONOTONIC, Base.MONOTONIC_RAW])
def test_steady_clocks_run_forward_and_are_their_own_truth(base: Base):
    clock = SteadyClock(base, reader_ns(base))
    first, second = clock.read(), clock.read()
    assert second.ns >= first.ns > 0
    assert (first.error_ns, first.synchronised, first.epoch, first.source) == (0, True, Epoch.BOOT, Clock.USER)


def test_realtime_is_unix_time_with_what_the_kernel_says_of_it():
    seen = WallClock(Base.REALTIME, reader_ns(Base.REALTIME)).read()
    assert abs(seen.ns - time.time_ns()) < 60 * 10**9
    assert seen.epoch == Epoch.UNIX
    assert (seen.error_ns == UNKNOWN_NS) == (not seen.synchronised)


def test_wall_clock_is_as_good_as_the_kernel_says():
    seen = WallClock(Base.REALTIME, lambda: 5, lambda: DISCIPLINED).read()
    assert (seen.ns, seen.error_ns, seen.synchronised) == (5, 3_000_000, True)
    seen = WallClock(Base.REALTIME, lambda: 5, lambda: LEFT_ALONE).read()
    assert (seen.error_ns, seen.synchronised) == (UNKNOWN_NS, False)


def test_tai_is_refused_where_the_kernel_was_not_told_of_leap_seconds():
    seen = WallClock(Base.TAI, lambda: 5, lambda: DISCIPLINED).read()
    assert (seen.epoch, seen.error_ns) == (Epoch.TAI, 3_000_000)
    with pytest.raises(ClockError, match="was not told how far TAI is from UTC"):
        WallClock(Base.TAI, lambda: 5, lambda: LEFT_ALONE).read()


def test_sandbox_without_adjtimex_leaves_realtime_with_an_unknown_error():
    with pytest.raises(ClockError, match=r"adjtimex: .*Operation not permitted.*a sandbox may forbid it"):
        read_kernel_time(refuse)
    seen = WallClock(Base.REALTIME, lambda: 5, lambda: read_kernel_time(refuse)).read()
    assert (seen.ns, seen.error_ns, seen.synchronised) == (5, UNKNOWN_NS, False)
    with pytest.raises(ClockError, match="adjtimex"):
        WallClock(Base.TAI, lambda: 5, lambda: read_kernel_time(refuse)).read()


def test_kernel_says_its_word_on_this_host():
    try:
        word = read_kernel_time()
    except ClockError as refusal:
        pytest.skip(str(refusal))
    assert 0 <= word.maximum_error_ns <= 10**11
    assert abs(word.frequency_ppm) <= 500
    assert 0 <= word.tai_offset_s < 100


@pytest.mark.parametrize(
    ("state", "status", "synchronised"),
    [(0, 0, True), (0, STA_UNSYNC, False), (TIME_ERROR, 0, False), (TIME_ERROR, STA_UNSYNC, False)],
)
def test_kernel_clock_counts_as_disciplined_only_without_an_error(state: int, status: int, synchronised: bool):
    def fill(timex: _Timex) -> int:
        timex.maxerror, timex.esterror, timex.status, timex.tai, timex.freq = 700, 20, status, 37, 3 << 16
        return state

    assert read_kernel_time(fill) == KernelTime(synchronised, 700_000, 20_000, 37, 3.0)


def test_timex_is_laid_out_as_the_kernel_has_it():
    assert ctypes.sizeof(_Timex) == 208
    offsets = {name: getattr(_Timex, name).offset for name in ("maxerror", "status", "tick", "tai")}
    assert offsets == {"maxerror": 24, "status": 40, "tick": 88, "tai": 160}


def test_gpu_clock_is_within_half_the_bounds_that_the_loop_keeps():
    words = np.zeros(memory.WORDS, np.int64)
    words[memory.CLOCK_LOW_NS], words[memory.CLOCK_HIGH_NS], words[memory.CLOCK_AT_NS] = 1_000, 1_301, 55
    assert device_offset(words) == Offset(Base.GPU, Base.MONOTONIC, 1_150, 151, 55)
