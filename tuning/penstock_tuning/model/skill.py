"""How well the test blocks were foretold: counts and sums by parts of time, in constant memory, with intervals.

    parts = BOOTSTRAP_BLOCKS * PARTS_PER_BLOCK cells of time with about as many ticks each
    scores are counted in bins of their float bits, 16 to the octave, so that no range needs guessing

Every score comes from a readout that was fitted on earlier blocks alone. The bootstrap is bootstrap.py's: stretches of
neighbouring parts, the same draws for every forecaster, so that a difference has an interval of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_tuning.model.bootstrap import BOOTSTRAP_BLOCKS, interval, make_draws
from penstock_tuning.model.calibrate import fit_slope
from penstock_tuning.model.ordered_histogram import OrderedHistogram
from penstock_tuning.model.readouts import MODEL
from penstock_tuning.model.scores import Errors, Ranking
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST

PARTS_PER_BLOCK: Final = 4
PARTS: Final = BOOTSTRAP_BLOCKS * PARTS_PER_BLOCK
IMBALANCE: Final = "queue_imbalance"
_SHIFT: Final = np.uint32(19)  # Leaves sign, exponent and 4 bits of the fraction.
_SMALLEST: Final = (127 - 12) << 4  # Scores below 2**-12 in size are one bin.
_OCTAVES: Final = 14  # Up to 4 in size.
_SIDE: Final = _OCTAVES << 4
BINS: Final = 2 * _SIDE


def bins_of_scores(scores: Float64s) -> NDArray[np.int64]:
    """Return the bin of each finite score, 0 to BINS - 1, in their order."""
    bits = (scores.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    size = ((bits & np.uint32(0x7FFFFFFF)) >> _SHIFT).astype(np.int64)
    size = np.clip(size - _SMALLEST, 0, _SIDE - 1)
    return np.where(bits >> np.uint32(31), _SIDE - 1 - size, _SIDE + size)


class ForecasterSkill:
    """One forecaster of one horizon."""

    def __init__(self) -> None:
        self.direction = Ranking()  # Among rows that moved; positive is up.
        self.returns = Errors()  # Winsorised, in units of the return output.
        self.counts = np.zeros((PARTS, 2, BINS), dtype=np.int32)  # Of downs and ups.
        self.missed = np.zeros(PARTS)

    def add_direction(self, part: NDArray[np.int64], score: Float64s, up: NDArray[np.bool_]) -> None:
        """Count rows that moved, shape (rows,) each."""
        if not len(score):
            return
        self.direction.add(score, up)
        low, high = int(part.min()), int(part.max()) + 1
        cell = ((part - low) * 2 + up) * BINS + bins_of_scores(score)
        found = np.bincount(cell, minlength=(high - low) * 2 * BINS)
        self.counts[low:high] += found.reshape(high - low, 2, BINS).astype(np.int32)

    def add_returns(self, part: NDArray[np.int64], outcome: Float64s, score: Float64s) -> None:
        """Add rows, shape (rows,) each."""
        self.returns.add(outcome, score)
        self.missed += np.bincount(part, weights=(outcome - score) ** 2, minlength=PARTS)

    def auc_values(self, counts: Float64s) -> Float64s:
        """Return the AUC of each draw, *counts* of shape (draws, PARTS); NaN where one outcome is missing."""
        used = np.flatnonzero(self.counts.any(axis=(0, 1)))
        downs = counts @ self.counts[:, 0, used].astype(np.float64)
        ups = counts @ self.counts[:, 1, used].astype(np.float64)
        wins = (ups * (np.cumsum(downs, axis=1) - 0.5 * downs)).sum(axis=1)
        pairs = ups.sum(axis=1) * downs.sum(axis=1)
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0.0)


class HorizonSkill:
    """All forecasters of one horizon on the test blocks, and what the model's calibration is made of."""

    def __init__(self, forecasters: Sequence[str]) -> None:
        """Take the names of the fitted forecasters, the model's first."""
        self.forecasters = {name: ForecasterSkill() for name in (*forecasters, IMBALANCE)}
        self.total = np.zeros(PARTS)  # Of squared winsorised returns.
        self.by_block = [Ranking() for _ in range(BLOCKS - FIRST_TEST)]  # The model's direction.
        self.known_by_block = [Ranking() for _ in range(BLOCKS - FIRST_TEST)]  # Of it, rows that a curve may see.
        self.moved = Ranking()
        self.raw_returns = Errors()
        self.by_stream: dict[str, tuple[Ranking, Ranking]] = {}  # Direction, imbalance.

    def add(
        self,
        block: int,
        part: NDArray[np.int64],
        outputs: Mapping[str, Float64s],
        imbalance: Float64s,
        direction: NDArray[np.int8],
        limited: Float64s,
        raw: Float64s,
        known_in_time: NDArray[np.bool_],
        moved_share: float,
        stream: str | None,
    ) -> None:
        """Add rows of one stream in *block*.

        Args:
            block: that they are of.
            part: the cell of time of each row, shape (rows,).
            outputs: return, direction and moved by forecaster, shape (rows, 3).
            imbalance: the queue imbalance, shape (rows,).
            direction: what came, shape (rows,).
            limited: the return that came, winsorised, in units of the return output.
            raw: the same as it was.
            known_in_time: whether the label was known before the block ended, shape (rows,).
            moved_share: of the survey.
            stream: its name, None where there are too many.
        """
        moved = direction != 0
        up = direction[moved] > 0
        for name, forecast in outputs.items():
            self.forecasters[name].add_direction(part[moved], forecast[moved, 1], up)
            self.forecasters[name].add_returns(part, limited, forecast[:, 0])
        self.forecasters[IMBALANCE].add_direction(part[moved], imbalance[moved], up)
        self.total += np.bincount(part, weights=limited**2, minlength=PARTS)
        model = outputs[MODEL]
        self.by_block[block - FIRST_TEST].add(model[moved, 1], up)
        in_time = moved & known_in_time
        self.known_by_block[block - FIRST_TEST].add(model[in_time, 1], direction[in_time] > 0)
        self.moved.add(model[:, 2] - moved_share, moved)
        self.raw_returns.add(raw, model[:, 0])
        if stream is not None:
            own, own_imbalance = self.by_stream.setdefault(stream, (Ranking(), Ranking()))
            own.add(model[moved, 1], up)
            own_imbalance.add(imbalance[moved], up)

    def log_loss(self) -> tuple[float | None, float | None, int]:
        """Return log-loss of direction by a curve through earlier blocks, that of a fair coin, and rows.

        A block's curve sees rows of earlier blocks whose label was known before their block ended: no later one.
        """
        past, loss, coin, rows = Ranking(), 0.0, 0.0, 0
        for ranking, known in zip(self.by_block, self.known_by_block, strict=True):
            if past.total and ranking.total:
                slope = fit_slope(past.negatives, past.positives)
                loss += (ranking.log_loss(slope, 0.0) or 0.0) * ranking.total
                coin += (ranking.log_loss(0.0, 0.0) or 0.0) * ranking.total
                rows += ranking.total
            past = past.plus(known)
        return (loss / rows, coin / rows, rows) if rows else (None, None, 0)

    def intervals(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return intervals of direction AUC and return R2: of the model, and of it minus each baseline."""
        counts = make_draws(PARTS).counts
        total = counts @ self.total
        auc = {name: one.auc_values(counts) for name, one in self.forecasters.items()}
        r2 = {
            name: 1.0 - np.divide(counts @ one.missed, total, out=np.full(len(total), np.nan), where=total > 0.0)
            for name, one in self.forecasters.items()
            if name != IMBALANCE
        }
        return _intervals(auc), _intervals(r2)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a continuation needs, by name."""
        kept: dict[str, NDArray[Any]] = {
            "total": self.total,
            "raw": _sums(self.raw_returns),
            **_counts("moved", self.moved),
        }
        for name, one in self.forecasters.items():
            kept |= {f"{name}.counts": one.counts, f"{name}.missed": one.missed, f"{name}.returns": _sums(one.returns)}
            kept |= _counts(f"{name}.direction", one.direction)
        for index, ranking in enumerate(self.by_block):
            kept |= _counts(f"block{index}", ranking)
        for index, ranking in enumerate(self.known_by_block):
            kept |= _counts(f"known{index}", ranking)
        for name, rankings in self.by_stream.items():
            for index, ranking in enumerate(rankings):
                kept |= _counts(f"stream{index}.{name}", ranking)
        return kept

    def restore(self, kept: Mapping[str, NDArray[Any]], streams: Sequence[str]) -> None:
        """Go on from *kept*, which ``arrays`` of equal settings and *streams* gave."""
        self.total[:] = kept["total"]
        _restore_sums(self.raw_returns, kept["raw"])
        _restore_counts(self.moved, kept, "moved")
        for name, one in self.forecasters.items():
            one.counts[:], one.missed[:] = kept[f"{name}.counts"], kept[f"{name}.missed"]
            _restore_sums(one.returns, kept[f"{name}.returns"])
            _restore_counts(one.direction, kept, f"{name}.direction")
        for index, ranking in enumerate(self.by_block):
            _restore_counts(ranking, kept, f"block{index}")
        for index, ranking in enumerate(self.known_by_block):
            _restore_counts(ranking, kept, f"known{index}")
        for name in streams:
            if f"stream0.{name}.down" in kept:
                both = self.by_stream.setdefault(name, (Ranking(), Ranking()))
                for index, ranking in enumerate(both):
                    _restore_counts(ranking, kept, f"stream{index}.{name}")


def _intervals(values: Mapping[str, Float64s]) -> dict[str, Any]:
    found = {MODEL: _interval(values[MODEL])}
    for name, others in values.items():
        if name != MODEL:
            found[f"model_minus_{name}"] = _interval(values[MODEL] - others)
    return found


def _interval(values: Float64s) -> list[float] | None:
    """Return both ends to six digits, None where no draw had both outcomes."""
    if not np.isfinite(values).any():
        return None
    return [float(f"{one:.6g}") for one in interval(values)]


def _sums(errors: Errors) -> NDArray[np.float64]:
    return np.array([errors.rows, errors.squared, errors.total], dtype=np.float64)


def _restore_sums(errors: Errors, kept: NDArray[np.float64]) -> None:
    errors.rows, errors.squared, errors.total = int(kept[0]), float(kept[1]), float(kept[2])


def _counts(name: str, ranking: Ranking) -> dict[str, NDArray[np.int64]]:
    """Return bins in use and their counts: most of a histogram is empty."""
    kept = {}
    for side, histogram in (("down", ranking.negatives), ("up", ranking.positives)):
        used = np.flatnonzero(histogram.counts)
        kept[f"{name}.{side}"] = np.stack([used, histogram.counts[used]])
    return kept


def _restore_counts(ranking: Ranking, kept: Mapping[str, NDArray[Any]], name: str) -> None:
    for side, histogram in (("down", ranking.negatives), ("up", ranking.positives)):
        _fill(histogram, kept[f"{name}.{side}"])


def _fill(histogram: OrderedHistogram, kept: NDArray[np.int64]) -> None:
    histogram.counts[:] = 0
    histogram.counts[kept[0]] = kept[1]
