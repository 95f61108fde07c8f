"""Several states, one tick each, in one call: the weights of 64 units are read once and used for every state.

    for each 64 units:           for each state:      sums of the reservoir
    for each horizon:            for each state:      sums of the readout

Each sum is made as the single step makes it, by the same functions, so a batch has the bits of its steps one by one.
All memory is the caller's; nothing is allocated. Measured with 16 states of 1,024 units on a shared core: cyclic 0.92 us
a state where a single step takes 1.23, sparse 2.0 for 2.2, dense 23 for 37; a batch of one state is slower than a step.
"""

from __future__ import annotations

from penstock_kernels.compiled import Float32s, Int64s, compiled
from penstock_kernels.lanes import LANES
from penstock_kernels.packed import BLOCK, HORIZONS, SECONDS, TIME_BASE, UNITS_PADDED
from penstock_kernels.predictor import row_step
from penstock_kernels.readout import calibrate_step, outputs_lanes, outputs_of_three, outputs_of_two
from penstock_kernels.reservoir import block_step, fading_step, kept_step, lanes_step


@compiled
def advance_batch(
    header: Int64s, weights: Float32s, states: Float32s, places: Int64s, inputs: Float32s, scratch: Float32s
) -> None:
    """Advance several states of one model by one tick each.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        states: shape (any, at least state_words), C order. The rows named are overwritten.
        places: which row of *states* each tick belongs to, each at most once, shape (ticks,).
        inputs: of each tick, from features_step, shape (ticks, at least input_words), C order.
        scratch: shape (ticks, at least scratch_words), C order. Overwritten: the readout's rows, as by advance_step.
    """
    count = len(places)
    flat_states, flat_inputs, rows = states.reshape(-1), inputs.reshape(-1), scratch.reshape(-1)
    state_stride, input_stride, row_stride = states.shape[1], inputs.shape[1], scratch.shape[1]
    whole = header[UNITS_PADDED] // BLOCK * BLOCK
    if header[TIME_BASE] == SECONDS:
        for tick in range(count):
            fading_step(header, weights, flat_inputs, tick * input_stride, rows, tick * row_stride)
    for unit in range(0, whole, BLOCK):
        for tick in range(count):
            state, row = places[tick] * state_stride, tick * row_stride
            block_step(header, weights, unit, flat_states, state, flat_inputs, tick * input_stride, rows, row)
    for unit in range(whole, header[UNITS_PADDED], LANES):
        for tick in range(count):
            state, row = places[tick] * state_stride, tick * row_stride
            lanes_step(header, weights, unit, flat_states, state, flat_inputs, tick * input_stride, rows, row)
    for tick in range(count):
        kept_step(header, flat_states, places[tick] * state_stride, rows, tick * row_stride)
        row_step(header, weights, states[places[tick]], inputs[tick], scratch[tick])


@compiled
def predict_batch(
    header: Int64s,
    weights: Float32s,
    states: Float32s,
    places: Int64s,
    inputs: Float32s,
    scratch: Float32s,
    forecasts: Float32s,
) -> None:
    """Advance several states of one model by one tick each and write their forecasts.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        states: as of advance_batch.
        places: as of advance_batch.
        inputs: as of advance_batch.
        scratch: as of advance_batch.
        forecasts: shape (ticks, HORIZONS_MAX, 4), as of predict_step. Overwritten.
    """
    advance_batch(header, weights, states, places, inputs, scratch)
    rows, row_stride = scratch.reshape(-1), scratch.shape[1]
    horizons = header[HORIZONS]
    if horizons == 3:
        for tick in range(len(places)):
            outputs_of_three(header, weights, rows, tick * row_stride, 0, forecasts[tick])
    else:
        paired = horizons // 2 * 2
        for horizon in range(0, paired, 2):
            for tick in range(len(places)):
                outputs_of_two(header, weights, rows, tick * row_stride, horizon, forecasts[tick])
        if paired < horizons:
            for tick in range(len(places)):
                outputs_lanes(header, weights, rows, tick * row_stride, paired, forecasts[tick])
    for tick in range(len(places)):
        calibrate_step(header, weights, forecasts[tick])
