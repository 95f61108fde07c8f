"""From what the caller hands in to bytes that may be sent, with no work per tick.

One comparison over all records checks that each says what an mbp-1 record must; everything else in a record is market
data, and the daemon's to judge.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client.errors import LocalUsageError

_HEAD: Final = TICK_LENGTH_WORDS | TICK_RTYPE << 8  # The first two bytes of each record, as a little-endian u16.
_HEADS_PER_TICK: Final = TICK_BYTES // 2


def checked_records(ticks: NDArray[np.void] | bytes | bytearray | memoryview) -> memoryview:
    """Return the bytes of *ticks*: a view where memory is contiguous, which the caller must not change meanwhile.

    Args:
        ticks: shape (ticks,), dtype TICK_DTYPE; one record of it; or consecutive 80-byte records.

    Raises:
        LocalUsageError: another type, dtype, shape or length, or a record whose length or rtype is not mbp-1's.
    """
    if isinstance(ticks, np.ndarray | np.void):
        records = _records_of_array(np.asarray(ticks))
    elif isinstance(ticks, bytes | bytearray | memoryview):
        try:
            records = memoryview(ticks).cast("B")
        except TypeError as exc:
            raise LocalUsageError("ticks must be contiguous bytes: was a strided memoryview; pass bytes(view)") from exc
        if records.nbytes % TICK_BYTES:
            raise LocalUsageError(
                f"ticks must be records of {TICK_BYTES} bytes each: bytes={records.nbytes}, "
                f"left over={records.nbytes % TICK_BYTES}"
            )
    else:
        raise LocalUsageError(f"ticks must be a TICK_DTYPE array or bytes: was {type(ticks).__name__}")
    heads = np.frombuffer(records, dtype="<u2")[::_HEADS_PER_TICK]
    if not (heads == _HEAD).all():
        raise LocalUsageError(_describe_bad_head(heads))
    return records


def _records_of_array(ticks: NDArray[np.void]) -> memoryview:
    if ticks.dtype is not TICK_DTYPE and ticks.dtype != TICK_DTYPE:
        raise LocalUsageError(
            f"ticks must have dtype penstock.v1.records.TICK_DTYPE: dtype={ticks.dtype}; "
            "build the array with numpy.zeros(n, dtype=TICK_DTYPE)"
        )
    if ticks.ndim > 1:
        raise LocalUsageError(f"ticks must have one dimension: shape={ticks.shape}; pass ticks.ravel()")
    return np.ascontiguousarray(ticks).reshape(-1).view(np.uint8).data


def _describe_bad_head(heads: NDArray[np.uint16]) -> str:
    index = int(np.flatnonzero(heads != _HEAD)[0])
    length, rtype = int(heads[index]) & 0xFF, int(heads[index]) >> 8
    if length != TICK_LENGTH_WORDS:
        return (
            f"ticks[{index}].length must be {TICK_LENGTH_WORDS} (4-byte words): was {length}; "
            f"set ticks['length'] = {TICK_LENGTH_WORDS}"
        )
    return f"ticks[{index}].rtype must be {TICK_RTYPE} (mbp-1): was {rtype}; convert the records to mbp-1 first"
