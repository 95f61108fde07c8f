"""What the operator chose: hot cores, devices, items and thresholds, from a TOML file and from flags.

Flags go before the file. All faults are reported together, each with the key, what it must be, and what it was.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock_host.cpu_lists import parse_cpus
from penstock_host.faults import ProfileError

SEVERITIES: Final = ("must", "should", "info")


@dataclass(frozen=True)
class Profile:
    """What is wanted of a host, where it is not the same for all hosts.

    Attributes:
        hot_cores: of the pinned threads; None to have them chosen.
        nic: the port that carries ticks, such as "eth0"; None for the fastest.
        gpu: by number or address, such as "0000:3b:00.0"; None for the first.
        only: item ids to look at; empty for all.
        skip: item ids to leave out.
        severity: the least: "must", "should" or "info".
        smt: "siblings" to take those of hot cores offline, "off" for the whole host, "keep".
        turbo: "on", "off", or "keep" to leave it as it is.
        fifo: whether a pinned thread runs under SCHED_FIFO.
        hugepages: 2 MiB pages to set aside on the GPU's node.
        hugepages_node: where no GPU says; the node of the hot cores otherwise.
        nic_queues: combined queues; 0 for as many as housekeeping cores.
        nic_ring: entries of the receive ring; 0 to leave it as it is.
        rx_usecs_max: the longest the card may gather packets before it interrupts.
        link_mbps: the speed that the link should have; 0 for any.
        gpu_clock_mhz: the clock to lock; 0 for the highest.
        gpu_exclusive: whether one process alone may use the GPU.
        mig: "enabled", "disabled", or "any".
        offset_ns_max: how far the clock may be from its master.
        rms_ns_max: the same, of the system clock.
        stale_s_max: the oldest that phc2sys's last word may be.
        utc_ns_max: how far from UTC the host may be in all.
        sample_s: how long to watch counters that should stand still.
    """

    hot_cores: frozenset[int] | None = None
    nic: str | None = None
    gpu: str | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    severity: str = "info"
    smt: str = "siblings"
    turbo: str = "keep"
    fifo: bool = False
    hugepages: int = 0
    hugepages_node: int = -1
    nic_queues: int = 0
    nic_ring: int = 0
    rx_usecs_max: int = 0
    link_mbps: int = 0
    gpu_clock_mhz: int = 0
    gpu_exclusive: bool = False
    mig: str = "any"
    offset_ns_max: int = 1_000
    rms_ns_max: int = 1_000
    stale_s_max: float = 1.5
    utc_ns_max: int = 100_000
    sample_s: float = 0.5


def load_profile(file: Path | None, flags: Mapping[str, Any], item_ids: tuple[str, ...]) -> Profile:
    """Return the profile of *file* with *flags* over it.

    Args:
        file: TOML with the names of ``Profile`` as keys; None for none.
        flags: by the same names; None where a flag was not given.
        item_ids: those that exist.

    Raises:
        ProfileError: with all faults.
    """
    faults: list[str] = []
    values: dict[str, Any] = {}
    if file is not None:
        try:
            with file.open("rb") as opened:
                values = tomllib.load(opened)
        except (OSError, UnicodeDecodeError) as refusal:
            faults.append(f"--profile: must be a file that can be read, was {file}: {refusal}")
        except tomllib.TOMLDecodeError as fault:
            faults.append(f"--profile: must be TOML, was {file}: {fault}")
    values |= {key: value for key, value in flags.items() if value is not None}
    known = {field.name: field for field in dataclasses.fields(Profile)}
    taken: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            faults.append(f"{key}: no such key; known are {', '.join(known)}")
            continue
        try:
            taken[key] = _CHECKS.get(key, _like(known[key].default))(value, item_ids)
        except ValueError as fault:
            faults.append(f"{key}: must be {fault}, was {value!r}")
    if faults:
        raise ProfileError("\n".join(faults))
    return Profile(**taken)


def _like(default: object) -> Callable[[Any, tuple[str, ...]], Any]:
    def check(value: Any, item_ids: tuple[str, ...]) -> Any:
        del item_ids
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ValueError("true or false")  # noqa: TRY004 (gathered with the others)
        elif isinstance(default, int):
            # -1 is only where that is what nobody chose.
            least = min(default, 0)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 40:
                raise ValueError(f"a whole number, {least} or more and under 2**40")
        elif isinstance(default, float):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
                raise ValueError("a number from 0 to 3600")
            return float(value)
        elif not isinstance(value, str) or not value or len(value) > 64 or "/" in value or value.startswith(("-", ".")):
            raise ValueError("a name")
        return value

    return check


def _one_of(*choices: str) -> Callable[[Any, tuple[str, ...]], str]:
    def check(value: Any, item_ids: tuple[str, ...]) -> str:
        del item_ids
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return str(value)

    return check


def _cores(value: Any, item_ids: tuple[str, ...]) -> frozenset[int]:
    del item_ids
    if not isinstance(value, str):
        raise ValueError('a list of CPUs in quotes, such as "2-5"')  # noqa: TRY004 (gathered with the others)
    try:
        cpus = parse_cpus(value)
    except ValueError:
        raise ValueError('a list of CPUs such as "2-5"') from None
    if not cpus:
        raise ValueError('at least one CPU, such as "2-5"')
    return cpus


def _ids(value: Any, item_ids: tuple[str, ...]) -> tuple[str, ...]:
    given = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise ValueError("item ids such as C5, I2")
    ids = []
    if isinstance(value, str) and not given:
        raise ValueError("item ids such as C5, I2; none would be all of them")
    for one in given:
        # A letter stands for its whole group.
        matching = [
            item
            for item in item_ids
            if item == one.upper() or (one.isalpha() and item.rstrip("0123456789") == one.upper())
        ]
        if not matching:
            raise ValueError(f"item ids such as C5, I2 or a group such as N (no item is called {one})")
        ids += matching
    return tuple(dict.fromkeys(ids))


_CHECKS: Final[dict[str, Callable[[Any, tuple[str, ...]], Any]]] = {
    "hot_cores": _cores,
    "only": _ids,
    "skip": _ids,
    "severity": _one_of(*SEVERITIES),
    "smt": _one_of("siblings", "off", "keep"),
    "turbo": _one_of("on", "off", "keep"),
    "mig": _one_of("enabled", "disabled", "any"),
}
