"""The engine: one compiled loop that owns all reservoir state and never touches the interpreter.

While it sleeps, ``assist`` lets a producer own the states for the few ticks it has just published.

    while not stopped:
        apply commands                     in order, a bounded part per pass
        drain every open source's ring     never more than batch_max ticks between two looks at the rest; where a strategy
                                           has attached a segment, take from it before, and give to it after
        idle, if there was nothing to do

Nothing here allocates, locks or logs; the only system calls are those of waking and sleeping. Where a device predicts,
``device/loop.py`` stands in the place of ``run``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_attachments import attached
from penstock_daemon.engine_segments import give_to_segment
from penstock_daemon.engine_ticks import drain
from penstock_daemon.engine_turns import (
    REBUILD_STATE,
    RESET_STATE,
    command_done,
    commanded,
    end_pass,
    forget,
    has_work,
    own,
    rebuild_part,
    settle_source,
    stirs,
    turns_up,
)
from penstock_daemon.engine_wake import wake_loop
from penstock_daemon.native import clock_ns, compare_and_swap, eventfd_signal, fence, load_acquire, store_release

_compile = njit(nogil=True, cache=True, error_model="numpy")

_MONOTONIC = np.int32(1)
_UNMARKED = np.int64(0)  # A literal would make Numba compile drain for it too.


@_compile
def run(m: Any) -> None:
    """Run the engine until ``m.words[STOP]`` is set. m: Buffers."""
    own(m)
    idle_since_ns = clock_ns(_MONOTONIC)
    while load_acquire(m.words, memory.STOP) == 0:
        started_ns = clock_ns(_MONOTONIC)
        work = 0

        if commanded(m):
            work += 1
            command = m.control[m.words[memory.CONTROL_CONSUMED] & (m.control.shape[0] - 1)]
            finished = True
            if command[0] == RESET_STATE:
                forget(m, command[1])
                m.seen[command[1]] = 0
            elif command[0] == REBUILD_STATE:
                finished = rebuild_part(m, command[1], command[2])
            else:
                settle_source(m, command)
            if finished:
                command_done(m)

        for place in range(m.words[memory.OPEN_SOURCES]):
            source = m.open_sources[place]
            shared = attached(m, source)
            if shared and not stirs(m, source, started_ns):
                continue
            if turns_up(m, source):
                count = drain(m, source, m.settings[memory.BATCH_MAX], _UNMARKED)
                if count > 0:
                    work += count
                    if not shared:
                        wake_loop(m)
            if shared:
                work += give_to_segment(m, source)

        idle_since_ns = end_pass(m, work, started_ns, idle_since_ns)
    store_release(m.words, memory.OWNER, 0)


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
        if settled and turns_up(m, source):
            started_ns = clock_ns(_MONOTONIC)
            count = drain(m, source, m.settings[memory.BATCH_MAX], _UNMARKED)
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
