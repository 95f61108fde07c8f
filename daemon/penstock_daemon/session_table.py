"""Opens, keeps, resumes and closes sessions; owns the pools of sources and states.

    free sources + sessions = sources - 1                  one is the warm-up's, and one more the feed's where there is one
    free states + states of sessions = states - 1          as above: one for each of its instruments

Opening and closing go through the engine's control ring; a source or state goes back to its pool only when the engine
has applied the closing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon import faults
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from penstock_daemon.hello_checks import check_hello
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelEntry, ModelTable
from penstock_daemon.online_table import OnlineTable
from penstock_daemon.sessions import Counts, Hold, Session
from penstock_daemon.warm_up import WARM_UP_SOURCE

FEED_SOURCE: Final = WARM_UP_SOURCE + 1  # Where there is a feed; no session gets it then.
FEED_STATE: Final = WARM_UP_SOURCE + 1  # The first of its states.
_TOKEN_BYTES: Final = 16
_SETTLE_S: Final = 2.0

_log = structlog.get_logger("penstock.sessions")


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of sessions; units in the names."""

    sessions_max: int = 16
    instruments_max: int = 32
    resumable_max: int = 8
    resume_grace_ns: int = 30_000_000_000
    heartbeat_interval_ns: int = 5_000_000_000
    segments_max: int = 0  # Sessions with shared memory, of those that have a stream.
    feed_instruments: int = 0  # Of the feed, which has a source and these states; 0 where there is none.


