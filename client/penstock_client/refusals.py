"""From a stream's end, as gRPC tells it, to what it means for a session.

A status code alone says little: the daemon's own faults carry a penstock.v1.Fault in the trailer
grpc-status-details-bin, the transport's do not. Trying again can mend UNAVAILABLE (not yet warm, draining, nobody
there) and every code by which a transport reports a broken connection; everything else is a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from penstock.v1 import status_pb2
from penstock_client.errors import SessionRefused

DETAILS_TRAILER: Final = "grpc-status-details-bin"

_WORTH_TRYING_AGAIN: Final = frozenset(
    {"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"}
)


@dataclass(frozen=True, slots=True)
class Fault:
    """The detail of a daemon's refusal; every part may be empty."""

    reason: str = ""
    field: str = ""
    value: str = ""
    mend: str = ""


class StreamEnded(Exception):  # noqa: N818 - An event, caught inside the package alone.
    """A stream has ended; never leaves the package.

    Attributes:
        code: the status code's name; "OK" for an orderly end.
        message: a sentence.
        fault: the daemon's detail; empty where the transport ended the stream.
        again: whether another stream may do better.
    """

    def __init__(self, code: str, message: str, fault: Fault | None = None) -> None:
        self.code = code
        self.message = message
        self.fault = fault or Fault()
        self.again = code == "OK" or code in _WORTH_TRYING_AGAIN
        super().__init__(str(self.refusal()))

    def refusal(self) -> SessionRefused:
        """Return this end as the error that a strategy gets."""
        fault = self.fault
        return SessionRefused(
            self.message, code=self.code, reason=fault.reason, field=fault.field, value=fault.value, mend=fault.mend
        )


def ended_by(error: Any) -> StreamEnded:
    """Translate *error*, a grpc.RpcError that also is a grpc.Call (of grpc.aio or of the blocking stack)."""
    details = error.details() or "no detail was given"
    message, fault = _read_trailer(error.trailing_metadata())
    return StreamEnded(error.code().name, message or details, fault)


def _read_trailer(metadata: Any) -> tuple[str, Fault | None]:
    """Return the message and the fault of a status trailer; nothing where there is none that can be read."""
    for key, value in metadata or ():
        if key != DETAILS_TRAILER:
            continue
        try:
            status = status_pb2.StatusDetails.FromString(value)
            for detail in status.details:
                found = status_pb2.Fault()
                if detail.Unpack(found):
                    return status.message, Fault(found.reason, found.field, found.value, found.mend)
        except DecodeError:
            return "", None  # Another's trailer, or a broken one: the status line still stands.
        else:
            return status.message, None
    return "", None
