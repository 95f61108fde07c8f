"""Several files as one stream of ticks, and parts of a stream.

    order = by (ts_recv, file, record), stably        ties are broken by what stands still, never by a hash
    order = by (file, record)                         for what penstockd recorded: the order of its one session

Instruments are the same where (dataset, symbol) is the same. Ids stay as they are where they don't clash.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE
from penstock_client.errors import LocalUsageError
from penstock_client.files.errors import TickFileError
from penstock_client.files.sessions import recorded_session
from penstock_client.files.tick_file import TickFile
from penstock_client.instruments import Instrument


class Order(Enum):
    """How the ticks of a replay are put in order."""

    AUTO = "auto"  # RECORD where every file is a session's recording, else TS_RECV.
    TS_RECV = "ts_recv"
    RECORD = "record"


def merge(files: Sequence[TickFile], order: Order | str = Order.AUTO) -> tuple[list[Instrument], NDArray[np.void]]:
    """Make one stream of *files*.

    Returns:
        instruments: in order of instrument_id. The first file that has an instrument decides its id; an id that is
            taken by then becomes the smallest free one, counted from 1.
        ticks: shape (ticks of all files,), dtype TICK_DTYPE; may be the array of a file itself.

    Raises:
        TickFileError: two files disagree about an instrument's size scale.
        LocalUsageError: no files, or recordings of several sessions in the order of a session.
        ValueError: no such order.
    """
    if not files:
        raise LocalUsageError("merge needs at least one file: files=[]")
    order = order_of(files, order)
    if order is Order.RECORD:
        recorded_session(files)
    instruments, parts = _join_instruments(files)
    ticks = parts[0] if len(parts) == 1 else np.concatenate(parts).astype(TICK_DTYPE, copy=False)
    if order is Order.TS_RECV and np.any(ticks["ts_recv"][1:] < ticks["ts_recv"][:-1]):
        ticks = ticks[np.argsort(ticks["ts_recv"], kind="stable")]
    return instruments, ticks


def order_of(files: Sequence[TickFile], order: Order | str) -> Order:
    """Return the order that *order* means for *files*: RECORD or TS_RECV.

    Raises:
        ValueError: no such order.
    """
    order = Order(order)
    if order is not Order.AUTO:
        return order
    return Order.RECORD if all(file.keeps_order for file in files) else Order.TS_RECV


def select(
    instruments: Sequence[Instrument], ticks: NDArray[np.void], wanted: Sequence[str]
) -> tuple[list[Instrument], NDArray[np.void]]:
    """Keep the instruments that *wanted* names, and their ticks.

    Args:
        instruments: of a merge.
        ticks: of a merge.
        wanted: symbols, or DATASET:SYMBOL where a symbol alone would be several instruments.

    Raises:
        LocalUsageError: a name fits no instrument, or several; names those that are there.
    """
    kept: dict[int, Instrument] = {}
    for name in wanted:
        found = [one for one in instruments if name in (one.symbol, f"{one.dataset}:{one.symbol}")]
        if len(found) != 1:
            problem = "no instrument has this name" if not found else "several instruments have this name"
            there = ", ".join(f"{one.dataset}:{one.symbol}" if one.dataset else one.symbol for one in instruments)
            raise LocalUsageError(f"instruments: {problem}: {name!r}; take from {there}")
        kept[found[0].instrument_id] = found[0]
    if len(kept) == len(instruments):
        return list(instruments), ticks
    mask = np.isin(ticks["instrument_id"], np.fromiter(kept, dtype=np.uint32, count=len(kept)))
    return [kept[one] for one in sorted(kept)], ticks[mask]


def busiest_start(ts_recv: NDArray[np.uint64], duration_ns: int) -> int:
    """Return the record at which the *duration_ns* with the most ticks starts; the first of several.

    Args:
        ts_recv: shape (ticks,), ascending, nanoseconds.
        duration_ns: at least 1.
    """
    if not len(ts_recv):
        return 0
    ends = np.searchsorted(ts_recv, ts_recv + np.uint64(duration_ns), side="left")
    return int(np.argmax(ends - np.arange(len(ts_recv))))


def _join_instruments(files: Sequence[TickFile]) -> tuple[list[Instrument], list[NDArray[np.void]]]:
    """Return the instruments of all files, and each file's ticks with their ids."""
    joined: dict[tuple[str, str], Instrument] = {}
    taken: set[int] = set()
    parts = []
    for file in files:
        moves: dict[int, int] = {}
        for one in file.instruments:
            key = (one.dataset, one.symbol)
            known = joined.get(key)
            if known is None:
                known_id = one.instrument_id
                if known_id in taken:
                    known_id = next(free for free in range(1, 2**32) if free not in taken)
                known = Instrument(known_id, one.symbol, one.dataset, one.size_scale)
                joined[key] = known
                taken.add(known_id)
            elif known.size_scale != one.size_scale:
                raise TickFileError(
                    file.path,
                    f"{one.symbol} of {one.dataset or 'no dataset'} has size_scale {known.size_scale} in an earlier file",
                    mend="give the files datasets of their own (--dataset) if these are two instruments, or mend metadata.json",
                    field="size_scale",
                    value=one.size_scale,
                )
            if known.instrument_id != one.instrument_id:
                moves[one.instrument_id] = known.instrument_id
        parts.append(_with_ids(file.ticks, moves))
    return sorted(joined.values(), key=lambda one: one.instrument_id), parts


def _with_ids(ticks: NDArray[np.void], moves: dict[int, int]) -> NDArray[np.void]:
    """Return *ticks* with the ids of *moves*; the same array where nothing moves."""
    if not moves:
        return ticks
    mended = ticks.copy()
    for before, after in moves.items():
        mended["instrument_id"][ticks["instrument_id"] == before] = after
    return mended
