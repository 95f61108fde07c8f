"""Online readouts of a real daemon: what a session learns is what the kernels learn from the same ticks, and is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.v1 import model_pb2, model_pb2_grpc
from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_DTYPE, PROBABILITY_ONE
from penstock_client import Instrument
from penstock_client.cli import build_parser
from penstock_client.replay import MAX_SPEED, ReplayPlan, replay
from penstock_client.replay_command import plan_of
from penstock_daemon.online_snapshot import Owner, restore
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.model import Calibration, Model
from penstock_kernels.model_file import load_model
from penstock_kernels.online import online_observe
from penstock_kernels.online_drive import OnlinePlace, new_online_place, run_online
from penstock_kernels.online_layout import OnlineSettings
from penstock_kernels.predictor import pack
from penstock_tuning.model.targets import make_targets
from support.daemon import RunningDaemon, running_daemon, small, small_model, start_daemon
from support.models import HORIZONS, random_model
from support.raw_stream import RawStream, StreamEndError, hash_of, instruments, run_through
from support.simulated import market, of_instrument, pairwise_auc
from support.tick_stream import tick_stream
from support.victim import wait_until

STREAM = tick_stream(91, 900)
SETTINGS = OnlineSettings(units=4, forgetting=0.998, trace_max=10.0, updates_per_tick=2, pending_max=64)


def online(folder: Path, *sets: str) -> tuple[str, ...]:
    """Return the settings of a small daemon that allows online readouts as in SETTINGS."""
    return small(
        folder,
        "online.enabled=true",
        "online.states=3",
        f"online.units={SETTINGS.units}",
        f"online.forgetting={SETTINGS.forgetting}",
        f"online.trace_max={SETTINGS.trace_max}",
        f"online.updates_per_tick={SETTINGS.updates_per_tick}",
        f"online.pending_max={SETTINGS.pending_max}",
        *sets,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("online")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[RunningDaemon]:
    """A daemon that allows online readouts and keeps no snapshots."""
    with running_daemon(folder, *online(folder)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    """The model that the daemons of this page serve."""
    return load_model(small_model(folder)).model


def recorded(forecasts: NDArray[np.float32]) -> NDArray[np.void]:
    """Return forecasts of a drive as prediction records hold them."""
    expected = np.zeros(len(forecasts), PREDICTION_DTYPE)["forecasts"]
    expected["expected_return"], expected["deviation"] = forecasts[:, :, 0], forecasts[:, :, 1]
    up, down = (np.int64(forecasts[:, :, column].astype(np.float64) * PROBABILITY_ONE + 0.5) for column in (2, 3))
    expected["probability_up"] = up
    expected["probability_down"] = np.minimum(down, PROBABILITY_ONE - up)
    return expected


def leave(stream: RawStream) -> None:
    stream.goodbye()
    assert stream.end().code == "OK"


def through(daemon: RunningDaemon, ticks: NDArray[np.void], *, split: int = 50, **changes: object) -> NDArray[np.void]:
    """Return the predictions of a session of its own."""
    with RawStream(daemon.address) as stream:
        stream.hello(**changes)
        predictions = run_through(stream, ticks, split=split)
        leave(stream)
    return predictions


def refusal(daemon: RunningDaemon, **changes: object) -> StreamEndError:
    with RawStream(daemon.address) as stream:
        with pytest.raises(StreamEndError) as refused:
            stream.hello(**changes)
        return refused.value


def test_session_learns_what_the_kernels_learn_however_its_ticks_are_cut(daemon: RunningDaemon, model: Model) -> None:
    wanted = recorded(run_online(pack(model), STREAM, new_online_place(model, SETTINGS)))
    plain = recorded(run_predictions(pack(model), STREAM))
    assert wanted.tobytes() != plain.tobytes()
    hashes = set()
    for split in (1, 7, 200):
        predictions = through(daemon, STREAM, split=split, online_readout=True)
        assert predictions["forecasts"].tobytes() == wanted.tobytes()
        hashes.add(hash_of(predictions))
    assert len(hashes) == 1
    assert through(daemon, STREAM)["forecasts"].tobytes() == plain.tobytes(), "off by default"


def test_welcome_says_whether_it_is_on(daemon: RunningDaemon) -> None:
    for asked, said in ((False, pb.ONLINE_READOUT_OFF), (True, pb.ONLINE_READOUT_COLD)):
        with RawStream(daemon.address) as stream:
            assert stream.hello(online_readout=asked).online_readout == said
            leave(stream)


def test_rebuild_ticks_tell_the_book_and_teach_nothing(daemon: RunningDaemon, model: Model) -> None:
    before, after = STREAM[:64], STREAM[64:400]
    packed, place, learning = pack(model), new_place(pack(model)), new_online_place(model, SETTINGS)
    run_predictions(packed, before, place)
    for tick in before:
        online_observe(
            learning.words,
            learning.values,
            np.int64(tick["ts_recv"]),
            np.int64(tick["bid_px"]),
            np.int64(tick["ask_px"]),
        )
    wanted = recorded(run_online(packed, after, learning, place))
    with RawStream(daemon.address) as stream:
        stream.hello(online_readout=True)
        stream.rebuild(before)
        assert run_through(stream, after)["forecasts"].tobytes() == wanted.tobytes()
        leave(stream)


def test_resumed_session_goes_on_as_if_never_lost(daemon: RunningDaemon, model: Model) -> None:
    wanted = recorded(run_online(pack(model), STREAM, new_online_place(model, SETTINGS)))
    with RawStream(daemon.address) as first:
        token = first.hello(online_readout=True).resume_token
        session = first.welcome.session_id
        head = run_through(first, STREAM[:500])
    wait_until(lambda: any(one["session"] == session for one in daemon.events("session_ended")))
    other = refusal(daemon, resume_token=token, next_prediction_sequence=500)
    assert (other.code, other.reason) == ("FAILED_PRECONDITION", "RESUME_ONLINE")
    with RawStream(daemon.address) as second:
        welcome = second.hello(online_readout=True, resume_token=token, next_prediction_sequence=500)
        assert welcome.state_origin == pb.STATE_ORIGIN_RESUMED
        assert welcome.online_readout == pb.ONLINE_READOUT_LEARNED
        tail = run_through(second, STREAM[500:])
        leave(second)
    assert np.concatenate([head, tail])["forecasts"].tobytes() == wanted.tobytes()


def test_more_instruments_than_readouts_are_refused_and_nothing_is_kept_of_it(daemon: RunningDaemon) -> None:
    for _ in range(3):
        refused = refusal(daemon, online_readout=True, instruments=instruments(1, 2, 3, 4))
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "ONLINE_STATES")
        assert "3 online readouts are free" in refused.mend
    with RawStream(daemon.address) as stream:
        stream.hello(online_readout=True, instruments=instruments(1, 2, 3))
        assert refusal(daemon, online_readout=True).reason == "ONLINE_STATES"
        leave(stream)
    through(daemon, STREAM[:10], online_readout=True)


def test_daemon_that_allows_none_refuses_the_session(tmp_path: Path) -> None:
    with running_daemon(tmp_path, *small(tmp_path)) as daemon:
        refused = refusal(daemon, online_readout=True)
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "ONLINE_DISABLED")
        assert "online.enabled" in refused.mend
        with RawStream(daemon.address) as stream:
            assert stream.hello().online_readout == pb.ONLINE_READOUT_OFF


def kept_places(folder: Path, model: Model, file: Path, symbol: str) -> OnlinePlace:
    """Return what a snapshot holds, ready to go on."""
    place = new_online_place(model, SETTINGS)
    owner = Owner("raw", model.name, load_model(small_model(folder)).content_hash.hex(), "", symbol)
    assert file.name == owner.file_name
    restore(file.read_bytes(), owner, place.words, place.values)
    return place


def test_what_was_learned_survives_a_restart_and_a_damaged_snapshot_starts_cold(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    sets = online(tmp_path, f"online.snapshot_folder={kept}")
    model = load_model(small_model(tmp_path)).model
    with running_daemon(tmp_path, *sets) as daemon:
        through(daemon, STREAM[:500], online_readout=True)
        through(daemon, STREAM[:500], online_readout=True, client_name="")
        (file,) = kept.iterdir()
        learned = kept_places(tmp_path, model, file, "SYMBOL1")
    wanted = recorded(run_online(pack(model), STREAM[500:], learned))
    cold = recorded(run_online(pack(model), STREAM[500:], new_online_place(model, SETTINGS)))
    with running_daemon(tmp_path, *sets) as daemon:
        with RawStream(daemon.address) as stream:
            assert stream.hello(online_readout=True).online_readout == pb.ONLINE_READOUT_LEARNED
            assert run_through(stream, STREAM[500:])["forecasts"].tobytes() == wanted.tobytes()
            stream.close()  # Lost: it waits to be resumed when the daemon stops.
        old = file.read_bytes()
        wait_until(lambda: daemon.events("session_ended"))
        assert daemon.terminate() == 0
        assert file.read_bytes() != old, "a daemon that stops keeps what lost sessions learned"
    damaged = bytearray(old)
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    with running_daemon(tmp_path, *sets) as daemon:
        with RawStream(daemon.address) as stream:
            assert stream.hello(online_readout=True).online_readout == pb.ONLINE_READOUT_COLD
            assert run_through(stream, STREAM[500:])["forecasts"].tobytes() == cold.tobytes()
            leave(stream)
        (refused,) = daemon.events("online_snapshot_refused")
        assert "it is damaged" in str(refused["detail"])
        assert file.read_bytes() != bytes(damaged), "replaced when the session ended"
    small_model(tmp_path, 2, name=model.name, file="random-1.safetensors")
    with running_daemon(tmp_path, f"models.active={tmp_path}/random-1.safetensors", *sets[1:]) as daemon:
        with RawStream(daemon.address) as stream:
            assert stream.hello(online_readout=True).online_readout == pb.ONLINE_READOUT_COLD
            leave(stream)
        (refused,) = daemon.events("online_snapshot_refused")
        assert str(refused["detail"]).startswith("model_sha256 is ")


def test_client_that_comes_back_without_its_token_goes_on_with_what_it_learned(tmp_path: Path) -> None:
    sets = online(tmp_path, f"online.snapshot_folder={tmp_path}/kept")
    with running_daemon(tmp_path, *sets) as daemon:
        with RawStream(daemon.address) as stream:
            stream.hello(online_readout=True)
            run_through(stream, STREAM[:300])
        wait_until(lambda: daemon.events("session_ended"))
        with RawStream(daemon.address) as stream:
            assert stream.hello(online_readout=True).online_readout == pb.ONLINE_READOUT_LEARNED
            leave(stream)


def test_folder_that_cannot_be_written_costs_the_snapshot_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file, not a folder")
    with running_daemon(tmp_path, *online(tmp_path, f"online.snapshot_folder={tmp_path}/kept")) as daemon:
        through(daemon, STREAM[:200], online_readout=True)
        through(daemon, STREAM[:200], online_readout=True)
        assert len(daemon.events("online_snapshot_failed")) == 2


def test_memory_too_short_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"penstockd ended with [12].*(?s:.*)online\.forgetting: must be"):
        start_daemon(tmp_path, *small(tmp_path, "online.units=200", "online.forgetting=0.99"))


def test_market_whose_relation_turns_round_is_learned_anew_by_a_session_that_asks(tmp_path: Path) -> None:
    made = market(seed=4, seconds=30.0)
    ticks = of_instrument(made.ticks, made.ticks["instrument_id"][0]).copy()
    half = len(ticks) // 2
    turned = ticks[half:]
    turned["bid_sz"], turned["ask_sz"] = turned["ask_sz"].copy(), turned["bid_sz"].copy()
    readout = np.zeros((3, 8 + len(FEATURE_NAMES) + 1), np.float32)
    readout[1, 8 + FEATURE_NAMES.index("imbalance")] = 1.0
    base = random_model(1, units=8, fan_in=2, horizons=HORIZONS[:1], rebuild_ticks=64)
    calibration = (Calibration(return_scale=1e-4, direction_slope=2.0),)
    changes = {"units": 8, "fan_in": 2, "horizons": base.horizons, "readout": readout, "calibration": calibration}
    path = small_model(tmp_path, 1, file="queue.safetensors", **changes)
    sets = online(tmp_path, f"models.active={path}")
    ids = {"instruments": [pb.Instrument(instrument_id=int(ticks["instrument_id"][0]), symbol="A")]}
    with running_daemon(tmp_path, *sets) as daemon:
        plain = through(daemon, ticks, split=200, **ids)["forecasts"]
        learned = through(daemon, ticks, split=200, online_readout=True, **ids)["forecasts"]
    targets = make_targets(ticks, base.horizons[0])
    rows = np.flatnonzero(targets.known)
    rows = rows[rows >= half + len(turned) // 2]
    up = targets.direction[rows] > 0
    before = pairwise_auc(plain["probability_up"][rows, 0].astype(float), up)
    after = pairwise_auc(learned["probability_up"][rows, 0].astype(float), up)
    assert before < 0.5
    assert after > 0.55


def test_switched_model_starts_from_nothing_and_what_the_old_one_learned_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    small_model(tmp_path, 1, name="alpha", rebuild_ticks=64)
    beta = load_model(small_model(tmp_path, 2, name="beta", rebuild_ticks=64)).model
    sets = online(tmp_path, f"online.snapshot_folder={kept}", f"models.folder={tmp_path}", "models.active=alpha")
    with running_daemon(tmp_path, *sets) as daemon, grpc.insecure_channel(daemon.address) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        with RawStream(daemon.address) as stream:
            stream.hello(online_readout=True)
            run_through(stream, STREAM[:300])
            models.LoadModel(model_pb2.LoadModelRequest(file="beta.safetensors"), timeout=20)
            switch = model_pb2.ActivateModelRequest(name="beta", open_sessions=True)
            assert models.ActivateModel(switch, timeout=20).sessions_switched == 1
            assert len(list(kept.iterdir())) == 1
            served = run_through(stream, STREAM[300:])["forecasts"]
            leave(stream)
        assert len(list(kept.iterdir())) == 2
    packed, place = pack(beta), new_place(pack(beta))
    run_predictions(packed, STREAM[300 - 64 : 300], place)
    wanted = recorded(run_online(packed, STREAM[300:], new_online_place(beta, SETTINGS), place))
    assert served.tobytes() == wanted.tobytes()


def test_replayed_file_gives_the_same_hash_each_time_and_another_one_than_without(tmp_path: Path) -> None:
    sets = online(tmp_path, f"online.snapshot_folder={tmp_path}/kept")
    plan = ReplayPlan([Instrument(1, "SYMBOL1")], STREAM, "", speed=MAX_SPEED)
    hashes = []
    with running_daemon(tmp_path, *sets) as daemon:
        for asked in (False, True, True):
            name = "" if asked else plan.client_name
            run = replay(replace(plan, address=daemon.address, online_readout=asked, client_name=name))
            assert run.failure is None
            assert run.answered == len(STREAM)
            hashes.append(hash_of(run.predictions))
        assert not (tmp_path / "kept").exists()
    assert hashes[1] == hashes[2] != hashes[0]


def test_command_asks_for_it_without_a_client_name(tmp_path: Path) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text("ts_recv,symbol,bid_px,ask_px,bid_sz,ask_sz\n1000,A,100,101,5,6\n2000,A,100,102,5,6\n")
    plans = [plan_of(build_parser().parse_args(["replay", str(file), *more])) for more in ((), ("--online",))]
    assert [(plan.online_readout, plan.client_name) for plan in plans] == [(False, "penstock replay"), (True, "")]
