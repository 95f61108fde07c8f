"""The tick recorder: what each session sent, as DBN files, off the engine and never in its way.

Whoever takes in ticks appends their bytes; a thread of its own writes them. What the disk can't take in time is
counted and left out, and the catalogue says after which tick: ``append`` never waits and never raises.

    appended + missed == written + dropped + lost + queued      in ticks, over all sessions
        dropped: the queue was full, or the tap before it (missed)         lost: the disk refused them

Files are complete under their name and partial under NAME.partial (see recorder_file). A folder belongs to one daemon.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from penstock.v1.records import TICK_BYTES
from penstock_daemon.file_lock import FileLock, LockHeldError, holder_words
from penstock_daemon.recorder_catalogue import Catalogue, CatalogueError
from penstock_daemon.recorder_file import FILE_SUFFIX, PARTIAL_SUFFIX, RecordedInstrument, mend_partial
from penstock_daemon.recorder_session import Chunk, SessionFiles, Tally

LOCK_NAME: Final = ".penstock-recorder.lock"

_GATHER_S: Final = 0.05  # Ticks gather this long before the thread takes the interpreter from the event loop again.
_IDLE_S: Final = 1.0  # How often it looks for files that are due for rotation, without ticks.

log = structlog.get_logger(__name__)


class RecorderError(Exception):
    """Recording can't start; the sentence names the key, the folder and the mend."""


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """What a recorder has done so far; every number but the last three only grows."""

    ticks_written: int = 0
    bytes_written: int = 0
    ticks_dropped: int = 0  # The queue was full, or a tap.
    ticks_missed: int = 0  # Of those: a tap was full.
    ticks_lost: int = 0  # The disk refused them.
    gaps: int = 0  # Places where ticks are missing from a recording.
    write_errors: int = 0
    files_completed: int = 0
    queued_bytes: int = 0
    queue_bytes: int = 0  # The bound of queued_bytes.
    sessions: int = 0  # Recordings that are open.


class _Entry(NamedTuple):
    """What waits for the thread."""

    files: SessionFiles
    chunk: Chunk | None  # None: the session is over.
    dropped_before: int  # Ticks dropped between the entry before and this one.


class SessionRecording:
    """The recording of one session, as its owner sees it; for one thread at a time."""

    def __init__(self, recorder: Recorder, files: SessionFiles) -> None:
        """Made by ``Recorder.open_session``."""
        self._recorder = recorder
        self._files = files
        self._dropped = 0  # Since the last entry that was queued.
        self._closed = False

    def append(self, records: bytes, *, rebuild: bool = False) -> bool:
        """Take *records*, or drop them all and count them.

        Args:
            records: accepted ticks, whole DBN mbp-1 records, in the order of the session. Kept until written.
            rebuild: whether they restore a state and are not answered.

        Returns:
            False where they were dropped: the queue is full, or the recording or the recorder is closed.
        """
        assert len(records) % TICK_BYTES == 0, "a recording takes whole records"
        if not records:
            return True
        if self._recorder.offer(self._files, Chunk(records, rebuild), self._dropped, closed=self._closed):
            self._dropped = 0
            return True
        self._dropped += len(records) // TICK_BYTES
        return False

    def miss(self, ticks: int) -> None:
        """Note that *ticks* are missing here, which found the tap before the recorder full."""
        self._dropped += ticks
        self._recorder.miss(ticks)

    def close(self) -> None:
        """End the recording; its file is completed soon, by the recorder's thread. May be called twice."""
        if not self._closed:
            self._closed = True
            self._recorder.offer(self._files, None, self._dropped)


