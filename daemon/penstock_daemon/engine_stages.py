"""What is measured of a tick: the durations of its stages against their bounds, and the age that makes LATE and STALE.

    a duration    one bucket of a histogram, one sum, one maximum; over its bound: one count, and whose it was
    a clock       one reading of CLOCK_MONOTONIC per tenth of a millisecond, cycles of the processor from there on
    an age        from the first stamp there is; over the bound of TOTAL: LATE; over the stale bound: STALE
    the breaker   a run of STALE predictions, which the next one in time ends

A bound is passed at the bound itself and broken one nanosecond later, counted apart from the histogram, whose buckets
are wider than that. Bounds are those of REALTIME sources. Each row of the tables and each word has one writer. What the
CPU's ticks and a device's share of this is here; nothing allocates, locks or logs.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from penstock.v1 import histogram
from penstock.v1.records import UNDEFINED_TIME, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.native import clock_ns, cycles, load_acquire, scaled_cycles, store_release

# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
# As in engine_ticks: becomes part of its callers.
_inline = njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    forceinline=True,
    _nrt=False,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)

SUM: Final = 0
MAXIMUM: Final = 1
NEGATIVE: Final = 2
EXCEEDED: Final = 3

_MONOTONIC = np.int32(1)
_BELIEVED_NS = 1_000_000_000
_FRESH_CYCLES = 1 << 18  # A tenth of a millisecond: rates that differ by 500 ppm are 50 ns apart by then …
_FRESH_NS = 100_000  # … also where the counter is slow, as on some of Arm.
_NARROW_CYCLES = 1 << 12  # A microsecond or two: whoever was interrupted between two readings takes them again.
_NARROW_NS = 2_000
_LOOKS = 3
_LINEAR = histogram.LINEAR_BUCKETS
_STEPS_NS = np.array([10**decade for decade in range(1, histogram.DECADES + 1)])
_EDGES_NS = tuple(int(step_ns) * _LINEAR for step_ns in _STEPS_NS)  # Where each decade ends.
_PER_STEP = np.append(1.0 / _STEPS_NS, 0.0)
_FIRSTS = np.append(
    histogram.BUCKETS_PER_DECADE * np.arange(1.0, histogram.DECADES + 1), float(histogram.OVERFLOW_BUCKET)
)
_LATE = int(PredictionFlag.LATE)
_STALE = int(PredictionFlag.STALE)
_RECEIVE, _EGRESS, _TOTAL = int(Stage.RECEIVE), int(Stage.EGRESS), int(Stage.TOTAL)
_UPDATE = int(memory.OldTick.UPDATE)
_DURATION_MAX = 2**32 - 1
_UNDEFINED_TIME = np.uint64(UNDEFINED_TIME)
_INT64_MAX = np.uint64(2**63 - 1)


# --- Whether, and by what clock ----------------------------------------------------------------------------------------


@intrinsic
def measured(_typing: Any, m: Any) -> Any:
    """Return whether anything is measured, as the type of the buffers says: what is not is not compiled either.

    A daemon's buffers always are; those of a benchmark that asks what measuring costs may be of a class whose MEASURED
    is False.
    """
    answer = bool(getattr(m.instance_class, "MEASURED", True))

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(answer))

    return types.boolean(m), generate


@_inline
def start_clock(m: Any) -> tuple[int, int, int]:
    """Return a clock for one drain: what a cycle lasts, and where both clocks stood.

        fraction      2^-32 ns of a cycle; 0 for CLOCK_MONOTONIC
        anchor_ns     CLOCK_MONOTONIC now, nanoseconds
        anchor        the counter of cycles now

    The counter costs less than half of what a clock costs, and drifts; so it is read from an anchor that is no older than
    a tenth of a millisecond, and ours alone. m: Buffers; the two words of the anchor are overwritten.
    """
    if not measured(m):
        return 0, 0, 0
    fraction = load_acquire(m.settings, memory.CYCLE_FRACTION)
    if fraction == 0:
        return 0, clock_ns(_MONOTONIC), 0
    now = cycles()
    since = now - m.words[memory.ANCHOR_CYCLES]
    since_ns = scaled_cycles(since, fraction)
    if 0 <= since < _FRESH_CYCLES and since_ns < _FRESH_NS:
        return fraction, m.words[memory.ANCHOR_NS] + since_ns, now
    return _take_anchor(m, fraction)


@_part
def _take_anchor(m: Any, fraction: int) -> tuple[int, int, int]:
    """Read both clocks at once and keep them; a clock that does without cycles where something always comes between."""
    for _ in range(_LOOKS):
        before = cycles()
        anchor_ns = clock_ns(_MONOTONIC)
        after = cycles()
        if 0 <= after - before < _NARROW_CYCLES and scaled_cycles(after - before, fraction) < _NARROW_NS:
            m.words[memory.ANCHOR_NS] = anchor_ns
            m.words[memory.ANCHOR_CYCLES] = after
            return fraction, anchor_ns, after
    return 0, clock_ns(_MONOTONIC), 0


@_inline
def read_clock(m: Any, clock: tuple[int, int, int]) -> int:
    """Return the monotonic time by a clock of start_clock, nanoseconds; 0 where nothing is measured.

    A counter that went back, or more than a second on, is not believed.
    """
    if not measured(m):
        return 0
    fraction, anchor_ns, anchor = clock
    if fraction != 0:
        elapsed_ns = scaled_cycles(cycles() - anchor, fraction)
        if 0 <= elapsed_ns < _BELIEVED_NS:
            return anchor_ns + elapsed_ns
    return clock_ns(_MONOTONIC)


# --- Durations --------------------------------------------------------------------------------------------------------


@_inline
def bucket_of(duration_ns: int) -> int:
    """Return what penstock.v1.histogram.bucket_of returns, without a branch on the decade.

    bucket = floor((duration + 1/2) / step) + first        the half keeps every edge on its side, rounded or not
    """
    if duration_ns < _LINEAR:
        return max(duration_ns, 0)
    decade = np.int64(0)
    for edge_ns in _EDGES_NS:
        decade += np.int64(duration_ns >= edge_ns)
    return int((duration_ns + 0.5) * _PER_STEP[decade] + _FIRSTS[decade])


@_inline
def record_duration(m: Any, path: int, bulk: int, stage: int, sequence: int, duration_ns: int) -> None:
    """Count one duration.

    Args:
        m: Buffers or AnswerBuffers; the row of histograms and totals is overwritten, and the row of breaches if the
            duration is over the bound of a REALTIME source.
        path, bulk, stage: which row.
        sequence: of the tick in its session.
        duration_ns: of the stage; a negative one is counted as such too.
    """
    m.histograms[path, bulk, stage, bucket_of(duration_ns)] += 1
    totals = m.totals[path, bulk, stage]
    totals[SUM] += duration_ns
    if duration_ns > totals[MAXIMUM]:  # noqa: PLR1730  # max() would store each time.
        totals[MAXIMUM] = duration_ns
    if duration_ns < 0:
        totals[NEGATIVE] += 1
    if bulk == 0 and duration_ns > m.bounds[path, stage]:
        totals[EXCEEDED] += 1
        m.breaches[path, stage, memory.BREACH_SEQUENCE] = sequence
        m.breaches[path, stage, memory.BREACH_NS] = duration_ns


@_inline
def record_handed_over(m: Any, path: int, bulk: int, answer: Any, tick: Any, now_ns: int) -> None:
    """Count the stages EGRESS and TOTAL of an answer that is handed over now.

    Args:
        m: Buffers or AnswerBuffers; the two rows are overwritten.
        path, bulk: which rows.
        answer: a prediction record; what its stages after RECEIVE leave of the time since its tick was ringed is EGRESS.
            RECEIVE is not taken from it: of a first stamp of the future, or hours old, the record holds the nearest that
            it can.
        tick: its tick slot, which is not used again before the answer is gone.
        now_ns: monotonic.
    """
    egress_ns = now_ns - tick.ringed_ns
    for stage in range(_RECEIVE + 1, answer.stage_ns.shape[0]):
        egress_ns -= np.int64(answer.stage_ns[stage])
    sequence = np.int64(answer.sequence)
    record_duration(m, path, bulk, _EGRESS, sequence, egress_ns)
    record_duration(m, path, bulk, _TOTAL, sequence, now_ns - tick.first_ns)


@_inline
def saturated(duration_ns: int) -> int:
    """Return a duration as a record holds it."""
    return min(max(duration_ns, 0), _DURATION_MAX)


@_inline
def write_stages(
    answer: Any, receive_ns: int, ring_ns: int, features_ns: int, upload_ns: int, predict_ns: int, download_ns: int
) -> None:
    """Write the durations of the stages into an answer, in the order of Stage."""
    stages = answer.stage_ns
    stages[0] = saturated(receive_ns)
    stages[1] = saturated(ring_ns)
    stages[2] = saturated(features_ns)
    stages[3] = saturated(upload_ns)
    stages[4] = saturated(predict_ns)
    stages[5] = saturated(download_ns)


# --- Age --------------------------------------------------------------------------------------------------------------


@_inline
def age_flags(m: Any, path: int, bulk: int, age_ns: int, now_ns: int) -> int:
    """Return LATE and STALE as a prediction's age makes them, count them, and count the run that trips the breaker.

    Args:
        m: Buffers; the words of LATE, STALE and the breaker are overwritten; the loop is woken when the breaker trips.
        path, bulk: of the source; one in bulk is never late.
        age_ns: from the tick's first stamp.
        now_ns: monotonic.
    """
    flags = 0
    if bulk == 0:
        if age_ns > m.bounds[path, _TOTAL]:
            flags |= _LATE
            store_release(m.words, memory.LATE, m.words[memory.LATE] + 1)
        if age_ns > m.settings[memory.STALE_NS]:
            flags |= _STALE
            store_release(m.words, memory.STALE, m.words[memory.STALE] + 1)
            # A tick that waited in a segment while the engine slept may be one that its strategy rang no bell for.
            if path != memory.PATH_SHARED_MEMORY or now_ns - m.words[memory.WOKE_NS] > m.settings[memory.STALE_NS]:
                _count_stale(m, now_ns)
        elif m.words[memory.STALE_RUN] != 0:
            store_release(m.words, memory.STALE_RUN, 0)
    return flags


@_part
def _count_stale(m: Any, now_ns: int) -> None:
    """Count a STALE prediction for the breaker; a run of BREAKER_RUN trips it once, and another run must begin."""
    store_release(m.words, memory.STALE_LAST_NS, now_ns)
    run = m.words[memory.STALE_RUN] + 1
    if run == m.settings[memory.BREAKER_RUN]:
        store_release(m.words, memory.STALE_RUN, 0)
        store_release(m.words, memory.BREAKER_TRIPS, m.words[memory.BREAKER_TRIPS] + 1)
        wake_loop(m)
        return
    store_release(m.words, memory.STALE_RUN, run)


@_inline
def is_old(m: Any, bulk: int, tick: Any, taken_ns: int) -> bool:
    """Return whether a REALTIME tick to predict was over the stale bound already when it was taken from its ring."""
    return bulk == 0 and tick.rebuild == 0 and taken_ns - tick.first_ns > m.settings[memory.STALE_NS]


@_inline
def skips_old(m: Any) -> bool:
    """Return whether old ticks only update their states."""
    return m.settings[memory.OLD_TICK_POLICY] == _UPDATE


@_inline
def is_behind(tick: Any) -> bool:
    """Return whether a tick's recorder stamped it before its venue did, ts_recv < ts_event: their clocks disagree."""
    return tick.ts_recv < tick.ts_event and tick.ts_event != _UNDEFINED_TIME and tick.rebuild == 0


@_part
def count_behind(m: Any, tick: Any) -> None:
    """Count a tick that is_behind, which is no fault of it. m: Buffers; two words are overwritten."""
    behind_ns = np.int64(min(tick.ts_event - tick.ts_recv, _INT64_MAX))
    store_release(m.words, memory.BEHIND_VENUE, m.words[memory.BEHIND_VENUE] + 1)
    store_release(m.words, memory.BEHIND_VENUE_NS, max(behind_ns, m.words[memory.BEHIND_VENUE_NS]))


@_part
def count_old(m: Any) -> None:
    """Count an old tick that was taken, and whether it only updates its state. m: Buffers; two words are overwritten."""
    store_release(m.words, memory.OLD_TICKS, m.words[memory.OLD_TICKS] + 1)
    if skips_old(m):
        store_release(m.words, memory.SKIPPED, m.words[memory.SKIPPED] + 1)
