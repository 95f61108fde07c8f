"""What a client did wrong, as a value: a status code, and a sentence that names field, value and mend.

A ``SessionFault`` ends its stream and no other. It travels as the RPC's status, with a google.rpc.Status that holds a
``penstock.v1.Fault`` in the trailer ``grpc-status-details-bin``, so that programs need not read sentences.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf import any_pb2

from penstock.v1 import status_pb2

DETAILS_TRAILER: Final = "grpc-status-details-bin"
_VALUE_CHARACTERS: Final = 120


class SessionFault(Exception):  # noqa: N818 - It is the fault that the Fault message carries.
    """A fault of the client, or a limit that it met.

    Args:
        code: gRPC status.
        reason: for programs, such as "SEQUENCE_GAP".
        field: what it is about, such as "TickBatch.first_sequence".
        value: what was found.
        mend: what to do; ends the sentence.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, *, field: str, value: object, mend: str) -> None:
        self.code = code
        self.reason = reason
        self.field = field
        self.value = _shortened(str(value))
        self.mend = mend
        super().__init__(f"{field}: was {self.value}; {mend}" if self.value else f"{field}: {mend}")

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the trailing metadata that carries the fault."""
        fault = status_pb2.Fault(reason=self.reason, field=self.field, value=self.value, mend=self.mend)
        packed = any_pb2.Any()
        packed.Pack(fault)
        details = status_pb2.StatusDetails(code=self.code.value[0], message=str(self), details=[packed])
        return ((DETAILS_TRAILER, details.SerializeToString()),)


def _shortened(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _VALUE_CHARACTERS else printable[: _VALUE_CHARACTERS - 1] + "…"


def invalid(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a fault of a malformed message."""
    return SessionFault(grpc.StatusCode.INVALID_ARGUMENT, reason, field=field, value=value, mend=mend)


def out_of_order(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a fault of a message at the wrong time."""
    return SessionFault(grpc.StatusCode.FAILED_PRECONDITION, reason, field=field, value=value, mend=mend)


def exhausted(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a limit that was met."""
    return SessionFault(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, field=field, value=value, mend=mend)


def not_found(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a fault about something that is not there."""
    return SessionFault(grpc.StatusCode.NOT_FOUND, reason, field=field, value=value, mend=mend)


def unauthenticated(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a refusal of somebody who did not show a right that is good."""
    return SessionFault(grpc.StatusCode.UNAUTHENTICATED, reason, field=field, value=value, mend=mend)


def denied(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a refusal of somebody who is known and may not."""
    return SessionFault(grpc.StatusCode.PERMISSION_DENIED, reason, field=field, value=value, mend=mend)


def unavailable(reason: str, *, field: str, value: object, mend: str) -> SessionFault:
    """Return a refusal for now."""
    return SessionFault(grpc.StatusCode.UNAVAILABLE, reason, field=field, value=value, mend=mend)
