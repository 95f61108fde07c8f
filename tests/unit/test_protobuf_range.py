"""The generated modules work with the oldest and the newest runtimes that pyproject.toml allows.

A strategy has protobuf and grpcio of its own. The oldest that has a wheel differs by Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import google.protobuf
import pytest

from penstock.v1 import prediction_pb2 as pb
from support.installing import clean_environment, packages_apart

OLDEST = {
    (3, 11): ("protobuf==4.25.3", "grpcio==1.62.3", "numpy==1.26.0"),
    (3, 12): ("protobuf==4.25.3", "grpcio==1.62.3", "numpy==1.26.0"),
    (3, 13): ("protobuf==4.25.3", "grpcio==1.66.2", "numpy==2.1.0"),
    (3, 14): ("protobuf==5.26.1", "grpcio==1.75.1", "typing-extensions==4.12.2", "numpy==2.3.3"),
}[sys.version_info[:2]]

IN_THE_OTHER_RUNTIME = """
import json, sys, tempfile
from concurrent import futures

import google.protobuf, grpc, numpy
from penstock.v1 import latency_pb2, latency_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from penstock.v1 import daemon_pb2, daemon_pb2_grpc, records, status_pb2

response = prediction_pb2.StreamPredictionsResponse.FromString(bytes.fromhex(sys.argv[1]))
details = status_pb2.StatusDetails(code=9)
details.details.add().Pack(status_pb2.Fault(reason="SEQUENCE_GAP"))
fault = status_pb2.Fault()
assert status_pb2.StatusDetails.FromString(details.SerializeToString()).details[0].Unpack(fault)


class Models(model_pb2_grpc.ModelServiceServicer):
    def ListModels(self, request, context):
        return model_pb2.ListModelsResponse(models=[response.welcome.model], active=response.welcome.model.name)


with tempfile.TemporaryDirectory() as folder:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    model_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    server.add_insecure_port(f"unix:{folder}/s")
    server.start()
    with grpc.insecure_channel(f"unix:{folder}/s") as channel:
        listed = model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest(), timeout=20)
    server.stop(None).wait()

print(json.dumps({
    "protobuf": google.protobuf.__version__,
    "grpc": grpc.__version__,
    "numpy": numpy.__version__,
    "which": response.WhichOneof("message"),
    "horizon": response.welcome.horizons[1].kind,
    "again": response.SerializeToString(deterministic=True).hex(),
    "active": listed.active,
    "serial": listed.models[0].serial,
    "reason": fault.reason,
    "prediction_bytes": records.PREDICTION_DTYPE.itemsize,
}))
"""


def a_response() -> pb.StreamPredictionsResponse:
    """Fill one message with every kind of field: nested, repeated, enum, bytes, bool, oneof, 64-bit."""
    welcome = pb.Welcome(session_id=2**64 - 1, budget_ns=5_000_000, resume_token=bytes(range(64)), rebuild_ticks=700)
    welcome.instruments.add(instrument_id=2**32 - 1, dataset="BINANCE.USDM", symbol="BTCUSDT", size_scale=1000)
    welcome.model.name, welcome.model.serial, welcome.model.demonstration = "demonstration", 0xDEADBEEF, True
    welcome.horizons.add(name="next", kind=pb.Horizon.KIND_NEXT_MOVE)
    welcome.horizons.add(name="100ms", kind=pb.Horizon.KIND_TIME, duration_ns=100_000_000)
    return pb.StreamPredictionsResponse(welcome=welcome)


def speak(path: str) -> dict[str, object]:
    data = a_response().SerializeToString(deterministic=True)
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_OTHER_RUNTIME, data.hex()],
        env=clean_environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    assert said.pop("again") == data.hex()
    return said


def spoken(**versions: str) -> dict[str, object]:
    return {
        **versions,
        "which": "welcome",
        "horizon": pb.Horizon.KIND_TIME,
        "active": "demonstration",
        "serial": 0xDEADBEEF,
        "reason": "SEQUENCE_GAP",
        "prediction_bytes": 128,
    }


@pytest.mark.install
def test_modules_speak_with_the_oldest_runtime(repository_root: Path) -> None:
    folder = packages_apart(repository_root / ".tools", "oldest", *OLDEST)
    said = speak(f"{folder}:{repository_root / 'protos'}")
    pinned = {requirement.split("==")[0]: requirement.split("==")[1] for requirement in OLDEST}
    assert said == spoken(protobuf=pinned["protobuf"], grpc=pinned["grpcio"], numpy=pinned["numpy"])


def test_modules_speak_with_the_newest_runtime(repository_root: Path) -> None:
    pinned = dict(
        line.split("==")
        for line in (repository_root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    said = speak(str(repository_root / "protos"))
    assert said == spoken(protobuf=pinned["protobuf"], grpc=pinned["grpcio"], numpy=pinned["numpy"])
    assert google.protobuf.__version__ == pinned["protobuf"]


def test_oldest_runtimes_are_those_that_the_package_asks_for(repository_root: Path) -> None:
    project = tomllib.loads((repository_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = " ".join(project["dependencies"])
    for name, oldest in (("grpcio", "1.62.3"), ("protobuf", "4.25.3"), ("protobuf", "5.26.1"), ("numpy", "1.26")):
        assert f"{name}>={oldest}" in asked
