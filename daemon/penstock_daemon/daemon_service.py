"""DaemonService: how the daemon is, at one moment, for people and programs that look after it.

    DescribeDaemon   a snapshot
    WatchDaemon      the same, at once and then every interval

Everything is read from where it is counted anyway, on the event loop, when somebody asks: some hundred words of memory, no
file, no lock, no call that could wait. While the daemon warms up the parts that are not there yet are left out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock.v1 import daemon_pb2 as pb
from penstock.v1 import daemon_pb2_grpc, latency_pb2, prediction_pb2
from penstock_daemon import daemon_status
from penstock_daemon import engine_memory as memory
from penstock_daemon.budget_watch import BudgetWatch
from penstock_daemon.clocks.care import ClockCare
from penstock_daemon.device.care import DeviceCare
from penstock_daemon.engine import Engine
from penstock_daemon.feed.care import FeedCare
from penstock_daemon.model_table import ModelTable
from penstock_daemon.prediction_service import PredictionService
from penstock_daemon.readiness import Readiness, Reason
from penstock_daemon.self_watch.metrics import SelfWatchSnapshot
from penstock_daemon.session_table import FEED_SOURCE, SessionTable
from penstock_daemon.sessions import Session

_WATCH_NS_MIN: Final = 100_000_000
_WATCH_NS_DEFAULT: Final = 1_000_000_000
_REASONS: Final = {
    Reason.STARTING: pb.NOT_SERVING_REASON_STARTING,
    Reason.STALLED: pb.NOT_SERVING_REASON_STALLED,
    Reason.BREAKER: pb.NOT_SERVING_REASON_BREAKER,
}
assert set(_REASONS) == set(Reason), "a reason that nobody is told"


@dataclass(frozen=True, slots=True)
class DaemonParts:
    """What a snapshot is read from.

    Attributes:
        version, daemon_id: of the daemon.
        self_watch: returns what it saw of itself; None while it warms up.
    """

    version: str
    daemon_id: bytes
    engine: Engine
    models: ModelTable
    sessions: SessionTable
    predictions: PredictionService
    readiness: Readiness
    budget: BudgetWatch
    clocks: ClockCare
    device: DeviceCare
    feeds: FeedCare
    self_watch: Callable[[], SelfWatchSnapshot | None]


@dataclass(slots=True)
class _Busy:
    """How long the engine had been busy at the message before, and when that was, monotonic."""

    busy_ns: int
    taken_ns: int


class DaemonService(daemon_pb2_grpc.DaemonServiceServicer):
    """Reads the daemon's parts.

    Args:
        parts: of the daemon; only read.
    """

    def __init__(self, parts: DaemonParts) -> None:
        self._parts = parts
        self._started_ns = time.monotonic_ns()

    async def DescribeDaemon(self, _request: Any, _context: Any) -> pb.DescribeDaemonResponse:  # noqa: N802 - gRPC's.
        """Return everything as it stands."""
        return pb.DescribeDaemonResponse(snapshot=self._snapshot(_Busy(0, self._started_ns)))

    async def WatchDaemon(  # noqa: N802 - gRPC's.
        self, request: Any, _context: Any
    ) -> AsyncIterator[pb.WatchDaemonResponse]:
        """Return everything at once, and again and again."""
        interval_s = max(request.interval_ns or _WATCH_NS_DEFAULT, _WATCH_NS_MIN) / 1e9
        busy = _Busy(0, self._started_ns)
        while True:
            yield pb.WatchDaemonResponse(snapshot=self._snapshot(busy))
            await asyncio.sleep(interval_s)

    def _snapshot(self, busy: _Busy) -> pb.DaemonSnapshot:
        """Read everything; *busy* is overwritten."""
        parts, now_ns = self._parts, time.monotonic_ns()
        draining = parts.predictions.draining
        snapshot = pb.DaemonSnapshot(
            taken_ns=time.time_ns(),
            identity=self._identity(now_ns),
            serving=parts.readiness.serving and not draining,
            reasons=sorted(_REASONS[reason] for reason in parts.readiness.reasons),
            sessions_max=parts.sessions.limits.sessions_max,
            sessions_opened=parts.sessions.opened,
            sessions_resumed=parts.sessions.resumed,
            states=parts.sessions.states_in_use,
            states_max=parts.engine.sizes.states - 1 - parts.sessions.limits.feed_instruments,
            budget=daemon_status.budget_status(parts.budget.snapshot(), parts.engine),
            clocks=daemon_status.clocks_status(parts.clocks.snapshot()),
        )
        if draining:
            snapshot.reasons.append(pb.NOT_SERVING_REASON_DRAINING)
        if parts.predictions.ready:
            self._add_warm(snapshot, busy, now_ns)
        return snapshot

    def _identity(self, now_ns: int) -> pb.DaemonIdentity:
        parts, choice = self._parts, self._parts.device.choice
        return pb.DaemonIdentity(
            version=parts.version,
            daemon_id=parts.daemon_id,
            process_id=os.getpid(),
            uptime_ns=now_ns - self._started_ns,
            engine=choice.engine,
            device=choice.device,
            device_why=choice.why,
        )

    def _add_warm(self, snapshot: pb.DaemonSnapshot, busy: _Busy, now_ns: int) -> None:
        """Add what is there once the daemon is warm."""
        parts, engine = self._parts, self._parts.engine
        snapshot.model.CopyFrom(parts.models.active.summary)
        for session in parts.sessions.sessions:
            status = _session(session, now_ns)
            snapshot.sessions.append(status)
            snapshot.rings.extend(daemon_status.rings_of(engine, session.source, session.session_id, status.path))
        feed = parts.feeds.snapshot()
        if feed is not None:
            snapshot.feed.CopyFrom(daemon_status.feed_status(feed, parts.predictions.subscribe.counts))
            snapshot.rings.extend(daemon_status.rings_of(engine, FEED_SOURCE, 0, latency_pb2.PATH_FEED))
        given, applied = engine.command_state()
        snapshot.rings.append(
            pb.RingStatus(kind=pb.RING_KIND_CONTROL, used=max(given - applied, 0), slots=memory.CONTROL_SLOTS)
        )
        seen = parts.self_watch()
        busy_ns = int(engine.buffers.words[memory.BUSY_NS])
        share = (busy_ns - busy.busy_ns) / max(now_ns - busy.taken_ns, 1)
        busy.busy_ns, busy.taken_ns = busy_ns, now_ns
        stalls = seen.stalls if seen is not None else 0
        snapshot.engine.CopyFrom(daemon_status.engine_status(engine, min(max(share, 0.0), 1.0), stalls))
        if seen is not None:
            snapshot.self_watch.CopyFrom(daemon_status.self_watch_status(seen))
        device = parts.device.snapshot()
        if device is not None:
            snapshot.device.CopyFrom(daemon_status.device_status(device))


def _session(one: Session, now_ns: int) -> pb.SessionStatus:
    since_ns = one.lost_ns or one.heard_ns
    state = pb.SESSION_STATE_SEGMENT if one.attachment is not None else pb.SESSION_STATE_ATTACHED
    return pb.SessionStatus(
        session_id=one.session_id,
        client_name=one.client_name,
        path=latency_pb2.PATH_SHARED_MEMORY if one.shared else latency_pb2.PATH_GRPC,
        pace=prediction_pb2.PACE_BULK if one.bulk else prediction_pb2.PACE_REALTIME,
        model=one.model.model.name,
        state=pb.SESSION_STATE_LOST if one.lost_ns else state,
        instruments=len(one.states),
        ticks=max(one.published - one.rebuild_ticks, 0),
        unanswered=max(one.unanswered, 0),
        refused=one.refused,
        online_readout=bool(one.online),
        silent_ns=max(now_ns - since_ns, 0) if since_ns else 0,
    )
