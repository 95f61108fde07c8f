"""What is measured of a tick: the durations of its stages against their bounds, and the age that makes LATE and STALE.

    a duration    one bucket of a histogram, one sum, one maximum; over its bound: one count, and whose it was
    an age        from the first stamp there is; over the bound of TOTAL: LATE; over the stale bound: STALE
    the breaker   a run of STALE predictions, which the next one in time ends

A bound is passed at the bound itself and broken one nanosecond later, counted apart from the histogram, whose buckets
are wider than that. Bounds are those of REALTIME sources. Each row of the tables and each word has one writer. What the
CPU's ticks and a device's share of this is here; nothing allocates, locks or logs.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from penstock.v1 import histogram
from penstock.v1.records import PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.native import store_release

_compile = njit(nogil=True, cache=True, error_model="numpy")
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

_bucket_of = _compile(histogram.bucket_of)

_LATE = int(PredictionFlag.LATE)
_STALE = int(PredictionFlag.STALE)
_EGRESS, _TOTAL = int(Stage.EGRESS), int(Stage.TOTAL)
_UPDATE = int(memory.OldTick.UPDATE)
_DURATION_MAX = 2**32 - 1


@_compile
def record_duration(m: Any, path: int, bulk: int, stage: int, sequence: int, duration_ns: int) -> None:
    """Count one duration.

    Args:
        m: Buffers or AnswerBuffers; the row of histograms and totals is overwritten, and the row of breaches if the
            duration is over the bound of a REALTIME source.
        path, bulk, stage: which row.
        sequence: of the tick in its session.
        duration_ns: of the stage; a negative one is counted as such too.
    """
    m.histograms[path, bulk, stage, _bucket_of(duration_ns)] += 1
    totals = m.totals[path, bulk, stage]
    totals[SUM] += duration_ns
    totals[MAXIMUM] = max(totals[MAXIMUM], duration_ns)
    if duration_ns < 0:
        totals[NEGATIVE] += 1
    if bulk == 0 and duration_ns > m.bounds[path, stage]:
        totals[EXCEEDED] += 1
        m.breaches[path, stage, memory.BREACH_SEQUENCE] = sequence
        m.breaches[path, stage, memory.BREACH_NS] = duration_ns


@_compile
def record_handed_over(m: Any, path: int, bulk: int, answer: Any, first_ns: int, now_ns: int) -> None:
    """Count the stages EGRESS and TOTAL of an answer that is handed over now.

    Args:
        m: Buffers or AnswerBuffers; the two rows are overwritten.
        path, bulk: which rows.
        answer: a prediction record; what its six stages leave of the total is EGRESS.
        first_ns: first stamp of its tick, monotonic.
        now_ns: monotonic.
    """
    total_ns = now_ns - first_ns
    made_ns = np.int64(0)
    for stage in range(answer.stage_ns.shape[0]):
        made_ns += np.int64(answer.stage_ns[stage])
    sequence = np.int64(answer.sequence)
    record_duration(m, path, bulk, _EGRESS, sequence, total_ns - made_ns)
    record_duration(m, path, bulk, _TOTAL, sequence, total_ns)


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
            _count_stale(m, now_ns)
        elif m.words[memory.STALE_RUN] != 0:
            store_release(m.words, memory.STALE_RUN, 0)
    return flags


@_compile
def _count_stale(m: Any, now_ns: int) -> None:
    """Count a STALE prediction; a run of BREAKER_RUN trips the breaker once, and another run must begin."""
    store_release(m.words, memory.STALE, m.words[memory.STALE] + 1)
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


@_compile
def count_old(m: Any) -> None:
    """Count an old tick that was taken, and whether it only updates its state. m: Buffers; two words are overwritten."""
    store_release(m.words, memory.OLD_TICKS, m.words[memory.OLD_TICKS] + 1)
    if skips_old(m):
        store_release(m.words, memory.SKIPPED, m.words[memory.SKIPPED] + 1)
