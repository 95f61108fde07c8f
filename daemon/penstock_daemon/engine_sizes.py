"""How much memory the tick path gets, as a sum whose addends say who holds them, and the taking of it.

    arena bytes >= every buffer of engine_memory.Buffers, alignment included       checked by the arena at the start

Everything is taken once, from one arena, which is sealed then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import histogram
from penstock.v1.records import HORIZONS_MAX, PREDICTION_DTYPE
from penstock_daemon.arena import Arena
from penstock_daemon.engine_memory import (
    BREACH_COLUMNS,
    CONTROL_COLUMNS,
    CONTROL_SLOTS,
    CURSOR_WORDS,
    HIGH_WATERS,
    NO_BOUND,
    NO_ONLINE,
    PACES,
    PATHS,
    SEGMENT_COLUMNS,
    SETTINGS,
    SHARED_WORDS,
    SOURCE_COLUMNS,
    STAGES,
    TICK_SLOT_BYTES,
    TICK_SLOT_DTYPE,
    TOTALS,
    Buffers,
    OnlineBuffers,
)
from penstock_daemon.engine_tap import make_tap, tap_bytes
from penstock_kernels.features import FEATURES, RUNNING_WORDS
from penstock_kernels.lanes import LANES
from penstock_kernels.model import FAN_IN_MAX, INPUTS_MAX, MEMORY_GAINS_MAX, MEMORY_LAGS_MAX, OUTPUTS_PER_HORIZON
from penstock_kernels.online_layout import OnlineSettings, values_of, words_of
from penstock_kernels.packed import CALIBRATION_WORDS, HEADER_WORDS, padded
from penstock_kernels.predictor import PackedModel


@dataclass(frozen=True)
class EngineSizes:
    """How much memory the tick path gets; every number comes from the configuration.

    Attributes:
        sources: sessions (and feeds) at once, the warm-up's included.
        slots: of each ring; a power of two.
        states: instruments of all sessions together.
        model_slots: models loaded at once.
        units_max: reservoir units of the largest model.
        fan_in_max, inputs_max: of the largest model.
        dense_units_max: of the largest dense model; 0 for what the others leave room for.
        journal_ticks: past ticks kept for each state.
        online_states: states that may have an online readout, at once.
        online: how those learn.
        segment_instruments: of one session that is attached through shared memory, at most; 0 where none may be.
        tap_ticks: ticks of such sessions that wait for the recorder, at most; a power of two, 0 where none are recorded.
    """

    sources: int
    slots: int
    states: int
    model_slots: int
    units_max: int
    fan_in_max: int = FAN_IN_MAX
    inputs_max: int = INPUTS_MAX
    journal_ticks: int = 1024
    dense_units_max: int = 0  # Of the largest dense model; a smaller one fits wherever its weights do.
    constant_words: int = 2 * INPUTS_MAX + 8  # Float64 words of one model slot: clip and standardisation.
    running_words: int = RUNNING_WORDS  # Float64 words of one instrument's feature state.
    header_words: int = HEADER_WORDS
    online_states: int = 0
    online: OnlineSettings = field(default_factory=OnlineSettings)
    segment_instruments: int = 0
    tap_ticks: int = 0

    def __post_init__(self) -> None:
        """Check what the rings rely on."""
        if self.slots < 2 or self.slots & (self.slots - 1):
            raise ValueError(f"ring slots must be a power of two, at least 2: slots={self.slots}")

    @property
    def state_words(self) -> int:
        """Float32 words of one reservoir state: doubled, so that a cyclic shift is one contiguous read; and memory."""
        return 2 * padded(self.units_max) + LANES + self.memory_words

    @property
    def memory_words(self) -> int:
        """Float32 words of the largest linear memory: averages and past inputs of every feature."""
        return min(self.inputs_max, FEATURES) * (MEMORY_GAINS_MAX + MEMORY_LAGS_MAX)

    @property
    def columns(self) -> int:
        """Columns of the largest readout: x, products, linear memory, inputs and 1."""
        return padded(self.units_max) + padded(self.units_max // 2) + padded(self.memory_words + self.inputs_max + 1)

    @property
    def reservoir_words(self) -> int:
        """Float32 words of one model's reservoir, without its leaks."""
        units, dense = padded(self.units_max), padded(self.dense_units_max)
        words = 0
        words += units * (1 + self.inputs_max)  # Bias, input weights.
        words += max(units * 2 * self.fan_in_max, dense * dense)  # Who is heard, and by what weight; or all of them.
        return words

    @property
    def weight_words(self) -> int:
        """Float32 words of one model slot."""
        words = 0
        words += self.reservoir_words
        words += padded(self.units_max)  # Leaks.
        words += padded(MEMORY_GAINS_MAX)
        words += self.columns * HORIZONS_MAX * OUTPUTS_PER_HORIZON  # Readout.
        words += padded(HORIZONS_MAX * CALIBRATION_WORDS)
        return words

    @property
    def online_words(self) -> int:
        """Int64 words of one online readout; 0 where there are none."""
        return words_of(HORIZONS_MAX, self.online) if self.online_states else 0

    @property
    def online_values(self) -> int:
        """Float32 words of one online readout; 0 where there are none."""
        inputs = min(self.inputs_max, FEATURES)
        return values_of(inputs, HORIZONS_MAX, self.online) if self.online_states else 0

    @property
    def arena_bytes(self) -> int:
        """What all buffers need, alignment included."""
        size = 0
        size += self.sources * self.slots * TICK_SLOT_BYTES  # Ticks on their way in.
        size += self.sources * self.slots * PREDICTION_DTYPE.itemsize  # Predictions on their way out, and kept.
        size += self.sources * (CURSOR_WORDS + SOURCE_COLUMNS + 1) * 8
        size += self.states * (self.state_words * 4 + self.running_words * 8 + 3 * 8)
        size += self.online_states * (self.online_words * 8 + self.online_values * 4)
        size += self.states * self.journal_ticks * TICK_SLOT_BYTES
        size += self.model_slots * (self.weight_words * 4 + self.constant_words * 8 + self.header_words * 8)
        size += PATHS * PACES * STAGES * (histogram.BUCKETS + TOTALS) * 8
        size += PATHS * STAGES * (1 + BREACH_COLUMNS) * 8
        size += self.sources * (SEGMENT_COLUMNS + HIGH_WATERS + 2 * self.segment_instruments) * 8
        size += tap_bytes(self.tap_ticks, self.sources)  # Ticks on their way to the recorder.
        size += CONTROL_SLOTS * CONTROL_COLUMNS * 8
        size += 1 << 16  # Shared words, settings, scratch, alignment.
        size += 16 * self.units_max
        size += 4 * self.columns
        return size


