"""A lock that one process at a time can hold, and that a killed process lets go of.

It is a file with the holder's process id in it, locked with flock: the kernel unlocks it when the holder dies,
however it dies. The file goes away with an orderly release, so a lock taken on a file that someone has just removed
holds nothing:

    held  =>  the file at the path is the file that is locked        checked after locking, else tried again
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Self

_TRIES_MAX: Final = 100  # Each try that fails means that another process took and released it meanwhile.


class LockHeldError(Exception):
    """Another process holds the lock.

    Attributes:
        pid: of the holder, or None where it has not written it (yet).
    """

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by {holder_words(pid)}")
        self.pid = pid


class FileLock:
    """A lock that is held, until released."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over *descriptor*, which is open and locked; use ``take``."""
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self:
        """Lock *path*, which is made where it is missing, and write this process's id into it.

        Raises:
            LockHeldError: another process holds it.
            OSError: it can't be made or opened, or is no file of this user's.
        """
        for _ in range(_TRIES_MAX):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            try:
                status = _status_of_ours(descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise LockHeldError(path, _read_pid(descriptor)) from None
                if _is_at(path, status):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise LockHeldError(path, None)

    def release(self) -> None:
        """Remove the file and unlock it; once."""
        assert self._descriptor >= 0, "released twice"
        self._path.unlink(missing_ok=True)  # Before unlocking: whoever locks it now sees that it is gone.
        os.close(self._descriptor)
        self._descriptor = -1


def holder_words(pid: int | None) -> str:
    """Return how a sentence names the holder of a lock."""
    return "another process" if pid is None else f"process {pid}"


def _status_of_ours(descriptor: int) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it is not a file of this user's")
    return status


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), status)
    except FileNotFoundError:
        return False


def _read_pid(descriptor: int) -> int | None:
    digits = os.pread(descriptor, 32, 0).strip()
    return int(digits) if digits.isdigit() and len(digits) <= 10 else None
