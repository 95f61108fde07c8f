"""The feed as the daemon sees it: made with the engine, ready before SERVING, stopped before the engine.

    check_lines -> Feed -> prepare (executor) -> open -> start -> look, several times a second -> stop

It holds one source of the engine and one state per instrument for as long as the daemon lives: no session is given them.
What others may rely on are the attributes of ``Feed``.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Final

import structlog

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon import engine_memory, faults, rings
from penstock_daemon.config_feed import FeedConfig, split_instruments
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from penstock_daemon.feed import memory
from penstock_daemon.feed.card_clocks import CardOffset, tell_card_clocks
from penstock_daemon.feed.memory import FeedMemory, Payload
from penstock_daemon.feed.metrics import FeedSnapshot, snapshot_of
from penstock_daemon.feed.payloads import read_symbols
from penstock_daemon.feed.sockets import FeedError, Line, SocketWishes, open_line, open_recovery
from penstock_daemon.feed.teller import Teller
from penstock_daemon.feed.thread import FeedShape, Receiver, warm_up
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelEntry, ModelTable
from penstock_daemon.session_table import FEED_SOURCE, FEED_STATE

_log = structlog.get_logger("penstock.feed")
_PAYLOADS: Final = {"itch": Payload.ITCH, "dbn": Payload.DBN}


def _no_card(_path: str) -> None:
    """Return that nobody compares the clock."""


class Feed:
    """A multicast feed whose ticks the engine predicts.

    Args:
        config: the section [feed], with a group.
        engine: whose source it takes; its sizes have room for it.
        card_offset: how far the clock of a network card is from CLOCK_MONOTONIC.
        tap_ticks: that wait for the recorder, at most; 0 where the feed is not recorded.

    Attributes:
        name: feed.name.
        source: of the engine; its answers are read by ``engine.answers(feed.source, ...)`` and given back by
            ``engine.release_answers(feed.source, memory.PATH_FEED, False, count)``, on the event loop.
        instruments: in the order of feed.instruments.
        receiver: its thread.
    """

    def __init__(
        self, config: FeedConfig, engine: Engine, card_offset: CardOffset = _no_card, *, tap_ticks: int = 0
    ) -> None:
        self._config = config
        self.engine = engine
        self.name = config.name
        self.source = FEED_SOURCE
        instruments, _ = read_symbols(
            config.payload, split_instruments(config.instruments), dataset=config.dataset, field="feed.instruments"
        )
        self.instruments: list[pb.Instrument] = list(instruments)
        self.states = [FEED_STATE + place for place in range(len(instruments))]
        self.receiver = Receiver(
            FeedShape(
                payload=_PAYLOADS[config.payload],
                names=[one.symbol for one in instruments],
                ids=[one.instrument_id for one in instruments],
                states=self.states,
                held=config.reorder_max,
                orders_max=config.orders_max if config.payload == "itch" else 1,
                levels_max=config.levels_max if config.payload == "itch" else 1,
                tap_ticks=tap_ticks,
            ),
            self.source,
        )
        settings = self.receiver.memory.settings
        settings[memory.IDLE_BLOCK] = 1 if config.idle == "block" else 0
        settings[memory.REORDER_WAIT_NS] = config.reorder_wait_us * 1_000
        settings[memory.RECOVERY_TIMEOUT_NS] = config.recovery_timeout_ms * 1_000_000
        settings[memory.RECOVERY_ATTEMPTS] = config.recovery_attempts
        settings[memory.ASSIST_MAX] = engine.settings.assist_max if engine.device is None else 0
        self._lines: list[Line] = []
        self._cards: list[str] = []  # By line: the clock of its network card, "" for none.
        self._card_offset = card_offset
        self._model: ModelEntry | None = None
        self._teller = Teller(self.receiver, self.name)
        self._set_midnight()

    @property
    def memory(self) -> FeedMemory:
        """Counts and window."""
        return self.receiver.memory

    @property
    def model(self) -> ModelEntry:
        """What predicts."""
        assert self._model is not None, "a feed has a model once it is prepared"
        return self._model

    @property
    def follows_active(self) -> bool:
        """Whether it goes over to a model that is activated for open sessions."""
        return not self._config.model

    # --- Start ------------------------------------------------------------------------------------------------------

    def prepare(self, models: ModelTable, lock: str) -> None:
        """Choose the model, compile, warm up, lock; takes seconds, so it is for an executor thread.

        Args:
            models: where the active one is loaded.
            lock: memory.lock.

        Raises:
            FeedError: it can't be had as configured.
            ModelError: the model can't.
        """
        file = self._config.model
        try:
            self._model = models.place(models.read(file)) if file else models.active
        except faults.SessionFault as fault:
            raise FeedError(f"feed.model: {fault}") from fault
        self._model.sessions += 1
        self.receiver.compile(self.engine)
        warm_up(self.engine, self.receiver.shape.payload)
        self.receiver.arena.touch()
        note = self.receiver.arena.lock() if lock != "off" else ""
        if note and lock == "on":
            raise FeedError(f"memory.lock: of the feed, {note}")
        if note:
            _log.warning("feed_memory_not_locked", detail=note)

    async def open(self, link: LoopLink) -> None:
        """Open its source, its states cold. link: to the running engine."""
        for state in self.states:
            self.engine.command(Command.RESET_STATE, state)
        opened = self.engine.command(Command.OPEN_SOURCE, self.source, self.model.slot, engine_memory.PATH_FEED, 0)
        await link.applied(opened)

    def start(self, cpus: frozenset[int]) -> None:
        """Join the groups and take in packets from now on; the source must be open.

        Args:
            cpus: where the thread may run; empty leaves it to the kernel.

        Raises:
            FeedError: a group can't be joined, or the CPUs can't be had.
        """
        self._lines = open_lines(self._config)
        by_line: list[Line | None] = [self._lines[0], None, None]
        rest = self._lines[1:]
        if self._config.group_b:
            by_line[memory.LINE_B] = rest.pop(0)
        if self._config.recovery:
            by_line[memory.LINE_RECOVERY] = rest.pop(0)
        self.receiver.listen_to([None if one is None else one.socket for one in by_line])
        self._cards = ["" if one is None else one.card for one in by_line]
        tell_card_clocks(self.memory.words, self._cards, self._card_offset)
        self.receiver.start(self.engine, cpus)
        for line in self._lines:
            for note in line.notes:
                _log.warning("feed_line_lacks", feed=self.name, detail=note)
        _log.info(
            "feed_listening",
            feed=self.name,
            lines=[line.what for line in self._lines],
            payload=self._config.payload,
            instruments=len(self.instruments),
            model=self.model.model.name,
            stamps=self._stamps(),
            receive_buffer_kb=min(line.buffer_bytes for line in self._lines) // 2048,
            arena_mib=round(self.receiver.arena.used_bytes / 2**20, 1),
        )

    def _stamps(self) -> str:
        if self._config.stamps == "off":
            return "daemon"
        return "network card" if self._lines[0].hardware else "kernel"

    def _set_midnight(self) -> None:
        """Say which midnight a session that begins now counts from."""
        midnight_ns = midnight_of(self._config.date, self._config.time_zone)
        rings.set_shared_word(self.memory.words, memory.MIDNIGHT_NEXT_NS, midnight_ns)

    # --- Service ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look after what time brings; to be called several times a second on the event loop."""
        if not self._config.date:
            self._set_midnight()
        if not self._lines:
            return  # Not started, or stopped already: that its thread is gone is no trouble.
        tell_card_clocks(self.memory.words, self._cards, self._card_offset)
        for line in self._lines:
            if line.membership is not None and line.membership.renew(line.socket):
                _log.warning("feed_line_rejoined", feed=self.name, line=line.what, detail="its interface was made anew")
        self._teller.look()

    def check_switch(self, entry: ModelEntry) -> None:
        """Refuse a model that subscribers could not follow to.

        Raises:
            SessionFault: it has other horizons.
        """
        if self.follows_active and self.model.horizons != entry.horizons:
            raise faults.out_of_order(
                "MODEL_HORIZONS",
                field="ActivateModelRequest.name",
                value=entry.model.name,
                mend=f"subscribers of feed {self.name} were told the horizons of {self.model.model.name!r}; switch to a "
                "model that has the same ones, or activate it for new sessions alone",
            )

    async def switch_model(self, entry: ModelEntry, link: LoopLink) -> None:
        """Go over to another model, the states rebuilt from their journals; nothing where it is the same, or chosen."""
        if not self.follows_active or entry is self.model:
            return
        self.engine.command(Command.HOLD_SOURCE, self.source)
        for state in self.states:
            self.engine.command(Command.REBUILD_STATE, state, entry.slot)
        done = self.engine.command(Command.BIND_MODEL, self.source, entry.slot)
        self.model.sessions -= 1
        self._model = entry
        entry.sessions += 1
        await link.applied(done)

    def snapshot(self) -> FeedSnapshot:
        """Return its counts as they stand; may be called from any thread."""
        return snapshot_of(self.receiver, self.name)

    # --- Stop -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take in no more packets: stop the thread and leave the groups; the engine may go on with what is in its ring."""
        self.receiver.stop()
        for line in self._lines:
            line.socket.close()
        self._lines = []

    def close(self) -> None:
        """Stop, and give back what is left."""
        self.stop()
        self.receiver.close()