class SessionTable:
    """Every session of the daemon."""

    def __init__(
        self, engine: Engine, link: LoopLink, models: ModelTable, online: OnlineTable, limits: SessionLimits
    ) -> None:
        self._engine = engine
        self._online = online
        self._link = link
        self._models = models
        self.limits = limits
        first_source = FEED_SOURCE + (1 if limits.feed_instruments else 0)
        self._free_sources = list(range(first_source, engine.sizes.sources))[::-1]
        self._free_states = list(range(FEED_STATE + limits.feed_instruments, engine.sizes.states))[::-1]
        self._by_token: dict[bytes, Session] = {}
        self._next_id = 1
        self.refusals: dict[str, int] = {}
        self.counts = Counts()
        self.opened = 0
        self.resumed = 0
        self.on_closed: Callable[[Session], None] = lambda _session: None
        self._closing: set[asyncio.Task[None]] = set()
        self._opening_shared = 0  # Sessions with shared memory that no stream holds yet.

    @property
    def sessions(self) -> list[Session]:
        """Every session that holds a source, in the order of opening."""
        return list(self._by_token.values())

    @property
    def states_in_use(self) -> int:
        """States that sessions hold."""
        return sum(len(session.states) for session in self.sessions)  # A copy: metrics ask from their own thread.

    def count_refusal(self, reason: str) -> None:
        """Count a refusal, for the metrics."""
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    async def open(self, hello: pb.Hello) -> tuple[Session, pb.StateOrigin]:
        """Resume the session that *hello* offers the token of, or open a new one.

        Raises:
            SessionFault: the Hello is refused, and why.
        """
        check_hello(
            hello,
            instruments_max=self.limits.instruments_max,
            online_allowed=self._online.allowed,
            shared_allowed=self.limits.segments_max > 0,
        )
        lost = self._by_token.get(hello.resume_token) if hello.resume_token else None
        self._check_segments(hello, lost)
        self._opening_shared += hello.shared_memory
        try:
            return await self._open(hello, lost)
        finally:
            self._opening_shared -= hello.shared_memory

    async def _open(self, hello: pb.Hello, lost: Session | None) -> tuple[Session, pb.StateOrigin]:
        if lost is not None:
            await lost.let_go(SegmentEnd.CLOSED)  # A stream that holds it still is taken over.
        if lost is not None and not lost.closed:
            resumed = self._resume(lost, hello)
            if resumed:
                return lost, pb.STATE_ORIGIN_RESUMED
            await self.close(lost)
        self._models.find(hello.model, field_name="Hello.model")  # Before anything gives way for a session.
        await self._supersede(hello)
        source, states, online = await self._reserve(len(hello.instruments), online=hello.online_readout)
        model = self._models.find(hello.model, field_name="Hello.model")  # The name may mean another one since.
        session = Session(
            self._engine,
            model,
            session_id=self._next_id,
            token=secrets.token_bytes(_TOKEN_BYTES),
            source=source,
            states=states,
            hello=hello,
            counts=self.counts,
            online=online,
        )
        self._next_id += 1
        model.sessions += 1
        self._by_token[session.token] = session
        self.opened += 1
        if online:
            await self._begin_online(session)
        self._engine.reset_source(source)
        for state in states:
            self._engine.command(Command.RESET_STATE, state)
        opened = self._engine.command(
            Command.OPEN_SOURCE,
            source,
            model.slot,
            memory.PATH_SHARED_MEMORY if session.shared else memory.PATH_GRPC,
            1 if session.bulk else 0,
        )
        try:
            await self._link.applied(opened)
        except BaseException:
            await self.close(session)
            raise
        return session, pb.STATE_ORIGIN_COLD

    def attach(self, session: Session, hold: Hold) -> None:
        """Give a session to the stream that has *hold*; a stream that held it before is ended."""
        self._take_away(session)
        session.hold = hold
        session.lost_ns = 0
        session.heard_ns = session.said_ns = time.monotonic_ns()
        self._link.listen(session.source, session.wake.set)

    def detach(self, session: Session) -> bool:
        """Note that a session's stream has ended without Goodbye; it is kept for the grace time.

        Returns:
            False where there is nothing to keep it for, so that the caller closes it.
        """
        session.hold = None
        self._link.ignore(session.source)
        if self.limits.resume_grace_ns == 0 or self.limits.resumable_max == 0:
            return False
        if session.published == session.rebuild_ticks:
            return False  # No tick to predict yet: a new session costs the client nothing.
        session.lost_ns = time.monotonic_ns()
        return True

    async def close(self, session: Session) -> None:
        """End a session and free its source and states at once, even where the caller is cancelled meanwhile."""
        giving_back = self._begin_close(session)
        if giving_back is not None:
            await asyncio.shield(giving_back)

    def _begin_close(self, session: Session) -> asyncio.Task[None] | None:
        """End a session now. Returns what gives its source and states back; None where it was closed before."""
        if session.closed:
            return None
        session.closed = True
        self._take_away(session)
        self._link.ignore(session.source)
        del self._by_token[session.token]
        self.on_closed(session)
        if session.attachment is not None:
            session.attachment.end(SegmentEnd.CLOSED)  # The engine lets go of it before it closes the source.
        closed = self._engine.command(Command.CLOSE_SOURCE, session.source)
        giving_back = asyncio.create_task(self._give_back(session, closed))
        self._closing.add(giving_back)
        giving_back.add_done_callback(self._closing.discard)
        return giving_back

    async def _give_back(self, session: Session, closed: int) -> None:
        """Return source and states to their pools once the engine has let go of them."""
        await session.let_go(SegmentEnd.CLOSED)
        await self._link.applied(closed)
        if session.online:
            await self._online.give_back(session)
        session.model.sessions -= 1
        self._free_sources.append(session.source)
        self._free_states.extend(session.states)

    def _take_away(self, session: Session) -> None:
        """End the stream that holds a session, if one does, because another has its place."""
        if session.hold is not None:
            session.hold.lose(
                faults.unavailable(
                    "TAKEN_OVER",
                    field="Hello.resume_token",
                    value="",
                    mend="another stream has offered the token of this session; read that one",
                )
            )
            session.hold = None

    def expire(self, now_ns: int) -> None:
        """Close lost sessions whose grace is over, and the oldest of too many; waits for nobody."""
        lost = sorted((one for one in self._by_token.values() if one.lost_ns), key=lambda one: one.lost_ns)
        excess = len(lost) - self.limits.resumable_max
        for index, session in enumerate(lost):
            if index < excess or now_ns - session.lost_ns > self.limits.resume_grace_ns:
                _log.info("session_expired", session=session.session_id, client=session.client_name)
                self._begin_close(session)

    def check_switch(self, entry: ModelEntry) -> list[Session]:
        """Return the sessions that a switch to *entry* would move.

        Raises:
            SessionFault: the new model has other horizons than a session was welcomed with.
        """
        moving = [session for session in self.sessions if session.model is not entry]
        for session in moving:
            if session.model.horizons != entry.horizons:
                raise faults.out_of_order(
                    "MODEL_HORIZONS",
                    field="ActivateModelRequest.name",
                    value=entry.model.name,
                    mend=f"session {session.session_id} was welcomed with the horizons of {session.model.model.name!r}; "
                    "switch to a model that has the same ones, or activate it for new sessions alone",
                )
        return moving

    async def switch_model(self, moving: list[Session], entry: ModelEntry) -> int:
        """Move sessions to another model, their states rebuilt from the journal. Returns how many moved."""
        moved = 0
        for session in moving:
            if session.closed:
                continue  # While another moved: its source and states may be somebody else's by now.
            held = self._engine.command(Command.HOLD_SOURCE, session.source)
            if session.online and not await self._switch_online(session, entry, held):
                continue
            for state in session.states:
                self._engine.command(Command.REBUILD_STATE, state, entry.slot)
            done = self._engine.command(Command.BIND_MODEL, session.source, entry.slot)
            session.model.sessions -= 1
            session.model = entry
            entry.sessions += 1
            moved += 1
            await self._link.applied(done)
        return moved

    async def _switch_online(self, session: Session, entry: ModelEntry, held: int) -> bool:
        """Keep what a session learned with its model, and begin with another. Returns False where it was closed meanwhile.

        The caller must bind the model before it waits for anything: snapshots name the model of the session.
        """
        await self._link.applied(held)
        if not session.closed:
            await self._online.keep(session)
        kept = await self._online.find(session.client_name, session.instruments, entry)
        if session.closed:
            return False
        session.online_learned = self._online.lay_out(session.states, session.online, entry, kept)
        return True

    def _resume(self, session: Session, hello: pb.Hello) -> bool:
        if not session.same_instruments(hello):
            raise faults.out_of_order(
                "RESUME_INSTRUMENTS",
                field="Hello.instruments",
                value=f"{len(hello.instruments)} instruments",
                mend="name the instruments of the session that is resumed, or leave resume_token empty",
            )
        if hello.shared_memory != session.shared:
            raise faults.out_of_order(
                "RESUME_SHARED_MEMORY",
                field="Hello.shared_memory",
                value=hello.shared_memory,
                mend="ask for what the session that is resumed has, or leave resume_token empty",
            )
        if hello.online_readout != bool(session.online):
            raise faults.out_of_order(
                "RESUME_ONLINE",
                field="Hello.online_readout",
                value=hello.online_readout,
                mend="ask for what the session that is resumed has, or leave resume_token empty",
            )
        if session.published == session.rebuild_ticks or not session.rewind(hello.next_prediction_sequence):
            return False
        session.lost_ns = 0
        session.online_learned = bool(session.online) and self._online.learned(session.online)
        self.resumed += 1
        return True

    def _check_segments(self, hello: pb.Hello, resumed: Session | None) -> None:
        """Refuse a Hello that asks for one segment more than there may be."""
        held = self._opening_shared
        held += sum(one.shared and one.hold is not None and one is not resumed for one in self.sessions)
        if hello.shared_memory and held >= self.limits.segments_max:
            raise faults.exhausted(
                "SEGMENTS",
                field="shared_memory.segments_max",
                value=self.limits.segments_max,
                mend="every segment is in use; close a session that has one, raise it, or do without shared memory",
            )

    async def _reserve(self, instruments: int, *, online: bool) -> tuple[int, list[int], list[int]]:
        """Take a source, states and online readouts from the pools; lost sessions give way, oldest first, where enough."""
        readouts = instruments if online else 0
        while not self._free_sources or len(self._free_states) < instruments or self._online.free < readouts:
            if self._closing:
                await asyncio.wait(self._closing)
                continue
            lost = [one for one in self._by_token.values() if one.lost_ns]
            if not lost or len(self._free_states) + sum(len(one.states) for one in lost) < instruments:
                break
            if self._online.free + sum(len(one.online) for one in lost) < readouts:
                break
            await self.close(min(lost, key=lambda one: one.lost_ns))
        if not self._free_sources:
            raise faults.exhausted(
                "SESSIONS",
                field="sessions.max",
                value=self.limits.sessions_max,
                mend="every session is in use; close one, raise sessions.max, or ask another daemon",
            )
        if len(self._free_states) < instruments:
            raise faults.exhausted(
                "STATES",
                field="Hello.instruments",
                value=f"{instruments} instruments",
                mend=f"{len(self._free_states)} states are free; name fewer, or raise sessions.states_max",
            )
        if self._online.free < readouts:
            raise faults.exhausted(
                "ONLINE_STATES",
                field="Hello.online_readout",
                value=f"{instruments} instruments",
                mend=f"{self._online.free} online readouts are free; name fewer, do without, or raise online.states",
            )
        states = [self._free_states.pop() for _ in range(instruments)]
        return self._free_sources.pop(), states, self._online.reserve(readouts)

    async def _supersede(self, hello: pb.Hello) -> None:
        """Close the lost session that a new one with an online readout follows on, so that it goes on with its snapshot."""
        for lost in self.sessions:
            follows = lost.online and lost.lost_ns and lost.client_name and lost.client_name == hello.client_name
            if hello.online_readout and follows and lost.same_instruments(hello):
                await self.close(lost)

    async def _begin_online(self, session: Session) -> None:
        """Write the online readouts of a session whose source is not open yet."""
        try:
            kept = await self._online.find(session.client_name, session.instruments, session.model)
            session.online_learned = self._online.lay_out(session.states, session.online, session.model, kept)
        except BaseException:
            await self.close(session)
            raise

    async def settle(self) -> None:
        """Wait until every session that was closed has given back what it had; for the daemon's stop."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=_SETTLE_S)

    def keep_online(self) -> None:
        """Write what the remaining sessions have learned; the engine must have stopped."""
        for session in self.sessions:
            if session.online:
                self._online.write(self._online.copies(session))
