"""Which tick stands where between the caller and the daemon: exactly one answer each, whatever connections do.

No input or output here: a session asks what to send, says what came, and asks anew after a lost stream. A tick lives in
one ring of records from the moment it is accepted until its answer has long come, and then in the history of its
instrument, from which a daemon without our states rebuilds them.

    archived <= answered <= sent <= accepted             each the sequence of the next tick to get there
    accepted - answered <= in_flight_max                 more is refused to the caller
    (sent - answered) + rebuild ticks not acknowledged <= in_flight_max       more is not given out to be sent
    answers come in order of sequence, each once         anything else is a DaemonProtocolError

A lost stream takes ``sent`` back: to what the daemon says it has (its states are ours, to the bit), or to ``answered``
(its states are cold: first the history goes, to rebuild them, then everything unanswered once more).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE
from penstock_client.errors import DaemonProtocolError
from penstock_client.rebuild_ticks import RebuildTicks, check_cold, check_limits, check_resumed, without_refused
from penstock_client.tick_history import TickHistory

IN_FLIGHT_CAP: Final = 1 << 20  # A larger grant is not used up: the ring's memory stays bounded (80 MiB).
ARCHIVE_TICKS: Final = 1024


class Purpose(IntEnum):
    """What a batch of ticks is for; the numbers are those of the contract."""

    PREDICT = 1
    REBUILD = 2


@dataclass(slots=True)
class Outgoing:
    """One batch of ticks to send now.

    Attributes:
        purpose: of all of them.
        first_sequence: of the first; 0 for REBUILD.
        records: consecutive 80-byte records, at least one.
    """

    purpose: Purpose
    first_sequence: int
    records: bytes


class Ledger:
    """The books of one session.

    Args:
        instrument_ids: of the session.
        keep_history: False where the session will not reconnect: nothing is kept past its answer.
        archive_ticks: how many answered ticks wait in the ring before they move to the history together.
    """

    def __init__(
        self, instrument_ids: list[int], *, keep_history: bool = True, archive_ticks: int = ARCHIVE_TICKS
    ) -> None:
        self._instrument_ids = instrument_ids
        self._keep_history = keep_history
        self._archive_ticks = archive_ticks
        self._history = TickHistory(instrument_ids, 0)
        self._refused: list[int] = []  # Answered with an error and not yet archived: in no state.
        self._in_flight_max = 0
        self._ring = memoryview(bytearray())
        self._slots = self._ring_bytes = 0
        self._archived = self._answered = self._sent = self._accepted = 0
        self._rebuild = RebuildTicks()

    # --- What stands in the books -----------------------------------------------------------------------------------

    @property
    def next_sequence(self) -> int:
        """The sequence that the next accepted tick gets."""
        return self._accepted

    @property
    def next_answer(self) -> int:
        """The sequence of the oldest tick without an answer: what Hello says after a lost stream."""
        return self._answered

    @property
    def unanswered(self) -> int:
        """How many accepted ticks have no answer yet."""
        return self._accepted - self._answered

    @property
    def in_flight_max(self) -> int:
        """How many ticks may be unanswered: what the Welcome grants, and at most IN_FLIGHT_CAP."""
        return self._in_flight_max

    @property
    def room(self) -> int:
        """How many ticks can be accepted now."""
        return max(self._in_flight_max - self.unanswered, 0)

    @property
    def has_more(self) -> bool:
        """Whether anything waits to be sent, be there room for it in flight or not."""
        return self._sent < self._accepted or self._rebuild.left > 0

    @property
    def rebuilt(self) -> bool:
        """Whether the daemon's states are whole: all rebuild ticks of this stream, if any, have been taken in.

        Where they are not, the token of this stream is not worth offering: the states behind it are half built.
        """
        return self._rebuild.whole

    # --- The caller's side ------------------------------------------------------------------------------------------

    def accept(self, records: bytes | memoryview) -> int:
        """Take as many of *records* as there is room for, by copy, and return how many that is.

        Args:
            records: consecutive 80-byte records; a memoryview has format "B".
        """
        ticks = len(records) // TICK_BYTES
        room = self._in_flight_max - self._accepted + self._answered
        if ticks > room:
            ticks = max(room, 0)
            records = records[: ticks * TICK_BYTES]
        self._write(self._accepted, records)
        self._accepted += ticks
        return ticks

    # --- The stream's side ------------------------------------------------------------------------------------------

    def open_first(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Open the books with the Welcome of a session's first stream."""
        self._archived = self._answered = self._sent = self._accepted = next_sequence
        self._set_limits(in_flight_max, rebuild_ticks)

    def reopen_resumed(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Go on with the daemon's states: it has every tick below *next_sequence*.

        Raises:
            DaemonProtocolError: it claims ticks that were never sent, or lacks ticks that it has answered.
        """
        check_resumed(next_sequence, self._answered, self._accepted)
        self._set_limits(in_flight_max, rebuild_ticks)
        assert self.rebuilt, "resumed a session whose states are half built"
        self._sent = next_sequence

    def reopen_cold(self, next_sequence: int, in_flight_max: int, rebuild_ticks: int) -> None:
        """Go on with a daemon that has none of our states: rebuild them, then send everything unanswered again.

        Raises:
            DaemonProtocolError: it does not start at the sequence that Hello named.
        """
        check_cold(next_sequence, self._answered)
        self._set_limits(in_flight_max, rebuild_ticks)
        self._sent = self._answered
        self._rebuild.begin(self._history.all_records())

    def take(self, ticks_max: int) -> Outgoing | None:
        """Return what to send next, at most *ticks_max* ticks, counted as sent; None while there is nothing."""
        waiting = self._sent - self._answered + self._rebuild.waiting
        room = min(self._in_flight_max - waiting, ticks_max)
        if room <= 0:
            return None
        if self._rebuild.left:
            return Outgoing(Purpose.REBUILD, 0, self._rebuild.give(room))
        ticks = min(self._accepted - self._sent, room)
        if ticks == 0:
            return None
        first = self._sent
        self._sent += ticks
        return Outgoing(Purpose.PREDICT, first, self._read(first, ticks))

    def answer(self, predicted: NDArray[np.uint64], refused: list[int]) -> None:
        """Note the answers of one message: sequences with a prediction and sequences with an error.

        Args:
            predicted: shape (predictions,), in the message's order.
            refused: in the message's order.

        Raises:
            DaemonProtocolError: together they are not the next unanswered sequences, each once and in order.
        """
        sequences = predicted
        if refused:
            self._check_order(np.asarray(refused, dtype=np.uint64))
            self._check_order(predicted)
            sequences = np.sort(np.concatenate([predicted, np.asarray(refused, dtype=np.uint64)]))
        count = len(sequences)
        if count == 0:
            return
        first = int(sequences[0])
        last = first if count == 1 else int(sequences[-1])
        if first != self._answered or last != first + count - 1:
            raise DaemonProtocolError(
                f"answers must go on at sequence {self._answered}, each once and in order: "
                f"got {count} from {first} to {last}"
            )
        if count > 2:
            self._check_order(sequences)
        if self._answered + count > self._sent:
            raise DaemonProtocolError(
                f"answers must be to ticks that were sent: got sequence {self._answered + count - 1}, "
                f"sent up to {self._sent - 1}"
            )
        self._answered += count
        self._rebuild.answered()
        if refused and self._keep_history:
            self._refused += refused
        if self._answered - self._archived >= self._archive_ticks:
            self._archive()

    def rebuild_progress(self, ticks: int) -> None:
        """Note that the daemon has taken in *ticks* rebuild ticks of this session in all; fewer than before is late news.

        Raises:
            DaemonProtocolError: more than were sent.
        """
        self._rebuild.progress(ticks)

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _check_order(self, sequences: NDArray[np.uint64]) -> None:
        if len(sequences) > 1 and not (sequences[1:] > sequences[:-1]).all():
            raise DaemonProtocolError(f"answers must be in order of sequence, each once: from {int(sequences[0])} on")

    def _set_limits(self, in_flight_max: int, rebuild_ticks: int) -> None:
        """Take over a Welcome's limits; what is held moves to a larger ring where one is needed."""
        check_limits(in_flight_max, rebuild_ticks, len(self._instrument_ids))
        self._archive()
        if self._keep_history and rebuild_ticks != self._history.ticks:
            self._history = self._history.resized(rebuild_ticks)
        self._in_flight_max = min(in_flight_max, IN_FLIGHT_CAP)
        if self._in_flight_max + self._archive_ticks > self._slots:
            held = self._read(self._answered, self.unanswered)
            self._slots = self._in_flight_max + self._archive_ticks
            self._ring_bytes = self._slots * TICK_BYTES
            self._ring = memoryview(bytearray(self._ring_bytes))
            self._write(self._answered, held)

    def _archive(self) -> None:
        """Move answered ticks from the ring to the history of their instruments."""
        ticks = self._answered - self._archived
        if self._keep_history and ticks:
            records = np.frombuffer(self._read(self._archived, ticks), dtype=TICK_DTYPE)
            records = without_refused(records, self._archived, self._refused)
            self._refused.clear()
            self._history.add(records)
        self._archived = self._answered

    def _write(self, sequence: int, records: bytes | memoryview) -> None:
        """Put *records* into the ring, the first at *sequence*."""
        size = len(records)
        if size == 0:
            return
        start = sequence % self._slots * TICK_BYTES
        end = start + size
        if end <= self._ring_bytes:
            self._ring[start:end] = records
        else:
            fits = self._ring_bytes - start
            self._ring[start:] = records[:fits]
            self._ring[: size - fits] = records[fits:]

    def _read(self, sequence: int, ticks: int) -> bytes:
        """Copy *ticks* records out of the ring, the first at *sequence*."""
        if ticks == 0:
            return b""
        start, size = sequence % self._slots * TICK_BYTES, ticks * TICK_BYTES
        end = start + size
        if end <= self._ring_bytes:
            return bytes(self._ring[start:end])
        return bytes(self._ring[start:]) + bytes(self._ring[: end - self._ring_bytes])
