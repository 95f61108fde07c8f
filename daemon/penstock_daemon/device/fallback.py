"""What the CPU predicts beside a device, and in its place once it is lost.

    a healthy device   ticks of states with an online readout, which learn on the CPU
    a lost one         those as before; all others DEGRADED, their states first rebuilt from the journal

A reservoir forgets: the last rebuild_ticks of a state's journal restore it. They are replayed a bounded part per source
and pass, so that sources whose states are whole wait for nobody.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from penstock.v1.records import PredictionFlag
from penstock_daemon import engine_memory
from penstock_daemon.device import memory
from penstock_daemon.device.bells import stop_resident
from penstock_daemon.engine_ticks import takeable
from penstock_daemon.engine_turns import journalled, replay_part
from penstock_daemon.native import store_release

# As in engine_turns: what compiled code alone calls.
_part = njit(nogil=True, cache=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_DEGRADED = int(PredictionFlag.DEGRADED)
_NONE = int(memory.DeviceFault.NONE)
_ZERO: Any = np.int64(0)  # A literal 0 would make Numba compile what it is given to for that literal too.


@_part
def leave_device(m: Any, d: Any, fault: int) -> None:
    """Never ask the device again: mark the states that it held as lost.

    A launch that still runs may write results later; nobody reads them.

    Args:
        m: Buffers; a rebuild under way begins again.
        d: DeviceBuffers; lost and the fault are overwritten.
        fault: a DeviceFault; the detail was written by who found it.
    """
    for state in range(d.lost.shape[0]):
        if m.seen[state] > 0 and m.online_of[state] == engine_memory.NO_ONLINE:
            d.lost[state] = 1
    m.rebuilt[0] = 0
    stop_resident(d)
    store_release(d.words, memory.FAULT, fault)


@_part
def cpu_share(m: Any, d: Any, source: int) -> tuple[int, int, int]:
    """Find those of a source's next ticks that are the CPU's; rebuild a part of a lost state that the next one needs.

    Returns:
        How many ticks the CPU may predict now, the flags that they get, and how many parts of states were rebuilt.
    """
    count = takeable(m, source, m.settings[engine_memory.BATCH_MAX])
    failed = d.words[memory.FAULT] != _NONE
    slots = m.tick_slots.shape[1]
    consumed = m.cursors[source * engine_memory.CURSOR_WORDS + engine_memory.TICK_CONSUMED]
    ready, marks, parts = _ZERO, _ZERO, _ZERO
    for offset in range(count):
        tick = m.tick_slots[source, (consumed + offset) & (slots - 1)]
        if tick.refusal == 0:
            online = m.online_of[tick.state] != engine_memory.NO_ONLINE
            if not online and not failed:
                break  # The device's.
            if not online and d.lost[tick.state] != 0:
                rebuild_lost(m, d, np.int64(tick.state), m.source_table[source, engine_memory.SOURCE_MODEL])
                parts += 1
                break
            wanted = 0 if online else _DEGRADED
            if ready > 0 and marks != wanted:
                break
            marks = wanted
        ready += 1
    return ready, marks, parts


@_part
def rebuild_lost(m: Any, d: Any, state: int, model: int) -> None:
    """Replay the next part of a lost state's journal on the CPU. d.lost: overwritten, 0 once the state is whole."""
    last = replay_part(m, state, model, d.lost[state] - 1)
    if last < journalled(m, state, model):
        d.lost[state] = 1 + last
        return
    d.lost[state] = 0
    store_release(d.words, memory.REBUILT, d.words[memory.REBUILT] + 1)
