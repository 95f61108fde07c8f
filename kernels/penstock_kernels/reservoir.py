"""The cyclic reservoir: W is a sum of random diagonals times cyclic shifts, so W x is contiguous multiply-adds.

    (W x)_i = sum_j recurrent_ji x_((i + shift_j) mod units)

The state is kept twice in a row (x, x, and sixteen spare words), so that x shifted by any amount is one contiguous
piece and needs neither modulo nor gather. Measured on NARMA10 it predicts as well as a random matrix of the same
fan-in.
"""

from __future__ import annotations

from penstock_kernels.compiled import Float32s, Int64s, compiled
from penstock_kernels.elementary import tanh_lanes
from penstock_kernels.lanes import LANES, load, splat, store
from penstock_kernels.packed import FAN_IN, INPUTS, RESERVOIR_OFFSET, SHIFTS, UNITS, UNITS_PADDED


@compiled
def cyclic_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, design: Float32s) -> None:
    """Advance *state* by one tick, in place, and leave the new x at the start of *design* too.

        x <- x + leak (tanh(b + W_in u + W x) - x)

    The sum of a unit runs in that order: bias, inputs first to last, shifts first to last.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        state: x twice, shape (2 * units + 16,). Overwritten.
        inputs: u, shape (inputs,). Standardised.
        design: shape (at least padded units,). Its first padded units are overwritten.

    Allocates nothing. Source: Jaeger et al., Neural Networks 20 (2007); the cyclic form: Rodan and Tino (2011).
    """
    units = header[UNITS]
    units_padded = header[UNITS_PADDED]
    fan_in = header[FAN_IN]
    input_count = header[INPUTS]
    word = header[RESERVOIR_OFFSET]
    for unit in range(0, units_padded, LANES):
        activation = load(weights, word)
        word += LANES
        for position in range(input_count):
            activation = activation + load(weights, word) * splat(inputs[position])
            word += LANES
        for shift in range(fan_in):
            activation = activation + load(weights, word) * load(state, unit + header[SHIFTS + shift])
            word += LANES
        before = load(state, unit)
        store(design, unit, before + load(weights, word) * (tanh_lanes(activation) - before))
        word += LANES
    for unit in range(units):
        state[unit] = design[unit]
        state[units + unit] = design[unit]
