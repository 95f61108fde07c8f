"""The sockets of a feed: one that has joined a multicast group per line, and one to the server that has what was missed.

    a line      bound to its group and port, so that nothing else reaches it; joined on one interface
    recovery    connected, so that nobody but the server is heard

Every option that the kernel can refuse is asked for, and what was got is told: a feed with a small buffer or without
the network card's stamps works, and its log says what it lacks and the mend.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from fcntl import ioctl
from typing import Final

from penstock_daemon.addresses import TcpAddress, parse_address
from penstock_daemon.clocks.ptp import clock_of_interface
from penstock_daemon.config_feed import FeedStamps, parse_group
from penstock_daemon.derived import StartError
from penstock_daemon.feed.membership import Membership
from penstock_daemon.feed.stamps import SO_RXQ_OVFL, SO_TIMESTAMPING

_SO_RCVBUFFORCE: Final = 33
_SO_BUSY_POLL: Final = 46
_IP_MULTICAST_ALL: Final = 49
_RX_HARDWARE: Final = 4
_RX_SOFTWARE: Final = 8
_SOFTWARE: Final = 16
_RAW_HARDWARE: Final = 64
_SIOCSHWTSTAMP: Final = 0x89B0
_SIOCGHWTSTAMP: Final = 0x89B1
_HWTSTAMP: Final = struct.Struct("=iii")  # Flags, what is stamped when sent, when received.
_SIOCGIFADDR: Final = 0x8915
_HWTSTAMP_FILTER_ALL: Final = 1
_INTERFACE_NAME_BYTES: Final = 15


class FeedError(StartError):
    """The feed can't be had; the sentence says what to mend."""


@dataclass(frozen=True)
class Line:
    """An open socket of the feed.

    Attributes:
        socket: non-blocking.
        what: for people, such as "feed.group 239.1.2.3:26400 on lo".
        buffer_bytes: that the kernel gave, as it counts them: twice what packets may take.
        hardware: whether the network card stamps packets.
        notes: sentences about what is missing, each with its mend.
        card: the clock of the network card that stamps, such as /dev/ptp0; "" where none does, or it is not known.
        membership: of a line; None for the recovery server.
    """

    socket: socket.socket
    what: str
    buffer_bytes: int
    hardware: bool
    notes: tuple[str, ...]
    card: str = ""
    membership: Membership | None = None


@dataclass(frozen=True)
class SocketWishes:
    """What every line is to have; units in the names."""

    receive_buffer_kb: int
    busy_poll_us: int
    stamps: FeedStamps


def open_line(key: str, group: str, interface_key: str, interface: str, wishes: SocketWishes) -> Line:
    """Open a line: join *group* on *interface* and ask for stamps.

    Args:
        key, interface_key: of the configuration, for the sentences.
        group: such as "239.1.2.3:26400".
        interface: a name, an address, or "" for the one that routes choose.
        wishes: for its socket.

    Raises:
        FeedError: it can't be joined, or has no stamps that must be had.
    """
    address, port = parse_group(group)
    what = f"{key} {group}" + (f" on {interface}" if interface else "")
    index, local = _interface(interface_key, interface)
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)  # Groups that other sockets joined are not ours.
        notes: list[str] = []
        buffer_bytes = _size_buffer(made, wishes.receive_buffer_kb, notes)
        hardware = _ask_for_stamps(made, index, wishes.stamps, notes)
        made.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        if wishes.busy_poll_us:
            _busy_poll(made, wishes.busy_poll_us, notes)
        made.bind((str(address), port))
        name = socket.if_indextoname(index) if index else ""
        membership = Membership(address.packed, local.packed, name, index)
        membership.join(made)
    except OSError as error:
        made.close()
        mend = "name an interface that is up and has an IPv4 address" + (
            ", or a route for multicast" if error.errno == errno.ENODEV else ""
        )
        raise FeedError(f"{what} can't be joined ({error.strerror}); set {interface_key}: {mend}") from error
    except FeedError:
        made.close()
        raise
    card = clock_of_interface(name) if hardware else ""
    return Line(made, what, buffer_bytes, hardware, tuple(f"{what}: {note}" for note in notes), card, membership)


