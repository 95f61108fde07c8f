"""The reservoir's step, for each topology: x <- x + leak (tanh(b + W_in u + W x) - x), sixteen units at a time.

    cyclic   (W x)_i = sum_j recurrent_ji x_((i + shift_j) mod units)      W is a sum of diagonals, shifted in a circle
    sparse   (W x)_i = sum_j recurrent_ji x_(connection_ji)                a gather for each weight
    dense    (W x)_i = sum_j recurrent_ij x_j                              a row of weights for each unit heard

The state holds x twice in a row (x, x, and sixteen spare words), so that a cyclic shift of any amount is one contiguous
piece and needs neither modulo nor gather. Measured on NARMA10, cyclic predicts as well as a random matrix of the same
fan-in. A unit's sum runs in the same order on every machine: bias, inputs first to last, weights first to last.
"""

from __future__ import annotations

from typing import Any, Final

from penstock_kernels.compiled import Float32s, Int64, Int64s, compiled
from penstock_kernels.elementary import fading_lanes, tanh_lanes
from penstock_kernels.lanes import LANES, gather, load, splat, store
from penstock_kernels.model import TIME_BASES, TOPOLOGIES
from penstock_kernels.packed import FAN_IN, INPUTS, RESERVOIR_OFFSET, SHIFTS, TIME_BASE, TOPOLOGY, UNITS, UNITS_PADDED

_SPARSE: Final = TOPOLOGIES["sparse"]
_DENSE: Final = TOPOLOGIES["dense"]
_SECONDS: Final = TIME_BASES["seconds"]


@compiled
def reservoir_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, design: Float32s) -> None:
    """Advance *state* by one tick, in place, and leave the new x at the start of *design* too.

        x <- x + leak (tanh(b + W_in u + W x) - x)

    By seconds, leak is 1 - exp(-seconds since the last tick * the model's rate).

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        state: x twice, then sixteen words of any value, shape (at least 2 * units + 16,). Overwritten.
        inputs: u, shape (inputs,), standardised; by seconds one more word, the seconds since the last tick.
        design: shape (at least padded units,). Its first padded units are overwritten.

    Allocates nothing. Source: Jaeger et al., Neural Networks 20 (2007); the cyclic form: Rodan and Tino (2011).
    """
    topology = header[TOPOLOGY]
    if topology == _SPARSE:
        _sparse_step(header, weights, state, inputs, design)
    elif topology == _DENSE:
        _dense_step(header, weights, state, inputs, design)
    else:
        _cyclic_step(header, weights, state, inputs, design)
    units = header[UNITS]
    for unit in range(units):
        state[unit] = design[unit]
        state[units + unit] = design[unit]


@compiled
def _driven(weights: Float32s, word: Int64, inputs: Float32s, input_count: Int64) -> Any:
    """Return b + W_in u of the sixteen units whose words begin at *word*."""
    activation = load(weights, word)
    for position in range(input_count):
        activation = activation + load(weights, word + (1 + position) * LANES) * splat(inputs[position])
    return activation


@compiled
def _leaked(header: Int64s, inputs: Float32s, leak: Any, before: Any, activation: Any) -> Any:
    """Return the new x of sixteen units."""
    if header[TIME_BASE] == _SECONDS:
        leak = fading_lanes(leak * splat(inputs[header[INPUTS]]))
    return before + leak * (tanh_lanes(activation) - before)


@compiled
def _cyclic_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, design: Float32s) -> None:
    fan_in = header[FAN_IN]
    input_count = header[INPUTS]
    word = header[RESERVOIR_OFFSET]
    for unit in range(0, header[UNITS_PADDED], LANES):
        activation = _driven(weights, word, inputs, input_count)
        word += (1 + input_count) * LANES
        for shift in range(fan_in):
            activation = activation + load(weights, word) * load(state, unit + header[SHIFTS + shift])
            word += LANES
        store(design, unit, _leaked(header, inputs, load(weights, word), load(state, unit), activation))
        word += LANES


@compiled
def _sparse_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, design: Float32s) -> None:
    fan_in = header[FAN_IN]
    input_count = header[INPUTS]
    word = header[RESERVOIR_OFFSET]
    for unit in range(0, header[UNITS_PADDED], LANES):
        activation = _driven(weights, word, inputs, input_count)
        word += (1 + input_count) * LANES
        for _ in range(fan_in):
            activation = activation + load(weights, word + LANES) * gather(state, weights, word)
            word += 2 * LANES
        store(design, unit, _leaked(header, inputs, load(weights, word), load(state, unit), activation))
        word += LANES


@compiled
def _dense_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, design: Float32s) -> None:
    units = header[UNITS]
    input_count = header[INPUTS]
    word = header[RESERVOIR_OFFSET]
    for unit in range(0, header[UNITS_PADDED], LANES):
        activation = _driven(weights, word, inputs, input_count)
        word += (1 + input_count) * LANES
        for heard in range(units):
            activation = activation + load(weights, word) * splat(state[heard])
            word += LANES
        store(design, unit, _leaked(header, inputs, load(weights, word), load(state, unit), activation))
        word += LANES
