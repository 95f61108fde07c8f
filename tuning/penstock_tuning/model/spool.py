"""A tick file laid out on disk by instrument, so that training walks it in blocks with a few megabytes of memory.

    one nameless temporary file per recording: ticks | stamps | mids | changes, each instrument's part in one piece

The file is gone when nobody maps it any more, even after a kill. Its pages are the operating system's to keep or to
drop; what is allocated is a piece of the file at a time. The one exception: an instrument whose ticks are out of
order is sorted in memory, 176 bytes for each of its ticks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_client.errors import PenstockError
from penstock_client.files import TickFileError, open_pieces, select
from penstock_client.files.catalogue import read_entry
from penstock_client.instruments import Instrument
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.targets import Timeline, changes_of, doubled_mid, stamps, timeline

WALK_TICKS: Final = 131_072
BYTES_PER_TICK: Final = TICK_DTYPE.itemsize + 3 * 8


@dataclass(frozen=True, eq=False)
class Stream:
    """The ticks of one instrument in one recording, in order: what one reservoir state sees."""

    name: str  # DATASET:SYMBOL, or SYMBOL.
    ticks: NDArray[np.void]  # Shape (any,), dtype TICK_DTYPE.
    laid_out: Timeline | None = None  # Where it is on disk already.

    @cached_property
    def line(self) -> Timeline:
        """What labels are made of."""
        return self.laid_out or timeline(self.ticks)


def name_of(instrument: Instrument) -> str:
    """Return DATASET:SYMBOL, or SYMBOL where there is no dataset."""
    return f"{instrument.dataset}:{instrument.symbol}" if instrument.dataset else instrument.symbol


def spool(path: str, columns: str | None, wanted: Sequence[str]) -> list[Stream]:
    """Return the streams of a tick file, in order of their names, laid out on disk.

    Args:
        path: a tick file.
        columns: what the columns of CSV and Parquet files mean; None for our own.
        wanted: symbols to keep; empty for all.

    Raises:
        TickFileError: the file is no sound tick file, or has no tick.
        TrainingError: it lacks a wanted instrument, or the disk is full.
    """
    try:
        return _spool(path, columns, wanted)
    except OSError as exc:
        folder = tempfile.gettempdir()
        raise TrainingError(
            f"{path} can't be laid out in temporary files: {exc.strerror or exc}, folder={folder}; "
            "make room there, or set TMPDIR to a folder with more"
        ) from exc


def _spool(path: str, columns: str | None, wanted: Sequence[str]) -> list[Stream]:
    found: dict[tuple[str, str], Instrument] = {}
    order: dict[tuple[str, str], int] = {}
    counts: list[int] = []
    with tempfile.TemporaryFile(prefix="penstock-") as raw, tempfile.TemporaryFile(prefix="penstock-") as owners:
        for instruments, ticks in open_pieces(path) if columns is None else open_pieces(path, columns):
            which = np.zeros(len(ticks), dtype=np.uint32)
            for one in instruments:
                key = (one.dataset, one.symbol)
                if key not in order:
                    order[key] = len(order)
                    found[key] = Instrument(len(order), one.symbol, one.dataset, one.size_scale)
                    counts.append(0)
                mine = ticks["instrument_id"] == one.instrument_id
                which[mine] = order[key]
                counts[order[key]] += int(np.count_nonzero(mine))
            raw.write(np.ascontiguousarray(ticks).view(np.uint8).data)
            owners.write(which.data)
        raw.flush()
        owners.flush()
        total = sum(counts)
        if total == 0:
            raise TickFileError(path, "it holds no tick to train on", mend="leave it out")
        kept = _kept(path, list(found.values()), wanted)
        ends = np.cumsum([count if index in kept else 0 for index, count in enumerate(counts)])
        if not ends[-1]:
            raise TickFileError(path, "it holds no tick of the wanted instruments", mend="leave it out")
        parts = _laid_out(int(ends[-1]))
        next_at = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        raw.seek(0)
        owners.seek(0)
        for _ in range(0, total, WALK_TICKS):
            ticks = np.frombuffer(raw.read(WALK_TICKS * TICK_DTYPE.itemsize), dtype=TICK_DTYPE)
            which = np.frombuffer(owners.read(WALK_TICKS * 4), dtype=np.uint32)
            by_owner = np.argsort(which, kind="stable")
            edges = np.searchsorted(which[by_owner], np.arange(len(counts) + 1))
            for index in np.unique(which):
                if int(index) in kept:
                    mine = by_owner[edges[index] : edges[index + 1]]
                    parts.ticks[next_at[index] : next_at[index] + len(mine)] = ticks[mine]
                    next_at[index] += len(mine)
    keeps_order = read_entry(Path(path)).recording is not None
    streams = []
    for index, one in enumerate(found.values()):
        stop = int(ends[index])
        start = stop - counts[index] if index in kept else stop
        if start < stop:
            streams.append(_stream(name_of(one), parts, start, stop, keeps_order=keeps_order))
    return sorted(streams, key=lambda stream: stream.name)


def _kept(path: str, instruments: list[Instrument], wanted: Sequence[str]) -> set[int]:
    """Return the positions of the instruments that are wanted."""
    if not wanted:
        return set(range(len(instruments)))
    try:
        chosen, _ = select(instruments, np.empty(0, dtype=TICK_DTYPE), wanted)
    except (PenstockError, ValueError) as exc:
        raise TrainingError(f"{path}: {exc}") from exc
    return {one.instrument_id - 1 for one in chosen}


@dataclass(frozen=True, eq=False)
class _Parts:
    """The four parts of a temporary file, one element per tick each."""

    ticks: NDArray[np.void]
    stamp: NDArray[np.int64]
    mid: NDArray[np.int64]
    changes: NDArray[np.int64]


def _laid_out(count: int) -> _Parts:
    """Return the parts of a new temporary file for *count* ticks."""
    with tempfile.TemporaryFile(prefix="penstock-") as file:
        whole: NDArray[Any] = np.asarray(np.memmap(file, dtype=np.uint8, mode="w+", shape=(count * BYTES_PER_TICK,)))
    first = count * TICK_DTYPE.itemsize
    words = whole[first:].view(np.int64).reshape(3, count)
    return _Parts(whole[:first].view(TICK_DTYPE), words[0], words[1], words[2])


def _stream(name: str, parts: _Parts, start: int, stop: int, *, keeps_order: bool) -> Stream:
    """Return one instrument's stream, its timeline worked out piece by piece."""
    ticks, stamp, mid = parts.ticks[start:stop], parts.stamp[start:stop], parts.mid[start:stop]
    if not keeps_order and not _in_order(ticks):
        ticks[:] = ticks[np.argsort(ticks["ts_recv"], kind="stable")]
    last_ns = last_mid = changes = 0
    for first, last in walk_ranges(0, len(ticks)):
        piece = ticks[first:last]
        stamp[first:last] = stamps(piece, last_ns)
        mid[first:last] = doubled_mid(piece, last_mid)
        before = max(0, first - 1)
        new = changes_of(mid[before:last]) + before
        parts.changes[start + changes : start + changes + len(new)] = new
        changes += len(new)
        last_ns, last_mid = int(stamp[last - 1]), int(mid[last - 1])
    return Stream(name, ticks, Timeline(stamp, mid, parts.changes[start : start + changes]))


def _in_order(ticks: NDArray[np.void]) -> bool:
    """Whether ts_recv never decreases."""
    for first, last in walk_ranges(0, len(ticks)):
        part = ticks["ts_recv"][max(0, first - 1) : last]
        if np.any(part[1:] < part[:-1]):
            return False
    return True


def walk_ranges(start: int, stop: int, step: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the ends of consecutive ranges of at most *step* rows (None: WALK_TICKS) from *start* to before *stop*."""
    step = WALK_TICKS if step is None else step
    for first in range(start, stop, step):
        yield first, min(first + step, stop)
