"""The ticks a model is trained on: recordings in order of time, read one at a time and as often as needed.

the order of recordings, and so the model, does not depend on the order in which they were named
memory: a piece of a file at a time; files are laid out on disk (spool.py), and those beyond CACHE_BYTES or CACHED_MAX
are laid out again whenever they are read
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.instruments import Instrument
from penstock_tuning.market.simulator import Market
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.spool import BYTES_PER_TICK, Stream, name_of, spool, walk_ranges

__all__ = ["Recording", "Recordings", "Source", "Stream", "market_recording", "open_recordings"]

CACHE_BYTES: Final = 2**33  # Of disk.
CACHED_MAX: Final = 256  # Each keeps a file open.
TIME_BINS: Final = 65_536
_READ_BYTES: Final = 2**20


@dataclass(frozen=True)
class Recording:
    """What is known of a recording after it was read once."""

    name: str
    sha256: str  # Of the file, or of the records where there is no file.
    ticks: int
    first_ns: int  # ts_recv.
    last_ns: int
    instruments: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """A recording and how to read it."""

    recording: Recording
    read: Callable[[], list[Stream]]


class Recordings:
    """All that a model is trained on, in order of time."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sorted(sources, key=lambda one: (one.recording.first_ns, one.recording.sha256))
        self.all: tuple[Recording, ...] = tuple(one.recording for one in self._sources)
        self._held: tuple[int, list[Stream]] | None = None  # The last one read, so that a long file is laid out once.

    @property
    def ticks(self) -> int:
        """How many ticks there are in all."""
        return sum(one.ticks for one in self.all)

    def read(self, index: int) -> list[Stream]:
        """Return the streams of recording *index* of ``all``."""
        if self._held is None or self._held[0] != index:
            self._held = None  # Before the next one is laid out.
            self._held = (index, self._sources[index].read())
        return self._held[1]

    def streams(self) -> Iterator[Stream]:
        """Yield every stream, recording by recording."""
        for index in range(len(self._sources)):
            yield from self.read(index)

    def of(self, name: str) -> Iterator[tuple[Recording, Stream]]:
        """Yield the streams of the instrument *name*, in order of time, each with its recording."""
        for index, recording in enumerate(self.all):
            if name in recording.instruments:
                for stream in self.read(index):
                    if stream.name == name:
                        yield recording, stream

    def first_streams(self) -> list[Stream]:
        """Return the streams of the earliest recording."""
        return self.read(0)

    def quantile_times_ns(self, shares: Sequence[float]) -> list[int]:
        """Return the ts_recv before which about each of *shares* of all ticks lie, in Unix ns.

        Times are counted in TIME_BINS equal bins of the time that recordings cover: a pause between two counts nothing.
        """
        starts, before = _covered_ns(self.all)
        width_ns = int(before[-1] - 1) // TIME_BINS + 1
        counts = np.zeros(TIME_BINS, dtype=np.int64)
        for stream in self.streams():
            for first, last in walk_ranges(0, len(stream.ticks)):
                stamp = stream.line.stamp[first:last]
                which = np.searchsorted(starts, stamp, side="right") - 1
                counts += np.bincount((stamp - starts[which] + before[which]) // width_ns, minlength=TIME_BINS)
        reached = np.cumsum(counts)
        bins = [int(np.searchsorted(reached, share * reached[-1], side="left")) for share in shares]
        ends = [width_ns * (1 + one) for one in bins]
        stretches = [min(int(np.searchsorted(before, end, side="right")), len(starts)) - 1 for end in ends]
        return [int(starts[one] + end - before[one]) for end, one in zip(ends, stretches, strict=True)]


def _covered_ns(recordings: Sequence[Recording]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where stretches of time begin that *recordings*, in order, cover; and what is covered before each, and in all."""
    starts: list[int] = []
    lengths: list[int] = []
    for one in recordings:
        if not starts or one.first_ns > starts[-1] + lengths[-1]:
            starts.append(one.first_ns)
            lengths.append(0)
        lengths[-1] = max(lengths[-1], one.last_ns + 1 - starts[-1])
    return np.array(starts, dtype=np.int64), np.cumsum([0, *lengths], dtype=np.int64)


def open_recordings(
    paths: Sequence[str],
    columns: str | None = None,
    wanted: Sequence[str] = (),
    on_progress: Progress = silent,
) -> Recordings:
    """Read tick files once, to know them, and keep those laid out that fit in CACHE_BYTES.

    Args:
        paths: tick files; their order does not matter.
        columns: what the columns of CSV and Parquet files mean, as ``open_ticks`` takes it; None for our own.
        wanted: symbols to keep; empty for all.
        on_progress: told how many files were read.

    Raises:
        TrainingError: no file, two with the same bytes, or one without a wanted instrument.
        TickFileError: a file is no sound tick file, or has no tick.
    """
    if not paths:
        raise TrainingError("fit needs at least one tick file; name DBN, CSV or Parquet files")
    sources: list[Source] = []
    known: dict[str, str] = {}
    kept_bytes = 0
    for path in paths:
        streams = spool(path, columns, wanted)
        recording = _recording(Path(path).name, _file_digest(path), streams)
        if recording.sha256 in known:
            raise TrainingError(
                f"two files hold the same bytes: {known[recording.sha256]} and {path}; name one of them"
            )
        known[recording.sha256] = path
        kept_bytes += recording.ticks * BYTES_PER_TICK
        if kept_bytes <= CACHE_BYTES and len(sources) < CACHED_MAX:
            sources.append(Source(recording, partial(list, streams)))
        else:
            sources.append(Source(recording, partial(_read_again, recording, path, columns, wanted)))
        on_progress("reading files", len(sources), len(paths))
    return Recordings(sources)


def market_recording(market: Market, name: str) -> Recordings:
    """Return a simulated *market* as the one recording *name*, without a file."""
    streams = _streams(market.instruments, market.ticks)
    digest = hashlib.sha256(market.ticks.tobytes()).hexdigest()
    return Recordings([Source(_recording(name, digest, streams), partial(list, streams))])


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _read_again(recording: Recording, path: str, columns: str | None, wanted: Sequence[str]) -> list[Stream]:
    streams = spool(path, columns, wanted)
    if _recording(recording.name, recording.sha256, streams) != recording:
        raise TrainingError(f"{path} changed while it was trained on; train again when it is complete")
    return streams


def _streams(instruments: Sequence[Instrument], ticks: NDArray[np.void]) -> list[Stream]:
    names = [name_of(one) for one in instruments]
    ids = [one.instrument_id for one in instruments]
    parts = [ticks[ticks["instrument_id"] == one] for one in ids]
    return [
        Stream(name, part) for name, part in sorted(zip(names, parts, strict=True), key=lambda row: row[0]) if len(part)
    ]


def _recording(name: str, sha256: str, streams: list[Stream]) -> Recording:
    return Recording(
        name=name,
        sha256=sha256,
        ticks=sum(len(stream.ticks) for stream in streams),
        first_ns=min(int(stream.line.stamp[0]) for stream in streams),
        last_ns=max(int(stream.line.stamp[-1]) for stream in streams),
        instruments=tuple(stream.name for stream in streams),
    )
