"""A seeded stream of ticks from raw random words: the same bytes with any version of NumPy, on any machine.

It has what recorded markets have: quotes and trades, bursts, spreads of several ticks, moves, one-sided and crossed
books, sizes of 0, clocks that step back, undefined event times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE, UNDEFINED_TIME
from penstock_kernels.philox import Stream

START_NS = 1_723_161_256_000_000_000
TICK_SIZE = 10_000_000
_STREAM = 200


def tick_stream(seed: int, count: int, *, instrument_id: int = 1) -> NDArray[np.void]:
    """Return *count* ticks of one instrument, shape (count,), dtype TICK_DTYPE."""
    words = Stream(seed, _STREAM).words(8 * count).reshape(count, 8)

    def whole(column: int, low: int, high: int) -> NDArray[np.int64]:
        return low + (words[:, column] % np.uint64(high - low)).astype(np.int64)

    def one_in(column: int, rarity: int) -> NDArray[np.bool_]:
        return (words[:, column] >> np.uint64(40)) % np.uint64(rarity) == 0

    ticks = np.zeros(count, dtype=TICK_DTYPE)
    ticks["length"], ticks["rtype"], ticks["instrument_id"] = TICK_LENGTH_WORDS, TICK_RTYPE, instrument_id
    quiet = one_in(0, 4)
    gaps_ns = np.where(quiet, whole(0, 0, 20_000_000), whole(0, 0, 20_000))
    ticks["ts_recv"] = START_NS + np.cumsum(gaps_ns) - np.where(one_in(1, 97), 5_000_000, 0)
    ticks["ts_event"] = np.where(one_in(2, 3), np.uint64(UNDEFINED_TIME), ticks["ts_recv"] - np.uint64(1_000_000))
    moves = np.where(one_in(3, 12), whole(3, -2, 3), 0)
    ticks["bid_px"] = 61_800_000_000_000 + TICK_SIZE * np.cumsum(moves)
    ticks["ask_px"] = ticks["bid_px"] + TICK_SIZE * np.where(one_in(4, 5), whole(4, 2, 6), 1)
    crossed = one_in(5, 61)
    ticks["ask_px"][crossed] = ticks["bid_px"][crossed] - TICK_SIZE * whole(5, 0, 3)[crossed]
    ticks["bid_px"][one_in(6, 71)] = UNDEFINED_PRICE
    ticks["ask_px"][one_in(7, 73)] = UNDEFINED_PRICE
    ticks["bid_sz"], ticks["ask_sz"] = whole(6, 0, 5_000), whole(7, 0, 5_000)
    for side, column in (("bid_sz", 1), ("ask_sz", 2)):
        ticks[side][one_in(column, 53)] = 0
    trade = one_in(5, 4) & ~crossed
    ticks["action"] = np.where(trade, ord("T"), ord("M"))
    ticks["side"] = np.where(trade, np.array([ord("A"), ord("B"), ord("B"), ord("N")])[whole(1, 0, 4)], ord("N"))
    ticks["price"] = np.where(trade & (ticks["bid_px"] < UNDEFINED_PRICE), ticks["bid_px"], UNDEFINED_PRICE)
    ticks["size"] = np.where(trade, whole(2, 1, 300), 0)
    ticks["flags"] = 128
    ticks["sequence"] = np.arange(count)
    return ticks
