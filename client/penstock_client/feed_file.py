"""A recorded file as a feed's messages: what goes onto the wire, and when each of them is due.

    blocks[starts[i]:starts[i + 1]] = length u16 (big-endian) + message i       as MoldUDP64 packs them

So any run of messages is one slice of ``blocks``, and a packet is a header and a slice. DBN ``mbp-1`` records (and every
other kind of tick file) are messages of 80 bytes, due by ``ts_recv``; an ITCH 5.0 file has its messages as they are, due
by the time of day that each of them carries.
"""

from __future__ import annotations

import datetime as dt
import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import itch
from penstock.v1.records import TICK_BYTES
from penstock_client.errors import LocalUsageError
from penstock_client.files.errors import TickFileError
from penstock_client.files.joining import Order, merge
from penstock_client.files.reader import open_ticks
from penstock_client.instruments import Instrument

PAYLOAD_DBN: Final = "dbn"
PAYLOAD_ITCH: Final = "itch"
GZIP_MAGIC: Final = b"\x1f\x8b"
LENGTH_BYTES: Final = 2
NANOSECONDS_A_DAY: Final = 86_400_000_000_000

_ITCH_BYTES: Final = {ord(kind): size for kind, size in itch.MESSAGE_BYTES.items()}
_TIME_AT: Final = LENGTH_BYTES + 5  # Of the 48 bits of nanoseconds since midnight, in a block.
_TIME_BYTES: Final = 6
_AT_ONCE: Final = 1 << 20
_FETCH: Final = "fetch or copy the file again"


@dataclass(frozen=True, eq=False)
class FeedFile:
    """The messages of one file.

    Attributes:
        path: where it was read from.
        payload: PAYLOAD_DBN or PAYLOAD_ITCH.
        blocks: every message with its length before it.
        starts: shape (messages + 1,), int64: where each block starts in blocks, and the end.
        times_ns: shape (messages,), uint64: Unix for DBN; for ITCH the day's midnight as if it were UTC plus the
            time of day, good for differences and for showing.
        instruments: of a tick file; empty for ITCH, whose messages name them.
    """

    path: Path
    payload: str
    blocks: memoryview
    starts: NDArray[np.int64]
    times_ns: NDArray[np.uint64]
    instruments: tuple[Instrument, ...] = ()

    @property
    def messages(self) -> int:
        """How many there are."""
        return len(self.times_ns)

    def part(self, which: slice) -> FeedFile:
        """Return the messages of *which*, which has both ends, over the same memory."""
        return FeedFile(
            self.path,
            self.payload,
            self.blocks,
            self.starts[which.start : which.stop + 1],
            self.times_ns[which],
            self.instruments,
        )


def open_feed_file(path: str | os.PathLike[str], date: dt.date | None) -> FeedFile:
    """Read a whole file, whatever it holds.

    Args:
        path: a tick file (DBN, Parquet, CSV), or ITCH 5.0: messages with two bytes of length before each, or two zeros;
            plain or gzip.
        date: of an ITCH file, which has only times of day; a tick file has its own.

    Raises:
        TickFileError: the file can't be read or is not sound.
        LocalUsageError: a date is missing, or was given for a file that has one.
        MissingExtraError: penstock[files] is not installed, and the file is a tick file.
    """
    path = Path(path)
    data = _itch_bytes(path)
    if data is None:
        file = _of_ticks(path)
        if date is not None:
            raise LocalUsageError(f"--date is for ITCH files: {path} has its own times; leave --date out")
        return file
    if date is None:
        raise LocalUsageError(
            f"--date must say of which day {path} is: ITCH has times of day alone; add --date YYYY-MM-DD"
        )
    midnight_ns = (date - dt.date(1970, 1, 1)).days * NANOSECONDS_A_DAY
    if not 0 <= midnight_ns < 2**63 - NANOSECONDS_A_DAY:
        raise LocalUsageError(f"--date must be in 1970 to 2261: date={date}")
    return _of_itch(path, data, midnight_ns)


def open_itch_file(path: str | os.PathLike[str]) -> FeedFile | None:
    """Read a whole ITCH 5.0 file, its times as they stand: since midnight. None where the file starts like anything else.

    Raises:
        TickFileError: the file can't be read or is not sound.
    """
    path = Path(path)
    data = _itch_bytes(path)
    return None if data is None else _of_itch(path, data, 0)


