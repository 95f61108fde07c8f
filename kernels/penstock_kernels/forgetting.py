"""How many past ticks restore a lost state: measured, since a spectral radius below 1 alone promises nothing.

Two predictors see the same ticks, one from the start and one from zeros later on. Fading memory means that they come
to agree; ``rebuild_ticks`` of a model is how long that takes.

    after rebuild_ticks ticks      |x_warm - x_cold| <= tolerance      for every unit and every input
"""

from __future__ import annotations

import numpy as np

from penstock_kernels.drive import Place, Ticks, new_place, run_design
from penstock_kernels.model import ModelError
from penstock_kernels.packed import UNITS, PackedModel

_CHUNK_TICKS = 1024
_FORGETTING_TICKS_MIN = 16
_FADED_SHARE = 0.5  # Of the first difference: more of it at the end than this is a memory that does not fade.


def measured_rebuild_ticks(
    packed: PackedModel, ticks: Ticks, *, tolerance: float = 1e-3, starts: int = 4, limit: int = 16_384
) -> int:
    """Return how many ticks a cold state needs until it stays within *tolerance* of a warm one.

    Args:
        packed: the model.
        ticks: of one instrument, in order; at least 2 * *starts*.
        tolerance: largest difference of any unit or standardised input.
        starts: how many cold starts to try, evenly spread; the worst counts.
        limit: longest stretch to look at after each start, in ticks.

    Raises:
        ModelError: the states still differ at the end of a stretch: the memory does not fade, or too few ticks.
    """
    if len(ticks) < 2 * starts:
        raise ModelError(f"ticks must be at least {2 * starts}: ticks={len(ticks)}; give a longer recording")
    worst = 0
    stretch = min(limit, len(ticks) // (starts + 1))
    for start in np.linspace(0, len(ticks) - stretch, starts + 1, dtype=np.int64)[1:]:
        warm, cold = new_place(packed), new_place(packed)
        _advance(packed, ticks[max(int(start) - 2 * limit, 0) : start], warm)
        last = _last_disagreement(packed, ticks[start : start + stretch], warm, cold, tolerance)
        if last >= stretch:
            raise ModelError(
                f"states still differ by more than {tolerance} after {stretch} ticks; give a longer recording, "
                "a smaller spectral radius or shorter time constants"
            )
        worst = max(worst, last)
    return worst


def measured_forgetting(packed: PackedModel, ticks: Ticks, *, floor: float = 1e-6) -> float:
    """Return the forgetting rate: by how much the logarithm of a warm and a cold state's difference changes per tick.

    Both see the second half of *ticks*; the first half made the warm one. The rate is the slope, by least squares, of
    log max |x_warm - x_cold| over the ticks until the difference is below *floor* (float32 goes no further). Only the
    reservoir's x counts. The echo-state property holds on these inputs where the rate is below 0; the difference is then
    about exp(rate * ticks). The largest Lyapunov exponent, conditional on the inputs, is its limit.

    Args:
        packed: the model.
        ticks: of one instrument, in order; at least 16.
        floor: difference at which measuring ends.

    Raises:
        ModelError: the memory does not fade on these ticks, or there are too few of them.
    """
    if len(ticks) < _FORGETTING_TICKS_MIN:
        raise ModelError(f"ticks must be at least {_FORGETTING_TICKS_MIN}: ticks={len(ticks)}; give a longer recording")
    half, units = len(ticks) // 2, int(packed.header[UNITS])
    warm, cold = new_place(packed), new_place(packed)
    _advance(packed, ticks[:half], warm)
    cold.running[:] = warm.running  # The same inputs, so that the reservoir alone is measured.
    apart: list[float] = []
    for first in range(half, len(ticks), _CHUNK_TICKS):
        chunk = ticks[first : first + _CHUNK_TICKS]
        difference = run_design(packed, chunk, warm)[:, :units] - run_design(packed, chunk, cold)[:, :units]
        apart += np.abs(difference).max(axis=1).tolist()
    differences = np.array(apart)
    below = np.flatnonzero(differences < floor)
    end = int(below[0]) + 1 if len(below) else len(differences)
    measured = np.maximum(differences[:end], np.finfo(np.float32).tiny)
    if end == 1:  # All is forgotten at the first tick: the difference was x_warm itself, of size 1 at most.
        return float(np.log(measured[0]))
    rate = float(np.polyfit(np.arange(end), np.log(measured), 1)[0])
    if not len(below) and (rate >= 0.0 or measured[-1] > _FADED_SHARE * measured[0]):
        raise ModelError(
            f"memory does not fade: after {len(differences)} ticks a cold and a warm state differ by {measured[-1]:.2g}, "
            f"rate={rate:.2g} per tick; choose a smaller spectral radius or shorter time constants"
        )
    return rate


def _advance(packed: PackedModel, ticks: Ticks, place: Place) -> None:
    for first in range(0, len(ticks), _CHUNK_TICKS):
        run_design(packed, ticks[first : first + _CHUNK_TICKS], place)


def _last_disagreement(packed: PackedModel, ticks: Ticks, warm: Place, cold: Place, tolerance: float) -> int:
    """Return after how many of *ticks* the two places last differed by more than *tolerance*."""
    last = 0
    for first in range(0, len(ticks), _CHUNK_TICKS):
        chunk = ticks[first : first + _CHUNK_TICKS]
        difference = np.abs(run_design(packed, chunk, warm) - run_design(packed, chunk, cold)).max(axis=1)
        apart = np.flatnonzero(difference > tolerance)
        if len(apart):
            last = first + int(apart[-1]) + 1
    return last
