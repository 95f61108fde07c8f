"""What the daemon does about time: the breaker follows the engine's counts, health follows the breaker, the log tells.

    on_signal    at every wake-up of the loop by the engine, which wakes it at a trip: one word is compared
    look         by the keeper, a few times a second: the breaker closes, and the log tells what was over its bound

Both run on the event loop; the engine only counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from penstock_daemon import engine_memory as memory
from penstock_daemon.breaker import Breaker, BreakerState, Transition
from penstock_daemon.budget_metrics import BudgetSnapshot, snapshot_of
from penstock_daemon.budget_warnings import BudgetWarnings, StageOverBudget
from penstock_daemon.config import BudgetConfig
from penstock_daemon.engine_memory import Buffers
from penstock_daemon.readiness import Readiness, Reason

_log = structlog.get_logger("penstock.budget")


class BudgetWatch:
    """Looks after the budget of one engine.

    Args:
        buffers: the engine's, warm; only read.
        config: how the breaker closes, and how often the log may tell.
        readiness: that is given the breaker's reason.
        clock: monotonic, in nanoseconds.
    """

    def __init__(
        self,
        buffers: Buffers,
        config: BudgetConfig,
        readiness: Readiness,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._buffers = buffers
        self._readiness = readiness
        self._clock = clock
        self._trips = memoryview(buffers.words[memory.BREAKER_TRIPS : memory.BREAKER_TRIPS + 1].data)
        self._trips_seen: int = self._trips[0]
        self._breaker = Breaker(round(config.breaker_close_s * 1e9), self._trips_seen)
        every_ns = round(config.warn_every_s * 1e9)
        self._warnings = BudgetWarnings(buffers, every_ns) if every_ns else None
        self._flagged = self._late_and_stale()

    def on_signal(self) -> None:
        """Look whether the breaker has tripped; a comparison where it has not."""
        if self._trips[0] != self._trips_seen:
            self._follow(self._clock())

    def look(self) -> None:
        """Do what time brings."""
        now_ns = self._clock()
        self._follow(now_ns)
        if self._warnings is None:
            return
        for found in self._warnings.look(now_ns):
            if isinstance(found, StageOverBudget):
                _log.warning(
                    "stage over budget",
                    path=found.path,
                    stage=found.stage.name,
                    elapsed_ns=found.elapsed_ns,
                    budget_ns=found.budget_ns,
                    sequence=found.sequence,
                    count=found.count,
                )
            else:
                _log.warning("predictions over budget", flag=found.flag.name, count=found.count)

    def breaker_open(self) -> bool:
        """Return whether predictions come too late in a row."""
        return self._breaker.open

    def snapshot(self) -> BudgetSnapshot:
        """Return what the metrics show; may be called from any thread."""
        return snapshot_of(self._buffers, breaker_open=self._breaker.open, breaker_opened=self._breaker.opened)

    def _follow(self, now_ns: int) -> None:
        self._trips_seen = self._trips[0]
        stale_last_ns = int(self._buffers.words[memory.STALE_LAST_NS])
        transition = self._breaker.look(now_ns, self._trips_seen, stale_last_ns)
        if transition is not None:
            self._readiness.put(Reason.BREAKER, present=self._breaker.open)
            self._tell(transition)

    def _tell(self, transition: Transition) -> None:
        before, self._flagged = self._flagged, self._late_and_stale()
        late, stale = (now - then for now, then in zip(self._flagged, before, strict=True))
        if transition.state is BreakerState.OPEN:
            _log.error(
                "breaker_opened",
                trips=transition.trips,
                late=late,
                stale=stale,
                mend="look for the stage over budget; health says NOT_SERVING until predictions come in time again",
            )
        else:
            open_s = round(transition.open_ns / 1e9, 3)
            _log.warning("breaker_closed", open_s=open_s, trips=transition.trips, late=late, stale=stale)

    def _late_and_stale(self) -> tuple[int, int]:
        return int(self._buffers.words[memory.LATE]), int(self._buffers.words[memory.STALE])
