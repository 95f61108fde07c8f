"""Whose stamp a packet gets: the network card's where its clock is known, the kernel's, or the daemon's own."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from numba import njit

from penstock.v1.records import Clock
from penstock_daemon.clocks.seam import Base, Offset
from penstock_daemon.feed import memory
from penstock_daemon.feed.card_clocks import ERROR_MAX_NS, tell_card_clocks
from penstock_daemon.feed.memory import LINE_A, LINE_B, FeedMemory
from penstock_daemon.feed.stamps import (
    HARDWARE_LEAD_NS,
    HEADER_CONTROL_LENGTH,
    SO_RXQ_OVFL,
    SO_TIMESTAMPING,
    SOL_SOCKET,
    stamps_of,
)

OFFSET_NS = 1_700_000_000_000_000_000  # Unix less monotonic.
RECEIVED_NS = 5_000_000_000
FIRST_NS = RECEIVED_NS - 2_000
KERNEL_NS = OFFSET_NS + FIRST_NS
CARD_ERROR_NS = 900
CARDS = [OFFSET_NS, OFFSET_NS + 37_000_000_000, -RECEIVED_NS // 2, 12_345]  # Unix, TAI, and two that run by themselves.


@njit(cache=True)
def read(f: Any, line: int, received_ns: int, unix_offset_ns: int) -> Any:
    return stamps_of(f, 0, line, received_ns, unix_offset_ns)


class Socket:
    """The control data of one packet, as recvmsg fills it, and what the feed makes of it."""

    def __init__(self) -> None:
        taken = {
            "words": np.zeros(memory.FEED_WORDS, np.int64),
            "controls": np.zeros((memory.BATCH_MAX, memory.CONTROL_WORDS), np.int64),
            "headers": np.zeros((memory.BATCH_MAX, memory.HEADER_WORDS), np.int64),
        }
        made = memory.make_feed_memory(lambda _, shape, kind, **__: np.zeros(shape, kind), 1, 1024)
        self.feed: FeedMemory = made._replace(**taken)
        self.words = self.feed.words

    def know(self, offset_ns: int, error_ns: int = CARD_ERROR_NS, line: int = LINE_A) -> None:
        cards = ["" if one != line else "/dev/ptp0" for one in range(memory.LINES)]
        tell_card_clocks(self.words, cards, lambda _: Offset(Base.PTP, Base.MONOTONIC, offset_ns, error_ns, 0))

    def stamp(self, *controls: bytes, line: int = LINE_A) -> Any:
        data = b"".join(controls)
        self.feed.headers[0, HEADER_CONTROL_LENGTH] = len(data)
        self.feed.controls[0] = np.frombuffer(data.ljust(memory.CONTROL_WORDS * 8, b"\xee"), np.int64)
        return read(self.feed, line, RECEIVED_NS, OFFSET_NS)


def control(kind: int, data: bytes) -> bytes:
    """Return a struct cmsghdr with its data, padded as the kernel pads it."""
    whole = struct.pack("=Qii", 16 + len(data), SOL_SOCKET, kind) + data
    return whole.ljust((len(whole) + 7) // 8 * 8, b"\0")


def timestamping(kernel_ns: int = KERNEL_NS, nic_ns: int = 0) -> bytes:
    times = (kernel_ns // 10**9, kernel_ns % 10**9, 0, 0, nic_ns // 10**9, nic_ns % 10**9)
    return control(SO_TIMESTAMPING, struct.pack("=6q", *times))


@pytest.fixture
def socket() -> Socket:
    return Socket()


def test_the_kernels_stamp_is_the_first_where_no_card_gives_one(socket):
    assert socket.stamp(timestamping()) == (KERNEL_NS, Clock.KERNEL, FIRST_NS, RECEIVED_NS)
    assert (socket.words[memory.KERNEL_TO_USER_NS], socket.words[memory.KERNEL_TO_USER_MAX_NS]) == (2_000, 2_000)


@pytest.mark.parametrize("card_ns", CARDS)
@pytest.mark.parametrize("lead_ns", [0, 700, HARDWARE_LEAD_NS, HARDWARE_LEAD_NS + CARD_ERROR_NS])
def test_a_cards_stamp_is_mapped_by_what_is_known_of_its_clock(socket, card_ns, lead_ns):
    socket.know(card_ns)
    first_ns = FIRST_NS - lead_ns
    stamps = socket.stamp(timestamping(nic_ns=first_ns + card_ns))
    assert stamps == (OFFSET_NS + first_ns, Clock.NIC_HARDWARE, first_ns, RECEIVED_NS)
    assert (socket.words[memory.HARDWARE_STAMPS], socket.words[memory.HARDWARE_DOUBTED]) == (1, 0)


def test_a_cards_stamp_is_never_later_than_the_kernels(socket):
    socket.know(CARDS[1])
    stamps = socket.stamp(timestamping(nic_ns=FIRST_NS + CARD_ERROR_NS + CARDS[1]))
    assert stamps == (KERNEL_NS, Clock.NIC_HARDWARE, FIRST_NS, RECEIVED_NS)


@pytest.mark.parametrize("lead_ns", [-CARD_ERROR_NS - 1, HARDWARE_LEAD_NS + CARD_ERROR_NS + 1, -37_000_000_000])
def test_a_cards_stamp_that_contradicts_the_kernels_is_doubted(socket, lead_ns):
    socket.know(CARDS[1])
    stamps = socket.stamp(timestamping(nic_ns=FIRST_NS - lead_ns + CARDS[1]))
    assert stamps == (KERNEL_NS, Clock.KERNEL, FIRST_NS, RECEIVED_NS)
    assert (socket.words[memory.HARDWARE_STAMPS], socket.words[memory.HARDWARE_DOUBTED]) == (0, 1)


@pytest.mark.parametrize("error_ns", [None, ERROR_MAX_NS + 1])
def test_a_card_that_nobody_compares_or_not_well_enough_is_not_believed(socket, error_ns):
    socket.know(OFFSET_NS)
    if error_ns is None:
        tell_card_clocks(socket.words, ["/dev/ptp0", "", ""], lambda _: None)
    else:
        socket.know(OFFSET_NS, error_ns)
    stamps = socket.stamp(timestamping(nic_ns=KERNEL_NS - 700))
    assert stamps == (KERNEL_NS, Clock.KERNEL, FIRST_NS, RECEIVED_NS)
    assert socket.words[memory.HARDWARE_DOUBTED] == 1


def test_each_line_has_the_clock_of_its_own_card(socket):
    socket.know(OFFSET_NS, line=LINE_B)
    assert socket.stamp(timestamping(nic_ns=KERNEL_NS), line=LINE_A)[1] == Clock.KERNEL
    assert socket.stamp(timestamping(nic_ns=KERNEL_NS), line=LINE_B)[1] == Clock.NIC_HARDWARE


@pytest.mark.parametrize("controls", [[], [control(99, b"\1" * 48)], [timestamping()[:-8]]])
def test_without_a_stamp_the_daemons_own_time_is_the_first(socket, controls):
    assert socket.stamp(*controls) == (0, Clock.USER, RECEIVED_NS, RECEIVED_NS)
    assert (socket.words[memory.NO_STAMP], socket.words[memory.KERNEL_TO_USER_NS]) == (1, 0)


def test_a_step_of_the_wall_clock_is_counted_and_not_clipped(socket):
    stamps = socket.stamp(timestamping(KERNEL_NS + 10**9))
    assert stamps == (KERNEL_NS + 10**9, Clock.KERNEL, FIRST_NS + 10**9, RECEIVED_NS)
    assert socket.words[memory.NEGATIVE] == 1
    assert socket.words[memory.KERNEL_TO_USER_MAX_NS] == 0
    assert socket.words[memory.KERNEL_TO_USER_NS] == 0, "a sum that only grows"


def test_drops_that_the_socket_tells_of_are_added_up_past_the_end_of_its_32_bits(socket):
    for told in (0, 7, 7, 2**32 - 1, 3):
        stamps = socket.stamp(control(SO_RXQ_OVFL, struct.pack("=I", told)), timestamping(), line=LINE_B)
        assert stamps[1] == Clock.KERNEL
    assert socket.words[memory.SOCKET_DROPS + LINE_B] == 2**32 + 3
    assert socket.words[memory.SOCKET_DROPS + LINE_A] == 0
