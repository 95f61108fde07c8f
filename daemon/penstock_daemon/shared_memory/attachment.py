"""One session's segment while the engine serves it: from the command that attaches it until everything is freed.

    begin -> the engine has the ends of the session's rings -> end -> it has let go -> unmapped, descriptors closed

The daemon's end of the strategy's socket is the life-line of both: its hang-up means that the strategy is gone, or that
the engine has ended the segment because of what stood in it.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock.v1.shared_ring import SegmentEnd
from penstock_daemon import engine_memory as memory
from penstock_daemon.engine import Engine
from penstock_daemon.engine_memory import Command
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.shared_memory.segment import Segment


class Attachment:
    """A segment, the socket it went over and the bell that wakes the engine for it; all three are its own.

    Args:
        engine, link: that serve it.
        source: of the session.
        segment: made for this session.
        connection: to the strategy; does not block.
        on_gone: called once on the loop when the socket hangs up while the segment is served.

    Raises:
        OSError: the host has no descriptor for the bell; segment and connection are still the caller's.
    """

    def __init__(
        self,
        engine: Engine,
        link: LoopLink,
        source: int,
        segment: Segment,
        connection: socket.socket,
        on_gone: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._link = link
        self._source = source
        self._row = engine.buffers.segments[source]
        self.segment = segment
        self._connection = connection
        self._on_gone = on_gone
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            engine.poll.register(self.bell, select.EPOLLIN | select.EPOLLET)
        except BaseException:
            os.close(self.bell)
            raise
        self._begun = False  # Before, the engine's words are those of the source's last segment.
        self._ending: asyncio.Task[None] | None = None
        self._counted = [0, 0]  # Refused ticks of either reason that ``refused`` has told of.

    async def begin(self, ids: NDArray[np.int64], states: NDArray[np.int64], *, repeated: int) -> None:
        """Have the engine serve the segment.

        Args:
            ids: the session's instruments, ascending.
            states: the state of each.
            repeated: answers, from the first on, that were handed over before.
        """
        buffers, source = self._engine.buffers, self._source
        buffers.segment_ids[source, : len(ids)] = ids
        buffers.segment_states[source, : len(states)] = states
        attached = self._engine.command(
            Command.ATTACH_SEGMENT,
            source,
            self.segment.address,
            self.segment.slots,
            self._connection.fileno(),
            len(ids),
            self.segment.first_sequence,
            repeated,
        )
        asyncio.get_running_loop().add_reader(self._connection, self._on_readable)
        await self._link.applied(attached)
        self._begun = True

    def end(self, why: SegmentEnd) -> asyncio.Task[None]:
        """Have the engine let go of the segment, at once; the task that is returned is done when all is freed."""
        if self._ending is None:
            asyncio.get_running_loop().remove_reader(self._connection)
            detached = self._engine.command(Command.DETACH_SEGMENT, self._source, why)
            self._ending = asyncio.create_task(self._free(detached))
        return self._ending

    async def _free(self, detached: int) -> None:
        await self._link.applied(detached)
        self._begun = True
        self._engine.poll.unregister(self.bell)  # The strategy has it too: closing ours would not end the watching.
        os.close(self.bell)
        self._connection.close()
        # Tens of milliseconds for a long ring: not on the event loop.
        await asyncio.get_running_loop().run_in_executor(None, self.segment.free)

    def _on_readable(self) -> None:
        """The strategy hung up; or sent what nobody asked for, which is taken for the same."""
        asyncio.get_running_loop().remove_reader(self._connection)
        self._on_gone()

    # --- What the engine says of it -------------------------------------------------------------------------------

    def _word(self, column: int) -> int:
        return self._engine.segment_word(self._row, column) if self._begun else 0

    @property
    def fault(self) -> SegmentEnd:
        """Why the engine serves it no longer; SERVED while it does."""
        return SegmentEnd(self._word(memory.SEGMENT_FAULT))

    @property
    def fault_at(self) -> tuple[int, int]:
        """Where the fault is (a tick's number, or the place of a cursor in the header), and what was found there."""
        return self._word(memory.SEGMENT_FAULT_AT), self._word(memory.SEGMENT_FAULT_VALUE)

    def published(self) -> int:
        """Return how many ticks the strategy has published, as far as that can be."""
        taken = self._word(memory.SEGMENT_TAKEN)
        if self._ending is not None:  # It may be unmapped by now, and nothing more is taken from it.
            return taken
        return min(max(self.segment.ticks_published, taken), taken + self.segment.slots)

    def answered(self, ticks: int) -> bool:
        """Return whether the answers to the first *ticks* ticks are in the segment, or nothing more will come."""
        if self._word(memory.SEGMENT_FAULT) != 0:
            return True
        return self._word(memory.SEGMENT_GIVEN) >= ticks + self._word(memory.SEGMENT_OWED)

    def refused(self) -> tuple[int, int]:
        """Return how many ticks were refused since this was asked last: of unknown instruments, of times out of range."""
        counted = [self._word(memory.SEGMENT_UNKNOWN), self._word(memory.SEGMENT_OUT_OF_RANGE)]
        fresh = counted[0] - self._counted[0], counted[1] - self._counted[1]
        self._counted = counted
        return fresh
