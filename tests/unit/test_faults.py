"""Faults as values: their sentence, and the trailer that programs read."""

from __future__ import annotations

import grpc
import pytest

from penstock.v1 import status_pb2
from penstock_daemon import faults


def fault_in(raised: faults.SessionFault) -> status_pb2.Fault:
    ((key, value),) = raised.trailers()
    assert key == "grpc-status-details-bin"
    details = status_pb2.StatusDetails.FromString(value)
    assert (details.code, details.message) == (raised.code.value[0], str(raised))
    fault = status_pb2.Fault()
    assert details.details[0].Unpack(fault)
    return fault


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (faults.invalid, grpc.StatusCode.INVALID_ARGUMENT),
        (faults.out_of_order, grpc.StatusCode.FAILED_PRECONDITION),
        (faults.exhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (faults.not_found, grpc.StatusCode.NOT_FOUND),
        (faults.unavailable, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_fault_travels_whole(make, code: grpc.StatusCode) -> None:
    raised = make("SEQUENCE_GAP", field="TickBatch.first_sequence", value=7, mend="the next one is 5")
    assert raised.code == code
    assert str(raised) == "TickBatch.first_sequence: was 7; the next one is 5"
    fault = fault_in(raised)
    assert (fault.reason, fault.field, fault.value) == ("SEQUENCE_GAP", "TickBatch.first_sequence", "7")
    assert fault.mend == "the next one is 5"


def test_trailer_can_be_read_as_a_google_status() -> None:
    """google.rpc.Status has the same numbers: code 1, message 2, details 3."""
    fields = {field.name: (field.number, field.type) for field in status_pb2.StatusDetails.DESCRIPTOR.fields}
    assert {name: number for name, (number, _) in fields.items()} == {"code": 1, "message": 2, "details": 3}
    details = status_pb2.StatusDetails.FromString(faults.invalid("A", field="b", value="c", mend="d").trailers()[0][1])
    assert details.details[0].type_url == "type.googleapis.com/penstock.v1.Fault"


def test_value_is_shown_short_and_without_control_characters() -> None:
    raised = faults.invalid("SYMBOL", field="symbol", value="a\x1b[31m\n" + "b" * 500, mend="shorten it")
    assert raised.value == "a?[31m?" + "b" * 112 + "…"
    assert len(raised.value) == 120
    assert fault_in(raised).value == raised.value


def test_sentence_without_a_value_has_none() -> None:
    assert str(faults.unavailable("X", field="daemon", value="", mend="try again")) == "daemon: try again"
