"""A real engine in this process, small, with models drawn at random: for tests below the server.

with running_engine() as engine:
    source = open_source(engine, states=[1])
    predictions = predict(engine, source, ticks)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_DTYPE, PROBABILITY_ONE, TICK_DTYPE, PredictionFlag
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_daemon.engine_sizes import EngineSizes
from penstock_kernels.drive import run_predictions
from penstock_kernels.model import Model
from penstock_kernels.predictor import REBUILD_TICKS, PackedModel, pack
from support.models import random_model

SIZES = EngineSizes(sources=5, slots=256, states=9, model_slots=3, units_max=64, journal_ticks=512)
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Source:
    """An open source and the instruments that may come on it."""

    number: int
    ids: NDArray[np.int64]
    states: NDArray[np.int64]
    path: int = memory.PATH_GRPC


def frozen(ticks: NDArray[np.void]) -> NDArray[np.void]:
    """Return *ticks* as they come from a message: a view of bytes, read-only."""
    return np.frombuffer(ticks.tobytes(), TICK_DTYPE)


@contextlib.contextmanager
def running_engine(
    *models: Model, settings: EngineSettings | None = None, sizes: EngineSizes = SIZES
) -> Iterator[Engine]:
    """An engine that runs, warm, with *models* in its first slots."""
    engine = Engine(sizes, settings or EngineSettings())
    try:
        for slot, model in enumerate(models or (random_model(1),)):
            engine.load_model(slot, pack(model), serial=100 + slot)
        engine.compile()
        engine.start()
        engine.warm_up(0, ticks=4)
        yield engine
    finally:
        engine.stop()
        engine.close()


def open_source(
    engine: Engine,
    number: int = 1,
    *,
    states: Sequence[int] = (1,),
    ids: Sequence[int] = (),
    model_slot: int = 0,
    bulk: bool = False,
    path: int = memory.PATH_GRPC,
) -> Source:
    """Open a source for *ids* (1 and up by default), whose cold states are *states*."""
    engine.reset_source(number)
    for state in states:
        engine.command(Command.RESET_STATE, state)
    engine.wait_applied(engine.command(Command.OPEN_SOURCE, number, model_slot, path, int(bulk)))
    named = np.array(ids or range(1, len(states) + 1), np.int64)
    return Source(number, named, np.array(states, np.int64), path)


def close_source(engine: Engine, source: Source) -> None:
    engine.wait_applied(engine.command(Command.CLOSE_SOURCE, source.number))


def publish(
    engine: Engine,
    source: Source,
    ticks: NDArray[np.void],
    *,
    first: int = 0,
    rebuild: bool = False,
    assist: bool = False,
) -> int:
    """Publish *ticks* and return what the ring says."""
    return engine.publish_ticks(
        source.number, frozen(ticks), first, rebuild, source.ids, source.states, time.monotonic_ns(), assist=assist
    )


def take(engine: Engine, source: Source, count: int, *, bulk: bool = False) -> NDArray[np.void]:
    """Return the next *count* answers as the ring holds them, refusals and rebuild marks included."""
    found = [np.zeros(0, PREDICTION_DTYPE)]
    deadline_s = time.monotonic() + PATIENCE_S
    while count > 0:
        place, ready, _ = engine.answers(source.number, count)
        if ready == 0:
            assert time.monotonic() < deadline_s, f"{count} answers are missing"
            time.sleep(0.0002)
            continue
        found.append(engine.buffers.prediction_slots[source.number, place : place + ready].copy())
        engine.release_answers(source.number, source.path, bulk, ready)
        count -= ready
    return np.concatenate(found)


def predict(
    engine: Engine,
    source: Source,
    ticks: NDArray[np.void],
    *,
    first: int = 0,
    rebuild: bool = False,
    bulk: bool = False,
) -> NDArray[np.void]:
    """Send *ticks*, half a ring at a time, and return their answers."""
    part = engine.sizes.slots // 2
    found = [np.zeros(0, PREDICTION_DTYPE)]
    for start in range(0, len(ticks), part):
        some = ticks[start : start + part]
        assert publish(engine, source, some, first=first + start, rebuild=rebuild) >= 0
        found.append(take(engine, source, len(some), bulk=bulk))
    return np.concatenate(found)


def driven(
    packed: PackedModel, ticks: NDArray[np.void], *, seen: int = 0
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return what one instrument's answers must hold: forecasts as in the record, and the flags.

    Args:
        packed: the model.
        ticks: of one instrument, from a cold state on.
        seen: ticks that the state had taken in before, for WARMING.
    """
    flags = np.zeros(len(ticks), np.int64)
    forecasts = run_predictions(packed, ticks, flags=flags)
    expected = np.zeros(len(ticks), PREDICTION_DTYPE)["forecasts"]
    expected["expected_return"] = forecasts[:, :, 0]
    expected["deviation"] = forecasts[:, :, 1]
    up, down = (np.int64(forecasts[:, :, column].astype(np.float64) * PROBABILITY_ONE + 0.5) for column in (2, 3))
    expected["probability_up"] = up
    expected["probability_down"] = np.minimum(down, PROBABILITY_ONE - up)
    warming = np.arange(len(ticks)) + seen < packed.header[REBUILD_TICKS]
    return expected, flags | np.where(warming, int(PredictionFlag.WARMING), 0)
