"""How many past ticks restore the state of an instrument, and how well they do.

    reservoir   the slowest unit forgets at most by contraction = 1 - leak (1 - spectral radius) per tick
    features    the slowest average forgets by 1 - FEATURE_WEIGHT_SLOWEST per tick
    ticks       = ln(AGREEMENT) / ln(slowest contraction), at most REBUILD_TICKS_MAX

The bound on the reservoir is that of a symmetric W; what a rebuilt state really gives is measured beside it and stands
in the training report. The cap keeps the daemon's journal at 80 KiB per state; at the cap the slowest averages still
remember 0.03 % of where they began.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.elementary import log
from penstock_kernels.model import Model
from penstock_kernels.predictor import pack

AGREEMENT: Final = 1e-6
REBUILD_TICKS_MAX: Final = 1_024
REBUILD_TICKS_MIN: Final = 32
FEATURE_WEIGHT_SLOWEST: Final = 1.0 / 128.0  # Of a new value in the slowest average of penstock_kernels.features.
_MEASURED_TICKS: Final = 256


def rebuild_ticks_for(leak: NDArray[np.float32], spectral_radius: float) -> int:
    """Return how many ticks restore a state whose slowest unit has the least *leak*; the features count too."""
    slowest = float(leak.min()) * max(0.0, 1.0 - spectral_radius)
    contraction = 1.0 - min(slowest, FEATURE_WEIGHT_SLOWEST)
    if contraction >= 1.0:
        return REBUILD_TICKS_MAX
    return min(REBUILD_TICKS_MAX, max(REBUILD_TICKS_MIN, ceil(log(AGREEMENT) / log(contraction))))


def measured_agreement(model: Model, ticks: NDArray[np.void]) -> float | None:
    """Return the largest difference in a direction probability between a rebuilt state and one that saw all *ticks*.

    Args:
        model: with its readout.
        ticks: of one instrument, shape (any,), dtype TICK_DTYPE; its end is compared.

    Returns:
        None where there are fewer ticks than twice ``model.rebuild_ticks`` and the ones compared.
    """
    if len(ticks) < 2 * model.rebuild_ticks + _MEASURED_TICKS:
        return None
    packed = pack(model)
    ticks = ticks[-(2 * model.rebuild_ticks + _MEASURED_TICKS) :]
    whole = run_predictions(packed, ticks, new_place(packed))[-_MEASURED_TICKS:]
    rebuilt = run_predictions(packed, ticks[model.rebuild_ticks :], new_place(packed))[-_MEASURED_TICKS:]
    return float(np.abs(whole[:, :, 2:] - rebuilt[:, :, 2:]).max())
