"""The reservoir's step, for each topology: x <- x + leak (tanh(b + W_in u + W x) - x), sixteen units at a time.

    cyclic   (W x)_i = sum_j recurrent_ji x_((i + shift_j) mod units)      W is a sum of diagonals, shifted in a circle
    sparse   (W x)_i = sum_j recurrent_ji x_(connection_ji)                a gather for each weight
    dense    (W x)_i = sum_j recurrent_ij x_j                              a row of weights for each unit heard

The state holds x twice in a row (x, x, and sixteen spare words), so that a cyclic shift of any amount is one contiguous
piece and needs neither modulo nor gather. Measured on NARMA10, cyclic predicts as well as a random matrix of the same
fan-in. A unit's sum runs in the same order on every machine: bias, inputs first to last, weights first to last.
"""

from __future__ import annotations

from typing import Any

from penstock_kernels.compiled import Float32s, Int64, Int64s, compiled, inlined
from penstock_kernels.elementary import fading_lanes, tanh_lanes
from penstock_kernels.lanes import LANES, gather, load, spread, store
from penstock_kernels.packed import (
    DENSE,
    FAN_IN,
    GROUP_WORDS,
    INPUTS,
    LEAK_OFFSET,
    RESERVOIR_OFFSET,
    SECONDS,
    SHIFTS,
    SPARSE,
    TIME_BASE,
    TOPOLOGY,
    UNITS,
    UNITS_PADDED,
)


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
    units_padded = header[UNITS_PADDED]
    topology = header[TOPOLOGY]
    if header[TIME_BASE] == SECONDS:
        fading_step(header, weights, inputs, 0, design, 0)
    if topology == SPARSE:
        for unit in range(0, units_padded, LANES):
            activation = sparse_lanes(header, weights, unit, state, 0, inputs, 0)
            leaked_step(header, weights, unit, state, 0, design, 0, activation)
    elif topology == DENSE:
        together = 4 * LANES
        whole = units_padded // together * together
        for unit in range(0, whole, together):
            _dense_step_of_four(header, weights, unit, state, inputs, design)
        for unit in range(whole, units_padded, LANES):
            activation = dense_lanes(header, weights, unit, state, 0, inputs, 0)
            leaked_step(header, weights, unit, state, 0, design, 0, activation)
    else:
        for unit in range(0, units_padded, LANES):
            activation = cyclic_lanes(header, weights, unit, state, 0, inputs, 0)
            leaked_step(header, weights, unit, state, 0, design, 0, activation)
    kept_step(header, state, 0, design, 0)


@inlined
def fading_step(
    header: Int64s, weights: Float32s, inputs: Float32s, tick: Int64, designs: Float32s, design: Int64
) -> None:
    """Write the leak of every unit in the time since the last tick to *design*, for a model by seconds."""
    elapsed_s = spread(inputs, tick + header[INPUTS])
    for unit in range(0, header[UNITS_PADDED], LANES):
        store(designs, design + unit, fading_lanes(load(weights, header[LEAK_OFFSET] + unit) * elapsed_s))


@inlined
def leaked_step(
    header: Int64s,
    weights: Float32s,
    unit: Int64,
    states: Float32s,
    state: Int64,
    designs: Float32s,
    design: Int64,
    activation: Any,
) -> None:
    """Write the new x of sixteen units from *unit* on to *design*; by seconds their leaks lie there."""
    leak = load(designs, design + unit) if header[TIME_BASE] == SECONDS else load(weights, header[LEAK_OFFSET] + unit)
    before = load(states, state + unit)
    store(designs, design + unit, before + leak * (tanh_lanes(activation) - before))


@inlined
def kept_step(header: Int64s, states: Float32s, state: Int64, designs: Float32s, design: Int64) -> None:
    """Write the new x at *design* over the state at *state*, twice; lanes past the units become 0."""
    units = header[UNITS]
    for unit in range(units, header[UNITS_PADDED]):
        designs[design + unit] = 0.0
    for unit in range(units):
        states[state + unit] = designs[design + unit]
        states[state + units + unit] = designs[design + unit]


