"""The clocks of a daemon: which one is chosen and what the log says, and what happens when one of them misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from penstock.v1.records import UNDEFINED_TIME, Clock, PredictionFlag
from penstock_daemon import engine_memory as memory
from penstock_daemon.clocks.care import ClockCare
from penstock_daemon.clocks.kernel_time import KernelTime
from penstock_daemon.clocks.ptp import PtpClock
from penstock_daemon.clocks.seam import UNKNOWN_NS, Base, ClockError, Epoch, Offset
from penstock_daemon.clocks.tsc import FRACTION_BITS
from penstock_daemon.clocks.watch import ClockWatch
from penstock_daemon.config_clock import ClockConfig
from penstock_daemon.derived import StartError
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_daemon.log_limit import PERIOD_S, LogLimit
from support.clocks import DISCIPLINED, LEFT_ALONE, SimulatedClock, SimulatedCounter, SimulatedHost
from support.device_engines import device_engine
from support.engines import SIZES, open_source, predict, running_engine
from support.tick_stream import tick_stream

SOUND = "processor : 0\nflags : tsc constant_tsc nonstop_tsc\n"


class Card(PtpClock):
    """A card's clock that says what a test wants."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.apart_ns = 37_000_000_000
        self.silent = False
        self.closed = 0

    def offset(self) -> Offset:
        if self.silent:
            raise ClockError(f"{self.path}: it does not answer")
        return Offset(Base.PTP, Base.REALTIME, self.apart_ns, 700, 0)

    def close(self) -> None:
        self.closed += 1


