"""A breach of every stage on every path is seen, flagged where there is a flag, and counted; one at its bound is none.

Engines here are real, and so are the durations: what must be counted is recounted from the answers' own stages.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numba import njit

from penstock.v1.records import PREDICTION_DTYPE, STAGES_IN_RECORD, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import engine_stages
from penstock_daemon.budget_metrics import stage_budgets
from penstock_daemon.budget_warnings import REALTIME, BudgetWarnings, StageOverBudget
from penstock_daemon.budgets import PATH_NAMES, STAGE_NAMES, bounds_of
from penstock_daemon.config import Config
from penstock_daemon.engine import Engine
from penstock_daemon.engine_sizes import allocate
from penstock_daemon.engine_stages import record_handed_over
from support.device_engines import device_engine
from support.engines import SIZES, close_source, open_source, predict, running_engine
from support.models import random_model
from support.tick_stream import tick_stream

TICKS = tick_stream(61, 40)
PATHS = tuple(range(memory.PATHS))
ON_CPU = (Stage.RECEIVE, Stage.RING, Stage.FEATURES, Stage.PREDICT, Stage.EGRESS, Stage.TOTAL)
ON_DEVICE = (Stage.RECEIVE, Stage.RING, Stage.UPLOAD, Stage.PREDICT, Stage.DOWNLOAD, Stage.EGRESS, Stage.TOTAL)
LATE = np.uint32(PredictionFlag.LATE)
_handed_over = njit(record_handed_over.py_func)  # It has no way in from Python of its own.
AT_ALL_NS = -1  # The bound that whatever takes no time is over too.


@pytest.fixture(scope="module")
def cpu_engine() -> Iterator[Engine]:
    with running_engine(random_model(1)) as engine:
        yield engine


@pytest.fixture(scope="module")
def gpu_engine() -> Iterator[Engine]:
    with device_engine(random_model(1)) as (engine, _):
        yield engine


def check_breaches(engine: Engine, path: int, stage: Stage, bound_ns: int, *, bulk: bool = False) -> int:
    """Predict with a bound on one stage of one path alone, and check all that is to be seen. Returns how many were over."""
    buffers = engine.buffers
    buffers.bounds[:] = memory.NO_BOUND
    buffers.bounds[path, stage] = bound_ns
    buffers.totals[:] = 0
    buffers.breaches[:] = 0
    buffers.words[memory.LATE] = 0
    warnings = BudgetWarnings(buffers, 1)
    source = open_source(engine, path=path, bulk=bulk)
    answers = predict(engine, source, TICKS, first=1000, bulk=bulk)
    close_source(engine, source)

    exceeded = buffers.totals[..., engine_stages.EXCEEDED]
    over = int(exceeded[path, REALTIME, stage])
    assert exceeded.sum() == over, "no other row was touched"
    if stage < STAGES_IN_RECORD and not bulk:
        durations = answers["stage_ns"][:, stage].astype(np.int64)
        assert over == np.count_nonzero(durations > bound_ns)
    late = np.count_nonzero(answers["flags"] & LATE)
    assert buffers.words[memory.LATE] == late
    if stage is Stage.TOTAL:
        ages = answers["stage_ns"].sum(axis=1)
        assert late == (0 if bulk else np.count_nonzero(ages > bound_ns))
    else:
        assert late == 0, "without a bound of TOTAL nothing is late"
    shown = {(one.path, one.stage): one.exceeded for one in stage_budgets(buffers)}
    assert shown == {(PATH_NAMES[path], STAGE_NAMES[stage]): over}
    told = [one for one in warnings.look(1) if isinstance(one, StageOverBudget)]
    assert len(told) == (over > 0)
    for one in told:
        assert (one.path, one.stage, one.budget_ns, one.count) == (PATH_NAMES[path], stage, bound_ns, over)
        assert 1000 <= one.sequence < 1000 + len(TICKS)
        assert one.elapsed_ns > bound_ns
    return over


@pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
@pytest.mark.parametrize("stage", ON_CPU, ids=lambda stage: stage.name)
def test_breach_of_each_stage_is_seen_flagged_and_counted(cpu_engine: Engine, path: int, stage: Stage) -> None:
    assert check_breaches(cpu_engine, path, stage, AT_ALL_NS) == len(TICKS)
    check_breaches(cpu_engine, path, stage, 0)
    longest_ns = int(cpu_engine.buffers.totals[path, REALTIME, stage, engine_stages.MAXIMUM])
    check_breaches(cpu_engine, path, stage, longest_ns // 2)  # Some of them are over, or none.
    assert check_breaches(cpu_engine, path, stage, memory.NO_BOUND - 1) == 0


@pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
@pytest.mark.parametrize("stage", ON_DEVICE, ids=lambda stage: stage.name)
def test_breach_of_each_stage_of_a_device_is_seen_flagged_and_counted(
    gpu_engine: Engine, path: int, stage: Stage
) -> None:
    assert check_breaches(gpu_engine, path, stage, AT_ALL_NS) == len(TICKS)
    check_breaches(gpu_engine, path, stage, 0)
    assert check_breaches(gpu_engine, path, stage, memory.NO_BOUND - 1) == 0


@pytest.mark.parametrize("stage", ON_CPU, ids=lambda stage: stage.name)
def test_bulk_breaks_no_bound(cpu_engine: Engine, stage: Stage) -> None:
    assert check_breaches(cpu_engine, memory.PATH_GRPC, stage, AT_ALL_NS, bulk=True) == 0


@pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
def test_5_ms_pass_and_a_nanosecond_more_does_not(path: int) -> None:
    _, buffers = allocate(SIZES)
    bounds = bounds_of(Config.defaults())
    buffers.bounds[:] = memory.NO_BOUND
    for row, bound_ns in bounds.items():
        buffers.bounds[row] = bound_ns
    answer = np.zeros(1, PREDICTION_DTYPE)
    answer["stage_ns"] = [500_000, 1_500_000, 250_000, 750_000, 1_000_000, 250_000]  # What is left is EGRESS: 0.75 ms.
    answer["sequence"] = 7
    over = buffers.totals[path, REALTIME, :, engine_stages.EXCEEDED]
    first_ns = 1_000_000_000_000
    tick = np.zeros(1, memory.TICK_SLOT_DTYPE)
    tick["first_ns"], tick["ringed_ns"] = first_ns, first_ns + 500_000
    _handed_over(buffers, path, 0, answer[0], tick[0], first_ns + 5_000_000)
    assert not over.any()
    _handed_over(buffers, path, 0, answer[0], tick[0], first_ns + 5_000_001)
    assert over.tolist() == [0, 0, 0, 0, 0, 0, 1, 1], "the nanosecond is EGRESS's"
    assert buffers.breaches[path, Stage.TOTAL].tolist() == [7, 5_000_001]
    assert buffers.breaches[path, Stage.EGRESS].tolist() == [7, 750_001]
    _handed_over(buffers, path, 1, answer[0], tick[0], first_ns + 60_000_000)
    assert over.sum() == 2, "in bulk nothing is over"
