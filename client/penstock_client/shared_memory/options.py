"""How a session over shared memory waits.

Imports neither gRPC nor NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock_client.errors import LocalUsageError

ASYNC_SPIN_S_MAX = 0.001  # An event loop does nothing else meanwhile.


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """What ``connect(shared_memory=...)`` takes where True does not say enough.

    Args:
        spin_s: how long a wait for answers looks at the ring, again and again and without a system call, before it
            sleeps on the socket. 0 sleeps at once; ``math.inf`` never does, and wants a processor of its own. An async
            session holds up its event loop for as long, so at most 0.001 there.
    """

    spin_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise LocalUsageError for a time that is none."""
        given: object = self.spin_s
        if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
            raise LocalUsageError(f"SharedMemory.spin_s must be seconds, 0 or more: was {given!r}")


def checked_shared_memory(given: bool | SharedMemory) -> SharedMemory | None:
    """Return what connect() was told; None for a session over gRPC.

    Raises:
        LocalUsageError: it is neither a truth value nor a SharedMemory.
    """
    if isinstance(given, SharedMemory):
        return given
    if isinstance(given, bool):
        return SharedMemory() if given else None
    raise LocalUsageError(f"shared_memory must be True, False or a SharedMemory: was {given!r}")
