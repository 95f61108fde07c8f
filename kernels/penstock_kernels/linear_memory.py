"""Linear memory of the inputs, beside the reservoir: averages over several times, and the last few inputs as they were.

    a_g <- a_g + gain_g (u - a_g)        for each gain; what the readout sees is the new a
    lag 1 .. L                           the inputs of one, two ... L ticks ago

It lies in the state behind x and costs O(inputs (gains + lags)) a tick. Zeros are a fresh memory.

    state    a_1 .. a_K, then u of the last tick, of the one before ...       MEMORY_COLUMNS words
"""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, Int64, Int64s, compiled
from penstock_kernels.packed import GAINS_OFFSET, INPUTS, MEMORY_COLUMNS, MEMORY_GAINS, MEMORY_LAGS

_NOTHING: Final = np.float32(1e-30)  # An average below it is 0: no quiet input runs into subnormal numbers.


@compiled
def linear_memory_step(
    header: Int64s, weights: Float32s, state: Float32s, first: Int64, inputs: Float32s, design: Float32s, column: Int64
) -> None:
    """Advance the linear memory by one tick and leave what the readout sees of it in *design*.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        state: its words from *first* on are the memory, MEMORY_COLUMNS of them. Overwritten.
        first: where in *state*.
        inputs: u, shape (at least inputs,).
        design: its words from *column* on are overwritten, MEMORY_COLUMNS of them.
        column: where in *design*.

    Allocates nothing.
    """
    count = header[INPUTS]
    lags = header[MEMORY_LAGS]
    for which in range(header[MEMORY_GAINS]):
        gain = weights[header[GAINS_OFFSET] + which]
        for position in range(count):
            word = which * count + position
            average = state[first + word]
            average = average + gain * (inputs[position] - average)
            if abs(average) < _NOTHING:
                average = np.float32(0.0)
            state[first + word] = average
            design[column + word] = average
    if lags > 0:
        start = header[MEMORY_GAINS] * count
        for word in range(start, header[MEMORY_COLUMNS]):
            design[column + word] = state[first + word]
        for word in range(count, lags * count):
            state[first + start + word] = design[column + start + word - count]
        for position in range(count):
            state[first + start + position] = inputs[position]
