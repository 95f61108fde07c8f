"""The reservoir's step, for each topology: x <- x + leak (tanh(b + W_in u + W x) - x), 64 units at a time.

    cyclic   (W x)_i = sum_j recurrent_ji x_((i + shift_j) mod units)      W is a sum of diagonals, shifted in a circle
    sparse   (W x)_i = sum_j recurrent_ji x_(connection_ji)                a gather for each weight
    dense    (W x)_i = sum_j recurrent_ij x_j                              a row of weights for each unit heard

The state holds x twice in a row (x, x, and sixteen spare words), so that a cyclic shift of any amount is one contiguous
piece and needs neither modulo nor gather. Measured on NARMA10, cyclic predicts as well as a random matrix of the same
fan-in. A unit's sum runs in the same order on every machine: bias, inputs first to last, weights first to last; dense,
where thousands of small products would lose what is below the last bit of a growing sum, the weights are summed 32 at a
time and each such part is then added:

    ((bias + inputs) + (w_0 x_0 + ... + w_31 x_31)) + (w_32 x_32 + ... ) ...
"""

from __future__ import annotations

from typing import Any, Final

from penstock_kernels.compiled import Float32s, Int64, Int64s, inlined
from penstock_kernels.elementary import fading_lanes, tanh_lanes
from penstock_kernels.lanes import LANES, gather, load, splat, spread, store
from penstock_kernels.packed import (
    BLOCK,
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

_DENSE_PART: Final = 32


@inlined
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
    whole = units_padded // BLOCK * BLOCK
    if header[TIME_BASE] == SECONDS:
        fading_step(header, weights, inputs, 0, design, 0)
    for unit in range(0, whole, BLOCK):
        block_step(header, weights, unit, state, 0, inputs, 0, design, 0)
    for unit in range(whole, units_padded, LANES):
        lanes_step(header, weights, unit, state, 0, inputs, 0, design, 0)
    kept_step(header, state, 0, design, 0)


@inlined
def block_step(
    header: Int64s,
    weights: Float32s,
    unit: Int64,
    states: Float32s,
    state: Int64,
    inputs: Float32s,
    tick: Int64,
    designs: Float32s,
    design: Int64,
) -> None:
    """Write the new x of 64 units from *unit* on to *design*: four sums under way at a time hide what an addition takes.

    The state begins at *state*, the inputs at *tick*.
    """
    word = header[RESERVOIR_OFFSET] + unit // LANES * header[GROUP_WORDS]
    sum0, sum1 = load(weights, word), load(weights, word + LANES)
    sum2, sum3 = load(weights, word + 2 * LANES), load(weights, word + 3 * LANES)
    word += BLOCK
    for position in range(header[INPUTS]):
        value = spread(inputs, tick + position)
        sum0 = sum0 + load(weights, word) * value
        sum1 = sum1 + load(weights, word + LANES) * value
        sum2 = sum2 + load(weights, word + 2 * LANES) * value
        sum3 = sum3 + load(weights, word + 3 * LANES) * value
        word += BLOCK
    if header[TOPOLOGY] == SPARSE:
        for _ in range(header[FAN_IN]):
            row = word + BLOCK
            sum0 = sum0 + load(weights, row) * gather(states, state, weights, word)
            sum1 = sum1 + load(weights, row + LANES) * gather(states, state, weights, word + LANES)
            sum2 = sum2 + load(weights, row + 2 * LANES) * gather(states, state, weights, word + 2 * LANES)
            sum3 = sum3 + load(weights, row + 3 * LANES) * gather(states, state, weights, word + 3 * LANES)
            word += 2 * BLOCK
    elif header[TOPOLOGY] == DENSE:
        for first in range(0, header[UNITS], _DENSE_PART):
            part0, part1, part2, part3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for heard in range(first, min(first + _DENSE_PART, header[UNITS])):
                value = spread(states, state + heard)
                part0 = part0 + load(weights, word) * value
                part1 = part1 + load(weights, word + LANES) * value
                part2 = part2 + load(weights, word + 2 * LANES) * value
                part3 = part3 + load(weights, word + 3 * LANES) * value
                word += BLOCK
            sum0, sum1, sum2, sum3 = sum0 + part0, sum1 + part1, sum2 + part2, sum3 + part3
    else:
        for shift in range(header[FAN_IN]):
            heard = state + unit + header[SHIFTS + shift]
            sum0 = sum0 + load(weights, word) * load(states, heard)
            sum1 = sum1 + load(weights, word + LANES) * load(states, heard + LANES)
            sum2 = sum2 + load(weights, word + 2 * LANES) * load(states, heard + 2 * LANES)
            sum3 = sum3 + load(weights, word + 3 * LANES) * load(states, heard + 3 * LANES)
            word += BLOCK
    leaked_step(header, weights, unit, states, state, designs, design, sum0)
    leaked_step(header, weights, unit + LANES, states, state, designs, design, sum1)
    leaked_step(header, weights, unit + 2 * LANES, states, state, designs, design, sum2)
    leaked_step(header, weights, unit + 3 * LANES, states, state, designs, design, sum3)


@inlined
def lanes_step(
    header: Int64s,
    weights: Float32s,
    unit: Int64,
    states: Float32s,
    state: Int64,
    inputs: Float32s,
    tick: Int64,
    designs: Float32s,
    design: Int64,
) -> None:
    """Do what block_step does for sixteen units, those behind the last whole block."""
    word = header[RESERVOIR_OFFSET] + unit // LANES * header[GROUP_WORDS]
    activation = load(weights, word)
    word += LANES
    for position in range(header[INPUTS]):
        activation = activation + load(weights, word) * spread(inputs, tick + position)
        word += LANES
    if header[TOPOLOGY] == SPARSE:
        for _ in range(header[FAN_IN]):
            activation = activation + load(weights, word + LANES) * gather(states, state, weights, word)
            word += 2 * LANES
    elif header[TOPOLOGY] == DENSE:
        for first in range(0, header[UNITS], _DENSE_PART):
            part = splat(0.0)
            for heard in range(first, min(first + _DENSE_PART, header[UNITS])):
                part = part + load(weights, word) * spread(states, state + heard)
                word += LANES
            activation = activation + part
    else:
        for shift in range(header[FAN_IN]):
            activation = activation + load(weights, word) * load(states, state + unit + header[SHIFTS + shift])
            word += LANES
    leaked_step(header, weights, unit, states, state, designs, design, activation)


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
    for unit in range(0, header[UNITS_PADDED], LANES):  # May reach into the second x, which is written after it.
        store(states, state + unit, load(designs, design + unit))
    for unit in range(0, header[UNITS_PADDED], LANES):  # May reach into the spare words.
        store(states, state + units + unit, load(designs, design + unit))
