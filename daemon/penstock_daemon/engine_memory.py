"""The memory that the engine thread and the event loop share, and who may write which word of it.

    tick_slots        written by the source, read by the engine     cursors TICK_PUBLISHED, TICK_CONSUMED
    prediction_slots  written by the engine, read by the egress     cursors PREDICTION_PUBLISHED, PREDICTION_CONSUMED
    control           written by the event loop, read by the engine words CONTROL_PUBLISHED, CONTROL_CONSUMED
    states, running, seen, journal, source_table                    the owner alone: who holds the word OWNER
    model slots       written by the event loop while no session and no command names the slot
    online readouts   as the states; by the event loop while their source is closed, or held

Every ring is single-producer single-consumer; a cursor counts records since the source was opened, only grows, and has
one writer and a cache line of its own. The slot of record ``n`` is ``n & (slots - 1)``.

    0 <= consumed <= published <= consumed + slots
    tick ring: published - consumed <= in_flight_max; the prediction ring has the same number of slots, so that the
    engine finds room for every tick it takes, and the last in_flight_max answers can be sent again after a lost
    connection

The owner is the engine thread, except while it sleeps (Idle.BLOCK): then a producer may take the ownership with one
compare-and-swap, predict its own few ticks, and give it back (see ``engine_loop.assist``).

While a source is closed its cursors belong to the event loop, which sets them to 0 before it opens the source again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import histogram
from penstock.v1.records import HORIZONS_MAX, PREDICTION_DTYPE, TICK_BYTES, TICK_DTYPE
from penstock_daemon.arena import CACHE_LINE_BYTES, Arena
from penstock_kernels.features import FEATURES, RUNNING_WORDS
from penstock_kernels.lanes import LANES
from penstock_kernels.model import FAN_IN_MAX, INPUTS_MAX, MEMORY_GAINS_MAX, MEMORY_LAGS_MAX, OUTPUTS_PER_HORIZON
from penstock_kernels.online_layout import OnlineSettings, values_of, words_of
from penstock_kernels.packed import CALIBRATION_WORDS, HEADER_WORDS, padded

WORDS_PER_LINE: Final = CACHE_LINE_BYTES // 8

# --- Words shared one by one, each on a cache line of its own -------------------------------------------------------

STOP: Final = 0 * WORDS_PER_LINE  # Loop: 1 asks the engine to return.
SLEEPING: Final = 1 * WORDS_PER_LINE  # Engine: 1 while it sleeps on its eventfd; who signals it takes it back to 0.
LOOP_WAITING: Final = 2 * WORDS_PER_LINE  # Loop arms it with 1; the engine takes it back to 0 and signals the loop.
CONTROL_PUBLISHED: Final = 3 * WORDS_PER_LINE
CONTROL_CONSUMED: Final = 4 * WORDS_PER_LINE
UNIX_OFFSET_NS: Final = 5 * WORDS_PER_LINE  # Loop: CLOCK_REALTIME minus CLOCK_MONOTONIC.
PASSES: Final = 6 * WORDS_PER_LINE  # Engine: how often it looked; grows while it lives.
BUSY_NS: Final = 7 * WORDS_PER_LINE  # Engine: time in passes that did something.
TICKS: Final = 8 * WORDS_PER_LINE  # Engine: ticks taken from rings, rebuild ticks and refused ones included.
PREDICTIONS: Final = 9 * WORDS_PER_LINE  # Engine: predictions made.
SLEEPS: Final = 10 * WORDS_PER_LINE  # Engine: how often it slept.
WAKES: Final = 11 * WORDS_PER_LINE  # Engine: how often it signalled the loop.
LATE: Final = 12 * WORDS_PER_LINE  # Engine: predictions flagged LATE.
STALE: Final = 13 * WORDS_PER_LINE  # Engine: predictions flagged STALE.
OWNER: Final = 14 * WORDS_PER_LINE  # 1 while somebody has the states: the engine, or a producer that helps it.
ASSISTED: Final = 15 * WORDS_PER_LINE  # Owner: ticks that producers predicted while the engine slept.
SHARED_WORDS: Final = 16 * WORDS_PER_LINE

# --- Cursors of a source --------------------------------------------------------------------------------------------

TICK_PUBLISHED: Final = 0 * WORDS_PER_LINE
TICK_CONSUMED: Final = 1 * WORDS_PER_LINE
PREDICTION_PUBLISHED: Final = 2 * WORDS_PER_LINE
PREDICTION_CONSUMED: Final = 3 * WORDS_PER_LINE
CURSOR_WORDS: Final = 4 * WORDS_PER_LINE

# --- The engine's table of sources ----------------------------------------------------------------------------------

SOURCE_OPEN: Final = 0
SOURCE_MODEL: Final = 1
SOURCE_PATH: Final = 2  # Row of the histograms.
SOURCE_BULK: Final = 3  # 1: as fast as it is taken; no LATE, no STALE, histograms of its own.
SOURCE_HELD: Final = 4  # 1 while its states are rebuilt for another model: its ticks wait.
SOURCE_COLUMNS: Final = 8


class Command(IntEnum):
    """What the event loop asks of the engine, in order; arguments stand in the following columns."""

    RESET_STATE = 1  # state
    OPEN_SOURCE = 2  # source, model slot, path, bulk
    CLOSE_SOURCE = 3  # source
    HOLD_SOURCE = 4  # source
    REBUILD_STATE = 5  # state, model slot: replay its journal through that model, a bounded part per pass
    BIND_MODEL = 6  # source, model slot: go on with it, and end the hold


CONTROL_SLOTS: Final = 1024
CONTROL_COLUMNS: Final = 8

# --- Settings: written before the engine starts, constant after -----------------------------------------------------

BATCH_MAX: Final = 0
IDLE_KIND: Final = 1
SPIN_NS: Final = 2
NAP_NS: Final = 3
ENGINE_EVENT: Final = 4  # Descriptors of the two eventfds.
LOOP_EVENT: Final = 5
BUDGET_NS: Final = 6
STALE_NS: Final = 7
SETTINGS: Final = 8


class Idle(IntEnum):
    """What the engine does when no ring has work."""

    SPIN = 0  # Looks again at once: the core is its own.
    SPIN_THEN_SLEEP = 1  # Looks again for a while, then naps between looks: no producer ever signals it.
    BLOCK = 2  # Sleeps until it is signalled, and lets producers help meanwhile: for shared cores.


# --- The tick slot --------------------------------------------------------------------------------------------------

TICK_SLOT_BYTES: Final = 128
TICK_WORDS: Final = TICK_BYTES // 8

_SLOT_FIELDS: Final = (
    ("session_sequence", "<u8", 80),
    ("received_ns", "<i8", 88),  # Monotonic.
    ("ringed_ns", "<i8", 96),  # Monotonic: when it was published.
    ("wire_ns", "<u8", 104),  # Unix, 0 for none.
    ("state", "<i4", 112),  # Which state it belongs to; meaningless when refused.
    ("refusal", "u1", 116),  # TickError.Reason; 0 for none.
    ("rebuild", "u1", 117),  # 1: update the state, answer by count.
    ("clock", "u1", 118),
)
_TICK_FIELDS: Final = [(name, field[0], field[1]) for name, field in dict(TICK_DTYPE.fields or {}).items()]
TICK_SLOT_DTYPE: Final[np.dtype[np.void]] = np.dtype(
    {
        "names": [name for name, _, _ in (*_TICK_FIELDS, *_SLOT_FIELDS)],
        "formats": [form for _, form, _ in (*_TICK_FIELDS, *_SLOT_FIELDS)],
        "offsets": [offset for _, _, offset in (*_TICK_FIELDS, *_SLOT_FIELDS)],
        "itemsize": TICK_SLOT_BYTES,
    }
)

# Bits of a prediction slot's flags that never leave the daemon: the egress turns them into errors and counts.
ANSWER_REFUSED: Final = 1 << 31  # `horizons` holds the TickError.Reason.
ANSWER_REBUILT: Final = 1 << 30

NO_ONLINE: Final = -1  # In online_of: the state has no online readout.

# --- Histograms -----------------------------------------------------------------------------------------------------

PATH_GRPC: Final = 0
PATH_SHARED_MEMORY: Final = 1
PATH_FEED: Final = 2
PATHS: Final = 3
PACES: Final = 2  # 0 real time, 1 bulk.
STAGES: Final = 8
TOTALS: Final = 3  # Beside each histogram: sum, maximum, how many were negative.


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
        size += self.sources * (CURSOR_WORDS + SOURCE_COLUMNS) * 8
        size += self.states * (self.state_words * 4 + self.running_words * 8 + 3 * 8)
        size += self.online_states * (self.online_words * 8 + self.online_values * 4)
        size += self.states * self.journal_ticks * TICK_SLOT_BYTES
        size += self.model_slots * (self.weight_words * 4 + self.constant_words * 8 + self.header_words * 8)
        size += PATHS * PACES * STAGES * (histogram.BUCKETS + TOTALS) * 8
        size += CONTROL_SLOTS * CONTROL_COLUMNS * 8
        size += 1 << 16  # Shared words, settings, scratch, alignment.
        size += 16 * self.units_max
        size += 4 * self.columns
        return size


class OnlineBuffers(NamedTuple):
    """What online readouts live in."""

    words: NDArray[np.int64]  # (online_states, online_words)
    values: NDArray[np.float32]  # (online_states, online_values)


class Buffers(NamedTuple):
    """The arrays of the tick path, in the form that compiled code takes as one argument."""

    words: NDArray[np.int64]  # (SHARED_WORDS,)
    settings: NDArray[np.int64]  # (SETTINGS,)
    cursors: NDArray[np.int64]  # (sources * CURSOR_WORDS,)
    control: NDArray[np.int64]  # (CONTROL_SLOTS, CONTROL_COLUMNS)
    source_table: NDArray[np.int64]  # (sources, SOURCE_COLUMNS)
    tick_slots: NDArray[Any]  # (sources, slots), TICK_SLOT_DTYPE
    tick_words: NDArray[np.int64]  # The same memory as (sources, slots, words).
    prediction_slots: NDArray[Any]  # (sources, slots), PREDICTION_DTYPE
    states: NDArray[np.float32]  # (states, state_words)
    running: NDArray[np.float64]  # (states, running_words)
    seen: NDArray[np.int64]  # (states,): ticks each state has taken in
    rebuilt: NDArray[np.int64]  # (1,): progress of a rebuild under way
    journal: NDArray[Any]  # (states, journal_ticks), TICK_SLOT_DTYPE, of which the tick alone is kept
    journal_words: NDArray[np.int64]  # The same memory as (states, journal_ticks, words).
    headers: NDArray[np.int64]  # (model_slots, header_words)
    weights: NDArray[np.float32]  # (model_slots, weight_words)
    constants: NDArray[np.float64]  # (model_slots, constant_words)
    serials: NDArray[np.int64]  # (model_slots,): model_serial of the predictions
    inputs: NDArray[np.float32]  # (inputs_max + 1,): features of the tick under way, seconds
    scratch: NDArray[np.float32]  # Work space of the reservoir.
    forecasts: NDArray[np.float32]  # (HORIZONS_MAX, 4): outputs of the tick under way
    online_of: NDArray[np.int64]  # (states,): which online readout each state has; NO_ONLINE for none
    online: OnlineBuffers | None  # None where the daemon allows none: then nothing of them is compiled either.
    histograms: NDArray[np.int64]  # (PATHS, PACES, STAGES, BUCKETS)
    totals: NDArray[np.int64]  # (PATHS, PACES, STAGES, TOTALS)


class AnswerBuffers(NamedTuple):
    """Those of Buffers that the egress needs, by the same names: a call unpacks 7 arrays and not all of them."""

    words: NDArray[np.int64]
    settings: NDArray[np.int64]
    cursors: NDArray[np.int64]
    tick_slots: NDArray[Any]
    prediction_slots: NDArray[Any]
    histograms: NDArray[np.int64]
    totals: NDArray[np.int64]


def allocate(sizes: EngineSizes) -> tuple[Arena, Buffers]:
    """Take every buffer of the tick path from one arena, and seal it."""
    arena = Arena(sizes.arena_bytes)
    take = arena.take
    rings = (sizes.sources, sizes.slots)
    tick_slots = take("tick_slots", rings, TICK_SLOT_DTYPE, holds="ticks, one ring a source")
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
        prediction_slots=take("prediction_slots", rings, PREDICTION_DTYPE, holds="predictions, one ring a source"),
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
        totals=take("totals", (PATHS, PACES, STAGES, TOTALS), np.int64, holds="sum, maximum, negatives"),
    )
    buffers.online_of[:] = NO_ONLINE
    arena.seal()
    return arena, buffers


def _online(take: Callable[..., NDArray[Any]], sizes: EngineSizes) -> OnlineBuffers:
    """Take what online readouts live in."""
    shape = (sizes.online_states, sizes.online_words)
    words = take("online_words", shape, np.int64, holds="pending labels")
    shape = (sizes.online_states, sizes.online_values)
    values = take("online_values", shape, np.float32, holds="what was learned online")
    return OnlineBuffers(words, values)


def cursor(source: int, which: int) -> int:
    """Return the index in ``cursors`` of a source's cursor *which*, such as TICK_PUBLISHED."""
    return source * CURSOR_WORDS + which
