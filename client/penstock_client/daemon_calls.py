"""The daemon's other services, for commands: one blocking call each, refusals as this package's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from penstock.v1 import daemon_pb2, latency_pb2, model_pb2
from penstock_client.channel import OPTIONS, checked_address
from penstock_client.errors import ConnectFailed
from penstock_client.refusals import ended_by

_MODELS: Final = "/penstock.v1.ModelService/"
_LATENCY: Final = "/penstock.v1.LatencyService/"
_DAEMON: Final = "/penstock.v1.DaemonService/"
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
SERVING: Final = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus.
HEALTH_NAMES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

_Answer = TypeVar("_Answer", bound=Message)


class DaemonCalls:
    """Calls to one daemon; to be used with ``with``.

    Args:
        address: as connect() takes it.
        timeout_s: for each call.

    Raises:
        LocalUsageError: the address is none.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self._address = checked_address(address)
        self._timeout_s = timeout_s
        self._channel: Any = grpc.insecure_channel(self._address, options=OPTIONS)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the channel."""
        self._channel.close()

    def health(self, service: str) -> str:
        """Return the health of *service*, "" for the whole daemon, as HEALTH_NAMES has it."""
        # Health's messages have one field each, numbered 1: the wrappers are the same on the wire, and save a package.
        answer = self._call(_HEALTH_CHECK, StringValue(value=service), Int32Value)
        return HEALTH_NAMES.get(answer.value, str(answer.value))

    def list_models(self) -> model_pb2.ListModelsResponse:
        """Return every loaded model, and which one is active."""
        return self._call(f"{_MODELS}ListModels", model_pb2.ListModelsRequest(), model_pb2.ListModelsResponse)

    def describe_model(self, name: str) -> model_pb2.DescribeModelResponse:
        """Return all about the model *name*; empty for the active one."""
        request = model_pb2.DescribeModelRequest(name=name)
        return self._call(f"{_MODELS}DescribeModel", request, model_pb2.DescribeModelResponse)

    def load_model(self, file: str) -> model_pb2.LoadModelResponse:
        """Have the daemon read *file* of its model folder."""
        request = model_pb2.LoadModelRequest(file=file)
        return self._call(f"{_MODELS}LoadModel", request, model_pb2.LoadModelResponse)

    def activate_model(self, name: str, *, open_sessions: bool) -> model_pb2.ActivateModelResponse:
        """Make *name* the model of new sessions, and on request of the open ones."""
        request = model_pb2.ActivateModelRequest(name=name, open_sessions=open_sessions)
        return self._call(f"{_MODELS}ActivateModel", request, model_pb2.ActivateModelResponse)

    def describe_daemon(self) -> daemon_pb2.DescribeDaemonResponse:
        """Return the daemon as it stands."""
        request = daemon_pb2.DescribeDaemonRequest()
        return self._call(f"{_DAEMON}DescribeDaemon", request, daemon_pb2.DescribeDaemonResponse)

    def latency(self) -> latency_pb2.GetLatencyResponse:
        """Return every histogram of the daemon as it stands."""
        return self._call(f"{_LATENCY}GetLatency", latency_pb2.GetLatencyRequest(), latency_pb2.GetLatencyResponse)

    def watch_latency(self, interval_ns: int, messages: int) -> Iterator[latency_pb2.WatchLatencyResponse]:
        """Yield what each interval added, *messages* times.

        Raises:
            ConnectFailed: nobody is there, or the daemon went away.
            SessionRefused: the daemon said no.
        """
        stub = self._channel.unary_stream(
            f"{_LATENCY}WatchLatency",
            request_serializer=latency_pb2.WatchLatencyRequest.SerializeToString,
            response_deserializer=latency_pb2.WatchLatencyResponse.FromString,
        )
        timeout_s = messages * interval_ns / 1e9 + self._timeout_s
        call = stub(latency_pb2.WatchLatencyRequest(interval_ns=interval_ns), timeout=timeout_s)
        try:
            for _ in range(messages):
                yield next(call)
        except StopIteration:
            raise ConnectFailed(f"the daemon at {self._address} stopped before the last interval; start it") from None
        except grpc.RpcError as error:
            raise self._failure(error) from error
        finally:
            call.cancel()

    def _call(self, method: str, request: Message, answer: type[_Answer]) -> _Answer:
        """Make one call.

        Raises:
            ConnectFailed: nobody is there, or no answer came in time.
            SessionRefused: the daemon said no.
        """
        stub = self._channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            response: _Answer = stub(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        return response

    def _failure(self, error: grpc.RpcError) -> Exception:
        """Return gRPC's *error* as one of this package's own."""
        end = ended_by(error)
        if end.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and not end.fault.reason:
            return ConnectFailed(
                f"no daemon answered at {self._address} within {self._timeout_s:g} s: {end.message}; "
                "start penstockd, or check the address (--to)"
            )
        return end.refusal()
