"""Small arrays of ticks for tests, plain or odd, always the same for the same arguments."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.v1.records import TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE

START_NS = 1_723_161_256_361_567_735


def quotes(
    count: int, instrument_ids: tuple[int, ...] = (1,), *, seed: int = 0, gap_ns: int = 1_000_000
) -> NDArray[np.void]:
    """Return *count* sound quotes, round robin over the instruments, about *gap_ns* apart."""
    noise = np.random.default_rng(seed)
    ticks = np.zeros(count, dtype=TICK_DTYPE)
    ticks["length"], ticks["rtype"] = TICK_LENGTH_WORDS, TICK_RTYPE
    ticks["instrument_id"] = np.resize(np.array(instrument_ids, dtype=np.uint32), count)
    ticks["ts_recv"] = START_NS + np.cumsum(noise.integers(0, 2 * gap_ns, count)).astype(np.uint64)
    ticks["ts_event"] = ticks["ts_recv"] - np.uint64(5_000_000)
    ticks["price"], ticks["action"], ticks["side"], ticks["flags"] = UNDEFINED_PRICE, ord("M"), ord("N"), 192
    ticks["bid_px"] = 61_800_000_000_000 + 10_000_000 * np.cumsum(noise.integers(-1, 2, count))
    ticks["ask_px"] = ticks["bid_px"] + 10_000_000
    ticks["bid_sz"], ticks["ask_sz"] = noise.integers(1, 5_000, count), noise.integers(1, 5_000, count)
    ticks["sequence"] = np.arange(count)
    return ticks


@st.composite
def odd_ticks(draw: st.DrawFn, max_size: int = 12) -> NDArray[np.void]:
    """Draw ticks with any value that a sound file may hold, in any order."""
    size = draw(st.integers(0, max_size))
    ticks = np.zeros(size, dtype=TICK_DTYPE)
    ticks["length"], ticks["rtype"] = TICK_LENGTH_WORDS, TICK_RTYPE
    for name in TICK_DTYPE.names or ():
        if name in ("length", "rtype"):
            continue
        bounds = np.iinfo(TICK_DTYPE[name])
        highest = {"instrument_id": 3, "ts_recv": 2**63 - 1}.get(name, bounds.max)
        edges = st.sampled_from([bounds.min, 0, 1, highest])
        value = edges | st.integers(bounds.min, highest)
        ticks[name] = np.array(draw(st.lists(value, min_size=size, max_size=size)), dtype=TICK_DTYPE[name])
    return ticks
