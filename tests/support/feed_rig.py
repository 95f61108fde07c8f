"""The feed without its sockets: packets offered one by one to the compiled arbitration, and what came of them.

rig = FeedRig()
rig.offer(packet, line=1)
rig.pass_time(2_000_000)
rig.word(memory.APPLIED), rig.ticks()
"""

from __future__ import annotations

import functools
import socket
import struct

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import moldudp64
from penstock.v1.records import TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE, Clock
from penstock_daemon.arena import Arena
from penstock_daemon.engine_memory import CURSOR_WORDS, TICK_PUBLISHED, TICK_SLOT_DTYPE
from penstock_daemon.feed import memory
from penstock_daemon.feed.arbitration import take_packet, tend_gap
from penstock_daemon.feed.books import books_bytes, make_books
from penstock_daemon.feed.memory import Malformed, Payload
from penstock_daemon.feed.publish import Ring
from penstock_daemon.feed.window import Stamps

WINDOW = 1024
WAIT_NS = 1_000_000
ON_THE_WAY_NS = 300  # From the kernel's stamp of a packet until it is received.
UNIX_NS = 1_700_000_000 * 10**9  # When the rig's clock was 0.
SESSION = moldudp64.session_bytes("DAY1")
LINES = (memory.LINE_A, memory.LINE_B, memory.LINE_RECOVERY)


def record(number: int, instrument: int = 1) -> bytes:
    """Return a DBN message that its bid tells apart."""
    made = np.zeros(1, TICK_DTYPE)
    made["length"], made["rtype"], made["instrument_id"] = TICK_LENGTH_WORDS, TICK_RTYPE, instrument
    made["bid_px"], made["ask_px"], made["bid_sz"], made["ask_sz"] = number, number + 1, 1, 1
    return made.tobytes()


@functools.cache
def records(count: int) -> list[bytes]:
    """Return the messages of sequences 1 to *count*."""
    return [record(number) for number in range(1, count + 1)]


def packet(first: int, count: int = 1, session: bytes = SESSION) -> bytes:
    """Return a packet of the messages *first* to first + count - 1; of 0, a heartbeat."""
    return moldudp64.pack_packet(session, first, records(first + count)[first - 1 : first - 1 + count])


class FeedRig:
    """One feed's window, books and ring."""

    def __init__(
        self,
        payload: Payload = Payload.DBN,
        names: tuple[str, ...] = ("A",),
        ids: tuple[int, ...] = (1,),
        slots: int = 4096,
        window: int = WINDOW,
        tap_ticks: int = 0,
    ) -> None:
        count = len(names)
        self._arena = Arena(memory.feed_bytes(count, window, tap_ticks) + books_bytes(count, 4096, 128))
        self.feed = memory.make_feed_memory(self._arena.take, count, window, tap_ticks)
        self.books = make_books(self._arena.take, names, ids, orders_max=4096, levels_max=128)
        ticks = np.zeros((1, slots), TICK_SLOT_DTYPE)
        self.ring = Ring(np.zeros(CURSOR_WORDS, np.int64), ticks, ticks.view(np.int64).reshape(1, slots, -1))
        settings = self.feed.settings
        settings[memory.PAYLOAD] = payload
        settings[memory.DESCRIPTORS : memory.DESCRIPTORS + memory.LINES] = -1
        settings[memory.REORDER_WAIT_NS] = WAIT_NS
        settings[memory.RECOVERY_TIMEOUT_NS] = 20_000_000
        settings[memory.RECOVERY_ATTEMPTS] = 3
        self.now_ns = 1_000_000_000
        self.offered = 0
        self.server: socket.socket | None = None

    def offer(self, data: bytes, line: int = memory.LINE_A, *, after_ns: int = 1_000) -> None:
        """Let a packet come, after a time in which a gap may have run out."""
        self.pass_time(after_ns)
        self.offered += 1
        array = np.frombuffer(data or b"\0", np.uint8)
        first_ns = self.now_ns - ON_THE_WAY_NS
        stamps = Stamps(UNIX_NS + first_ns, int(Clock.KERNEL), first_ns, self.now_ns)
        take_packet(self.feed, self.books, self.ring, line, array.copy(), 0, len(data), stamps)

    def pass_time(self, duration_ns: int) -> None:
        """Let time go by, in steps in which a gap is tended as its thread would."""
        end_ns = self.now_ns + duration_ns
        while self.word(memory.GAP_SINCE_NS) and self.word(memory.DEADLINE_NS) <= end_ns:
            self.now_ns = max(self.now_ns, self.word(memory.DEADLINE_NS))
            tend_gap(self.feed, self.books, self.ring, self.now_ns)
        self.now_ns = end_ns

    def ask(self) -> None:
        """Let missing messages be asked for: ``request`` returns what was sent."""
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.server.settimeout(10)
        self._asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._asking.connect(self.server.getsockname())
        self.feed.settings[memory.DESCRIPTORS + memory.LINE_RECOVERY] = self._asking.fileno()

    def request(self) -> moldudp64.Header:
        """Return the next re-request."""
        assert self.server is not None
        return moldudp64.unpack_header(self.server.recv(100))

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self._asking.close()

    def word(self, index: int) -> int:
        return int(self.feed.words[index])

    def ticks(self) -> NDArray[np.void]:
        """Return the ticks published so far, as the ring holds them."""
        return self.ring.tick_slots[0, : self.ring.cursors[TICK_PUBLISHED]]

    def bids(self) -> list[int]:
        """Return which records were applied, in order."""
        return [int(one) for one in self.ticks()["bid_px"]]

    @property
    def malformed(self) -> int:
        return sum(self.word(memory.MALFORMED + reason) for reason in Malformed)

    def assert_accounted(self) -> None:
        """Check that every packet, message and gap is counted once, by what became of it."""
        word = self.word
        packets = sum(word(memory.PACKETS + line) for line in LINES)
        outcomes = (memory.DATA_PACKETS, memory.DUPLICATE_PACKETS, memory.HEARTBEATS, memory.ENDS)
        outcomes += (memory.OTHER_SESSION, memory.FAR_PACKETS)
        assert packets == self.offered == sum(word(one) for one in outcomes) + self.malformed
        kinds = (memory.APPLIED, memory.DUPLICATES, memory.FAR_MESSAGES, memory.DISCARDED, memory.HELD)
        assert word(memory.MESSAGES) == sum(word(one) for one in kinds)
        ends = (memory.GAPS_CLOSED, memory.GAPS_RECOVERED, memory.GAPS_UNRECOVERED)
        assert word(memory.GAPS) == sum(word(one) for one in ends) + (word(memory.GAP_SINCE_NS) != 0)
        assert word(memory.HELD) < len(self.feed.slots)
        assert word(memory.EXPECTED) <= word(memory.KNOWN_END) <= word(memory.EXPECTED) + len(self.feed.slots)
        refused = sum(word(memory.REFUSED + place) for place in range(memory.REFUSALS))
        assert word(memory.TICKS) + word(memory.RING_DROPS) + refused <= word(memory.APPLIED)
        assert word(memory.UNFLUSHED) == 0
        assert self.ring.cursors[TICK_PUBLISHED] == word(memory.TICKS) == word(memory.TICK_SEQUENCE)


def send_to(group: str, port: int) -> socket.socket:
    """Return a socket that sends to a multicast group over loopback."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex("lo"))
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
    made.connect((group, port))
    return made


def free_port(group: str) -> int:
    """Return a port of *group* that nobody listens at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind((group, 0))
        return int(trial.getsockname()[1])
