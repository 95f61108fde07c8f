"""Replays that never met a daemon: runs with known times and predictions, for what is made of them."""

from __future__ import annotations

import numpy as np

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.model_pb2 import ModelSummary
from penstock_client.instruments import Instrument
from penstock_client.replay import ReplayPlan, ReplayRun
from support.tick_arrays import quotes

TWO = [Instrument(1, "BTCUSDT", "TEST.VENUE", 1000), Instrument(2, "ETHUSDT", "TEST.VENUE")]


def welcome() -> pb.Welcome:
    return pb.Welcome(
        model=ModelSummary(
            name="some", version="3", content_hash=bytes(range(32)), demonstration=True, notice="Do not."
        ),
        horizons=[
            pb.Horizon(name="next", kind=pb.Horizon.KIND_NEXT_MOVE),
            pb.Horizon(name="100ms", kind=pb.Horizon.KIND_TIME, duration_ns=10**8),
        ],
        budget_ns=5_000_000,
        daemon_version="9.9",
    )


def finished_run(count: int, *, speed: float = 1.0, latency_ns: int = 400_000, seed: int = 0) -> ReplayRun:
    """Return a run in which tick i was answered *latency_ns* + i after it was due, with any predictions."""
    noise = np.random.default_rng(seed)
    run = ReplayRun(ReplayPlan(TWO, quotes(count, (1, 2), seed=seed), "unix:/nowhere.sock", speed=speed))
    run.welcome = welcome()
    run.start_ns = 10**9
    run.scheduled_ns[:] = run.start_ns + (run.plan.ticks["ts_recv"] - run.plan.ticks["ts_recv"][0]).astype(np.int64)
    run.sent_ns[:] = run.scheduled_ns + 20_000
    run.received_ns[:] = run.scheduled_ns + latency_ns + np.arange(count)
    run.sent = run.answered = count
    run.predicted[:] = True
    for name in ("ts_event", "ts_recv", "instrument_id"):
        run.predictions[name] = run.plan.ticks[name]
    run.predictions["sequence"] = np.arange(count)
    run.predictions["horizons"] = 2
    run.predictions["stage_ns"][:, 1] = 30_000
    run.predictions["forecasts"]["expected_return"] = noise.normal(0, 1e-5, (count, 4))
    run.predictions["forecasts"]["probability_up"] = noise.integers(0, 32_000, (count, 4))
    run.predictions["forecasts"]["probability_down"] = noise.integers(0, 32_000, (count, 4))
    return run
