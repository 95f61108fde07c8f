"""The machine, the versions and the moment of a measurement, as JSON and in one line."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from penstock_client import machine as client_machine

VERSIONS = ("numpy", "numba", "llvmlite", "protobuf", "uvloop")


def describe() -> dict[str, object]:
    """Return processor, cores, memory, kernel, versions and date."""
    machine = client_machine.describe_machine()
    for name in VERSIONS:
        try:
            machine[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            machine[name] = "not installed"
    machine["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    machine["load_average"] = _load_average()
    return machine


def line(machine: dict[str, object]) -> str:
    """Return *machine* in one line for people."""
    return f"{client_machine.machine_line(machine)}; {machine['date']}"


def stolen_ms() -> float:
    """Return how long the hypervisor has run others while our processors wanted to run, since the machine started."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(first[8]) * 10.0  # In hundredths of a second: USER_HZ is 100 on every Linux.
    except (OSError, IndexError, ValueError):
        return 0.0


def _load_average() -> float:
    try:
        return float(Path("/proc/loadavg").read_text(encoding="ascii").split()[0])
    except (OSError, IndexError, ValueError):
        return 0.0
