"""Rows of one stream with their labels, cut into blocks of time, with purging.

    a row belongs to a block when both its stamp and the stamp at which its last label is known lie inside it
    so no label of an earlier block was known only in a later one, and nothing is ever shuffled

Rows without every label, and the first WASHOUT_TICKS of a stream, belong to no block; those with a label of their own
can still be foretold. A clock that steps back counts as no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.model import Horizon
from penstock_tuning.model.settings import WASHOUT_TICKS
from penstock_tuning.model.spool import Stream
from penstock_tuning.model.targets import Targets, targets_of

NO_SEGMENT: Final = -1


@dataclass(frozen=True, eq=False)
class Labelled:
    """Consecutive rows of a stream, their labels and where each row belongs.

    Attributes:
        stream: all of it.
        start: the first of the rows.
        targets: one per horizon, of these rows.
        segment: the number of the block, or NO_SEGMENT, shape (rows,), int8.
    """

    stream: Stream
    targets: tuple[Targets, ...]
    segment: NDArray[np.int8]
    start: int = 0

    @property
    def settled(self) -> NDArray[np.bool_]:
        """Which rows are past the stream's washout, shape (rows,)."""
        return np.arange(self.start, self.start + len(self.segment)) >= WASHOUT_TICKS


def label(
    stream: Stream,
    horizons: Sequence[Horizon],
    boundaries_ns: Sequence[int],
    start: int = 0,
    stop: int | None = None,
) -> Labelled:
    """Return the rows from *start* to before *stop* (None: all from there on) with their labels.

    Args:
        stream: what the rows are of.
        horizons: what to label.
        boundaries_ns: between the blocks, Unix; a boundary opens the later one.
        start: the first row.
        stop: the row after the last one.
    """
    stop = len(stream.ticks) if stop is None else stop
    targets = tuple(targets_of(stream.line, horizon, start, stop) for horizon in horizons)
    stamp = stream.line.stamp[start:stop]
    known_ns = np.max([one.known_ns for one in targets], axis=0)
    segment = np.searchsorted(boundaries_ns, stamp, side="right").astype(np.int8)
    spans = np.searchsorted(boundaries_ns, known_ns, side="right") != segment
    unlabelled = ~np.all([one.known for one in targets], axis=0)
    segment[spans | unlabelled] = NO_SEGMENT
    segment[: max(0, WASHOUT_TICKS - start)] = NO_SEGMENT
    return Labelled(stream, targets, segment, start)
