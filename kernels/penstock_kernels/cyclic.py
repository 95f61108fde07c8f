"""Drawing a cyclic reservoir from a seed: the same weights on every platform.

The spectral radius comes from the eigenvalues, offline; it is rounded to six digits before it scales the weights, so
that the last bits of a linear algebra library never reach them.

    spectral radius of the result  =  the one asked for, to six digits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float32s, Float64s, Int64s
from penstock_kernels.elementary import exp, log
from penstock_kernels.model import FAN_IN_MAX, INPUTS_MAX, UNITS_MAX, ModelError
from penstock_kernels.philox import Stream

# Streams of a seed; a new one gets a new number.
_STREAM_SHIFTS: Final = 1
_STREAM_RECURRENT: Final = 2
_STREAM_INPUT: Final = 3
_STREAM_BIAS: Final = 4
_STREAM_LEAK: Final = 5

_DENSE_UNITS_MAX: Final = 600  # Up to here all eigenvalues of the dense matrix take less time than an iteration.
_EIGENVALUES: Final = 6
_ATTEMPTS: Final = 4


@dataclass(frozen=True, eq=False)
class Reservoir:
    """The part of a model that is drawn, not trained; shapes as in Model."""

    recurrent: Float32s
    shifts: Int64s
    input_weights: Float32s
    bias: Float32s
    leak: Float32s


def draw_cyclic(
    seed: int,
    *,
    units: int,
    inputs: int,
    fan_in: int = 8,
    spectral_radius: float = 0.6,
    input_scale: float | None = None,
    bias_scale: float = 1.0,
    time_constant_events_min: float = 0.2,
    time_constant_events_max: float = 30.0,
) -> Reservoir:
    """Draw a cyclic reservoir.

    Diagonals are uniform in -1 .. 1 and then scaled to the spectral radius; shifts differ; input weights and biases
    are uniform in -scale .. scale; a unit's leak is 1 - exp(-1 / T) with T log-uniform.

    Args:
        seed: 0 to 2^64 - 1.
        units: number of units.
        inputs: number of features.
        fan_in: number of shifts; below *units*.
        spectral_radius: of W; 0 switches recurrence off.
        input_scale: None for 1 / sqrt(inputs / 4).
        bias_scale: of b.
        time_constant_events_min: smallest T, in events.
        time_constant_events_max: largest T, in events.

    Raises:
        ModelError: an argument is impossible.
    """
    _check_whole("seed", seed, 0, 2**64 - 1)
    _check_whole("units", units, 2, UNITS_MAX)
    _check_whole("inputs", inputs, 1, INPUTS_MAX)
    _check_whole("fan_in", fan_in, 1, min(FAN_IN_MAX, units - 1))
    scale = input_scale if input_scale is not None else (inputs / 4) ** -0.5
    for name, value in (("spectral_radius", spectral_radius), ("input_scale", scale), ("bias_scale", bias_scale)):
        if not 0.0 <= value < np.inf:
            raise ModelError(f"{name} must be 0 or more: {name}={value}; see the defaults")
    if not 0.0 < time_constant_events_min <= time_constant_events_max < np.inf:
        raise ModelError(
            "time constants must be above 0 and in order: "
            f"min={time_constant_events_min}, max={time_constant_events_max}; see the defaults"
        )
    shifts = Stream(seed, _STREAM_SHIFTS).distinct(fan_in, 1, units)
    diagonals = Stream(seed, _STREAM_RECURRENT).uniform(fan_in * units, -1.0, 1.0).reshape(fan_in, units)
    if spectral_radius > 0.0:
        diagonals = diagonals * (spectral_radius / spectral_radius_of(diagonals, shifts))
    else:
        diagonals = np.zeros_like(diagonals)
    input_weights = Stream(seed, _STREAM_INPUT).uniform(inputs * units, -scale, scale).reshape(inputs, units)
    bias = Stream(seed, _STREAM_BIAS).uniform(units, -bias_scale, bias_scale)
    low, high = log(time_constant_events_min), log(time_constant_events_max)
    leak = [1.0 - exp(-1.0 / exp(draw)) for draw in Stream(seed, _STREAM_LEAK).uniform(units, low, high)]
    return Reservoir(
        recurrent=diagonals.astype(np.float32),
        shifts=shifts,
        input_weights=input_weights.astype(np.float32),
        bias=bias.astype(np.float32),
        leak=np.array(leak).astype(np.float32),
    )


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ModelError(f"{name} must be in {low} to {high}: {name}={value}; choose one in between")


def dense_matrix(diagonals: NDArray[np.floating], shifts: Int64s) -> Float64s:
    """Return W, shape (units, units), from its *diagonals*, shape (fan_in, units)."""
    units = diagonals.shape[1]
    rows = np.arange(units)
    matrix = np.zeros((units, units), dtype=np.float64)
    for diagonal, shift in zip(diagonals, shifts, strict=True):
        matrix[rows, (rows + shift) % units] += diagonal
    return matrix


def spectral_radius_of(diagonals: NDArray[np.floating], shifts: Int64s) -> float:
    """Return the largest absolute eigenvalue of W, rounded to six significant digits.

    Few units: all eigenvalues of the dense matrix. Many: ARPACK, with more vectors at each retry, then the dense
    matrix after all. (Power iteration is wrong here: the largest eigenvalues of W are often a complex pair.)
    """
    units = diagonals.shape[1]
    radius = _radius_by_iteration(diagonals, shifts) if units > _DENSE_UNITS_MAX else None
    if radius is None:
        radius = float(np.abs(np.linalg.eigvals(dense_matrix(diagonals, shifts))).max())
    return float(f"{radius:.6g}")


def _radius_by_iteration(diagonals: NDArray[np.floating], shifts: Int64s) -> float | None:
    """Return the largest absolute eigenvalue by ARPACK, or None where SciPy is missing or it does not converge."""
    try:
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
    except ImportError:
        return None
    units = diagonals.shape[1]
    doubled = np.empty(2 * units)

    def product(vector: Float64s) -> Float64s:
        doubled[:units] = doubled[units:] = vector.reshape(-1)
        result = np.zeros(units)
        for diagonal, shift in zip(diagonals, shifts, strict=True):
            result += diagonal * doubled[shift : shift + units]
        return result

    operator = LinearOperator((units, units), matvec=product, dtype=np.float64)
    vectors = 40
    for _ in range(_ATTEMPTS):
        try:
            values = eigs(
                operator,
                k=_EIGENVALUES,
                ncv=min(vectors, units - 1),
                v0=np.ones(units),
                tol=1e-9,
                return_eigenvectors=False,
            )
        except ArpackNoConvergence:
            vectors *= 2
            continue
        return float(np.abs(values).max())
    return None
