"""Merging, selecting and cutting: order, instruments and ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock_client.files import (
    Order,
    RecordedSession,
    TickFile,
    TickFileError,
    busiest_start,
    merge,
    of_session,
    recorded_session,
    select,
)
from penstock_client.files.catalogue import Recording
from penstock_client.instruments import Instrument
from support.tick_arrays import quotes


def tick_file(
    name: str, times: list[int], instruments: list[Instrument], *, recording: Recording | None = None
) -> TickFile:
    ticks = quotes(len(times), tuple(one.instrument_id for one in instruments))
    ticks["ts_recv"] = times
    return TickFile(Path(name), "DBN v3", instruments, ticks, recording=recording)


BTC, ETH = Instrument(1, "BTC", "A"), Instrument(2, "ETH", "A")


def test_ticks_are_ordered_by_time_then_file_then_record():
    first = tick_file("a", [10, 30, 30, 20], [BTC])
    second = tick_file("b", [20, 30], [ETH])
    _, ticks = merge([first, second])
    assert ticks["ts_recv"].tolist() == [10, 20, 20, 30, 30, 30]
    assert ticks["instrument_id"].tolist() == [1, 1, 2, 1, 1, 2]
    assert ticks["sequence"].tolist() == [0, 3, 0, 1, 2, 1]


def test_recordings_of_sessions_keep_their_order():
    first = tick_file("a", [10, 30, 20], [BTC], recording=Recording(1, 0, 0, 0))
    second = tick_file("b", [5], [BTC], recording=Recording(1, 3, 0, 0))
    assert merge([first, second])[1]["ts_recv"].tolist() == [10, 30, 20, 5]
    assert merge([first, second], Order.TS_RECV)[1]["ts_recv"].tolist() == [5, 10, 20, 30]
    other = tick_file("c", [1], [BTC])
    assert merge([first, other])[1]["ts_recv"].tolist() == [1, 10, 20, 30]
    assert merge([other, first], "record")[1]["ts_recv"].tolist() == [1, 10, 30, 20]


@pytest.mark.parametrize("order", ["auto", "record"])
@pytest.mark.parametrize(
    ("recordings", "sentence"),
    [
        (
            [Recording(1, 0, 0, 0), Recording(1, 2, 0, 0), Recording(3, 0, 0, 0)],
            r"\(session 1: 0 to 1; session 3: 2\).*--session ID, or merge them as markets with --order ts_recv",
        ),
        (
            [Recording(1, 0, 0, 0), Recording(1, 0, 0, 0)],
            "session 1: 0; session 1: 1.*daemons that each counted from 1",
        ),
        ([Recording(1, 2, 0, 0), Recording(1, 0, 0, 0)], "don't follow each other.*in order of their names"),
        ([Recording(1, 0, 0, 1), Recording(1, 2, 0, 0)], "don't follow each other"),
    ],
)
def test_recordings_that_are_not_one_session_in_order_are_refused(recordings, sentence, order):
    files = [tick_file(str(number), [10, 30], [BTC], recording=one) for number, one in enumerate(recordings)]
    with pytest.raises(ValueError, match=sentence):
        merge(files, order)
    assert len(merge(files, "ts_recv")[1]) == 2 * len(files)


def test_what_a_session_lacks_is_counted_over_its_files():
    parts = [Recording(4, 5, 2, 1), Recording(4, 8, 0, 0), Recording(4, 13, 1, 0, cut_short=True)]
    files = [tick_file(str(number), [10, 30], [BTC], recording=one) for number, one in enumerate(parts)]
    assert recorded_session(files) == RecordedSession(4, 5, 3, 1 + 3, cut_short=True)
    assert recorded_session(files).hash_differs_because == [
        "3 of its ticks restored states then and are predicted now",
        "5 of its ticks came before the first file",
        "4 of its ticks are missing",
        "its recording was cut short",
    ]
    whole = recorded_session([tick_file("a", [1], [BTC], recording=Recording(4, 0, 0, 0))])
    assert whole.hash_differs_because == []
    assert recorded_session([tick_file("a", [1], [BTC])]) is None


def test_one_session_is_taken_out_of_many():
    files = [tick_file(str(one), [1], [BTC], recording=Recording(one, 0, 0, 0)) for one in (1, 3)]
    files.append(tick_file("other", [1], [BTC]))
    assert of_session(files, 3) == [files[1]]
    with pytest.raises(ValueError, match=r"session=2; take one of 1, 3"):
        of_session(files, 2)
    with pytest.raises(ValueError, match=r"leave --session out"):
        of_session(files[2:], 2)


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
