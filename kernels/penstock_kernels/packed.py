"""A model as three flat arrays that compiled code can walk: a header of integers, weights, and constants.

The weights lie in the order in which a step reads them, 64 units at a time (the last fewer than 64: sixteen at a time),
so that a step is one walk through memory from the first word to the last:

    weights  =  for each 64 units: bias, input weights, recurrent part               RESERVOIR_OFFSET
                leaks of the units                                               LEAK_OFFSET
                gains of the linear memory, padded                               GAINS_OFFSET
                for each horizon, for each 16 columns: three rows of the readout     READOUT_OFFSET
                for each horizon: CALIBRATION_WORDS numbers                          CALIBRATION_OFFSET
    constants = clip, means of the inputs, 1 / scales of the inputs

The recurrent part is, cyclic, a row of weights for each shift; sparse, for each of a unit's weights a row of whom it
hears (int32 in the same 32 bits) and a row of weights; dense, a row of weights for each unit that is heard.

Units and readout columns (x, then products, memory, inputs and 1) are padded with zeros to whole lanes; a padded unit has leak 0 and stays 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float32s, Float64s, Int64s
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.lanes import LANES
from penstock_kernels.model import (
    FAN_IN_MAX,
    INPUTS_MAX,
    OUTPUTS_PER_HORIZON,
    TIME_BASES,
    TOPOLOGIES,
    HorizonKind,
    Model,
)

# Positions in the header.
UNITS: Final = 0
FAN_IN: Final = 1
INPUTS: Final = 2
HORIZONS: Final = 3
REBUILD_TICKS: Final = 4
TOPOLOGY: Final = 5  # A value of TOPOLOGIES.
UNITS_PADDED: Final = 6
COLUMNS_PADDED: Final = 7  # Of the readout: padded units, products, then memory, inputs and 1, padded.
RESERVOIR_OFFSET: Final = 8  # Into weights, as the next two.
READOUT_OFFSET: Final = 9
CALIBRATION_OFFSET: Final = 10
MEANS_OFFSET: Final = 11  # Into constants, as the next one.
SCALES_OFFSET: Final = 12
MEMORY_GAINS: Final = 13  # How many.
MEMORY_LAGS: Final = 14
TIME_BASE: Final = 15  # A value of TIME_BASES.
ALWAYS_MOVES: Final = 16  # One per horizon: 1 where the mid has moved at its end by definition.
GAINS_OFFSET: Final = 20  # Into weights.
MEMORY_COLUMNS: Final = 21  # Of the readout; float32 words of a state's memory too.
LEAK_OFFSET: Final = 22  # Into weights.
GROUP_WORDS: Final = 23  # Of sixteen units: bias, input weights, recurrent part; of a block four times as many.
PRODUCTS: Final = 24  # Of units, columns of the readout; whole lanes.
SHIFTS: Final = 32  # fan_in of them, if cyclic.
CODES: Final = SHIFTS + FAN_IN_MAX  # Position in FEATURE_NAMES of each input.
HEADER_WORDS: Final = CODES + INPUTS_MAX

SPARSE: Final = TOPOLOGIES["sparse"]  # Values of TOPOLOGY, by name; any other is cyclic.
DENSE: Final = TOPOLOGIES["dense"]
SECONDS: Final = TIME_BASES["seconds"]  # A value of TIME_BASE.

BLOCK: Final = 4 * LANES  # Units whose weights lie together, row by row.
CLIP: Final = 0  # Position in constants.
CALIBRATION_WORDS: Final = 6
_ALIGNMENT_BYTES: Final = 64


@dataclass(frozen=True, eq=False)
class PackedModel:
    """What compiled code needs of a model; none of it is ever written."""

    header: Int64s  # Shape (HEADER_WORDS,).
    weights: Float32s  # Shape (any,), contiguous, 64-byte aligned.
    constants: Float64s  # Shape (any,), contiguous.


class ReservoirPart(Protocol):
    """What a reservoir is made of: that of a Model, or one without readout; shapes as in Model."""

    @property
    def topology(self) -> str: ...  # noqa: D102
    @property
    def recurrent(self) -> Float32s: ...  # noqa: D102
    @property
    def connections(self) -> Int64s: ...  # noqa: D102
    @property
    def input_weights(self) -> Float32s: ...  # noqa: D102
    @property
    def bias(self) -> Float32s: ...  # noqa: D102
    @property
    def leak(self) -> Float32s: ...  # noqa: D102


def pack(model: Model) -> PackedModel:
    """Lay *model* out for the kernels; a model is valid by construction, so this cannot fail."""
    inputs, horizons = len(model.features), len(model.horizons)
    header = np.zeros(HEADER_WORDS, dtype=np.int64)
    describe_reservoir(header, model)
    header[HORIZONS] = horizons
    header[REBUILD_TICKS] = model.rebuild_ticks
    header[PRODUCTS] = model.products
    header[COLUMNS_PADDED] = padded(model.units) + model.products + padded(model.memory_columns + inputs + 1)
    header[MEMORY_GAINS] = len(model.memory_gains)
    header[MEMORY_LAGS] = model.memory_lags
    header[MEMORY_COLUMNS] = model.memory_columns
    header[TIME_BASE] = TIME_BASES[model.time_base]
    header[ALWAYS_MOVES : ALWAYS_MOVES + horizons] = [h.kind == HorizonKind.NEXT_MOVE for h in model.horizons]
    header[CODES : CODES + inputs] = [FEATURE_NAMES.index(name) for name in model.features]

    gains = np.zeros(padded(len(model.memory_gains)), dtype=np.float32)
    gains[: len(model.memory_gains)] = model.memory_gains
    parts = [reservoir_words(model), gains, _readout_words(model), _calibration_words(model)]
    starts = np.cumsum([len(part) for part in parts])
    header[[GAINS_OFFSET, READOUT_OFFSET, CALIBRATION_OFFSET]] = starts[:-1]
    weights = aligned_float32(sum(len(part) for part in parts))
    np.concatenate(parts, out=weights)

    header[MEANS_OFFSET] = 1
    header[SCALES_OFFSET] = 1 + inputs
    constants = np.concatenate([[model.clip], model.feature_mean, 1.0 / model.feature_scale])
    return PackedModel(header, weights, constants)


def describe_reservoir(header: Int64s, part: ReservoirPart) -> None:
    """Write into *header* all that a reservoir's step needs, but the time base; reservoir_words lie at 0."""
    units, fan_in = len(part.bias), len(part.connections)
    inputs = len(part.input_weights)
    rows = 1 + inputs + {"cyclic": fan_in, "sparse": 2 * fan_in, "dense": units}[part.topology]
    header[TOPOLOGY] = TOPOLOGIES[part.topology]
    header[UNITS] = units
    header[UNITS_PADDED] = padded(units)
    header[FAN_IN] = units if part.topology == "dense" else fan_in
    header[INPUTS] = inputs
    header[RESERVOIR_OFFSET] = 0
    header[GROUP_WORDS] = rows * LANES
    header[LEAK_OFFSET] = rows * padded(units)
    if part.topology == "cyclic":
        header[SHIFTS : SHIFTS + fan_in] = part.connections