def allocate(sizes: EngineSizes) -> tuple[Arena, Buffers]:
    """Take every buffer of the tick path from one arena, and seal it."""
    arena = Arena(sizes.arena_bytes)
    take = arena.take
    rings = (sizes.sources, sizes.slots)
    tick_slots = take("tick_slots", rings, TICK_SLOT_DTYPE, holds="ticks, one ring a source")
    prediction_slots = take("prediction_slots", rings, PREDICTION_DTYPE, holds="predictions, one ring a source")
    journal = take(
        "journal", (sizes.states, sizes.journal_ticks), TICK_SLOT_DTYPE, holds="the last ticks of each state"
    )
    buffers = Buffers(
        words=take("words", (SHARED_WORDS,), np.int64, holds="words shared one by one"),
        settings=take("settings", (SETTINGS,), np.int64, holds="constants of the engine"),
        cursors=take("cursors", (sizes.sources * CURSOR_WORDS,), np.int64, holds="four cursors a source"),
        control=take("control", (CONTROL_SLOTS, CONTROL_COLUMNS), np.int64, holds="commands to the engine"),
        source_table=take("source_table", (sizes.sources, SOURCE_COLUMNS), np.int64, holds="the engine's sources"),
        tick_slots=tick_slots,
        tick_words=tick_slots.view(np.int64).reshape(*rings, TICK_SLOT_BYTES // 8),
        prediction_slots=prediction_slots,
        prediction_words=prediction_slots.view(np.int64).reshape(*rings, PREDICTION_DTYPE.itemsize // 8),
        states=take("states", (sizes.states, sizes.state_words), np.float32, holds="reservoir states"),
        running=take("running", (sizes.states, sizes.running_words), np.float64, holds="states of the features"),
        seen=take("seen", (sizes.states,), np.int64, holds="ticks each state has taken in"),
        rebuilt=take("rebuilt", (1,), np.int64, holds="progress of a rebuild"),
        journal=journal,
        journal_words=journal.view(np.int64).reshape(sizes.states, sizes.journal_ticks, TICK_SLOT_BYTES // 8),
        headers=take("headers", (sizes.model_slots, sizes.header_words), np.int64, holds="shapes of each model"),
        weights=take("weights", (sizes.model_slots, sizes.weight_words), np.float32, holds="weights of each model"),
        constants=take("constants", (sizes.model_slots, sizes.constant_words), np.float64, holds="its constants"),
        serials=take("serials", (sizes.model_slots,), np.int64, holds="its serial number"),
        inputs=take("inputs", (sizes.inputs_max + 1,), np.float32, holds="features of a tick"),
        scratch=take("scratch", (sizes.columns,), np.float32, holds="work space of the reservoir"),
        forecasts=take("forecasts", (HORIZONS_MAX, 4), np.float32, holds="outputs of a tick"),
        online_of=take("online_of", (sizes.states,), np.int64, holds="which online readout each state has"),
        online=_online(take, sizes) if sizes.online_states else None,
        histograms=take("histograms", (PATHS, PACES, STAGES, histogram.BUCKETS), np.int64, holds="latencies"),
        totals=take(
            "totals", (PATHS, PACES, STAGES, TOTALS), np.int64, holds="sum, maximum, negatives, over the bound"
        ),
        bounds=take("bounds", (PATHS, STAGES), np.int64, holds="budgets"),
        breaches=take("breaches", (PATHS, STAGES, BREACH_COLUMNS), np.int64, holds="the last duration over each"),
        high_water=take("high_water", (sizes.sources, HIGH_WATERS), np.int64, holds="the fullest each ring was"),
        segments=take("segments", (sizes.sources, SEGMENT_COLUMNS), np.int64, holds="segments of strategies here"),
        segment_ids=take(
            "segment_ids", (sizes.sources, sizes.segment_instruments), np.int64, holds="their instruments"
        ),
        segment_states=take("segment_states", (sizes.sources, sizes.segment_instruments), np.int64, holds="and states"),
        open_sources=take("open_sources", (sizes.sources,), np.int64, holds="which sources are open"),
        tap=make_tap(take, sizes.tap_ticks, sizes.sources),
    )
    buffers.online_of[:] = NO_ONLINE
    buffers.bounds[:] = NO_BOUND
    arena.seal()
    return arena, buffers


def _online(take: Callable[..., NDArray[Any]], sizes: EngineSizes) -> OnlineBuffers:
    """Take what online readouts live in."""
    shape = (sizes.online_states, sizes.online_words)
    words = take("online_words", shape, np.int64, holds="pending labels")
    shape = (sizes.online_states, sizes.online_values)
    values = take("online_values", shape, np.float32, holds="what was learned online")
    return OnlineBuffers(words, values)


def write_model(sizes: EngineSizes, buffers: Buffers, slot: int, packed: PackedModel, serial: int) -> None:
    """Write a model into its slot. buffers: its weights, constants, header and serial of *slot* are overwritten.

    Raises:
        ValueError: the model does not fit; the sentence names the configuration key to raise.
    """
    for name, array, room in (
        ("weights", packed.weights, sizes.weight_words),
        ("constants", packed.constants, sizes.constant_words),
        ("header", packed.header, sizes.header_words),
    ):
        if len(array) > room:
            raise ValueError(
                f"model does not fit its slot: {name}={len(array)} words, room for {room}; raise models.units_max"
            )
    buffers.weights[slot, : len(packed.weights)] = packed.weights
    buffers.constants[slot, : len(packed.constants)] = packed.constants
    buffers.headers[slot, : len(packed.header)] = packed.header
    buffers.serials[slot] = serial
