"""From what the caller hands in to bytes that may be sent, with no work per tick.

A comparison over all records checks that each says what an mbp-1 record must; everything else in a record is market
data, and the daemon's to judge. Most sends carry a tick or two, and for those bytes are faster than arrays; a whole
recording in one call is not copied.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client.errors import LocalUsageError

Ticks = NDArray[np.void] | np.void | bytes | bytearray | memoryview

_ARRAYS: Final = (np.ndarray, np.void)
_BYTES: Final = (bytes, bytearray, memoryview)
_COPY_BYTES_MAX: Final = 4096 * TICK_BYTES
_LENGTH: Final = bytes([TICK_LENGTH_WORDS])
_RTYPE: Final = bytes([TICK_RTYPE])


def checked_records(ticks: Ticks) -> bytes | memoryview:
    """Return the bytes of *ticks*: a copy of a few, a view of many, format "B".

    Args:
        ticks: shape (ticks,), dtype TICK_DTYPE; one record of it; or consecutive 80-byte records.

    Raises:
        LocalUsageError: another type, dtype, shape or length, or a record whose length or rtype is not mbp-1's.
    """
    if isinstance(ticks, _ARRAYS):
        if ticks.dtype is not TICK_DTYPE:
            _check_array(ticks)
        if ticks.ndim > 1:
            raise LocalUsageError(f"ticks must have one dimension: shape={ticks.shape}; pass ticks.ravel()")
        if ticks.nbytes > _COPY_BYTES_MAX:
            return _checked_view(np.ascontiguousarray(ticks).view(np.uint8).data)
        records = ticks.tobytes()
    elif isinstance(ticks, _BYTES):
        size = memoryview(ticks).nbytes
        if size % TICK_BYTES:
            raise LocalUsageError(
                f"ticks must be records of {TICK_BYTES} bytes each: bytes={size}, left over={size % TICK_BYTES}"
            )
        if size > _COPY_BYTES_MAX and memoryview(ticks).c_contiguous:
            return _checked_view(memoryview(ticks).cast("B"))
        records = bytes(ticks)
    else:
        raise LocalUsageError(f"ticks must be a TICK_DTYPE array or bytes: was {type(ticks).__name__}")
    count = len(records) // TICK_BYTES
    if records[::TICK_BYTES] != _LENGTH * count or records[1::TICK_BYTES] != _RTYPE * count:
        raise LocalUsageError(_describe_bad_head(records))
    return records


def _checked_view(records: memoryview) -> memoryview:
    """Return *records*, format "B", once each is an mbp-1 record."""
    by_record = np.frombuffer(records, np.uint8).reshape(-1, TICK_BYTES)
    if not ((by_record[:, 0] == TICK_LENGTH_WORDS) & (by_record[:, 1] == TICK_RTYPE)).all():
        raise LocalUsageError(_describe_bad_head(records))
    return records


def _check_array(ticks: NDArray[np.void] | np.void) -> None:
    if ticks.dtype != TICK_DTYPE:
        raise LocalUsageError(
            f"ticks must have dtype penstock.v1.records.TICK_DTYPE: dtype={ticks.dtype}; "
            "build the array with numpy.zeros(n, dtype=TICK_DTYPE)"
        )


def _describe_bad_head(records: bytes | memoryview) -> str:
    for index in range(len(records) // TICK_BYTES):
        length, rtype = records[index * TICK_BYTES : index * TICK_BYTES + 2]
        if length != TICK_LENGTH_WORDS:
            return (
                f"ticks[{index}].length must be {TICK_LENGTH_WORDS} (4-byte words): was {length}; "
                f"set ticks['length'] = {TICK_LENGTH_WORDS}"
            )
        if rtype != TICK_RTYPE:
            return f"ticks[{index}].rtype must be {TICK_RTYPE} (mbp-1): was {rtype}; convert the records to mbp-1 first"
    raise AssertionError("described a head that is sound")
