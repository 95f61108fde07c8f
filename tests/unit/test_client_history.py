"""The history holds exactly the newest ticks of each instrument, however they come."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1.records import TICK_DTYPE
from penstock_client.bookkeeping import IN_FLIGHT_CAP, Ledger
from penstock_client.errors import DaemonProtocolError
from penstock_client.tick_history import TickHistory
from support.tick_arrays import quotes


def named_ticks(ids: np.ndarray) -> np.ndarray:
    ticks = quotes(len(ids))
    ticks["instrument_id"], ticks["sequence"] = ids, np.arange(len(ids))
    return ticks


def held(history: TickHistory) -> dict[int, list[int]]:
    records = np.frombuffer(history.all_records(), TICK_DTYPE)
    return {
        int(number): records["sequence"][records["instrument_id"] == number].tolist()
        for number in np.unique(records["instrument_id"])
    }


@pytest.mark.parametrize("keep", [1, 7, 100, 5000])
@pytest.mark.parametrize("piece", [1, 50, 4000])
def test_the_newest_ticks_of_each_instrument_are_held_in_order(keep, piece):
    draw = np.random.default_rng(keep * piece)
    ids = draw.choice(np.array([9, 2, 4_000_000_000], np.uint32), 2000 if piece == 1 else 9000, p=[0.7, 0.29, 0.01])
    ticks = named_ticks(ids)
    history = TickHistory([9, 2, 4_000_000_000, 5], keep)
    for start in range(0, len(ticks), piece):
        history.add(ticks[start : start + piece])
    expected = {int(number): np.flatnonzero(ids == number)[-keep:].tolist() for number in np.unique(ids)}
    assert held(history) == expected


def test_ticks_of_no_instrument_of_the_session_are_left_out():
    history = TickHistory([3, 5], 10)
    history.add(named_ticks(np.array([1, 3, 4, 5, 6, 3], np.uint32)))
    assert held(history) == {3: [1, 5], 5: [3]}


def test_many_instruments_are_told_apart():
    ids = np.tile(np.arange(70_000, dtype=np.uint32), 2)
    history = TickHistory(list(range(70_000)), 1)
    history.add(named_ticks(ids))
    assert history.all_records() == named_ticks(ids)[70_000:].tobytes()


@pytest.mark.parametrize(("before", "after", "expected"), [(5, 3, [7, 8, 9]), (5, 8, [5, 6, 7, 8, 9]), (5, 0, None)])
def test_another_size_keeps_what_it_can(before, after, expected):
    history = TickHistory([1], before)
    history.add(named_ticks(np.ones(10, np.uint32)))
    assert held(history.resized(after)).get(1) == expected


# --- The ledger's refusals of nonsense --------------------------------------------------------------------------------


def test_a_grant_is_used_up_to_a_bound():
    ledger = Ledger([1])
    ledger.open_first(0, 2**32 - 1, 0)
    assert ledger.room == IN_FLIGHT_CAP


@pytest.mark.parametrize(
    ("in_flight_max", "rebuild_ticks", "sentence"),
    [(0, 10, "in_flight_max must be at least 1: was 0"), (1, 2**32 - 1, "rebuild_ticks must be such that")],
)
def test_limits_that_cant_be_met_are_the_daemons_fault(in_flight_max, rebuild_ticks, sentence):
    with pytest.raises(DaemonProtocolError, match=sentence):
        Ledger([1]).open_first(0, in_flight_max, rebuild_ticks)


def test_a_cold_session_starts_where_hello_said():
    ledger = Ledger([1])
    ledger.open_first(0, 10, 1)
    with pytest.raises(DaemonProtocolError, match=r"must be Hello\.first_sequence=0: was 3"):
        ledger.reopen_cold(3, 10, 1)


def test_without_reconnect_nothing_is_kept_past_its_answer():
    ledger = Ledger([1], keep_history=False, archive_ticks=2)
    ledger.open_first(0, 10, 100)
    for _ in range(50):
        ledger.accept(named_ticks(np.ones(5, np.uint32)).tobytes())
        assert ledger.take(5).records
        ledger.answer(np.arange(ledger.next_answer, ledger.next_answer + 5, dtype=np.uint64), [])
    assert ledger._history.all_records() == b""
