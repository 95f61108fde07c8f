"""The socket where strategies attach: one packet each way, two descriptors, and from then on a life-line.

    connect -> who is it (SO_PEERCRED) -> a request within the time-out -> segment and bell, or a sentence and the end

gRPC can't pass descriptors, so this is a socket of its own beside it, of packets (SOCK_SEQPACKET), under the same rules: a
lock beside it, closed to other users. Whoever connects costs a descriptor and a timer until it has spoken; there are only
so many of those, and the oldest gives way. A request that has come with the connection is read at once, so a crowd that
says nothing keeps nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import grp
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

import structlog

from penstock.v1 import shared_ring as layout
from penstock_daemon import faults
from penstock_daemon.addresses import UnixAddress
from penstock_daemon.shared_memory.attachments import Attachments
from penstock_daemon.socket_guard import AddressGuard, ListenError

HALF_OPEN_MAX: Final = 32
_ACCEPTS_PER_LOOK: Final = 64  # Then the event loop goes round once.
_BACKLOG: Final = 128
_RETRY_S: Final = 0.5  # Where there is no descriptor for who waits: it stays in the queue.
_SO_PEERGROUPS: Final = 59
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group.
_GROUP_BYTES: Final = 4
_GROUPS_MAX: Final = 65_536  # As many as a process of Linux may be in.

_LIBC: Final = ctypes.CDLL(None)
_log = structlog.get_logger("penstock.sessions")


class AttachServer:
    """Listens at one Unix socket, on the running event loop.

    Args:
        attachments: that hand out segments.
        timeout_s: how long one who has connected may say nothing.
        group: whose members may attach beside the daemon's user and root; None for no group.
        count_refusal: gets the reason of each refusal.
    """

    def __init__(
        self, attachments: Attachments, *, timeout_s: float, group: int | None, count_refusal: Callable[[str], None]
    ) -> None:
        self._attachments = attachments
        self._timeout_s = timeout_s
        self._group = group
        self._listener: socket.socket | None = None
        self._half_open: dict[socket.socket, asyncio.TimerHandle] = {}  # In the order in which they came.
        self._attaching: set[asyncio.Task[None]] = set()
        self._count_refusal = count_refusal

    def listen(self, address: UnixAddress, guard: AddressGuard) -> None:
        """Bind and listen.

        Raises:
            ListenError: the address can't be had.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        umask = os.umask(0o177)  # Closed to others from its first moment on.
        try:
            listener.bind(os.fspath(address.path))
            listener.listen(_BACKLOG)
        except OSError as refusal:
            listener.close()
            raise ListenError(
                f"shared_memory.address: {address} can't be listened at ({refusal.strerror}); choose another"
            ) from refusal
        finally:
            os.umask(umask)
        guard.after_bind(self._group)
        self._listener = listener
        self._watch()

    async def close(self) -> None:
        """Listen no longer; segments that are attached stay so."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        for connection in list(self._half_open):
            self._drop(connection)
        if self._attaching:
            await asyncio.wait(self._attaching)

    @property
    def half_open(self) -> int:
        """Connections that have not spoken yet."""
        return len(self._half_open)

    # --- Connections that have not attached yet ---------------------------------------------------------------------

    def _watch(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._on_connect)

    def _on_connect(self) -> None:
        assert self._listener is not None, "it is watched while it listens"
        for _ in range(_ACCEPTS_PER_LOOK):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # The listener stays readable: watched on, it would hold up the event loop.
                asyncio.get_running_loop().remove_reader(self._listener)
                asyncio.get_running_loop().call_later(_RETRY_S, self._watch)
                _log.warning("attach_waits", detail=f"{error.strerror}; give the daemon more descriptors (LimitNOFILE)")
                return
            connection.setblocking(False)
            peer = _peer(connection)
            if not self._may(connection, *peer):
                self._refuse(connection, _denied(*peer))
            elif not self._read(connection):
                self._await(connection)

    def _may(self, connection: socket.socket, user: int, group: int) -> bool:
        if user in (0, os.geteuid()):
            return True
        return self._group is not None and (group == self._group or self._group in _groups(connection))

    def _await(self, connection: socket.socket) -> None:
        """Watch a connection that has not spoken yet; the oldest of too many is dropped."""
        loop = asyncio.get_running_loop()
        if len(self._half_open) >= HALF_OPEN_MAX:
            self._drop(next(iter(self._half_open)), _crowd())
        self._half_open[connection] = loop.call_later(self._timeout_s, self._drop, connection, _silent())
        loop.add_reader(connection, self._read, connection)

    def _drop(self, connection: socket.socket, why: faults.SessionFault | None = None) -> None:
        self._settle(connection)
        if why is None:
            connection.close()
        else:
            self._refuse(connection, why)

    def _settle(self, connection: socket.socket) -> None:
        """Stop watching a connection that was half open, if it was."""
        timer = self._half_open.pop(connection, None)
        if timer is not None:
            timer.cancel()
            asyncio.get_running_loop().remove_reader(connection)

    def _read(self, connection: socket.socket) -> bool:
        """Read the request, if it is there; False while it is not."""
        try:
            request = connection.recv(layout.ATTACH_REQUEST.size + 1)
        except BlockingIOError:
            return False
        except OSError:
            request = b""
        self._settle(connection)
        if not request:  # Hung up.
            connection.close()
            return True
        try:
            token = _token(request)
        except faults.SessionFault as fault:
            self._refuse(connection, fault)
            return True
        task = asyncio.create_task(self._attach(connection, token))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)
        return True

    async def _attach(self, connection: socket.socket, token: bytes) -> None:
        try:
            attachment = await self._attachments.attach(token, connection)
        except faults.SessionFault as fault:
            self._refuse(connection, fault)
            return
        segment = attachment.segment
        reply = layout.ATTACH_REPLY.pack(0, layout.LAYOUT_VERSION, segment.size_bytes)
        try:
            socket.send_fds(connection, [reply], [segment.descriptor, attachment.bell])
        except (
            OSError
        ):  # It has hung up meanwhile; or it can't be told, and must not wait. The attachment hears of both.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        segment.close_descriptor()

    def _refuse(self, connection: socket.socket, fault: faults.SessionFault) -> None:
        """Say why not, and close; nobody is waited for."""
        self._count_refusal(fault.reason)
        _log.info("attach_refused", reason=fault.reason, detail=str(fault))
        head = layout.ATTACH_REPLY.pack(fault.code.value[0], layout.LAYOUT_VERSION, 0)
        sentence = str(fault).encode()[: layout.ATTACH_REPLY_BYTES_MAX - len(head)]
        with contextlib.suppress(OSError):
            connection.send(head + sentence)
        connection.close()


def group_id(name: str) -> int | None:
    """Return the number of a group of this host; None for no name.

    Raises:
        ListenError: there is no such group.
    """
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ListenError(
            f"shared_memory.group: must be a group of this host, was {name}; add it, or leave the key empty"
        ) from None


def _token(request: bytes) -> bytes:
    """Return the token of a request.

    Raises:
        SessionFault: it is none.
    """
    if len(request) != layout.ATTACH_REQUEST.size or not request.startswith(layout.ATTACH_MAGIC):
        raise faults.invalid(
            "ATTACH_REQUEST",
            field="request",
            value=f"{len(request)} bytes",
            mend=f"send one packet of {layout.ATTACH_REQUEST.size} bytes that begins with {layout.ATTACH_MAGIC.decode()}",
        )
    _, version, _, token = layout.ATTACH_REQUEST.unpack(request)
    if version != layout.LAYOUT_VERSION:
        raise faults.out_of_order(
            "ATTACH_VERSION",
            field="layout_version",
            value=version,
            mend=f"this daemon's segments have layout {layout.LAYOUT_VERSION}; use a client of its version",
        )
    return bytes(token)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return the user and the group that have connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, group = _CREDENTIALS.unpack(credentials)
    return user, group


def _groups(connection: socket.socket) -> tuple[int, ...]:
    """Return the other groups of who has connected."""
    room = ctypes.create_string_buffer(_GROUPS_MAX * _GROUP_BYTES)  # Python's own getsockopt gives 1,024 bytes at most.
    size = ctypes.c_uint(len(room))
    if _LIBC.getsockopt(connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, room, ctypes.byref(size)) != 0:
        return ()  # Linux before 4.13.
    return struct.unpack_from(f"{size.value // _GROUP_BYTES}I", room)


def _denied(user: int, group: int) -> faults.SessionFault:
    return faults.denied(
        "ATTACH_PEER",
        field="shared_memory.group",
        value=f"user {user}, group {group}",
        mend="attach as the daemon's user, or name a group of yours there",
    )


def _crowd() -> faults.SessionFault:
    return faults.exhausted(
        "ATTACH_CROWD",
        field="connections",
        value=f"{HALF_OPEN_MAX} that said nothing yet",
        mend="send the request at once after connecting",
    )


def _silent() -> faults.SessionFault:
    return faults.out_of_order(
        "ATTACH_TIMEOUT",
        field="request",
        value="nothing in shared_memory.attach_timeout_s",
        mend="send the request at once after connecting",
    )
