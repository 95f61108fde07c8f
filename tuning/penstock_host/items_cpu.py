"""The checklist's C1 to C16: isolation, siblings, frequency, sleep states, and what else runs on the hot cores.

Wanted values follow from the topology alone: hot cores get no timer, no thread and no work of others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.faults import AbsentError
from penstock_host.items import (
    Item,
    Persistence,
    Setting,
    Severity,
    absent,
    file,
)
from penstock_host.topology import CPU

if TYPE_CHECKING:
    from penstock_host.host import Host

R, B = Persistence.RUNTIME, Persistence.BOOT
MUST, SHOULD, INFO = Severity.MUST, Severity.SHOULD, Severity.INFO
RED_HAT: Final = "TuneD profiles latency-performance, network-latency, cpu-partitioning"


def hot_cpus(host: Host) -> list[int]:
    """Return the hot CPUs in order.

    Raises:
        AbsentError: this host can't set a core aside.
    """
    hot = sorted(host.topology.hot)
    if not hot:
        raise AbsentError("no core can be set aside on this host")
    return hot


def _governor(host: Host) -> Iterable[Setting]:
    for cpu in hot_cpus(host):
        folder = f"{CPU}/cpu{cpu}/cpufreq"
        choices = host.read_or(f"{folder}/scaling_available_governors").split()
        if choices and "performance" not in choices:
            yield absent(f"{folder}/scaling_governor", "the driver has no performance governor")
        else:
            yield file(host, f"{folder}/scaling_governor", "performance")
        if host.exists(f"{folder}/energy_performance_preference"):
            yield file(
                host,
                f"{folder}/energy_performance_preference",
                "performance",
                accept=lambda found: found.strip() == "0",
            )


ITEMS: Final = (
    Item(
        "C5", "frequency governor", "cpu", MUST, R, "performance on every hot core",
        "a governor that saves power lowers the clock between ticks, and the next tick pays milliseconds",
        "heat and power", "the governor from the journal", RED_HAT, _governor,
    ),
)  # fmt: skip
