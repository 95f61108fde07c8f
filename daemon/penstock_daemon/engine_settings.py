"""How an engine runs, as its owner chose it, and the words and bounds that compiled code reads of it.

Written once, before the engine starts; the one word that changes while it runs is CYCLE_FRACTION (``Engine.use_cycles``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.v1.records import Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_memory import Buffers, Idle, OldTick


@dataclass(frozen=True)
class EngineSettings:
    """How the engine runs.

    Attributes:
        idle: what it does without work.
        spin_ns: how long it looks again before it sleeps or naps.
        nap_ns: length of a nap, for SPIN_THEN_SLEEP.
        batch_max: ticks of one source between two looks at the others.
        budget_ns: bound of TOTAL, where *bounds* says no other; a prediction over it is LATE.
        stale_ns: a prediction over it is STALE, and a tick that is over it before it is predicted is old.
        bounds: nanoseconds of the stages of REALTIME sources, by (path, stage), such as (PATH_GRPC, Stage.RING); none
            where it says nothing, but for TOTAL.
        breaker_run: STALE predictions in a row that trip the breaker; 0 for never.
        old_ticks: what becomes of old ticks.
        assist_max: batches up to this many ticks are predicted by who publishes them while the engine sleeps; only
            for BLOCK, and 0 for never.
        cpus: where the thread may run; empty leaves it as it is.
    """

    idle: Idle = Idle.BLOCK
    spin_ns: int = 0
    nap_ns: int = 50_000
    batch_max: int = 64
    budget_ns: int = 5_000_000
    stale_ns: int = 6_000_000
    bounds: Mapping[tuple[int, int], int] = field(default_factory=dict)
    breaker_run: int = 0
    old_ticks: OldTick = OldTick.PREDICT
    assist_max: int = 0
    cpus: frozenset[int] = frozenset()

    def write(self, buffers: Buffers) -> None:
        """Write what compiled code reads. buffers: settings and bounds are overwritten, but for the descriptors."""
        words = buffers.settings
        words[memory.BATCH_MAX] = self.batch_max
        words[memory.IDLE_KIND] = self.idle
        words[memory.SPIN_NS] = self.spin_ns
        words[memory.NAP_NS] = self.nap_ns
        words[memory.STALE_NS] = self.stale_ns
        words[memory.BREAKER_RUN] = self.breaker_run
        words[memory.OLD_TICK_POLICY] = self.old_ticks
        buffers.bounds[:] = memory.NO_BOUND
        buffers.bounds[:, Stage.TOTAL] = self.budget_ns
        for (path, stage), bound_ns in self.bounds.items():
            buffers.bounds[path, stage] = bound_ns
