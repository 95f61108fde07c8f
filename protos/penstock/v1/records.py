"""The two fixed-size records of the wire: a market tick in, a prediction out.

Both are little-endian and have no padding, so ``numpy.frombuffer`` is the whole decoder and a C struct of the same
fields is the whole client. A tick is a DBN ``mbp-1`` record, byte for byte as in a Databento file.

    len(TickBatch.records)             is a multiple of TICK_BYTES
    len(PredictionBatch.records)       is a multiple of PREDICTION_BYTES

Units: prices are int64 in 1e-9 of the quote currency, sizes are integers in the scale that ``Hello`` declares, times
are uint64 nanoseconds since the Unix epoch, durations are uint32 nanoseconds that saturate.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, IntFlag
from typing import Final

import numpy as np
from numpy.typing import NDArray

# --- The tick -------------------------------------------------------------------------------------------------------

TICK_BYTES: Final = 80
TICK_LENGTH_WORDS: Final = TICK_BYTES // 4  # What the record's own length field says: 4-byte words.
TICK_RTYPE: Final = 0x01  # DBN's mbp-1.

UNDEFINED_PRICE: Final = 2**63 - 1
UNDEFINED_TIME: Final = 2**64 - 1

TICK_DTYPE: Final = np.dtype(
    {
        "names": [
            "length",  # In 4-byte words; always TICK_LENGTH_WORDS.
            "rtype",  # Always TICK_RTYPE.
            "publisher_id",  # DBN's, opaque.
            "instrument_id",  # As in Hello.instruments.
            "ts_event",  # Venue's Unix time, ns. May be undefined, may run backwards.
            "price",  # Of the trade, 1e-9. Undefined on quotes.
            "size",  # Of the trade, in the instrument's size scale.
            "action",  # ASCII: T trade, A add, C cancel, M modify, R clear, F fill, N none.
            "side",  # ASCII: A sell aggressor or ask, B buy aggressor or bid, N none.
            "flags",  # BookFlag.
            "depth",  # Book level of the event, 0 is the top.
            "ts_recv",  # Recorder's Unix time, ns. Orders a recording.
            "ts_in_delta",  # ts_recv minus the venue's sending time, ns. DBN's, opaque.
            "sequence",  # The venue's, opaque, echoed nowhere and never checked.
            "bid_px",  # Best bid after the event, 1e-9. May be undefined.
            "ask_px",  # Best ask after the event, 1e-9. May be undefined.
            "bid_sz",  # Size at the best bid. May be 0 where the venue sends none.
            "ask_sz",  # Size at the best ask.
            "bid_ct",  # Orders at the best bid. May be 0.
            "ask_ct",  # Orders at the best ask.
        ],
        "formats": [
            "u1", "u1", "<u2", "<u4", "<u8", "<i8", "<u4", "u1", "u1", "u1",
            "u1", "<u8", "<i4", "<u4", "<i8", "<i8", "<u4", "<u4", "<u4", "<u4",
        ],
        "offsets": [0, 1, 2, 4, 8, 16, 24, 28, 29, 30, 31, 32, 40, 44, 48, 56, 64, 68, 72, 76],
        "itemsize": TICK_BYTES,
    }
)  # fmt: skip


class BookFlag(IntFlag):
    """Bits of a tick's ``flags``, as DBN defines them."""

    LAST = 128  # Last record of the venue's event.
    TOP_OF_BOOK = 64
    SNAPSHOT = 32
    MARKET_BY_PRICE = 16
    BAD_TS_RECV = 8
    MAYBE_BAD_BOOK = 4


# --- The prediction -------------------------------------------------------------------------------------------------

PREDICTION_BYTES: Final = 128
HORIZONS_MAX: Final = 4
PROBABILITY_ONE: Final = 65535  # A probability is u16 in 1/65535.


class Stage(IntEnum):
    """The stages of a tick's path; the first six have a duration in the prediction record.

    EGRESS ends after the record is written, so it is known to the histograms and, for a whole batch, to the client
    through ``PredictionBatch.sent_ns``. TOTAL runs from the daemon's first stamp to the end of EGRESS.
    """

    RECEIVE = 0  # First stamp until the tick stands in its ring.
    RING = 1  # In the ring until the engine takes it.
    FEATURES = 2
    UPLOAD = 3  # To the device; 0 on the CPU engine.
    PREDICT = 4  # Reservoir and readout.
    DOWNLOAD = 5  # From the device; 0 on the CPU engine.
    EGRESS = 6  # Prediction published until handed to the transport.
    TOTAL = 7


STAGES_IN_RECORD: Final = 6


class Clock(IntEnum):
    """Where a prediction's first stamp comes from."""

    UNSPECIFIED = 0
    USER = 1  # Read by the process, after the transport delivered the bytes.
    KERNEL = 2
    NIC_HARDWARE = 3
    GPU = 4
    TSC = 5


