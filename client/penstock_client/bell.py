"""A bell that one task listens to: asyncio.Event cut down to what is needed once per message.

ring before wait      the wait returns at once
ring while waiting    the task wakes
ring twice            is one ring
"""

from __future__ import annotations

import asyncio


class Bell:
    """Rung by callbacks on one event loop, heard by one task at a time on it."""

    def __init__(self) -> None:
        self._rung = False
        self._listener: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the listener, now or when it next waits."""
        self._rung = True
        listener = self._listener
        if listener is not None and not listener.done():
            listener.set_result(None)

    async def wait(self) -> None:
        """Wait for a ring, and take it."""
        if not self._rung:
            self._listener = asyncio.get_running_loop().create_future()
            try:
                await self._listener
            finally:
                self._listener = None
        self._rung = False
