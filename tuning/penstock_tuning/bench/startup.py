"""``penstock-bench startup``: from the decision to start a daemon to SERVING, and to the first prediction.

first    nothing is compiled yet: the cache of compiled kernels is an empty folder
second   the same again: the median of several starts with the cache that the first one left
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_client import Instrument
from penstock_client.blocking import connect
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.processes import daemon
from penstock_tuning.bench.raw import raw_rows
from penstock_tuning.bench.settings import Bench

SHOWN = ("first_serving_s", "first_prediction_s", "second_serving_s", "second_prediction_s")
_ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class StartupSettings:
    """How many starts with a filled cache."""

    repeat: int = 3

    def __post_init__(self) -> None:
        """Check the user's number."""
        if not 1 <= self.repeat <= 1000:
            raise BenchError(f"--repeat must be from 1 to 1,000: repeat={self.repeat}")


@dataclass(frozen=True)
class _Start:
    started_ns: int
    serving_ns: int
    predicted_ns: int

    @property
    def serving_s(self) -> float:
        return (self.serving_ns - self.started_ns) / 1e9

    @property
    def prediction_s(self) -> float:
        return (self.predicted_ns - self.started_ns) / 1e9


def measure(settings: StartupSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: a daemon does not serve, or does not predict.
    """
    market = bench.market()
    instruments, ticks = market.read()
    cache = bench.folder / "cache"
    with bench.progress.step("startup: the first start compiles"):
        first = _start(bench, cache, instruments, ticks)
    seconds = []
    for number in range(settings.repeat):
        with bench.progress.step(f"startup: from the cache, {number + 1} of {settings.repeat}"):
            seconds.append(_start(bench, cache, instruments, ticks))
    figures: dict[str, Any] = {
        "first_serving_s": round(first.serving_s, 3),
        "first_prediction_s": round(first.prediction_s, 3),
        "second_serving_s": round(median(one.serving_s for one in seconds), 3),
        "second_prediction_s": round(median(one.prediction_s for one in seconds), 3),
        "repeats": [
            {"serving_s": round(one.serving_s, 3), "prediction_s": round(one.prediction_s, 3)}
            for one in (first, *seconds)
        ],
    }
    times = np.array(
        [(one.started_ns, one.serving_ns, one.predicted_ns) for one in (first, *seconds)], dtype=np.int64
    ).T
    return Outcome("startup", figures, bench.conditions(None, None), SHOWN, [raw_rows(0, *times)])


def _start(bench: Bench, cache: Path, instruments: list[Instrument], ticks: NDArray[np.void]) -> _Start:
    """Start a daemon with *cache*, get one prediction, stop it."""
    environment = {"PENSTOCK_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": None}  # The latter would take precedence.
    with daemon(bench.folder, bench.daemon, environment=environment) as served:
        serving_ns = served.started_ns + round(served.start_s * 1e9)
        with connect(served.address, instruments=instruments, client_name="penstock-bench startup") as session:
            session.send(ticks[:1])
            batch = session.receive(_ANSWER_TIMEOUT_S)
            predicted_ns = time.monotonic_ns()
            if batch is None or len(batch.predictions) != 1:
                raise BenchError("the daemon answered its first tick with an error")
    return _Start(served.started_ns, serving_ns, predicted_ns)
