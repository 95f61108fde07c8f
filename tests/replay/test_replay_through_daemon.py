"""Replays through a real daemon: every tick answered once and in order, and the same hash however it is replayed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from penstock_client.cli import main
from penstock_client.files import busiest_start, merge, open_ticks, write_ticks
from penstock_client.instruments import Instrument
from penstock_client.replay import ReplayPlan, ReplayRun, replay
from penstock_client.replay_progress import Progress
from penstock_client.replay_schedule import cut
from penstock_client.replay_summary import prediction_hash
from penstock_kernels.model_file import save_model
from support.daemon import running_daemon
from support.models import random_model
from support.tick_arrays import quotes

TWO = [Instrument(1, "BTCUSDT", "TEST.VENUE", 1000), Instrument(2, "ETHUSDT", "TEST.VENUE")]
MAX = float("inf")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    save_model(random_model(11, units=64, fan_in=4, rebuild_ticks=64), folder / "small.safetensors")
    with running_daemon(folder, f"models.folder={folder}", "models.active=small.safetensors") as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("ticks") / "day.dbn.zst"
    write_ticks(path, quotes(6000, (1, 2), gap_ns=500_000), TWO)  # About 3 s of market time.
    return str(path)


def run_of(daemon, file: str, **changes: object) -> ReplayRun:
    instruments, ticks = merge([open_ticks(file)])
    changes.setdefault("timeout_s", 20.0)
    run = replay(ReplayPlan(instruments, ticks, daemon.address, **changes))
    assert run.failure is None
    check_accounting(run)
    return run


def check_accounting(run: ReplayRun) -> None:
    """Every tick that was sent has exactly one prediction, its own, and its times are in order."""
    assert run.lost == 0
    assert run.errors == 0
    sent = slice(0, run.sent)
    assert run.predicted[sent].all()
    assert run.predictions["sequence"][sent].tolist() == list(range(run.sent))
    for name in ("ts_event", "ts_recv", "instrument_id"):
        assert (run.predictions[name][sent] == run.plan.ticks[name][sent]).all()
    assert (run.scheduled_ns[sent] <= run.sent_ns[sent]).all()
    assert (run.sent_ns[sent] <= run.received_ns[sent]).all()
    if run.plan.speed == MAX:
        assert (run.scheduled_ns[sent] == run.sent_ns[sent]).all(), "at full speed a tick is due when it is sent"


def command(daemon, *arguments: str, **environment: str) -> dict[str, object]:
    """Run ``penstock replay --json`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock_client.cli", "replay", "--json", "--to", daemon.address, *arguments],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_hash_is_the_same_at_any_speed_and_batch_split(daemon, file):
    whole = run_of(daemon, file, speed=MAX)
    assert whole.sent == 6000
    for changes in ({"speed": 5.0}, {"speed": MAX, "splits_seed": 1}, {"speed": 20.0, "splits_seed": 2}):
        assert prediction_hash(run_of(daemon, file, **changes)) == prediction_hash(whole), changes
    assert len(np.unique(whole.predictions["forecasts"]["expected_return"][:, 0])) > 1000, "predictions say something"


def test_batch_splits_change_how_ticks_travel(daemon, file):
    natural, split = (run_of(daemon, file, speed=MAX, splits_seed=seed) for seed in (None, 3))
    messages = [len(np.unique(run.predictions["received_ns"])) for run in (natural, split)]
    assert messages[1] > 2 * messages[0] + 10, "each message has a stamp of its own"


def test_the_hash_is_the_same_in_any_process(daemon, file):
    hashes = {command(daemon, file, "--speed", "max", PYTHONHASHSEED=seed)["prediction_hash"] for seed in ("0", "77")}
    hashes.add(prediction_hash(run_of(daemon, file, speed=MAX)))
    assert len(hashes) == 1


def test_the_hash_of_a_filtered_replay_is_that_of_a_file_without_the_others(daemon, file, tmp_path):
    instruments, ticks = merge([open_ticks(file)])
    write_ticks(tmp_path / "eth.dbn", ticks[ticks["instrument_id"] == 2], instruments[1:])
    filtered = command(daemon, file, "--speed", "max", "--instruments", "ETHUSDT")
    alone = command(daemon, str(tmp_path / "eth.dbn"), "--speed", "max")
    assert filtered["ticks"] == alone["ticks"] == 3000
    assert filtered["prediction_hash"] == alone["prediction_hash"]


def test_two_files_merged_give_the_hash_of_the_whole(daemon, file, tmp_path):
    instruments, ticks = merge([open_ticks(file)])
    for one in instruments:
        part = ticks[ticks["instrument_id"] == one.instrument_id].copy()
        write_ticks(tmp_path / f"{one.symbol}.csv", part, [one])
    merged = command(daemon, str(tmp_path / "BTCUSDT.csv"), str(tmp_path / "ETHUSDT.csv"), "--speed", "max")
    assert merged["prediction_hash"] == prediction_hash(run_of(daemon, file, speed=MAX))


def test_every_format_gives_the_same_hash(daemon, file, tmp_path):
    expected = prediction_hash(run_of(daemon, file, speed=MAX))
    for name in ("day.parquet", "day.csv.gz"):
        assert main(["convert", file, str(tmp_path / name)]) == 0
        assert prediction_hash(run_of(daemon, str(tmp_path / name), speed=MAX)) == expected


def test_true_speed_takes_as_long_as_the_market_did(daemon, file):
    instruments, ticks = merge([open_ticks(file)])
    ticks = ticks[cut(ticks["ts_recv"], 0, 1.0)]
    run = replay(ReplayPlan(instruments, ticks, daemon.address))
    check_accounting(run)
    market_ns = int(ticks["ts_recv"][-1] - ticks["ts_recv"][0])
    assert run.scheduled_ns[-1] - run.scheduled_ns[0] == market_ns
    assert run.received_ns[-1] - run.start_ns >= market_ns
    assert (np.diff(run.received_ns) >= 0).all()
    assert run.plan.pace.name == "REALTIME"


@pytest.mark.recorded
@pytest.mark.parametrize("name", ["binance_usdm_20240808", "binance_spot_btcusdt_20240808", "fxcm_eurusd_20140508"])
def test_a_stretch_of_a_recorded_file_has_one_hash(daemon, recorded_file, name):
    instruments, ticks = merge([open_ticks(recorded_file(f"{name}.mbp-1.dbn.zst"))])
    start = busiest_start(ticks["ts_recv"], 10**10)
    ticks = ticks[start : start + 9000]
    seconds = int(ticks["ts_recv"][-1] - ticks["ts_recv"][0]) / 1e9
    runs = [
        replay(ReplayPlan(instruments, ticks, daemon.address, **changes))
        for changes in ({"speed": MAX}, {"speed": max(seconds, 1.0)}, {"speed": MAX, "splits_seed": 5})
    ]
    for run in runs:
        check_accounting(run)
    assert len({prediction_hash(run) for run in runs}) == 1


@pytest.mark.recorded
def test_recorded_files_merge_and_replay(daemon, recorded_file):
    usdm = recorded_file("binance_usdm_20240808.mbp-1.dbn.zst")
    spot = recorded_file("binance_spot_btcusdt_20240808.mbp-1.dbn.zst")
    arguments = (str(usdm), str(spot), "--dataset", "BINANCE.USDM", "--dataset", "BINANCE.SPOT", "--seconds", "10")
    first, second = (command(daemon, *arguments, "--speed", speed) for speed in ("max", "20"))
    assert [one["symbol"] for one in first["instruments"]] == ["BTCUSDT", "ETHUSDT", "BTCUSDT"]
    assert [one["size_scale"] for one in first["instruments"]] == [1000, 1000, 100_000]
    assert first["prediction_hash"] == second["prediction_hash"]
    assert first["ticks"] == second["predictions"] > 1000


def test_a_daemon_recording_replays_to_the_same_hash(file, tmp_path):
    save_model(random_model(12, units=64, fan_in=4, rebuild_ticks=64), tmp_path / "small.safetensors")
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    with running_daemon(
        tmp_path, f"models.folder={tmp_path}", "models.active=small.safetensors", f"record.folder={recordings}"
    ) as recorder:
        first = run_of(recorder, file, speed=MAX)
        deadline = time.monotonic() + 60
        while not list(recordings.glob("*.dbn")) and time.monotonic() < deadline:
            time.sleep(0.05)
        (recording,) = recordings.glob("*.dbn")
        recorded = open_ticks(recording)
        assert recorded.keeps_order
        assert recorded.ticks.tobytes() == first.plan.ticks.tobytes()
        assert recorded.instruments == first.plan.instruments
        assert prediction_hash(run_of(recorder, str(recording), speed=MAX)) == prediction_hash(first)


def test_the_command_writes_everything_and_names_it(daemon, file, tmp_path, capsys):
    arguments = ["replay", file, "--to", daemon.address, "--speed", "max", "--seconds", "1"]
    names = [str(tmp_path / name) for name in ("out.parquet", "raw.npy", "report.html")]
    assert main([*arguments, "--out", names[0], "--raw", names[1], "--report", names[2]]) == 0
    text = capsys.readouterr().out
    for name in names:
        assert f"written      {name}" in text
    table = parquet.read_table(names[0])
    raw = np.load(names[1], allow_pickle=False)
    assert table.num_rows == len(raw) > 1000
    assert "next_probability_up" in table.column_names
    assert Path(names[2]).read_text().startswith("<!doctype html>")


def test_a_promise_that_is_missed_is_exit_code_1(daemon, file, capsys):
    arguments = ["replay", file, "--to", daemon.address, "--speed", "max", "--seconds", "0.2", "--quiet"]
    assert main([*arguments, "--require-share", "1.1"]) == 1
    assert main([*arguments, "--require-p99-us", "0.001"]) == 1
    assert main([*arguments, "--require-hash", "beef"]) == 1
    error = capsys.readouterr().err
    for sentence in ("below --require-share 1.1", "above --require-p99-us 0.001", "is not --require-hash beef"):
        assert sentence in error
    assert main([*arguments, "--require-share", "0", "--require-p99-us", "1e9", "--require-hash", ""]) == 0


def test_a_model_that_is_not_there_is_exit_code_3(daemon, file, capsys):
    assert main(["replay", file, "--to", daemon.address, "--model", "nobody"]) == 3
    error = capsys.readouterr().err
    assert "NOT_FOUND" in error
    assert "nobody" in error


def test_an_interrupt_ends_the_replay_with_the_report_so_far(daemon, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "__call__", lambda _self, run: interrupt(run.answered > 0))
    arguments = ["replay", file, "--to", daemon.address, "--speed", "0.05", "--out", str(tmp_path / "out.npy")]
    assert main(arguments) == 130
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert "interrupted  by SIGINT; 6,000 ticks were planned" in output.out
    assert " 0 lost" in output.out
    assert 0 < len(np.load(tmp_path / "out.npy", allow_pickle=False)) < 6000


def test_an_interrupt_before_the_session_is_open_ends_at_once(file, tmp_path):
    threading.Timer(0.3, interrupt).start()
    started = time.monotonic()
    assert main(["replay", file, "--to", f"unix:{tmp_path}/none.sock", "--timeout", "60"]) == 130
    assert time.monotonic() - started < 30


def test_a_daemon_that_dies_is_a_sentence_and_exit_code_3(file, tmp_path, monkeypatch, capsys):
    save_model(random_model(12, units=64, fan_in=4, rebuild_ticks=64), tmp_path / "small.safetensors")
    with running_daemon(tmp_path, f"models.folder={tmp_path}", "models.active=small.safetensors") as doomed:
        monkeypatch.setattr(Progress, "__call__", lambda _self, run: doomed.kill() if run.answered else None)
        assert main(["replay", file, "--to", doomed.address, "--timeout", "1"]) == 3
    output = capsys.readouterr().out
    assert "failed       the connection to unix:" in output
    assert " 0 lost" not in output


def test_a_daemon_that_hangs_is_given_up_and_the_command_ends(file, tmp_path):
    save_model(random_model(12, units=64, fan_in=4, rebuild_ticks=64), tmp_path / "small.safetensors")
    with running_daemon(tmp_path, f"models.folder={tmp_path}", "models.active=small.safetensors") as doomed:
        done = hung = None
        process = subprocess.Popen(
            [sys.executable, "-c", HANGS_WITH_ITS_DAEMON.format(pid=doomed.pid), "replay", file, "--to", doomed.address,
             "--timeout", "1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            done = process.communicate(timeout=60)
        except subprocess.TimeoutExpired as timeout:
            hung = timeout
            process.kill()
        finally:
            doomed.process.send_signal(signal.SIGCONT)
    assert hung is None, "the command waits for a daemon that hangs"
    assert done is not None
    assert process.returncode in (1, 3), done[1]
    assert "no answer" in done[1]
    assert json.loads(done[0])["lost"] > 0


HANGS_WITH_ITS_DAEMON = """
import os, signal, sys
from penstock_client.cli import main
from penstock_client.replay_progress import Progress
Progress.__call__ = lambda _self, run: os.kill({pid}, signal.SIGSTOP) if run.answered else None
sys.exit(main())
"""


def interrupt(now: bool = True) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGINT)
