"""One stream to a daemon, message by message, with nothing of the client library: for what that library never does.

    with RawStream(address) as stream:
        stream.hello()
        stream.ticks(quotes(10))
        predictions = stream.predictions(10)

One message is read for each ``receive``: a stream that does not call it is a client that does not read.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import status_pb2
from penstock.v1.records import PREDICTION_DTYPE, PredictionHash, predictions_from_bytes

METHOD = "/penstock.v1.PredictionService/StreamPredictions"
DETAILS_TRAILER = "grpc-status-details-bin"
PATIENCE_S = 60.0


@dataclass
class StreamEndError(Exception):
    """How the daemon ended a stream: its status, and the Fault in the trailer if there is one."""

    code: str
    message: str
    reason: str = ""
    field: str = ""
    value: str = ""
    mend: str = ""


def hello(**changes: Any) -> pb.Hello:
    """Return a good Hello for instrument 1; *changes* replace fields of it."""
    fields = {"protocol_version": 1, "client_name": "raw", "instruments": instruments(1)} | changes
    return pb.Hello(**fields)


def instruments(*ids: int) -> list[pb.Instrument]:
    return [pb.Instrument(instrument_id=number, symbol=f"SYMBOL{number}") for number in ids]


def end_of(error: grpc.RpcError) -> StreamEndError:
    """Return what *error* says, the Fault included."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_TRAILER and error.code() is not grpc.StatusCode.CANCELLED:  # By ourselves, as it came.
            details = status_pb2.StatusDetails.FromString(value)
            assert details.code == error.code().value[0], "the trailer has the status of the call"
            assert details.message == error.details(), "and its sentence"
            fault = status_pb2.Fault()
            assert details.details[0].Unpack(fault)
            found = (fault.reason, fault.field, fault.value, fault.mend)
            return StreamEndError(error.code().name, error.details(), *found)
    return StreamEndError(error.code().name, error.details())


class RawStream:
    """One call of StreamPredictions on a connection of its own."""

    def __init__(self, address: str, *, options: tuple[tuple[str, int], ...] = ()) -> None:
        own = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.http2.bdp_probe", 0),  # Else the window grows with what comes, read or not.
        )
        self.channel = grpc.insecure_channel(address, options=(*own, *options))
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = self.channel.stream_stream(METHOD, response_deserializer=pb.StreamPredictionsResponse.FromString)
        self.call = call(iter(self._outbox.get, None))
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(0)  # Messages that the reader may read.
        self._waiting = False  # One of them has not come yet.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.welcome = pb.Welcome()
        self.next_sequence = 0
        self.errors: list[pb.TickError] = []  # Those that came with ``predictions``.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection, as a crash would."""
        self.call.cancel()
        self._outbox.put(None)
        self.channel.close()
        self._wanted.release()
        self._reader.join(PATIENCE_S)

    # --- Sending --------------------------------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        self._outbox.put(data)

    def send(self, **message: Any) -> None:
        """Send one request: ``send(ticks=pb.TickBatch(...))``."""
        self.send_bytes(pb.StreamPredictionsRequest(**message).SerializeToString())

    def half_close(self) -> None:
        self._outbox.put(None)

    def hello(self, **changes: Any) -> pb.Welcome:
        """Say Hello and return Welcome."""
        self.send(hello=hello(**changes))
        self.welcome = self.receive("welcome").welcome
        self.next_sequence = self.welcome.next_sequence
        return self.welcome

    def ticks(self, ticks: NDArray[np.void], *, purpose: int = pb.PURPOSE_PREDICT) -> None:
        """Send *ticks* as one batch, numbered on."""
        batch = pb.TickBatch(first_sequence=self.next_sequence, records=ticks.tobytes(), purpose=purpose)
        self.send(ticks=batch)
        if purpose != pb.PURPOSE_REBUILD:
            self.next_sequence += len(ticks)

    def goodbye(self) -> None:
        self.send(goodbye=pb.Goodbye())

    # --- Receiving ------------------------------------------------------------------------------------------------

    def receive(self, kind: str = "", timeout_s: float = PATIENCE_S) -> pb.StreamPredictionsResponse:
        """Return the next message, which must be of *kind*, if that is given; heartbeats may come before it.

        Raises:
            StreamEndError: the stream has ended; its code is "OK" after an orderly end.
            TimeoutError: nothing came.
        """
        if not self._waiting:
            self._waiting = True
            self._wanted.release()
        try:
            item = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"nothing came for {timeout_s} s") from None
        if isinstance(item, StreamEndError):
            self._inbox.put(item)
            raise item
        self._waiting = False
        if kind and item.WhichOneof("message") == "heartbeat" != kind:
            return self.receive(kind, timeout_s)
        if kind:
            assert item.WhichOneof("message") == kind, f"expected {kind}, got {item}"
        return item

    def messages(self) -> Iterator[pb.StreamPredictionsResponse]:
        """Yield messages until an orderly end."""
        while True:
            try:
                yield self.receive()
            except StreamEndError as end:
                if end.code == "OK":
                    return
                raise

    def rebuild(self, ticks: NDArray[np.void]) -> None:
        """Send *ticks* to rebuild states, and wait until all are taken in."""
        self.ticks(ticks, purpose=pb.PURPOSE_REBUILD)
        while self.receive("rebuild_progress").rebuild_progress.ticks < len(ticks):
            pass

    def predictions(self, answers: int) -> NDArray[np.void]:
        """Return the predictions among the next *answers* answers; errors are added to ``errors``."""
        found = [np.zeros(0, PREDICTION_DTYPE)]
        while answers > 0:
            batch = self.receive("predictions").predictions
            found.append(predictions_from_bytes(batch.records))
            self.errors.extend(batch.errors)
            answers -= len(found[-1]) + len(batch.errors)
        assert answers == 0, f"{-answers} answers too many"
        return np.concatenate(found)

    def end(self) -> StreamEndError:
        """Skip what comes until the stream ends, and return how."""
        try:
            while True:
                self.receive()
        except StreamEndError as end:
            return end

    def _read(self) -> None:
        try:
            self._wanted.acquire()
            for response in self.call:
                self._inbox.put(response)
                self._wanted.acquire()
            self._inbox.put(StreamEndError("OK", ""))
        except grpc.RpcError as error:
            self._inbox.put(end_of(error))


def run_through(stream: RawStream, ticks: NDArray[np.void], *, split: int = 50) -> NDArray[np.void]:
    """Send *ticks*, *split* at a time, and return their predictions; errors are added to ``stream.errors``."""
    found = [np.zeros(0, PREDICTION_DTYPE)]
    for start in range(0, len(ticks), split):
        part = ticks[start : start + split]
        stream.ticks(part)
        found.append(stream.predictions(len(part)))
    return np.concatenate(found)


def undisturbed(address: str, ticks: NDArray[np.void], **changes: Any) -> NDArray[np.void]:
    """Return the predictions of a session of its own that loses nothing."""
    with RawStream(address) as stream:
        stream.hello(client_name="undisturbed", **changes)
        predictions = run_through(stream, ticks)
        stream.goodbye()
        assert stream.end().code == "OK"
    return predictions


def hash_of(*predictions: NDArray[np.void]) -> str:
    """Return the prediction hash of all of them, one after the other."""
    digest = PredictionHash()
    for some in predictions:
        digest.update(some)
    return digest.hexdigest()
