"""The checklist's I1 to I3, I5, I9: no interrupt on a hot core, and those of the devices near them.

An interrupt has one wanted place, whichever item looks at it: what counts is where the kernel really delivers it,
and that moves with the next interrupt only. Until then it is PENDING.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.cpu import MUST, SHOULD, WRITTEN_BACK, R, hot_cpus, isolated_cpus
from penstock_host.checklist.items import Item, Setting, Status, file, judge, turn
from penstock_host.checklist.knobs_command import UnitKnob
from penstock_host.cpu_lists import format_cpus, format_mask, parse_cpus, parse_mask
from penstock_host.faults import AbsentError
from penstock_host.topology import CPU, Device

if TYPE_CHECKING:
    from penstock_host.host import Host

IRQ: Final = "/proc/irq"
BANNED: Final = "IRQBALANCE_BANNED_CPULIST"
DROP_IN: Final = "/etc/systemd/system/irqbalance.service.d/penstock.conf"
_FILES: Final = ("/etc/default/irqbalance", "/etc/sysconfig/irqbalance")
_IRQ_SOURCE: Final = "kernel documentation, core-api/irq/irq-affinity.rst; TuneD pull request 364"


def irq_setting(host: Host, number: int, where: frozenset[int] | None = None) -> Setting:
    """Return the setting of one interrupt: on no hot core nor beside one, and within *where* if that is given."""
    topology = host.topology
    quiet = topology.hot | topology.siblings
    device = next((one for one in (topology.nic, topology.gpu) if one and number in one.irqs), None)
    folder = f"{IRQ}/{number}"

    def good(text: str) -> bool:
        cpus = parse_cpus(text)
        return bool(cpus) and not cpus & quiet and (where is None or cpus <= where)

    wanted = format_cpus(topology.near(device))
    shown = f"within {format_cpus(where)}" if where else f"none of {format_cpus(quiet)}"
    setting = file(host, f"{folder}/smp_affinity_list", wanted, form="list", accept=good, shown=shown)
    if setting.status is not Status.OK:
        return setting
    try:
        effective = host.read_or(f"{folder}/effective_affinity_list")
        if effective and not good(effective):
            return replace(
                setting, status=Status.PENDING, found=f"{effective} in effect, {setting.found} asked for",
                mend="it moves with the next interrupt", knob=None,
            )  # fmt: skip
    except ValueError as fault:
        return replace(setting, status=Status.UNREADABLE, found="not understood", mend=str(fault), knob=None)
    return setting


def _irqbalance(host: Host) -> Iterable[Setting]:
    hot = frozenset(hot_cpus(host))
    union = hot | isolated_cpus(host) | parse_cpus(host.read_or(f"{CPU}/nohz_full"))
    running = [process for process, words in host.processes() if words and words[0].rsplit("/", 1)[-1] == "irqbalance"]
    file_name = next((name for name in _FILES if host.exists(name)), _FILES[0])
    banned = _banned(host, running, file_name)
    shown = f"inactive, or {BANNED} with {format_cpus(union)}"
    line = f"{BANNED}={format_cpus(union | banned)}"
    where = f"in {file_name} write {line}"
    if not re.search(rf"^\s*{BANNED}=", host.read_or(file_name), re.MULTILINE):
        where = f"as {DROP_IN} write [Service] and, below, Environment={line}"
    drop_in = (
        f"systemctl stop irqbalance; or {where} (with the isolated ones: setting it ends irqbalance's own exclusion of "
        "them) and restart it"
    )
    setting = turn(
        host, UnitKnob("irqbalance"), "inactive", accept=lambda state: state == "active" and union <= banned, shown=shown, mend=drop_in,
    )  # fmt: skip
    if setting.status is Status.UNSUPPORTED:
        if not running:
            raise AbsentError("no irqbalance runs here")
        setting = judge("irqbalance", union <= banned, shown, f"process {running[0]}", f"stop it; or {drop_in}")
    yield setting


def _banned(host: Host, running: list[int], file_name: str) -> frozenset[int]:
    """Return the CPUs that irqbalance keeps off: from its process where that can be seen, else from its file."""
    # The file may have been changed since: what the process was started with is what counts.
    told = []
    for process in running:
        with contextlib.suppress(AbsentError):
            told.append(host.read(f"/proc/{process}/environ").replace("\0", "\n"))
    text = "\n".join(told) if told else host.read_or(file_name)
    banned = frozenset[int]()
    listed = re.search(rf"^\s*(?:export\s+)?{BANNED}=[\"']?([0-9,-]*)", text, re.MULTILINE)
    masked = re.search(r"^\s*(?:export\s+)?IRQBALANCE_BANNED_CPUS=[\"']?([0-9a-fA-F,]+)", text, re.MULTILINE)
    if listed:
        banned |= parse_cpus(listed[1])
    if masked:
        banned |= parse_mask(masked[1])
    return banned


def _each(host: Host) -> Iterable[Setting]:
    hot_cpus(host)
    numbers = [int(name.rsplit("/", 1)[1]) for name in host.names(f"{IRQ}/[0-9]*") if name.rsplit("/", 1)[1].isdigit()]
    if not numbers:
        raise AbsentError(f"{IRQ} has no interrupts")
    for number in numbers:
        yield irq_setting(host, number)


def _default(host: Host) -> Iterable[Setting]:
    hot_cpus(host)
    rest = host.topology.housekeeping
    quiet = host.topology.hot | host.topology.siblings
    yield file(
        host, f"{IRQ}/default_smp_affinity", format_mask(rest), form="mask", shown=format_cpus(rest),
        accept=lambda found: bool(parse_mask(found)) and not parse_mask(found) & quiet,
    )  # fmt: skip


def _near(host: Host, device: Device | None, kind: str) -> Iterable[Setting]:
    hot_cpus(host)
    if device is None:
        raise AbsentError(f"no {kind} was found")
    local = host.topology.nodes.get(device.node, host.topology.online)
    numbers = sorted(number for number in device.irqs if host.exists(f"{IRQ}/{number}"))
    if not numbers:
        raise AbsentError(f"{device.name} has no interrupts of its own")
    for number in numbers:
        yield irq_setting(host, number, local if local & host.topology.housekeeping else None)


def _network(host: Host) -> Iterable[Setting]:
    return _near(host, host.topology.nic, "network card")


def _gpu(host: Host) -> Iterable[Setting]:
    return _near(host, host.topology.gpu, "GPU")


def managed(host: Host, setting: Setting) -> Setting:
    """Return the setting of an interrupt that the kernel places itself: a write gave EIO."""
    hot = format_cpus(host.topology.hot)
    return replace(
        setting, status=Status.REPORT_ONLY, knob=None, found=f"{setting.found}, managed by the kernel",
        mend=f"only isolcpus=managed_irq,domain,{hot} on the kernel command line keeps it off",
    )  # fmt: skip


ITEMS: Final = (
    Item(
        "I1", "irqbalance", "host", MUST, R, "inactive, or kept off hot, isolated and nohz_full CPUs",
        "it moves interrupts onto hot cores every ten seconds", "interrupts of other cards stay where they are",
        "the unit is started again", "irqbalance(1): a banned list replaces its own exclusion of isolated CPUs", _irqbalance,
    ),
    Item(
        "I2", "interrupts", "irq", MUST, R, "on no hot core, nor on its sibling",
        "each interrupt takes a few us from the tick that is being predicted", "housekeeping cores take the load",
        WRITTEN_BACK, _IRQ_SOURCE, _each,
    ),
    Item(
        "I3", "default affinity of interrupts", "host", SHOULD, R, "housekeeping CPUs",
        "a driver that starts later puts its interrupts there", "none known", WRITTEN_BACK, _IRQ_SOURCE, _default,
    ),
    Item(
        "I5", "the network card's interrupts", "nic", SHOULD, R, "on housekeeping CPUs of the card's node",
        "a packet that crosses nodes costs a trip between sockets", "as I2", WRITTEN_BACK, "Seastar's perftune.py", _network,
    ),
    Item(
        "I9", "the GPU's interrupts", "gpu", SHOULD, R, "on housekeeping CPUs of the GPU's node",
        "the driver's interrupts otherwise land on a hot core", "lost if the driver registers them again", WRITTEN_BACK,
        "NVIDIA Aerial, cuBB_system_checks.py", _gpu,
    ),
)  # fmt: skip
