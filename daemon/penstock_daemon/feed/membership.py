"""The membership of a socket in its group, which the kernel forgets with the interface that it was on.

An interface that goes down and up again keeps it. One that is taken away and comes back under its name (a cable of a
container, a VLAN, a driver loaded anew) has another index, and nobody has joined there: then it is joined again.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

_SIOCGIFINDEX: Final = 0x8933


@dataclass
class Membership:
    """One group on one interface.

    Attributes:
        group, local: packed addresses; local is 0.0.0.0 where the interface has a name.
        interface: its name; "" where the routes chose it, and nothing is renewed.
        index: of the interface that was joined on.
    """

    group: bytes
    local: bytes
    interface: str
    index: int

    def join(self, made: socket.socket) -> None:
        """Join. Raises OSError where the kernel refuses it."""
        there = struct.pack("=4s4si", self.group, self.local, self.index)  # struct ip_mreqn
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, there)

    def renew(self, made: socket.socket) -> bool:
        """Join again where the interface is another one than before; microseconds. Returns whether it did."""
        if not self.interface:
            return False
        try:
            answer = fcntl.ioctl(made, _SIOCGIFINDEX, struct.pack("=16s24x", os.fsencode(self.interface)))
            (index,) = struct.unpack_from("=i", answer, 16)
            if index == self.index:
                return False
            Membership(self.group, bytes(4), self.interface, index).join(made)
        except OSError:
            return False  # It is not there, or has no address yet: the next look tries again.
        self.index = index
        return True
