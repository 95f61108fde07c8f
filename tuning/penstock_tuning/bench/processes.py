"""Processes that a benchmark measures: started, awaited until they say READY, stopped whatever happens.

started -> READY (a systemd notice, so it is the moment itself and not a guess from a log) -> stopped, killed if need be
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.placement import on_processors

START_TIMEOUT_S: Final = 120.0  # The first start on a machine compiles.
STOP_TIMEOUT_S: Final = 15.0
_TOLD_LINES: Final = 5


@dataclass(frozen=True)
class Served:
    """A process that said READY.

    Attributes:
        address: where it listens.
        pid: its process id.
        start_s: from the decision to start it to READY.
        started_ns: monotonic time of that decision.
        log: its output so far, a file.
    """

    address: str
    pid: int
    start_s: float
    started_ns: int
    log: Path

    @property
    def resident_kib(self) -> int:
        """Its resident memory now."""
        return resident_kib(self.pid)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process now.

    Raises:
        BenchError: it has ended.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise BenchError(f"process {pid} has no resident memory: it has ended")


@dataclass(frozen=True)
class DaemonOptions:
    """How daemons are started for a benchmark.

    Attributes:
        model: a model file; empty for the demonstration model.
        sets: further settings, as ``penstockd --set`` takes them; they win over ours.
    """

    model: str = ""
    sets: tuple[str, ...] = field(default=())

    def arguments(self, address: str) -> list[str]:
        """Return the daemon's command line for *address*."""
        settings = [f"server.address={address}", "metrics.address=", "log.format=json"]
        if self.model:
            settings.append(f"models.active={Path(self.model).absolute()}")
        return [argument for setting in (*settings, *self.sets) for argument in ("--set", setting)]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A private folder for sockets and logs, removed in the end."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        yield Path(name)


@contextlib.contextmanager
def daemon(
    folder: Path,
    options: DaemonOptions,
    processors: frozenset[int] = frozenset(),
    environment: Mapping[str, str | None] | None = None,
) -> Iterator[Served]:
    """A ``penstockd`` on a Unix socket in *folder*, for the length of a block.

    Args:
        folder: private; its path must be short enough for a socket.
        options: how it is started. Settings from this process's environment play no part.
        processors: that it may use; empty for all.
        environment: variables to change; None removes one.

    Raises:
        BenchError: it does not serve, or did not stop by itself.
    """
    address = f"unix:{folder}/penstock.sock"
    inherited = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    wanted = {name: value for name, value in {**inherited, **(environment or {})}.items() if value is not None}
    command = [sys.executable, "-m", "penstock_daemon.main", *options.arguments(address)]
    with _running("penstockd", command, address, folder, processors, wanted) as served:
        yield served


@contextlib.contextmanager
def echo_server(folder: Path, processors: frozenset[int] = frozenset()) -> Iterator[Served]:
    """A bare echo server on a Unix socket in *folder*, for the length of a block.

    Raises:
        BenchError: it does not serve.
    """
    address = f"unix:{folder}/echo.sock"
    command = [sys.executable, "-m", "penstock_tuning.bench.echo_server", address]
    with _running("the echo server", command, address, folder, processors, dict(os.environ)) as served:
        yield served


@contextlib.contextmanager
def ring_echo(folder: Path, processors: frozenset[int] = frozenset()) -> Iterator[Served]:
    """An echo over a shared segment, attached to at a socket in *folder*, for the length of a block.

    Raises:
        BenchError: it does not serve.
    """
    path = folder / "ring.sock"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "penstock_tuning.bench.ring_echo", str(path)]
    with _running("the ring echo", command, str(path), folder, processors, dict(os.environ)) as served:
        yield served


def run_tool(
    name: str,
    command: Sequence[str],
    folder: Path,
    timeout_s: float,
    processors: frozenset[int] = frozenset(),
    given: Path = Path(os.devnull),
) -> str:
    """Run a command of ours to its end, with the file *given* as its input; return what it wrote to standard output.

    Raises:
        BenchError: it failed, or took longer than *timeout_s*; the sentence holds what it said.
    """
    with (folder / "tool.out").open("w+b") as out, (folder / "tool.err").open("w+b") as err, given.open("rb") as source:
        with on_processors(processors):
            process = subprocess.Popen(command, stdin=source, stdout=out, stderr=err)  # noqa: S603 - Ours.
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{name} took longer than {timeout_s:.0f} s and was stopped") from None
        finally:
            _end(process)
        out.seek(0)
        err.seek(0)
        said, complaint = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if code != 0:
        raise BenchError(f"{name} ended with {code}: {_last_lines(complaint) or 'it said nothing'}")
    return said


@contextlib.contextmanager
def _running(
    name: str,
    command: Sequence[str],
    address: str,
    folder: Path,
    processors: frozenset[int],
    environment: dict[str, str],
) -> Iterator[Served]:
    log = folder / f"{Path(command[2]).suffix.lstrip('.')}.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, log.open("wb") as out:
        notice_path = folder / "notices.sock"
        notice_path.unlink(missing_ok=True)
        notices.bind(str(notice_path))
        started_ns = time.monotonic_ns()
        with on_processors(processors):
            process = subprocess.Popen(  # noqa: S603 - Ours.
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment | {"NOTIFY_SOCKET": str(notice_path)},
            )
        try:
            _wait_until_ready(name, process, notices, log)
            yield Served(address, process.pid, (time.monotonic_ns() - started_ns) / 1e9, started_ns, log)
            if process.poll() is not None:
                raise BenchError(f"{name} ended by itself with {process.returncode}: {_tail(log)}")
        finally:
            _end(process)
    if process.returncode not in (0, -signal.SIGTERM):
        raise BenchError(f"{name} did not stop well: exit={process.returncode}: {_tail(log)}")


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], notices: socket.socket, log: Path) -> None:
    notices.settimeout(0.1)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            if b"READY=1" in notices.recv(4096).split(b"\n"):
                return
        except TimeoutError:
            if process.poll() is not None:
                raise BenchError(f"{name} ended with {process.returncode} at its start: {_tail(log)}") from None
    raise BenchError(f"{name} did not serve within {START_TIMEOUT_S:.0f} s: {_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop *process* as an operator would, and kill it if it doesn't listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_setting(name: str) -> bool:
    """Whether an environment variable would change what is measured: a setting of the daemon, or its supervisor's."""
    return (name.startswith("PENSTOCK_") and "__" in name) or name in {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


def _tail(log: Path) -> str:
    return _last_lines(log.read_text(encoding="utf-8", errors="replace")) or "it said nothing"


def _last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-_TOLD_LINES:])
