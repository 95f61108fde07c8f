"""A gRPC server over a real socket that does what a test tells it: for ends, silences and nonsense no daemon can be asked for.

A script is a generator: it takes requests from ``stream`` and yields responses. Each new stream plays the next script,
the last one again and again. What goes wrong in a script is raised when the server stops.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import any_pb2

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import status_pb2
from support.model_daemon import ModelDaemon, ModelSession

Script = Callable[["ServerStream"], Iterator[pb.StreamPredictionsResponse | bytes]]


class StreamOverError(Exception):
    """The client's side of the stream is over: the script has nothing more to read."""


class ServerStream:
    """One stream, as its script sees it."""

    def __init__(self, server: ScriptedServer, requests: Iterator[bytes], context: Any, number: int) -> None:
        self.server = server
        self.context = context
        self.number = number  # 0 for the server's first.
        self._requests = requests

    def receive(self) -> pb.StreamPredictionsRequest:
        """Wait for the next request."""
        try:
            request = pb.StreamPredictionsRequest.FromString(next(self._requests))
        except (StopIteration, grpc.RpcError) as exc:
            raise StreamOverError from exc
        self.server.requests.append((time.monotonic(), self.number, request))
        return request

    def hello(self) -> pb.Hello:
        """Wait for Hello."""
        request = self.receive()
        assert request.WhichOneof("message") == "hello", request
        return request.hello

    def ticks(self) -> pb.TickBatch:
        """Wait for ticks, past heartbeats."""
        while True:
            request = self.receive()
            if request.WhichOneof("message") == "ticks":
                return request.ticks
            assert request.WhichOneof("message") == "heartbeat", request

    def receive_all(self) -> None:
        """Note every request until the stream is over."""
        with contextlib.suppress(StreamOverError):
            while True:
                self.receive()

    def open(self) -> tuple[ModelSession, pb.StreamPredictionsResponse]:
        """Wait for Hello and answer it by the rules."""
        session, welcome = self.server.daemon.open(self.hello())
        return session, pb.StreamPredictionsResponse(welcome=welcome)

    def abort(self, code: grpc.StatusCode, message: str, fault: status_pb2.Fault | None = None) -> None:
        """End the stream with a status, as the daemon does."""
        if fault is not None:
            packed = any_pb2.Any()
            packed.Pack(fault)
            details = status_pb2.StatusDetails(code=code.value[0], message=message, details=[packed])
            self.context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
        self.context.abort(code, message)

    def drop(self) -> None:
        """Break the stream off without a word."""
        self.context.cancel()
        raise StreamOverError


def by_the_rules(stream: ServerStream) -> Iterator[pb.StreamPredictionsResponse]:
    """Serve as the daemon would."""
    session, welcome = stream.open()
    yield welcome
    yield from until_goodbye(stream, session)


def until_goodbye(stream: ServerStream, session: ModelSession) -> Iterator[pb.StreamPredictionsResponse]:
    """Serve as the daemon would after Welcome; a heartbeat is answered by a heartbeat."""
    yield from session.give(1 << 20)
    while True:
        request = stream.receive()
        kind = request.WhichOneof("message")
        if kind == "goodbye":
            return
        if kind == "ticks":
            session.take(request.ticks)
            yield from session.give(1 << 20)
        if kind == "heartbeat":
            yield pb.StreamPredictionsResponse(heartbeat=pb.Heartbeat(sent_ns=1))


class ScriptedServer:
    """The server; use it with ``with``.

    Args:
        address: "unix:/path" or "127.0.0.1:0".
        scripts: one per stream, the last one for all that follow.
        daemon: what rule-abiding scripts ask.
    """

    def __init__(self, address: str | Path, *scripts: Script, daemon: ModelDaemon | None = None) -> None:
        self.address = f"unix:{address}" if isinstance(address, Path) else address
        self.daemon = daemon or ModelDaemon(in_flight_max=64, rebuild_ticks=4)
        self.requests: list[tuple[float, int, pb.StreamPredictionsRequest]] = []
        self.errors: list[BaseException] = []
        self._scripts = scripts or (by_the_rules,)
        self._streams = 0
        self._lock = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="scripted server")
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(self._play, request_deserializer=None, response_serializer=None)
        service = grpc.method_handlers_generic_handler("penstock.v1.PredictionService", {"StreamPredictions": handler})
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port(self.address)
        if self.address.endswith(":0"):
            self.address = f"{self.address[:-2]}:{port}"
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self.errors:
            raise self.errors[0]

    def stop(self) -> None:
        """Break every connection and wait until the scripts have ended."""
        self._server.stop(0).wait()
        self._pool.shutdown()

    def kinds(self, stream: int | None = None) -> list[str]:
        """Return the kinds of the requests so far, of one stream or of all."""
        return [str(one.WhichOneof("message")) for _, number, one in list(self.requests) if stream in (None, number)]

    def _play(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        with self._lock:
            number = self._streams
            self._streams += 1
        script = self._scripts[min(number, len(self._scripts) - 1)]
        try:
            for response in script(ServerStream(self, requests, context, number)):
                yield response if isinstance(response, bytes) else response.SerializeToString()
        except StreamOverError:
            return
        except Exception as error:
            if type(error) is not Exception:  # What context.abort raises is a plain Exception.
                self.errors.append(error)
            raise
