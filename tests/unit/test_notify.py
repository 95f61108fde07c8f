"""What systemd is told, through real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penstock_daemon.notify import Notifier


@contextmanager
def supervisor(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(5)
        yield listener


@pytest.fixture(params=["path", "abstract"])
def name(request, tmp_path):
    return str(tmp_path / "notify") if request.param == "path" else f"@penstock-test-{os.getpid()}"


def test_each_notice_is_one_datagram(name):
    with supervisor(name) as listener:
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": name})
        assert notifier.ready("serving on\nunix:/x")
        assert listener.recv(4096).decode() == f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serving on unix:/x"
        assert notifier.status("3 sessions")
        assert listener.recv(4096) == b"STATUS=3 sessions"
        assert notifier.watchdog()
        assert listener.recv(4096) == b"WATCHDOG=1"
        assert notifier.extend_timeout(2.5)
        assert listener.recv(4096) == b"EXTEND_TIMEOUT_USEC=2500000"
        assert notifier.stopping()
        assert listener.recv(4096) == b"STOPPING=1"


def test_nobody_to_notify_is_no_fault():
    notifier = Notifier.from_environ({})
    assert not notifier.ready()
    assert not notifier.watchdog()


@pytest.mark.parametrize("where", ["/missing/notify", "@" + "x" * 200, "/" + "x" * 200, "a\0b", "vsock:2:1234"])
def test_supervisor_that_is_not_there_is_no_fault(where):
    assert not Notifier(where).ready("serving")


def test_supervisor_that_does_not_read_is_given_up_on(name):
    with supervisor(name) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        notifier = Notifier(name)
        assert notifier.watchdog()
        while notifier.watchdog():  # Until its queue is full; then a notice is False, after a second.
            pass


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_due_twice_in_its_time(environ, interval_s):
    assert Notifier.from_environ(environ).watchdog_interval_s == interval_s
