"""The engine: one compiled loop that owns all reservoir state and never touches the interpreter.

While it sleeps, ``assist`` lets a producer own the states for the few ticks it has just published.

    while not stopped:
        apply commands                     in order, a bounded part per pass
        drain every open source's ring     never more than batch_max ticks between two looks at the rest
        idle, if there was nothing to do

A tick taken from a ring gets exactly one slot of the prediction ring, in order: a prediction, a refusal or the mark of
a rebuild tick. Nothing here allocates, locks or logs; the only system calls are those of waking and sleeping.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1 import histogram
from penstock.v1.records import PROBABILITY_ONE, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_online import predict_online
from penstock_daemon.native import (
    clock_ns,
    compare_and_swap,
    eventfd_signal,
    eventfd_wait,
    fence,
    load_acquire,
    nap_ns,
    store_release,
)
from penstock_kernels import predictor

_compile = njit(nogil=True, cache=True, error_model="numpy")

_bucket_of = _compile(histogram.bucket_of)

_WARMING = int(PredictionFlag.WARMING)
_LATE = int(PredictionFlag.LATE)
_STALE = int(PredictionFlag.STALE)
_RECEIVE, _RING, _FEATURES, _PREDICT = (
    int(Stage.RECEIVE),
    int(Stage.RING),
    int(Stage.FEATURES),
    int(Stage.PREDICT),
)
_HORIZONS = predictor.HORIZONS
_REBUILD_TICKS = predictor.REBUILD_TICKS
_RESET_STATE = int(memory.Command.RESET_STATE)
_OPEN_SOURCE = int(memory.Command.OPEN_SOURCE)
_CLOSE_SOURCE = int(memory.Command.CLOSE_SOURCE)
_HOLD_SOURCE = int(memory.Command.HOLD_SOURCE)
_REBUILD_STATE = int(memory.Command.REBUILD_STATE)
_BIND_MODEL = int(memory.Command.BIND_MODEL)
_SPIN = int(memory.Idle.SPIN)
_BLOCK = int(memory.Idle.BLOCK)
_MONOTONIC = np.int32(1)
_DURATION_MAX = 2**32 - 1
_REBUILD_PART = 64  # Journal ticks replayed per pass, about 0.2 ms: other sources wait no longer.
_OWN_NAP_NS = 1_000
_BLOCK_TIMEOUT_MS = np.int32(200)  # The engine looks at its rings this often even if nobody signals it.


@_compile
def record_duration(m: Any, path: int, bulk: int, stage: int, duration_ns: int) -> None:
    """Count one duration. m: Buffers; each row of the table has one writer."""
    m.histograms[path, bulk, stage, _bucket_of(duration_ns)] += 1
    m.totals[path, bulk, stage, 0] += duration_ns
    m.totals[path, bulk, stage, 1] = max(m.totals[path, bulk, stage, 1], duration_ns)
    if duration_ns < 0:
        m.totals[path, bulk, stage, 2] += 1


@_compile
def _saturated(duration_ns: int) -> int:
    return min(max(duration_ns, 0), _DURATION_MAX)


@_compile
def _features(header: Any, constants: Any, running: Any, tick: Any, inputs: Any) -> int:
    """Feed one tick record to the features; returns their flags. running, inputs: overwritten."""
    return predictor.features_step(
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


@_compile
def _drain(m: Any, source: int) -> int:
    """Predict what waits in a source's ring, at most batch_max ticks. Returns how many."""
    base = source * memory.CURSOR_WORDS
    consumed = m.cursors[base + memory.TICK_CONSUMED]
    waiting = load_acquire(m.cursors, base + memory.TICK_PUBLISHED) - consumed
    if waiting <= 0:
        return 0
    slots = m.tick_slots.shape[1]
    published = m.cursors[base + memory.PREDICTION_PUBLISHED]
    room = slots - (published - load_acquire(m.cursors, base + memory.PREDICTION_CONSUMED))
    count = min(waiting, room, m.settings[memory.BATCH_MAX])
    if count <= 0:
        return 0
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
    taken_ns = clock_ns(_MONOTONIC)
    for offset in range(count):
        slot = (consumed + offset) & (slots - 1)
        place = (published + offset) & (slots - 1)
        tick = m.tick_slots[source, slot]
        answer = m.prediction_slots[source, place]
        answer.sequence = tick.session_sequence
        answer.ts_event = tick.ts_event
        answer.ts_recv = tick.ts_recv
        answer.instrument_id = tick.instrument_id
        answer.model_serial = serial
        answer.clock = tick.clock
        answer.batch = min(count, 65535)
        answer.received_ns = tick.received_ns + unix_offset_ns
        answer.wire_ns = tick.wire_ns
        receive_ns = tick.ringed_ns - tick.received_ns
        ring_ns = taken_ns - tick.ringed_ns
        if tick.refusal != 0:
            answer.flags = memory.ANSWER_REFUSED
            answer.horizons = tick.refusal
            store_release(m.cursors, base + memory.TICK_CONSUMED, consumed + offset + 1)
            store_release(m.cursors, base + memory.PREDICTION_PUBLISHED, published + offset + 1)
            continue
        state = tick.state
        flags = _features(header, model_constants, m.running[state], tick, model_inputs)
        features_done_ns = clock_ns(_MONOTONIC)
        online = m.online_of[state]
        if online != memory.NO_ONLINE:
            predict_online(m, header, model_weights, state, online, tick)
        elif tick.rebuild == 0:
            predictor.predict_step(header, model_weights, m.states[state], model_inputs, m.scratch, m.forecasts)
        else:
            predictor.advance_step(header, model_weights, m.states[state], model_inputs, m.scratch)
        kept = m.seen[state] % m.journal_words.shape[1]
        for word in range(memory.TICK_WORDS):
            m.journal_words[state, kept, word] = m.tick_words[source, slot, word]
        if m.seen[state] < header[_REBUILD_TICKS]:
            flags |= _WARMING
        m.seen[state] += 1
        answer.horizons = header[_HORIZONS]
        for horizon in range(m.forecasts.shape[0]):
            forecast = answer.forecasts[horizon]
            forecast.expected_return = m.forecasts[horizon, 0]
            forecast.deviation = m.forecasts[horizon, 1]
            up = np.int64(m.forecasts[horizon, 2] * PROBABILITY_ONE + 0.5)
            down = np.int64(m.forecasts[horizon, 3] * PROBABILITY_ONE + 0.5)
            forecast.probability_up = up
            forecast.probability_down = min(down, PROBABILITY_ONE - up)  # Rounded up both, they could exceed 1.
        done_ns = clock_ns(_MONOTONIC)
        age_ns = done_ns - tick.received_ns
        if bulk == 0:
            if age_ns > m.settings[memory.BUDGET_NS]:
                flags |= _LATE
                store_release(m.words, memory.LATE, m.words[memory.LATE] + 1)
            if age_ns > m.settings[memory.STALE_NS]:
                flags |= _STALE
                store_release(m.words, memory.STALE, m.words[memory.STALE] + 1)
        if tick.rebuild != 0:
            flags |= memory.ANSWER_REBUILT
        else:
            predicted += 1
            record_duration(m, path, bulk, _RECEIVE, receive_ns)
            record_duration(m, path, bulk, _RING, ring_ns)
            record_duration(m, path, bulk, _FEATURES, features_done_ns - taken_ns)
            record_duration(m, path, bulk, _PREDICT, done_ns - features_done_ns)
        answer.flags = flags
        stages = answer.stage_ns
        stages[0] = _saturated(receive_ns)
        stages[1] = _saturated(ring_ns)
        stages[2] = _saturated(features_done_ns - taken_ns)
        stages[3] = 0
        stages[4] = _saturated(done_ns - features_done_ns)
        stages[5] = 0
        taken_ns = done_ns
        # The tick's slot is free before its answer is seen: who has an answer may send the next tick.
        store_release(m.cursors, base + memory.TICK_CONSUMED, consumed + offset + 1)
        store_release(m.cursors, base + memory.PREDICTION_PUBLISHED, published + offset + 1)
    store_release(m.words, memory.TICKS, m.words[memory.TICKS] + count)
    store_release(m.words, memory.PREDICTIONS, m.words[memory.PREDICTIONS] + predicted)
    return count


