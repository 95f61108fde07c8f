"""Messages to bytes and back: the one place of the client that knows protobuf.

Streams carry raw bytes; a message is built once, when it is sent, and parsed once, when it has come.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import PREDICTION_BYTES, PREDICTION_DTYPE
from penstock_client.batches import Batch, TickError, TickErrorReason
from penstock_client.bookkeeping import Outgoing
from penstock_client.errors import DaemonProtocolError
from penstock_client.instruments import Instrument, Pace

STREAM_METHOD: Final = "/penstock.v1.PredictionService/StreamPredictions"
PROTOCOL_VERSION: Final = 1

_REASONS: Final = {int(reason): reason for reason in TickErrorReason}


@dataclass(frozen=True, slots=True)
class Greeting:
    """What every Hello of a session says alike."""

    client_name: str
    model: str
    instruments: tuple[Instrument, ...]
    pace: Pace
    online_readout: bool = False
    shared_memory: bool = False


def hello(greeting: Greeting, *, resume_token: bytes, next_answer: int) -> bytes:
    """Build Hello; *next_answer* is the first unanswered sequence, of a cold and of a resumed session alike."""
    message = pb.Hello(
        protocol_version=PROTOCOL_VERSION,
        client_name=greeting.client_name,
        model=greeting.model,
        instruments=[
            pb.Instrument(
                instrument_id=instrument.instrument_id,
                dataset=instrument.dataset,
                symbol=instrument.symbol,
                size_scale=instrument.size_scale,
            )
            for instrument in greeting.instruments
        ],
        pace=int(greeting.pace),  # type: ignore[arg-type]
        resume_token=resume_token,
        first_sequence=next_answer,
        next_prediction_sequence=next_answer,
        online_readout=greeting.online_readout,
        shared_memory=greeting.shared_memory,
    )
    return pb.StreamPredictionsRequest(hello=message).SerializeToString()


def ticks(outgoing: Outgoing) -> bytes:
    """Build TickBatch."""
    batch = pb.TickBatch(
        first_sequence=outgoing.first_sequence,
        records=outgoing.records,
        purpose=int(outgoing.purpose),  # type: ignore[arg-type]
    )
    return pb.StreamPredictionsRequest(ticks=batch).SerializeToString()


def heartbeat() -> bytes:
    """Build Heartbeat with the present Unix time."""
    return pb.StreamPredictionsRequest(heartbeat=pb.Heartbeat(sent_ns=time.time_ns())).SerializeToString()


def goodbye() -> bytes:
    """Build Goodbye: the caller has no more ticks."""
    return pb.StreamPredictionsRequest(goodbye=pb.Goodbye(reason=pb.Goodbye.REASON_DONE)).SerializeToString()


def response(data: bytes) -> pb.StreamPredictionsResponse:
    """Parse a message of the daemon.

    Raises:
        DaemonProtocolError: it is none.
    """
    try:
        return pb.StreamPredictionsResponse.FromString(data)
    except DecodeError as exc:
        raise DaemonProtocolError(f"the daemon sent {len(data)} bytes that are no StreamPredictionsResponse") from exc


def kind(message: pb.StreamPredictionsResponse) -> str:
    """Name what *message* is, for a sentence."""
    return message.WhichOneof("message") or "a message of no kind"


def batch(message: pb.PredictionBatch, received_ns: int) -> Batch:
    """View a PredictionBatch as arrays.

    Raises:
        DaemonProtocolError: its records are not of the contract's size.
    """
    records = message.records
    if len(records) % PREDICTION_BYTES:
        raise DaemonProtocolError(
            f"PredictionBatch.records must be {PREDICTION_BYTES} bytes each: the daemon sent {len(records)} bytes"
        )
    errors = [TickError(e.sequence, _REASONS.get(e.reason, int(e.reason)), e.message) for e in message.errors]
    return Batch(np.frombuffer(records, PREDICTION_DTYPE), errors, message.sent_ns, received_ns)
