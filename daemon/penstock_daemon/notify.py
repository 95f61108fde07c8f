"""Telling systemd how the daemon is: ready, stopping, a line of status, alive.

One datagram per notice to the socket that NOTIFY_SOCKET names (``Type=notify``); without it, nothing happens. A notice
that can't be sent is a False and never an exception: a daemon does not stop because its supervisor does not listen.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final, Self

_SEND_S: Final = 1.0  # A supervisor that takes longer than that is not waited for.
_STATUS_CHARACTERS_MAX: Final = 400


class Notifier:
    """The way to the supervisor, or to nobody."""

    def __init__(self, address: str | None, watchdog_interval_s: float | None = None) -> None:
        """Notify *address*: a path, or "@name" for an abstract socket; None notifies nobody."""
        self._address = address
        self.watchdog_interval_s = watchdog_interval_s

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Return the way that systemd's variables describe.

        Attributes set:
            watchdog_interval_s: half of WATCHDOG_USEC, which is how often ``watchdog`` is to be called; None where
                the unit has no WatchdogSec, or has it for another process.
        """
        interval_s = None
        microseconds = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if for_us and microseconds.isascii() and microseconds.isdigit() and 0 < len(microseconds) <= 18:
            interval_s = int(microseconds) / 2e6 or None
        return cls(environ.get("NOTIFY_SOCKET") or None, interval_s)

    def ready(self, status: str = "") -> bool:
        """Say that the daemon serves."""
        return self._send("READY=1", f"MAINPID={os.getpid()}", *_status(status))

    def stopping(self, status: str = "") -> bool:
        """Say that the daemon is on its way out."""
        return self._send("STOPPING=1", *_status(status))

    def status(self, status: str) -> bool:
        """Say how the daemon is, in one line for ``systemctl status``."""
        return self._send(*_status(status))

    def watchdog(self) -> bool:
        """Say that the daemon is alive."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for more time to start or stop."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *assignments: str) -> bool:
        if self._address is None or not assignments:
            return False
        where = os.fsencode(self._address)
        if where[:1] == b"@":
            where = b"\0" + where[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.settimeout(_SEND_S)
                way.sendto("\n".join(assignments).encode("utf-8", "replace"), where)
        except (OSError, ValueError):  # ValueError: a zero byte or a path that is too long.
            return False
        return True


def _status(status: str) -> tuple[str, ...]:
    line = " ".join(status.split())[:_STATUS_CHARACTERS_MAX]
    return (f"STATUS={line}",) if line else ()