@_compile
def _wake_loop(m: Any) -> None:
    """Signal the event loop, if it waits: what was published before is visible to it after."""
    fence()
    if load_acquire(m.words, memory.LOOP_WAITING) != 0:
        store_release(m.words, memory.LOOP_WAITING, 0)
        store_release(m.words, memory.WAKES, m.words[memory.WAKES] + 1)
        eventfd_signal(np.int32(m.settings[memory.LOOP_EVENT]))


@_compile
def _forget(m: Any, state: int) -> None:
    """Make a state cold. Overwrites its rows of m.states and m.running."""
    for index in range(m.states.shape[1]):
        m.states[state, index] = np.float32(0.0)
    for index in range(m.running.shape[1]):
        m.running[state, index] = 0.0


@_compile
def _rebuild_part(m: Any, state: int, model: int) -> bool:
    """Replay the next part of a state's journal through *model*; True once all of it is replayed."""
    header = m.headers[model]
    depth = m.journal.shape[1]
    available = min(m.seen[state], depth, header[_REBUILD_TICKS])
    if m.rebuilt[0] == 0:
        _forget(m, state)
    model_inputs = m.inputs
    last = min(m.rebuilt[0] + _REBUILD_PART, available)
    for index in range(m.rebuilt[0], last):
        tick = m.journal[state, (m.seen[state] - available + index) % depth]
        _features(header, m.constants[model], m.running[state], tick, model_inputs)
        predictor.advance_step(header, m.weights[model], m.states[state], model_inputs, m.scratch)
    if last < available:
        m.rebuilt[0] = last
        return False
    m.rebuilt[0] = 0
    return True


