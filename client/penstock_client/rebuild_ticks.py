"""The ticks that rebuild a daemon's states, on their way to it, and what both kinds of books check in a Welcome.

    taken in by the daemon <= given to the stream <= all of them        whole: taken in is all

No input or output here, and no lock: books over a stream (bookkeeping.py) and over rings (shared_memory/) each have theirs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES
from penstock_client.errors import DaemonProtocolError

HISTORY_BYTES_CAP: Final = 1 << 34


class RebuildTicks:
    """Those of one stream; none until ``begin``."""

    def __init__(self) -> None:
        self._records = b""
        self._given = self._taken = self._ticks = 0

    @property
    def waiting(self) -> int:
        """How many were given and not acknowledged."""
        return self._given - self._taken

    @property
    def left(self) -> int:
        """How many are still to be given."""
        return self._ticks - self._given

    @property
    def whole(self) -> bool:
        """Whether the daemon has taken in all of them, or none was needed."""
        return self._taken == self._ticks

    def begin(self, records: bytes) -> None:
        """Take over *records*, consecutive 80-byte ticks, for a stream that has seen none of them."""
        self._records = records
        self._given = self._taken = 0
        self._ticks = len(records) // TICK_BYTES

    def give(self, room: int) -> bytes:
        """Return the next ones, at most *room*, counted as given."""
        first = self._given
        self._given = min(first + room, self._ticks)
        records = self._records[first * TICK_BYTES : self._given * TICK_BYTES]
        if self._given == self._ticks:
            self._records = b""
        return records

    def progress(self, ticks: int) -> None:
        """Note that the daemon has taken in *ticks* of them in all; fewer than before is late news.

        Raises:
            DaemonProtocolError: more than were sent.
        """
        if ticks > self._given:
            raise DaemonProtocolError(
                f"RebuildProgress.ticks must be at most the {self._given} that were sent: was {ticks}"
            )
        self._taken = max(self._taken, ticks)

    def answered(self) -> None:
        """Note an answer to a tick that came after all of them: ticks are taken in order."""
        self._taken = self._ticks


def check_limits(in_flight_max: int, rebuild_ticks: int, instruments: int) -> None:
    """Refuse a Welcome's limits that no books can keep.

    Raises:
        DaemonProtocolError: which, and why.
    """
    if in_flight_max < 1:
        raise DaemonProtocolError(f"Welcome.in_flight_max must be at least 1: was {in_flight_max}")
    if rebuild_ticks * instruments * TICK_BYTES > HISTORY_BYTES_CAP:
        raise DaemonProtocolError(
            f"Welcome.rebuild_ticks must be such that the history of {instruments} instruments takes at most "
            f"{HISTORY_BYTES_CAP} bytes: was {rebuild_ticks}"
        )


def check_resumed(next_sequence: int, answered: int, accepted: int) -> None:
    """Refuse a resumed session's Welcome that claims ticks never sent, or lacks ticks that were answered.

    Raises:
        DaemonProtocolError: it does.
    """
    if not answered <= next_sequence <= accepted:
        raise DaemonProtocolError(
            f"Welcome.next_sequence of a resumed session must be in {answered} to {accepted} "
            f"(first unanswered to next): was {next_sequence}"
        )


def check_cold(next_sequence: int, answered: int) -> None:
    """Refuse a cold session's Welcome that does not start at the sequence that Hello named.

    Raises:
        DaemonProtocolError: it does not.
    """
    if next_sequence != answered:
        raise DaemonProtocolError(
            f"Welcome.next_sequence of a cold session must be Hello.first_sequence={answered}: was {next_sequence}"
        )


def without_refused(records: NDArray[np.void], first_sequence: int, refused: list[int]) -> NDArray[np.void]:
    """Return *records*, the first of *first_sequence*, but for those of the *refused* sequences: they are in no state."""
    if not refused:
        return records
    keep = np.ones(len(records), dtype=bool)
    keep[np.asarray(refused) - first_sequence] = False
    return records[keep]
