"""The parts of shared memory that a daemon has, in the order in which it needs them.

guard -> make (the engine is there) -> listen (the gRPC server is) ... close -> release (the engine is gone)
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, Self

import structlog

from penstock_daemon.addresses import UnixAddress
from penstock_daemon.config import Config
from penstock_daemon.derived import attach_address
from penstock_daemon.engine import Engine
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.session_table import SessionTable
from penstock_daemon.shared_memory.attach_server import AttachServer, group_id
from penstock_daemon.shared_memory.attachments import Attachments
from penstock_daemon.socket_guard import AddressGuard, guard_address

_OVERCOMMIT: Final = Path("/proc/sys/vm/overcommit_memory")
_STRICT: Final = "2"

_log = structlog.get_logger("penstock.daemon")


class SharedMemory:
    """The attach socket of one daemon, and the segments behind it."""

    def __init__(self, config: Config, address: UnixAddress, group: int | None, guard: AddressGuard) -> None:
        """Hold the right to listen at *address*; use ``guard``."""
        self._config = config
        self.address = address
        self.group = group
        self._guard = guard
        self.attachments: Attachments | None = None
        self.server: AttachServer | None = None

    @classmethod
    def guard(cls, config: Config) -> Self | None:
        """Take the right to listen where strategies attach; None where the configuration lets none.

        Raises:
            ListenError: the address or the group can't be used.
        """
        address = attach_address(config)
        if address is None:
            return None
        group = group_id(config.shared_memory.group)
        if group is not None:
            _warn_of_holes(config.shared_memory.group)
        return cls(config, address, group, guard_address(address, key="shared_memory.address"))

    def make(self, engine: Engine, link: LoopLink, sessions: SessionTable) -> Attachments:
        """Return what hands segments out to *sessions*."""
        shared = self._config.shared_memory
        self.attachments = Attachments(
            engine,
            link,
            address=str(self.address.path.absolute()),
            slots=shared.slots,
            timeout_s=shared.attach_timeout_s,
            lock=self._config.memory.lock != "off",
            counts=sessions.counts,
        )
        self.server = AttachServer(
            self.attachments, timeout_s=shared.attach_timeout_s, group=self.group, count_refusal=sessions.count_refusal
        )
        return self.attachments

    def listen(self) -> None:
        """Let strategies attach.

        Raises:
            ListenError: the address can't be had.
        """
        assert self.server is not None, "made before it listens"
        self.server.listen(self.address, self._guard)

    async def close(self) -> None:
        """Let nobody attach any more."""
        if self.server is not None:
            await self.server.close()

    def release(self) -> None:
        """Give the address back."""
        self._guard.release()


def _warn_of_holes(group: str) -> None:
    """Say what the members of *group* can do on a host that counts its memory strictly; see ``segment.py``."""
    with contextlib.suppress(OSError):
        if _OVERCOMMIT.read_text().strip() == _STRICT:
            _log.warning(
                "shared_memory_holes",
                detail=f"shared_memory.group: was {group} while vm.overcommit_memory is 2, where a member who punches holes "
                "into a segment can end the daemon once memory is short; trust its members, or set vm.overcommit_memory to 0",
            )