def reservoir_words(part: ReservoirPart) -> Float32s:
    """Return the words from RESERVOIR_OFFSET to the last leak, shape (padded units * rows,)."""
    rows = np.concatenate([part.bias[None], part.input_weights, _recurrent_rows(part), part.leak[None]])
    units = len(part.bias)
    lanes = np.zeros((len(rows), padded(units)), dtype=np.float32)
    lanes[:, :units] = rows
    whole = padded(units) // BLOCK * BLOCK
    return np.concatenate([_by_lanes(lanes[:-1, :whole], BLOCK), _by_lanes(lanes[:-1, whole:]), lanes[-1]])


def _recurrent_rows(part: ReservoirPart) -> Float32s:
    """Return the rows of the recurrent part, shape (rows, units)."""
    if part.topology == "dense":
        return part.recurrent.T
    if part.topology == "sparse":
        heard = part.connections.astype(np.int32).view(np.float32)
        return np.stack([heard, part.recurrent], axis=1).reshape(-1, len(part.bias))
    return part.recurrent


def _readout_words(model: Model) -> Float32s:
    units, units_padded = model.units, padded(model.units)
    rest = model.readout.shape[1] - units  # Products are whole lanes, so that what follows them needs no padding.
    rows = np.zeros((len(model.readout), units_padded + padded(rest)), dtype=np.float32)
    rows[:, :units] = model.readout[:, :units]
    rows[:, units_padded : units_padded + rest] = model.readout[:, units:]
    return np.concatenate(
        [_by_lanes(rows[first : first + OUTPUTS_PER_HORIZON]) for first in range(0, len(rows), OUTPUTS_PER_HORIZON)]
    )


def _calibration_words(model: Model) -> Float32s:
    rows = [
        (c.return_scale, c.deviation, c.direction_slope, c.direction_offset, c.moved_slope, c.moved_offset)
        for c in model.calibration
    ]
    return np.array(rows, dtype=np.float32).reshape(-1)


def _by_lanes(rows: NDArray[np.float32], together: int = LANES) -> Float32s:
    """Reorder *rows*, shape (rows, columns), so that so many columns of every row lie together."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1, together).swapaxes(0, 1)).reshape(-1)


def padded(count: int) -> int:
    """Return *count* rounded up to whole lanes."""
    return -(-count // LANES) * LANES


def aligned_float32(words: int) -> Float32s:
    """Return zeros, shape (words,), that start at a multiple of 64 bytes."""
    spare = _ALIGNMENT_BYTES // 4
    block = np.zeros(words + spare, dtype=np.float32)
    first = -(block.ctypes.data // 4) % spare
    return block[first : first + words]
