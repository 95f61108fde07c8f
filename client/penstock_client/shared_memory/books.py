"""Which tick of a session over shared memory stands where: the ledger, kept in the segment's own tick ring.

The tick ring is the strategy's memory, and a slot is not written again before its tick is answered and archived. So the
ring itself is the record of all that is unanswered: nothing is copied twice, and after a lost daemon its ticks are still
here, in memory that stays mapped until they have moved to the next segment.

    archived <= answered <= accepted          each the sequence of the next tick to get there
    accepted - archived <= slots              the ring never overruns
    accepted - answered <= in_flight_max      more is refused to the caller
    slot of sequence s = (s - base) & mask    base: the segment's first sequence
    answers come in order of sequence, each once; anything else is a DaemonProtocolError

Every method takes the lock, for microseconds; the front's threads call those of the strategy's side, the event loop those
of the stream's side.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_BYTES, PREDICTION_DTYPE, TICK_BYTES, TICK_DTYPE
from penstock.v1.shared_ring import HEADER_BYTES, REFUSED_FLAG, TICK_SLOT_BYTES
from penstock_client.batches import Batch
from penstock_client.bookkeeping import ARCHIVE_TICKS
from penstock_client.errors import SessionLost
from penstock_client.shared_memory import answers
from penstock_client.shared_memory.rebuilding import Rebuilding
from penstock_client.shared_memory.segment import (
    ENGINE_SLEEPING,
    PREDICTION_CONSUMED,
    PREDICTION_PUBLISHED,
    PREDICTION_SLOT_WORDS,
    TICK_PUBLISHED,
    TICK_SLOT_WORDS,
    TICK_WORDS,
    WRITTEN_WORD,
    Segment,
)

NO_ROOM: Final = -1
NO_TICKS: Final[NDArray[np.void]] = np.empty(0, TICK_DTYPE)
_TICK_WRITTEN: Final = HEADER_BYTES // 8 + WRITTEN_WORD  # Of the first slot, in a segment's words.


class RingBooks(Rebuilding):
    """The books of one session: what SessionCore and Exchange ask of a Ledger, and what a front asks of its rings.

    Args:
        instrument_ids: of the session.
        keep_history: False where the session will not reconnect: nothing is kept past its answer.

    Attributes:
        attached: the segment that is served at present; None between two.
        unread: predictions that were taken out of a ring for a reader who has not come yet.
        many: set while a thread sends more than one tick, which nobody's single one may part.
    """

    def __init__(self, instrument_ids: list[int], *, keep_history: bool = True) -> None:
        super().__init__(instrument_ids, keep_history=keep_history)
        self._lock = threading.Lock()
        self._archived = self._answered = self._accepted = self._daemon_has = 0
        self._limit = 0  # The sequence before which ticks are accepted without another look at the room.
        self._segment: Segment | None = None  # Where the ticks stand, served or not.
        self._base = self._slots = self._mask = 0
        self._read = 0  # Predictions taken from this segment.
        self._peeked = self._peeked_at = 0  # Shown by peek(), from which answer of this segment on.
        self._claimed_at = 0  # The sequence that the claim begins with.
        self._aside: deque[NDArray[np.void]] = deque()
        self._aside_peeked = False
        self._may_publish = False
        self.attached: Segment | None = None
        self.unread = 0
        self.many = False

    # --- What stands in the books -----------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many ticks can be accepted now."""
        with self._lock:
            return self._make_room()

    @property
    def read(self) -> int:
        """What PREDICTION_PUBLISHED of the attached segment is while there is no new answer."""
        return self._read

    # --- The strategy's side: ticks ---------------------------------------------------------------------------------

    def accept_one(self, record: bytes | memoryview) -> int:
        """Take one tick of 80 bytes, publish it, and return its sequence; NO_ROOM where the ring is full.

        The lean way: no array is made, and the lock's release is the fence before ENGINE_SLEEPING is looked at (on x86-64;
        elsewhere words need none, see ``words.py``). NO_ROOM too while another thread sends many, which stay together.
        """
        with self._lock:
            segment, sequence = self._segment, self._accepted
            if segment is None or self.many or (sequence >= self._limit and not self._make_room()):
                return NO_ROOM
            words, slot = segment.words, (sequence - self._base) & self._mask
            at = HEADER_BYTES + slot * TICK_SLOT_BYTES
            segment.memory[at : at + TICK_BYTES] = record
            words[_TICK_WRITTEN + slot * TICK_SLOT_WORDS] = time.monotonic_ns()
            self._accepted = sequence + 1
            if self._may_publish:
                words[TICK_PUBLISHED] = sequence + 1 - self._base
        if words[ENGINE_SLEEPING]:
            segment.wake_engine()
        return sequence

    def accept(self, records: bytes | memoryview) -> int:
        """Take as many of *records* as there is room for, by copy, publish them, and return how many that is.

        Args:
            records: consecutive 80-byte records; a memoryview has format "B".
        """
        with self._lock:
            segment = self._segment
            ticks = min(len(records) // TICK_BYTES, self._make_room())
            if ticks <= 0 or segment is None:
                return 0
            self._write(segment, records[: ticks * TICK_BYTES], ticks)
            self._accepted += ticks
            if self._may_publish:
                self._publish(segment)
            return ticks

    def claim(self, ticks_max: int) -> tuple[Segment | None, NDArray[np.void]]:
        """Return the next free tick slots, side by side: at most *ticks_max*, fewer at the ring's end or where it is full.

        Returns:
            The segment, and shape (ticks,), TICK_DTYPE, in place; may be empty.
        """
        segment, self._claimed_at = self._segment, self._accepted  # No lock: publish_claimed() looks at both again.
        if segment is None:
            return None, NO_TICKS
        slot = (self._accepted - segment.first_sequence) & segment.mask
        count = min(ticks_max, segment.slots - slot)
        if self._limit - self._accepted < count:
            count = min(count, self.room)
        return segment, segment.tick_records[slot : slot + count]

    def publish_claimed(self, segment: Segment | None, claimed: NDArray[np.void], ticks: int) -> int:
        """Publish the first *ticks* of what was *claimed* in *segment*, and return how many there was room for.

        That is all of them, but where the session has moved to a smaller ring meanwhile; to another one, they are copied.
        """
        with self._lock:
            at_present = self._segment
            if at_present is None or segment is None:
                return 0
            assert self._accepted == self._claimed_at, "others were sent after the claim, in its slots: claim again"
            slot = (self._accepted - self._base) & self._mask
            if segment is not at_present:
                ticks = min(ticks, self._make_room())
                self._write(at_present, claimed[:ticks].tobytes(), ticks)
            elif ticks == 1:
                at_present.words[_TICK_WRITTEN + slot * TICK_SLOT_WORDS] = time.monotonic_ns()
            else:
                at_present.tick_words[slot : slot + ticks, WRITTEN_WORD] = time.monotonic_ns()
            self._accepted += ticks
            if self._may_publish:
                at_present.words[TICK_PUBLISHED] = self._accepted - self._base
        if at_present.words[ENGINE_SLEEPING]:
            at_present.wake_engine()
        return ticks

    # --- The strategy's side: answers -------------------------------------------------------------------------------

    @property
    def something_to_read(self) -> bool:
        """Whether drain() would return something; as something_in_ring, and what was set aside counts too."""
        return bool(self._aside) or self.something_in_ring

    @property
    def something_in_ring(self) -> bool:
        """Whether set_aside() would take something. Looks at one word, without the lock."""
        segment = self.attached
        return segment is not None and segment.published() != self._read

    def drain(self) -> Batch | None:
        """Take all answers that are there, by copy; None where there is none.

        Raises:
            DaemonProtocolError: the cursor, or an answer's sequence, is not what it must be.
        """
        with self._lock:
            if self._aside:
                return self._from_aside()
            segment, read = self.attached, self._read
            if segment is None:
                return None
            words = segment.words
            if words[PREDICTION_PUBLISHED] - read != 1:  # The lean way is for one.
                count = answers.ready(segment, read)
                return answers.as_batch(self._copy_out(segment, count)) if count else None
            word = segment.prediction_word + (read & self._mask) * PREDICTION_SLOT_WORDS
            if words[word] != self._answered or words[word + answers.FLAGS_WORD] & REFUSED_FLAG:
                return answers.as_batch(self._copy_out(segment, 1))
            record = bytes(segment.memory[word * 8 : word * 8 + PREDICTION_BYTES])
            self._read = words[PREDICTION_CONSUMED] = read + 1
            self._answered += 1
            if self._answered - self._archived >= ARCHIVE_TICKS:
                self._archive()
        return Batch(np.frombuffer(record, PREDICTION_DTYPE), [], 0, time.time_ns())

    def set_aside(self) -> int:
        """Take all answers that are there out of the ring, for a reader yet to come, and return how many.

        Raises:
            DaemonProtocolError: as drain().
        """
        with self._lock:
            return self._set_aside()

    def peek(self) -> tuple[Segment | None, NDArray[np.void]]:
        """Return the answers that are there, in place and side by side: fewer than all where the ring's end is between.

        Returns:
            The segment, and shape (answers,), PREDICTION_DTYPE, not writeable; may be empty. Good until release().

        Raises:
            DaemonProtocolError: as drain().
        """
        with self._lock:
            if self._aside:
                self._aside_peeked = True
                return None, self._aside[0]
            segment = self.attached
            if segment is None:
                return None, answers.NOTHING
            count = answers.ready(segment, self._read)
            if count == 0:
                return segment, answers.NOTHING
            slot = self._read & self._mask
            records = segment.predictions[slot : slot + count]
            if count > 1 or segment.words[segment.prediction_word + slot * PREDICTION_SLOT_WORDS] != self._answered:
                answers.check_order(records, self._answered)
            self._peeked, self._peeked_at = len(records), self._read
            return segment, records

    def release(self, segment: Segment | None, released: int) -> None:
        """Give back the first *released* of what peek() returned of *segment*."""
        with self._lock:
            if self._aside_peeked:  # Or set aside since, by a send that waited for room.
                self._release_aside(released)
            elif segment is not None and segment is self.attached:  # Else they counted as read when it was left.
                assert self._read == self._peeked_at, "answers were received after the peek: they are released already"
                self._take(segment, released, self._refused_in_place(segment, released))
                self._peeked = 0

    # --- The stream's side ------------------------------------------------------------------------------------------

    def attach(self, segment: Segment) -> None:
        """Go on in *segment*: what is unanswered moves there, and what the daemon lacks of it is published.

        Raises:
            SessionLost: it is too small for what is unanswered.
        """
        with self._lock:
            unanswered = self._accepted - self._answered
            if unanswered > segment.slots:
                raise SessionLost(
                    f"the daemon that took the session over has rings of {segment.slots} records, and {unanswered} ticks "
                    "are unanswered; connect anew, or raise its sessions.in_flight_max",
                    unanswered=unanswered,
                )
            held = self._records(self._answered, unanswered)
            self._archive()
            self._segment, self._base = segment, segment.first_sequence
            self._slots, self._mask = segment.slots, segment.mask
            self._in_flight_max = min(self._in_flight_max, segment.slots)
            self._read = self._peeked = 0
            self._accepted = self._answered
            self._write(segment, held.tobytes(), unanswered)
            self._accepted += unanswered
            self._may_publish, self.attached = True, segment
            self._make_room()
            self._publish(segment)

    def stop_publishing(self) -> None:
        """Keep the ticks that come from now on for the next segment: the daemon is leaving."""
        with self._lock:
            self._may_publish = False

    def detach(self) -> None:
        """Leave the segment: set the answers aside that are there, and keep its memory for the ticks that have none.

        Raises:
            DaemonProtocolError: as drain(); it is left all the same.
        """
        with self._lock:
            segment = self.attached
            if segment is None:
                return
            try:
                seen = self._peeked and self._read == self._peeked_at
                if seen and self._peeked <= answers.ready(segment, self._read):
                    self._take(segment, self._peeked, self._refused_in_place(segment, self._peeked))
                self._set_aside()
            finally:
                self.attached, self._may_publish, self._peeked = None, False, 0
                segment.leave()

    def forked_off(self) -> None:
        """Touch the segment no more, in a forked child: it is the parent's, who goes on with it."""
        if self._segment is not None:
            self._segment.close()
        self._lock, self._segment, self.attached = threading.Lock(), None, None

    # --- Inside, under the lock -------------------------------------------------------------------------------------

    def _make_room(self) -> int:
        """Return how many ticks can be accepted now; what is answered is archived where the ring needs its slots."""
        if self._segment is None:
            return 0
        limit = self._answered + self._in_flight_max
        if limit > self._archived + self._slots:
            self._archive()
        self._limit = min(limit, self._archived + self._slots)
        return max(self._limit - self._accepted, 0)

    def _write(self, segment: Segment, records: bytes | memoryview, ticks: int) -> None:
        """Put *ticks* records into the ring from the next sequence on."""
        rows = np.frombuffer(records, np.int64).reshape(ticks, TICK_WORDS)
        segment.write_ticks((self._accepted - self._base) & self._mask, rows, time.monotonic_ns())

    def _records(self, sequence: int, ticks: int) -> NDArray[np.int64]:
        """Copy *ticks* records out of the ring, shape (ticks, 10), the first at *sequence*."""
        if self._segment is None or not ticks:
            return np.empty((0, TICK_WORDS), dtype=np.int64)
        slots = (np.arange(sequence, sequence + ticks) - self._base) & self._mask
        return self._segment.tick_words[slots, :TICK_WORDS]

    def _publish(self, segment: Segment) -> None:
        """Let the daemon see every tick that was accepted, and wake it where it sleeps."""
        segment.words[TICK_PUBLISHED] = self._accepted - self._base
        segment.ring_engine()

    def _refused_in_place(self, segment: Segment, count: int) -> list[int]:
        """Return the sequences of the refused ticks among the next *count* answers."""
        indexes = answers.refused_in_place(segment, self._read & self._mask, count)
        return [self._answered + index for index in indexes]

    def _from_aside(self) -> Batch:
        assert not self._aside_peeked, "read answers while others were peeked at: release them first"
        records = self._aside.popleft()
        self.unread -= len(records)
        return answers.as_batch(records)

    def _copy_out(self, segment: Segment, count: int) -> NDArray[np.void]:
        """Take *count* answers out of the ring, by copy."""
        records = answers.copied(segment, self._read & self._mask, count)
        answers.check_order(records, self._answered)
        self._take(segment, count, [self._answered + index for index in answers.refused(records)])
        return records

    def _take(self, segment: Segment, count: int, refused: list[int] | None) -> None:
        """Count *count* answers as read, and give their slots back; of *refused* ticks nothing is archived."""
        self._read += count
        segment.words[PREDICTION_CONSUMED] = self._read
        self._answered += count
        if refused:
            self._refused += refused
        if self._answered - self._archived >= ARCHIVE_TICKS:
            self._archive()

    def _set_aside(self) -> int:
        segment = self.attached
        count = answers.ready(segment, self._read) if segment is not None else 0
        if segment is None or not count:
            return 0
        self._aside_peeked |= bool(self._peeked) and self._read == self._peeked_at
        self._aside.append(self._copy_out(segment, count))
        self.unread += count
        self._peeked = 0
        return count

    def _release_aside(self, released: int) -> None:
        records = self._aside.popleft()
        self._aside_peeked = False
        self.unread -= released
        if released < len(records):
            self._aside.appendleft(records[released:])

    def _archive(self) -> None:
        """Move answered ticks to the history of their instruments."""
        ticks = self._answered - self._archived
        if ticks and self._keep_history:
            records = self._records(self._archived, ticks).view(TICK_DTYPE).reshape(-1)
            self._remember(records, self._archived)
        self._refused.clear()
        self._archived = self._answered
        self._limit = min(self._answered + self._in_flight_max, self._archived + self._slots)
