"""The engine without gRPC, and the kernels without the engine: what the tick path alone can do.

The engine is the daemon's own, with its rings and its thread; this thread publishes ticks and takes answers as the
daemon's event loop would, batch by batch.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_client import Instrument
from penstock_daemon import engine_memory as memory
from penstock_daemon.config import Config, load_config
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_daemon.engine_sizes import EngineSizes
from penstock_daemon.warm_up import WARM_UP_SOURCE
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.model_file import LoadedModel, default_model, load_model
from penstock_kernels.predictor import PackedModel, pack
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.processes import DaemonOptions

SOURCE = WARM_UP_SOURCE + 1
BATCH_TICKS = 512
_ANSWER_TIMEOUT_NS = 5_000_000_000
_MODEL_SLOT = 0


class InProcessEngine:
    """An engine that runs in this process, with one open source.

    Args:
        options: which model.
        instruments: of the ticks to come; each gets a state.
    """

    def __init__(self, options: DaemonOptions, instruments: list[Instrument]) -> None:
        self.config = Config.defaults()
        self.model = read_model(options)
        self.packed = pack(self.model.model)
        self.sizes = sizes_of(options)
        if len(instruments) >= self.sizes.states:
            raise BenchError(f"the daemon holds {self.sizes.states - 1} instruments by default: has {len(instruments)}")
        self.engine = Engine(self.sizes, EngineSettings(batch_max=self.config.engine.batch_max))
        self.engine.compile()
        self.engine.load_model(_MODEL_SLOT, self.packed, 0)
        self.engine.arena.touch()
        self.engine.start()
        self.engine.warm_up(_MODEL_SLOT)
        self._sequence = 0
        self._ids: NDArray[np.int64] = np.sort(np.array([one.instrument_id for one in instruments], dtype=np.int64))
        self._states: NDArray[np.int64] = np.arange(1, 1 + len(instruments))
        self.engine.wait_applied(self.engine.command(Command.OPEN_SOURCE, SOURCE, _MODEL_SLOT, memory.PATH_GRPC, 1))

    def close(self) -> None:
        """Stop the thread."""
        self.engine.stop()
        self.engine.close()

    def publish(self, ticks: NDArray[np.void]) -> None:
        """Put *ticks* into the ring, which must have room for them."""
        refused = self.engine.publish_ticks(
            SOURCE, ticks, self._sequence, False, self._ids, self._states, time.monotonic_ns()
        )
        if refused < 0:
            raise BenchError(f"the ring refused {len(ticks)} ticks: publish_ticks={refused}")
        self._sequence += len(ticks)

    def predict(self, ticks: NDArray[np.void]) -> int:
        """Put *ticks* through the rings, as many at a time as fit, and return how many answers were taken out."""
        answered = published = 0
        deadline_ns = time.monotonic_ns() + _ANSWER_TIMEOUT_NS
        while answered < len(ticks):
            if published < len(ticks) and published - answered + BATCH_TICKS <= self.sizes.slots:
                batch = ticks[published : published + BATCH_TICKS]
                self.publish(batch)
                published += len(batch)
            _, count, _ = self.engine.answers(SOURCE, BATCH_TICKS)
            if count:
                self.engine.release_answers(SOURCE, memory.PATH_GRPC, True, count)
                answered += count
                deadline_ns = time.monotonic_ns() + _ANSWER_TIMEOUT_NS
            elif time.monotonic_ns() > deadline_ns:
                raise BenchError(f"the engine gave no answer for {_ANSWER_TIMEOUT_NS / 1e9:.0f} s")
            else:
                os.sched_yield()
        return answered


@contextlib.contextmanager
def engine_in_process(options: DaemonOptions, instruments: list[Instrument]) -> Iterator[InProcessEngine]:
    """An engine for the length of a block."""
    engine = InProcessEngine(options, instruments)
    try:
        yield engine
    finally:
        engine.close()


def read_model(options: DaemonOptions) -> LoadedModel:
    """Return the model that *options* name, or the demonstration.

    Raises:
        ModelError: the file is refused.
    """
    return load_model(Path(options.model)) if options.model else default_model()


def sizes_of(options: DaemonOptions) -> EngineSizes:
    """Return the memory that a daemon with these settings takes."""
    config = load_config(None, {}, options.sets)
    return EngineSizes(
        sources=config.sessions.max + 1,
        slots=config.sessions.in_flight_max,
        states=config.sessions.states_max + 1,
        model_slots=config.models.slots,
        units_max=config.models.units_max,
        dense_units_max=config.models.dense_units_max,
    )


def engine_rate(engine: InProcessEngine, ticks: NDArray[np.void]) -> float:
    """Return predictions per second through the rings and the engine thread."""
    engine.predict(ticks[: 4 * BATCH_TICKS])
    started_ns = time.monotonic_ns()
    answered = engine.predict(ticks)
    return answered / ((time.monotonic_ns() - started_ns) / 1e9)


def kernel_rate(packed: PackedModel, ticks: NDArray[np.void]) -> float:
    """Return predictions per second of the kernels alone: features, reservoir and readout, one state, one thread."""
    assert ticks.dtype == TICK_DTYPE, "ticks are records"
    place = new_place(packed)
    run_predictions(packed, ticks[:1000], place)
    started_ns = time.monotonic_ns()
    run_predictions(packed, ticks, place)
    return len(ticks) / ((time.monotonic_ns() - started_ns) / 1e9)