def _of_itch(path: Path, data: bytearray, midnight_ns: int) -> FeedFile:
    starts = _itch_starts(path, data)
    times_ns = _itch_times(path, data, starts) + np.uint64(midnight_ns)
    return FeedFile(path, PAYLOAD_ITCH, memoryview(data), starts, times_ns)


def _of_ticks(path: Path) -> FeedFile:
    """Read a tick file, in the order in which a replay sends it."""
    instruments, ticks = merge([open_ticks(path)], Order.TS_RECV)
    blocks = np.empty((len(ticks), LENGTH_BYTES + TICK_BYTES), np.uint8)
    blocks[:, :LENGTH_BYTES] = (TICK_BYTES >> 8, TICK_BYTES & 0xFF)
    blocks[:, LENGTH_BYTES:] = np.ascontiguousarray(ticks).view(np.uint8).reshape(len(ticks), TICK_BYTES)
    starts = np.arange(len(ticks) + 1, dtype=np.int64) * (LENGTH_BYTES + TICK_BYTES)
    times_ns = ticks["ts_recv"].astype(np.uint64)
    return FeedFile(path, PAYLOAD_DBN, blocks.reshape(-1).data, starts, times_ns, tuple(instruments))


def _itch_bytes(path: Path) -> bytearray | None:
    """Return an ITCH file's bytes, unpacked; None where it starts like anything else."""
    if path.name.endswith((".csv", ".csv.gz", ".csv.zst")):
        return None
    try:
        with path.open("rb") as file:
            start = file.read(3)
            if start[:2] == GZIP_MAGIC:
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as packed:
                    return bytearray(packed.read())
            if len(start) == LENGTH_BYTES + 1 and start[0] == 0 and start[1] == _ITCH_BYTES.get(start[2]):
                return bytearray(start + file.read())
            if start[:2] == b"\0\0" and start[2:] and start[2] in _ITCH_BYTES:
                return bytearray(start + file.read())
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise TickFileError(path, f"its gzip stream is cut or corrupt: {exc}", mend=_FETCH) from exc
    except OSError as exc:
        raise TickFileError(
            path, f"can't be read: {exc.strerror}", mend="name a file that is there and readable"
        ) from exc
    return None


def _itch_starts(path: Path, data: bytearray) -> NDArray[np.int64]:
    """Return where each block starts, and the end. Two zeros in place of a length are overwritten by the type's size."""
    starts: list[int] = []
    place, end = 0, len(data)
    while place + LENGTH_BYTES < end:
        kind, length = data[place + LENGTH_BYTES], data[place] << 8 | data[place + 1]
        size = _ITCH_BYTES.get(kind)
        if size is None or length not in (0, size):
            raise TickFileError(
                path,
                "this is no ITCH 5.0 message" if size is None else f"a message of type {chr(kind)} has {size} bytes",
                mend="name an ITCH 5.0 file with two bytes of length before each message" if not starts else _FETCH,
                record=len(starts),
                field="length" if size is not None else "type",
                value=length if size is not None else chr(kind),
            )
        data[place + 1] = size
        starts.append(place)
        place += LENGTH_BYTES + size
    if place > end or any(data[place:]):
        raise TickFileError(path, "the file ends inside a message", mend=_FETCH, record=max(len(starts) - 1, 0))
    starts.append(place)
    return np.array(starts, np.int64)


def _itch_times(path: Path, data: bytearray, starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return each message's nanoseconds since midnight."""
    octets = np.frombuffer(data, np.uint8)
    times_ns = np.empty(len(starts) - 1, np.uint64)
    powers = np.uint64(256) ** np.arange(_TIME_BYTES - 1, -1, -1, dtype=np.uint64)
    for first in range(0, len(times_ns), _AT_ONCE):
        places = starts[first : min(first + _AT_ONCE, len(times_ns))]
        times_ns[first : first + len(places)] = (
            octets[places[:, None] + np.arange(_TIME_AT, _TIME_AT + _TIME_BYTES)] @ powers
        )
    late = np.flatnonzero(times_ns >= NANOSECONDS_A_DAY)
    if late.size:
        raise TickFileError(
            path,
            "a time of day must be before midnight",
            mend=_FETCH,
            record=int(late[0]),
            field="timestamp",
            value=int(times_ns[late[0]]),
        )
    return times_ns
