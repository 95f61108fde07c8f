"""The part of a session's books that the stream sees: limits, how it opens again, and the ticks that rebuild states.

Over shared memory a stream carries no tick to predict. Rebuild ticks go over it before the strategy attaches:

    given      rebuild ticks handed to the stream
    taken      of those, acknowledged by the daemon
    rebuilt    all of them, or none was needed: now there may be an attachment
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES
from penstock_client.bookkeeping import HISTORY_BYTES_CAP, Outgoing, Purpose
from penstock_client.errors import DaemonProtocolError
from penstock_client.tick_history import TickHistory


class Rebuilding:
    """Limits, history and rebuild ticks; RingBooks adds the rings.

    Args:
        instrument_ids: of the session.
        keep_history: False where the session will not reconnect.
    """

    _lock: threading.Lock
    _archived: int
    _answered: int
    _accepted: int
    _limit: int
    _daemon_has: int

    def __init__(self, instrument_ids: list[int], *, keep_history: bool) -> None:
        self._instruments = len(instrument_ids)
        self._keep_history = keep_history
        self._history = TickHistory(instrument_ids, 0)
        self._refused: list[int] = []  # Answered with an error and not yet archived: in no state.
        self._in_flight_max = 0
        self._rebuild = b""
        self._rebuild_given = self._rebuild_taken = self._rebuild_ticks = 0

    @property
    def next_sequence(self) -> int:
        """The sequence that the next accepted tick gets."""
        return self._accepted

    @property
    def next_answer(self) -> int:
        """The sequence of the oldest tick without an answer: what Hello says after a lost stream."""
        return self._answered

    @property
    def daemon_has(self) -> int:
        """The sequence that the next segment begins with: the daemon has every tick before it."""
        return self._daemon_has

    @property
    def unanswered(self) -> int:
        """How many accepted ticks have no answer yet."""
        return self._accepted - self._answered

    @property
    def in_flight_max(self) -> int:
        """How many ticks may be unanswered: what the Welcome grants, and at most what a ring holds."""
        return self._in_flight_max

    @property
    def has_more(self) -> bool:
        """Whether rebuild ticks wait to be sent over the stream."""
        return self._rebuild_given < self._rebuild_ticks

    @property
    def rebuilt(self) -> bool:
        """Whether the daemon's states are whole; where they are not, its token is not worth offering."""
        return self._rebuild_taken == self._rebuild_ticks

    def open_first(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Open the books with the Welcome of a session's first stream."""
        with self._lock:
            self._archived = self._answered = self._accepted = self._limit = self._daemon_has = next_sequence
            self._set_limits(in_flight_max, rebuild_ticks)

    def reopen_resumed(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Go on with the daemon's states: it has every tick below *next_sequence*.

        Raises:
            DaemonProtocolError: it claims ticks that were never sent, or lacks ticks that it has answered.
        """
        with self._lock:
            if not self._answered <= next_sequence <= self._accepted:
                raise DaemonProtocolError(
                    f"Welcome.next_sequence of a resumed session must be in {self._answered} to {self._accepted} "
                    f"(first unanswered to next): was {next_sequence}"
                )
            self._set_limits(in_flight_max, rebuild_ticks)
            self._daemon_has = next_sequence

    def reopen_cold(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Go on with a daemon that has none of our states: rebuild them, then attach and publish what is unanswered.

        Raises:
            DaemonProtocolError: it does not start at the sequence that Hello named.
        """
        with self._lock:
            if next_sequence != self._answered:
                raise DaemonProtocolError(
                    f"Welcome.next_sequence of a cold session must be Hello.first_sequence={self._answered}: "
                    f"was {next_sequence}"
                )
            self._set_limits(in_flight_max, rebuild_ticks)
            self._daemon_has = next_sequence
            self._rebuild = self._history.all_records()
            self._rebuild_given = self._rebuild_taken = 0
            self._rebuild_ticks = len(self._rebuild) // TICK_BYTES

    def take(self, ticks_max: int) -> Outgoing | None:
        """Return rebuild ticks to send over the stream; None while there are none."""
        with self._lock:
            first = self._rebuild_given
            waiting = first - self._rebuild_taken
            ticks = min(self._in_flight_max - waiting, ticks_max, self._rebuild_ticks - first)
            if ticks <= 0:
                return None
            self._rebuild_given = first + ticks
            records = self._rebuild[first * TICK_BYTES : self._rebuild_given * TICK_BYTES]
            if self._rebuild_given == self._rebuild_ticks:
                self._rebuild = b""
            return Outgoing(Purpose.REBUILD, 0, records)

    def rebuild_progress(self, ticks: int) -> None:
        """Note that the daemon has taken in *ticks* rebuild ticks in all; fewer than before is late news.

        Raises:
            DaemonProtocolError: more than were sent.
        """
        with self._lock:
            if ticks > self._rebuild_given:
                raise DaemonProtocolError(
                    f"RebuildProgress.ticks must be at most the {self._rebuild_given} that were sent: was {ticks}"
                )
            self._rebuild_taken = max(self._rebuild_taken, ticks)

    def answer(self, predicted: NDArray[np.uint64], refused: list[int]) -> None:
        """Refuse answers over the stream.

        Raises:
            DaemonProtocolError: always.
        """
        raise DaemonProtocolError(
            "the daemon must answer a session with shared memory in its ring: "
            f"sent {len(predicted) + len(refused)} answers over the stream"
        )

    # --- Inside, under the lock -------------------------------------------------------------------------------------

    def _archive(self) -> None:
        raise NotImplementedError

    def _set_limits(self, in_flight_max: int, rebuild_ticks: int) -> None:
        """Take over a Welcome's limits."""
        if in_flight_max < 1:
            raise DaemonProtocolError(f"Welcome.in_flight_max must be at least 1: was {in_flight_max}")
        if rebuild_ticks * self._instruments * TICK_BYTES > HISTORY_BYTES_CAP:
            raise DaemonProtocolError(
                f"Welcome.rebuild_ticks must be such that the history of {self._instruments} instruments takes at most "
                f"{HISTORY_BYTES_CAP} bytes: was {rebuild_ticks}"
            )
        self._archive()
        if self._keep_history and rebuild_ticks != self._history.ticks:
            self._history = self._history.resized(rebuild_ticks)
        self._in_flight_max = in_flight_max
        self._rebuild = b""
        self._rebuild_given = self._rebuild_taken = self._rebuild_ticks = 0

    def _remember(self, records: NDArray[np.void], first_sequence: int) -> None:
        """Add answered *records*, the first of *first_sequence*, to the history, but for those that were refused."""
        if self._refused:
            keep = np.ones(len(records), dtype=bool)
            keep[np.asarray(self._refused) - first_sequence] = False
            records = records[keep]
        self._history.add(records)
