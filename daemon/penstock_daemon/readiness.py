"""What grpc.health says: SERVING while nothing speaks against it.

    SERVING  <=>  reasons is empty

Each reason not to serve is somebody's own (the start that is under way, an engine that stands still, the breaker), who
gives it and takes it back without asking after the others. Whoever does so is on the event loop and does not wait: the
status is set by a task, and the last word of several in one turn of the loop is what is told.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

from penstock_daemon.admin_services import HealthService, set_health


class Reason(Enum):
    """Why health says NOT_SERVING."""

    STARTING = "starting"
    STALLED = "stalled"  # The engine stands still.
    BREAKER = "breaker"  # Predictions come too late, in a row.


class Readiness:
    """The reasons not to serve, and the status that follows from them.

    Args:
        health: that is asked.
        services: whose status is set, beside that of the daemon as a whole.
    """

    def __init__(self, health: HealthService, services: tuple[str, ...]) -> None:
        self.reasons: set[Reason] = {Reason.STARTING}
        self._health: Final = health
        self._services: Final = services
        self._told: bool | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def serving(self) -> bool:
        """True while nothing speaks against it."""
        return not self.reasons

    def put(self, reason: Reason, *, present: bool) -> None:
        """Give a reason, or take it back; the status follows within the loop's next turns."""
        if present:
            self.reasons.add(reason)
        else:
            self.reasons.discard(reason)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def settle(self) -> None:
        """Wait until the status is what the reasons say."""
        while self._telling is not None:
            await self._telling

    async def _tell(self) -> None:
        try:
            while self._told != self.serving:
                serving = self.serving
                await set_health(self._health, self._services, serving=serving)
                self._told = serving
        finally:
            self._telling = None
