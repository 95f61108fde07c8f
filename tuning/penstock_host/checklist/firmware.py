"""The checklist's F1 and F2: what the firmware does behind the kernel's back; read, told, never set."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.cpu import INFO, SHOULD
from penstock_host.checklist.items import Item, Persistence, Setting, judge, report
from penstock_host.faults import AbsentError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host

F: Final = Persistence.FIRMWARE
SMI_COUNT: Final = 0x34  # MSR_SMI_COUNT, of Intel's processors.
DMI: Final = "/sys/class/dmi/id"
_HINTS: Final = {
    "dell": "System Profile: Performance",
    "hpe": "Workload Profile: Low Latency",
    "lenovo": "Operating Mode: Maximum Performance",
    "supermicro": "Power Technology: Disable, or Energy Performance: Performance",
}


def _interrupts(host: Host) -> Iterable[Setting]:
    cpu = min(host.topology.hot, default=0)
    name = f"/dev/cpu/{cpu}/msr"
    if "GenuineIntel" not in host.read_or("/proc/cpuinfo"):
        raise AbsentError("this processor does not count system management interrupts")
    if not host.exists(name):
        raise AbsentError(f"{name} is absent: modprobe msr shows it")
    before = _count(host, name)
    host.wait()
    after = _count(host, name)
    yield judge(
        f"system management interrupts of CPU {cpu}", after == before, "0 while watched", f"{after - before} ({after} since power-on)",
        "look for power capping, USB emulation and error polling in the firmware's set-up; never switch all SMIs off",
    )  # fmt: skip


def _count(host: Host, name: str) -> int:
    data = host.read_bytes(name, 8, offset=SMI_COUNT)
    if len(data) != 8:
        raise UnreadableError(f"{name} gave {len(data)} bytes, not 8")
    return int(struct.unpack("=Q", data)[0]) & 0xFFFFFFFF


def _profile(host: Host) -> Iterable[Setting]:
    vendor = host.read_or(f"{DMI}/sys_vendor")
    if not vendor:
        raise AbsentError(f"{DMI}/sys_vendor is absent")
    parts = [vendor, *(host.read_or(f"{DMI}/{name}") for name in ("product_name", "bios_version", "bios_date"))]
    hint = next(
        (words for key, words in _HINTS.items() if key in vendor.lower()), "its profile for maximum performance"
    )
    yield report(
        "firmware", " ".join(part for part in parts if part), wanted="maximum performance", mend=f"look for: {hint}"
    )


ITEMS: Final = (
    Item(
        "F1", "system management interrupts", "cpu", SHOULD, F, "0 over the trading day",
        "the firmware stops all CPUs for it, for 100 us and more, and the kernel sees nothing but lost time",
        "none: it is only read; SMIs as a whole protect the hardware", "nothing to undo", "Red Hat: never disable SMIs completely",
        _interrupts,
    ),
    Item(
        "F2", "firmware profile", "host", INFO, F, "maximum performance",
        "a firmware that saves power overrides governor and sleep states", "none: it is only read", "nothing to undo",
        "the vendor's tuning guide", _profile,
    ),
)  # fmt: skip
