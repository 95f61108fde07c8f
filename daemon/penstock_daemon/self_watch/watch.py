"""The daemon watches itself: facts of the kernel, read once a second by the housekeeping thread, counted and told.

    interrupted     involuntary context switches of the engine        warned of where the engine has CPUs of its own
    page faults     of the engine: major ones always, minor ones in numbers
    throttled       the quota of the control group, the CPUs' heat
    intruders       who else ran on the engine's CPUs: every INTRUDER_LOOKS looks, and after an interruption
    collector       runs of Python's garbage collector, the longest pause
    rings           how full the rings of the sessions were at most
    stalls          counted by the keeper

Every warning says the mend, names the items of penstock-tune where there are some, and is written once a minute at most,
with how many it stands for. Nothing here touches the engine, nor the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine
from penstock_daemon.log_limit import LogLimit
from penstock_daemon.self_watch.collector import CollectorWatch
from penstock_daemon.self_watch.foreign import ForeignThreads, Intruder, Kind
from penstock_daemon.self_watch.metrics import RingHighWater, SelfWatchSnapshot
from penstock_daemon.self_watch.threads import Switches, ThreadStat, read_stat, read_switches
from penstock_daemon.self_watch.throttling import Throttled, Throttling
from penstock_host import affinity

INTRUDER_LOOKS: Final = 10  # Between two looks at all threads of the host; half as many after an interruption.
MINOR_FAULTS_TOLD: Final = 10  # In one look.
COLLECTOR_PAUSE_NS: Final = 1_000_000
FULL_SHARE: Final = 0.75
_NAMED_MAX: Final = 5
_CHECK: Final = "penstock-tune check"

_log = structlog.get_logger("penstock.self_watch")


class SelfWatch:
    """Watches one engine and its process, from here on: what was before does not count.

    Args:
        engine: that runs.
        stalls: returns how often it stood still.
        sources: returns the slots of the sessions that are open.
        root: of the host's files; tests give a tree.
        limit: of the warnings.
    """

    def __init__(
        self,
        engine: Engine,
        stalls: Callable[[], int] = lambda: 0,
        sources: Callable[[], Sequence[int]] = tuple,
        *,
        root: Path = Path("/"),
        limit: LogLimit | None = None,
    ) -> None:
        self.collector = CollectorWatch()
        self._engine = engine
        self._stalls = stalls
        self._sources = sources
        self._limit = limit or LogLimit()
        self._cpus = engine.settings.cpus
        self._folder = f"/proc/self/task/{engine.thread_id}"
        self._throttling = Throttling(self._cpus or affinity.online_cpus(), root)
        self._foreign = ForeignThreads(self._cpus, engine.thread_id) if self._cpus else None
        self._looks = 0
        self._looked_at_threads = 0
        self._intruders: tuple[Intruder, ...] = ()
        self._intruder_ns = dict.fromkeys((kind.value for kind in Kind), 0)
        self._longest_told_ns = COLLECTOR_PAUSE_NS
        self._full_told: dict[str, int] = {}  # How full a ring was when that was told, by its source.
        self._first = self._last = self._facts()

    def open(self) -> None:
        """Count the collector's runs from here on: everything that lives long is frozen."""
        self.collector.open()

    def close(self) -> None:
        """Stop counting them. May be called twice."""
        self.collector.close()

    def _facts(self) -> tuple[ThreadStat, Switches, Throttled]:
        return read_stat(self._folder), read_switches(self._folder), self._throttling.read()

    def look(self) -> None:
        """Look once, and tell. May block; for the housekeeping thread."""
        try:
            now = self._facts()
        except OSError:
            if self._engine.alive:
                raise
            return  # The engine was stopped meanwhile.
        before, self._last = self._last, now
        self._looks += 1
        interrupted = now[1].involuntary - before[1].involuntary
        if interrupted and self._cpus:
            self._tell(
                "engine_interrupted",
                switches=interrupted,
                cpus=affinity.format_cpus(self._cpus),
                mend=f"keep others and interrupts off the engine's CPUs ({_CHECK}, P1, C1, C10 and I2)",
            )
        self._tell_of_faults(now[0].major_faults - before[0].major_faults, now[0].minor_faults - before[0].minor_faults)
        self._tell_of_throttling(before[2], now[2])
        self._look_for_intruders(interrupted=interrupted > 0)
        self._tell_of_pauses()
        self._tell_of_full_rings()

    def _tell_of_faults(self, major: int, minor: int) -> None:
        if major or minor >= MINOR_FAULTS_TOLD:
            self._tell(
                "engine_page_faults",
                major=major,
                minor=minor,
                mend=f"lock memory, and let the kernel move no pages ({_CHECK}, C22, C17 and C18)",
            )

    def _tell_of_throttling(self, before: Throttled, now: Throttled) -> None:
        if now.periods > before.periods:
            self._tell(
                "cpu_quota_used_up",
                periods=now.periods - before.periods,
                stood_still_ms=round((now.ns - before.ns) / 1e6, 1),
                mend="give the daemon's group a larger quota, or none: CPUQuota= of a unit, limits.cpu of a pod",
            )
        if now.heat > before.heat:
            self._tell(
                "cpu_slowed_by_heat",
                events=now.heat - before.heat,
                mend=f"cool the host, or lower its turbo until it is constant ({_CHECK}, C6 and F2)",
            )

    def _look_for_intruders(self, *, interrupted: bool) -> None:
        if self._foreign is None:
            return
        due = self._looked_at_threads + (INTRUDER_LOOKS // 2 if interrupted else INTRUDER_LOOKS)
        if self._looks > 1 and self._looks < due:  # The first look has nothing to compare with.
            return
        self._looked_at_threads = self._looks
        self._intruders = tuple(self._foreign.look())
        for one in self._intruders:
            self._intruder_ns[one.kind] += one.ran_ns
        told = [one for one in self._intruders if one.kind != Kind.KERNEL]
        if told:
            first = told[0]
            self._tell(
                "intruders_on_engine_cpus",
                cpus=affinity.format_cpus(self._cpus),
                threads=", ".join(
                    f"{one.name} ({one.kind}, process {one.process}, thread {one.thread}, {one.ran_ns / 1e6:.1f} ms)"
                    for one in told[:_NAMED_MAX]
                ),
                count=len(told),
                mend=f"taskset -pc OTHER-CPUS {first.thread}, and so on; {_CHECK}, C1, C10 and C11 keep new ones away",
            )

    def _tell_of_pauses(self) -> None:
        longest_ns = self.collector.longest_ns
        if longest_ns > self._longest_told_ns:
            self._longest_told_ns = longest_ns
            self._tell(
                "collector_paused",
                longest_ms=round(longest_ns / 1e6, 2),
                runs=self.collector.runs,
                mend="report this: what the daemon makes while it serves should be too little to collect for so long",
            )

    def _tell_of_full_rings(self) -> None:
        """Tell of REALTIME sessions whose ticks filled most of their ring; BULK ones fill it as a matter of course."""
        full = {}
        for ring in self._rings():
            bulk = self._engine.buffers.source_table[int(ring.source), memory.SOURCE_BULK]
            if ring.ring == "ticks" and ring.most > FULL_SHARE * ring.slots and not bulk:
                full[ring.source] = ring
        new = [ring for ring in full.values() if ring.most > self._full_told.get(ring.source, 0)]
        self._full_told = {source: ring.most for source, ring in full.items()}
        if new:
            fullest = max(new, key=lambda ring: ring.most)
            self._tell(
                "ring_nearly_full",
                source=fullest.source,
                most=fullest.most,
                slots=fullest.slots,
                mend="raise sessions.in_flight_max, or find what held the engine up: see the other warnings",
            )

    def _tell(self, event: str, **facts: object) -> None:
        held_back = self._limit.due(event)
        if held_back is not None:
            _log.warning(event, **facts, not_written=held_back)

    def _rings(self) -> list[RingHighWater]:
        high_water, slots = self._engine.buffers.high_water, self._engine.sizes.slots
        columns = (("ticks", memory.HIGH_WATER_TICKS), ("predictions", memory.HIGH_WATER_PREDICTIONS))
        return [
            RingHighWater(name, str(source), int(high_water[source, column]), slots)
            for source in tuple(self._sources())
            for name, column in columns
        ]

    def snapshot(self) -> SelfWatchSnapshot:
        """Return what was seen, as of the last look; from any thread."""
        (stat, switches, throttled), (stat_0, switches_0, throttled_0) = self._last, self._first
        return SelfWatchSnapshot(
            voluntary=switches.voluntary - switches_0.voluntary,
            involuntary=switches.involuntary - switches_0.involuntary,
            minor_faults=stat.minor_faults - stat_0.minor_faults,
            major_faults=stat.major_faults - stat_0.major_faults,
            throttled_periods=throttled.periods - throttled_0.periods,
            throttled_ns=throttled.ns - throttled_0.ns,
            heat_events=throttled.heat - throttled_0.heat,
            watched=(*self._throttling.watched, *(("threads",) if self._foreign else ())),
            intruder_looks=self._foreign.looks if self._foreign else 0,
            intruder_ns=dict(self._intruder_ns),
            intruders=self._intruders,
            collector_runs=self.collector.runs,
            collector_paused_ns=self.collector.paused_ns,
            collector_longest_ns=self.collector.longest_ns,
            stalls=self._stalls(),
            rings=tuple(self._rings()),
        )
