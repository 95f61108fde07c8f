"""What each ITCH message does to a book, what it tells, and when a book is sound: a case for each rule of the page."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1 import itch
from penstock.v1.records import UNDEFINED_PRICE, UNDEFINED_TIME
from penstock_daemon.feed.memory import MESSAGE_BYTES, Refusal
from penstock_daemon.feed.refusals import SENTENCES
from support.book_runs import begin, doubt, outcome, run, small_books, tops
from support.itch_orders import (
    LOCATES,
    STOCKS,
    UNWANTED,
    add,
    cancel,
    delete,
    directory,
    executed,
    executed_at,
    message,
    replace,
    start_of_messages,
    stock_bytes,
    trade,
)

OPENING = [start_of_messages(), *(directory(name) for name in LOCATES)]
ONE_BID = [*OPENING, add("AAPL", 1, "B", 100, 1_000_000)]
ONE_ASK = [*OPENING, add("AAPL", 1, "S", 100, 1_000_000)]
EMPTY = (UNDEFINED_PRICE, 0, 0, UNDEFINED_PRICE, 0, 0)
NO_LIMITS = [0, 1_999_999_900, 2_000_000_000, 4_294_967_295]


def books_after(messages: list[bytes]):
    books = small_books(STOCKS, [5, 1, 9])
    run(books, messages)
    return books


def last(books, *messages: bytes):
    """Apply messages. Returns what the last one gave, and its tick."""
    codes, ticks = run(books, list(messages), midnight_ns=1_000_000_000_000_000_000)
    return outcome(STOCKS, int(codes[-1])), ticks[-1]


def test_first_order_gives_a_quote_with_every_field():
    outcome_name, tick = last(books_after(OPENING), add("AAPL", 1, "B", 100, 1_000_000))
    assert outcome_name == "AAPL"
    assert (tick["length"], tick["rtype"], tick["publisher_id"], tick["instrument_id"]) == (20, 1, 2, 5)
    assert tick["ts_event"] == 1_000_000_000_000_000_000 + 34_200_000_000_123
    assert (tick["price"], tick["size"], chr(tick["action"]), chr(tick["side"])) == (UNDEFINED_PRICE, 0, "A", "B")
    assert (tick["flags"], tick["depth"], tick["sequence"], tick["ts_in_delta"]) == (128, 0, 0, 0)
    assert (tick["bid_px"], tick["bid_sz"], tick["bid_ct"]) == (100_000_000_000, 100, 1)
    assert (tick["ask_px"], tick["ask_sz"], tick["ask_ct"]) == (UNDEFINED_PRICE, 0, 0)


def test_day_that_is_not_known_gives_an_undefined_venue_time():
    books = books_after(OPENING)
    _, ticks = run(books, [add("B", 1, "S", 1, 1)], midnight_ns=-1)
    assert ticks[0]["ts_event"] == UNDEFINED_TIME


@pytest.mark.parametrize(("resting", "aggressor"), [("S", "B"), ("B", "A")])
def test_execution_is_a_trade_at_the_orders_price_by_who_came(resting, aggressor):
    books = books_after([*OPENING, add("AAPL", 1, resting, 100, 1_000_000)])
    name, tick = last(books, executed("AAPL", 1, 30))
    assert (name, chr(tick["action"]), chr(tick["side"])) == ("AAPL", "T", aggressor)
    assert (tick["price"], tick["size"]) == (100_000_000_000, 30)
    assert tick["bid_sz"] + tick["ask_sz"] == 70, "the book after the event"


def test_execution_at_another_price_is_a_trade_there_and_reduces_the_order_where_it_rests():
    name, tick = last(books_after(ONE_ASK), executed_at("AAPL", 1, 100, 990_000))
    assert (name, chr(tick["action"]), tick["price"], tick["size"]) == ("AAPL", "T", 99_000_000_000, 100)
    assert (tick["ask_px"], tick["ask_ct"]) == (UNDEFINED_PRICE, 0)


def test_execution_that_is_not_printable_is_no_trade():
    name, tick = last(books_after(ONE_ASK), executed_at("AAPL", 1, 40, 990_000, "N"))
    assert (name, chr(tick["action"]), tick["price"], tick["size"]) == ("AAPL", "C", UNDEFINED_PRICE, 0)
    assert (tick["ask_sz"], chr(tick["side"])) == (60, "A")


def test_hidden_trade_leaves_the_book_and_has_no_side():
    books = books_after(ONE_BID)
    name, tick = last(books, trade("AAPL", 50, 1_005_000))
    assert (name, chr(tick["action"]), chr(tick["side"])) == ("AAPL", "T", "N")
    assert (tick["price"], tick["size"], tick["bid_sz"]) == (100_500_000_000, 50, 100)
    assert last(books, trade("AAPL", 50, 1_005_000))[0] == "AAPL", "every trade is told"


def test_cancel_delete_and_replace_are_told_by_their_actions():
    books = books_after(ONE_BID)
    name, tick = last(books, cancel("AAPL", 1, 60))
    assert (name, chr(tick["action"]), tick["bid_sz"], tick["bid_ct"]) == ("AAPL", "C", 40, 1)
    name, tick = last(books, replace("AAPL", 1, 2, 70, 1_000_100))
    assert (name, chr(tick["action"]), chr(tick["side"]), tick["bid_px"]) == ("AAPL", "M", "B", 100_010_000_000)
    name, tick = last(books, delete("AAPL", 2))
    assert (name, chr(tick["action"]), tick["bid_px"]) == ("AAPL", "C", UNDEFINED_PRICE)
    assert last(books, delete("AAPL", 1))[0] == "UNKNOWN_ORDER", "the replaced one is gone"


def test_change_below_the_top_is_not_told():
    books = books_after(ONE_BID)
    assert last(books, add("AAPL", 2, "B", 100, 999_900))[0] == ""
    assert last(books, add("AAPL", 3, "B", 5, 1_000_000))[1]["bid_ct"] == 2, "at the top it is"


def test_stock_that_is_not_wanted_is_not_told_and_takes_no_room():
    books = small_books(STOCKS, [5, 1, 9], orders_max=1)
    run(books, [*OPENING, *(add(UNWANTED, reference, "B", 1, 100) for reference in range(10))])
    assert last(books, executed(UNWANTED, 3, 1), trade(UNWANTED, 1, 100), delete(UNWANTED, 99))[0] == ""
    assert books.words[0] == 0
    assert not books.unsound.any()


def test_locked_and_crossed_books_are_data():
    books = books_after(ONE_BID)
    assert last(books, add("AAPL", 2, "S", 7, 1_000_000))[1]["ask_px"] == 100_000_000_000
    assert last(books, add("AAPL", 3, "S", 7, 900_000))[1]["ask_px"] == 90_000_000_000
    assert not books.unsound.any()


@pytest.mark.parametrize("price", NO_LIMITS)
@pytest.mark.parametrize("side", ["B", "S"])
def test_order_without_a_limit_stands_at_no_price_and_can_be_executed(price, side):
    books = books_after(OPENING)
    assert last(books, add("AAPL", 1, side, 10, price))[0] == ""
    assert tops(books)[0] == EMPTY
    _, tick = last(books, executed("AAPL", 1, 4))
    assert (chr(tick["action"]), tick["price"], tick["size"]) == ("T", UNDEFINED_PRICE, 4)
    assert last(books, delete("AAPL", 1))[0] == ""
    assert last(books, delete("AAPL", 1))[0] == "UNKNOWN_ORDER"


def test_prices_beside_those_without_a_limit_are_prices():
    books = books_after([*OPENING, add("AAPL", 1, "B", 1, 1), add("AAPL", 2, "S", 1, 1_999_999_899)])
    assert tops(books)[0] == (100_000, 1, 1, 199_999_989_900_000, 1, 1)


def test_size_beyond_32_bits_saturates_and_comes_back_exactly():
    books = books_after([*OPENING, add("AAPL", 1, "B", 2**32 - 1, 100), add("AAPL", 2, "B", 2**32 - 1, 100)])
    assert tops(books)[0][1:3] == (2**32 - 1, 2)
    last(books, cancel("AAPL", 1, 2**32 - 2), delete("AAPL", 2))
    assert tops(books)[0][1:3] == (1, 1)


def test_reference_that_has_all_bits_is_a_reference():
    books = books_after([*OPENING, add("AAPL", 2**64 - 1, "B", 1, 100), add("AAPL", 2**63, "B", 1, 100)])
    assert last(books, delete("AAPL", 2**64 - 1), delete("AAPL", 2**63))[1]["bid_ct"] == 0


@pytest.mark.parametrize(
    ("messages", "refusal", "doubted"),
    [
        ([delete("AAPL", 9)], "UNKNOWN_ORDER", [1, 0, 0]),
        ([replace("AAPL", 9, 10, 1, 1)], "UNKNOWN_ORDER", [1, 0, 0]),
        ([executed("AAPL", 1, 101)], "TOO_LARGE", [1, 0, 0]),
        ([executed_at("AAPL", 1, 101, 5)], "TOO_LARGE", [1, 0, 0]),
        ([cancel("AAPL", 1, 101)], "TOO_LARGE", [1, 0, 0]),
        ([cancel("AAPL", 1, 0)], "WRONG_VALUE", [1, 0, 0]),
        ([add("AAPL", 1, "B", 1, 5)], "DUPLICATE_ORDER", [1, 0, 0]),
        ([add("B", 1, "B", 1, 5)], "DUPLICATE_ORDER", [0, 1, 0]),
        ([add("AAPL", 2, "B", 1, 5), replace("AAPL", 1, 2, 1, 5)], "DUPLICATE_ORDER", [1, 0, 0]),
        ([add("AAPL", 2, "X", 1, 5)], "WRONG_VALUE", [1, 0, 0]),
        ([add("AAPL", 2, "B", 0, 5)], "WRONG_VALUE", [1, 0, 0]),
        ([replace("AAPL", 1, 2, 0, 5)], "WRONG_VALUE", [1, 0, 0]),
        ([executed_at("AAPL", 1, 1, 5, "?")], "WRONG_VALUE", [0, 0, 0]),
        ([trade("AAPL", 0, 5)], "WRONG_VALUE", [0, 0, 0]),
        ([trade("AAPL", 1, 5, "?")], "WRONG_VALUE", [0, 0, 0]),
        ([delete("B", 1)], "WRONG_VALUE", [1, 1, 0]),
        ([add("AAPL", 2, "B", 1, 5, locate=2)], "WRONG_VALUE", [1, 1, 0]),
        ([directory("AAPL", 99)], "WRONG_VALUE", [1, 0, 0]),
        ([directory("AAPL", 2)], "WRONG_VALUE", [1, 1, 0]),
        ([delete("AAPL", 1)[:-1]], "WRONG_LENGTH", [1, 0, 0]),
        ([delete("AAPL", 1) + b"x"], "WRONG_LENGTH", [1, 0, 0]),
        ([delete("AAPL", 1) + bytes(MESSAGE_BYTES)], "WRONG_LENGTH", [1, 0, 0]),
        ([delete("AAPL", 1)[:3]], "WRONG_LENGTH", [1, 0, 0]),
        ([delete("AAPL", 1)[:2]], "WRONG_LENGTH", [1, 1, 1]),
        ([delete(UNWANTED, 1)[:-1]], "WRONG_LENGTH", [0, 0, 0]),
        ([message("Z", 13, bytes(8))], "UNKNOWN_TYPE", [1, 0, 0]),
        ([message("Z", 0, bytes(8))], "UNKNOWN_TYPE", [0, 0, 0]),
    ],
)
def test_contradiction_is_refused_and_its_book_doubted(messages, refusal, doubted):
    books = books_after(ONE_BID)
    assert last(books, *messages)[0] == refusal
    assert books.unsound.tolist() == doubted


def test_every_refusal_has_its_sentence():
    assert set(SENTENCES) == set(Refusal)


def test_prices_beyond_the_room_for_them_are_refused_and_doubted():
    books = small_books(STOCKS, [5, 1, 9], levels_max=2)
    run(books, [*OPENING, add("B", 1, "B", 1, 100), add("B", 2, "B", 1, 102)])
    assert last(books, add("B", 3, "B", 1, 101))[0] == "LEVELS_FULL"
    assert tops(books)[1][:3] == (10_200_000, 1, 1)
    assert books.unsound.tolist() == [0, 1, 0]
    assert last(books, delete("B", 3))[0] == "UNKNOWN_ORDER"
    assert last(books, add("B", 4, "B", 6, 100), delete("B", 2))[1]["bid_sz"] == 7, "a price that is there has room"


def test_ticks_of_a_doubted_book_say_so_from_the_next_message_on():
    books = books_after(ONE_BID)
    assert last(books, delete("AAPL", 9))[0] == "UNKNOWN_ORDER"
    name, tick = last(books, add("AAPL", 2, "B", 1, 5))
    assert (name, tick["flags"], tick["bid_sz"]) == ("AAPL", 128 | 4, 100), "told though the top is the same"
    assert last(books, add("AAPL", 3, "B", 1, 5))[0] == ""


def test_change_that_a_refused_message_made_is_told_with_the_next_one():
    books = books_after(ONE_BID)
    assert last(books, executed("AAPL", 1, 101))[0] == "TOO_LARGE"
    _, tick = last(books, add("AAPL", 2, "S", 1, 5))
    assert (tick["bid_px"], tick["flags"]) == (UNDEFINED_PRICE, 132)


def test_emptied_book_is_no_sound_book_but_the_start_of_messages_is():
    books = books_after(ONE_BID)
    doubt(books)
    last(books, delete("AAPL", 1))
    assert books.unsound.tolist() == [1, 1, 1]
    last(books, message("S", 0, b"Q"))
    assert books.unsound.tolist() == [1, 1, 1]
    last(books, start_of_messages())
    assert books.unsound.tolist() == [0, 0, 0]


@pytest.mark.parametrize("fresh", [begin, lambda books: last(books, start_of_messages())])
def test_new_day_knows_no_order_no_price_and_no_locate_code(fresh):
    books = books_after([*ONE_BID, add("B", 2, "S", 1, 5)])
    fresh(books)
    assert tops(books) == [EMPTY] * 3
    last(books, directory("B", 13))
    name, tick = last(books, add("B", 1, "B", 3, 7, locate=13))
    assert (name, tick["instrument_id"], tick["bid_sz"]) == ("B", 1, 3)
    assert not books.unsound.any()


def test_start_of_messages_writes_no_order_since_a_packet_may_hold_a_hundred():
    books = books_after([*OPENING, *(add("AAPL", reference, "B", 1, 5) for reference in range(100))])
    before = books.orders.copy()
    last(books, start_of_messages())
    assert np.array_equal(books.orders, before)
    last(books, *OPENING[1:], *(add("B", reference, "S", 1, 5) for reference in range(50, 150)))
    assert not books.unsound.any(), "references of the session before are free again"
    assert last(books, delete("B", 149))[0] == "B"
    assert last(books, delete("AAPL", 7))[0] == "UNKNOWN_ORDER"
    assert last(books, *(delete("B", reference) for reference in range(50, 149)))[0] == "B"
    assert tops(books) == [EMPTY] * 3


def test_locate_code_is_learnt_from_an_order_where_the_directory_was_missed():
    books = books_after([start_of_messages()])
    assert last(books, add("AAPL", 1, "B", 100, 50))[0] == "AAPL"
    assert last(books, delete("AAPL", 1))[0] == "AAPL"
    assert last(books, trade(UNWANTED, 1, 5), delete(UNWANTED, 4))[0] == ""
    assert not books.unsound.any()
    assert last(books, delete("B", 4))[0] == "UNKNOWN_ORDER"
    assert books.unsound.tolist() == [0, 1, 1], "it may have been about any stock without a code"


def test_names_are_whole_names():
    books = books_after([start_of_messages()])
    body = add("B", 1, "B", 1, 5)
    for name in ("BB", "LONGNAM", "b"):
        other = message("A", LOCATES["B"] + len(name) + 40 + ord(name[0]), body[11:24] + stock_bytes(name) + body[32:])
        assert last(books, other)[0] == "", name


@pytest.mark.parametrize("kind", sorted(set(itch.MESSAGE_BYTES) - set("AFECXDUPRS")))
def test_types_that_tell_nothing_of_a_book_are_checked_and_passed(kind):
    books = books_after(ONE_BID)
    whole = message(kind, 13, b"\xff" * (itch.MESSAGE_BYTES[kind] - 11))
    assert last(books, whole)[0] == ""
    assert not books.unsound.any()
    assert last(books, whole[:-1])[0] == "WRONG_LENGTH"
    assert tops(books)[0][:3] == (100_000_000_000, 100, 1)
