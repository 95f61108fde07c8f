"""All rows in blocks of time, in an order that depends on nothing but the recordings.

    blocks one after the other; in a block recordings by time, in a recording streams by name, in a stream rows in order

A stream goes on in the next block where it stopped in this one, so a walk keeps one place per stream that is not at
its end. A walk can begin anywhere: ``Cursor`` says after which row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_tuning.model.recordings import Recordings, Stream
from penstock_tuning.model.spool import walk_ranges

PART_TICKS: Final = 2_048


@dataclass(frozen=True)
class Cursor:
    """The row that comes next; all zeros at the start."""

    block: int = 0
    source: int = 0  # Position of the recording.
    name: str = ""  # Of the stream; empty for the first one.
    row: int = 0


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive rows of one stream, all of one block."""

    source: int
    stream: Stream
    start: int
    stop: int

    @property
    def ends_stream(self) -> bool:
        """Whether no row of the stream comes after these."""
        return self.stop == len(self.stream.ticks)


def parts_of_block(
    recordings: Recordings, boundaries_ns: Sequence[int], block: int, after: Cursor | None = None
) -> Iterator[Part]:
    """Yield the rows of *block* in order, PART_TICKS at most at a time.

    Args:
        recordings: what to walk.
        boundaries_ns: between the blocks; a boundary opens the later one.
        block: from 0.
        after: leave out the rows before it, when it lies in this block.
    """
    low = boundaries_ns[block - 1] if block else None
    high = boundaries_ns[block] if block < len(boundaries_ns) else None
    skip = after if after is not None and after.block == block else Cursor(block)
    for source, recording in enumerate(recordings.all):
        if (low is not None and recording.last_ns < low) or (high is not None and recording.first_ns >= high):
            continue
        if source < skip.source:
            continue
        for stream in recordings.read(source):
            here = source == skip.source
            if here and stream.name < skip.name:
                continue
            stamp = stream.line.stamp
            start = int(np.searchsorted(stamp, low)) if low is not None else 0
            stop = int(np.searchsorted(stamp, high)) if high is not None else len(stamp)
            if here and stream.name == skip.name:
                start = max(start, skip.row)
            for first, last in walk_ranges(start, stop, PART_TICKS):
                yield Part(source, stream, first, last)
