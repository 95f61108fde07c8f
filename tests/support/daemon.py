"""A real penstockd in a process of its own, on a Unix socket in a folder of the test's.

with running_daemon(folder) as daemon:
    ... daemon.address ...
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from penstock_kernels.model_file import save_model
from support.models import random_model

START_TIMEOUT_S = 300.0  # The first start on a machine compiles.
STOP_TIMEOUT_S = 60.0
MODULE = "penstock_daemon.main"  # What is run; another one may stand before it.


@dataclass
class RunningDaemon:
    """A daemon that serves, or served."""

    process: subprocess.Popen[bytes]
    address: str
    log_path: Path
    metrics_address: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> list[dict[str, object]]:
        """Return the log's lines so far."""
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def output(self) -> str:
        return self.log_path.read_text()

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the log's lines about one kind of event."""
        return [line for line in self.log() if line.get("event") == name]

    def terminate(self) -> int:
        """Stop it as an operator would, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)


def launch_daemon(
    folder: Path,
    *sets: str,
    address: str = "",
    arguments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    module: str = MODULE,
) -> RunningDaemon:
    """Start a daemon and return it at once; the caller waits, and stops it."""
    address = address or f"unix:{folder}/penstock.sock"
    log_path = folder / f"penstockd-{time.monotonic_ns()}.log"
    settings = (f"server.address={address}", "metrics.address=", *sets)
    command = [sys.executable, "-m", module, *arguments]
    for setting in settings:
        command += ["--set", setting]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
    return RunningDaemon(process, address, log_path)


def start_daemon(
    folder: Path,
    *sets: str,
    address: str = "",
    arguments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    module: str = MODULE,
) -> RunningDaemon:
    """Start a daemon and return it once it serves; the caller stops it."""
    daemon = launch_daemon(folder, *sets, address=address, arguments=arguments, environment=environment, module=module)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        for served in daemon.events("serving"):
            daemon.address, daemon.metrics_address = str(served["address"]), str(served["metrics"])
            return daemon
        if daemon.process.poll() is not None:
            raise AssertionError(f"penstockd ended with {daemon.process.returncode}:\n{daemon.output()}")
        time.sleep(0.02)
    daemon.kill()
    raise AssertionError(f"penstockd did not serve within {START_TIMEOUT_S} s:\n{daemon.output()}")


@contextlib.contextmanager
def running_daemon(
    folder: Path,
    *sets: str,
    address: str = "",
    arguments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    module: str = MODULE,
) -> Iterator[RunningDaemon]:
    """A daemon for the length of a block; it must stop cleanly unless the block has ended it, and log no traceback."""
    daemon = start_daemon(folder, *sets, address=address, arguments=arguments, environment=environment, module=module)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            try:
                code = daemon.terminate()
            except subprocess.TimeoutExpired:
                daemon.kill()
                raise AssertionError(f"penstockd did not stop:\n{daemon.output()}") from None
            assert code == 0, f"penstockd ended with {code}:\n{daemon.output()}"
        assert "Traceback" not in daemon.output(), daemon.output()


def channel_to(address: str) -> grpc.Channel:
    """Return a plain blocking channel, for tests below the client library."""
    return grpc.insecure_channel(address)


def small_model(folder: Path, seed: int = 1, *, name: str = "", file: str = "", **changes: object) -> Path:
    """Write a small model drawn at random into *folder* and return its path; *changes* as in ``random_model``."""
    model = random_model(seed, **{"units": 64, "rebuild_ticks": 64, "name": name or f"random-{seed}"} | changes)
    path = folder / (file or f"{model.name}.safetensors")
    save_model(model, path)
    return path


def small(folder: Path, *sets: str) -> tuple[str, ...]:
    """Return the settings of a daemon that takes little memory and serves ``small_model``; *sets* go on top."""
    return (f"models.active={small_model(folder)}", "models.units_max=64", "sessions.in_flight_max=256", *sets)
