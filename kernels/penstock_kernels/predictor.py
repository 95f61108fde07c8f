"""The predictor as the engine sees it: pack a model once, then two calls per tick.

    features_step     tick, running state        -> inputs, flags
    predict_step      inputs, reservoir state    -> forecasts      (advance_step: the same without forecasts)

All memory is the caller's. Zeros are a fresh state, of ``running`` and of ``state`` alike, so zeroing resets both.
Both calls are compiled, hold no lock, allocate nothing, and give the same bits on any machine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock.v1.records import BookFlag, PredictionFlag
from penstock_kernels.compiled import Float32s, Float64s, Int64, Int64s, compiled, inlined
from penstock_kernels.features import ELAPSED_NS, RAW, RUNNING_WORDS, features_advance
from penstock_kernels.lanes import LANES, load, store
from penstock_kernels.linear_memory import linear_memory_step
from penstock_kernels.packed import (
    CLIP,
    CODES,
    COLUMNS_PADDED,
    FAN_IN,
    HEADER_WORDS,
    HORIZONS,
    INPUTS,
    MEANS_OFFSET,
    MEMORY_COLUMNS,
    PRODUCTS,
    REBUILD_TICKS,
    SCALES_OFFSET,
    SECONDS,
    TIME_BASE,
    TOPOLOGY,
    UNITS,
    UNITS_PADDED,
    PackedModel,
    pack,
)
from penstock_kernels.readout import FORECAST_WORDS, readout_step
from penstock_kernels.reservoir import reservoir_step

__all__ = [
    "FAN_IN",
    "FORECAST_WORDS",
    "HEADER_WORDS",
    "HORIZONS",
    "INPUTS",
    "REBUILD_TICKS",
    "TOPOLOGY",
    "UNITS",
    "PackedModel",
    "advance_step",
    "book_flags",
    "features_step",
    "input_words",
    "pack",
    "predict_step",
    "running_words",
    "scratch_words",
    "state_words",
    "tick_features",
]


_S_PER_NS: Final = 1e-9
_MAYBE_BAD_BOOK: Final = int(BookFlag.MAYBE_BAD_BOOK)
_BOOK_UNSOUND: Final = int(PredictionFlag.BOOK_UNSOUND)


def state_words(header: Int64s) -> int:
    """Return the float32 words of one reservoir state: x twice, sixteen spare words, and the linear memory."""
    return 2 * int(header[UNITS]) + LANES + int(header[MEMORY_COLUMNS])


def input_words(header: Int64s) -> int:
    """Return the float32 words of a tick's inputs, one place per engine: the features, and the time since the last."""
    return int(header[INPUTS]) + 1


def running_words(header: Int64s) -> int:  # noqa: ARG001  # Features of later versions may differ by model.
    """Return the float64 words of one instrument's running feature state."""
    return RUNNING_WORDS


def scratch_words(header: Int64s) -> int:
    """Return the float32 words of scratch memory, one per engine: the readout's columns."""
    return int(header[COLUMNS_PADDED])


@compiled
def features_step(
    header: Int64s,
    constants: Float64s,
    running: Float64s,
    ts_recv: Int64,
    ts_event: Int64,  # noqa: ARG001  # Part of a tick; undefined or running backwards in recordings, so unused so far.
    price: Int64,  # noqa: ARG001  # As above: a trade's price is inside the book's.
    size: Int64,
    action: Int64,
    side: Int64,
    bid_px: Int64,
    ask_px: Int64,
    bid_sz: Int64,
    ask_sz: Int64,
    inputs: Float32s,
) -> int:
    """Take one tick into *running* and write the reservoir's inputs: its features of the tick, standardised.

        input_i = clip((feature_i - mean_i) / scale_i)

    Args:
        header: of a PackedModel.
        constants: of a PackedModel.
        running: shape (running_words,), one instrument's. Overwritten.
        ts_recv: Unix time, ns.
        ts_event: Unix time, ns; -1 when undefined.
        price: of the trade, 1e-9; 2^63-1 when undefined, as the book's prices.
        size: of the trade, in the instrument's scale, as the book's sizes.
        action: ASCII, as in a tick record.
        side: ASCII, as in a tick record.
        bid_px: best bid after the event, 1e-9.
        ask_px: best ask after the event, 1e-9.
        bid_sz: size at the best bid.
        ask_sz: size at the best ask.
        inputs: shape (input_words,). Overwritten: standardised and clipped, never NaN; if the model's time base is
            seconds, then the seconds since the last tick, 0 at the first and where the clock stepped back. (Otherwise
            the last word is not touched, and may be missing.)

    Returns:
        Bits of PredictionFlag: BOOK_ONE_SIDED, BOOK_CROSSED, TIME_BACKWARDS.
    """
    flags = features_advance(running, ts_recv, size, action, side, bid_px, ask_px, bid_sz, ask_sz)
    clip = constants[CLIP]
    for position in range(header[INPUTS]):
        value = running[RAW + header[CODES + position]]
        value = (value - constants[header[MEANS_OFFSET] + position]) * constants[header[SCALES_OFFSET] + position]
        inputs[position] = min(max(value, -clip), clip)
    if header[TIME_BASE] == SECONDS:
        inputs[header[INPUTS]] = running[ELAPSED_NS] * _S_PER_NS
    return flags


