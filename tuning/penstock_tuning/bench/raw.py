"""The raw times behind the figures: one row per tick, written as ``.npy``, enough to compute every latency again.

scheduled <= sent <= received     monotonic nanoseconds; received 0: no answer
stalled                           1 where [scheduled, received] overlaps a stall of the machine, as the probe saw it
series                            whose row: the repeat, counted from 0, or the side of a comparison
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.bench.errors import BenchError

RAW_DTYPE: Final[np.dtype[np.void]] = np.dtype(
    [(name, "<i8") for name in ("series", "sequence", "scheduled", "sent", "received", "stalled")]
)

Raw = NDArray[np.void]  # Shape (ticks,), dtype RAW_DTYPE.


def raw_rows(
    series: int,
    scheduled_ns: NDArray[np.int64],
    sent_ns: NDArray[np.int64],
    received_ns: NDArray[np.int64],
    stalled: NDArray[np.bool_] | None = None,
) -> Raw:
    """Return the rows of one series, sequences counted from 0.

    Args:
        series: the repeat or side.
        scheduled_ns: shape (ticks,).
        sent_ns: shape (ticks,).
        received_ns: shape (ticks,), 0 for no answer.
        stalled: shape (ticks,); None where nobody looked for stalls.
    """
    rows = np.zeros(len(scheduled_ns), dtype=RAW_DTYPE)
    rows["series"] = series
    rows["sequence"] = np.arange(len(rows))
    rows["scheduled"], rows["sent"], rows["received"] = scheduled_ns, sent_ns, received_ns
    if stalled is not None:
        rows["stalled"] = stalled
    return rows


def check_raw_name(path: Path | None) -> None:
    """Refuse a file name that NumPy would change, before anything is measured.

    Raises:
        BenchError: it does not end in .npy, or its folder is not there.
    """
    if path is None:
        return
    if path.suffix != ".npy":
        raise BenchError(f"--raw must end in .npy: raw={str(path)!r}")
    if not path.absolute().parent.is_dir():
        raise BenchError(f"--raw must be in a folder that exists: raw={str(path)!r}; make the folder first")


def save_raw(path: Path, rows: list[Raw]) -> None:
    """Write all series into one file.

    Raises:
        BenchError: it can't be written.
    """
    try:
        np.save(path, np.concatenate(rows) if rows else np.zeros(0, dtype=RAW_DTYPE), allow_pickle=False)
    except OSError as exc:
        raise BenchError(f"--raw can't be written ({exc.strerror}): raw={str(path)!r}") from exc
