"""Models change while sessions run: the next tick is answered by the new one, as if it had seen the last ticks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.v1 import model_pb2, model_pb2_grpc
from penstock.v1 import prediction_pb2 as pb
from penstock_kernels.model_file import load_model
from penstock_kernels.predictor import pack
from support.daemon import RunningDaemon, running_daemon, small_model
from support.engines import driven
from support.models import HORIZONS
from support.raw_stream import RawStream, StreamEndError, end_of, instruments, run_through
from support.scrape import scrape
from support.segment_client import attach
from support.tick_stream import tick_stream

REBUILD = {"alpha": 64, "beta": 200}
STREAM = tick_stream(71, 1200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: alpha and beta predict the same horizons, gamma predicts others, large and bad are refused."""
    folder = tmp_path_factory.mktemp("models")
    small_model(folder, 1, name="alpha", rebuild_ticks=REBUILD["alpha"])
    beta = small_model(folder, 2, name="beta", rebuild_ticks=REBUILD["beta"], units=48)
    small_model(folder, 3, name="gamma", horizons=HORIZONS[:1])
    small_model(folder, 4, name="large", units=128)
    (folder / "bad.safetensors").write_bytes(beta.read_bytes()[:500])
    return folder


def start(folder: Path, slots: int, socket: str = "penstock.sock") -> contextlib.AbstractContextManager[RunningDaemon]:
    sets = (
        f"models.folder={folder}",
        "models.active=alpha",
        f"models.slots={slots}",
        "models.units_max=64",
        "sessions.in_flight_max=256",
        "metrics.address=127.0.0.1:0",
    )
    return running_daemon(folder, *sets, address=f"unix:{folder}/{socket}")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[RunningDaemon]:
    with start(folder, slots=8) as daemon:
        yield daemon


@pytest.fixture
def models(daemon: RunningDaemon) -> Iterator[Any]:
    """The ModelService; alpha is active again after the test."""
    with grpc.insecure_channel(daemon.address) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        yield models
        activate(models, "alpha")


@contextlib.contextmanager
def session(daemon: RunningDaemon, **changes: Any) -> Iterator[RawStream]:
    """A session that takes its leave, so that nothing of it waits to be resumed."""
    with RawStream(daemon.address) as stream:
        stream.hello(**changes)
        yield stream
        stream.goodbye()
        assert stream.end().code == "OK"


def load(models: Any, name: str) -> model_pb2.ModelSummary:
    return models.LoadModel(model_pb2.LoadModelRequest(file=f"{name}.safetensors"), timeout=20).model


def activate(models: Any, name: str, *, open_sessions: bool = False) -> int:
    request = model_pb2.ActivateModelRequest(name=name, open_sessions=open_sessions)
    return models.ActivateModel(request, timeout=20).sessions_switched


def refused(call: Callable[[], object]) -> StreamEndError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return end_of(error.value)


def active(models: Any) -> tuple[list[str], str]:
    response = models.ListModels(model_pb2.ListModelsRequest(), timeout=20)
    return [one.name for one in response.models], response.active


def forecasts(folder: Path, name: str, ticks: np.ndarray) -> np.ndarray:
    return driven(pack(load_model(folder / f"{name}.safetensors").model), ticks)[0]


def test_open_session_goes_on_with_another_model(daemon: RunningDaemon, models: Any, folder: Path) -> None:
    with session(daemon) as stream, session(daemon, instruments=instruments(1, 2, 3)):
        welcome = stream.welcome
        before = run_through(stream, STREAM[:500])
        beta = load(models, "beta")
        assert active(models)[1] == "alpha", "loaded is not active"
        assert activate(models, "beta", open_sessions=True) == 2
        after = run_through(stream, STREAM[500:700])
        assert activate(models, "beta", open_sessions=True) == 0
        with session(daemon) as late:
            assert late.welcome.model.name == "beta"
    assert welcome.model.name == "alpha"
    assert set(before["model_serial"]) == {welcome.model.serial}
    assert set(after["model_serial"]) == {beta.serial}
    assert before["forecasts"].tobytes() == forecasts(folder, "alpha", STREAM[:500]).tobytes()
    start = 500 - REBUILD["beta"]
    assert after["forecasts"].tobytes() == forecasts(folder, "beta", STREAM[start:700])[REBUILD["beta"] :].tobytes()
    assert after["sequence"].tolist() == list(range(500, 700))


def test_session_over_shared_memory_goes_on_with_another_model(
    daemon: RunningDaemon, models: Any, folder: Path
) -> None:
    with RawStream(daemon.address) as stream, attach(stream.hello(shared_memory=True)) as segment:
        segment.publish(STREAM[:500])
        before = segment.predictions(500)
        load(models, "beta")
        assert activate(models, "beta", open_sessions=True) == 1
        segment.publish(STREAM[500:700])
        after = segment.predictions(200)
        stream.goodbye()
        assert stream.end().code == "OK"
    assert before["forecasts"].tobytes() == forecasts(folder, "alpha", STREAM[:500]).tobytes()
    start = 500 - REBUILD["beta"]
    assert after["forecasts"].tobytes() == forecasts(folder, "beta", STREAM[start:700])[REBUILD["beta"] :].tobytes()
    assert after["sequence"].tolist() == list(range(500, 700))


