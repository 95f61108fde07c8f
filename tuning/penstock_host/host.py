"""A host: its files under a root, its programs behind a runner, its cores, and whether a daemon serves on it.

All reading and all writing of penstock-tune goes through here, so a tree of files can stand for a host:

    root == /        the files are the kernel's: one write(2) each, nothing is truncated or renamed
    root != /        plain files; no program of this machine runs, nothing outside the root is written
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from penstock_host.faults import AbsentError, UnreadableError, WriteRefusedError
from penstock_host.profile import Profile
from penstock_host.runner import Outcome, RealRunner, RecordedRunner, Runner
from penstock_host.topology import Topology, read_topology
from penstock_host.tree import TreeKernel

STATE: Final = "/run/penstock-tune"
RECORDED: Final = "recorded"
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP, errno.ELOOP})
_READ_BYTES_MAX: Final = 1 << 24


class Host:
    """A machine, or a tree of files that stands for one."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        profile: Profile | None = None,
        runner: Runner | None = None,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        """Look at *root*.

        Args:
            root: "/" for this machine.
            profile: what the operator chose.
            runner: of other programs; this machine's for "/", else the outputs recorded under ``root/recorded``.
            on_step: called before and after everything that lasts, with its name; tests stop there.
        """
        self.root = root.resolve()
        self.is_tree = self.root != Path("/")
        self.profile = profile or Profile()
        self._kernel = TreeKernel(self.root) if self.is_tree else None
        self.runner = runner or (RecordedRunner(self.root / RECORDED) if self.is_tree else RealRunner())
        self.step = on_step or _no_step
        self._memory: dict[tuple[str, ...], Outcome] = {}

    @cached_property
    def topology(self) -> Topology:
        """The CPUs and which of them are hot, found once."""
        return read_topology(self)

    @property
    def samples_s(self) -> float:
        """How long to watch counters that should stand still; a tree's do."""
        return 0.0 if self.is_tree else self.profile.sample_s

    def wait(self) -> None:
        """Let ``samples_s`` pass."""
        time.sleep(self.samples_s)

    def now_unix_s(self) -> float:
        """Return the time; a tree's is the one that its file ``recorded/now`` holds."""
        if self.is_tree:
            try:
                return float(self.read(f"/{RECORDED}/now"))
            except (AbsentError, UnreadableError, ValueError):
                pass
        return time.time()

    # Files.

    def path(self, name: str) -> Path:
        """Return where the host's file *name* (as ``/sys/...``) lies."""
        return self.root / name.lstrip("/")

    def own_path(self, name: str) -> Path:
        """Return where our own file *name* lies, with its folder made.

        Raises:
            OSError: it can't be, or a tree's link leads out of the tree.
        """
        path = self.path(name)
        if self._kernel:
            self._kernel.keep_inside(path, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder *name*, as far as it can be seen."""
        try:
            if self._kernel:
                self._kernel.keep_inside(self.path(name), name)
            return self.path(name).exists()
        except OSError:
            return False

    def read(self, name: str) -> str:
        """Return the file's text, to the byte (bytes that are not UTF-8 survive a write).

        Raises:
            AbsentError: there is no such file, or no device behind it.
            UnreadableError: it may not be read.
        """
        return self.read_bytes(name).decode("utf-8", "surrogateescape")

    def read_bytes(self, name: str, size: int = _READ_BYTES_MAX, *, offset: int | None = None) -> bytes:
        """Return at most *size* bytes, from *offset* where the file is a device that counts so; faults as ``read``."""
        try:
            if self._kernel:
                self._kernel.may("read", name)
                self._kernel.keep_inside(self.path(name), name)
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if offset is not None:
                    return os.pread(descriptor, size, offset)
                pieces = []
                while size and (piece := os.read(descriptor, min(size, 1 << 16))):
                    pieces.append(piece)
                    size -= len(piece)
                return b"".join(pieces)
            finally:
                os.close(descriptor)
        except OSError as refusal:
            if refusal.errno in _ABSENT:
                raise AbsentError(f"{name} is absent") from refusal
            why = "needs root" if refusal.errno in {errno.EACCES, errno.EPERM} else refusal.strerror
            raise UnreadableError(f"{name}: {why}") from refusal

    def read_or(self, name: str, otherwise: str = "") -> str:
        """Return the file's text without blanks around it, or *otherwise* where it is absent or closed."""
        try:
            return self.read(name).strip()
        except (AbsentError, UnreadableError):
            return otherwise

    def write(self, name: str, text: str) -> None:
        """Give the file *text*, in one system call.

        Raises:
            WriteRefusedError: with the kernel's reason.
        """
        self.step(f"before {name}")
        data = text.encode("utf-8", "surrogateescape")
        try:
            if self._kernel:
                self._kernel.write(self.path(name), name, data, self.path(f"{STATE}/spare"))
            else:
                _write_once(self.path(name), data)
        except OSError as refusal:
            raise _refused(name, refusal) from refusal
        self.step(f"after {name}")

    def make_folder(self, name: str) -> None:
        """Make a control group; faults as ``write``."""
        self.step(f"before {name}")
        try:
            if self._kernel:
                self._kernel.make_folder(self.path(name), name)
            else:
                self.path(name).mkdir(exist_ok=True)
        except OSError as refusal:
            raise _refused(name, refusal) from refusal
        self.step(f"after {name}")

    def remove_folder(self, name: str) -> None:
        """Remove a control group; faults as ``write``."""
        self.step(f"before {name}")
        try:
            if self._kernel:
                self._kernel.remove_folder(self.path(name), name)
            else:
                self.path(name).rmdir()
        except OSError as refusal:
            raise _refused(name, refusal) from refusal
        self.step(f"after {name}")

    def names(self, pattern: str) -> list[str]:
        """Return the host's names of the files that match *pattern*, in the order of their numbers."""
        prefix = "/" if not self.is_tree else ""
        try:
            found = [str(path) for path in self.root.glob(pattern.lstrip("/"))]
        except OSError:
            return []
        names = found if prefix else ["/" + os.path.relpath(path, self.root) for path in found]
        return sorted(names, key=_by_numbers)

    # Programs.

    def ask(self, *command: str) -> str:
        """Return the output of a command that only reads; asked once between two writes.

        Raises:
            AbsentError: it is not installed, or says that the device has no such thing.
            UnreadableError: it failed.
        """
        outcome = self.outcome(*command)
        if not outcome.worked:
            said = (outcome.errors or outcome.output).strip().splitlines()
            sentence = f"{' '.join(command)}: {said[-1] if said else f'exit status {outcome.exit_status}'}"
            if any(words in sentence for words in ("not supported", "No such device", "No devices were found")):
                raise AbsentError(sentence)
            raise UnreadableError(sentence)
        return outcome.output

    def outcome(self, *command: str) -> Outcome:
        """Return what a command that only reads did, whatever its exit status; asked once between two writes."""
        if command not in self._memory:
            self._memory[command] = self.runner.run(command)
        return self._memory[command]

    def order(self, *command: str) -> None:
        """Run a command that changes something.

        Raises:
            WriteRefusedError: it is absent or failed.
        """
        self.step(f"before {' '.join(command)}")
        try:
            outcome = self.runner.run(command)
        except (AbsentError, UnreadableError) as refusal:
            raise WriteRefusedError(str(refusal)) from refusal
        finally:
            self._memory.clear()
        if not outcome.worked:
            said = (outcome.errors or outcome.output).strip().splitlines()
            raise WriteRefusedError(f"{' '.join(command)}: {said[-1] if said else 'it failed'}")
        self.step(f"after {' '.join(command)}")

    # Processes.

    def processes(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each process with the words of its command; kernel threads have none."""
        for name in self.names("/proc/[0-9]*"):
            digits = name.rsplit("/", 1)[1]
            if digits.isdigit():
                words = self.read_or(f"{name}/cmdline").split("\0")
                yield int(digits), [word for word in words if word]

    def see_processes(self) -> None:
        """Make sure that others' processes are seen: a verdict that there is none of a kind rests on it.

        Raises:
            UnreadableError: /proc is absent or hides them (mounted with hidepid).
        """
        try:
            self.read("/proc/1/cmdline")
        except (AbsentError, UnreadableError) as fault:
            raise UnreadableError("/proc hides other users' processes (hidepid, or ProtectProc of a unit)") from fault

    def daemons(self) -> list[int]:
        """Return the processes that are a penstockd, by its command or by the lock beside its socket."""
        found = set()
        for process, words in self.processes():
            programs = [word.rsplit("/", 1)[-1] for word in words[:2]]
            if "penstockd" in programs or ("-m" in words[:4] and "penstock_daemon" in words[:5]):
                found.add(process)
        for lock in self.names("/run/penstock*/*.lock"):
            digits = self.read_or(lock)
            if digits.isdigit() and self.exists(f"/proc/{digits}") and not lock.startswith(STATE):
                found.add(int(digits))
        return sorted(found)


def _write_once(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.EIO, f"took {written} of {len(data)} bytes")
    finally:
        os.close(descriptor)


def _refused(name: str, refusal: OSError) -> WriteRefusedError:
    return WriteRefusedError(f"{name}: {refusal.strerror or refusal}", refusal.errno)


def _no_step(name: str) -> None:
    del name


def _by_numbers(name: str) -> list[tuple[int, int, str]]:
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for letter in [*name, ""]:
        if letter.isdigit() and letter.isascii():
            digits += letter
            continue
        if digits:
            parts.append((1, int(digits), ""))
            digits = ""
        parts.append((0, 0, letter))
    return parts