@_compile
def run(m: Any) -> None:
    """Run the engine until ``m.words[STOP]`` is set. m: Buffers."""
    _own(m)
    idle_since_ns = clock_ns(_MONOTONIC)
    while load_acquire(m.words, memory.STOP) == 0:
        started_ns = clock_ns(_MONOTONIC)
        work = 0

        commanded = m.words[memory.CONTROL_CONSUMED]
        if load_acquire(m.words, memory.CONTROL_PUBLISHED) > commanded:
            work += 1
            command = m.control[commanded & (m.control.shape[0] - 1)]
            finished = True
            kind = command[0]
            if kind == _RESET_STATE:
                _forget(m, command[1])
                m.seen[command[1]] = 0
            elif kind == _OPEN_SOURCE:
                m.source_table[command[1], memory.SOURCE_MODEL] = command[2]
                m.source_table[command[1], memory.SOURCE_PATH] = command[3]
                m.source_table[command[1], memory.SOURCE_BULK] = command[4]
                m.source_table[command[1], memory.SOURCE_HELD] = 0
                m.source_table[command[1], memory.SOURCE_OPEN] = 1
            elif kind == _CLOSE_SOURCE:
                m.source_table[command[1], memory.SOURCE_OPEN] = 0
            elif kind == _HOLD_SOURCE:
                m.source_table[command[1], memory.SOURCE_HELD] = 1
            elif kind == _REBUILD_STATE:
                finished = _rebuild_part(m, command[1], command[2])
            elif kind == _BIND_MODEL:
                m.source_table[command[1], memory.SOURCE_MODEL] = command[2]
                m.source_table[command[1], memory.SOURCE_HELD] = 0
            if finished:
                store_release(m.words, memory.CONTROL_CONSUMED, commanded + 1)
                _wake_loop(m)

        for source in range(m.source_table.shape[0]):
            if m.source_table[source, memory.SOURCE_OPEN] == 1 and m.source_table[source, memory.SOURCE_HELD] == 0:
                count = _drain(m, source)
                if count > 0:
                    work += count
                    _wake_loop(m)

        store_release(m.words, memory.PASSES, m.words[memory.PASSES] + 1)
        if work > 0:
            idle_since_ns = clock_ns(_MONOTONIC)
            store_release(m.words, memory.BUSY_NS, m.words[memory.BUSY_NS] + idle_since_ns - started_ns)
            continue
        idle = m.settings[memory.IDLE_KIND]
        if idle == _SPIN or started_ns - idle_since_ns < m.settings[memory.SPIN_NS]:
            continue
        if idle != _BLOCK:
            nap_ns(m.settings[memory.NAP_NS])
            continue
        store_release(m.words, memory.SLEEPS, m.words[memory.SLEEPS] + 1)
        store_release(m.words, memory.OWNER, 0)
        store_release(m.words, memory.SLEEPING, 1)
        fence()
        if not (load_acquire(m.words, memory.CONTROL_PUBLISHED) > m.words[memory.CONTROL_CONSUMED] or has_work(m)):
            eventfd_wait(np.int32(m.settings[memory.ENGINE_EVENT]), _BLOCK_TIMEOUT_MS)
        store_release(m.words, memory.SLEEPING, 0)
        _own(m)
    store_release(m.words, memory.OWNER, 0)