class Rig:
    """The clocks of a daemon over a simulated counter, an engine that does not run, and a kernel that a test words."""

    def __init__(self, root: Path, engine: Engine, config: ClockConfig, cpuinfo: str = SOUND) -> None:
        (root / "proc").mkdir(exist_ok=True)
        (root / "proc/cpuinfo").write_text(cpuinfo)
        self.host = SimulatedHost()
        self.counter = SimulatedCounter(self.host, 2e9)
        self.word: KernelTime | None = DISCIPLINED
        self.engine = engine
        self.card = Card("")
        self.care = ClockCare(config, anchor=self.anchor, kernel=self.kernel, root=root, open_ptp=self.open_card)

    def anchor(self):
        self.host.pass_ns(10_000_000)
        return self.counter.anchor()

    def kernel(self) -> KernelTime:
        if self.word is None:
            raise ClockError("adjtimex: not here")
        return self.word

    def open_card(self, path: str) -> Card:
        self.card = Card(path)
        return self.card

    def start(self) -> ClockCare:
        self.care.begin()
        self.care.choose(self.engine)
        self.care.serve(self.engine)
        return self.care

    @property
    def fraction(self) -> int:
        return int(self.engine.buffers.settings[memory.CYCLE_FRACTION])


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose memory is there, and which nobody starts."""
    engine = Engine(SIZES, EngineSettings())
    yield engine
    engine.close()


def test_sound_counter_is_chosen_and_the_log_says_so(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig())
    with capture_logs() as logs:
        care = rig.start()
    assert rig.fraction == pytest.approx(2**FRACTION_BITS / 2, rel=1e-4)
    (line,) = [entry for entry in logs if entry["event"] == "clocks"]
    assert line["stages"] == "tsc"
    assert line["tsc_mhz"] == pytest.approx(2_000, rel=1e-4)
    assert line["tsc_error_ppb"] < 20_000
    assert line["maximum_error_ns"] == DISCIPLINED.maximum_error_ns
    assert care.snapshot().tsc_hertz == pytest.approx(2e9, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "cpuinfo", "why"),
    [
        (ClockConfig(stamps="monotonic"), SOUND, 'clock.stamps is "monotonic"'),
        (
            ClockConfig(stamps="auto"),
            "flags : tsc constant_tsc\n",
            "the TSC is not invariant: /proc/cpuinfo lacks nonstop_tsc",
        ),
    ],
)
def test_engine_keeps_the_kernel_s_clock_where_the_counter_is_not_wanted_or_not_sound(
    tmp_path: Path, engine: Engine, config: ClockConfig, cpuinfo: str, why: str
):
    rig = Rig(tmp_path, engine, config, cpuinfo)
    snapshot = rig.start().snapshot()
    assert (rig.fraction, snapshot.stamps, snapshot.why, snapshot.tsc_hertz) == (0, "monotonic", why, None)


def test_counter_that_is_asked_for_by_name_and_not_sound_refuses_the_start(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig(stamps="tsc"), "flags : tsc\n")
    with pytest.raises(
        StartError, match=r'clock.stamps: must be "auto" or "monotonic" on this host, was "tsc": the TSC'
    ):
        rig.start()


def test_counter_that_stands_still_is_not_taken(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig())
    rig.counter.hertz = 0
    assert rig.start().snapshot().why.startswith("the TSC does not count: 0 cycles")
    rig = Rig(tmp_path, engine, ClockConfig(stamps="tsc"))
    rig.counter.hertz = 0
    with pytest.raises(StartError, match="does not count"):
        rig.start()


def test_counter_that_jumps_while_serving_is_left_for_good_and_told_of_once(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig())
    care = rig.start()
    with capture_logs() as logs:
        care.look_slowly()
        assert (rig.fraction > 0, logs) == (True, [])
        rig.counter.jump(1e9)
        for _ in range(3):
            care.look_slowly()
    assert rig.fraction == 0, "the engine goes on with CLOCK_MONOTONIC"
    assert [entry["event"] for entry in logs] == ["tsc_given_up"]
    snapshot = care.snapshot()
    assert (snapshot.stamps, snapshot.tsc_failures, snapshot.tsc_hertz) == ("monotonic", 1, None)
    assert snapshot.why.startswith("the TSC was given up: it was ")


def test_every_clock_of_the_host_is_read_with_what_it_is_worth(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig())
    care = rig.start()
    read = {one.base: one for one in care.readings()}
    assert list(read) == [Base.MONOTONIC, Base.MONOTONIC_RAW, Base.REALTIME, Base.TAI, Base.TSC]
    assert (read[Base.REALTIME].error_ns, read[Base.REALTIME].source) == (DISCIPLINED.maximum_error_ns, Clock.USER)
    assert (read[Base.TSC].source, read[Base.TSC].epoch) == (Clock.TSC, Epoch.BOOT)
    assert abs(read[Base.TSC].ns - rig.host.now_ns) <= read[Base.TSC].error_ns + 200, "the look itself takes time"
    rig.word = LEFT_ALONE
    care.look_slowly()
    left = {one.base: one.error_ns for one in care.snapshot().readings}
    assert left[Base.REALTIME] == UNKNOWN_NS
    assert Base.TAI not in left


def test_look_publishes_where_the_wall_clock_is(tmp_path: Path, engine: Engine):
    care = Rig(tmp_path, engine, ClockConfig()).start()
    engine.set_unix_offset(0)
    care.look()
    assert care.watch is not None
    assert engine.unix_offset_ns == care.watch.offset.offset_ns
    assert engine.unix_offset_ns > 10**18, "the real clocks of this host"


def test_card_is_mapped_to_the_engine_s_clock_with_the_sum_of_errors(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig(ptp="/dev/ptp3"))
    care = rig.start()
    assert care.watch is not None
    offset = care.card_offset()
    assert offset is not None
    assert (offset.of, offset.against) == (Base.PTP, Base.MONOTONIC)
    assert offset.error_ns > 700, "its own, the wall clock's, and its age"
    assert abs(offset.offset_ns - rig.card.apart_ns - care.watch.offset.offset_ns) < 10**9
    mapped = care.offset_of("/dev/ptp3")
    assert mapped is not None
    assert mapped.offset_ns == offset.offset_ns
    assert care.offset_of("/dev/ptp4") is None, "it is another card's"
    rig.card.silent = True
    with capture_logs() as logs:
        care.look_slowly()
        care.look_slowly()
    assert [entry["event"] for entry in logs] == ["card_clock_silent"], "the second is held back"
    later = care.card_offset()
    assert later is not None
    assert later.error_ns >= offset.error_ns, "what is not measured any more gets worse"
    assert (care.snapshot().ptp, care.snapshot().ptp_failures) == ("/dev/ptp3", 2)
    care.close()
    assert rig.card.closed == 1


def test_card_that_is_named_and_can_t_be_had_refuses_the_start(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig(ptp="/dev/ptp3"))
    care = ClockCare(ClockConfig(ptp="/dev/ptp3999"), root=tmp_path)
    with pytest.raises(StartError, match=r"clock.ptp: /dev/ptp3999: there is no such clock"):
        care.begin()
    rig.care.close()


@pytest.mark.parametrize(("named", "taken"), [("", "/dev/ptp5"), ("auto", "/dev/ptp5"), ("/dev/ptp3", "/dev/ptp3")])
def test_the_clock_of_the_feed_s_card_is_taken_where_none_is_named(
    tmp_path: Path, engine: Engine, named: str, taken: str
):
    rig = Rig(tmp_path, engine, ClockConfig(ptp=named))
    rig.care.begin("/dev/ptp5")
    rig.care.serve(engine)
    assert rig.care.offset_of(taken) is not None
    rig.care.close()


def test_a_clock_of_the_feed_s_card_that_can_t_be_had_is_told_of_and_refuses_nothing(tmp_path: Path):
    care = ClockCare(ClockConfig(), root=tmp_path)
    with capture_logs() as logs:
        care.begin("/dev/ptp3999")
    (line,) = [entry for entry in logs if entry["event"] == "card_clock_refused"]
    assert line["detail"].startswith("/dev/ptp3999: there is no such clock; ")
    assert care.card_offset() is None


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("", r"feed.stamps: no stamps of the network card: /dev/ptp3999: there is no such clock; "),
        ("auto", r"feed.stamps: no stamps of the network card: /dev/ptp3999: "),
        ("/dev/ptp2", r'clock.ptp: must be "" or "/dev/ptp3999" with feed.stamps = "hardware", was "/dev/ptp2"'),
    ],
)
def test_a_clock_of_the_feed_s_card_that_must_be_had_refuses_the_start(tmp_path: Path, named: str, sentence: str):
    with pytest.raises(StartError, match=sentence):
        ClockCare(ClockConfig(ptp=named), root=tmp_path).begin("/dev/ptp3999", needed=True)


def test_host_without_a_card_s_clock_serves_without(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig(ptp="auto"))
    with capture_logs() as logs:
        care = rig.start()
    assert "no_card_clock" in [entry["event"] for entry in logs]
    assert care.card_offset() is None
    assert care.snapshot().ptp == ""


def test_kernel_that_says_nothing_leaves_errors_unknown(tmp_path: Path, engine: Engine):
    rig = Rig(tmp_path, engine, ClockConfig())
    rig.word = None
    with capture_logs() as logs:
        snapshot = rig.start().snapshot()
    assert (snapshot.synchronised, snapshot.maximum_error_ns) == (None, UNKNOWN_NS)
    assert next(entry for entry in logs if entry["event"] == "clocks")["synchronised_why"] == "adjtimex: not here"


# --- The wall clock -----------------------------------------------------------------------------------------------


class Wall:
    """A watch over a wall clock that a test steps, and what it published."""

    def __init__(self) -> None:
        self.host = SimulatedHost()
        self.clock = SimulatedClock(self.host, 1_700_000_000 * 10**9)
        self.word = DISCIPLINED
        self.now_s = 0.0
        self.published: list[int] = []
        self.watch = ClockWatch(
            self.published.append,
            realtime_ns=self.clock.read_ns,
            monotonic_ns=self.host.monotonic_ns,
            kernel=lambda: self.word,
            limit=LogLimit(now_s=lambda: self.now_s),
        )

    def look(self) -> None:
        self.host.pass_ns(250_000_000)
        self.watch.look()


@pytest.mark.parametrize("size_ns", [1_300_000_000, -1_300_000_000, 200_000])
def test_step_is_counted_told_and_followed_at_once(size_ns: int):
    wall = Wall()
    wall.look()
    before_ns = wall.published[-1]
    wall.clock.step(size_ns)
    with capture_logs() as logs:
        wall.look()
    (line,) = logs
    assert line["event"] == "wall_clock_stepped"
    assert line["moved_ns"] == line["new_offset_ns"] - line["old_offset_ns"] == pytest.approx(size_ns, abs=200)
    assert wall.published[-1] - before_ns == pytest.approx(size_ns, abs=200)
    assert (wall.watch.steps, wall.watch.last_step_ns) == (1, line["moved_ns"])


def test_clock_that_is_only_steered_did_not_step():
    wall = Wall()
    for drift_ppb in (400_000, -400_000):
        wall.clock.offset_ns, wall.clock._since_ns = wall.clock.true_offset_ns(), wall.host.now_ns
        wall.clock.drift_ppb = drift_ppb
        for _ in range(20):
            wall.look()
    assert wall.watch.steps == 0


def test_steps_in_a_row_are_all_counted_and_seldom_written():
    wall = Wall()
    with capture_logs() as logs:
        for _ in range(10):
            wall.clock.step(10**9)
            wall.look()
        wall.now_s += PERIOD_S
        wall.clock.step(10**9)
        wall.look()
    assert wall.watch.steps == 11
    assert [entry["not_written"] for entry in logs] == [0, 9]


def test_lost_and_regained_synchronisation_is_told_once_each():
    wall = Wall()
    with capture_logs() as logs:
        for word in (DISCIPLINED, LEFT_ALONE, LEFT_ALONE, replace(DISCIPLINED, maximum_error_ns=5), DISCIPLINED):
            wall.word = word
            wall.watch.look_at_kernel()
    assert [entry["event"] for entry in logs] == ["clock_sync_lost", "clock_sync_regained"]
    assert wall.watch.sync_losses == 1


def test_clock_that_nobody_disciplined_from_the_start_is_not_lost():
    wall = Wall()
    wall.word = LEFT_ALONE
    with capture_logs() as logs:
        wall.watch.look_at_kernel()
        wall.watch.look_at_kernel()
    assert (logs, wall.watch.sync_losses) == ([], 0)


# --- Recorders and venues ---------------------------------------------------------------------------------------


def late_recorder(ticks: NDArray[np.void], behind_ns: int) -> NDArray[np.void]:
    """Return *ticks* as a recorder stamps them whose clock is behind the venue's, ahead of it where that is negative."""
    changed = ticks.copy()
    changed["ts_event"] = changed["ts_recv"] + np.int64(behind_ns).astype(np.uint64)
    return changed


