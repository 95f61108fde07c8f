"""The last few answered ticks of each instrument: what a fresh daemon needs to rebuild a lost state.

One array of fixed-size records, a row per instrument, each row a ring. Ticks are added many at a time by a handful of
array operations, so that the cost per tick is tens of nanoseconds and the cost per message nothing.

    written[row]            ticks of that instrument ever added
    min(written, ticks)     of them are held: the newest
    slot of the n-th        n % ticks
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_BYTES, TICK_DTYPE

_RECORD: Final = np.dtype(f"V{TICK_BYTES}")  # One opaque record: copied as bytes, not field by field.


class TickHistory:
    """Rings of the newest ticks, one per instrument.

    Args:
        instrument_ids: of the session; ticks of any other are left out.
        ticks: how many to hold of each.
    """

    def __init__(self, instrument_ids: list[int], ticks: int) -> None:
        self.ticks = ticks
        self._ids = np.array(sorted(instrument_ids), dtype=np.uint32)
        self._written = np.zeros(len(self._ids), dtype=np.int64)
        self._records = np.empty(len(self._ids) * ticks, dtype=_RECORD)  # Pages are only taken when written to.

    def add(self, records: NDArray[np.void]) -> None:
        """Add *records*, shape (ticks,), dtype TICK_DTYPE, oldest first."""
        if self.ticks == 0 or len(records) == 0:
            return
        ids = np.ascontiguousarray(records["instrument_id"])
        rows = np.searchsorted(self._ids, ids)
        rows[rows == len(self._ids)] = 0
        known = self._ids[rows] == ids
        if not known.all():
            records, rows = records[known], rows[known]
        # Small keys are sorted by radix: linear in the number of ticks.
        order = np.argsort(rows.astype(np.uint16) if len(self._ids) <= 0xFFFF else rows, kind="stable")
        counts = np.bincount(rows, minlength=len(self._ids))
        row = rows[order]
        rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[row]
        newest = counts[row] - rank <= self.ticks
        row, rank = row[newest], rank[newest]
        slots = row * self.ticks + (self._written[row] + rank) % self.ticks
        self._records[slots] = records.view(_RECORD)[order[newest]]
        self._written += counts

    def all_records(self) -> bytes:
        """Return every tick held, instrument by instrument, each oldest first."""
        parts = []
        for row, written in enumerate(self._written.tolist()):
            ring = self._records[row * self.ticks : (row + 1) * self.ticks]
            if written <= self.ticks:
                parts.append(ring[:written].tobytes())
            else:
                oldest = written % self.ticks
                parts += [ring[oldest:].tobytes(), ring[:oldest].tobytes()]
        return b"".join(parts)

    def resized(self, ticks: int) -> TickHistory:
        """Return a history that holds *ticks* of each instrument and starts with what this one has."""
        other = TickHistory([int(number) for number in self._ids], ticks)
        other.add(np.frombuffer(self.all_records(), dtype=TICK_DTYPE))
        return other
