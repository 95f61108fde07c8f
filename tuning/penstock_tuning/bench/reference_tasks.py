"""The field's reference tasks: their series, their error measure, and the linear control, all drawn from a seed.

Every word of chance is Philox and every series is made with + - * / alone (and one tanh at the end), so that a seed
names the same task on every machine, for us and for whoever is measured beside us.

    nrmse        =  sqrt(mean((found - wanted)^2) / var(wanted))         the standard deviation, not the variance
    NARMA10      :  y[t+1] = .3 y[t] + .05 y[t] (y[t] + ... + y[t-9]) + 1.5 u[t-9] u[t] + .1,   u uniform in 0 .. .5
    Mackey-Glass :  dy/dt = .2 y(t-17) / (1 + y(t-17)^10) - .1 y(t),   ten Euler steps to a step, then tanh(y - 1)
"""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock_kernels.compiled import Float64s
from penstock_kernels.philox import Stream
from penstock_tuning.bench.errors import BenchError

# Streams of a seed, apart from those that draw a reservoir.
_STREAM_NARMA: Final = 101
_STREAM_MACKEY_GLASS: Final = 102
_STREAM_MEMORY: Final = 103

_NARMA_LAGS: Final = 10
_NARMA_DIVERGED: Final = 1.0  # The series lives in .1 .. .7; beyond 1 it runs away, or soon will.
_NARMA_ATTEMPTS: Final = 100

_DELAY: Final = 17
_SUBSTEPS: Final = 10
_TRANSIENT_STEPS: Final = 1_000
_START: Final = 1.2  # The history before the first step, give or take a tenth.


def nrmse(found: Float64s, wanted: Float64s, variance: float | None = None) -> float:
    """Return the root of the mean squared error over the variance.

    Args:
        found: what a readout gave, shape (n,).
        wanted: what it should have given, shape (n,).
        variance: to divide by; None for that of *wanted*.

    Beware of ReservoirPy 0.4.2: its ``nrmse(norm="var")`` divides the root by the variance itself.
    """
    assert found.shape == wanted.shape, "one value each"
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return float(np.sqrt(error / (variance if variance is not None else float(np.var(wanted)))))


def narma10(seed: int, steps: int) -> tuple[Float64s, Float64s]:
    """Return the inputs u and what is wanted after each of them, y one step on, both of shape (steps,).

    ``wanted[t]`` is y[t+1], the value that u[t] is the last to enter. A draw that diverges is thrown away for the
    next one of the seed. Source: Atiya and Parlos, IEEE Transactions on Neural Networks 11 (2000).

    Raises:
        BenchError: a hundred draws have diverged.
    """
    stream = Stream(seed, _STREAM_NARMA)
    for _ in range(_NARMA_ATTEMPTS):
        inputs = stream.uniform(steps, 0.0, 0.5)
        wanted = _narma_outputs(inputs.tolist())
        if wanted is not None:
            return inputs, wanted
    raise BenchError(f"NARMA10 diverges in every draw: seed={seed}, steps={steps}; take fewer steps")


def _narma_outputs(inputs: list[float]) -> Float64s | None:
    outputs = [0.0] * (_NARMA_LAGS + len(inputs))  # Nothing before the first input: y = 0, u = 0.
    past = [0.0] * (_NARMA_LAGS - 1) + inputs
    last = _NARMA_LAGS - 1
    for step in range(len(inputs)):
        now = outputs[last + step]
        window = sum(outputs[step : last + step + 1])
        value = 0.3 * now + 0.05 * now * window + 1.5 * past[step] * past[last + step] + 0.1
        if value > _NARMA_DIVERGED:
            return None
        outputs[last + step + 1] = value
    return np.array(outputs[_NARMA_LAGS:])


def mackey_glass(seed: int, steps: int) -> Float64s:
    """Return *steps* values of the Mackey-Glass series with delay 17, one time unit apart, through tanh(y - 1).

    The first thousand steps are thrown away. The fractional history before them is drawn from *seed*, so that seeds
    give different stretches of the same attractor. Source: Jaeger and Haas, Science 304 (2004), supporting material.
    """
    lag = _DELAY * _SUBSTEPS
    history = Stream(seed, _STREAM_MACKEY_GLASS).uniform(lag + 1, _START - 0.1, _START + 0.1)
    values: list[float] = history.tolist()
    share = 1.0 / _SUBSTEPS
    for position in range((steps + _TRANSIENT_STEPS) * _SUBSTEPS):
        late = values[position]
        late_squared = late * late
        late_fourth = late_squared * late_squared
        now = values[-1]
        values.append(now + share * (0.2 * late / (1.0 + late_fourth * late_fourth * late_squared) - 0.1 * now))
    kept = np.array(values[lag + 1 + _TRANSIENT_STEPS * _SUBSTEPS :: _SUBSTEPS])[:steps]
    return np.asarray(np.tanh(kept - 1.0))


def memory_inputs(seed: int, steps: int) -> Float64s:
    """Return what memory is measured with: independent values, uniform in -1 .. 1, shape (steps,)."""
    return Stream(seed, _STREAM_MEMORY).uniform(steps, -1.0, 1.0)


def lagged(inputs: Float64s, lags: int) -> Float64s:
    """Return the last *lags* inputs at each step and a 1, shape (steps, lags + 1); zeros before the first."""
    columns = np.ones((len(inputs), lags + 1))
    padded = np.concatenate([np.zeros(lags - 1), inputs])
    for lag in range(lags):
        columns[:, lag] = padded[lags - 1 - lag : lags - 1 - lag + len(inputs)]
    return columns


def memory_capacity(found: Float64s, wanted: Float64s) -> float:
    """Return the sum over lags of the squared correlation between what was asked for and what was given.

    Args:
        found: one column per lag, shape (steps, lags).
        wanted: the inputs so many steps ago, shape (steps, lags).

    A lag for which nothing, or no number, is given counts 0.

    Source: Jaeger, "Short term memory in echo state networks", GMD report 152 (2001).
    """
    found = found - found.mean(axis=0)
    wanted = wanted - wanted.mean(axis=0)
    both = (found * wanted).sum(axis=0) ** 2
    sizes = (found**2).sum(axis=0) * (wanted**2).sum(axis=0)
    return float(np.divide(both, sizes, out=np.zeros(len(both)), where=sizes > 0.0).sum())
