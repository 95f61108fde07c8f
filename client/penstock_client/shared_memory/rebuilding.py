"""The part of a session's books that the stream sees: limits, how it opens again, and the ticks that rebuild states.

Over shared memory a stream carries no tick to predict. Rebuild ticks go over it before the strategy attaches:

    given      rebuild ticks handed to the stream
    taken      of those, acknowledged by the daemon
    rebuilt    all of them, or none was needed: now there may be an attachment
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from penstock_client.bookkeeping import Outgoing, Purpose
from penstock_client.errors import DaemonProtocolError
from penstock_client.rebuild_ticks import RebuildTicks, check_cold, check_limits, check_resumed, without_refused
from penstock_client.tick_history import TickHistory


class Rebuilding(ABC):
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
        self._rebuild = RebuildTicks()

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
        return self._rebuild.left > 0

    @property
    def rebuilt(self) -> bool:
        """Whether the daemon's states are whole; where they are not, its token is not worth offering."""
        return self._rebuild.whole

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
            check_resumed(next_sequence, self._answered, self._accepted)
            self._set_limits(in_flight_max, rebuild_ticks)
            self._daemon_has = next_sequence

    def reopen_cold(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Go on with a daemon that has none of our states: rebuild them, then attach and publish what is unanswered.

        Raises:
            DaemonProtocolError: it does not start at the sequence that Hello named.
        """
        with self._lock:
            check_cold(next_sequence, self._answered)
            self._set_limits(in_flight_max, rebuild_ticks)
            self._daemon_has = next_sequence
            self._rebuild.begin(self._history.all_records())

    def take(self, ticks_max: int) -> Outgoing | None:
        """Return rebuild ticks to send over the stream; None while there are none."""
        with self._lock:
            room = min(self._in_flight_max - self._rebuild.waiting, ticks_max)
            if room <= 0 or not self._rebuild.left:
                return None
            return Outgoing(Purpose.REBUILD, 0, self._rebuild.give(room))

    def rebuild_progress(self, ticks: int) -> None:
        """Note that the daemon has taken in *ticks* rebuild ticks in all; fewer than before is late news.

        Raises:
            DaemonProtocolError: more than were sent.
        """
        with self._lock:
            self._rebuild.progress(ticks)

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

    @abstractmethod
    def _archive(self) -> None:
        """Move answered ticks to the history of their instruments."""

    def _set_limits(self, in_flight_max: int, rebuild_ticks: int) -> None:
        """Take over a Welcome's limits."""
        check_limits(in_flight_max, rebuild_ticks, self._instruments)
        self._archive()
        if self._keep_history and rebuild_ticks != self._history.ticks:
            self._history = self._history.resized(rebuild_ticks)
        self._in_flight_max = in_flight_max
        self._rebuild = RebuildTicks()

    def _remember(self, records: NDArray[np.void], first_sequence: int) -> None:
        """Add answered *records*, the first of *first_sequence*, to the history, but for those that were refused."""
        self._history.add(without_refused(records, first_sequence, self._refused))
