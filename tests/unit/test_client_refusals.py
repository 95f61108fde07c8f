"""A stream's end is read from status and trailer, whatever is in them."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2

from penstock.v1 import prediction_pb2 as pb
from penstock.v1 import status_pb2
from penstock_client.refusals import DETAILS_TRAILER, ended_by


class Ended:
    """What grpc.RpcError and grpc.Call give, of both stacks."""

    def __init__(self, code: grpc.StatusCode, details: str | None, trailer: object) -> None:
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = lambda: trailer


def trailer_of(*details: object, message: str = "the sentence") -> list[tuple[str, bytes]]:
    packed = []
    for detail in details:
        one = any_pb2.Any()
        one.Pack(detail)
        packed.append(one)
    status = status_pb2.StatusDetails(code=3, message=message, details=packed)
    return [("other", b"x"), (DETAILS_TRAILER, status.SerializeToString())]


def test_the_fault_in_the_trailer_becomes_the_refusal():
    fault = status_pb2.Fault(reason="GAP", field="f", value="v", mend="m")
    end = ended_by(Ended(grpc.StatusCode.FAILED_PRECONDITION, "short", trailer_of(pb.Heartbeat(), fault)))
    refusal = end.refusal()
    assert (refusal.code, refusal.reason, refusal.message) == ("FAILED_PRECONDITION", "GAP", "the sentence")
    assert (refusal.field, refusal.value, refusal.mend) == ("f", "v", "m")
    assert not end.again


@pytest.mark.parametrize(
    ("trailer", "message"),
    [
        (None, "short"),
        ([], "short"),
        ([(DETAILS_TRAILER, b"\xff\xff")], "short"),
        (trailer_of(pb.Heartbeat()), "the sentence"),
        (trailer_of(message=""), "short"),
    ],
)
def test_without_a_fault_the_status_line_stands(trailer, message):
    end = ended_by(Ended(grpc.StatusCode.UNAVAILABLE, "short", trailer))
    assert (end.message, end.fault.reason, end.again) == (message, "", True)


def test_a_status_without_any_text_still_makes_a_sentence():
    assert str(ended_by(Ended(grpc.StatusCode.UNKNOWN, "", None)).refusal()) == "UNKNOWN: no detail was given"


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_trying_again_is_for_what_time_can_mend(code):
    mended = {"OK", "UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"}
    assert ended_by(Ended(code, "", None)).again == (code.name in mended)