@_compile
def _own(m: Any) -> None:
    """Take the ownership of all states; who has it now gives it back within microseconds."""
    while not compare_and_swap(m.words, memory.OWNER, 0, 1):
        nap_ns(_OWN_NAP_NS)


@_compile
def assist(m: Any, source: int) -> int:
    """Predict what waits in a source's ring in the caller's thread, if the engine sleeps; else see that it is awake.

    Two hand-overs between threads cost tens of microseconds where CPUs are shared, a tick two. So a producer that has
    just published a few ticks to a sleeping engine does the engine's work on them itself: the states have one owner at
    any moment, and nobody ever waits to become it here.

    Returns:
        How many ticks were predicted; 0 leaves them to the engine.
    """
    fence()
    if load_acquire(m.words, memory.SLEEPING) == 0:
        return 0
    count = 0
    if compare_and_swap(m.words, memory.OWNER, 0, 1):
        settled = load_acquire(m.words, memory.CONTROL_PUBLISHED) == load_acquire(m.words, memory.CONTROL_CONSUMED)
        if (
            settled
            and m.source_table[source, memory.SOURCE_OPEN] == 1
            and m.source_table[source, memory.SOURCE_HELD] == 0
        ):
            started_ns = clock_ns(_MONOTONIC)
            count = _drain(m, source)
            store_release(m.words, memory.ASSISTED, m.words[memory.ASSISTED] + count)
            store_release(m.words, memory.BUSY_NS, m.words[memory.BUSY_NS] + clock_ns(_MONOTONIC) - started_ns)
        finished = settled and not has_work(m)
        store_release(m.words, memory.OWNER, 0)
        if finished:
            return count
        fence()
    if load_acquire(m.words, memory.SLEEPING) != 0:
        store_release(m.words, memory.SLEEPING, 0)
        eventfd_signal(np.int32(m.settings[memory.ENGINE_EVENT]))
    return count


@_compile
def has_work(m: Any) -> bool:
    """Return whether any open source has a tick that the engine could take now."""
    for source in range(m.source_table.shape[0]):
        if m.source_table[source, memory.SOURCE_OPEN] == 1 and m.source_table[source, memory.SOURCE_HELD] == 0:
            base = source * memory.CURSOR_WORDS
            waiting = load_acquire(m.cursors, base + memory.TICK_PUBLISHED) - m.cursors[base + memory.TICK_CONSUMED]
            kept = m.cursors[base + memory.PREDICTION_PUBLISHED] - load_acquire(
                m.cursors, base + memory.PREDICTION_CONSUMED
            )
            if waiting > 0 and kept < m.tick_slots.shape[1]:
                return True
    return False
