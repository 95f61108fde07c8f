"""How far a float32 predictor may be from the float64 reference: a bound, derived and then computed for a model.

With u = 2^-24, the rounding of one float32 operation, g(n) = n u / (1 - n u) for a sum of n terms, and e the largest
error of any unit so far, one tick makes of it

    sum       a_i = b_i + sum_k w_ik u_k + sum_j W_ij x_j      error   L_i e + sum_k |w_ik| e_u + g(n + 1) S_i
    tanh      slope at most 1, own error at most 6e-7          error   the same + 6e-7                        =: L_i e + d_i
    leak      x + l (t - x), |t - x| <= 2                      error   (1 - l) e + l (L_i e + d_i + 4 u) + u

with L_i = sum_j |W_ij|, S_i = |b_i| + sum_k |w_ik| |u_k| + L_i and e_u the rounding of the inputs. Where every L_i is
below 1 the step is a contraction: what a tick adds fades, and after any number of ticks

    e <= max_i (d_i + 4 u) / (1 - L) + u min(ticks, 1 / (l_min (1 - L)))

By seconds a leak has a relative error of 5e-7 of its own, which adds at most 1e-6 inside the leak's bracket.
Columns of the readout:  x: e;  products: 2 e + e^2 + u;  averages of gain g: e_u + 4 M u + M u / g, M = max |u_k|;
lags and inputs: e_u. An output is then off by at most  sum_c |r_c| e_c + g(columns / 16 + 5) sum_c |r_c| |column_c|,
an expected return by that times its scale, a probability by a quarter of that times the slopes (a logistic's slope is
at most 1/4), each and u for its own rounding.

It is a worst case: every rounding as large as it can be and of the worst sign. What is measured is far below it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels import reference
from penstock_kernels.model import Model
from penstock_kernels.spectral import dense_matrix

ROUNDING: Final = 2.0**-24
_TANH_ERROR: Final = 6e-7
_SECONDS_ERROR: Final = 1e-6
_FEATURE_ERROR: Final = 1e-8
CONTRACTION: Final = 0.6  # L of the models that the checks draw.


@dataclass(frozen=True)
class Tolerance:
    """The bound of each forecast word, shape (horizons,) each."""

    expected_return: NDArray[np.float64]
    probability: NDArray[np.float64]


def contracting(model: Model, largest: float = CONTRACTION) -> Model:
    """Return *model* with its recurrent weights scaled so that no unit hears more than *largest* in sum."""
    heard = np.abs(dense_matrix(model.topology, model.recurrent, model.connections)).sum(axis=1).max()
    return replace(model, recurrent=(model.recurrent * np.float32(largest / heard)).astype(np.float32))


def tolerance_of(model: Model, ticks: NDArray[np.void]) -> Tolerance:
    """Return the bound for *model* on *ticks* of one instrument, from a cold state on."""
    inputs = np.abs(reference.inputs_of(model, reference.raw_features(ticks)))
    state = _state_error(model, inputs)
    largest = float(inputs.max(initial=0.0))
    input_error = _input_error(model)
    averages = [input_error + (4 + 1 / float(gain)) * largest * ROUNDING for gain in model.memory_gains]
    errors = np.concatenate(
        [
            np.full(model.units, state),
            np.full(model.products, 2 * state + state**2 + ROUNDING),
            np.repeat(averages, model.inputs),
            np.full(model.inputs * (model.memory_lags + 1), input_error),
            [0.0],
        ]
    )
    inside = model.units + model.products
    sizes = np.concatenate([np.ones(inside), np.full(model.columns - inside - 1, largest), [1.0]])
    weights = np.abs(model.readout.astype(np.float64))
    outputs = weights @ errors + _sum_error(model.columns // 16 + 6) * (weights @ sizes)
    outputs = outputs.reshape(-1, 3)
    returns, probabilities = [], []
    for (of_return, direction, moved), calibration in zip(outputs, model.calibration, strict=True):
        returns.append(abs(calibration.return_scale) * (of_return * (1 + ROUNDING) + 4 * ROUNDING))
        slopes = abs(calibration.direction_slope) * direction + abs(calibration.moved_slope) * moved
        probabilities.append(slopes / 4 + 2 * ROUNDING)
    return Tolerance(np.array(returns), np.array(probabilities))


def _state_error(model: Model, inputs: NDArray[np.float64]) -> float:
    heard = np.abs(dense_matrix(model.topology, model.recurrent, model.connections)).sum(axis=1)
    kept = 1.0 - float(heard.max())
    assert kept > 0.0, "the bound holds for contractions: use contracting()"
    listening = np.abs(model.input_weights.astype(np.float64))
    sizes = np.abs(model.bias) + (inputs @ listening).max(axis=0) + heard
    terms = 2 + model.inputs + (model.units if model.topology == "dense" else model.fan_in)
    step = _sum_error(terms) * sizes + listening.sum(axis=0) * _input_error(model) + _TANH_ERROR + 4 * ROUNDING
    lasting = float(len(inputs))
    if model.time_base == "seconds":
        step = step + _SECONDS_ERROR
    else:
        lasting = min(lasting, 1.0 / (float(model.leak.min()) * kept))
    return float(step.max()) / kept + ROUNDING * lasting


def _input_error(model: Model) -> float:
    return model.clip * ROUNDING + _FEATURE_ERROR / float(model.feature_scale.min())


def _sum_error(terms: int) -> float:
    return terms * ROUNDING / (1 - terms * ROUNDING)
