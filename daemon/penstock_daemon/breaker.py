"""The breaker: says, for those who balance load, that predictions have come too late in a row.

                     a trip: breaker_run STALE predictions in a row
        CLOSED  ───────────────────────────────────────────────────►  OPEN
                ◄───────────────────────────────────────────────────
                     close_ns without a STALE prediction

The engine counts (trips, and when the last STALE prediction was made); this is a pure function of those counts and of
a clock that the caller reads, so that a test moves it by hand.

    between an opening and the next closing lie at least close_ns        so it can't flap faster than that
    trips while it is open are told when it closes; what keeps it open is their STALE predictions

Only REALTIME sessions count: the engine flags nothing in BULK.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """Whether predictions can be relied upon to come in time."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Transition:
    """That the breaker has opened or closed.

    Attributes:
        state: the new one.
        trips: since the transition before.
        open_ns: how long it was open; 0 where it has just opened.
    """

    state: BreakerState
    trips: int
    open_ns: int


class Breaker:
    """The state, and when it changes.

    Args:
        close_ns: closed again after so long without a STALE prediction.
        trips: as the engine counts them now: those are of the past.
    """

    def __init__(self, close_ns: int, trips: int = 0) -> None:
        assert close_ns > 0, "a breaker that closes at once would flap"
        self.state = BreakerState.CLOSED
        self.opened = 0  # How often it opened.
        self._close_ns = close_ns
        self._trips = trips
        self._trips_before = trips
        self._opened_ns = 0

    @property
    def open(self) -> bool:
        """True while predictions come too late."""
        return self.state is BreakerState.OPEN

    def look(self, now_ns: int, trips: int, stale_last_ns: int) -> Transition | None:
        """Take in what the engine has counted, and return what it changes, if anything.

        Args:
            now_ns: monotonic.
            trips: as the engine counts them.
            stale_last_ns: when the last STALE prediction was made, monotonic; 0 for none.
        """
        tripped = trips > self._trips
        self._trips = max(self._trips, trips)
        if self.state is BreakerState.CLOSED:
            if not tripped:
                return None
            self.opened += 1
            self._opened_ns = now_ns
            return self._turn(BreakerState.OPEN, 0)
        if now_ns - max(stale_last_ns, self._opened_ns) < self._close_ns:
            return None
        return self._turn(BreakerState.CLOSED, now_ns - self._opened_ns)

    def _turn(self, state: BreakerState, open_ns: int) -> Transition:
        trips, self._trips_before = self._trips - self._trips_before, self._trips
        self.state = state
        return Transition(state, trips, open_ns)
