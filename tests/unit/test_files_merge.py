"""Merging, selecting and cutting: order, instruments and ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock_client.files import Order, TickFile, TickFileError, busiest_start, merge, select
from penstock_client.files.catalogue import Recording
from penstock_client.instruments import Instrument
from support.tick_arrays import quotes


def tick_file(name: str, times: list[int], instruments: list[Instrument], *, keeps_order: bool = False) -> TickFile:
    ticks = quotes(len(times), tuple(one.instrument_id for one in instruments))
    ticks["ts_recv"] = times
    return TickFile(Path(name), "DBN v3", instruments, ticks, recording=Recording(1, 0, 0, 0) if keeps_order else None)


BTC, ETH = Instrument(1, "BTC", "A"), Instrument(2, "ETH", "A")


def test_ticks_are_ordered_by_time_then_file_then_record():
    first = tick_file("a", [10, 30, 30, 20], [BTC])
    second = tick_file("b", [20, 30], [ETH])
    _, ticks = merge([first, second])
    assert ticks["ts_recv"].tolist() == [10, 20, 20, 30, 30, 30]
    assert ticks["instrument_id"].tolist() == [1, 1, 2, 1, 1, 2]
    assert ticks["sequence"].tolist() == [0, 3, 0, 1, 2, 1]


def test_recordings_of_sessions_keep_their_order():
    first = tick_file("a", [10, 30, 20], [BTC], keeps_order=True)
    second = tick_file("b", [5], [BTC], keeps_order=True)
    assert merge([first, second])[1]["ts_recv"].tolist() == [10, 30, 20, 5]
    assert merge([first, second], Order.TS_RECV)[1]["ts_recv"].tolist() == [5, 10, 20, 30]
    other = tick_file("c", [1], [BTC])
    assert merge([first, other])[1]["ts_recv"].tolist() == [1, 10, 20, 30]
    assert merge([other, first], "record")[1]["ts_recv"].tolist() == [1, 10, 30, 20]


def test_one_ordered_file_is_not_copied():
    file = tick_file("a", [1, 2, 2], [BTC])
    assert merge([file])[1] is file.ticks


def test_the_same_instrument_with_another_id_gets_the_first_files_id():
    first = tick_file("a", [1, 3], [BTC])
    second = tick_file("b", [2, 4], [Instrument(9, "BTC", "A")])
    instruments, ticks = merge([first, second])
    assert instruments == [BTC]
    assert ticks["instrument_id"].tolist() == [1, 1, 1, 1]
    assert second.ticks["instrument_id"].tolist() == [9, 9]


def test_another_instrument_with_the_same_id_gets_the_smallest_free_one():
    first = tick_file("a", [1, 3], [BTC, Instrument(3, "SOL", "A")])
    second = tick_file("b", [2, 4], [Instrument(1, "BTC", "B"), Instrument(3, "SOL", "A")])
    instruments, ticks = merge([first, second])
    assert instruments == [BTC, Instrument(2, "BTC", "B"), Instrument(3, "SOL", "A")]
    assert ticks["instrument_id"].tolist() == [1, 2, 3, 3]


def test_ids_that_swap_between_files_swap_back():
    first = tick_file("a", [1, 2], [BTC, ETH])
    second = tick_file("b", [3, 4], [Instrument(1, "ETH", "A"), Instrument(2, "BTC", "A")])
    assert merge([first, second])[1]["instrument_id"].tolist() == [1, 2, 2, 1]


def test_two_scales_of_one_instrument_are_refused():
    with pytest.raises(
        TickFileError, match=r"b: BTC of A has size_scale 1 in an earlier file \(size_scale=7\).*--dataset"
    ):
        merge([tick_file("a", [1], [BTC]), tick_file("b", [2], [Instrument(1, "BTC", "A", 7)])])


def test_no_file_and_no_such_order_are_refused():
    with pytest.raises(ValueError, match="at least one file"):
        merge([])
    with pytest.raises(ValueError, match="backwards"):
        merge([tick_file("a", [1], [BTC])], "backwards")


def test_a_selection_keeps_the_named_instruments_and_their_ticks():
    instruments = [BTC, ETH, Instrument(3, "BTC", "B")]
    ticks = quotes(6, (1, 2, 3))
    kept, left = select(instruments, ticks, ["ETH", "B:BTC"])
    assert kept == [ETH, Instrument(3, "BTC", "B")]
    assert left["instrument_id"].tolist() == [2, 3, 2, 3]
    assert select(instruments, ticks, ["ETH", "A:BTC", "B:BTC", "ETH"])[1] is ticks


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("DOGE", "no instrument has this name: 'DOGE'; take from A:BTC, A:ETH, B:BTC"),
        ("BTC", "several instruments have this name: 'BTC'; take from A:BTC, A:ETH, B:BTC"),
    ],
)
def test_a_name_that_is_not_one_instrument_is_refused(wanted, sentence):
    with pytest.raises(ValueError, match=sentence):
        select([BTC, ETH, Instrument(3, "BTC", "B")], quotes(3, (1, 2, 3)), [wanted])


def test_the_busiest_stretch_is_the_first_with_the_most_ticks():
    times = np.array([0, 50, 100, 101, 102, 200, 201, 202, 300], dtype=np.uint64)
    assert busiest_start(times, 3) == 2
    assert busiest_start(times, 2) == 2
    assert busiest_start(times, 60) == 1
    assert busiest_start(times, 10**12) == 0
    assert busiest_start(times[:0], 5) == 0
