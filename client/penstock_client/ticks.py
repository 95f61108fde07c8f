"""From what the caller hands in to bytes that may be sent, with no work per tick.

Two comparisons over all records check that each says what an mbp-1 record must; everything else in a record is market
data, and the daemon's to judge. Strided bytes are faster here than arrays: most sends carry a tick or two.
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
_LENGTH: Final = bytes([TICK_LENGTH_WORDS])
_RTYPE: Final = bytes([TICK_RTYPE])


def checked_records(ticks: Ticks) -> bytes:
    """Return *ticks* as bytes: a copy, so that the caller may use the memory again.

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
        records = ticks.tobytes()
    elif isinstance(ticks, _BYTES):
        records = bytes(ticks)
    else:
        raise LocalUsageError(f"ticks must be a TICK_DTYPE array or bytes: was {type(ticks).__name__}")
    count, left_over = divmod(len(records), TICK_BYTES)
    if left_over:
        raise LocalUsageError(
            f"ticks must be records of {TICK_BYTES} bytes each: bytes={len(records)}, left over={left_over}"
        )
    if records[::TICK_BYTES] != _LENGTH * count or records[1::TICK_BYTES] != _RTYPE * count:
        raise LocalUsageError(_describe_bad_head(records))
    return records


def _check_array(ticks: NDArray[np.void] | np.void) -> None:
    if ticks.dtype != TICK_DTYPE:
        raise LocalUsageError(
            f"ticks must have dtype penstock.v1.records.TICK_DTYPE: dtype={ticks.dtype}; "
            "build the array with numpy.zeros(n, dtype=TICK_DTYPE)"
        )


def _describe_bad_head(records: bytes) -> str:
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