def open_lines(config: FeedConfig) -> list[Line]:
    """Open line A, line B where there is one, and the recovery server where there is one.

    Raises:
        FeedError: one of them can't be had; none is left open.
    """
    wishes = SocketWishes(config.receive_buffer_kb, config.busy_poll_us, config.stamps)
    lines: list[Line] = []
    try:
        lines.append(open_line("feed.group", config.group, "feed.interface", config.interface, wishes))
        if config.group_b:
            key = "feed.interface_b" if config.interface_b else "feed.interface"
            lines.append(open_line("feed.group_b", config.group_b, key, config.interface_b or config.interface, wishes))
        if config.recovery:
            lines.append(open_recovery(config.recovery, wishes))
    except FeedError:
        for line in lines:
            line.socket.close()
        raise
    return lines


def check_lines(config: FeedConfig) -> str:
    """See that the lines and the day can be had, before all the work of a start.

    Returns:
        The clock of the network card that stamps line A's packets, such as /dev/ptp0; "" for none.

    Raises:
        FeedError: they can't.
    """
    midnight_of(config.date, config.time_zone)
    lines = open_lines(config)
    for line in lines:
        line.socket.close()
    return lines[0].card


def midnight_of(date: str, time_zone: str) -> int:
    """Return when *date* (YYYY-MM-DD, "" for today) begins in *time_zone*, Unix nanoseconds.

    Raises:
        FeedError: this host does not know the time zone.
    """
    try:
        zone: dt.tzinfo = dt.UTC if time_zone == "UTC" else zoneinfo.ZoneInfo(time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise FeedError(f"feed.time_zone: this host does not know {time_zone!r}; install tzdata, or use UTC") from error
    day = dt.date.fromisoformat(date) if date else dt.datetime.now(zone).date()
    return int(dt.datetime.combine(day, dt.time(), zone).timestamp()) * 1_000_000_000
