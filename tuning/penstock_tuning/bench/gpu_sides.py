"""What stands beside the device in its benchmark: the CPU engine's own steps, and CuPy as a user would write it.

    cpu           features and prediction of each state in turn, the engine's compiled steps, one thread
    cupy_take     x <- x + leak (tanh(W x + W_in u + b) - x) with whole arrays, all states at once: W as a gather
    cupy_dense    the same with a dense W, by the vendor's matrix product

CuPy's sides get features for nothing: what they upload is standardised inputs. They upload once, compute one tick of
every state, and download the outputs: that is what a tick needs before anyone can act on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX
from penstock_daemon.native import CLOCK_MONOTONIC, clock_ns
from penstock_kernels.compiled import Float32s, Float64s, Int64s, compiled
from penstock_kernels.model import Model
from penstock_kernels.packed import PackedModel, aligned_float32
from penstock_kernels.predictor import (
    FORECAST_WORDS,
    input_words,
    predict_step,
    running_words,
    scratch_words,
    state_words,
    tick_features,
)

DENSE_UNITS_MAX: Final = 4096

Step = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # Inputs of every state in, outputs of every state out.


class CpuSide:
    """The CPU engine's steps over *states* states, one tick each and trip."""

    def __init__(self, packed: PackedModel, states: int) -> None:
        header = packed.header
        self._packed = packed
        words = -(-state_words(header) // 16) * 16
        self._states = aligned_float32(states * words).reshape(states, words)
        self._running = np.zeros((states, running_words(header)))
        self._inputs = np.zeros(input_words(header), np.float32)
        self._scratch = aligned_float32(scratch_words(header))
        self._forecasts = np.zeros((HORIZONS_MAX, FORECAST_WORDS), np.float32)

    def trips_ns(self, ticks: NDArray[np.void], count: int) -> Int64s:
        """Return how long each of *count* trips took, shape (count,), ns."""
        times = np.zeros(count, np.int64)
        _cpu_trips(
            self._packed.header,
            self._packed.weights,
            self._packed.constants,
            self._running,
            self._states,
            ticks,
            self._inputs,
            self._scratch,
            self._forecasts,
            times,
        )
        return times


@compiled
def _cpu_trips(
    header: Int64s,
    weights: Float32s,
    constants: Float64s,
    running: Float64s,
    states: Float32s,
    ticks: Any,
    inputs: Float32s,
    scratch: Float32s,
    forecasts: Float32s,
    times: Int64s,
) -> None:
    place = 0
    for trip in range(len(times)):
        started_ns = clock_ns(CLOCK_MONOTONIC)
        for state in range(len(states)):
            tick = ticks[place]
            place = place + 1 if place + 1 < len(ticks) else 0
            tick_features(header, constants, running[state], tick, inputs)
            predict_step(header, weights, states[state], inputs, scratch, forecasts)
        times[trip] = clock_ns(CLOCK_MONOTONIC) - started_ns


def array_step(arrays: Any, model: Model, states: int, *, dense: bool) -> Step:
    """Return a step of a cyclic *model* in plain array code.

    Args:
        arrays: the library: cupy, or numpy.
        model: cyclic.
        states: advanced together.
        dense: W as a matrix and not as a gather.
    """
    leak, bias = arrays.asarray(model.leak), arrays.asarray(model.bias)
    input_weights, recurrent = arrays.asarray(model.input_weights), arrays.asarray(model.recurrent)
    units = np.arange(model.units)
    places = [arrays.asarray((units + shift) % model.units) for shift in model.connections]
    matrix = arrays.zeros((0, 0), dtype=np.float32)
    if dense:
        heard_by = np.zeros((model.units, model.units), np.float32)
        for row, shift in zip(model.recurrent, model.connections, strict=True):
            heard_by[(units + shift) % model.units, units] += row
        matrix = arrays.asarray(heard_by)
    readout = arrays.asarray(np.ascontiguousarray(model.readout.T))
    rows = arrays.zeros((states, model.columns), dtype=np.float32)
    rows[:, -1] = 1.0
    to_host = getattr(arrays, "asnumpy", np.asarray)

    def step(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        now = arrays.asarray(inputs)
        x = rows[:, : model.units]
        activation = now @ input_weights + bias
        if dense:
            activation += x @ matrix
        else:
            for place, weights in zip(places, recurrent, strict=True):
                activation += x[:, place] * weights
        x += leak * (arrays.tanh(activation) - x)
        rows[:, model.units : -1] = now
        outputs: NDArray[np.float32] = to_host(rows @ readout)
        return outputs

    return step


def array_trips_ns(step: Step, inputs: NDArray[np.float32], states: int, count: int) -> Int64s:
    """Return how long each of *count* steps took, shape (count,), ns; *inputs*, shape (any, inputs), are taken in turn."""
    rows = np.resize(inputs, (4 * states, inputs.shape[1])).reshape(4, states, -1)
    times = np.zeros(count, np.int64)
    for trip in range(count):
        started_ns = time.monotonic_ns()
        step(rows[trip % 4])
        times[trip] = time.monotonic_ns() - started_ns
    return times
