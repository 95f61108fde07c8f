"""A model's reservoir weights rounded to half precision, and what that may move.

    b, W_in and W become the nearest float16, kept as float32         everything else stays as it is

The rounding happens before a model is packed, so the CPU and a GPU that stores the halves compute from the same
numbers: the same bits on both. Against the model as fitted the forecasts move a little; a model whose forecasts move
too much is refused.

Where the tolerance comes from. Half precision keeps 11 bits: a weight moves by at most u = 2^-11 of itself (below
2^-14 by at most 2^-25). The rounded weights stay the same from tick to tick, so this is no noise but a slightly other
reservoir: what enters a unit moves by about u of itself, its state by about u / (1 - rho), where rho is what a state
keeps from one tick to the next, and a readout that does not cancel large terms by a similar share. Measured on
drawn and fitted models of 64 to 1,024 units, forecasts move by u / 7 to 3 u of their own spread.

What may be lost. A forecast that moves by a share r of its own standard deviation, whichever way, keeps 1 - r^2 of
what it explains: RETURN_SHARE_MAX = 32 u = 1/64 costs at most 1/4,096 of it. A probability p that moves by d costs
d^2 / (2 p (1 - p)) nats of log-loss; PROBABILITY_MAX = 1/256 costs at most 3e-5 at even odds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE
from penstock_kernels.drive import run_predictions
from penstock_kernels.model import Model, ModelError
from penstock_kernels.packed import pack
from penstock_kernels.philox import Stream

ROUNDING: Final = 2.0**-11  # Of a weight, relative.
RETURN_SHARE_MAX: Final = 32 * ROUNDING  # Root mean square of what an expected return moves, over its spread.
PROBABILITY_MAX: Final = 2.0**-8  # The most that a probability moves.
HALF_MAX: Final = float(np.finfo(np.float16).max)
CHECK_TICKS: Final = 1024
_SETTLED: Final = 256  # The first ticks, which still tell of the empty state, are not judged.
_SEED: Final = 20
_STREAM: Final = 110
_TICK_SIZE: Final = 10_000_000  # A cent, in 1e-9.


def round_to_half(model: Model) -> Model:
    """Return *model* with its reservoir's weights rounded to the nearest float16.

    Raises:
        ModelError: a weight is too large for float16, or forecasts move by more than the tolerance; with the mend.
    """
    mend = 'set engine.device_weights = "float32", or fit the model anew'
    for name in ("bias", "input_weights", "recurrent"):
        largest = float(np.abs(getattr(model, name)).max(initial=0.0))
        if largest > HALF_MAX:
            raise ModelError(
                f"model {model.name!r}: {name} reaches {largest:.6g}, float16 ends at {HALF_MAX:.0f}; {mend}"
            )
    rounded = nearest_half(model)
    for horizon, share, moved in zip(model.horizons, *forecasts_moved(model, rounded), strict=True):
        if not share <= RETURN_SHARE_MAX:  # Also where it is no number.
            raise ModelError(
                f"model {model.name!r}: in float16 the expected return of horizon {horizon.name!r} moves by {share:.3g} "
                f"of its spread, at most {RETURN_SHARE_MAX:.3g} may be; {mend}"
            )
        if not moved <= PROBABILITY_MAX:
            raise ModelError(
                f"model {model.name!r}: in float16 a probability of horizon {horizon.name!r} moves by {moved:.3g}, "
                f"at most {PROBABILITY_MAX:.3g} may be; {mend}"
            )
    return rounded


def nearest_half(model: Model) -> Model:
    """Return *model* with bias, input and recurrent weights rounded, whatever that moves."""
    return replace(
        model,
        bias=_rounded(model.bias),
        input_weights=_rounded(model.input_weights),
        recurrent=_rounded(model.recurrent),
    )


def forecasts_moved(model: Model, rounded: Model) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each horizon, how far forecasts of *rounded* are from those of *model* on the check ticks.

    Returns:
        Root mean square of the expected return's difference over its standard deviation (0 where nothing moves), and
        the largest difference of a probability; shape (horizons,) each.
    """
    horizons = len(model.horizons)
    ticks = check_ticks()
    before, after = (
        run_predictions(pack(one), ticks)[_SETTLED:, :horizons].astype(np.float64) for one in (model, rounded)
    )
    moved = after - before
    squares = np.sqrt(np.mean(moved[:, :, 0] ** 2, axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(squares == 0.0, 0.0, squares / np.std(before[:, :, 0], axis=0))
    return shares, np.abs(moved[:, :, 2:]).max(axis=(0, 2))


def check_ticks() -> NDArray[np.void]:
    """Return the ticks that models are judged on: a walk of quotes, the same everywhere."""
    moves, spreads, bids, asks, waits = (
        Stream(_SEED, _STREAM).uniform(5 * CHECK_TICKS, 0.0, 1.0).reshape(5, CHECK_TICKS)
    )
    ticks = np.zeros(CHECK_TICKS, TICK_DTYPE)
    ticks["length"], ticks["rtype"], ticks["price"] = TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE
    steps = (moves < 0.15).astype(np.int64) - (moves > 0.85).astype(np.int64)
    ticks["bid_px"] = 1_000_000_000_000 + _TICK_SIZE * np.cumsum(steps)
    ticks["ask_px"] = ticks["bid_px"] + _TICK_SIZE * (1 + (spreads < 0.2).astype(np.int64))
    ticks["bid_sz"] = 1 + (400 * bids * bids).astype(np.int64)
    ticks["ask_sz"] = 1 + (400 * asks * asks).astype(np.int64)
    ticks["ts_recv"] = 1_700_000_000_000_000_000 + np.cumsum((2e7 * waits * waits).astype(np.int64))
    ticks["ts_event"] = ticks["ts_recv"]
    return ticks


def _rounded(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return weights.astype(np.float16).astype(np.float32)
