"""The feed's part of the metrics: every packet and message by what became of it, gaps, stamps, and what was dropped.

packets  = data + duplicate + heartbeat + end + other session + far + malformed
messages = applied + duplicates + far + discarded + held
gaps     = closed by a line + recovered + unrecovered + the one that may be open
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock_daemon.feed import memory
from penstock_daemon.feed.book_memory import NO_LOCATE
from penstock_daemon.feed.memory import Malformed, Payload, Refusal

if TYPE_CHECKING:
    from penstock_daemon.feed.thread import Receiver

LINE_NAMES: Final = ("a", "b", "recovery")
_OUTCOMES: Final = (
    ("data", memory.DATA_PACKETS),
    ("duplicate", memory.DUPLICATE_PACKETS),
    ("heartbeat", memory.HEARTBEATS),
    ("end", memory.ENDS),
    ("other_session", memory.OTHER_SESSION),
    ("far", memory.FAR_PACKETS),
)
_MESSAGES: Final = (
    ("applied", memory.APPLIED),
    ("duplicate", memory.DUPLICATES),
    ("far", memory.FAR_MESSAGES),
    ("discarded", memory.DISCARDED),
)
_GAPS: Final = (
    ("closed", memory.GAPS_CLOSED),
    ("recovered", memory.GAPS_RECOVERED),
    ("unrecovered", memory.GAPS_UNRECOVERED),
)
_COUNTERS: Final = (
    ("conflicts", memory.CONFLICTS, "Repeated messages that had other bytes than the first."),
    ("reordered_messages", memory.REORDERED, "Messages that came before their turn and were held."),
    ("recovered_messages", memory.RECOVERED, "Messages that the recovery server gave."),
    ("lost_messages", memory.LOST, "Messages that never came in time."),
    ("requests", memory.REQUESTS, "Re-requests sent to the recovery server."),
    ("request_errors", memory.REQUEST_ERRORS, "Re-requests that could not be sent."),
    ("sessions", memory.SESSIONS, "Sessions that began."),
    ("late_joins", memory.LATE_JOINS, "Of these, joined after their start: books were unsound."),
    ("ticks", memory.TICKS, "Ticks given to the engine."),
    ("ring_drops", memory.RING_DROPS, "Ticks dropped: the engine's ring was full."),
    ("receive_errors", memory.RECEIVE_ERRORS, "Receive calls that failed."),
    ("unstamped_packets", memory.NO_STAMP, "Packets without a stamp of kernel or network card."),
    ("hardware_stamps", memory.HARDWARE_STAMPS, "Packets timed by the network card."),
    ("hardware_stamps_doubted", memory.HARDWARE_DOUBTED, "Stamps of a network card that were not used."),
    ("negative_latencies", memory.NEGATIVE, "Packets stamped after they were received: a clock was set."),
)


@dataclass(frozen=True, slots=True)
class FeedSnapshot:
    """The feed as it stands. Counters only grow while a daemon lives.

    Attributes:
        feed: its name.
        alive: its thread runs.
        packets: by line.
        outcomes: packets by what became of them; malformed ones by reason.
        messages: by what became of them.
        gaps: by how they ended.
        refused: messages that changed no book, by Refusal.
        socket_drops: by line, of the kernel.
        counters: the others, by the name of their metric.
        held: messages held behind a gap.
        gap_open: a message is missing now.
        expected: sequence of the next message.
        ended: the session has ended.
        session: its name; empty before the first.
        instruments, sound: how many, and how many of them have a book that is right.
        named: how many of them the session has named; all, where messages are DBN records.
        kernel_to_user_ns, kernel_to_user_max_ns: sum over stamped packets, and the longest.
    """

    feed: str
    alive: bool = False
    packets: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    malformed: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[str, int] = field(default_factory=dict)
    gaps: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    socket_drops: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    gap_open: bool = False
    expected: int = 0
    ended: bool = False
    session: str = ""
    instruments: int = 0
    sound: int = 0
    named: int = 0
    kernel_to_user_ns: int = 0
    kernel_to_user_max_ns: int = 0


def snapshot_of(receiver: Receiver, name: str) -> FeedSnapshot:
    """Return what *receiver* counts, as it stands."""
    word = receiver.word
    unsound = int(receiver.books.unsound.sum())
    instruments = len(receiver.shape.names)
    return FeedSnapshot(
        feed=name,
        alive=receiver.alive,
        packets={line: word(memory.PACKETS + place) for place, line in enumerate(LINE_NAMES)},
        outcomes={outcome: word(place) for outcome, place in _OUTCOMES},
        malformed={reason.name.lower(): word(memory.MALFORMED + reason) for reason in Malformed},
        messages={outcome: word(place) for outcome, place in _MESSAGES},
        gaps={outcome: word(place) for outcome, place in _GAPS},
        refused={reason.name.lower(): word(memory.REFUSED + reason) for reason in Refusal},
        socket_drops={line: word(memory.SOCKET_DROPS + place) for place, line in enumerate(LINE_NAMES)},
        counters={metric: word(place) for metric, place, _ in _COUNTERS},
        held=word(memory.HELD),
        gap_open=word(memory.GAP_SINCE_NS) != 0,
        expected=word(memory.EXPECTED),
        ended=word(memory.ENDED) != 0,
        session=session_name(receiver),
        instruments=instruments,
        sound=instruments - unsound if word(memory.SESSIONS) else 0,
        named=instruments - len(unnamed(receiver)),
        kernel_to_user_ns=word(memory.KERNEL_TO_USER_NS),
        kernel_to_user_max_ns=word(memory.KERNEL_TO_USER_MAX_NS),
    )


def unnamed(receiver: Receiver) -> list[str]:
    """Return the instruments that this session has not named: a stock without a locate code; none for DBN records."""
    if receiver.shape.payload != Payload.ITCH:
        return []
    locates = receiver.books.instrument_locates.tolist()
    return [name for name, locate in zip(receiver.shape.names, locates, strict=True) if locate == NO_LOCATE]


def session_name(receiver: Receiver) -> str:
    """Return the session's name, printable; empty before the first."""
    if receiver.word(memory.EXPECTED) == 0:
        return ""
    high, low = receiver.word(memory.SESSION_HIGH), receiver.word(memory.SESSION_LOW)
    text = (high.to_bytes(8, "big", signed=True) + low.to_bytes(2, "big")).decode("ascii", "replace").rstrip()
    return "".join(one if one.isprintable() else "?" for one in text)


