"""The readout: outputs = readout [x, products, m, inputs, 1], then calibrated into forecasts.

Each output is a sum over sixteen lanes: lane l adds the products of columns l, l + 16, l + 32 ... in order, and the
lanes are added by halves at the end (see lanes.py). The order is fixed, so the sum has the same bits everywhere.

    0 <= up, 0 <= down, up + down <= 1      for every forecast, even of outputs that are not finite
"""

from __future__ import annotations

from typing import Final

from penstock_kernels.compiled import Float32s, Int64, Int64s, inlined
from penstock_kernels.elementary import logistic
from penstock_kernels.lanes import LANES, load, splat, total
from penstock_kernels.model import OUTPUTS_PER_HORIZON
from penstock_kernels.packed import (
    ALWAYS_MOVES,
    CALIBRATION_OFFSET,
    CALIBRATION_WORDS,
    COLUMNS_PADDED,
    HORIZONS,
    READOUT_OFFSET,
)

# Columns of forecasts.
EXPECTED_RETURN: Final = 0
DEVIATION: Final = 1
PROBABILITY_UP: Final = 2
PROBABILITY_DOWN: Final = 3
FORECAST_WORDS: Final = 4


@inlined
def readout_step(header: Int64s, weights: Float32s, design: Float32s, forecasts: Float32s) -> None:
    """Write the forecasts of one design row: outputs_step, then calibrate_step.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        design: x, padded with zeros, then products, memory, inputs, 1, padded with zeros, shape (COLUMNS_PADDED,).
        forecasts: shape (any, 4). Overwritten; rows past the model's horizons become 0.

    Allocates nothing.
    """
    outputs_step(header, weights, design, forecasts)
    calibrate_step(header, weights, forecasts)


@inlined
def outputs_step(header: Int64s, weights: Float32s, design: Float32s, outputs: Float32s) -> None:
    """Write the sums of one design row; an online readout corrects them before they are calibrated.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        design: as for readout_step.
        outputs: shape (any, 4). Overwritten, one row per horizon: return, direction, moved, 0.
    """
    horizons = header[HORIZONS]
    if horizons == 3:
        outputs_of_three(header, weights, design, 0, 0, outputs)
    else:
        paired = horizons // 2 * 2
        for horizon in range(0, paired, 2):
            outputs_of_two(header, weights, design, 0, horizon, outputs)
        if paired < horizons:
            outputs_lanes(header, weights, design, 0, paired, outputs)


@inlined
def outputs_lanes(
    header: Int64s, weights: Float32s, designs: Float32s, design: Int64, horizon: Int64, outputs: Float32s
) -> None:
    """Write the three sums of one horizon, of the row at *design*."""
    columns = header[COLUMNS_PADDED]
    word = header[READOUT_OFFSET] + horizon * OUTPUTS_PER_HORIZON * columns
    returns, direction, moved = splat(0.0), splat(0.0), splat(0.0)
    for column in range(0, columns, LANES):
        lanes = load(designs, design + column)
        returns = returns + load(weights, word) * lanes
        direction = direction + load(weights, word + LANES) * lanes
        moved = moved + load(weights, word + 2 * LANES) * lanes
        word += OUTPUTS_PER_HORIZON * LANES
    _write(outputs, horizon, total(returns), total(direction), total(moved))


@inlined
def outputs_of_two(
    header: Int64s, weights: Float32s, designs: Float32s, design: Int64, horizon: Int64, outputs: Float32s
) -> None:
    """Write the sums of *horizon* and the next one: six sums under way at a time hide what an addition takes."""
    columns = header[COLUMNS_PADDED]
    word = header[READOUT_OFFSET] + horizon * OUTPUTS_PER_HORIZON * columns
    other = word + OUTPUTS_PER_HORIZON * columns
    returns, direction, moved = splat(0.0), splat(0.0), splat(0.0)
    other_returns, other_direction, other_moved = splat(0.0), splat(0.0), splat(0.0)
    for column in range(0, columns, LANES):
        lanes = load(designs, design + column)
        returns = returns + load(weights, word) * lanes
        direction = direction + load(weights, word + LANES) * lanes
        moved = moved + load(weights, word + 2 * LANES) * lanes
        other_returns = other_returns + load(weights, other) * lanes
        other_direction = other_direction + load(weights, other + LANES) * lanes
        other_moved = other_moved + load(weights, other + 2 * LANES) * lanes
        word += OUTPUTS_PER_HORIZON * LANES
        other += OUTPUTS_PER_HORIZON * LANES
    _write(outputs, horizon, total(returns), total(direction), total(moved))
    _write(outputs, horizon + 1, total(other_returns), total(other_direction), total(other_moved))


