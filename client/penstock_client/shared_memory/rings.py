"""The rings of a session in place, without a copy: for strategies that count each microsecond.

    ticks = rings.claim(1)          free slots of the tick ring, as a NumPy view
    ticks["bid_px"] = ...           filled in place; length and rtype are set already
    rings.publish(1)                the daemon may read them from here on

    predictions = rings.peek()      answers, as a view that can't be written
    rings.release(len(predictions)) their slots are the daemon's again from here on

For one thread at a time, and nothing here waits. Send nothing else between a claim and its publish(), and receive nothing
else between a peek and its release(). What a view shows after its slots were published or released is the
daemon's business: keep nothing of it. A claim says nothing of the ticks' values, and a slot keeps what its last tick left
in it: fill every field. An answer whose flags have REFUSED_FLAG is an error, and its ``horizons`` the reason's number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock_client.shared_memory.answers import NOTHING
from penstock_client.shared_memory.books import RingBooks
from penstock_client.shared_memory.segment import Segment


class Rings:
    """Claim, publish, peek, release; ``session.rings``.

    Args:
        books: of the session.
        check_usable: raises what send() would, for the session's sake.
        check_readable: raises what receive() would.
    """

    def __init__(self, books: RingBooks, check_usable: Callable[[], None], check_readable: Callable[[], None]) -> None:
        self._books = books
        self._check_usable = check_usable
        self._check_readable = check_readable
        self._claimed: NDArray[np.void] | None = None
        self._claimed_in: Segment | None = None
        self._peeked: NDArray[np.void] = NOTHING
        self._peeked_in: Segment | None = None

    def claim(self, ticks: int) -> NDArray[np.void]:
        """Return free tick slots that stand side by side: *ticks* of them, or fewer at the ring's end or where it is full.

        Another claim before publish() replaces this one. Where it is cut short by the ring's end, publish it and claim the
        rest.

        Returns:
            Shape (up to *ticks*,), dtype TICK_DTYPE, in place; empty while ``in_flight_max`` ticks are unanswered.

        Raises:
            LocalUsageError: the session is not open.
            PenstockError: what ended the session.
        """
        assert ticks > 0, f"claim at least one tick: ticks={ticks}"
        segment, claimed = self._books.claim(ticks)
        if not len(claimed) or self._books.attached is None:
            self._check_usable()
        self._claimed_in, self._claimed = segment, claimed
        return claimed

    def publish(self, ticks: int) -> int:
        """Hand the first *ticks* of the claim to the daemon, and end the claim.

        Returns:
            How many were taken: all, but where a connection was lost since the claim and the new rings are smaller.

        Raises:
            LocalUsageError: the session was finished or closed since the claim.
            PenstockError: what ended the session.
        """
        assert self._claimed is not None, "publish without a claim"
        assert 0 < ticks <= len(self._claimed), f"published more than was claimed: {ticks} of {len(self._claimed)}"
        if self._books.attached is None:
            self._check_usable()
        claimed, self._claimed = self._claimed, None
        return self._books.publish_claimed(self._claimed_in, claimed, ticks)

    def peek(self) -> NDArray[np.void]:
        """Return the answers that are there and stand side by side; those behind the ring's end come after release().

        What was peeked at counts as read when the daemon is lost; it is not shown again.

        Returns:
            Shape (answers,), dtype PREDICTION_DTYPE, in place, not writeable; empty where there is none yet.

        Raises:
            DaemonProtocolError: an answer or the daemon's cursor is not what it must be.
            PenstockError: what ended the session, once all answers were read.
        """
        segment, peeked = self._books.peek()
        if not len(peeked):
            self._check_readable()
        self._peeked_in, self._peeked = segment, peeked
        return peeked

    def release(self, answers: int) -> None:
        """Give the slots of the first *answers* of the last peek() back; those left of it are peeked at again."""
        assert 0 <= answers <= len(self._peeked), f"released more than was peeked at: {answers} of {len(self._peeked)}"
        self._peeked = NOTHING
        if answers:
            self._books.release(self._peeked_in, answers)
