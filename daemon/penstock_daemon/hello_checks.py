"""What a Hello must be before anything is taken from a pool for it.

Every check looks at the Hello and at limits alone, so a Hello that is refused here has changed nothing.
"""

from __future__ import annotations

from typing import Final

from penstock.v1 import prediction_pb2 as pb
from penstock_daemon import faults
from penstock_daemon.sessions import FIRST_SEQUENCE_MAX

PROTOCOL_VERSION: Final = 1
_NAME_CHARACTERS: Final = 64
_RESUME_TOKEN_BYTES_MAX: Final = 64


def check_hello(hello: pb.Hello, *, instruments_max: int, online_allowed: bool, shared_allowed: bool) -> None:
    """Refuse a Hello that no session can be opened for.

    Args:
        hello: as received.
        instruments_max: of one session.
        online_allowed: whether this daemon has online readouts.
        shared_allowed: whether strategies may attach to it through shared memory.

    Raises:
        SessionFault: what is wrong with it.
    """
    if hello.protocol_version != PROTOCOL_VERSION:
        raise faults.out_of_order(
            "PROTOCOL_VERSION",
            field="Hello.protocol_version",
            value=hello.protocol_version,
            mend=f"this daemon speaks version {PROTOCOL_VERSION}",
        )
    if hello.pace not in (pb.PACE_UNSPECIFIED, pb.PACE_REALTIME, pb.PACE_BULK):
        raise faults.invalid("PACE", field="Hello.pace", value=hello.pace, mend="use PACE_REALTIME or PACE_BULK")
    if len(hello.client_name) > _NAME_CHARACTERS:
        raise faults.invalid(
            "CLIENT_NAME", field="Hello.client_name", value=hello.client_name, mend="use 64 characters at most"
        )
    if len(hello.resume_token) > _RESUME_TOKEN_BYTES_MAX:
        raise faults.invalid(
            "RESUME_TOKEN",
            field="Hello.resume_token",
            value=f"{len(hello.resume_token)} bytes",
            mend="give the token of Welcome or Goodbye, or none",
        )
    if hello.first_sequence > FIRST_SEQUENCE_MAX:
        raise faults.invalid(
            "FIRST_SEQUENCE",
            field="Hello.first_sequence",
            value=hello.first_sequence,
            mend=f"number ticks from {FIRST_SEQUENCE_MAX} at most",
        )
    if hello.online_readout and not online_allowed:
        raise faults.out_of_order(
            "ONLINE_DISABLED",
            field="Hello.online_readout",
            value="true",
            mend="this daemon allows none; do without, or set online.enabled and online.states",
        )
    if hello.shared_memory and not shared_allowed:
        raise faults.out_of_order(
            "SHARED_MEMORY_DISABLED",
            field="Hello.shared_memory",
            value="true",
            mend="this daemon has none; use TickBatch, or set shared_memory.enabled and shared_memory.address",
        )
    if not hello.instruments:
        raise faults.invalid(
            "INSTRUMENTS_EMPTY", field="Hello.instruments", value="empty", mend="name the instruments of your ticks"
        )
    if len(hello.instruments) > instruments_max:
        raise faults.exhausted(
            "INSTRUMENTS",
            field="Hello.instruments",
            value=f"{len(hello.instruments)} instruments",
            mend=f"name {instruments_max} at most, or raise sessions.instruments_max",
        )
    ids: set[int] = set()
    names: set[tuple[str, str]] = set()
    for index, one in enumerate(hello.instruments):
        where = f"Hello.instruments[{index}]"
        if not 1 <= len(one.symbol) <= _NAME_CHARACTERS:
            raise faults.invalid("SYMBOL", field=f"{where}.symbol", value=one.symbol, mend="give 1 to 64 characters")
        if one.instrument_id in ids:
            raise faults.invalid(
                "INSTRUMENT_TWICE",
                field=f"{where}.instrument_id",
                value=one.instrument_id,
                mend="give each id once",
            )
        if (one.dataset, one.symbol) in names:
            raise faults.invalid(
                "SYMBOL_TWICE", field=f"{where}.symbol", value=one.symbol, mend="name each dataset and symbol once"
            )
        ids.add(one.instrument_id)
        names.add((one.dataset, one.symbol))
