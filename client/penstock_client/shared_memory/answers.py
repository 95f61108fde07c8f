"""Predictions as they stand in a segment's ring: how many there are, whether they are the next ones, and a copy of them.

PREDICTION_PUBLISHED is the daemon's word: it is believed only where it is read <= published <= read + slots. A record's
sequence must be the one that is next; its flags tell a refused tick, whose answer is an error. Whatever the daemon writes,
nothing outside the ring is read: slots come from our own count.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import PREDICTION_BYTES, PREDICTION_DTYPE
from penstock.v1.shared_ring import REFUSED_FLAG
from penstock_client.batches import Batch, TickError, TickErrorReason
from penstock_client.errors import DaemonProtocolError
from penstock_client.shared_memory.segment import PREDICTION_PUBLISHED, PREDICTION_SLOT_WORDS, Segment

NOTHING: Final[NDArray[np.void]] = np.empty(0, PREDICTION_DTYPE)
_REFUSED: Final = np.uint32(REFUSED_FLAG)
FLAGS_WORD: Final = int(dict(PREDICTION_DTYPE.fields or {})["flags"][1]) // 8
_REASONS: Final = {
    int(TickErrorReason.UNKNOWN_INSTRUMENT): (
        TickErrorReason.UNKNOWN_INSTRUMENT,
        "instrument_id: was {instrument_id}; name it in Hello.instruments",
    ),
    int(TickErrorReason.TIME_OUT_OF_RANGE): (
        TickErrorReason.TIME_OUT_OF_RANGE,
        "ts_recv: was {ts_recv}; give the Unix time in nanoseconds at which the tick was received, before the year 2262",
    ),
}


def ready(segment: Segment, read: int) -> int:
    """Return how many predictions stand behind the first *read* ones.

    Raises:
        DaemonProtocolError: the cursor moved back, or on by more than the ring holds.
    """
    count = segment.words[PREDICTION_PUBLISHED] - read
    if not 0 <= count <= segment.slots:
        raise DaemonProtocolError(
            f"the segment's PREDICTION_PUBLISHED must be in {read} to {read + segment.slots}: was {read + count}"
        )
    return count


def copied(segment: Segment, slot: int, count: int) -> NDArray[np.void]:
    """Return a copy of *count* records from *slot* on, over the ring's end where need be, by at most two slices.

    Returns:
        Shape (count,), PREDICTION_DTYPE, not writeable.
    """
    ring = segment.prediction_word * 8
    start, end = slot * PREDICTION_BYTES, (slot + count) * PREDICTION_BYTES
    size = segment.slots * PREDICTION_BYTES
    if end <= size:
        return np.frombuffer(bytes(segment.memory[ring + start : ring + end]), PREDICTION_DTYPE)
    parts = segment.memory[ring + start : ring + size], segment.memory[ring : ring + end - size]
    return np.frombuffer(b"".join(parts), PREDICTION_DTYPE)


def check_order(records: NDArray[np.void], sequence: int) -> None:
    """Check that *records*, at least one, answer *sequence* and those after it.

    Raises:
        DaemonProtocolError: they do not.
    """
    sequences = records["sequence"]
    count = len(sequences)
    if count == 1:
        if int(sequences[0]) != sequence:
            raise _out_of_order(sequence, int(sequences[0]))
        return
    wrong = np.flatnonzero(sequences != np.arange(sequence, sequence + count, dtype=np.uint64))
    if len(wrong):
        raise _out_of_order(sequence + int(wrong[0]), int(sequences[wrong[0]]))


def refused(records: NDArray[np.void]) -> list[int]:
    """Return the indexes of the refused ones among *records*; nearly always none."""
    flags = records["flags"]
    if not len(flags) or int(flags.max()) < REFUSED_FLAG:
        return []
    return [int(index) for index in np.flatnonzero(flags & _REFUSED)]


def refused_in_place(segment: Segment, slot: int, count: int) -> list[int]:
    """Return the indexes of the refused ones among *count* records side by side from *slot* on."""
    if count == 1:
        word = segment.prediction_word + slot * PREDICTION_SLOT_WORDS + FLAGS_WORD
        return [0] if segment.words[word] & REFUSED_FLAG else []
    return refused(segment.predictions[slot : slot + count])


def as_batch(records: NDArray[np.void]) -> Batch:
    """Return copied *records* as what a session gives: predictions, and the refused ones as errors."""
    now_ns = time.time_ns()
    indexes = refused(records)
    if not indexes:
        return Batch(records, [], 0, now_ns)
    errors = [_error(records[index]) for index in indexes]
    kept = np.delete(records, indexes)
    kept.flags.writeable = False
    return Batch(kept, errors, 0, now_ns)


def _error(record: np.void) -> TickError:
    number = int(record["horizons"])
    reason, sentence = _REASONS.get(number, (number, "the daemon gave a reason that this client does not know"))
    said = sentence.format(instrument_id=int(record["instrument_id"]), ts_recv=int(record["ts_recv"]))
    return TickError(int(record["sequence"]), reason, said)


def _out_of_order(sequence: int, found: int) -> DaemonProtocolError:
    return DaemonProtocolError(f"answers must go on at sequence {sequence}, each once and in order: got {found}")
