"""The first look at the training segment: which features live, their scale, and the range of the returns.

everything here comes from training rows alone: nothing later is ever looked at
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_kernels.drive import run_raw_features
from penstock_kernels.features import FEATURE_NAMES, RUNNING_WORDS
from penstock_kernels.model import Horizon, HorizonKind
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.labelled import SEGMENT_NAMES, TRAIN, label
from penstock_tuning.model.ordered_histogram import OrderedHistogram
from penstock_tuning.model.progress import Progress
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.settings import WINSORISED

ROWS_MIN: Final = 1_000  # Labelled rows in the training segment.
LATER_ROWS_MIN: Final = 200  # In the validation and in the test segment.
BLOCK_TICKS: Final = 16_384
_CONSTANT: Final = 1e-6  # A feature with less deviation, against its size, does not vary.


@dataclass(frozen=True)
class ReturnRange:
    """What the returns of one horizon are limited to in training, and what they are divided by; all fractions."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """The unit of the return output."""
        return max(abs(self.low), abs(self.high)) or 1.0


@dataclass(frozen=True, eq=False)
class Survey:
    """What the training segment looks like.

    Attributes:
        rows: labelled rows by segment.
        features: names of those that vary, in their order.
        mean: of them, shape (features,).
        scale: their standard deviations, shape (features,).
        ranges: one per horizon.
        moved: share of rows whose mid moved within the horizon, one per horizon.
        up: share of the moves that went up, one per horizon.
    """

    rows: tuple[int, int, int]
    features: tuple[str, ...]
    mean: Float64s
    scale: Float64s
    ranges: tuple[ReturnRange, ...]
    moved: tuple[float, ...]
    up: tuple[float, ...]


def survey(
    recordings: Recordings, horizons: Sequence[Horizon], boundaries_ns: Sequence[int], on_progress: Progress
) -> Survey:
    """Look at every stream once.

    Raises:
        TrainingError: too few labelled ticks, a mid that never moves, or no feature that varies.
    """
    counts = np.zeros(3, dtype=np.int64)
    moments = Gram(len(FEATURE_NAMES) + 1)
    returns = [OrderedHistogram() for _ in horizons]
    moves = np.zeros((len(horizons), 2), dtype=np.int64)  # Down, up; in the training segment.
    done = 0
    for stream in recordings.streams():
        labelled = label(stream, horizons, boundaries_ns)
        counts += np.bincount(labelled.segment[labelled.segment >= 0], minlength=3)
        training = labelled.segment == TRAIN
        add_features(moments, stream.ticks, training)
        for index, targets in enumerate(labelled.targets):
            returns[index].add(targets.returns[training])
            moves[index] += np.bincount(targets.direction[training].astype(np.int64) + 1, minlength=3)[[0, 2]]
        done += len(stream.ticks)
        on_progress("looking at the ticks", done, recordings.ticks)
    _check(counts, moves, horizons, recordings)
    features, mean, scale = feature_scales(moments)
    return Survey(
        rows=(int(counts[0]), int(counts[1]), int(counts[2])),
        features=features,
        mean=mean,
        scale=scale,
        ranges=tuple(_range(histogram) for histogram in returns),
        moved=tuple(float(both.sum()) / int(counts[TRAIN]) for both in moves),
        up=tuple(float(both[1]) / float(both.sum()) for both in moves),
    )


def add_features(moments: Gram, ticks: NDArray[np.void], training: NDArray[np.bool_]) -> None:
    """Add the raw features and a constant 1 of the *training* rows of one stream to *moments*, block by block."""
    running = np.zeros(RUNNING_WORDS)
    for start in range(0, len(ticks), BLOCK_TICKS):
        raw = run_raw_features(ticks[start : start + BLOCK_TICKS], running)
        kept = raw[training[start : start + BLOCK_TICKS]]
        moments.add(np.concatenate([kept, np.ones((len(kept), 1))], axis=1).astype(np.float32))


def _check(
    counts: NDArray[np.int64], moves: NDArray[np.int64], horizons: Sequence[Horizon], recordings: Recordings
) -> None:
    names = ", ".join(one.name for one in horizons)
    if any(one.kind == HorizonKind.NEXT_MOVE for one in horizons) and not counts.sum():
        raise TrainingError(
            f"no tick has a label for every horizon: ticks={recordings.ticks}, horizons={names}; "
            "the mid never moves, or the recording ends too soon: record longer or leave out the longest horizon"
        )
    for segment, least in enumerate((ROWS_MIN, LATER_ROWS_MIN, LATER_ROWS_MIN)):
        if counts[segment] < least:
            raise TrainingError(
                f"too few ticks with labels in the {SEGMENT_NAMES[segment]} segment: rows={counts[segment]}, "
                f"needed={least}, ticks={recordings.ticks}, horizons={names}; give more or longer files, or shorter horizons"
            )
    for horizon, both in zip(horizons, moves, strict=True):
        if not both.all():
            raise TrainingError(
                f"the mid never moves {'down' if both[1] else 'up'} within horizon {horizon.name!r} in training: "
                f"ups={both[1]}, downs={both[0]}; give more ticks or a longer horizon"
            )


def feature_scales(moments: Gram) -> tuple[tuple[str, ...], Float64s, Float64s]:
    """Return names, means and standard deviations of the features that vary; *moments* as add_features leaves them."""
    sums, squares, rows = moments.sums[: len(FEATURE_NAMES), len(FEATURE_NAMES)], moments.sums.diagonal(), moments.rows
    names, means, scales = [], [], []
    for index, name in enumerate(FEATURE_NAMES):
        mean = float(sums[index]) / rows
        square = float(squares[index]) / rows
        variance = square - mean * mean
        if variance > (_CONSTANT * _CONSTANT) * max(square, _CONSTANT):
            names.append(name)
            means.append(mean)
            scales.append(sqrt(variance))
    if not names:
        raise TrainingError(
            "no feature varies in training: every tick looks the same; give files with moving quotes or trades"
        )
    return tuple(names), np.array(means), np.array(scales)


def _range(histogram: OrderedHistogram) -> ReturnRange:
    low, high = (histogram.quantile(share) for share in WINSORISED)
    if low == high:  # Nearly all returns are 0: the few others are all there is to learn.
        low, high = histogram.quantile(0.0), histogram.quantile(1.0)
    return ReturnRange(low, high)