def test_every_tick_has_one_answer_whenever_models_change(daemon: RunningDaemon, models: Any) -> None:
    serials = {"alpha": load(models, "alpha").serial, "beta": load(models, "beta").serial}
    with session(daemon) as stream:
        found = []
        for turn in range(12):
            ticks = STREAM[100 * turn : 100 * (turn + 1)]
            stream.ticks(ticks[:60])
            assert activate(models, ("beta", "alpha")[turn % 2], open_sessions=True) == 1
            stream.ticks(ticks[60:])
            found.append(stream.predictions(100))
    answers = np.concatenate(found)
    assert answers["sequence"].tolist() == list(range(1200))
    for turn in range(12):
        part = answers["model_serial"][100 * turn : 100 * (turn + 1)]
        assert part[-1] == serials[("beta", "alpha")[turn % 2]]
        assert (np.diff(part.astype(np.int64)) != 0).sum() <= 1, "one change, between two ticks"


def test_models_with_other_horizons_are_for_new_sessions_alone(daemon: RunningDaemon, models: Any) -> None:
    load(models, "gamma")
    with session(daemon) as stream:
        end = refused(lambda: activate(models, "gamma", open_sessions=True))
        assert (end.code, end.reason, end.value) == ("FAILED_PRECONDITION", "MODEL_HORIZONS", "gamma")
        assert f"session {stream.welcome.session_id} was welcomed with the horizons of 'alpha'" in end.message
        assert active(models)[1] == "alpha", "nothing has changed"
        assert activate(models, "gamma") == 0
        with session(daemon) as new:
            assert (new.welcome.model.name, len(new.welcome.horizons)) == ("gamma", 1)
            assert (run_through(new, STREAM[:20])["horizons"] == 1).all()
        with session(daemon, model="alpha") as named:
            assert named.welcome.model.name == "alpha"
        assert (run_through(stream, STREAM[:20])["horizons"] == 3).all()


def test_refused_loads_say_why_and_change_nothing(daemon: RunningDaemon, models: Any, folder: Path) -> None:
    def loading(file: str) -> StreamEndError:
        return refused(lambda: models.LoadModel(model_pb2.LoadModelRequest(file=file), timeout=20))

    before, counted = active(models), scrape(daemon)
    for file in ("", "../alpha.safetensors", "/etc/passwd", str(folder / "alpha.safetensors"), "below/alpha"):
        end = loading(file)
        assert (end.code, end.reason) == ("INVALID_ARGUMENT", "MODEL_FILE_NAME"), file
    for file in ("none.safetensors", "..", "x" * 300, "nul\0byte"):
        end = loading(file)
        assert (end.code, end.reason) == ("NOT_FOUND", "MODEL_FILE_MISSING"), file
        assert end.mend == f"put the file into {folder}"
    for file, word in (("bad.safetensors", "refused"), ("large.safetensors", "units was 128")):
        end = loading(file)
        assert (end.code, end.reason) == ("INVALID_ARGUMENT", "MODEL_REFUSED"), file
        assert word in end.message
    end = refused(lambda: activate(models, "nobody"))
    assert (end.code, end.reason, end.field) == ("NOT_FOUND", "MODEL_UNKNOWN", "ActivateModelRequest.name")
    end = refused(lambda: models.DescribeModel(model_pb2.DescribeModelRequest(name="nobody"), timeout=20))
    assert (end.code, end.reason, end.field) == ("NOT_FOUND", "MODEL_UNKNOWN", "DescribeModelRequest.name")
    assert active(models) == before
    after = scrape(daemon)
    for reason, times in (("MODEL_FILE_NAME", 5), ("MODEL_FILE_MISSING", 4), ("MODEL_REFUSED", 2)):
        name = f'penstock_refusals_total{{reason="{reason}"}}'
        assert after[name] == counted.get(name, 0) + times


def test_slots_are_bounded(folder: Path) -> None:
    with start(folder, slots=2, socket="two.sock") as daemon, grpc.insecure_channel(daemon.address) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        load(models, "beta")
        for name in ("gamma", "beta"):
            end = refused(lambda name=name: load(models, name))
            assert (end.code, end.reason, end.value) == ("RESOURCE_EXHAUSTED", "MODEL_SLOTS", "2")
        assert active(models) == (["alpha", "beta"], "alpha")


def test_reloading_a_file_that_changed_serves_the_new_one(daemon: RunningDaemon, models: Any, folder: Path) -> None:
    first = load(models, "beta")
    for seed in range(11, 20):  # More often than there are slots.
        small_model(folder, seed, name="beta", units=32)
        again = load(models, "beta")
        assert again.content_hash != first.content_hash
        assert activate(models, "beta") == 0
        with session(daemon) as stream:
            assert stream.welcome.model.content_hash == again.content_hash
            found = run_through(stream, STREAM[:30])
        assert found["forecasts"].tobytes() == forecasts(folder, "beta", STREAM[:30]).tobytes()
    small_model(folder, 2, name="beta", rebuild_ticks=REBUILD["beta"], units=48)


def test_description_has_what_the_file_says(models: Any, folder: Path) -> None:
    told = models.DescribeModel(model_pb2.DescribeModelRequest(), timeout=20)
    model = load_model(folder / "alpha.safetensors")
    assert told.model.name == "alpha"
    assert told.model.content_hash == model.content_hash
    assert told.model.serial == int.from_bytes(model.content_hash[:4], "big")
    assert told.model.demonstration
    assert told.model.notice == "Drawn at random for a test."
    assert (told.units, told.topology, told.rebuild_ticks) == (64, "cyclic", 64)
    assert tuple(told.features) == model.model.features
    assert pb.Horizon.KIND_NEXT_MOVE == 1


def test_daemon_without_a_model_folder_loads_none(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    with (
        running_daemon(tmp_path, f"models.active={model}", "models.units_max=64") as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        end = refused(lambda: load(model_pb2_grpc.ModelServiceStub(channel), "random-1"))
    assert (end.code, end.reason, end.field) == ("NOT_FOUND", "NO_MODEL_FOLDER", "models.folder")
