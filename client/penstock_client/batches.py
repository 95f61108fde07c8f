"""What a session gives back: batches of answers, as arrays.

every accepted tick    has exactly one answer, in ``predictions`` or in ``errors``
sequences              go up without gaps over a session's batches, whatever happened to connections
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class TickErrorReason(IntEnum):
    """Why a tick could not be predicted; the numbers are those of the contract."""

    UNSPECIFIED = 0
    UNKNOWN_INSTRUMENT = 1  # instrument_id is not in Welcome.instruments.
    TIME_OUT_OF_RANGE = 2  # ts_recv is undefined or after the year 2262.


@dataclass(frozen=True, slots=True)
class TickError:
    """The answer to one tick that could not be predicted; nothing of it has entered any state.

    Attributes:
        sequence: the tick's number in the session.
        reason: a TickErrorReason, or a plain number where the daemon knows more reasons than this client.
        message: the daemon's sentence, with field, value and mend.
    """

    sequence: int
    reason: TickErrorReason | int
    message: str


@dataclass(slots=True, eq=False)  # Not frozen: that would double the time to make one.
class Batch:
    """Consecutive answers, as they came in one message.

    Attributes:
        predictions: shape (predictions,), dtype PREDICTION_DTYPE, read-only, in order of sequence.
        errors: the ticks among them that could not be predicted, in order of sequence; nearly always empty.
        sent_ns: when the daemon handed the batch to the transport, Unix ns, the daemon's clock.
        received_ns: when this process had the message, Unix ns, this host's clock.
    """

    predictions: NDArray[np.void]
    errors: list[TickError]
    sent_ns: int
    received_ns: int