@inlined
def book_flags(tick: Any) -> int:
    """Return BOOK_UNSOUND for a tick whose source calls its book so, else 0.

    Features are the same either way, so a device's kernels know nothing of it: who reads their answers adds it.
    """
    return _BOOK_UNSOUND if tick.flags & _MAYBE_BAD_BOOK else 0


@compiled
def tick_features(header: Int64s, constants: Float64s, running: Float64s, tick: Any, inputs: Float32s) -> int:
    """Feed one tick to features_step, and return its flags, book_flags included. running, inputs: overwritten.

    Args:
        tick: a record with a tick's fields: of TICK_DTYPE, or of a ring.
        header, constants, running, inputs: as of features_step.
    """
    return book_flags(tick) | features_step(
        header,
        constants,
        running,
        np.int64(tick.ts_recv),
        np.int64(tick.ts_event),
        tick.price,
        np.int64(tick.size),
        np.int64(tick.action),
        np.int64(tick.side),
        tick.bid_px,
        tick.ask_px,
        np.int64(tick.bid_sz),
        np.int64(tick.ask_sz),
        inputs,
    )


@inlined
def advance_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, scratch: Float32s) -> None:
    """Advance one reservoir state by one tick without a forecast: for ticks that only rebuild a state.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        state: shape (state_words,), one instrument's. Overwritten.
        inputs: shape (input_words,), from features_step.
        scratch: shape (scratch_words,). Overwritten: the readout's row, new x padded with 0, its products, then linear
            memory, inputs and 1, padded with 0.
    """
    reservoir_step(header, weights, state, inputs, scratch)
    row_step(header, weights, state, inputs, scratch)


@inlined
def row_step(header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, scratch: Float32s) -> None:
    """Write what follows x in the readout's row, and advance the linear memory; arguments as of advance_step."""
    count = header[INPUTS]
    first = header[UNITS_PADDED]
    products = header[PRODUCTS]
    for unit in range(0, products, LANES):
        store(scratch, first + unit, load(scratch, unit) * load(scratch, unit + products))
    first += products
    if header[MEMORY_COLUMNS] > 0:
        linear_memory_step(header, weights, state, 2 * header[UNITS] + LANES, inputs, scratch, first)
        first += header[MEMORY_COLUMNS]
    for position in range(count):
        scratch[first + position] = inputs[position]
    scratch[first + count] = 1.0
    for position in range(first + count + 1, header[COLUMNS_PADDED]):
        scratch[position] = 0.0


@compiled
def predict_step(
    header: Int64s, weights: Float32s, state: Float32s, inputs: Float32s, scratch: Float32s, forecasts: Float32s
) -> None:
    """Advance one reservoir state by one tick and write its forecasts.

    Args:
        header: of a PackedModel.
        weights: of a PackedModel.
        state: shape (state_words,), one instrument's. Overwritten.
        inputs: shape (input_words,), from features_step.
        scratch: shape (scratch_words,). Overwritten, as by advance_step.
        forecasts: shape (HORIZONS_MAX, 4): expected return, deviation, probability up, probability down.
            Overwritten; rows past the model's horizons become 0.
    """
    advance_step(header, weights, state, inputs, scratch)
    readout_step(header, weights, scratch, forecasts)