def feed_families(one: FeedSnapshot) -> Iterator[Metric]:
    """Yield every metric of the feed."""
    for metric, label, text, values in (
        ("packets", "line", "Packets received.", one.packets),
        ("packet_outcomes", "outcome", "Packets by what became of them; malformed ones apart.", one.outcomes),
        ("malformed_packets", "reason", "Packets dropped whole, by what is wrong with them.", one.malformed),
        ("messages", "outcome", "Messages of this session by what became of them.", one.messages),
        ("gaps", "outcome", "Gaps by how they ended.", one.gaps),
        ("refused_messages", "reason", "Messages that changed no book, by reason.", one.refused),
        ("socket_drops", "line", "Packets that the kernel dropped: the thread came too late.", one.socket_drops),
    ):
        family = CounterMetricFamily(f"penstock_feed_{metric}", text, labels=["feed", label])
        for value, count in values.items():
            family.add_metric([one.feed, value], count)
        yield family
    for metric, _, text in _COUNTERS:
        family = CounterMetricFamily(f"penstock_feed_{metric}", text, labels=["feed"])
        family.add_metric([one.feed], one.counters.get(metric, 0))
        yield family
    family = CounterMetricFamily(
        "penstock_feed_kernel_to_user_seconds",
        "From the kernel's or network card's stamp to the daemon, summed.",
        labels=["feed"],
    )
    family.add_metric([one.feed], one.kernel_to_user_ns / 1e9)
    yield family
    for metric, text, number in (
        ("alive", "1 while its thread runs.", float(one.alive)),
        ("held_messages", "Messages held behind a gap.", one.held),
        ("gap_open", "1 while a message is missing.", float(one.gap_open)),
        ("next_sequence", "Sequence of the next message.", one.expected),
        ("session_ended", "1 after the end of a session.", float(one.ended)),
        ("instruments", "Instruments that are predicted.", one.instruments),
        ("named_instruments", "Of these, named by this session; all with DBN records.", one.named),
        ("sound_instruments", "Of these, with a book that is right.", one.sound),
        ("kernel_to_user_seconds_max", "The longest of those times.", one.kernel_to_user_max_ns / 1e9),
    ):
        gauge = GaugeMetricFamily(f"penstock_feed_{metric}", text, labels=["feed"])
        gauge.add_metric([one.feed], number)
        yield gauge
