"""What an operator reads of a feed: each kind of trouble once in a while, with how often it was and what to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from penstock_daemon.feed import memory
from penstock_daemon.feed.book_memory import NO_LOCATE
from penstock_daemon.feed.memory import Payload, Refusal
from penstock_daemon.feed.metrics import unnamed
from penstock_daemon.feed.refusals import SENTENCES
from penstock_daemon.feed.silence import SILENT_NS
from penstock_daemon.feed.teller import TELL_EVERY_NS, Teller

STOCKS = ("AAPL", "APPL", "MSFT")


class Told:
    """A feed's counts, set by hand, and a clock moved by hand."""

    def __init__(self, payload: Payload = Payload.ITCH, lines: int = 2) -> None:
        self.words = np.zeros(memory.FEED_WORDS, np.int64)
        settings = np.full(memory.SETTINGS, -1, np.int64)
        settings[memory.DESCRIPTORS : memory.DESCRIPTORS + lines] = 5
        self.now_ns = 10**12
        receiver: Any = SimpleNamespace(
            alive=True,
            word=lambda index: int(self.words[index]),
            shape=SimpleNamespace(payload=payload, names=STOCKS),
            books=SimpleNamespace(instrument_locates=np.zeros(len(STOCKS), np.int64)),
            memory=SimpleNamespace(settings=settings),
        )
        self.receiver = receiver
        self.teller = Teller(receiver, "feed", clock=lambda: self.now_ns)

    def look(self, after_ns: int = 0, heard: tuple[int, ...] = (memory.LINE_A, memory.LINE_B)) -> list[dict[str, Any]]:
        """Return what is told after some time, in which lines brought packets."""
        self.now_ns += after_ns
        for line in heard:
            self.words[memory.PACKETS + line] += 1
        with capture_logs() as logs:
            self.teller.look()
        return logs

    def begin_session(self) -> None:
        self.words[memory.SESSIONS] += 1
        self.words[memory.EXPECTED] = 1


@pytest.fixture
def told() -> Told:
    made = Told()
    assert made.look() == []
    return made


@pytest.mark.parametrize("reason", list(Refusal))
def test_the_first_refusal_of_a_kind_is_told_with_its_sentence_and_others_once_in_a_while(told: Told, reason: Refusal):
    told.words[memory.REFUSED + reason] = 3
    (entry,) = told.look()
    assert (entry["event"], entry["reason"], entry["times"]) == ("feed_refused", reason.name.lower(), 3)
    assert entry["detail"] == SENTENCES[reason]
    told.words[memory.REFUSED + reason] = 10
    assert told.look(TELL_EVERY_NS - 1) == []
    assert [(one["times"], one["total"]) for one in told.look(1)] == [(7, 10)]
    assert told.look(TELL_EVERY_NS) == []


def test_the_first_refusal_of_a_session_is_told_at_once(told: Told):
    for _ in range(2):
        told.begin_session()
        told.words[memory.REFUSED + Refusal.TOO_LARGE] += 1
        assert [entry["event"] for entry in told.look(1)] == ["feed_session", "feed_refused"]


def test_records_of_another_schema_are_no_trouble():
    told = Told(Payload.DBN)
    told.words[memory.REFUSED + Refusal.UNKNOWN_TYPE] = 3
    assert told.look() == []


def test_a_line_that_falls_silent_is_told_once_and_when_it_is_back(told: Told):
    both, a = (memory.LINE_A, memory.LINE_B), (memory.LINE_A,)
    assert told.look(SILENT_NS - 1, a) == []
    (entry,) = told.look(1, a)
    assert (entry["event"], entry["line"], entry["log_level"]) == ("feed_line_silent", "b", "warning")
    assert "sender lives" in entry["mend"]
    assert told.look(10 * SILENT_NS, a) == []
    (entry,) = told.look(0, both)
    assert (entry["event"], entry["line"], entry["silent_s"]) == ("feed_line_heard_again", "b", 55.0)


def test_a_line_that_was_never_heard_may_be_the_wrong_one():
    told = Told(lines=1)
    (entry,) = told.look(SILENT_NS, ())
    assert (entry["event"], entry["line"]) == ("feed_line_silent", "a")
    assert "feed.interface" in entry["mend"]


def test_silence_after_the_end_of_a_session_is_no_trouble(told: Told):
    told.words[memory.ENDED] = 1
    assert [entry["event"] for entry in told.look(100 * SILENT_NS, ())] == ["feed_session_ended"]


def test_stocks_that_a_whole_session_never_named_are_told_at_its_end(told: Told):
    told.receiver.books.instrument_locates[1] = NO_LOCATE
    told.begin_session()
    told.words[memory.APPLIED] = 5
    assert [entry["event"] for entry in told.look()] == ["feed_session"]
    assert unnamed(told.receiver) == ["APPL"]
    told.words[memory.ENDED] = 1
    end, entry = told.look()
    assert (end["event"], entry["event"]) == ("feed_session_ended", "feed_stocks_unnamed")
    assert (entry["stocks"], entry["total"]) == (["APPL"], 1)
    assert told.look() == []


def test_records_name_no_stocks():
    told = Told(Payload.DBN)
    told.receiver.books.instrument_locates[:] = NO_LOCATE
    assert unnamed(told.receiver) == []


def test_a_thread_that_is_gone_is_told_once(told: Told):
    told.receiver.alive = False
    assert [entry["event"] for entry in told.look()] == ["feed_gone"]
    assert told.look() == []


@pytest.mark.parametrize(
    ("word", "event"),
    [
        (memory.GAPS_UNRECOVERED, "feed_gap_unrecovered"),
        (memory.CONFLICTS, "feed_conflict"),
        (memory.MALFORMED, "feed_malformed"),
        (memory.OTHER_SESSION, "feed_other_session"),
        (memory.FAR_PACKETS, "feed_far"),
        (memory.SOCKET_DROPS + memory.LINE_B, "feed_socket_drops"),
        (memory.RING_DROPS, "feed_ring_drops"),
        (memory.HARDWARE_DOUBTED, "feed_card_stamps_doubted"),
        (memory.NEGATIVE, "feed_clock_set"),
    ],
)
def test_trouble_is_told_with_how_often_it_was(told: Told, word: int, event: str):
    told.words[word] = 4
    (entry,) = told.look()
    assert (entry["event"], entry["times"], entry["log_level"]) == (event, 4, "warning")
    assert entry["mend"]
    told.words[word] = 9
    assert told.look(TELL_EVERY_NS - 1) == []
    assert told.look(1)[0]["times"] == 5
