"""Ticks of one instrument through features, reservoir and readout, without a daemon.

Training, tests and the daemon's engine run the same compiled steps, so what a drive gives is what the daemon gives,
to the bit. A drive goes on where the last one stopped when it is given the same ``Place``.

    run(ticks[:n], place) then run(ticks[n:], place)      ==      run(ticks)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX, TICK_DTYPE
from penstock_kernels.compiled import Float32s, Float64s, Int64s, compiled
from penstock_kernels.features import FEATURES, RUNNING_WORDS, features_advance, raw_features
from penstock_kernels.packed import INPUTS, MEMORY_COLUMNS, PRODUCTS, UNITS, UNITS_PADDED, PackedModel, aligned_float32
from penstock_kernels.predictor import (
    advance_step,
    input_words,
    predict_step,
    running_words,
    scratch_words,
    state_words,
    tick_features,
)
from penstock_kernels.readout import FORECAST_WORDS

Ticks = NDArray[np.void]  # Shape (ticks,), dtype TICK_DTYPE.


@dataclass(frozen=True, eq=False)
class Place:
    """Where a drive stands in the ticks of one instrument; zeros are the start. Every drive overwrites it."""

    running: Float64s  # Shape (running_words,).
    state: Float32s  # Shape (state_words,).


def new_place(packed: PackedModel) -> Place:
    """Return the place before the first tick."""
    return Place(
        running=np.zeros(running_words(packed.header), dtype=np.float64),
        state=aligned_float32(state_words(packed.header)),
    )


def run_raw_features(ticks: Ticks, running: Float64s | None = None) -> Float64s:
    """Return every feature of every tick, not standardised: what means and scales are taken from.

    Args:
        ticks: of one instrument, in order, shape (ticks,), dtype TICK_DTYPE.
        running: where to go on, shape (RUNNING_WORDS,). Overwritten. None starts afresh.

    Returns:
        Shape (ticks, FEATURES), columns in the order of FEATURE_NAMES.
    """
    features = np.empty((len(ticks), FEATURES), dtype=np.float64)
    _raw_features_loop(running if running is not None else np.zeros(RUNNING_WORDS), _checked(ticks), features)
    return features


def run_features(packed: PackedModel, ticks: Ticks, place: Place | None = None) -> Float32s:
    """Return the reservoir's inputs of every tick: standardised and clipped, shape (ticks, inputs)."""
    place = place or new_place(packed)
    inputs = np.empty((len(ticks), int(packed.header[INPUTS])), dtype=np.float32)
    words, _ = _buffers(packed)
    _features_loop(packed.header, packed.constants, place.running, _checked(ticks), words, inputs)
    return inputs


def run_design(
    packed: PackedModel, ticks: Ticks, place: Place | None = None, design: Float32s | None = None
) -> Float32s:
    """Return the readout's rows [x, m, inputs, 1] of every tick: the columns of Model.readout.

    Args:
        packed: the model; its readout plays no part.
        ticks: of one instrument, in order, shape (ticks,), dtype TICK_DTYPE.
        place: where to go on. Overwritten. None starts afresh.
        design: memory for the rows, shape (ticks, columns), to be used again. Overwritten. None for new.

    Returns:
        *design*, shape (ticks, columns).
    """
    header = packed.header
    place = place or new_place(packed)
    columns = int(header[UNITS] + header[PRODUCTS] + header[MEMORY_COLUMNS] + header[INPUTS] + 1)
    rows = design if design is not None else np.empty((len(ticks), columns), dtype=np.float32)
    assert rows.shape == (len(ticks), columns), "design must have a row per tick and a column per readout weight"
    inputs, scratch = _buffers(packed)
    _design_loop(
        header,
        packed.weights,
        packed.constants,
        place.running,
        place.state,
        _checked(ticks),
        inputs,
        scratch,
        rows,
    )
    return rows


def run_predictions(
    packed: PackedModel, ticks: Ticks, place: Place | None = None, flags: Int64s | None = None
) -> Float32s:
    """Return the forecasts of every tick.

    Args:
        packed: the model.
        ticks: of one instrument, in order, shape (ticks,), dtype TICK_DTYPE.
        place: where to go on. Overwritten. None starts afresh.
        flags: PredictionFlag bits of features_step, shape (ticks,). Overwritten. None when not wanted.

    Returns:
        Shape (ticks, HORIZONS_MAX, 4): expected return, deviation, probability up, probability down.
    """
    place = place or new_place(packed)
    inputs, scratch = _buffers(packed)
    forecasts = np.empty((len(ticks), HORIZONS_MAX, FORECAST_WORDS), dtype=np.float32)
    kept = flags if flags is not None else np.empty(len(ticks), dtype=np.int64)
    assert kept.shape == (len(ticks),), "flags must have one word per tick"
    _predictions_loop(
        packed.header,
        packed.weights,
        packed.constants,
        place.running,
        place.state,
        _checked(ticks),
        inputs,
        scratch,
        forecasts,
        kept,
    )
    return forecasts


def _buffers(packed: PackedModel) -> tuple[Float32s, Float32s]:
    """Return inputs and scratch, to be overwritten at each tick."""
    inputs = np.zeros(input_words(packed.header), dtype=np.float32)
    return inputs, aligned_float32(scratch_words(packed.header))


def _checked(ticks: Ticks) -> Ticks:
    if ticks.dtype != TICK_DTYPE or ticks.ndim != 1:
        raise ValueError(f"ticks must be one row of TICK_DTYPE records: dtype={ticks.dtype!s:.80}, shape={ticks.shape}")
    return ticks


@compiled
def _raw_features_loop(running: Float64s, ticks: Ticks, features: Float64s) -> None:
    for position in range(len(ticks)):
        tick = ticks[position]
        features_advance(
            running,
            np.int64(tick.ts_recv),
            np.int64(tick.size),
            np.int64(tick.action),
            np.int64(tick.side),
            tick.bid_px,
            tick.ask_px,
            np.int64(tick.bid_sz),
            np.int64(tick.ask_sz),
        )
        raw_features(running, features[position])


@compiled
def _features_loop(
    header: Int64s, constants: Float64s, running: Float64s, ticks: Ticks, words: Float32s, inputs: Float32s
) -> None:
    for position in range(len(ticks)):
        tick_features(header, constants, running, ticks[position], words)
        for column in range(header[INPUTS]):  # A slice's copy takes seconds to compile.
            inputs[position, column] = words[column]


@compiled
def _design_loop(
    header: Int64s,
    weights: Float32s,
    constants: Float64s,
    running: Float64s,
    state: Float32s,
    ticks: Ticks,
    inputs: Float32s,
    scratch: Float32s,
    design: Float32s,
) -> None:
    units = header[UNITS]
    rest = header[PRODUCTS] + header[MEMORY_COLUMNS] + header[INPUTS] + 1
    first = header[UNITS_PADDED]
    for position in range(len(ticks)):
        tick_features(header, constants, running, ticks[position], inputs)
        advance_step(header, weights, state, inputs, scratch)
        for column in range(units):
            design[position, column] = scratch[column]
        for column in range(rest):
            design[position, units + column] = scratch[first + column]


@compiled
def _predictions_loop(
    header: Int64s,
    weights: Float32s,
    constants: Float64s,
    running: Float64s,
    state: Float32s,
    ticks: Ticks,
    inputs: Float32s,
    scratch: Float32s,
    forecasts: Float32s,
    flags: Int64s,
) -> None:
    for position in range(len(ticks)):
        flags[position] = tick_features(header, constants, running, ticks[position], inputs)
        predict_step(header, weights, state, inputs, scratch, forecasts[position])
