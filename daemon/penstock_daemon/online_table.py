"""The online readouts of the sessions that asked for one: who has which, and what is kept of them between sessions.

    free readouts + readouts of sessions = online.states

A readout belongs to the engine while its session's source is open; the event loop writes it before the source is
opened and while it is held, and reads it once it is closed. Files are read and written on the loop's executor. Whatever
is wrong with a snapshot is a line of the log and a readout that starts from nothing, never a session that is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine
from penstock_daemon.model_table import ModelEntry
from penstock_daemon.online_snapshot import (
    Owner,
    SnapshotError,
    read_snapshot,
    restore,
    snapshot_bytes,
    write_snapshot,
)
from penstock_kernels import online_layout as layout

if TYPE_CHECKING:
    from penstock_daemon.sessions import Session

_MEND: Final = "the readout starts from nothing; remove the file, or leave it to be replaced when the session ends"

_log = structlog.get_logger("penstock.online")


@dataclass(frozen=True)
class Kept:
    """What was found of one instrument: the snapshot's bytes, or none."""

    owner: Owner
    data: bytes | None


class OnlineTable:
    """Every online readout of the daemon.

    Args:
        engine: whose memory holds them.
        folder: of the snapshots; None keeps none.
    """

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        self._engine = engine
        self._folder = folder
        self._free = list(range(engine.sizes.online_states))[::-1]

    @property
    def allowed(self) -> bool:
        """Whether this daemon has any."""
        return self._engine.sizes.online_states > 0

    @property
    def _buffers(self) -> memory.OnlineBuffers:
        buffers = self._engine.buffers.online
        assert buffers is not None, "an online readout where the daemon has none"
        return buffers

    @property
    def free(self) -> int:
        """How many nobody has."""
        return len(self._free)

    def reserve(self, count: int) -> list[int]:
        """Take *count* of them from the pool, which has as many; nothing of whose they were is left in them."""
        taken = [self._free.pop() for _ in range(count)]
        if taken:
            self._buffers.words[taken] = 0
        return taken

    def release(self, readouts: Iterable[int]) -> None:
        """Give them back, without a word about what they learned."""
        self._free.extend(readouts)

    async def find(self, client: str, instruments: Sequence[pb.Instrument], model: ModelEntry) -> list[Kept]:
        """Read the snapshots of a session's instruments; a session without a client name has none."""
        owners = [_owner(client, one, model) for one in instruments]
        if self._folder is None or not client:
            return [Kept(owner, None) for owner in owners]
        return await asyncio.get_running_loop().run_in_executor(None, self._read, self._folder, owners)

    @staticmethod
    def _read(folder: Path, owners: list[Owner]) -> list[Kept]:
        found = []
        for owner in owners:
            data = None
            try:
                data = read_snapshot(folder, owner)
            except SnapshotError as error:
                _refuse(folder, owner, error)
            found.append(Kept(owner, data))
        return found

    def lay_out(self, states: Sequence[int], readouts: Sequence[int], model: ModelEntry, kept: Sequence[Kept]) -> bool:
        """Write the readouts of a session whose source is not open, or held, and give them to its states.

        Args:
            states: of the session, in the order of its instruments.
            readouts: one for each.
            model: what they correct.
            kept: from find, one for each.

        Returns:
            Whether any of them goes on from a snapshot.
        """
        buffers, sizes = self._engine.buffers, self._engine.sizes
        settings = replace(sizes.online, units=min(sizes.online.units, model.model.units))
        learned = False
        for state, readout, one in zip(states, readouts, kept, strict=True):
            words, values = self._buffers.words[readout], self._buffers.values[readout]
            layout.lay_out(model.model, settings, words, values)
            if one.data is not None:
                assert self._folder is not None, "a snapshot was read from a folder"
                try:
                    restore(one.data, one.owner, words, values)
                    learned = True
                    _log.info("online_snapshot_loaded", **_said(one.owner), learned=int(words[layout.LEARNED]))
                except SnapshotError as error:
                    _refuse(self._folder, one.owner, error)
            buffers.online_of[state] = readout
        return learned

    def learned(self, readouts: Sequence[int]) -> bool:
        """Return whether any of them has learned something."""
        return bool(readouts) and bool((self._buffers.words[list(readouts), layout.LEARNED] > 0).any())

    def copies(self, session: Session) -> list[tuple[Owner, bytes]]:
        """Return the snapshots of a session that the engine does not touch now; those that learned nothing are left out."""
        if self._folder is None or not session.client_name or not session.online:
            return []
        held, found = self._buffers, []
        for instrument, readout in zip(session.instruments, session.online, strict=True):
            words, values = held.words[readout], held.values[readout]
            if words[layout.LEARNED] > 0:
                owner = _owner(session.client_name, instrument, session.model)
                found.append((owner, snapshot_bytes(owner, words, values)))
        return found

    async def keep(self, session: Session) -> None:
        """Write the snapshots of a session that the engine does not touch now."""
        copies = self.copies(session)
        if copies:
            await asyncio.get_running_loop().run_in_executor(None, self.write, copies)

    def write(self, copies: Sequence[tuple[Owner, bytes]]) -> None:
        """Write snapshots; what can't be written is logged."""
        assert self._folder is not None, "copies come with a folder"
        for owner, data in copies:
            try:
                write_snapshot(self._folder, owner, data)
                _log.info("online_snapshot_written", **_said(owner), file=owner.file_name)
            except SnapshotError as error:
                mend = "what this session learned is lost; make online.snapshot_folder writable"
                _log.warning("online_snapshot_failed", **_said(owner), detail=str(error), mend=mend)

    async def give_back(self, session: Session) -> None:
        """Keep what a closed session learned and take its readouts back."""
        buffers = self._engine.buffers
        for state in session.states:
            buffers.online_of[state] = memory.NO_ONLINE
        try:
            await self.keep(session)
        finally:
            self.release(session.online)


def _owner(client: str, instrument: pb.Instrument, model: ModelEntry) -> Owner:
    return Owner(client, model.model.name, model.content_hash.hex(), instrument.dataset, instrument.symbol)


def _said(owner: Owner) -> dict[str, str]:
    return {"client": owner.client, "model": owner.model, "dataset": owner.dataset, "symbol": owner.symbol}


def _refuse(folder: Path, owner: Owner, error: SnapshotError) -> None:
    path = folder / owner.file_name
    _log.warning("online_snapshot_refused", **_said(owner), file=str(path), detail=str(error), mend=_MEND)
