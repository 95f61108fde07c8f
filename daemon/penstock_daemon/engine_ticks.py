"""What the engine does with the ticks of one source: predict them on the CPU, and write their answers in order.

    for each tick:  features -> reservoir -> readout -> answer      and the tick's slot is free before its answer is seen

A tick taken from a ring gets exactly one slot of the prediction ring, in order: a prediction, a refusal or the mark of
a rebuild tick. The parts that say how an answer is written are the same for a device's results (``device/``).
Nothing here allocates, locks or logs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1.records import PROBABILITY_ONE, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_online import predict_online
from penstock_daemon.engine_stages import (
    age_flags,
    count_behind,
    count_old,
    is_behind,
    is_old,
    measured,
    read_clock,
    record_duration,
    skips_old,
    start_clock,
    write_stages,
)
from penstock_daemon.native import load_acquire, store_release
from penstock_kernels import predictor

# Without counting references to the arrays of *m*, which its callers hold: that took 400 ns a call. What it calls must do
# without views that are counted too, an assigned slice for one; an engine with online readouts would not compile else.
_uncounted = njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
# Becomes part of its callers, as penstock_kernels.compiled.inlined, and has no way in from Python, which would have to be
# compiled too. Counting references to every array of *m* in each of these made a tick of 500 ns one of 720.
_inline = njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    forceinline=True,
    _nrt=False,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)

_WARMING = int(PredictionFlag.WARMING)
_SKIPPED = int(PredictionFlag.SKIPPED)
_RECEIVE, _RING, _FEATURES, _PREDICT = (
    int(Stage.RECEIVE),
    int(Stage.RING),
    int(Stage.FEATURES),
    int(Stage.PREDICT),
)
_HORIZONS = predictor.HORIZONS
_REBUILD_TICKS = predictor.REBUILD_TICKS


# --- How an answer is written, whoever made it ------------------------------------------------------------------------


@_inline
def describe(answer: Any, tick: Any, serial: Any, batch: int, unix_offset_ns: int) -> None:
    """Write what an answer says of its tick, which is known before it is predicted. answer: overwritten."""
    answer.sequence = tick.session_sequence
    answer.ts_event = tick.ts_event
    answer.ts_recv = tick.ts_recv
    answer.instrument_id = tick.instrument_id
    answer.model_serial = serial
    answer.clock = tick.clock
    answer.batch = min(batch, 65535)
    answer.received_ns = tick.received_ns + unix_offset_ns
    answer.wire_ns = tick.wire_ns


@_inline
def write_forecasts(answer: Any, forecasts: Any) -> None:
    """Write forecasts into an answer. forecasts: (HORIZONS_MAX, 4), of predict_step."""
    for horizon in range(forecasts.shape[0]):
        forecast = answer.forecasts[horizon]
        forecast.expected_return = forecasts[horizon, 0]
        forecast.deviation = forecasts[horizon, 1]
        up = np.int64(forecasts[horizon, 2] * PROBABILITY_ONE + 0.5)
        down = np.int64(forecasts[horizon, 3] * PROBABILITY_ONE + 0.5)
        forecast.probability_up = up
        forecast.probability_down = min(down, PROBABILITY_ONE - up)  # Rounded up both, they could exceed 1.


@_inline
def leave_out_forecasts(answer: Any) -> None:
    """Write zeros for forecasts into an answer whose tick only updated its state."""
    for horizon in range(answer.forecasts.shape[0]):
        forecast = answer.forecasts[horizon]
        forecast.expected_return = np.float32(0.0)
        forecast.deviation = np.float32(0.0)
        forecast.probability_up = 0
        forecast.probability_down = 0


@_inline
def take_in(m: Any, header: Any, source: int, slot: int, state: int) -> int:
    """Put a tick that a state has taken in into its journal, and count it. Returns WARMING or 0."""
    seen = m.seen[state]
    kept = seen % m.journal_words.shape[1]
    for word in range(memory.TICK_WORDS):
        m.journal_words[state, kept, word] = m.tick_words[source, slot, word]
    m.seen[state] = seen + 1
    tick = m.tick_slots[source, slot]
    if measured(m) and is_behind(tick):
        count_behind(m, tick)
    return _WARMING if seen < header[_REBUILD_TICKS] else 0


@_inline
def refuse(answer: Any, tick: Any) -> None:
    """Write the answer to a tick that was marked as refused. answer: overwritten."""
    answer.flags = memory.ANSWER_REFUSED
    answer.horizons = tick.refusal


@_inline
def hand_over(m: Any, base: int, consumed: int, published: int) -> None:
    """Move a source's cursors; a tick's slot is free before its answer is seen: who has an answer may send the next."""
    store_release(m.cursors, base + memory.TICK_CONSUMED, consumed)
    store_release(m.cursors, base + memory.PREDICTION_PUBLISHED, published)


@_inline
def takeable(m: Any, source: int, limit: int) -> int:
    """Return how many ticks of a source can be taken now: they wait, and their answers find room.

    Args:
        m: Buffers; the source's row of high_water is overwritten: the fullest that its rings were at such a look, the
            answers that the ticks to be taken will get included.
        source: whose ring.
        limit: at most so many.
    """
    base = source * memory.CURSOR_WORDS
    waiting = load_acquire(m.cursors, base + memory.TICK_PUBLISHED) - m.cursors[base + memory.TICK_CONSUMED]
    if waiting <= 0:
        return 0
    published = m.cursors[base + memory.PREDICTION_PUBLISHED]
    kept = published - load_acquire(m.cursors, base + memory.PREDICTION_CONSUMED)
    count = min(waiting, m.tick_slots.shape[1] - kept, limit)
    if measured(m):
        highest = m.high_water[source]
        highest[memory.HIGH_WATER_TICKS] = max(highest[memory.HIGH_WATER_TICKS], waiting)
        highest[memory.HIGH_WATER_PREDICTIONS] = max(highest[memory.HIGH_WATER_PREDICTIONS], kept + count)
    return count


# --- The CPU's ticks --------------------------------------------------------------------------------------------------


@_uncounted
def drain(m: Any, source: int, limit: int, marks: int) -> int:
    """Predict what waits in a source's ring, at most *limit* ticks. Returns how many.

    Args:
        m: Buffers.
        source: whose ring.
        limit: of this pass.
        marks: flags that every prediction gets beside its own.
    """
    count = takeable(m, source, limit)
    if count <= 0:
        return 0
    base = source * memory.CURSOR_WORDS
    consumed = m.cursors[base + memory.TICK_CONSUMED]
    published = m.cursors[base + memory.PREDICTION_PUBLISHED]
    slots = m.tick_slots.shape[1]
    model = m.source_table[source, memory.SOURCE_MODEL]
    path = m.source_table[source, memory.SOURCE_PATH]
    bulk = m.source_table[source, memory.SOURCE_BULK]
    serial = np.uint32(m.serials[model])
    header = m.headers[model]
    model_weights = m.weights[model]
    model_constants = m.constants[model]
    model_inputs = m.inputs
    unix_offset_ns = load_acquire(m.words, memory.UNIX_OFFSET_NS)
    predicted = 0
    clock = start_clock(m)
    taken_ns = clock[1]
    for offset in range(count):
        slot = (consumed + offset) & (slots - 1)
        tick = m.tick_slots[source, slot]
        answer = m.prediction_slots[source, (published + offset) & (slots - 1)]
        describe(answer, tick, serial, count, unix_offset_ns)
        if tick.refusal != 0:
            refuse(answer, tick)
            hand_over(m, base, consumed + offset + 1, published + offset + 1)
            continue
        receive_ns = tick.ringed_ns - tick.first_ns
        ring_ns = taken_ns - tick.ringed_ns
        state = tick.state
        rebuild = tick.rebuild != 0
        advance = rebuild
        if is_old(m, bulk, tick, taken_ns):
            count_old(m)
            advance = skips_old(m)
        flags = marks | predictor.tick_features(header, model_constants, m.running[state], tick, model_inputs)
        features_done_ns = read_clock(m, clock)
        online = m.online_of[state]
        if online != memory.NO_ONLINE:
            predict_online(m, header, model_weights, state, online, tick, advance)
        elif advance:
            predictor.advance_step(header, model_weights, m.states[state], model_inputs, m.scratch)
        else:
            predictor.predict_step(header, model_weights, m.states[state], model_inputs, m.scratch, m.forecasts)
        flags |= take_in(m, header, source, slot, state)
        answer.horizons = header[_HORIZONS]
        if advance:
            leave_out_forecasts(answer)
        else:
            write_forecasts(answer, m.forecasts)
            predicted += 1
        done_ns = read_clock(m, clock)
        if rebuild:
            flags |= memory.ANSWER_REBUILT
        elif advance:
            flags |= _SKIPPED
        if measured(m) and not rebuild:
            sequence = np.int64(tick.session_sequence)
            flags |= age_flags(m, path, bulk, done_ns - tick.first_ns, done_ns)
            record_duration(m, path, bulk, _RECEIVE, sequence, receive_ns)
            record_duration(m, path, bulk, _RING, sequence, ring_ns)
            record_duration(m, path, bulk, _FEATURES, sequence, features_done_ns - taken_ns)
            record_duration(m, path, bulk, _PREDICT, sequence, done_ns - features_done_ns)
        answer.flags = flags
        if measured(m):
            write_stages(answer, receive_ns, ring_ns, features_done_ns - taken_ns, 0, done_ns - features_done_ns, 0)
        taken_ns = done_ns
        hand_over(m, base, consumed + offset + 1, published + offset + 1)
    count_ticks(m, count, predicted)
    return count


@_inline
def count_ticks(m: Any, ticks: int, predicted: int) -> None:
    """Count ticks taken from rings, and how many of them were predicted."""
    store_release(m.words, memory.TICKS, m.words[memory.TICKS] + ticks)
    store_release(m.words, memory.PREDICTIONS, m.words[memory.PREDICTIONS] + predicted)
