"""The memory of one online readout: integers in one row of words, numbers in one row of values.

Everything that learning needs lies in these two rows, sizes and settings included, so a readout can be moved, saved and
loaded as two arrays. ``lay_out`` writes them; the compiled code of online.py walks them.

    words   = settings and counters, a block per horizon, then per horizon a ring of rows: stamp, mid, tick, end
    values  = regressors, gain and targets of the row under way, then per horizon:
              weights (3 rows), root (a row per regressor), regressors of the pending rows

Regressors z: return, direction and moved of the horizon itself, the standardised inputs, 1, the first units of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, Int64s
from penstock_kernels.lanes import LANES
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Model
from penstock_kernels.online_rls import OnlineError, check_forgetting, rls_reset
from penstock_kernels.packed import padded

UNITS_ONLINE_MAX: Final = 256
PENDING_MAX: Final = 65_536
UPDATES_MAX: Final = 64
TRACE_MAX: Final = 1e6

# Positions in words.
COUNT: Final = 0  # Regressors.
WIDTH: Final = 1  # The same, padded to whole lanes.
UNITS: Final = 2  # Reservoir units among them.
INPUTS: Final = 3
HORIZONS: Final = 4
UPDATES_PER_TICK: Final = 5  # Per horizon.
PENDING: Final = 6  # Rows of a horizon that wait, at most: for their labels, or to be learned.
FORGETTING: Final = 7  # Bits of a float64, as the next one.
TRACE: Final = 8
TICKS: Final = 9  # Observed.
STAMP: Final = 10  # Of the last tick, ns; never decreases.
DOUBLED_MID: Final = 11  # Bid plus ask of the last two-sided book, 1e-9; 0 before the first.
LEARNED: Final = 12  # Rows, of all horizons.
SKIPPED: Final = 13  # Rows that found no room to wait, or came to no label.
ROWS_OFFSET: Final = 14  # Into words: the rings.
VALUES_OFFSET: Final = 15  # Into values: the first horizon.
VALUES_STRIDE: Final = 16  # From horizon to horizon.
FIRST_HORIZON: Final = 24

# Positions in a horizon's block.
KIND: Final = 0
EVENTS: Final = 1
DURATION_NS: Final = 2
SCALE: Final = 3  # Bits of a float64: return_scale of its calibration.
HEAD: Final = 4  # Oldest row that waits.
WAITING: Final = 5  # Rows that wait.
LABELLED: Final = 6  # Of those, the oldest ones: their labels are known.
HORIZON_WORDS: Final = 8

# Positions in a row that waits.
ROW_STAMP: Final = 0
ROW_MID: Final = 1
ROW_TICK: Final = 2
ROW_END: Final = 3  # Doubled mid at the end; 0 for no label. From here on once it is labelled.
ROW_BEFORE: Final = 4  # Doubled mid that the direction is about: before the move, or the row's own.
ROW_SHARERS: Final = 5  # Rows, itself too, that the change of the mid which is its end labelled; 1 where none is.
ROW_WORDS: Final = 6


@dataclass(frozen=True)
class OnlineSettings:
    """How an online readout learns.

    Attributes:
        units: of the reservoir that are regressors, from the first on; 0 for none.
        forgetting: weight of the rows before, per row learned; 1 / (1 - forgetting) rows are its memory.
        trace_max: bound of trace(P); at the start P has it, so the penalty is regressors / trace_max.
        updates_per_tick: most rows learned per tick and horizon.
        pending_max: rows per horizon that wait for a label, or to be learned; one that finds no room is skipped.

    Raises:
        OnlineError: a value is impossible.
    """

    units: int = 0
    forgetting: float = 0.99999
    trace_max: float = 0.1
    updates_per_tick: int = 2
    pending_max: int = 512

    def __post_init__(self) -> None:
        """Check each value by itself."""
        for name, value, low, high in (
            ("units", self.units, 0, UNITS_ONLINE_MAX),
            ("updates_per_tick", self.updates_per_tick, 1, UPDATES_MAX),
            ("pending_max", self.pending_max, 1, PENDING_MAX),
            ("trace_max", self.trace_max, 1e-6, TRACE_MAX),
        ):
            if not low <= value <= high:
                raise OnlineError(f"{name} must be {low} to {high}: {name}={value}; choose another")
        check_forgetting(self.forgetting, OUTPUTS_PER_HORIZON + 2 + self.units)


def regressors(inputs: int, units: int) -> int:
    """Return how many regressors a horizon has."""
    return OUTPUTS_PER_HORIZON + inputs + 1 + units


def words_of(horizons: int, settings: OnlineSettings) -> int:
    """Return the int64 words of one online readout."""
    return FIRST_HORIZON + horizons * (HORIZON_WORDS + settings.pending_max * ROW_WORDS)


def values_of(inputs: int, horizons: int, settings: OnlineSettings) -> int:
    """Return the float32 words of one online readout."""
    count = regressors(inputs, settings.units)
    return _shared(padded(count)) + horizons * _stride(count, settings.pending_max)


def _shared(width: int) -> int:
    return 2 * width + LANES


def _stride(count: int, pending: int) -> int:
    return padded(count) * (OUTPUTS_PER_HORIZON + count + pending)


def lay_out(model: Model, settings: OnlineSettings, words: Int64s, values: Float32s) -> None:
    """Write an online readout that has learned nothing for *model*: it changes no forecast yet.

    Args:
        model: whose outputs it corrects.
        settings: how it learns.
        words: shape (at least words_of,). Overwritten.
        values: shape (at least values_of,). Overwritten.

    Raises:
        OnlineError: forgetting is too fast for the model's regressors, or the model has fewer units than settings.units.
    """
    if settings.units > model.units:
        raise OnlineError(
            f"units must be at most the model's: units={settings.units}, the model has {model.units}; lower it"
        )
    inputs, horizons = len(model.features), len(model.horizons)
    count = regressors(inputs, settings.units)
    check_forgetting(settings.forgetting, count)
    assert len(words) >= words_of(horizons, settings), "words must have room"
    assert len(values) >= values_of(inputs, horizons, settings), "values must have room"
    words[:] = 0
    values[:] = 0.0
    words[COUNT], words[WIDTH] = count, padded(count)
    words[UNITS], words[INPUTS], words[HORIZONS] = settings.units, inputs, horizons
    words[UPDATES_PER_TICK], words[PENDING] = settings.updates_per_tick, settings.pending_max
    words[FORGETTING], words[TRACE] = _bits(settings.forgetting), _bits(settings.trace_max)
    words[ROWS_OFFSET] = FIRST_HORIZON + horizons * HORIZON_WORDS
    words[VALUES_OFFSET], words[VALUES_STRIDE] = _shared(padded(count)), _stride(count, settings.pending_max)
    for index, (horizon, calibration) in enumerate(zip(model.horizons, model.calibration, strict=True)):
        block = FIRST_HORIZON + index * HORIZON_WORDS
        words[block + KIND] = int(horizon.kind)
        words[block + EVENTS] = horizon.events
        words[block + DURATION_NS] = horizon.duration_ns
        words[block + SCALE] = _bits(abs(calibration.return_scale))
        weights, root = learned_parts(words, values, index)
        rls_reset(root, weights, count, float(settings.trace_max))


def learned_parts(words: Int64s, values: Float32s, horizon: int) -> tuple[Float32s, Float32s]:
    """Return what a horizon has learned, as views: weights, shape (3, width), and root, shape (count, width)."""
    count, width = int(words[COUNT]), int(words[WIDTH])
    first = int(words[VALUES_OFFSET] + horizon * words[VALUES_STRIDE])
    middle = first + OUTPUTS_PER_HORIZON * width
    return values[first:middle].reshape(-1, width), values[middle : middle + count * width].reshape(count, width)


def _bits(value: float) -> int:
    """Return the 64 bits of a float64 as an integer, as elementary.from_bits reads them."""
    return int(np.float64(value).view(np.int64))
