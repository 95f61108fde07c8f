"""What a strategy installs: sessions, resume, tick-file readers, replay and its report.

Names are loaded when first used: importing the package itself loads neither gRPC nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock_client.batches import Batch, TickError, TickErrorReason
    from penstock_client.errors import (
        ConnectFailed,
        DaemonProtocolError,
        DeadlineExceeded,
        LocalUsageError,
        PenstockError,
        SessionLost,
        SessionRefused,
    )
    from penstock_client.instruments import Instrument, Pace
    from penstock_client.reconnect import ReconnectPolicy
    from penstock_client.session import Session, connect
    from penstock_client.shared_memory.options import SharedMemory
    from penstock_client.subscription import FeedBatch, Subscription, subscribe

__all__ = [
    "Batch",
    "ConnectFailed",
    "DaemonProtocolError",
    "DeadlineExceeded",
    "FeedBatch",
    "Instrument",
    "LocalUsageError",
    "Pace",
    "PenstockError",
    "ReconnectPolicy",
    "Session",
    "SessionLost",
    "SessionRefused",
    "SharedMemory",
    "Subscription",
    "TickError",
    "TickErrorReason",
    "connect",
    "subscribe",
]

_HOMES = {
    "batches": ("Batch", "TickError", "TickErrorReason"),
    "errors": (
        "ConnectFailed",
        "DaemonProtocolError",
        "DeadlineExceeded",
        "LocalUsageError",
        "PenstockError",
        "SessionLost",
        "SessionRefused",
    ),
    "instruments": ("Instrument", "Pace"),
    "reconnect": ("ReconnectPolicy",),
    "session": ("Session", "connect"),
    "shared_memory.options": ("SharedMemory",),
    "subscription": ("FeedBatch", "Subscription", "subscribe"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load *name* from the module it lives in."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    """Name what can be loaded."""
    return sorted([*globals(), *__all__])
