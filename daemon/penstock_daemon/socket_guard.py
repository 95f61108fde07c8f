"""The right to listen at an address, taken before gRPC binds it.

gRPC removes whatever socket stands at a path and binds its own, so a second server steals a live one in silence. Here
a daemon takes a lock beside the socket first, and only under that lock removes a socket that a dead process left.

    guard = guard_address(address)        a sentence if anything else is there
    ... the server binds and starts ...
    guard.after_bind()                    the socket's mode is 0600 from here on, or 0660 for a group
    ... the server stops ...
    guard.release()                       socket and lock are gone

TCP has no lock: the port is tried instead, since gRPC reports a port in use without saying so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from penstock_daemon.addresses import UNIX_PATH_BYTES_MAX, TcpAddress, UnixAddress
from penstock_daemon.file_lock import FileLock, LockHeldError, holder_words

SOCKET_MODE: Final = 0o600
GROUP_SOCKET_MODE: Final = 0o660
_PROBE_S: Final = 1.0


class ListenError(Exception):
    """An address can't be listened at; the sentence names the key, the address and the mend."""


class AddressGuard:
    """The right to listen at one address, held until released."""

    def __init__(self, path: Path | None, lock: FileLock | None, key: str = "server.address") -> None:
        """Hold what ``guard_address`` took; path and lock are None for TCP."""
        self._path = path
        self._lock = lock
        self._key = key
        self._bound: os.stat_result | None = None

    def after_bind(self, group: int | None = None) -> None:
        """Close the socket to other users; to be called once the server has bound it.

        Args:
            group: whose members may open it nevertheless; None for nobody.

        Raises:
            ListenError: the socket is not there, or its mode can't be set.
        """
        if self._path is None:
            return
        try:
            if group is not None:
                os.chown(self._path, -1, group)
            self._path.chmod(SOCKET_MODE if group is None else GROUP_SOCKET_MODE)
            self._bound = self._path.lstat()
        except OSError as refusal:
            raise ListenError(
                f"{self._key}: its socket must be there and be closed to others, was unix:{self._path}: "
                f"{refusal.strerror}; choose a folder that nothing else cleans up, and a group that its user is in"
            ) from refusal

    def release(self) -> None:
        """Remove the socket, where it is still the one that was bound, and let others listen; may be called twice."""
        if self._path is None or self._lock is None:
            return
        with contextlib.suppress(OSError):  # The folder may be gone; a socket that stays is removed by the next daemon.
            found = self._path.lstat()
            ours = self._bound is None or os.path.samestat(found, self._bound)
            if ours and stat.S_ISSOCK(found.st_mode):
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._lock.release()
        self._lock = None


def guard_address(address: UnixAddress | TcpAddress, *, key: str = "server.address") -> AddressGuard:
    """Return the right to listen at *address*, which is free now.

    Args:
        address: a stale Unix socket there is removed.
        key: the configuration's, for the sentence.

    Raises:
        ListenError: the address is taken, or can't be used.
    """
    if isinstance(address, UnixAddress):
        return _guard_unix(address, key)
    check_port_free(address, key=key)
    return AddressGuard(None, None)


def _guard_unix(address: UnixAddress, key: str) -> AddressGuard:
    path = address.path
    length_bytes = len(os.fsencode(path))
    if length_bytes > UNIX_PATH_BYTES_MAX:
        raise ListenError(
            f"{key}: must have a socket path of at most {UNIX_PATH_BYTES_MAX} bytes, was {length_bytes} bytes: "
            f"{address}; choose a shorter folder such as /run/penstock"
        )
    lock_path = path.with_name(path.name + ".lock")
    try:
        lock = FileLock.take(lock_path)
    except LockHeldError as held:
        raise ListenError(
            f"{key}: must be free, was {address}, where {holder_words(held.pid)} serves already; stop that one, or "
            f"choose another {key}"
        ) from held
    except FileNotFoundError as refusal:
        raise ListenError(
            f"{key}: must be in a folder that exists, was {address}; make {path.parent}, or choose another {key}"
        ) from refusal
    except OSError as refusal:
        raise ListenError(
            f"{key}: must have a lock beside it, was {address}, whose {lock_path.name} can't be taken: "
            f"{refusal.strerror}; choose a folder of your own"
        ) from refusal
    try:
        _clear_stale(address, key)
    except BaseException:
        lock.release()
        raise
    return AddressGuard(path, lock, key)


def _clear_stale(address: UnixAddress, key: str) -> None:
    """Remove the socket that a dead process left; the lock is held."""
    try:
        status = address.path.lstat()
    except FileNotFoundError:
        return
    except OSError as refusal:
        raise ListenError(f"{key}: must be a path that can be used, was {address}: {refusal.strerror}") from refusal
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(
            f"{key}: must be a socket's path, was {address}, which is something else; choose another {key}"
        )
    if _answers(address.path):
        raise ListenError(
            f"{key}: must be free, was {address}, where another program listens; stop that one, or choose another {key}"
        )
    try:
        address.path.unlink()
    except OSError as refusal:
        raise ListenError(
            f"{key}: must be free, was {address}, a dead socket that can't be removed: {refusal.strerror}; remove it"
        ) from refusal


def _answers(path: Path) -> bool:
    """Whether a program listens at the socket *path*; one too busy to accept does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as refusal:
            return refusal.errno != errno.EPROTOTYPE or _answers_datagram(path)
    return True


def _answers_datagram(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError as refusal:
            return refusal.errno == errno.EPROTOTYPE  # Of packets: it is listened at.
    return True


def check_port_free(address: TcpAddress, *, key: str) -> None:
    """Refuse a port that another socket listens on; port 0 is always free.

    Raises:
        ListenError: the host is unknown, none of its addresses is this host's, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as refusal:
        raise ListenError(f"{key}: must name a host that is known, was {address}: {refusal}") from refusal
    free = 0
    refused: OSError | None = None
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC does it: connections that linger from an earlier daemon are no reason to refuse.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                free += 1
        except OSError as refusal:
            if refusal.errno == errno.EADDRINUSE:
                raise ListenError(
                    f"{key}: must be free, was {address}, where another program listens; stop that one, or choose "
                    "another port"
                ) from refusal
            refused = refusal
    if not free:
        reason = refused.strerror if refused else "no address"
        raise ListenError(f"{key}: must be an address of this host that may be used, was {address}: {reason}")
