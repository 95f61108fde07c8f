"""A tick file in memory: what it is about, and its ticks as the wire wants them.

    every tick has TICK_LENGTH_WORDS, TICK_RTYPE and a ts_recv before the year 2262
    every instrument_id in ticks stands in instruments, once

All else is data, however odd: undefined prices and venue times, sizes of 0, crossed books, times that run backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client.files.catalogue import Recording
from penstock_client.files.errors import TickFileError
from penstock_client.instruments import Instrument

TS_RECV_MAX: Final = 2**63 - 1  # Nanoseconds; in the year 2262.

_RTYPES: Final = {
    0x00: "mbp-0 (trades)",
    0x01: "mbp-1",
    0x0A: "mbp-10",
    0x12: "status",
    0x13: "definition",
    0x14: "imbalance",
    0x15: "error",
    0x16: "symbol mapping",
    0x17: "system",
    0x18: "statistics",
    0x20: "ohlcv-1s",
    0x21: "ohlcv-1m",
    0x22: "ohlcv-1h",
    0x23: "ohlcv-1d",
    0xA0: "mbo",
    0xB1: "cmbp-1",
    0xC0: "cbbo-1s",
    0xC1: "cbbo-1m",
    0xC2: "tcbbo",
    0xC3: "bbo-1s",
    0xC4: "bbo-1m",
}


@dataclass(frozen=True, eq=False)
class TickFile:
    """One recorded file.

    Attributes:
        path: where it was read from.
        format: "DBN v3", "CSV" or "Parquet", for people.
        instruments: one for each instrument_id in ticks, in order of instrument_id.
        ticks: shape (any,), dtype TICK_DTYPE, in the order of the file; may be read-only.
        dataset: the DBN header's; empty where the format has none.
        recording: what the daemon's recorder says about it; None for every other file.
    """

    path: Path
    format: str
    instruments: list[Instrument]
    ticks: NDArray[np.void]
    dataset: str = ""
    recording: Recording | None = None

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return self.path.name

    @property
    def keeps_order(self) -> bool:
        """Whether the order of the file is the order of a session, and not to be sorted."""
        return self.recording is not None


def rtype_name(rtype: int) -> str:
    """Return *rtype* as people know it, such as "0xa0 (mbo)"."""
    name = _RTYPES.get(rtype, "")
    return f"0x{rtype:02x} ({name})" if name else f"0x{rtype:02x}"


def check_ticks(path: Path, ticks: NDArray[np.void]) -> None:
    """Refuse records that no session would take.

    Args:
        path: for the sentence.
        ticks: shape (any,), dtype TICK_DTYPE.

    Raises:
        TickFileError: names the first record that is no mbp-1 record, or whose ts_recv is undefined or past 2262.
    """
    foreign = np.flatnonzero((ticks["rtype"] != TICK_RTYPE) | (ticks["length"] != TICK_LENGTH_WORDS))
    if foreign.size:
        record = int(foreign[0])
        rtype, length = int(ticks["rtype"][record]), int(ticks["length"][record])
        if rtype != TICK_RTYPE:
            raise TickFileError(
                path,
                f"only mbp-1 records (rtype 0x01) can be replayed, not rtype {rtype_name(rtype)}",
                mend="request the schema mbp-1, or mend the file if it is corrupt",
                record=record,
                field="rtype",
                value=rtype,
            )
        raise TickFileError(
            path,
            f"an mbp-1 record is {TICK_LENGTH_WORDS} words long",
            mend="the file is corrupt from here on: fetch it again",
            record=record,
            field="length",
            value=length,
        )
    late = np.flatnonzero(ticks["ts_recv"] > TS_RECV_MAX)
    if late.size:
        record = int(late[0])
        raise TickFileError(
            path,
            "a recording is ordered by ts_recv, which must be defined and before the year 2262",
            mend="drop the record, or mend its ts_recv",
            record=record,
            field="ts_recv",
            value=int(ticks["ts_recv"][record]),
        )
