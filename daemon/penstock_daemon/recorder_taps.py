"""From a tap to the recorder: what the engine or the feed's thread left there, as recordings of sessions and of the feed.

    begin(row) -> the row leaves ticks ... drain, drain -> leave(row) -> the writer has left its last -> drained -> closed

All of it runs on the event loop, so a recording gets what came by its stream (rebuild ticks) and what came through the tap
in the order of the session. A piece of the tap is copied at a time, tens of microseconds; what was left out there is a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_daemon import engine_tap, rings
from penstock_daemon.engine_tap import NOT_RECORDED, TICK_COLUMNS, TapMemory, tap_parts
from penstock_daemon.recorder import SessionRecording

DRAIN_TICKS: Final = 4096  # Of one piece: 320 KiB.


class TapRecording:
    """The recording of one row of a tap, for whoever has the session; made by ``TapDrain.begin``."""

    def __init__(self, recording: SessionRecording, row: int, next_number: int) -> None:
        self.row = row
        self.closing = False  # Nothing is appended any more; what is in the tap still comes.
        self._recording = recording
        self._next_number = next_number  # Of the row's ticks.

    def append(self, records: bytes, *, rebuild: bool = False) -> bool:
        """Take records that came past the tap; see ``SessionRecording.append``."""
        return self._recording.append(records, rebuild=rebuild)

    def close(self) -> None:
        """End the recording, once the tap has given what is left in it."""
        self.closing = True

    def take(self, slots: NDArray[np.int64]) -> None:
        """Append the ticks of a tap's slots, all of this row, in order."""
        numbers = slots[:, engine_tap.NUMBER]
        for piece in np.split(slots, np.flatnonzero(np.diff(numbers) != 1) + 1):
            self._skip_to(int(piece[0, engine_tap.NUMBER]))
            self._recording.append(piece[:, :TICK_COLUMNS].tobytes())
            self._next_number += len(piece)

    def end(self, next_number: int) -> None:
        """End the recording now. next_number: of the row's ticks, had there been another one."""
        self._skip_to(next_number)
        self._recording.close()

    def _skip_to(self, number: int) -> None:
        if number > self._next_number:
            self._recording.miss(number - self._next_number)
            self._next_number = number


class TapDrain:
    """Empties one tap into the recordings of its rows.

    Args:
        tap: of the engine, or of the feed.
        commands: how many commands were given to the writer and how many it has applied; a recording that is closed ends
            when the writer has applied those that had been given when this was seen first.
    """

    def __init__(self, tap: TapMemory, commands: Callable[[], tuple[int, int]]) -> None:
        self._tap = tap_parts(tap)
        self._commands = commands
        self._recordings: dict[int, TapRecording] = {}  # By what stands in the slots.
        self._ends: dict[int, int] = {}  # Of those that are closing: after how many commands.
        self._next = NOT_RECORDED + 1

    @property
    def recordings(self) -> int:
        """Recordings that have not ended."""
        return len(self._recordings)

    def begin(self, row: int, recording: SessionRecording) -> TapRecording:
        """Record *row* from here on; the writer has applied whatever let go of it before."""
        number = int(self._tap.recordings[row])
        if number in self._recordings:  # Closed so lately that nobody has looked since.
            self.drain_all()
            self._end(number)
        begun = TapRecording(recording, row, int(self._tap.counts[row]))
        self._recordings[self._next] = begun
        self._tap.recordings[row] = self._next
        self._next += 1
        return begun

    def drain(self) -> bool:
        """Take a piece out of the tap; end the recordings that are closed and have all. Returns whether more waits."""
        given, applied = self._commands()
        for number, one in self._recordings.items():
            if one.closing:
                self._ends.setdefault(number, given)
        ending = [number for number, commands in self._ends.items() if commands <= applied]
        if self._drain_piece() > 0:
            return True
        for number in ending:
            self._end(number)
        return False

    def drain_all(self) -> None:
        """Take out whatever the tap holds."""
        while self._drain_piece() > 0:
            pass

    def finish(self) -> None:
        """Take out what is left and end every recording; the writer has stopped."""
        self.drain_all()
        for number in list(self._recordings):
            self._end(number)

    def _drain_piece(self) -> int:
        """Take out a piece, or less where the tap's end is near. Returns how many more had waited; later ones don't count."""
        words, slots = self._tap.words, self._tap.slots
        consumed = int(words[engine_tap.CONSUMED])
        waiting = int(rings.shared_word(words, engine_tap.PUBLISHED)) - consumed
        if not waiting:
            return 0
        place = consumed & (len(slots) - 1)
        count = min(waiting, DRAIN_TICKS, len(slots) - place)
        piece = slots[place : place + count]
        whose = piece[:, engine_tap.RECORDING]
        for number in np.unique(whose):
            self._recordings[int(number)].take(piece[whose == number])
        rings.set_shared_word(words, engine_tap.CONSUMED, consumed + count)
        return waiting - count

    def _end(self, number: int) -> None:
        one = self._recordings.pop(number)
        self._ends.pop(number, None)
        one.end(int(self._tap.counts[one.row]))
        if self._tap.recordings[one.row] == number:
            self._tap.recordings[one.row] = NOT_RECORDED
