"""How the engine wakes the event loop: one eventfd for every session and every command.

    arm, then look: the loop asks to be signalled before it looks at the rings, so that no answer is missed

The engine signals at most once per arming, so a burst costs one wake-up however many sessions it answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import numpy as np

from penstock_daemon.engine import Engine


class LoopLink:
    """Watches the engine's eventfd on an event loop and passes its news on.

    Args:
        engine: whose answers are watched.
        loop: the running event loop.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._found = np.zeros(engine.sizes.sources, np.int64)
        self._listeners: dict[int, Callable[[], None]] = {}
        self._on_wake: Callable[[], None] | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        loop.add_reader(engine.loop_event, self._on_signal)
        self._look()

    def listen(self, source: int, on_answers: Callable[[], None]) -> None:
        """Call *on_answers* on the loop whenever a source's ring holds answers."""
        self._listeners[source] = on_answers

    def watch(self, on_wake: Callable[[], None]) -> None:
        """Call *on_wake* on the loop at every wake-up by the engine; it must cost next to nothing."""
        self._on_wake = on_wake

    def ignore(self, source: int) -> None:
        """Stop calling a source's listener."""
        self._listeners.pop(source, None)

    async def applied(self, commands: int) -> None:
        """Wait until the engine has applied *commands* commands, as ``Engine.command`` counts them.

        For as long as it takes: a daemon whose engine is gone stops as a whole, and a paused host is no fault.
        """
        if self._engine.command_state()[1] >= commands:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((commands, future))
        self._look()
        await future

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._engine.loop_event)
        self._listeners.clear()

    def _on_signal(self) -> None:
        try:
            os.eventfd_read(self._engine.loop_event)
        except BlockingIOError:
            return
        self._look()
        if self._on_wake is not None:
            self._on_wake()

    def _look(self) -> None:
        self._engine.arm_loop()
        self._engine.flush_commands()
        for index in range(self._engine.sources_with_answers(self._found)):
            listener = self._listeners.get(int(self._found[index]))
            if listener is not None:
                listener()
        if self._waiting:
            applied = self._engine.command_state()[1]
            still = []
            for commands, future in self._waiting:
                if future.done():
                    continue
                if commands <= applied:
                    future.set_result(None)
                else:
                    still.append((commands, future))
            self._waiting = still
