"""A card's clock: how its answers are laid out, which sample counts, and what is said where there is none."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_daemon.clocks import ptp
from penstock_daemon.clocks.ptp import PtpClock
from penstock_daemon.clocks.seam import Base, ClockError

# Two samples of a struct ptp_sys_offset_extended, byte for byte as a little-endian kernel fills it: the system's clock at
# 1,700,000,000.000001000 s, the card's 37 s ahead and 1,500 ns later, the system's 1,200 ns after the first; then a wide one.
EXTENDED = bytes.fromhex(
    "02000000 000000000000000000000000"
    "00f1536500000000 e8030000 00000000  25f1536500000000 c4090000 00000000  00f1536500000000 98080000 00000000"
    "01f1536500000000 00000000 00000000  26f1536500000000 10270000 00000000  01f1536500000000 a0860100 00000000"
)
SECOND = 1_000_000_000


def filled(answer: bytes) -> Callable[[bytearray], None]:
    def fill(buffer: bytearray) -> None:
        buffer[: len(answer)] = answer

    return fill


class Kernel:
    """Answers ioctls as a driver would; what it has no answer for it refuses."""

    def __init__(self, **answers: Callable[[bytearray], None] | int) -> None:
        self._answers = {getattr(ptp, name): answer for name, answer in answers.items()}
        self._answers.setdefault(ptp.PTP_CLOCK_GETCAPS, filled(b""))
        self.asked: list[int] = []

    def __call__(self, descriptor: int, request: int, buffer: bytearray) -> int:
        os.fstat(descriptor)
        assert len(buffer) == request >> 16 & 0x3FFF, "the request says how large its argument is"
        self.asked.append(request)
        answer = self._answers.get(request, errno.EOPNOTSUPP)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        answer(buffer)
        return 0


@pytest.fixture
def device(tmp_path: Path) -> str:
    """A file that can be opened in the place of a clock."""
    path = tmp_path / "ptp0"
    path.touch()
    return str(path)


def test_requests_are_those_of_the_kernel_s_header():
    assert ptp.PTP_CLOCK_GETCAPS == 0x80503D01
    assert ptp.PTP_SYS_OFFSET == 0x43403D05
    assert ptp.PTP_SYS_OFFSET_PRECISE == 0xC0403D08
    assert ptp.PTP_SYS_OFFSET_EXTENDED == 0xC4C03D09


def test_extended_answer_gives_the_narrowest_sample():
    triples = ptp.unpack_extended(EXTENDED.ljust(ptp.EXTENDED_BYTES, b"\0"))
    base_ns = 0x6553F100 * SECOND
    assert triples[0] == (base_ns + 1_000, base_ns + 37 * SECOND + 2_500, base_ns + 2_200)
    assert len(triples) == 2
    assert ptp.narrowest(triples) == (37 * SECOND + 900, 600)


def test_offset_is_taken_the_first_way_that_the_driver_knows(device: str):
    kernel = Kernel(PTP_SYS_OFFSET_EXTENDED=filled(EXTENDED))
    clock = PtpClock(device, kernel)
    offset = clock.offset()
    assert (offset.of, offset.against, offset.offset_ns, offset.error_ns) == (
        Base.PTP, Base.REALTIME, 37 * SECOND + 900, 601,
    )  # fmt: skip
    assert clock.way == "extended"
    assert kernel.asked[-1] == ptp.PTP_SYS_OFFSET_EXTENDED
    clock.close()
    clock.close()


def test_precise_and_plain_are_taken_where_the_driver_knows_no_better(device: str):
    stamps = [(37, 500), (0, 500), (9, 9)]
    precise = b"".join(s.to_bytes(8, "little") + n.to_bytes(4, "little") + bytes(4) for s, n in stamps)
    clock = PtpClock(device, Kernel(PTP_SYS_OFFSET_PRECISE=filled(precise)))
    assert (clock.offset().offset_ns, clock.offset().error_ns, clock.way) == (37 * SECOND, 1, "precise")
    clock.close()
    times = [(1, 0), (38, 700), (1, 1_000), (38, 1_100), (1, 1_100)]
    plain = (2).to_bytes(4, "little") + bytes(12)
    plain += b"".join(s.to_bytes(8, "little") + n.to_bytes(4, "little") + bytes(4) for s, n in times)
    clock = PtpClock(device, Kernel(PTP_SYS_OFFSET=filled(plain)))
    offset = clock.offset()
    assert (offset.offset_ns, offset.error_ns, clock.way) == (37 * SECOND + 50, 51, "plain")
    clock.close()


def test_driver_that_compares_nothing_is_told_of_with_every_reason(device: str):
    clock = PtpClock(device, Kernel())
    with pytest.raises(ClockError, match=r"does not compare .*extended: .*; precise: .*; plain: "):
        clock.offset()
    clock.close()


def test_dead_card_is_asked_in_one_way_alone(device: str):
    kernel = Kernel(PTP_SYS_OFFSET_EXTENDED=errno.EIO)
    clock = PtpClock(device, kernel)
    with pytest.raises(ClockError, match=r"\(extended: Input/output error\)"):
        clock.offset()
    assert kernel.asked[1:] == [ptp.PTP_SYS_OFFSET_EXTENDED]
    clock.close()


@pytest.mark.parametrize("count", [0, 26, 2**32 - 1])
def test_answer_with_an_impossible_count_is_refused(device: str, count: int):
    clock = PtpClock(device, Kernel(PTP_SYS_OFFSET_EXTENDED=filled(count.to_bytes(4, "little"))))
    with pytest.raises(ClockError, match=f"the driver returned {count} samples"):
        clock.offset()
    clock.close()


def test_samples_in_which_the_wall_clock_ran_backwards_count_for_nothing():
    assert ptp.narrowest([(1_000, 500, 990), (0, 500, 3_000)]) == (-1_000, 1_500)
    with pytest.raises(ClockError, match="ran backwards"):
        ptp.narrowest([(1_000, 500, 990)])


def test_absent_clock_is_refused_with_what_to_do(tmp_path: Path):
    with pytest.raises(
        ClockError, match=r"ptp7: there is no such clock; name one of /dev/ptp\*, or do without: clock.ptp"
    ):
        PtpClock(str(tmp_path / "ptp7"))


def test_file_that_is_no_clock_is_refused_by_the_real_kernel(device: str):
    with pytest.raises(ClockError, match="is no PTP clock"):
        PtpClock(device)
    with pytest.raises(ClockError, match="is no PTP clock"):
        PtpClock("/dev/null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_clock_that_this_user_may_not_read_is_refused(device: str):
    Path(device).chmod(0)
    with pytest.raises(ClockError, match="this user may not read it"):
        PtpClock(device)


def test_refusal_of_a_right_says_so():
    assert "a udev rule" in ptp._refused("/dev/ptp0", PermissionError(errno.EACCES, "Permission denied"))


def test_clock_of_an_interface_is_found_through_sys(tmp_path: Path):
    for interface, clock in (("eth0", "ptp1"), ("eth1", "ptp1"), ("eth2", "ptp0")):
        (tmp_path / "sys/class/net" / interface / "device/ptp" / clock).mkdir(parents=True)
    (tmp_path / "sys/class/net/lo").mkdir()
    assert ptp.clock_of_interface("eth0", tmp_path, told=lambda _: -1) == "/dev/ptp1"
    assert ptp.clock_of_interface("lo", tmp_path, told=lambda _: -1) == ""
    assert ptp.clock_of_interface("eth0", tmp_path, told=lambda _: 7) == "/dev/ptp7", "what the driver says goes first"
    assert ptp.interfaces_of_clock("/dev/ptp1", tmp_path) == ["eth0", "eth1"]
    assert ptp.first_clock(tmp_path) == "/dev/ptp0"
    assert ptp.first_clock(tmp_path / "nowhere") == ""


def test_a_driver_is_asked_which_clock_stamps_its_packets():
    asked = []

    def driver(descriptor: int, request: int, wish: bytes) -> int:
        os.fstat(descriptor)
        name, address = struct.unpack("=16sQ16x", wish)
        asked.append((request, name.rstrip(b"\0"), ctypes.string_at(address, 4)))
        # struct ethtool_ts_info: the command, what sockets may ask for, the clock, then what is sent and received.
        answer = struct.pack("=IIi", 0x41, 0x5F, 3) + bytes(32)
        ctypes.memmove(address, answer, len(answer))
        return 0

    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    assert ptp.told_index("eth1.100", driver) == 3
    assert asked == [(0x8946, b"eth1.100", bytes.fromhex("41000000"))]
    assert ptp.told_index("eth1.100", refuse) == -1
    assert ptp.told_index("lo") == -1, "the real kernel, which knows that loopback has no clock"
    assert ptp.told_index("no such one") == -1