class Recorder:
    """A folder that recordings go to, and the thread that writes them."""

    def __init__(
        self,
        folder: Path,
        rotate_bytes: int,
        rotate_ns: int,
        queue_bytes: int,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start the thread; it inherits the CPU affinity of the caller.

        Args:
            folder: made where it is missing; partial files that a killed daemon left there are mended.
            rotate_bytes: a file is completed before its records would take more (those of a single message may).
            rotate_ns: and when it is this old.
            queue_bytes: most bytes that wait for the disk.
            clock_ns: monotonic.

        Raises:
            RecorderError: the folder can't be used.
        """
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        self._rotate_ns = rotate_ns
        self._queue_bytes = queue_bytes
        self._clock_ns = clock_ns
        self._lock, self._catalogue = _take_folder(folder)

        self._mutex = threading.Lock()  # Guards the five below.
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        self._ticks_dropped = 0
        self._ticks_missed = 0  # Of those.
        self._stopping = False

        self._wake = threading.Event()  # There is something to do.
        self._hurry = threading.Event()  # Half the queue is full, or the daemon stops: do not gather.
        self._tally = Tally()
        self._open: dict[int, SessionFiles] = {}  # By id(); the thread's own.
        self._thread = threading.Thread(target=self._run, name="penstock-recorder", daemon=True)
        self._thread.start()

    def open_session(
        self, session_id: int, client_name: str, instruments: Sequence[RecordedInstrument]
    ) -> SessionRecording:
        """Return the recording of a new session; its first file is made with its first ticks."""
        files = SessionFiles(
            self._folder,
            self._catalogue,
            self._tally,
            session_id,
            client_name,
            instruments,
            rotate_bytes=self._rotate_bytes,
            rotate_ns=self._rotate_ns,
        )
        return SessionRecording(self, files)

    def stats(self) -> RecorderStats:
        """Return the counters as they stand; from any thread."""
        tally = self._tally
        return RecorderStats(
            ticks_written=tally.ticks_written,
            bytes_written=tally.ticks_written * TICK_BYTES,
            ticks_dropped=self._ticks_dropped,
            ticks_missed=self._ticks_missed,
            ticks_lost=tally.ticks_lost,
            gaps=tally.gaps,
            write_errors=tally.write_errors,
            files_completed=tally.files_completed,
            queued_bytes=self._queued_bytes,
            queue_bytes=self._queue_bytes,
            sessions=len(self._open),
        )

    def close(self, timeout_s: float) -> bool:
        """Write what is queued, complete every file and stop; may be called twice.

        Returns:
            False where the disk was too slow for *timeout_s*: files stay partial then, and are mended at the next
            start.
        """
        with self._mutex:
            self._stopping = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def offer(self, files: SessionFiles, chunk: Chunk | None, dropped_before: int, *, closed: bool = False) -> bool:
        """Queue *chunk*, or the end of a session; for ``SessionRecording``.

        Returns:
            False where the queue is full or the recording or the recorder is closed; an end is always taken.
        """
        size_bytes = len(chunk.records) if chunk is not None else 0
        with self._mutex:
            if chunk is not None and (closed or self._stopping or self._queued_bytes + size_bytes > self._queue_bytes):
                self._ticks_dropped += chunk.ticks
                return False
            self._queue.append(_Entry(files, chunk, dropped_before))
            self._queued_bytes += size_bytes
            half_full = self._queued_bytes * 2 > self._queue_bytes
        if half_full:
            self._hurry.set()
        if not self._wake.is_set():
            self._wake.set()
        return True

    def miss(self, ticks: int) -> None:
        """Count *ticks* that never came here; for ``SessionRecording``."""
        with self._mutex:
            self._ticks_dropped += ticks
            self._ticks_missed += ticks

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            with self._mutex:
                stopping = self._stopping  # Nothing is queued after it, but ends that have nothing to write.
                entries, self._queue = self._queue, deque()
            self._write(entries)
            if entries and not stopping:
                self._hurry.wait(_GATHER_S)
                self._hurry.clear()
        for files in self._open.values():
            self._guarded(partial(files.finish, self._clock_ns()))
        self._open.clear()
        self._guarded(self._lock.release)

    def _write(self, entries: deque[_Entry]) -> None:
        """Write *entries*, session by session; the order within a session stays."""
        now_ns = self._clock_ns()
        by_session: dict[int, list[_Entry]] = {}
        for entry in entries:
            by_session.setdefault(id(entry.files), []).append(entry)
        for session_entries in by_session.values():
            self._guarded(partial(self._write_session, session_entries, now_ns))
            written_bytes = sum(len(entry.chunk.records) for entry in session_entries if entry.chunk is not None)
            with self._mutex:
                self._queued_bytes -= written_bytes
        for files in self._open.values():
            self._guarded(partial(files.rotate_if_due, now_ns))

    def _write_session(self, entries: list[_Entry], now_ns: int) -> None:
        files = entries[0].files
        batch: list[Chunk] = []
        for entry in entries:
            self._open[id(files)] = files
            if entry.dropped_before:
                files.write(batch, now_ns)
                batch = []
                files.gap(entry.dropped_before)
            if entry.chunk is not None:
                batch.append(entry.chunk)
        files.write(batch, now_ns)
        if entries[-1].chunk is None:
            files.finish(now_ns)
            del self._open[id(files)]

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do *work*; a mistake of ours costs one session some ticks, and never the thread, or the daemon."""
        try:
            work()
        except Exception:
            self._tally.write_errors += 1
            log.exception("the recorder failed", folder=str(self._folder))


def _take_folder(folder: Path) -> tuple[FileLock, Catalogue]:
    """Make *folder* this process's, and mend what a killed daemon left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock.take(folder / LOCK_NAME)
    except LockHeldError as held:
        raise RecorderError(
            f"record.folder: must be a folder of its own, was {folder}, where {holder_words(held.pid)} records already; "
            "choose another one"
        ) from held
    except (OSError, ValueError) as refusal:
        reason = refusal.strerror if isinstance(refusal, OSError) else refusal
        raise RecorderError(
            f"record.folder: must be a folder that can be made and written, was {folder}: {reason}; choose another one"
        ) from refusal
    try:
        catalogue = Catalogue(folder)
        for cut_short in sorted(folder.glob(f"*{FILE_SUFFIX}{PARTIAL_SUFFIX}")):
            _mend(cut_short, catalogue)
    except (OSError, CatalogueError) as refusal:
        lock.release()
        raise RecorderError(
            f"record.folder: must be a folder that can be written, was {folder}: {refusal}"
        ) from refusal
    return lock, catalogue


def _mend(cut_short: Path, catalogue: Catalogue) -> None:
    name = cut_short.name.removesuffix(PARTIAL_SUFFIX)
    try:
        ticks = mend_partial(cut_short)
    except OSError as refusal:
        log.warning("a recording that was cut short can't be mended", file=os.fspath(cut_short), reason=str(refusal))
        return
    if ticks:
        catalogue.note(name, {**catalogue.find(name), "rows": ticks, "cut_short": True})
    else:
        catalogue.forget(name)
    log.info("a recording that was cut short is mended", file=name, ticks=ticks)
