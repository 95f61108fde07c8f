"""What a session is told when it is made, checked before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from penstock_client.channel import checked_address
from penstock_client.errors import LocalUsageError
from penstock_client.instruments import Instrument, Pace, check_text, checked_instruments
from penstock_client.reconnect import ReconnectPolicy
from penstock_client.shared_memory.options import SharedMemory, checked_shared_memory
from penstock_client.wire import Greeting

CONNECT_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of connect().

    Attributes:
        address: as gRPC wants it.
        greeting: what every Hello says alike.
        connect_deadline_s: for the first Welcome, tries included, and for each try of a reconnect.
        deadline_s: for the whole session, from open(); None for no end.
        reconnect: None where a lost connection ends the session.
        shared_memory: how the session waits; None where ticks go over gRPC.
    """

    address: str
    greeting: Greeting
    connect_deadline_s: float
    deadline_s: float | None
    reconnect: ReconnectPolicy | None
    shared_memory: SharedMemory | None = None


def checked_settings(
    address: str,
    instruments: Iterable[Instrument],
    *,
    model: str,
    pace: Pace,
    client_name: str,
    connect_deadline_s: float,
    deadline_s: float | None,
    reconnect: bool | ReconnectPolicy,
    online_readout: bool,
    shared_memory: bool | SharedMemory = False,
) -> Settings:
    """Check the arguments of connect().

    Raises:
        LocalUsageError: one of them is wrong; the sentence names it.
    """
    check_text("client_name", client_name, at_least=0)
    if not isinstance(model, str):
        raise LocalUsageError(f"model must be a string: was {model!r}; pass '' for the daemon's active model")
    try:
        checked_pace = Pace(pace)
    except ValueError as exc:
        raise LocalUsageError(f"pace must be Pace.REALTIME or Pace.BULK: was {pace!r}") from exc
    check_seconds("connect_deadline_s", connect_deadline_s)
    if deadline_s is not None:
        check_seconds("deadline_s", deadline_s)
    if isinstance(reconnect, ReconnectPolicy):
        policy: ReconnectPolicy | None = reconnect
    elif isinstance(reconnect, bool):
        policy = ReconnectPolicy() if reconnect else None
    else:
        raise LocalUsageError(f"reconnect must be True, False or a ReconnectPolicy: was {reconnect!r}")
    if not isinstance(online_readout, bool):
        raise LocalUsageError(f"online_readout must be True or False: was {online_readout!r}")
    rings = checked_shared_memory(shared_memory)
    greeting = Greeting(
        client_name, model, checked_instruments(instruments), checked_pace, online_readout, rings is not None
    )
    return Settings(checked_address(address), greeting, connect_deadline_s, deadline_s, policy, rings)


def check_seconds(name: str, value: object) -> None:
    """Raise LocalUsageError unless *value* is a finite number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise LocalUsageError(f"{name} must be a finite number of seconds above 0: was {value!r}")
