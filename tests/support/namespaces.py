"""Two network namespaces with a cable between them, where this user may make them.

with two_hosts() as (here, there):
    line = here.call(lambda: open_line(...))       a socket belongs to the namespace in which it was made
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_CLONE_NEWNET = 0x40000000
_PATIENCE_S = 60.0


class NoNamespacesError(Exception):
    """They can't be made here, and why."""


@dataclass(frozen=True)
class Host:
    """A namespace: that of a process which sleeps in it."""

    pid: int
    address: str

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what *function* returns, run by a thread in the namespace."""
        found: list[Any] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                assert libc.setns(descriptor, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            finally:
                os.close(descriptor)
            found.append(function())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(_PATIENCE_S)
        return found[0]


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two namespaces, 10.77.0.1 and 10.77.0.2, each with an interface named cable."""
    if not all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip")):
        raise NoNamespacesError("unshare, nsenter and ip are not all installed")
    sleepers = []
    try:
        for _ in range(2):
            command = ["unshare", "-n", "sh", "-c", "echo made; exec sleep 120"]
            sleeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            sleepers.append(sleeper)
            assert sleeper.stdout is not None
            if sleeper.stdout.readline() != "made\n":
                raise NoNamespacesError(f"network namespaces can't be made: {sleeper.communicate()[1].strip()}")
        hosts = [Host(sleeper.pid, f"10.77.0.{place}") for place, sleeper in enumerate(sleepers, start=1)]
        lay_cable(hosts[0], hosts[1])
        yield hosts[0], hosts[1]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.communicate()


def lay_cable(here: Host, there: Host) -> None:
    """Put a cable between two namespaces, with their addresses."""
    _in(here, f"ip link add cable type veth peer name cable netns {there.pid}")
    for host in (here, there):
        _in(host, f"ip address add {host.address}/24 dev cable")
        _in(host, "ip link set cable up")


def cut_cable(here: Host) -> None:
    """Take the cable away, both ends of it."""
    _in(here, "ip link delete cable")


def _in(host: Host, command: str) -> None:
    done = subprocess.run(
        ["nsenter", "-t", str(host.pid), "-n", *command.split()], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoNamespacesError(f"{command}: {done.stderr.strip()}")
