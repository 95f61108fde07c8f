"""One stream with its labels, cut into training, validation and test by time, with purging.

    a row belongs to a segment when both its stamp and the stamp at which its last label is known lie inside it
    so no label of an earlier segment was known only in a later one, and nothing is ever shuffled

Rows without every label, and the first WASHOUT_TICKS of a stream, belong to no segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.model import Horizon
from penstock_tuning.model.recordings import Stream
from penstock_tuning.model.settings import WASHOUT_TICKS
from penstock_tuning.model.targets import Targets, make_targets, stamps

TRAIN: Final = 0
VALIDATION: Final = 1
TEST: Final = 2
NO_SEGMENT: Final = -1
SEGMENT_NAMES: Final = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Labelled:
    """A stream, its labels and where each row belongs.

    Attributes:
        targets: one per horizon.
        segment: shape (ticks,), int8; TRAIN, VALIDATION, TEST or NO_SEGMENT.
    """

    stream: Stream
    targets: tuple[Targets, ...]
    segment: NDArray[np.int8]


def label(stream: Stream, horizons: Sequence[Horizon], boundaries_ns: Sequence[int]) -> Labelled:
    """Return *stream* with its labels, cut at the two *boundaries_ns* (Unix; a boundary opens the later segment)."""
    targets = tuple(make_targets(stream.ticks, horizon) for horizon in horizons)
    stamp = stamps(stream.ticks)
    known_ns = np.max([one.known_ns for one in targets], axis=0)
    segment = np.searchsorted(boundaries_ns, stamp, side="right").astype(np.int8)
    spans = np.searchsorted(boundaries_ns, known_ns, side="right") != segment
    unlabelled = ~np.all([one.known for one in targets], axis=0)
    segment[spans | unlabelled] = NO_SEGMENT
    segment[:WASHOUT_TICKS] = NO_SEGMENT
    return Labelled(stream, targets, segment)
