"""What the tick path allocates after warm-up, counted from inside: a part of memory.py.

    engine     every allocation that Numba's runtime makes in the engine's compiled loop, and page faults of its thread
    loop       blocks that Python keeps after thousands of messages through a whole daemon and a client, both on the
               event loop of this process; objects that come and go with a message are Python's way and not counted

The engine is held back while its ring is filled, and let go by memory alone: no call of ours is among those counted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numba.core.runtime import _nrt_python, rtsys
from numpy.typing import NDArray

from penstock_client import Instrument, Session, connect
from penstock_daemon import engine_memory as memory
from penstock_daemon.config import load_config
from penstock_daemon.engine_memory import Command
from penstock_daemon.logs import configure_logs
from penstock_daemon.notify import Notifier
from penstock_daemon.server import Daemon
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.in_process import SOURCE, InProcessEngine, engine_in_process
from penstock_tuning.bench.market import Market
from penstock_tuning.bench.parts import Plan, be_part
from penstock_tuning.bench.processes import DaemonOptions, scratch_folder

WARM_UP_MESSAGES = 2_000
_MINOR_FAULTS_FIELD = 7  # Of /proc/self/task/ID/stat, counted after the name in brackets.
_TIMEOUT_S = 20.0


def count_engine(engine: InProcessEngine, ticks: NDArray[np.void]) -> dict[str, int]:
    """Return what the engine's loop allocates over *ticks* and how often its thread faults, ring by ring."""
    _nrt_python.memsys_enable_stats()
    inside = engine.engine
    slots = engine.sizes.slots
    engine.predict(ticks[:slots])
    allocations = faults = counted = 0
    for first in range(0, len(ticks), slots):
        part = ticks[first : first + slots]
        inside.wait_applied(inside.command(Command.HOLD_SOURCE, SOURCE))
        engine.publish(part)
        time.sleep(0.01)  # The engine has seen that it may not, and sleeps.
        wanted = inside.cursor(SOURCE, memory.PREDICTION_PUBLISHED) + len(part)
        cursor = memory.cursor(SOURCE, memory.PREDICTION_PUBLISHED)
        cursors = inside.buffers.cursors
        before, faults_before = _runtime_allocations(), _minor_faults(inside.thread_id)
        inside.buffers.source_table[SOURCE, memory.SOURCE_HELD] = 0
        os.eventfd_write(inside.engine_event, 1)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while int(cursors[cursor]) < wanted:
            if time.monotonic() > deadline_s:
                raise BenchError(f"the engine made no predictions for {_TIMEOUT_S:.0f} s")
            time.sleep(0.001)
        allocations += _runtime_allocations() - before
        faults += _minor_faults(inside.thread_id) - faults_before
        counted += len(part)
        while inside.cursor(SOURCE, memory.PREDICTION_CONSUMED) < wanted:
            _, count, _ = inside.answers(SOURCE, slots)
            inside.release_answers(SOURCE, memory.PATH_GRPC, True, count)
    return {"engine_allocations": allocations, "engine_page_faults": faults, "engine_ticks_counted": counted}


async def count_loop(
    folder: Path, options: DaemonOptions, instruments: list[Instrument], ticks: NDArray[np.void]
) -> dict[str, Any]:
    """Return how many blocks Python keeps after one message a tick through a daemon on this very loop."""
    address = f"unix:{folder}/inside.sock"
    sets = [argument for argument in options.arguments(address) if argument != "--set"]
    daemon = Daemon(load_config(None, {}, sets), Notifier(None))
    try:
        await daemon.start()
        async with connect(address, instruments=instruments, client_name="penstock-bench memory") as session:
            await _one_by_one(session, ticks[:WARM_UP_MESSAGES])
            gc.collect()
            collections_before, blocks_before = _collections(), sys.getallocatedblocks()
            await _one_by_one(session, ticks[WARM_UP_MESSAGES:])
            collections = _collections() - collections_before
            gc.collect()
            blocks = sys.getallocatedblocks() - blocks_before
            await session.finish()
    finally:
        await daemon.stop()
    messages = len(ticks) - WARM_UP_MESSAGES
    return {
        "loop_blocks_kept": blocks,
        "loop_blocks_kept_per_message": round(blocks / messages, 6),
        "loop_garbage_collections": collections,
        "loop_messages_counted": messages,
    }


async def _one_by_one(session: Session, ticks: NDArray[np.void]) -> None:
    for index in range(len(ticks)):
        await session.send(ticks[index : index + 1])
        await session.receive()


def _runtime_allocations() -> int:
    return int(rtsys.get_allocation_stats().alloc)


def _collections() -> int:
    return sum(int(generation["collections"]) for generation in gc.get_stats())


def _minor_faults(thread_id: int) -> int:
    stat = Path(f"/proc/self/task/{thread_id}/stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rpartition(")")[2].split()[_MINOR_FAULTS_FIELD])


def count_all(plan: Plan) -> dict[str, Any]:
    """Count everything; *plan* names ticks, model, sets, engine_ticks, messages."""
    options = DaemonOptions(plan["model"], tuple(plan["sets"]))
    configure_logs("error", "json")
    instruments, recorded = Market(Path(plan["ticks"]), "").read()
    with engine_in_process(options, instruments) as engine:
        found: dict[str, Any] = count_engine(engine, np.resize(recorded, plan["engine_ticks"]))
    messages = np.resize(recorded, WARM_UP_MESSAGES + plan["messages"])
    quiet = replace(options, sets=(*options.sets, "log.level=error"))
    with scratch_folder() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return found | runner.run(count_loop(folder, quiet, instruments, messages))


if __name__ == "__main__":
    sys.exit(be_part(count_all))
