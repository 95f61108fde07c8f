"""The account of recorded ticks: whatever the speed, the batches and the connection, one answer each, in order."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_client.files import busiest_start, merge, open_ticks
from penstock_client.replay import ReplayPlan, ReplayRun, replay
from penstock_client.replay_schedule import MAX_SPEED, cut
from penstock_client.replay_summary import prediction_hash
from penstock_kernels.model_file import save_model
from support.daemon import running_daemon
from support.models import random_model
from support.relay import Relay

pytestmark = pytest.mark.recorded


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("account")
    save_model(random_model(11, units=64, fan_in=4, rebuild_ticks=64), folder / "small.safetensors")
    with running_daemon(folder, f"models.folder={folder}", "models.active=small.safetensors") as running:
        yield running


@pytest.mark.parametrize(
    ("name", "speed", "seconds"),
    [
        ("binance_usdm_20240808", 1.0, 10.0),
        ("binance_usdm_20240808", 50.0, 75.0),
        ("binance_usdm_20240808", MAX_SPEED, None),
        ("binance_spot_btcusdt_20240808", 50.0, 100.0),
        ("fxcm_eurusd_20140508", MAX_SPEED, None),
    ],
)
def test_every_tick_has_one_prediction_over_a_lost_connection(daemon, recorded_file, tmp_path, name, speed, seconds):
    instruments, ticks = merge([open_ticks(recorded_file(f"{name}.mbp-1.dbn.zst"))])
    start = 0 if seconds is None else busiest_start(ticks["ts_recv"], round(seconds * 1e9))
    ticks = ticks[cut(ticks["ts_recv"], start, seconds)]
    with Relay(tmp_path / "relay.sock", daemon.address) as relay:
        plan = ReplayPlan(instruments, ticks, relay.address, speed=speed, splits_seed=17, timeout_s=20.0)

        def cut_midway(run: ReplayRun) -> None:
            if run.answered > len(ticks) // 3 and relay.connections == 1:
                relay.cut()

        run = replay(plan, cut_midway)
        resumed = relay.connections
    assert run.failure is None
    assert (run.sent, run.answered, run.errors, run.lost) == (len(ticks), len(ticks), 0, 0)
    assert run.resumed == resumed - 1 == 1, "the connection was cut, and regained"
    assert run.predicted.all()
    assert run.predictions["sequence"].tolist() == list(range(len(ticks)))
    for field in ("ts_event", "ts_recv", "instrument_id"):
        assert (run.predictions[field] == ticks[field]).all()
    assert (np.diff(run.received_ns) >= 0).all()
    whole = replay(ReplayPlan(instruments, ticks, daemon.address, speed=MAX_SPEED))
    assert whole.resumed == 0
    assert prediction_hash(run) == prediction_hash(whole), "resumed states are the lost ones, to the bit"
