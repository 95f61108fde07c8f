"""What a host was while it was measured: figures mean nothing without it.

Each fact is read from its file; a file that is not there leaves its fact out, and never fails a measurement.

    differences(facts, facts) == []
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from penstock_host.affinity import format_cpus

# What must be the same for two measurements to tell of tuning alone, and its words.
_SAME_HOST: Final = {"node": "host", "cpu_model": "CPU", "virtualised": "virtualisation"}

# What tuning changes, and a reader of two measurements wants to see changed.
_TUNED: Final = (
    "cpus_online",
    "isolated",
    "nohz_full",
    "smt",
    "governors",
    "clocksource",
    "transparent_hugepage",
    "kernel",
    "cmdline",
)


def host_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts of the host at *root*, each only where it can be read."""
    system = root / "sys/devices/system"
    facts: dict[str, Any] = {
        "node": _text(root / "proc/sys/kernel/hostname") or (platform.node() if root == Path("/") else None),
        "cpu_model": _cpu_model(root),
        "cpus_online": _text(system / "cpu/online"),
        "cpus_allowed": format_cpus(frozenset(os.sched_getaffinity(0))),
        "isolated": _text(system / "cpu/isolated"),
        "nohz_full": _text(system / "cpu/nohz_full"),
        "smt": _text(system / "cpu/smt/control"),
        "governors": _governors(system / "cpu"),
        "clocksource": _text(system / "clocksource/clocksource0/current_clocksource"),
        "transparent_hugepage": _text(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        "kernel": _text(root / "proc/sys/kernel/osrelease"),
        "kernel_version": _text(root / "proc/sys/kernel/version"),
        "realtime_kernel": _text(root / "sys/kernel/realtime") == "1",
        "cmdline": _text(root / "proc/cmdline"),
        "virtualised": _virtualised(root),
        "load": (_text(root / "proc/loadavg") or "").split()[:3],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    return {name: value for name, value in facts.items() if value not in (None, "", [])}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each fact by which two measurements are of different hosts; empty for the same one."""
    return [
        f"{words}: {first.get(name, 'unknown')} and {second.get(name, 'unknown')}"
        for name, words in _SAME_HOST.items()
        if first.get(name) != second.get(name)
    ]


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what was set differently on the same host: what tuning changed, as far as the facts say."""
    return [
        f"{name}: was {first.get(name) or 'none'}, is {second.get(name) or 'none'}"
        for name in _TUNED
        if (first.get(name) or None) != (second.get(name) or None)
    ]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _cpu_model(root: Path) -> str | None:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _governors(cpus: Path) -> str | None:
    """Return the governors in force, such as "performance" or "performance, powersave"."""
    found = {_text(path) for path in sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_governor"))} - {None, ""}
    return ", ".join(sorted(str(one) for one in found)) or None


def _virtualised(root: Path) -> str:
    """Return "no", or what the host is a guest of, as far as it says so itself."""
    kind = _text(root / "sys/hypervisor/type")
    if kind:
        return kind
    flags = _text(root / "proc/cpuinfo") or ""
    guest = any("hypervisor" in line.split() for line in flags.splitlines() if line.startswith("flags"))
    product = " ".join(
        filter(None, (_text(root / "sys/class/dmi/id/sys_vendor"), _text(root / "sys/class/dmi/id/product_name")))
    )
    if guest:
        return f"guest ({product})" if product else "guest"
    return "no"
