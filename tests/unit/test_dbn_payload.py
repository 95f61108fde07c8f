"""DBN records as a feed's messages: checked, mapped and copied; each makes its book sound, unless it says otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1.records import TICK_DTYPE
from penstock_daemon.feed.memory import FIRST_REFUSAL, NO_TICK, Refusal
from support.book_runs import DBN, doubt, run, small_books

IDS = [7, 0, 4_294_967_295, 3]
WRONG_LENGTH = FIRST_REFUSAL - Refusal.WRONG_LENGTH
UNKNOWN_TYPE = FIRST_REFUSAL - Refusal.UNKNOWN_TYPE


def record(instrument_id: int, seed: int = 1, **fields: int) -> bytes:
    """Return a record whose other fields are random bits."""
    bits = np.random.default_rng(seed).integers(0, 256, TICK_DTYPE.itemsize, dtype=np.uint8)
    tick = np.frombuffer(bits.tobytes(), dtype=TICK_DTYPE).copy()
    for name, value in {"length": 20, "rtype": 1, "instrument_id": instrument_id, "flags": 128, **fields}.items():
        tick[name] = value
    return tick.tobytes()


def books():
    return small_books([f"S{one}" for one in IDS], IDS, orders_max=1, levels_max=1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("place", range(4))
def test_record_is_copied_bit_by_bit(place, seed):
    message = record(IDS[place], seed)
    codes, ticks = run(books(), [message], payload=DBN)
    assert codes.tolist() == [place]
    there = np.frombuffer(message, dtype=TICK_DTYPE)[0]
    assert ticks[0].tobytes() == there.tobytes()


@pytest.mark.parametrize("instrument_id", [1, 2, 4, 8, 4_294_967_294])
def test_instrument_that_is_not_wanted_gives_no_tick(instrument_id):
    assert run(books(), [record(instrument_id)], payload=DBN)[0].tolist() == [NO_TICK]


@pytest.mark.parametrize(
    ("message", "code", "doubted"),
    [
        (record(7)[:79], WRONG_LENGTH, True),
        (record(7) + b"x", WRONG_LENGTH, True),
        (record(7, length=21), WRONG_LENGTH, True),
        (record(7, length=19)[:76], WRONG_LENGTH, True),
        (b"\x14", WRONG_LENGTH, True),
        (b"", WRONG_LENGTH, True),
        (record(7) * 2, WRONG_LENGTH, True),
        (record(7, rtype=160), UNKNOWN_TYPE, False),
        (record(7, rtype=0x12, length=19)[:76], UNKNOWN_TYPE, False),
    ],
)
def test_what_is_no_whole_record_is_refused(message, code, doubted):
    made = books()
    assert run(made, [message], payload=DBN)[0].tolist() == [code]
    assert made.unsound.tolist() == [int(doubted)] * 4


def test_next_record_of_an_instrument_makes_its_book_sound_unless_it_says_otherwise():
    made = books()
    doubt(made)
    _, ticks = run(made, [record(7), record(0, flags=4)], payload=DBN)
    assert ticks["flags"].tolist() == [128, 4], "a record carries the whole top"
    assert made.unsound.tolist() == [0, 1, 1, 1]
    run(made, [record(0), record(7, flags=132)], payload=DBN)
    assert made.unsound.tolist() == [1, 0, 1, 1]
