"""Ticks of one instrument through a model and an online readout, without a daemon.

Tests, the evaluation and the daemon's engine run the same compiled steps, so what a drive gives is what the daemon
gives, to the bit. A drive goes on where the last one stopped when it is given the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels import online_layout as layout
from penstock_kernels.compiled import Float32s, Float64s, Int64s, compiled
from penstock_kernels.drive import Place, Ticks, _buffers, _checked, new_place
from penstock_kernels.model import Model
from penstock_kernels.online import online_adjust, online_observe
from penstock_kernels.online_layout import OnlineSettings
from penstock_kernels.packed import PackedModel, aligned_float32
from penstock_kernels.predictor import advance_step, tick_features
from penstock_kernels.readout import FORECAST_WORDS, calibrate_step, outputs_step


@dataclass(frozen=True, eq=False)
class OnlinePlace:
    """One online readout; every drive overwrites it."""

    words: Int64s  # Shape (words_of,).
    values: Float32s  # Shape (values_of,), 64-byte aligned.

    @property
    def learned(self) -> int:
        """Rows learned so far, of all horizons."""
        return int(self.words[layout.LEARNED])

    @property
    def skipped(self) -> int:
        """Rows that were never learned: they found no room to wait in, or came to no label."""
        return int(self.words[layout.SKIPPED])

    @property
    def pending(self) -> int:
        """Rows that wait for a label, or to be learned."""
        first, last = layout.FIRST_HORIZON, int(self.words[layout.ROWS_OFFSET])
        return int(self.words[first + layout.WAITING : last : layout.HORIZON_WORDS].sum())


def new_online_place(model: Model, settings: OnlineSettings) -> OnlinePlace:
    """Return an online readout that has learned nothing.

    Raises:
        OnlineError: the model and *settings* don't fit.
    """
    horizons = len(model.horizons)
    words = np.zeros(layout.words_of(horizons, settings), dtype=np.int64)
    values = aligned_float32(layout.values_of(len(model.features), horizons, settings))
    layout.lay_out(model, settings, words, values)
    return OnlinePlace(words, values)


def run_online(
    packed: PackedModel, ticks: Ticks, online: OnlinePlace, place: Place | None = None, outputs: Float32s | None = None
) -> Float32s:
    """Return the forecasts of every tick, corrected by what was learned before it.

    Args:
        packed: the model that *online* was made for.
        ticks: of one instrument, in order, shape (ticks,), dtype TICK_DTYPE.
        online: where learning stands. Overwritten.
        place: where to go on. Overwritten. None starts afresh.
        outputs: what the forecasts are made of, shape (ticks, HORIZONS_MAX, 4): return, direction, moved, 0.
            Overwritten. None when not wanted.

    Returns:
        Shape (ticks, HORIZONS_MAX, 4): expected return, deviation, probability up, probability down.
    """
    place = place or new_place(packed)
    inputs, scratch = _buffers(packed)
    shape = (len(ticks), HORIZONS_MAX, FORECAST_WORDS)
    forecasts = np.empty(shape, dtype=np.float32)
    kept = outputs if outputs is not None else np.empty(shape, dtype=np.float32)
    assert kept.shape == shape, "outputs must have a row per tick and horizon"
    _online_loop(
        packed.header,
        packed.weights,
        packed.constants,
        place.running,
        place.state,
        online.words,
        online.values,
        _checked(ticks),
        inputs,
        scratch,
        kept,
        forecasts,
    )
    return forecasts


@compiled
def _online_loop(
    header: Int64s,
    weights: Float32s,
    constants: Float64s,
    running: Float64s,
    state: Float32s,
    words: Int64s,
    values: Float32s,
    ticks: Any,
    inputs: Float32s,
    scratch: Float32s,
    outputs: Float32s,
    forecasts: Float32s,
) -> None:
    for position in range(len(ticks)):
        tick = ticks[position]
        tick_features(header, constants, running, tick, inputs)
        online_observe(words, values, np.int64(tick.ts_recv), tick.bid_px, tick.ask_px)
        advance_step(header, weights, state, inputs, scratch)
        outputs_step(header, weights, scratch, outputs[position])
        online_adjust(words, values, outputs[position], inputs, scratch)
        for horizon in range(HORIZONS_MAX):  # A slice's copy takes seconds to compile.
            for word in range(FORECAST_WORDS):
                forecasts[position, horizon, word] = outputs[position, horizon, word]
        calibrate_step(header, weights, forecasts[position])