@pytest.mark.parametrize("running", [running_engine, device_engine], ids=["cpu", "device"])
def test_recorder_behind_its_venue_is_counted_and_changes_no_forecast(running: Callable[..., Any], tmp_path: Path):
    ticks = tick_stream(5, 12)
    even = late_recorder(ticks, 0)
    undefined = late_recorder(ticks, 0)
    undefined["ts_event"] = UNDEFINED_TIME
    late = late_recorder(ticks, 1_300_000_000)
    late["ts_event"][3] = late["ts_recv"][3] + 1_400_000_000
    with running() as made:
        engine = made[0] if isinstance(made, tuple) else made
        care = Rig(tmp_path, engine, ClockConfig(stamps="monotonic")).start()
        expected = predict(engine, open_source(engine, 1), even)
        predict(engine, open_source(engine, 2, states=(2,)), late_recorder(ticks, -5))
        predict(engine, open_source(engine, 3, states=(3,)), undefined)
        assert care.snapshot().behind_venue == 0
        source = open_source(engine, 4, states=(4,))
        predict(engine, source, late, rebuild=True)
        assert care.snapshot().behind_venue == 0, "ticks that are sent again were counted before"
        engine.wait_applied(engine.command(Command.RESET_STATE, 4))
        found = predict(engine, source, late, first=len(late))
        snapshot = care.snapshot()
    assert (snapshot.behind_venue, snapshot.behind_venue_max_ns) == (12, 1_400_000_000)
    assert (Base.GPU in {offset.of for offset in snapshot.offsets}) == isinstance(made, tuple)
    assert (found["forecasts"] == expected["forecasts"]).all()
    aged = int(PredictionFlag.LATE | PredictionFlag.STALE)  # By this machine, for all that is known.
    assert (found["flags"] | aged == expected["flags"] | aged).all()


def test_venue_time_centuries_ahead_is_counted_as_the_most_that_there_is():
    with running_engine() as engine:
        ticks = tick_stream(5, 1)
        ticks["ts_event"] = UNDEFINED_TIME - 1
        predict(engine, open_source(engine), ticks)
        assert engine.buffers.words[memory.BEHIND_VENUE] == 1
        assert engine.buffers.words[memory.BEHIND_VENUE_NS] == 2**63 - 1
