"""Where a feed goes: multicast groups, the interface, and the sockets that send there.

A group is an IPv4 multicast address and a port. The interface is named, since the route of a multicast address is
nobody's to guess: ``lo`` keeps a feed on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from penstock_client.errors import LocalUsageError

SEND_BUFFER_BYTES: Final = 4 * 2**20  # Asked for; the kernel gives what it allows.
_SIOCGIFADDR: Final = 0x8915
_EXAMPLE: Final = "write it as 239.1.2.3:26400"


@dataclass(frozen=True, slots=True)
class Group:
    """A multicast address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written on the command line."""
        return f"{self.host}:{self.port}"


def parse_group(flag: str, text: str) -> Group:
    """Return the group that *text* names.

    Args:
        flag: that it was given by, for the sentence.
        text: "239.1.2.3:26400".

    Raises:
        LocalUsageError: it is none.
    """
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        address = None
    if address is None or not (port.isascii() and port.isdigit()):
        raise LocalUsageError(f"{flag} must be an IPv4 multicast address and a port: was {text!r}; {_EXAMPLE}")
    if not address.is_multicast:
        raise LocalUsageError(f"{flag} must be in 224.0.0.0 to 239.255.255.255: was {text!r}; {_EXAMPLE}")
    if not 1 <= int(port) <= 65535:
        raise LocalUsageError(f"{flag} must have a port in 1 to 65535: was {text!r}; {_EXAMPLE}")
    return Group(str(address), int(port))


def interface_address(interface: str) -> str:
    """Return the IPv4 address of *interface*.

    Raises:
        LocalUsageError: there is no such interface, or it has none.
    """
    try:
        _index(interface)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except OSError as error:
        raise LocalUsageError(
            f"--interface must have an IPv4 address: was {interface!r} ({error.strerror}); take another one, or give it one"
        ) from error
    return socket.inet_ntoa(answer[20:24])


def open_sender(group: Group, interface: str, *, ttl: int, loopback: bool) -> socket.socket:
    """Return a socket that sends to *group* out of *interface*.

    Args:
        group: where to.
        interface: its name, such as "lo" or "eth0".
        ttl: how many routers a packet may pass, plus one; 0 keeps it on this machine.
        loopback: whether this machine's own listeners hear it too.

    Raises:
        LocalUsageError: the interface is not there or can't send there.
    """
    index = _index(interface)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loopback))
        with contextlib.suppress(OSError):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sender.connect((group.host, group.port))
    except OSError as error:
        sender.close()
        raise LocalUsageError(
            f"--interface {interface} can't send to {group} ({error.strerror}); is it up, and allowed to this process?"
        ) from error
    return sender


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        there = ", ".join(name for _, name in socket.if_nameindex())
        raise LocalUsageError(
            f"--interface must be one of this machine's: was {interface!r}; take from {there}"
        ) from error
