"""What the log says of a feed: looked up in its counts several times a second, so that its thread never logs.

a new session, the end of one     each told at once; with the end, the stocks that it never named
what goes wrong                   one line per kind and look, at most every TELL_EVERY_NS, with how often since the last
a message that is refused         the same, a kind for each reason, with its sentence; the first of a session at once
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from penstock_daemon.feed import memory
from penstock_daemon.feed.memory import Malformed, Payload, Refusal
from penstock_daemon.feed.metrics import session_name, unnamed
from penstock_daemon.feed.refusals import SENTENCES
from penstock_daemon.feed.silence import SilenceWatch
from penstock_daemon.feed.thread import Receiver

TELL_EVERY_NS: Final = 10_000_000_000
UNNAMED_TOLD_MAX: Final = 20  # Stocks in one line.

_log = structlog.get_logger("penstock.feed")

# Event, the words that are summed, mend.
_TROUBLES: Final[tuple[tuple[str, tuple[int, ...], str], ...]] = (
    (
        "feed_gap_unrecovered",
        (memory.GAPS_UNRECOVERED,),
        "books are unsound until they are whole again; set feed.recovery, add line B, or mend the network",
    ),
    ("feed_conflict", (memory.CONFLICTS,), "two copies of a message differ: find who else sends to the group"),
    (
        "feed_malformed",
        tuple(memory.MALFORMED + reason for reason in Malformed),
        "penstock_feed_malformed_packets tells the reasons; find who sends them",
    ),
    (
        "feed_other_session",
        (memory.OTHER_SESSION,),
        "a line carries another session: see that both lines are of one feed",
    ),
    ("feed_far", (memory.FAR_PACKETS,), "packets are beyond feed.reorder_max: raise it, or find who sends them"),
    (
        "feed_socket_drops",
        tuple(memory.SOCKET_DROPS + line for line in range(memory.LINES)),
        "the kernel dropped packets: raise feed.receive_buffer_kb, or give the feed a CPU (feed.cores, feed.idle = spin)",
    ),
    ("feed_ring_drops", (memory.RING_DROPS,), "the engine is behind: raise sessions.in_flight_max, or predict less"),
    ("feed_request_errors", (memory.REQUEST_ERRORS,), "feed.recovery can't be reached"),
    ("feed_receive_errors", (memory.RECEIVE_ERRORS,), "see that the interface is up and feed.recovery is right"),
    (
        "feed_card_stamps_doubted",
        (memory.HARDWARE_DOUBTED,),
        "the kernel's stamps are used: set clock.ptp to the clock of the feed's network card, and see that it is steady",
    ),
    ("feed_clock_set", (memory.NEGATIVE,), "packets were stamped after they were received: steady the wall clock"),
)


class Teller:
    """Tells what a receiver's counts say.

    Args:
        receiver: of the feed.
        name: of the feed.
        clock: monotonic nanoseconds.
    """

    def __init__(self, receiver: Receiver, name: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._receiver = receiver
        self._clock = clock
        self._log = _log.bind(feed=name)
        self._told = [0] * len(_TROUBLES)
        self._told_ns = [clock() - TELL_EVERY_NS] * len(_TROUBLES)
        self._refused = dict.fromkeys(Refusal, 0)
        self._refused_ns = dict.fromkeys(Refusal, clock() - TELL_EVERY_NS)
        self._silence = SilenceWatch(self._log, receiver.word, clock())
        self._sessions = 0
        self._late_joins = 0
        self._ended = 0
        self._gone = False

    def look(self) -> None:
        """Look at the counts once."""
        word = self._receiver.word
        if not self._receiver.alive:
            if not self._gone:
                self._log.error("feed_gone", mend="start the daemon again, and report this")
            self._gone = True
            return
        sessions, late_joins, ended = word(memory.SESSIONS), word(memory.LATE_JOINS), word(memory.ENDED)
        if sessions != self._sessions:
            late = late_joins != self._late_joins
            self._log.info("feed_session", session=session_name(self._receiver), sequence=word(memory.EXPECTED))
            if late:
                self._log.warning(
                    "feed_joined_late",
                    session=session_name(self._receiver),
                    mend="its books are unsound until they are whole again: start the daemon before the session",
                )
            self._sessions, self._late_joins, self._ended = sessions, late_joins, 0
            self._refused_ns = dict.fromkeys(Refusal, self._clock() - TELL_EVERY_NS)
        if ended and not self._ended:
            self._log.info("feed_session_ended", session=session_name(self._receiver), sequence=word(memory.EXPECTED))
            self._tell_unnamed()
        self._ended = ended
        now_ns = self._clock()
        descriptors = self._receiver.memory.settings[memory.DESCRIPTORS : memory.LINE_B + memory.DESCRIPTORS + 1]
        self._silence.look([line for line, number in enumerate(descriptors.tolist()) if number >= 0], now_ns)
        self._tell_refused(now_ns)
        for place, (event, words, mend) in enumerate(_TROUBLES):
            count = sum(word(one) for one in words)
            if count > self._told[place] and now_ns - self._told_ns[place] >= TELL_EVERY_NS:
                self._log.warning(
                    event, times=count - self._told[place], total=count, next_sequence=word(memory.EXPECTED), mend=mend
                )
                self._told[place], self._told_ns[place] = count, now_ns

    def _tell_unnamed(self) -> None:
        """Tell of stocks that a whole session has not named: their books look sound, and nothing is ever predicted."""
        names = unnamed(self._receiver)
        if names and self._receiver.word(memory.APPLIED):
            self._log.warning(
                "feed_stocks_unnamed",
                stocks=names[:UNNAMED_TOLD_MAX],
                total=len(names),
                mend="write them in feed.instruments as the venue does",
            )

    def _tell_refused(self, now_ns: int) -> None:
        """Tell of each kind of refusal by its sentence; of records of other schemas not at all, which are no loss."""
        for reason in Refusal:
            if reason == Refusal.UNKNOWN_TYPE and self._receiver.shape.payload == Payload.DBN:
                continue
            count = self._receiver.word(memory.REFUSED + reason)
            if count > self._refused[reason] and now_ns - self._refused_ns[reason] >= TELL_EVERY_NS:
                self._log.warning(
                    "feed_refused",
                    reason=reason.name.lower(),
                    times=count - self._refused[reason],
                    total=count,
                    next_sequence=self._receiver.word(memory.EXPECTED),
                    detail=SENTENCES[reason],
                    mend="penstock_feed_refused_messages counts them; a book in doubt is sound again with the next session",
                )
                self._refused[reason], self._refused_ns[reason] = count, now_ns
