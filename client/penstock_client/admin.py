"""Questions to a running daemon: its models, its latencies, its health. One call each, for commands and operators.

Blocking, on gRPC's blocking stack: none of it lies on a tick's path. A refusal is SessionRefused, nobody there or no answer
in time ConnectFailed, as for a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import grpc

from penstock.v1 import latency_pb2, model_pb2
from penstock_client.channel import OPTIONS, checked_address
from penstock_client.errors import ConnectFailed, DaemonProtocolError
from penstock_client.refusals import ended_by

DEADLINE_S: Final = 5.0
_NOBODY: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
_HEALTH: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

_Answer = TypeVar("_Answer")


def list_models(address: str, *, deadline_s: float = DEADLINE_S) -> model_pb2.ListModelsResponse:
    """Return every model that is loaded, and which one is active."""
    request = model_pb2.ListModelsRequest()
    return _ask(address, "ModelService/ListModels", request, model_pb2.ListModelsResponse.FromString, deadline_s)


def describe_model(address: str, name: str = "", *, deadline_s: float = DEADLINE_S) -> model_pb2.DescribeModelResponse:
    """Return all about one model; of the active one where *name* is empty."""
    request = model_pb2.DescribeModelRequest(name=name)
    return _ask(address, "ModelService/DescribeModel", request, model_pb2.DescribeModelResponse.FromString, deadline_s)


def load_model(address: str, file: str, *, deadline_s: float = 60.0) -> model_pb2.LoadModelResponse:
    """Have the daemon read *file* of its model folder into a free slot."""
    request = model_pb2.LoadModelRequest(file=file)
    return _ask(address, "ModelService/LoadModel", request, model_pb2.LoadModelResponse.FromString, deadline_s)


def activate_model(
    address: str, name: str, *, open_sessions: bool = False, deadline_s: float = 60.0
) -> model_pb2.ActivateModelResponse:
    """Make a loaded model the one of new sessions, and of the open ones where *open_sessions* says so."""
    request = model_pb2.ActivateModelRequest(name=name, open_sessions=open_sessions)
    return _ask(address, "ModelService/ActivateModel", request, model_pb2.ActivateModelResponse.FromString, deadline_s)


def get_latency(
    address: str,
    *,
    path: latency_pb2.Path = latency_pb2.PATH_UNSPECIFIED,
    stage: latency_pb2.Stage = latency_pb2.STAGE_UNSPECIFIED,
    deadline_s: float = DEADLINE_S,
) -> latency_pb2.GetLatencyResponse:
    """Return the daemon's histograms as they stand."""
    request = latency_pb2.GetLatencyRequest(path=path, stage=stage)
    return _ask(address, "LatencyService/GetLatency", request, latency_pb2.GetLatencyResponse.FromString, deadline_s)


def watch_latency(
    address: str,
    *,
    interval_ns: int = 1_000_000_000,
    path: latency_pb2.Path = latency_pb2.PATH_UNSPECIFIED,
    stage: latency_pb2.Stage = latency_pb2.STAGE_UNSPECIFIED,
) -> Iterator[latency_pb2.WatchLatencyResponse]:
    """Yield what the histograms gained, again and again, until the daemon ends it or the caller stops iterating."""
    request = latency_pb2.WatchLatencyRequest(path=path, stage=stage, interval_ns=interval_ns)
    with _channel(address) as channel:
        call = channel.unary_stream("/penstock.v1.LatencyService/WatchLatency")(request.SerializeToString())
        try:
            for data in call:
                yield latency_pb2.WatchLatencyResponse.FromString(data)
        finally:
            call.cancel()


def check_health(address: str, service: str = "", *, deadline_s: float = DEADLINE_S) -> str:
    """Return what grpc.health.v1 says of *service*, such as "SERVING"; of the daemon as a whole where it is empty."""
    # Two messages of one field each, so that a strategy needs no package for them.
    name = service.encode()
    if len(name) > 127:
        raise DaemonProtocolError(f"no service has a name of {len(name)} bytes")
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    data: bytes = _ask_bytes(address, "/grpc.health.v1.Health/Check", request, deadline_s)
    return _HEALTH.get(data[1] if len(data) == 2 and data[0] == 8 else 0, "UNKNOWN")


def _ask(address: str, method: str, request: Any, parse: Callable[[bytes], _Answer], deadline_s: float) -> _Answer:
    return parse(_ask_bytes(address, f"/penstock.v1.{method}", request.SerializeToString(), deadline_s))


def _ask_bytes(address: str, method: str, request: bytes, deadline_s: float) -> bytes:
    with _channel(address) as channel:
        return bytes(channel.unary_unary(method)(request, timeout=deadline_s))


@contextmanager
def _channel(address: str) -> Iterator[Any]:
    """Give a channel, and translate how its calls end."""
    checked = checked_address(address)
    with grpc.insecure_channel(checked, options=OPTIONS) as channel:
        try:
            yield channel
        except grpc.RpcError as exc:
            end = ended_by(exc)
            if end.code in _NOBODY and not end.fault.reason:
                raise ConnectFailed(
                    f"no daemon answered at {checked}: {end}; start penstockd, or check the address"
                ) from exc
            raise end.refusal() from exc
