"""The handshake that hands a segment over: one packet there, one packet and two descriptors back.

    begin()     connects and sends the token; never waits
    finish()    takes the reply, once the socket is readable, and maps what it brings

A daemon that is gone, or whose queue is full, is an OSError: another try may do better. A refusal is a SessionRefused.
"""

from __future__ import annotations

import array
import os
import select
import socket
import stat
from typing import Final

from penstock.v1 import shared_ring as layout
from penstock_client.errors import DaemonProtocolError, SessionRefused
from penstock_client.shared_memory.segment import Expected, Segment, map_segment
from penstock_client.shared_memory.words import Fences

_DESCRIPTORS: Final = 2
_CODES: Final = {
    3: "INVALID_ARGUMENT",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}
# With another stream comes another token; memory, and room for connections, come back with time.
_WORTH_TRYING_AGAIN: Final = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNAUTHENTICATED"})


def begin(path: str, token: bytes) -> socket.socket:
    """Connect to the socket at *path* and send *token*.

    Raises:
        SessionRefused: this process may not.
        OSError: nobody listens there.
        DaemonProtocolError: the token is not of the contract's size.
    """
    if len(token) != layout.TOKEN_BYTES:
        raise DaemonProtocolError(f"Welcome.shared_memory.token must be {layout.TOKEN_BYTES} bytes: was {len(token)}")
    attaching = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        attaching.connect(path)
        attaching.send(layout.ATTACH_REQUEST.pack(layout.ATTACH_MAGIC, layout.LAYOUT_VERSION, 0, token))
    except PermissionError as exc:
        attaching.close()
        raise SessionRefused(
            f"the daemon's socket for shared memory may not be used by this user: {path}",
            code="PERMISSION_DENIED",
            field="Welcome.shared_memory.address",
            value=path,
            mend="run as the daemon's user, or in the group of its configuration, or connect without shared_memory",
        ) from exc
    except BaseException:
        attaching.close()
        raise
    return attaching


def finish(attaching: socket.socket, expected: Expected | None, fences: Fences) -> Segment:
    """Read the reply from *attaching*, which is readable, and map the segment; the socket then is the segment's.

    Raises:
        SessionRefused: the daemon said no, with its sentence.
        OSError: it hung up, or said no for now.
        DaemonProtocolError: the reply, or the segment, is not what the contract says.
    """
    descriptors = array.array("i")
    room = socket.CMSG_LEN(_DESCRIPTORS * descriptors.itemsize)
    # Not socket.recv_fds(), which drops its flags: what is exec'ed from here would inherit the descriptors.
    data, controls, flags, _ = attaching.recvmsg(layout.ATTACH_REPLY_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, told in controls:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(told[: len(told) - len(told) % descriptors.itemsize])
    kept = -1
    try:
        if not data:
            raise ConnectionResetError("the daemon hung up before it answered")
        if len(data) < layout.ATTACH_REPLY.size or flags & socket.MSG_TRUNC:
            raise DaemonProtocolError(f"the daemon answered an attachment with {len(data)} bytes, flags {flags:#x}")
        status, version, size = layout.ATTACH_REPLY.unpack_from(data)
        if status:
            said = data[layout.ATTACH_REPLY.size :].decode(errors="replace") or f"status {status}, no sentence"
            raise _refusal(status, said)
        if version != layout.LAYOUT_VERSION:
            raise DaemonProtocolError(
                f"the daemon's segments have layout version {version}: this client knows {layout.LAYOUT_VERSION}"
            )
        if len(descriptors) != _DESCRIPTORS or flags & socket.MSG_CTRUNC:
            raise DaemonProtocolError(
                f"the daemon must hand over {_DESCRIPTORS} descriptors, of the segment and of an event: "
                f"came {len(descriptors)}"
            )
        memory, event = descriptors
        _check_event(event)
        segment = map_segment(memory, size, expected, fences)
        segment.hold(attaching, event)
        kept = event
    finally:
        for descriptor in descriptors:
            if descriptor != kept:
                os.close(descriptor)
    return segment


def _refusal(status: int, said: str) -> SessionRefused | ConnectionRefusedError:
    """Return what the daemon's *status*, the number of a gRPC status code, means: a refusal, or "try again"."""
    code = _CODES.get(status, "FAILED_PRECONDITION")
    if code in _WORTH_TRYING_AGAIN:
        return ConnectionRefusedError(f"{code}: {said}")
    return SessionRefused(said, code=code)


def attach(path: str, token: bytes, timeout_s: float, fences: Fences, expected: Expected | None = None) -> Segment:
    """Do both, and wait for the reply between them.

    Raises:
        TimeoutError: none came within *timeout_s*.
    """
    attaching = begin(path, token)
    try:
        _wait_for_reply(attaching, timeout_s)
        return finish(attaching, expected, fences)
    except BaseException:
        attaching.close()
        raise


def _wait_for_reply(attaching: socket.socket, timeout_s: float) -> None:
    poll = select.poll()
    poll.register(attaching, select.POLLIN)
    if not poll.poll(timeout_s * 1e3):
        raise TimeoutError(f"the daemon did not answer an attachment within {timeout_s:.3g} s")


def _check_event(descriptor: int) -> None:
    """Refuse what a write of eight bytes could harm, or wait on."""
    if stat.S_IFMT(os.fstat(descriptor).st_mode):  # An anonymous inode has no type.
        raise DaemonProtocolError("the daemon handed over a descriptor that is no event")
    os.set_blocking(descriptor, False)  # A full one must not hold up the strategy.
