"""The first ticks that an engine predicts, through its own rings like all others, so that nothing is cold afterwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_DTYPE, TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine_memory import Command

if TYPE_CHECKING:
    from penstock_daemon.engine import Engine

WARM_UP_SOURCE: Final = 0  # A source that no session gets; its state is number 0.
WARM_UP_TICKS: Final = 256
_PATIENCE_NS: Final = 10_000_000_000


def send_warm_up(engine: Engine, model_slot: int, ticks: int) -> tuple[int, NDArray[Any]]:
    """Send ticks through a model, one after another, and wait for each one's prediction; the state is forgotten after.

    Returns:
        The longest time from publishing to prediction among the last half, in nanoseconds; and all forecasts.

    Raises:
        TimeoutError: no prediction came in time.
    """
    engine.command(Command.RESET_STATE, WARM_UP_SOURCE)
    engine.command(Command.OPEN_SOURCE, WARM_UP_SOURCE, model_slot, memory.PATH_GRPC, 1)
    records = np.zeros(1, TICK_DTYPE)
    records["length"], records["rtype"], records["price"] = TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE
    records["bid_sz"] = records["ask_sz"] = 1
    ids, states = np.zeros(1, np.int64), np.zeros(1, np.int64)
    forecasts: NDArray[Any] = np.zeros(ticks, PREDICTION_DTYPE)["forecasts"]
    slowest_ns = 0
    for number in range(ticks):
        records["bid_px"] = 100_000_000_000 + number % 3 * 10_000_000
        records["ask_px"] = records["bid_px"] + 10_000_000
        records["ts_recv"] = records["ts_event"] = number * 1_000_000
        frozen = np.frombuffer(records.tobytes(), TICK_DTYPE)
        sent_ns = time.monotonic_ns()
        engine.publish_ticks(WARM_UP_SOURCE, frozen, number, False, ids, states, sent_ns)
        while engine.answers(WARM_UP_SOURCE, 1)[1] == 0:
            if time.monotonic_ns() > sent_ns + _PATIENCE_NS or not engine.alive:
                raise TimeoutError("the engine made no prediction in 10 s of warm-up")
            time.sleep(0)
        if number >= ticks // 2:
            slowest_ns = max(slowest_ns, time.monotonic_ns() - sent_ns)
        place = engine.answers(WARM_UP_SOURCE, 1)[0]
        forecasts[number] = engine.buffers.prediction_slots[WARM_UP_SOURCE, place]["forecasts"]
        engine.release_answers(WARM_UP_SOURCE, memory.PATH_GRPC, True, 1)
    engine.wait_applied(engine.command(Command.CLOSE_SOURCE, WARM_UP_SOURCE))
    engine.reset_source(WARM_UP_SOURCE)
    return slowest_ns, forecasts
