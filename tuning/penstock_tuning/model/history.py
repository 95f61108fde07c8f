"""One instrument's ticks as the prequential protocol sees them: ten blocks of equal rows, and the labels of each row.

    a block is trained on by rows whose label was known before the block ended: the others are purged
    a block is tested on every row with a label, by what was fitted on blocks before it
    nothing is shuffled, and limits and scales come from rows before the first tested block

Recordings of one instrument that follow each other make one history; labels and states end where a recording ends.
Recordings whose own ticks of it overlap in time (two venues that share a name) can't follow each other: each is a history
of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.model import Horizon, HorizonKind
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.recordings import Recording, Recordings, Stream
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST, WASHOUT_TICKS, WINSORISED
from penstock_tuning.model.survey import ReturnRange, add_features, feature_scales
from penstock_tuning.model.targets import NEVER_NS, Timeline, targets_of

PIECE_TICKS: Final = 2_048
TICKS_MIN: Final = BLOCKS * WASHOUT_TICKS
EARLY_ROWS_MIN: Final = 50  # That train, in each block before the first tested one.
TESTED_ROWS_MIN: Final = 600  # Ten for each block of the bootstrap.
MOVES_MIN: Final = 10  # Up, and down, among the tested rows.


@dataclass(frozen=True)
class Piece:
    """Rows that are walked at once: of one recording and one block, at most PIECE_TICKS of them."""

    segment: int
    block: int
    rows: slice  # Of the history.
    ticks: slice  # Of the segment.
    opens_segment: bool
    opens_block: bool


@dataclass(frozen=True, eq=False)
class History:
    """One instrument's ticks in order of time.

    Attributes:
        name: DATASET:SYMBOL, or SYMBOL; with the file where another history has the same name.
        recordings: that it comes from, one per segment.
        segments: ticks, shape (any,), dtype TICK_DTYPE each.
        lines: what labels are made of, one per segment.
        stamp: ts_recv that never steps back, shape (ticks,), ns.
        edges: the first row of each block and the end, shape (BLOCKS + 1,).
    """

    name: str
    recordings: tuple[Recording, ...]
    segments: tuple[NDArray[np.void], ...]
    lines: tuple[Timeline, ...]
    stamp: NDArray[np.int64]
    edges: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many ticks there are."""
        return len(self.stamp)

    def block(self, number: int) -> slice:
        """Return the rows of a block."""
        return slice(int(self.edges[number]), int(self.edges[number + 1]))

    def pieces(self) -> Iterator[Piece]:
        """Yield the rows in order, cut at blocks, at recordings and at PIECE_TICKS."""
        first = 0
        seen = -1
        for segment, ticks in enumerate(self.segments):
            cuts = {first, first + len(ticks)} | set(range(first, first + len(ticks), PIECE_TICKS))
            cuts |= {int(edge) for edge in self.edges if first <= edge <= first + len(ticks)}
            for start, end in pairwise(sorted(cuts)):
                block = int(np.searchsorted(self.edges, start, side="right")) - 1
                local = slice(start - first, end - first)
                yield Piece(segment, block, slice(start, end), local, start == first, block != seen)
                seen = block
            first += len(ticks)


@dataclass(frozen=True, eq=False)
class Target:
    """What is foretold of every row, and which rows may train and which are tested.

    Attributes:
        horizon: whose label it is.
        outcome: shape (rows,); -1 or 1 of a direction, the winsorised return in units of its range else.
        labelled: rows with a label, after the washout, shape (rows,).
        trains: of them, those whose label was known before their block ended, shape (rows,).
        weights: of a row in a fit, shape (rows,); None where all count the same.
        tested: rows of the tested blocks with a label, ascending, shape (tested,).
        limits: what returns are limited to, from rows before the first tested block; None of a direction.
    """

    horizon: Horizon
    outcome: Float64s
    labelled: NDArray[np.bool_]
    trains: NDArray[np.bool_]
    tested: NDArray[np.int64]
    limits: ReturnRange | None
    weights: Float64s | None = None

    @property
    def is_direction(self) -> bool:
        """Whether the outcome is a direction and its score the AUC."""
        return self.limits is None


def histories(recordings: Recordings) -> Iterator[History]:
    """Yield one history per instrument, or per recording of it where they overlap, by name.

    Raises:
        TrainingError: one is too short for ten blocks.
    """
    for name in sorted({name for one in recordings.all for name in one.instruments}):
        parts = sorted(recordings.of(name), key=lambda part: int(part[1].line.stamp[0]))
        if all(one.line.stamp[-1] < other.line.stamp[0] for (_, one), (_, other) in pairwise(parts)):
            yield _history(name, parts)
        else:
            for recording, stream in parts:
                yield _history(f"{name} of {recording.name}", [(recording, stream)])