class PredictionFlag(IntFlag):
    """Bits of a prediction's ``flags``. The hash of a replay leaves out LATE, STALE and DEGRADED."""

    WARMING = 1  # The state has seen fewer ticks than the model's rebuild_ticks.
    LATE = 2  # Older than the budget when predicted.
    STALE = 4  # Older than the stale bound (6 ms): do not trade on it.
    DEGRADED = 8  # Made by the fall-back engine.
    SKIPPED = 16  # The state was updated, no prediction was made: forecasts are 0.
    BOOK_ONE_SIDED = 32  # A best price was undefined: the mid is the last known one.
    BOOK_CROSSED = 64  # The bid was at or above the ask.
    BOOK_UNSOUND = 128  # After an unrecovered gap in a feed.
    TIME_BACKWARDS = 256  # ts_recv was before that of the instrument's previous tick: counted as no time.


FORECAST_DTYPE: Final = np.dtype(
    {
        "names": [
            "expected_return",  # Of the mid, as a fraction (1e-4 is one basis point).
            "deviation",  # Standard deviation of that return, same unit. 0: not estimated.
            "probability_up",  # In 1/65535.
            "probability_down",  # In 1/65535. The rest is "unchanged".
        ],
        "formats": ["<f4", "<f4", "<u2", "<u2"],
        "offsets": [0, 4, 8, 10],
        "itemsize": 12,
    }
)

PREDICTION_DTYPE: Final = np.dtype(
    {
        "names": [
            "sequence",  # Of the tick in its session, from TickBatch.first_sequence.
            "ts_event",  # The tick's own, Unix ns, or undefined.
            "ts_recv",  # The tick's own, Unix ns.
            "instrument_id",  # The tick's own.
            "model_serial",  # First 32 bits of the model's content hash, big-endian.
            "flags",  # PredictionFlag.
            "clock",  # Clock of received_ns (or of wire_ns, where that is not 0).
            "horizons",  # How many of the forecasts are in use.
            "batch",  # Ticks in the engine's pass that made this prediction; saturates.
            "received_ns",  # First stamp inside the daemon, Unix ns.
            "wire_ns",  # Arrival at the host by kernel or NIC, Unix ns; 0 for none.
            "stage_ns",  # Durations of the first six stages, ns, saturating.
            "forecasts",  # In the order of Welcome.horizons.
        ],
        "formats": [
            "<u8", "<u8", "<u8", "<u4", "<u4", "<u4", "u1", "u1", "<u2", "<u8", "<u8",
            ("<u4", (STAGES_IN_RECORD,)), (FORECAST_DTYPE, (HORIZONS_MAX,)),
        ],
        "offsets": [0, 8, 16, 24, 28, 32, 36, 37, 38, 40, 48, 56, 80],
        "itemsize": PREDICTION_BYTES,
    }
)  # fmt: skip

_UNHASHED_FLAGS: Final = int(PredictionFlag.LATE | PredictionFlag.STALE | PredictionFlag.DEGRADED)


def ticks_from_bytes(data: bytes | bytearray | memoryview) -> NDArray[np.void]:
    """View *data* as ticks, without a copy.

    Returns:
        Shape (ticks,), dtype TICK_DTYPE, read-only where *data* is.

    Raises:
        ValueError: the length is not a multiple of TICK_BYTES.
    """
    size = memoryview(data).nbytes
    if size % TICK_BYTES:
        raise ValueError(f"tick records must be {TICK_BYTES} bytes each: bytes={size}, left over={size % TICK_BYTES}")
    return np.frombuffer(data, dtype=TICK_DTYPE)


def predictions_from_bytes(data: bytes | bytearray | memoryview) -> NDArray[np.void]:
    """View *data* as predictions, without a copy.

    Returns:
        Shape (predictions,), dtype PREDICTION_DTYPE, read-only where *data* is.

    Raises:
        ValueError: the length is not a multiple of PREDICTION_BYTES.
    """
    size = memoryview(data).nbytes
    if size % PREDICTION_BYTES:
        raise ValueError(
            f"prediction records must be {PREDICTION_BYTES} bytes each: "
            f"bytes={size}, left over={size % PREDICTION_BYTES}"
        )
    return np.frombuffer(data, dtype=PREDICTION_DTYPE)


class PredictionHash:
    """sha256 over prediction records, without what differs between two runs of the same replay.

    Left out (as zeros): received_ns, wire_ns, stage_ns, clock, batch, and the flags LATE, STALE and DEGRADED. So the
    same file, model and version give the same digest at any speed, batch split and process.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, predictions: NDArray[np.void]) -> None:
        """Add *predictions*, shape (any,), dtype PREDICTION_DTYPE, in the order of the session."""
        stripped = np.array(predictions, dtype=PREDICTION_DTYPE, copy=True)
        for name in ("received_ns", "wire_ns", "stage_ns", "clock", "batch"):
            stripped[name] = 0
        stripped["flags"] &= np.uint32(0xFFFFFFFF ^ _UNHASHED_FLAGS)
        self._digest.update(stripped.tobytes())

    def hexdigest(self) -> str:
        """Return the digest so far, 64 hexadecimal characters."""
        return self._digest.hexdigest()
