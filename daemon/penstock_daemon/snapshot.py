"""The numbers that the metrics show, read from where they are counted anyway."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from penstock.v1.records import Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import rings
from penstock_daemon.budget_metrics import BudgetSnapshot
from penstock_daemon.budgets import PATH_NAMES
from penstock_daemon.clocks.metrics import ClocksSnapshot
from penstock_daemon.device.metrics import DeviceSnapshot
from penstock_daemon.engine import Engine
from penstock_daemon.feed.metrics import FeedSnapshot
from penstock_daemon.metrics import LatencyHistogram, MetricsSnapshot, ModelInfo, RingOccupancy
from penstock_daemon.model_table import ModelTable
from penstock_daemon.recorder import Recorder
from penstock_daemon.self_watch.metrics import SelfWatchSnapshot
from penstock_daemon.session_table import SessionTable
from penstock_daemon.subscriptions import SubscriptionCounts

PACE_NAMES: Final = ("realtime", "bulk")


class SnapshotTaker:
    """Reads every number as it stands; ``take`` may be called from any thread, since it only reads.

    Args:
        engine, sessions, models: whose numbers.
        recorder: or None where nothing is recorded.
    """

    def __init__(self, engine: Engine, sessions: SessionTable, models: ModelTable, recorder: Recorder | None) -> None:
        self._engine = engine
        self._sessions = sessions
        self._models = models
        self._recorder = recorder
        self._taken_ns = time.monotonic_ns()  # Of the snapshot before: the busy share covers the time since.
        self._busy_ns = 0

    def take(
        self,
        *,
        serving: bool,
        arena_locked: bool,
        budget: BudgetSnapshot,
        clocks: ClocksSnapshot | None = None,
        self_watch: SelfWatchSnapshot | None = None,
        device: DeviceSnapshot | None = None,
        host: Mapping[tuple[str, str], int] | None = None,
        subscriptions: SubscriptionCounts | None = None,
        feed: FeedSnapshot | None = None,
    ) -> MetricsSnapshot:
        """Return a snapshot; all but the first two are what those who look after them say."""
        engine, sessions = self._engine, self._sessions
        open_sessions = sessions.sessions
        predicted = {name: _predicted(engine, pace) for pace, name in enumerate(PACE_NAMES)}
        entry = self._models.active
        busy_ns = _word(engine, memory.BUSY_NS)
        now_ns = time.monotonic_ns()
        share = (busy_ns - self._busy_ns) / max(now_ns - self._taken_ns, 1)
        self._taken_ns, self._busy_ns = now_ns, busy_ns
        given, applied = engine.command_state()
        return MetricsSnapshot(
            serving=serving,
            ticks=dict(sessions.counts.ticks),
            predictions=predicted,
            rebuild_ticks=sessions.counts.rebuilt_ticks,
            tick_errors=dict(sessions.counts.tick_errors),
            refusals=dict(sessions.refusals),
            late=_word(engine, memory.LATE),
            stale=_word(engine, memory.STALE),
            sessions=sum(session.hold is not None for session in open_sessions),
            sessions_resumable=sum(session.lost_ns != 0 for session in open_sessions),
            sessions_opened=sessions.opened,
            sessions_resumed=sessions.resumed,
            sessions_max=sessions.limits.sessions_max,
            segments=sum(session.attachment is not None for session in open_sessions),
            segments_max=sessions.limits.segments_max,
            segments_attached=sessions.counts.segments_attached,
            segments_lost=dict(sessions.counts.segments_lost),
            states=sessions.states_in_use,
            states_max=engine.sizes.states - 1 - sessions.limits.feed_instruments,
            rings=[
                *(RingOccupancy("ticks", str(one.source), one.unanswered, engine.sizes.slots) for one in open_sessions),
                RingOccupancy("control", "loop", given - applied, memory.CONTROL_SLOTS),
            ],
            engine_busy_share=min(share, 1.0),
            engine_busy_ns=busy_ns,
            engine_passes=_word(engine, memory.PASSES),
            arena_bytes=engine.arena.used_bytes,
            arena_locked=arena_locked,
            histograms=_histograms(engine),
            recorder=self._recorder.stats() if self._recorder is not None else None,
            model=ModelInfo(entry.model.name, entry.model.version, entry.content_hash.hex(), entry.model.demonstration),
            budget=budget,
            clocks=clocks,
            self_watch=self_watch,
            device=device,
            host=host or {},
            subscriptions=subscriptions,
            feed=feed,
        )


def predictions_of(engine: Engine) -> int:
    """Return how many predictions *engine* made so far; may be called from any thread."""
    return sum(_predicted(engine, pace) for pace in range(len(PACE_NAMES)))


def _predicted(engine: Engine, pace: int) -> int:
    return int(engine.buffers.histograms[:, pace, Stage.PREDICT].sum())


def _word(engine: Engine, index: int) -> int:
    return int(rings.shared_word(engine.buffers.words, index))


def _histograms(engine: Engine) -> list[LatencyHistogram]:
    buffers = engine.buffers
    shown = []
    for path, path_name in enumerate(PATH_NAMES):
        for pace, pace_name in enumerate(PACE_NAMES):
            for stage in Stage:
                counts = buffers.histograms[path, pace, stage].copy()
                if not counts.any():
                    continue
                sum_ns, max_ns, negative, _ = (int(value) for value in buffers.totals[path, pace, stage])
                shown.append(
                    LatencyHistogram(path_name, stage.name.lower(), pace_name, counts, sum_ns, max_ns, negative)
                )
    return shown
