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

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE
from penstock_daemon.arena import CACHE_LINE_BYTES
from penstock_daemon.engine_tap import TapMemory

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
STALE_RUN: Final = 16 * WORDS_PER_LINE  # Owner: STALE predictions of REALTIME sources since the last that was not.
BREAKER_TRIPS: Final = 17 * WORDS_PER_LINE  # Owner: how often STALE_RUN reached the setting BREAKER_RUN.
STALE_LAST_NS: Final = 18 * WORDS_PER_LINE  # Owner: when the last STALE prediction was made, monotonic.
OLD_TICKS: Final = 19 * WORDS_PER_LINE  # Owner: REALTIME ticks that were over the stale bound when they were taken.
SKIPPED: Final = 20 * WORDS_PER_LINE  # Owner: of those, how many only updated a state.
OPEN_SOURCES: Final = 21 * WORDS_PER_LINE  # Engine: how many of open_sources are in use.
SEGMENTS: Final = 22 * WORDS_PER_LINE  # Engine: segments that it serves.
SEGMENTS_BEAT_NS: Final = 23 * WORDS_PER_LINE  # Engine: when it last told them that it lives, monotonic.
BEHIND_VENUE: Final = 24 * WORDS_PER_LINE  # Owner: ticks that their recorder stamped before their venue did.
BEHIND_VENUE_NS: Final = 25 * WORDS_PER_LINE  # Owner: by how much at most.
ANCHOR_NS: Final = 26 * WORDS_PER_LINE  # Owner: CLOCK_MONOTONIC when it last read both clocks …
ANCHOR_CYCLES: Final = 27 * WORDS_PER_LINE  # … and the processor's counter then.
WOKE_NS: Final = 28 * WORDS_PER_LINE  # Engine: when it last woke from a sleep with segments attached, monotonic.
SHARED_WORDS: Final = 29 * WORDS_PER_LINE

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
    ATTACH_SEGMENT = 7  # source, address, slots, bell, instruments, first sequence, answers that it had before
    DETACH_SEGMENT = 8  # source, SegmentEnd


CONTROL_SLOTS: Final = 1024
CONTROL_COLUMNS: Final = 8

# --- Settings: written before the engine starts, constant after -----------------------------------------------------

BATCH_MAX: Final = 0
IDLE_KIND: Final = 1
SPIN_NS: Final = 2
NAP_NS: Final = 3
ENGINE_EVENT: Final = 4  # Descriptors of the two eventfds.
LOOP_EVENT: Final = 5
STALE_NS: Final = 7
CYCLE_FRACTION: Final = 8  # Nanoseconds of a TSC cycle, in 2^-32; 0: durations come from CLOCK_MONOTONIC.
BREAKER_RUN: Final = 9  # STALE predictions in a row that trip the breaker; 0 for never.
OLD_TICK_POLICY: Final = 10  # OldTick.
ENGINE_POLL: Final = 11  # The epoll descriptor that a sleeping engine waits on: its eventfd, and the bells of segments.
SETTINGS: Final = 16


class OldTick(IntEnum):
    """What becomes of a REALTIME tick that is over the stale bound before it is predicted."""

    PREDICT = 0  # Predicted, and flagged.
    UPDATE = 1  # Its state takes it in; the answer is flagged SKIPPED, and its forecasts are 0.


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
    (
        "first_ns",
        "<i8",
        120,
    ),  # The first stamp there is, on the monotonic clock: wire_ns where a feed has one, else received_ns.
)
# The first field has a name of its own: Numba would else take a slot for a tick, with a warning, where a function was
# compiled for ticks before it is for slots; so which one ran would hang on what the process did before.
_TICK_FIELDS: Final = [
    ("record_length" if name == "length" else name, field[0], field[1])
    for name, field in dict(TICK_DTYPE.fields or {}).items()
]
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

# TickError.Reason, in the tick slot and in the answer.
UNKNOWN_INSTRUMENT: Final = 1
TIME_OUT_OF_RANGE: Final = 2

NO_ONLINE: Final = -1  # In online_of: the state has no online readout.

# --- Histograms -----------------------------------------------------------------------------------------------------

