"""What slows the CPUs: the quota of the daemon's control group, and heat.

    cgroup v2   cpu.stat of the group and of those above it: nr_throttled, throttled_usec
    cgroup v1   cpu.stat of the cpu controller: nr_throttled, throttled_time in nanoseconds
    heat        thermal_throttle/core_throttle_count of the engine's CPUs, Intel's drivers alone

A quota above takes the CPU away as well as the group's own does, so the largest count on the way up is taken. What a host
does not have is 0, and is not watched.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_daemon.self_watch.threads import read_file

_V1_MOUNTS: Final = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")
_V2_MOUNTS: Final = ("sys/fs/cgroup", "sys/fs/cgroup/unified")


@dataclass(frozen=True, slots=True)
class Throttled:
    """Since the group was made, since boot.

    Attributes:
        periods: of the quota in which the group stood still.
        ns: how long it did.
        heat: how often a CPU of the engine was slowed for its temperature.
    """

    periods: int = 0
    ns: int = 0
    heat: int = 0


class Throttling:
    """Reads it; which files there are is found out once.

    Args:
        cpus: whose heat counts.
        root: of the host's files; tests give a tree.
    """

    def __init__(self, cpus: Collection[int], root: Path = Path("/")) -> None:
        self._quota_files = _quota_files(root)
        pattern = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
        heat = (root / pattern.format(cpu) for cpu in sorted(cpus))
        self._heat_files = [str(path) for path in heat if path.is_file()]

    @property
    def watched(self) -> tuple[str, ...]:
        """What this host tells: "quota", "heat"."""
        return tuple(name for name, files in (("quota", self._quota_files), ("heat", self._heat_files)) if files)

    def read(self) -> Throttled:
        """Look at all of it."""
        quotas = [_quota(path) for path in self._quota_files]
        periods, ns = max(quotas, key=lambda one: one[1], default=(0, 0))
        return Throttled(periods, ns, sum(_count(path) for path in self._heat_files))


def _quota_files(root: Path) -> list[str]:
    """Return cpu.stat of this process's group, and of those above it, in the hierarchy that has the cpu controller."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    unified = ""
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "", "")[:3]
        if "cpu" in controllers.split(","):
            return _way_up(root, _V1_MOUNTS, path)
        if not controllers:
            unified = path
    return _way_up(root, _V2_MOUNTS, unified) if unified else []


def _way_up(root: Path, mounts: tuple[str, ...], group: str) -> list[str]:
    for mount in mounts:
        folder = root / mount / group.lstrip("/")
        if ".." in Path(group).parts or not folder.is_dir():
            folder = root / mount  # A container sees its own group as the top.
        found = []
        while True:
            if (folder / "cpu.stat").is_file():
                found.append(str(folder / "cpu.stat"))
            if folder == root / mount:
                break
            folder = folder.parent
        if found:
            return found
    return []


def _quota(path: str) -> tuple[int, int]:
    """Return (periods throttled, nanoseconds) of a cpu.stat."""
    try:
        pairs = (line.split() for line in read_file(path).splitlines())
        values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return 0, 0
    ns = values.get(b"throttled_usec", 0) * 1_000 + values.get(b"throttled_time", 0)
    return values.get(b"nr_throttled", 0), ns


def _count(path: str) -> int:
    try:
        return int(read_file(path))
    except (OSError, ValueError):
        return 0