@inlined
def outputs_of_three(
    header: Int64s, weights: Float32s, designs: Float32s, design: Int64, horizon: Int64, outputs: Float32s
) -> None:
    """Write the sums of *horizon* and the next two, as outputs_of_two does of one fewer."""
    columns = header[COLUMNS_PADDED]
    stride = OUTPUTS_PER_HORIZON * columns
    word = header[READOUT_OFFSET] + horizon * stride
    second, third = word + stride, word + 2 * stride
    returns0, direction0, moved0 = splat(0.0), splat(0.0), splat(0.0)
    returns1, direction1, moved1 = splat(0.0), splat(0.0), splat(0.0)
    returns2, direction2, moved2 = splat(0.0), splat(0.0), splat(0.0)
    for column in range(0, columns, LANES):
        lanes = load(designs, design + column)
        returns0 = returns0 + load(weights, word) * lanes
        direction0 = direction0 + load(weights, word + LANES) * lanes
        moved0 = moved0 + load(weights, word + 2 * LANES) * lanes
        returns1 = returns1 + load(weights, second) * lanes
        direction1 = direction1 + load(weights, second + LANES) * lanes
        moved1 = moved1 + load(weights, second + 2 * LANES) * lanes
        returns2 = returns2 + load(weights, third) * lanes
        direction2 = direction2 + load(weights, third + LANES) * lanes
        moved2 = moved2 + load(weights, third + 2 * LANES) * lanes
        word += OUTPUTS_PER_HORIZON * LANES
        second += OUTPUTS_PER_HORIZON * LANES
        third += OUTPUTS_PER_HORIZON * LANES
    _write(outputs, horizon, total(returns0), total(direction0), total(moved0))
    _write(outputs, horizon + 1, total(returns1), total(direction1), total(moved1))
    _write(outputs, horizon + 2, total(returns2), total(direction2), total(moved2))


@inlined
def _write(outputs: Float32s, horizon: Int64, returns: float, direction: float, moved: float) -> None:
    outputs[horizon, 0] = returns
    outputs[horizon, 1] = direction
    outputs[horizon, 2] = moved
    outputs[horizon, 3] = 0.0


@inlined
def calibrate_step(header: Int64s, weights: Float32s, forecasts: Float32s) -> None:
    """Turn outputs into forecasts, in place; model.Calibration has the formula.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        forecasts: shape (any, 4), from outputs_step. Overwritten; rows past the model's horizons become 0.
    """
    calibration = header[CALIBRATION_OFFSET]
    for horizon in range(header[HORIZONS]):
        returns, direction, moved = forecasts[horizon, 0], forecasts[horizon, 1], forecasts[horizon, 2]
        up_share = logistic(weights[calibration + 2] * float(direction) + weights[calibration + 3])
        moved_share = 1.0
        if header[ALWAYS_MOVES + horizon] == 0:
            moved_share = logistic(weights[calibration + 4] * float(moved) + weights[calibration + 5])
        forecasts[horizon, EXPECTED_RETURN] = weights[calibration] * float(returns)
        forecasts[horizon, DEVIATION] = weights[calibration + 1]
        forecasts[horizon, PROBABILITY_UP] = moved_share * up_share
        forecasts[horizon, PROBABILITY_DOWN] = moved_share - moved_share * up_share
        calibration += CALIBRATION_WORDS
    for horizon in range(header[HORIZONS], len(forecasts)):
        for column in range(FORECAST_WORDS):
            forecasts[horizon, column] = 0.0