@inlined
def cyclic_lanes(
    header: Int64s,
    weights: Float32s,
    unit: Int64,
    states: Float32s,
    state: Int64,
    inputs: Float32s,
    tick: Int64,
) -> Any:
    """Return b + W_in u + W x of sixteen units from *unit* on, of the state at *state* and the inputs at *tick*."""
    word = header[RESERVOIR_OFFSET] + unit // LANES * header[GROUP_WORDS]
    activation = load(weights, word)
    word += LANES
    for position in range(header[INPUTS]):
        activation = activation + load(weights, word) * spread(inputs, tick + position)
        word += LANES
    for shift in range(header[FAN_IN]):
        activation = activation + load(weights, word) * load(states, state + unit + header[SHIFTS + shift])
        word += LANES
    return activation


@inlined
def sparse_lanes(
    header: Int64s,
    weights: Float32s,
    unit: Int64,
    states: Float32s,
    state: Int64,
    inputs: Float32s,
    tick: Int64,
) -> Any:
    """Return the same as cyclic_lanes of a sparse reservoir."""
    word = header[RESERVOIR_OFFSET] + unit // LANES * header[GROUP_WORDS]
    activation = load(weights, word)
    word += LANES
    for position in range(header[INPUTS]):
        activation = activation + load(weights, word) * spread(inputs, tick + position)
        word += LANES
    for _ in range(header[FAN_IN]):
        activation = activation + load(weights, word + LANES) * gather(states, state, weights, word)
        word += 2 * LANES
    return activation


@inlined
def dense_lanes(
    header: Int64s,
    weights: Float32s,
    unit: Int64,
    states: Float32s,
    state: Int64,
    inputs: Float32s,
    tick: Int64,
) -> Any:
    """Return the same as cyclic_lanes of a dense reservoir."""
    word = header[RESERVOIR_OFFSET] + unit // LANES * header[GROUP_WORDS]
    activation = load(weights, word)
    word += LANES
    for position in range(header[INPUTS]):
        activation = activation + load(weights, word) * spread(inputs, tick + position)
        word += LANES
    for heard in range(header[UNITS]):
        activation = activation + load(weights, word) * spread(states, state + heard)
        word += LANES
    return activation


@inlined
def _dense_step_of_four(
    header: Int64s, weights: Float32s, unit: Int64, state: Float32s, inputs: Float32s, design: Float32s
) -> None:
    """Do the step of four times sixteen units: four sums under way at a time hide what an addition takes."""
    stride = header[GROUP_WORDS]
    word0 = header[RESERVOIR_OFFSET] + unit // LANES * stride
    word1, word2, word3 = word0 + stride, word0 + 2 * stride, word0 + 3 * stride
    sum0, sum1, sum2, sum3 = load(weights, word0), load(weights, word1), load(weights, word2), load(weights, word3)
    offset = LANES
    for position in range(header[INPUTS]):
        value = spread(inputs, position)
        sum0 = sum0 + load(weights, word0 + offset) * value
        sum1 = sum1 + load(weights, word1 + offset) * value
        sum2 = sum2 + load(weights, word2 + offset) * value
        sum3 = sum3 + load(weights, word3 + offset) * value
        offset += LANES
    for heard in range(header[UNITS]):
        value = spread(state, heard)
        sum0 = sum0 + load(weights, word0 + offset) * value
        sum1 = sum1 + load(weights, word1 + offset) * value
        sum2 = sum2 + load(weights, word2 + offset) * value
        sum3 = sum3 + load(weights, word3 + offset) * value
        offset += LANES
    leaked_step(header, weights, unit, state, 0, design, 0, sum0)
    leaked_step(header, weights, unit + LANES, state, 0, design, 0, sum1)
    leaked_step(header, weights, unit + 2 * LANES, state, 0, design, 0, sum2)
    leaked_step(header, weights, unit + 3 * LANES, state, 0, design, 0, sum3)