PATH_GRPC: Final = 0
PATH_SHARED_MEMORY: Final = 1
PATH_FEED: Final = 2
PATHS: Final = 3
PACES: Final = 2  # 0 real time, 1 bulk.
STAGES: Final = 8
TOTALS: Final = 4  # Beside each histogram: sum, maximum, how many were negative, how many over their bound.
NO_BOUND: Final = 2**62

# Of a path's and stage's last duration over its bound: the sequence of its tick, and how long it was, in nanoseconds.
BREACH_SEQUENCE: Final = 0
BREACH_NS: Final = 1
BREACH_COLUMNS: Final = 2

# Most slots in use at once since the source was opened: of its tick ring, of its prediction ring.
HIGH_WATER_TICKS: Final = 0
HIGH_WATER_PREDICTIONS: Final = 1
HIGH_WATERS: Final = 2

# --- Segments of strategies on this host: the engine's own copy of all that it relies on -----------------------------

SEGMENT_ADDRESS: Final = 0  # Where the daemon has mapped it; 0 for a source without one.
SEGMENT_SLOTS: Final = 1  # Of each of its two rings; a power of two.
SEGMENT_TAKEN: Final = 2  # Ticks taken from it.
SEGMENT_GIVEN: Final = 3  # Answers put into it.
SEGMENT_READ: Final = (
    4  # Of those, how many the strategy is known to have read: less than it says until that is needed.
)
SEGMENT_OWED: Final = 5  # Answers that it is owed beside those to its own ticks: of an earlier attachment.
SEGMENT_FLOOR_NS: Final = (
    6  # When the engine last saw it empty, or held up by its strategy, monotonic: no tick is older.
)
SEGMENT_FAULT: Final = 7  # Not 0: nothing is taken from it or given to it any more; which SegmentEnd.
SEGMENT_BELL: Final = 8  # The daemon's end of its socket, where a waiting client is rung.
SEGMENT_FIRST: Final = 9  # Session sequence of its first tick.
SEGMENT_INSTRUMENTS: Final = 10  # How many of the source's row in segment_ids are in use.
SEGMENT_REPEATED: Final = 11  # Answers, from its first on, that were handed over before: not counted again.
SEGMENT_UNKNOWN: Final = 12  # Ticks refused as UNKNOWN_INSTRUMENT.
SEGMENT_OUT_OF_RANGE: Final = 13  # Ticks refused as TIME_OUT_OF_RANGE.
SEGMENT_FAULT_AT: Final = 14  # Of a fault: the number of the tick, or where the cursor stands in the header.
SEGMENT_FAULT_VALUE: Final = 15  # What was found there: length and rtype of the record, or the cursor.
SEGMENT_COLUMNS: Final = 16


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
    prediction_words: NDArray[np.int64]  # The same memory as (sources, slots, words).
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
    bounds: NDArray[np.int64]  # (PATHS, STAGES): budgets of REALTIME sources, nanoseconds; NO_BOUND for none
    breaches: NDArray[np.int64]  # (PATHS, STAGES, BREACH_COLUMNS)
    high_water: NDArray[np.int64]  # (sources, HIGH_WATERS)
    segments: NDArray[np.int64]  # (sources, SEGMENT_COLUMNS)
    segment_ids: NDArray[np.int64]  # (sources, segment_instruments): instrument_id, ascending
    segment_states: NDArray[np.int64]  # (sources, segment_instruments): the state of each
    open_sources: NDArray[np.int64]  # (sources,): those that are open, in the order of their numbers
    tap: TapMemory  # Where the engine leaves what it takes from segments, for the recorder; a row is a source.


class AnswerBuffers(NamedTuple):
    """Those of Buffers that the egress needs, by the same names: a call unpacks 9 arrays and not all of them."""

    words: NDArray[np.int64]
    settings: NDArray[np.int64]
    cursors: NDArray[np.int64]
    tick_slots: NDArray[Any]
    prediction_slots: NDArray[Any]
    histograms: NDArray[np.int64]
    totals: NDArray[np.int64]
    bounds: NDArray[np.int64]
    breaches: NDArray[np.int64]


def cursor(source: int, which: int) -> int:
    """Return the index in ``cursors`` of a source's cursor *which*, such as TICK_PUBLISHED."""
    return source * CURSOR_WORDS + which
