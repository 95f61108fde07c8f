"""Whatever a sound file may hold comes back to the byte, in every format, and merging only reorders."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_client.files import TickFile, merge, open_ticks, write_ticks
from penstock_client.instruments import Instrument
from support.tick_arrays import odd_ticks

SYMBOLS = st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1, max_size=64)


def named(ticks: np.ndarray, symbols: list[str], scale: int = 1) -> list[Instrument]:
    ids = np.unique(ticks["instrument_id"]).tolist()
    return [Instrument(one, symbols[one], "TEST.VENUE", scale) for one in ids]


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst", "a.parquet", "a.csv"])
@settings(max_examples=60, deadline=None)
@given(
    ticks=odd_ticks(),
    symbols=st.lists(SYMBOLS, min_size=4, max_size=4, unique=True),
    scale=st.integers(1, 2**64 - 1),
)
def test_any_ticks_come_back_to_the_byte(name, ticks, symbols, scale):
    instruments = named(ticks, symbols, scale)
    with tempfile.TemporaryDirectory() as folder:
        write_ticks(Path(folder) / name, ticks, instruments, dataset="" if len(ticks) else "TEST.VENUE")
        file = open_ticks(Path(folder) / name)
    assert file.ticks.tobytes() == ticks.tobytes()
    assert file.instruments == instruments


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(odd_ticks(max_size=8), min_size=1, max_size=4), data=st.data())
def test_merging_keeps_every_tick_and_breaks_ties_by_file_and_record(parts, data):
    files = []
    for index, ticks in enumerate(parts):
        ticks["ts_recv"] = data.draw(st.lists(st.integers(0, 3), min_size=len(ticks), max_size=len(ticks)))
        ticks["sequence"] = np.arange(len(ticks)) + 1000 * index  # A label that says file and record.
        names = data.draw(st.permutations(["A", "B", "C", "D"]))
        files.append(TickFile(Path(str(index)), "DBN v3", named(ticks, names), ticks))
    instruments, merged = merge(files)
    assert merged["sequence"].tolist() == sorted(
        merged["sequence"].tolist(), key=lambda label: (time_of(parts, label), label)
    )
    by_id = {one.instrument_id: one.symbol for one in instruments}
    assert len(by_id) == len({one.symbol for one in instruments}) == len(instruments)
    before = Counter(
        (int(tick["sequence"]), one.symbol)
        for file in files
        for one in file.instruments
        for tick in file.ticks[file.ticks["instrument_id"] == one.instrument_id]
    )
    assert Counter((int(tick["sequence"]), by_id[int(tick["instrument_id"])]) for tick in merged) == before


def time_of(parts: list[np.ndarray], label: int) -> int:
    return int(parts[label // 1000]["ts_recv"][label % 1000])
