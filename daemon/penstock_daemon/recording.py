"""What a session sees of the recorder: somewhere to put the records that were accepted.

append never waits: what finds no room is dropped there, and counted there
"""

from __future__ import annotations

from typing import Protocol


class Recording(Protocol):
    """Where a session's accepted ticks go besides the engine."""

    def append(self, records: bytes, *, rebuild: bool = False) -> bool:
        """Take records without waiting; False where they were dropped and counted."""

    def close(self) -> None:
        """End the recording."""