def open_recovery(recovery: str, wishes: SocketWishes) -> Line:
    """Open the socket that asks the server *recovery*, "HOST:PORT", for what is missing.

    Raises:
        FeedError: the host is not known, or can't be reached.
    """
    address = parse_address(recovery)
    assert isinstance(address, TcpAddress), "the configuration allows HOST:PORT alone"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise FeedError(f"feed.recovery: {recovery} is no server that can be found ({error.strerror})") from error
    try:
        notes: list[str] = []
        buffer_bytes = _size_buffer(made, wishes.receive_buffer_kb, notes)
        _ask_for_stamps(made, 0, "off" if wishes.stamps == "off" else "kernel", notes)
        made.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        made.connect(place)
    except OSError as error:
        made.close()
        raise FeedError(
            f"feed.recovery: {recovery} can't be reached ({error.strerror}); name a server with a route"
        ) from error
    what = f"feed.recovery {recovery}"
    return Line(made, what, buffer_bytes, hardware=False, notes=tuple(f"{what}: {note}" for note in notes))


def _interface(key: str, name: str) -> tuple[int, ipaddress.IPv4Address]:
    """Return index and address of an interface by either; 0 and 0.0.0.0 leave the choice to the routes."""
    nowhere = ipaddress.IPv4Address(0)
    if not name:
        return 0, nowhere
    try:
        local = ipaddress.IPv4Address(name)
    except ValueError:
        if len(os.fsencode(name)) <= _INTERFACE_NAME_BYTES:
            try:
                return socket.if_nametoindex(name), nowhere
            except OSError:
                pass
    else:
        for index, one in socket.if_nameindex():
            if _address_of(one) == local:
                return index, local
    known = ", ".join(one for _, one in socket.if_nameindex())
    raise FeedError(f"{key}: {name!r} is no interface of this host; it has {known}")


def _address_of(name: str) -> ipaddress.IPv4Address | None:
    """Return the first IPv4 address of an interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = ioctl(asking, _SIOCGIFADDR, struct.pack("=16s24x", os.fsencode(name)))
        except OSError:
            return None
    return ipaddress.IPv4Address(answer[20:24])


def _size_buffer(made: socket.socket, wanted_kb: int, notes: list[str]) -> int:
    """Make the receive buffer as large as wanted, by force where that is allowed. Returns what the kernel gave."""
    wanted = wanted_kb * 1024
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except PermissionError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    given = made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)  # The kernel doubles what it is asked for.
    if given < 2 * wanted:
        notes.append(
            f"the receive buffer has {given // 2048} KiB of {wanted_kb}; raise net.core.rmem_max to {wanted}, "
            "or give the daemon CAP_NET_ADMIN"
        )
    return given


def _ask_for_stamps(made: socket.socket, index: int, stamps: FeedStamps, notes: list[str]) -> bool:
    """Ask for stamps of packets. Returns whether the network card gives them.

    Raises:
        FeedError: it must, and can't.
    """
    if stamps == "off":
        return False
    flags = _RX_SOFTWARE | _SOFTWARE
    lack = "" if stamps == "kernel" else _stamp_in_hardware(made, index)
    hardware = stamps != "kernel" and not lack
    if hardware:
        flags |= _RX_HARDWARE | _RAW_HARDWARE
    elif stamps == "hardware":
        raise FeedError(f"feed.stamps: no stamps of the network card: {lack}; or use feed.stamps = kernel")
    elif lack:
        notes.append(f"stamps are the kernel's: {lack}")
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)
    return hardware


def _stamp_in_hardware(made: socket.socket, index: int) -> str:
    """Have the interface stamp all packets it receives (SIOCSHWTSTAMP). Returns what stands in the way, or nothing."""
    if index == 0:
        return "no interface is named; set feed.interface"
    name = socket.if_indextoname(index)
    wish = ctypes.create_string_buffer(12)  # struct hwtstamp_config
    request = struct.pack("=16sQ16x", os.fsencode(name), ctypes.addressof(wish))
    sending = 0
    with contextlib.suppress(OSError):  # Not every driver tells how it is set.
        ioctl(made, _SIOCGHWTSTAMP, request)
        _, sending, receiving = _HWTSTAMP.unpack(wish.raw)
        if receiving == _HWTSTAMP_FILTER_ALL:
            return ""
    wish.raw = _HWTSTAMP.pack(0, sending, _HWTSTAMP_FILTER_ALL)  # What is sent stays as a PTP daemon has set it.
    try:
        ioctl(made, _SIOCSHWTSTAMP, request)
    except PermissionError:
        return f"{name} may not be told to stamp packets; give the daemon CAP_NET_ADMIN"
    except OSError as error:
        return f"{name} can't stamp packets ({error.strerror}); use a network card with a PTP clock"
    return ""


def _busy_poll(made: socket.socket, microseconds: int, notes: list[str]) -> None:
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_BUSY_POLL, microseconds)
    except OSError as error:
        notes.append(
            f"no busy polling ({error.strerror}); give the daemon CAP_NET_ADMIN, or set feed.busy_poll_us to 0"
        )
