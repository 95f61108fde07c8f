"""One session's files, one after the other, as the recorder's thread writes them.

Nothing here raises for what a disk does: a tick that could not be written is counted as lost, noted as a gap in the
catalogue, and the next ones are tried again.

    position == ticks of the session that were written, lost or dropped so far
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from penstock.v1.records import TICK_BYTES
from penstock_daemon.recorder_catalogue import Catalogue, CatalogueError
from penstock_daemon.recorder_file import FILE_SUFFIX, RecordedInstrument, RecordingFile

_CLIENT_CHARACTERS_MAX: Final = 24
_LOG_PAUSE_NS: Final = 10 * 10**9  # A full disk fails twenty times a second; it is said this rarely.

log = structlog.get_logger(__name__)


class Chunk(NamedTuple):
    """Ticks of one message."""

    records: bytes
    rebuild: bool

    @property
    def ticks(self) -> int:
        """How many ticks it has."""
        return len(self.records) // TICK_BYTES


@dataclass(slots=True)
class Tally:
    """What all sessions' files add up to. Written by the recorder's thread, read by any."""

    ticks_written: int = 0
    ticks_lost: int = 0
    gaps: int = 0
    write_errors: int = 0
    files_completed: int = 0
    logged_ns: int = -_LOG_PAUSE_NS  # When an error was last logged.


class SessionFiles:
    """The files of one session; one of them, at most, is open."""

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        tally: Tally,
        session_id: int,
        client_name: str,
        instruments: Sequence[RecordedInstrument],
        *,
        rotate_bytes: int,
        rotate_ns: int,
    ) -> None:
        """Prepare; the first file is made with the first ticks."""
        self._folder = folder
        self._catalogue = catalogue
        self._tally = tally
        self._session_id = session_id
        self._client_name = client_name
        self._instruments = tuple(instruments)
        self._rotate_bytes = rotate_bytes
        self._rotate_ns = rotate_ns
        self._file: RecordingFile | None = None
        self._due_ns = 0  # When the open file is to be completed.
        self._part = 0
        self._position = 0
        self._file_position = 0  # Where in the session the open file begins, with the gap before its first tick.
        self._rebuild_ticks = 0  # In the open file.
        self._gaps: list[dict[str, int]] = []  # Of the open file, or of the next one.

    def write(self, chunks: Sequence[Chunk], now_ns: int) -> None:
        """Write *chunks* in order, to a new file where the open one is full."""
        batch: list[Chunk] = []
        file_ticks = self._file.ticks if self._file else 0  # With the batch.
        for chunk in chunks:
            if file_ticks and (file_ticks + chunk.ticks) * TICK_BYTES > self._rotate_bytes:
                self._write_batch(batch, now_ns)
                self._complete(now_ns)
                batch, file_ticks = [], 0
            batch.append(chunk)
            file_ticks += chunk.ticks
        self._write_batch(batch, now_ns)

    def gap(self, ticks: int) -> None:
        """Note that *ticks* are missing here."""
        self._position += ticks
        after_ticks = self._file.ticks if self._file else 0
        if self._gaps and self._gaps[-1]["after_ticks"] == after_ticks:
            self._gaps[-1]["ticks"] += ticks
        else:
            self._gaps.append({"after_ticks": after_ticks, "ticks": ticks})
            self._tally.gaps += 1

    def rotate_if_due(self, now_ns: int) -> None:
        """Complete the open file where it is old enough."""
        if self._file is not None and now_ns >= self._due_ns:
            self._complete(now_ns)

    def finish(self, now_ns: int) -> None:
        """Complete the open file: the session is over."""
        self._complete(now_ns)

    def _write_batch(self, batch: Sequence[Chunk], now_ns: int) -> None:
        ticks = sum(chunk.ticks for chunk in batch)
        if not ticks:
            return
        kept = 0
        try:
            if self._file is None:
                self._file = self._open(now_ns)
            before = self._file.ticks
            try:
                self._file.write([chunk.records for chunk in batch])
            finally:
                kept = self._file.ticks - before
        except OSError as refusal:
            self._failed("ticks can't be recorded", refusal, now_ns)
        self._position += kept
        self._tally.ticks_written += kept
        self._rebuild_ticks += min(kept, sum(chunk.ticks for chunk in batch if chunk.rebuild))
        if self._file is not None and not self._file.sound:
            self._file.abandon()
            self._file = None
            self._gaps = []
        if kept < ticks:
            self._tally.ticks_lost += ticks - kept
            self.gap(ticks - kept)

    def _open(self, now_ns: int) -> RecordingFile:
        started = dt.datetime.now(dt.UTC)
        client = re.sub(r"[^A-Za-z0-9_]+", "-", self._client_name).strip("-")[:_CLIENT_CHARACTERS_MAX] or "client"
        name = f"{started:%Y%m%dT%H%M%S%fZ}-{self._session_id:06d}-{client}-{self._part + 1:04d}{FILE_SUFFIX}"
        file = RecordingFile(self._folder / name, self._instruments)
        self._part += 1
        self._file_position = self._position - sum(gap["ticks"] for gap in self._gaps)
        self._rebuild_ticks = 0
        self._due_ns = now_ns + self._rotate_ns
        self._note(file, now_ns, complete=False)
        return file

    def _complete(self, now_ns: int) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as refusal:
            self._failed("a recording can't be completed", refusal, now_ns)
        else:
            self._tally.files_completed += 1 if file.ticks else 0
        self._note(file, now_ns, complete=True)
        self._gaps = []

    def _note(self, file: RecordingFile, now_ns: int, *, complete: bool) -> None:
        """Write the file's entry into the catalogue, or remove that of an empty one."""
        entry: dict[str, Any] = {
            "format": "DBN v3, mbp-1",
            "session_id": self._session_id,
            "client_name": self._client_name,
            "part": self._part,
            "first_tick": self._file_position,
            "instruments": {
                str(one.instrument_id): {"dataset": one.dataset, "symbol": one.symbol} for one in self._instruments
            },
            "size_scale": {str(one.instrument_id): one.size_scale or 1 for one in self._instruments},
        }
        if complete:
            entry |= {"rows": file.ticks, "rebuild_ticks": self._rebuild_ticks, "gaps": self._gaps}
        try:
            if complete and not file.ticks:
                self._catalogue.forget(file.path.name)
            else:
                self._catalogue.note(file.path.name, entry)
        except (OSError, CatalogueError) as refusal:
            self._failed("the catalogue of recordings can't be written", refusal, now_ns)

    def _failed(self, what: str, refusal: Exception, now_ns: int) -> None:
        self._tally.write_errors += 1
        if now_ns - self._tally.logged_ns >= _LOG_PAUSE_NS:
            self._tally.logged_ns = now_ns
            log.error(
                what,
                session_id=self._session_id,
                folder=str(self._folder),
                reason=str(refusal),
                write_errors=self._tally.write_errors,
                ticks_lost=self._tally.ticks_lost,
                mend="make room on the disk, or set record.folder to another one",
            )
