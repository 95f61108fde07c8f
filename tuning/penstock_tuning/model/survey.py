"""The first look at the ticks: which features live, their scale, and the range of the returns.

everything here comes from the first SURVEY_BLOCKS blocks, which no skill is measured on, but the counts of later rows
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
from penstock_kernels.model import Horizon
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.labelled import label
from penstock_tuning.model.ordered_histogram import OrderedHistogram
from penstock_tuning.model.progress import Progress
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.settings import BLOCKS, SURVEY_BLOCKS, WINSORISED
from penstock_tuning.model.spool import walk_ranges

ROWS_MIN: Final = 500  # Labelled rows in the first SURVEY_BLOCKS blocks.
LATER_ROWS_MIN: Final = 50  # In each later block.
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
    """What the first blocks look like.

    Attributes:
        rows: labelled rows by block.
        features: names of those that vary, in their order.
        mean: of them, shape (features,).
        scale: their standard deviations, shape (features,).
        ranges: one per horizon.
        moved: share of rows whose mid moved within the horizon, one per horizon.
        up: share of the moves that went up, one per horizon.
    """

    rows: tuple[int, ...]
    features: tuple[str, ...]
    mean: Float64s
    scale: Float64s
    ranges: tuple[ReturnRange, ...]
    moved: tuple[float, ...]
    up: tuple[float, ...]


def survey(
    recordings: Recordings,
    horizons: Sequence[Horizon],
    boundaries_ns: Sequence[int],
    on_progress: Progress,
    blocks: int = BLOCKS,
) -> Survey:
    """Look once at every stream, up to the end of block number *blocks*.

    Raises:
        TrainingError: too few labelled ticks, a mid that never moves, or no feature that varies.
    """
    counts = np.zeros(BLOCKS, dtype=np.int64)
    moments = Gram(len(FEATURE_NAMES) + 1)
    returns = [OrderedHistogram() for _ in horizons]
    moves = np.zeros((len(horizons), 2), dtype=np.int64)  # Down, up; in the first blocks.
    done = 0
    for stream in recordings.streams():
        running = np.zeros(RUNNING_WORDS)
        seen = int(np.searchsorted(stream.line.stamp, boundaries_ns[SURVEY_BLOCKS - 1]))
        end = len(stream.ticks)
        if blocks < BLOCKS:
            end = int(np.searchsorted(stream.line.stamp, boundaries_ns[blocks - 1]))
        for start, stop in walk_ranges(0, end, BLOCK_TICKS):
            labelled = label(stream, horizons, boundaries_ns, start, stop)
            counts += np.bincount(labelled.segment[labelled.segment >= 0], minlength=BLOCKS)
            if start < seen:
                first = (labelled.segment >= 0) & (labelled.segment < SURVEY_BLOCKS)
                add_features(moments, stream.ticks[start:stop], first, running)
                for index, targets in enumerate(labelled.targets):
                    returns[index].add(targets.returns[first])
                    moves[index] += np.bincount(targets.direction[first].astype(np.int64) + 1, minlength=3)[[0, 2]]
            done += stop - start
            on_progress("looking at the ticks", done, recordings.ticks)
    _check(counts[:blocks], moves, horizons, recordings)
    features, mean, scale = feature_scales(moments)
    surveyed = int(counts[:SURVEY_BLOCKS].sum())
    return Survey(
        rows=tuple(int(one) for one in counts[:blocks]),
        features=features,
        mean=mean,
        scale=scale,
        ranges=tuple(_range(histogram) for histogram in returns),
        moved=tuple(float(both.sum()) / surveyed for both in moves),
        up=tuple(float(both[1]) / float(both.sum()) for both in moves),
    )


def add_features(
    moments: Gram, ticks: NDArray[np.void], training: NDArray[np.bool_], running: Float64s | None = None
) -> None:
    """Add the raw features and a constant 1 of the *training* rows to *moments*, block by block.

    Args:
        moments: of the features and the constant. Overwritten.
        ticks: of one stream, in order.
        training: which of them count, shape (ticks,).
        running: where to go on in the stream, shape (RUNNING_WORDS,). Overwritten. None starts afresh.
    """
    running = np.zeros(RUNNING_WORDS) if running is None else running
    for start in range(0, len(ticks), BLOCK_TICKS):
        raw = run_raw_features(ticks[start : start + BLOCK_TICKS], running)
        kept = raw[training[start : start + BLOCK_TICKS]]
        moments.add(np.concatenate([kept, np.ones((len(kept), 1))], axis=1).astype(np.float32))


def _check(
    counts: NDArray[np.int64], moves: NDArray[np.int64], horizons: Sequence[Horizon], recordings: Recordings
) -> None:
    names = ",".join(one.name for one in horizons)
    if not counts.sum():
        raise TrainingError(
            f"no tick has a label for every horizon within its tenth of the recording: ticks={recordings.ticks}, "
            f"horizons={names}; the mid never moves, or the recording is too short: record longer or leave out the "
            "longest horizon"
        )
    surveyed = int(counts[:SURVEY_BLOCKS].sum())
    if surveyed < ROWS_MIN:
        raise TrainingError(
            f"too few ticks with labels in the first {SURVEY_BLOCKS} of {BLOCKS} blocks of time: rows={surveyed}, "
            f"needed={ROWS_MIN}, ticks={recordings.ticks}, horizons={names}; give more or longer files, or shorter horizons"
        )
    for block in range(SURVEY_BLOCKS, len(counts)):
        if counts[block] < LATER_ROWS_MIN:
            raise TrainingError(
                f"too few ticks with labels in block {block + 1} of {BLOCKS} of time: rows={counts[block]}, "
                f"needed={LATER_ROWS_MIN}, ticks={recordings.ticks}, horizons={names}; "
                "give more or longer files, or shorter horizons"
            )
    for horizon, both in zip(horizons, moves, strict=True):
        if not both.all():
            raise TrainingError(
                f"the mid never moves {'down' if both[1] else 'up'} within horizon {horizon.name!r} in the first "
                f"{SURVEY_BLOCKS} of {BLOCKS} blocks: ups={both[1]}, downs={both[0]}; give more ticks or a longer horizon"
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
