"""What a serving daemon looks after several times a second, on the event loop: heartbeats, graces, clocks, the engine.

    every KEEP_S      the looks it was given, heartbeats and graces, whether the engine turns, the supervisor's watchdog
    it ends           where the engine is gone: the daemon then stops

Everything here takes microseconds. What may block (files of /proc, NVML) is for threads of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from penstock_daemon.engine import Engine
from penstock_daemon.engine_watch import EngineWatch
from penstock_daemon.notify import Notifier

KEEP_S: Final = 0.25
LATE_KEEP_NS: Final = 1_000_000_000  # A keeper that comes later than this was held up with everybody else.

_log = structlog.get_logger("penstock.daemon")


class Keeper:
    """Looks after one daemon.

    Args:
        engine: that must turn.
        looks: what is called each time, in this order, before all else.
        keep: heartbeats and graces; gets the monotonic time, and how long this keeper itself was held up, nanoseconds.
        notifier: of the supervisor, whose watchdog is fed while the engine turns.
        set_serving: tells health whether the daemon serves.
    """

    def __init__(
        self,
        engine: Engine,
        looks: Sequence[Callable[[], None]],
        keep: Callable[[int, int], None],
        notifier: Notifier,
        set_serving: Callable[[bool], Awaitable[None]],
    ) -> None:
        self.stalls = 0  # How often the engine stood still.
        self._engine = engine
        self._looks = tuple(looks)
        self._keep = keep
        self._notifier = notifier
        self._set_serving = set_serving

    async def run(self) -> None:
        """Look, until the engine is gone."""
        watchdog_s = self._notifier.watchdog_interval_s
        watched_s = 0.0
        kept_ns = time.monotonic_ns()
        watch, turned = EngineWatch(self._engine.buffers.words), True
        while True:
            await asyncio.sleep(KEEP_S)
            if not self._engine.alive:
                _log.error("engine_gone", mend="the daemon stops; its supervisor should start it again")
                return
            for look in self._looks:
                look()
            now_ns = time.monotonic_ns()
            late_ns = max(now_ns - kept_ns - LATE_KEEP_NS, 0)
            kept_ns = now_ns
            self._keep(now_ns, late_ns)
            turns = watch.turns()
            if turns != turned:
                turned = turns
                await self._tell_of_stall(stalled=not turns)
            if turns and watchdog_s is not None and time.monotonic() - watched_s >= watchdog_s:
                watched_s = time.monotonic()
                self._notifier.watchdog()

    async def _tell_of_stall(self, *, stalled: bool) -> None:
        """Say that the engine stands still, or turns again; meanwhile health says NOT_SERVING and no watchdog is fed."""
        if stalled:
            self.stalls += 1
            _log.error(
                "engine_stalled", mend="a supervisor with a watchdog starts the daemon again; else do it yourself"
            )
        else:
            _log.warning("engine_turns_again", detail="it stood still for seconds; ticks of that time are late")
        await self._set_serving(not stalled)