def _history(name: str, parts: Sequence[tuple[Recording, Stream]]) -> History:
    rows = sum(len(stream.ticks) for _, stream in parts)
    if rows < TICKS_MIN:
        raise TrainingError(
            f"{name} is too short for {BLOCKS} blocks: ticks={rows}, needed={TICKS_MIN}; "
            "give a longer recording, or leave the instrument out with --instruments"
        )
    stamp = np.maximum.accumulate(np.concatenate([stream.line.stamp for _, stream in parts]))
    edges = np.linspace(0, rows, BLOCKS + 1).astype(np.int64)
    return History(
        name=name,
        recordings=tuple(one for one, _ in parts),
        segments=tuple(stream.ticks for _, stream in parts),
        lines=tuple(stream.line for _, stream in parts),
        stamp=stamp,
        edges=edges,
    )


def make_target(history: History, horizon: Horizon) -> Target:
    """Return the labels of *horizon*.

    Raises:
        TrainingError: too few rows have one, or nothing ever moves.
    """
    labels = [targets_of(line, horizon, 0, len(line.mid)) for line in history.lines]
    known_ns = np.concatenate([one.known_ns for one in labels])
    labelled = known_ns != NEVER_NS
    for start in np.cumsum([0, *(len(ticks) for ticks in history.segments[:-1])]):
        labelled[start : start + WASHOUT_TICKS] = False  # States begin at zero with each recording.
    ends_ns = np.append(history.stamp[history.edges[1:-1]], NEVER_NS)
    trains = labelled & (known_ns < np.repeat(ends_ns, np.diff(history.edges)))
    first_tested = int(history.edges[FIRST_TEST])
    tested = first_tested + np.flatnonzero(labelled[first_tested:])
    _check_rows(history, horizon, trains, tested)
    if horizon.kind == HorizonKind.NEXT_MOVE:
        outcome = np.concatenate([one.direction for one in labels]).astype(np.float64)
        _check_moves(history, horizon, outcome[:first_tested][trains[:first_tested]], outcome[tested])
        weights = np.concatenate([one.weights for one in labels])
        return Target(horizon, outcome, labelled, trains, tested, limits=None, weights=weights)
    returns = np.concatenate([one.returns for one in labels])
    early = returns[:first_tested][trains[:first_tested]]
    _check_moves(history, horizon, early, returns[tested])
    limits = _limits(early)
    outcome = np.clip(returns, limits.low, limits.high) / limits.scale
    return Target(horizon, outcome, labelled, trains, tested, limits)


def _limits(returns: Float64s) -> ReturnRange:
    low, high = np.quantile(returns, WINSORISED)
    if low == high:  # Nearly all returns are 0: the few others are all there is to foretell.
        low, high = returns.min(), returns.max()
    return ReturnRange(float(low), float(high))


def scales(history: History) -> tuple[tuple[str, ...], Float64s, Float64s]:
    """Return names, means and standard deviations of the features that vary before the first tested block.

    Raises:
        TrainingError: none varies.
    """
    moments = Gram(len(FEATURE_NAMES) + 1)
    left = int(history.edges[FIRST_TEST])
    for ticks in history.segments:
        add_features(moments, ticks[:left], np.ones(min(left, len(ticks)), dtype=np.bool_))
        left -= min(left, len(ticks))
    return feature_scales(moments)


def _check_rows(history: History, horizon: Horizon, trains: NDArray[np.bool_], tested: NDArray[np.int64]) -> None:
    least = min(int(trains[history.block(number)].sum()) for number in range(FIRST_TEST))
    if least < EARLY_ROWS_MIN or len(tested) < TESTED_ROWS_MIN:
        raise TrainingError(
            f"{history.name}: too few ticks have a label for horizon {horizon.name!r}: ticks={history.rows}, "
            f"rows={least} of {EARLY_ROWS_MIN} in the poorest early block, tested={len(tested)} of {TESTED_ROWS_MIN}; "
            "the mid hardly moves, or the horizon is too long for the recording: give more ticks or a shorter horizon"
        )


def _check_moves(history: History, horizon: Horizon, early: Float64s, tested: Float64s) -> None:
    for where, outcomes in (("before the first tested block", early), ("in the tested blocks", tested)):
        ups, downs = int((outcomes > 0).sum()), int((outcomes < 0).sum())
        if min(ups, downs) < MOVES_MIN:
            raise TrainingError(
                f"{history.name}: the mid hardly moves {'up' if ups < downs else 'down'} within horizon "
                f"{horizon.name!r} {where}: ups={ups}, downs={downs}, needed={MOVES_MIN} of each; "
                "give more ticks or a longer horizon"
            )
