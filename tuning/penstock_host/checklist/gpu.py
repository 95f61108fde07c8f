"""The checklist's G1 to G8 and G9: a GPU that is awake, at one clock, near the hot cores, healthy and left alone."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.checklist import nvidia
from penstock_host.checklist.cpu import INFO, MUST, SHOULD, WRITTEN_BACK, R, hot_cpus
from penstock_host.checklist.items import Item, Persistence, Setting, Status, judge, report, turn
from penstock_host.checklist.knobs import ChoiceKnob
from penstock_host.checklist.knobs_command import GpuClockKnob, GpuKnob
from penstock_host.cpu_lists import format_cpus, parse_cpus
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.topology import Device

if TYPE_CHECKING:
    from penstock_host.host import Host

B: Final = Persistence.BOOT
ASPM: Final = "/sys/module/pcie_aspm/parameters/policy"
POLL_MS_MIN: Final = 10_000
_REASONS: Final = {
    0x4: "power cap", 0x8: "hardware slow-down", 0x20: "heat (driver)", 0x40: "heat (hardware)", 0x80: "power brake",
}  # fmt: skip
_ONLY_READ: Final = ("none: it is only read", "nothing to undo")


def gpu_of(host: Host) -> Device:
    """Return the GPU.

    Raises:
        AbsentError: there is none.
    """
    if host.topology.gpu is None:
        raise AbsentError("no NVIDIA GPU was found")
    return host.topology.gpu


def _persistence(host: Host) -> Iterable[Setting]:
    knob = GpuKnob(gpu_of(host).name, "persistence_mode")
    yield turn(
        host, knob, "Enabled", mend=f"run nvidia-persistenced; or {knob.shell('Enabled')} (legacy, lost at reboot)"
    )


def _clocks(host: Host) -> Iterable[Setting]:
    gpu = gpu_of(host).name
    wanted = str(host.profile.gpu_clock_mhz or int(nvidia.value(host, gpu, "clocks.max.gr")))
    yield turn(host, GpuClockKnob(gpu), wanted)
    try:
        active = int(nvidia.query(host, gpu, nvidia.REASONS)[0], 16)
    except (AbsentError, UnreadableError, ValueError):
        return
    slowed = [words for bit, words in _REASONS.items() if active & bit]
    yield judge(
        f"{gpu} slowed by", not slowed, "nothing", ", ".join(slowed) or "nothing", "lock a lower clock: gpu_clock_mhz = in the profile",
    )  # fmt: skip


def _compute_mode(host: Host) -> Iterable[Setting]:
    knob = GpuKnob(gpu_of(host).name, "compute_mode")
    if host.profile.gpu_exclusive:
        yield turn(host, knob, "Exclusive_Process")
    else:
        yield report(
            knob.label, knob.read(host), wanted="Exclusive_Process on a dedicated host",
            mend="gpu_exclusive = true in the profile sets it",
        )  # fmt: skip


def _bus(host: Host) -> Iterable[Setting]:
    gpu = gpu_of(host).name
    for part in ("gen", "width"):
        now = nvidia.value(host, gpu, f"pcie.link.{part}.current")
        most = nvidia.value(host, gpu, f"pcie.link.{part}.max")
        target = f"{gpu} PCIe {part}"
        if now == most:
            yield Setting(target, Status.OK, most, now)
        else:
            yield report(target, f"{now} of {most}", wanted=most, mend="idle links train down: look again under load")
    yield turn(host, ChoiceKnob(ASPM), "performance")


def _node(host: Host) -> Iterable[Setting]:
    hot = frozenset(hot_cpus(host))
    gpu = gpu_of(host)
    local = parse_cpus(host.read(f"{gpu.folder}/local_cpulist"))
    yield judge(
        f"{gpu.name} local CPUs", hot <= local, f"{format_cpus(hot)} inside", format_cpus(local) or "none",
        f"choose --hot-cores among {format_cpus(local & host.topology.online)}",
    )  # fmt: skip
    nic = host.topology.nic
    if nic is not None and nic.node >= 0 and gpu.node >= 0:
        yield judge(
            f"{nic.name} node", nic.node == gpu.node, f"node {gpu.node}, as the GPU", f"node {nic.node}",
            "use a port on the GPU's node, or another GPU",
        )  # fmt: skip


def _health(host: Host) -> Iterable[Setting]:
    gpu = gpu_of(host).name
    try:
        errors = nvidia.value(host, gpu, "ecc.errors.uncorrected.volatile.total")
        yield judge(f"{gpu} uncorrected ECC errors", errors == "0", "0", errors, "drain the host and reset the GPU")
    except AbsentError:
        yield report(f"{gpu} ECC", "off, or not on this card")
    try:
        pending, failed = (word.strip() for word in host.ask("nvidia-smi", "-i", gpu, *nvidia.REMAPPED).split(","))
        good = pending in {"0", "No"} and failed in {"0", "No"}
        yield judge(
            f"{gpu} remapped rows", good, "none pending", f"pending {pending}, failed {failed}", "reset the GPU"
        )
    except (AbsentError, UnreadableError, ValueError):
        pass  # Cards before Ampere have no such rows.
    try:
        faults = [line.strip() for line in host.ask("dmesg").splitlines() if "NVRM: Xid" in line and gpu[:-2] in line]
        yield judge(
            f"{gpu} Xid",
            not faults,
            "none since boot",
            faults[-1] if faults else "none",
            "look it up in NVIDIA's Xid table",
        )
    except (AbsentError, UnreadableError):
        pass  # The kernel's log is closed to this user.
    temperature = nvidia.value(host, gpu, "temperature.gpu")
    power = f"{nvidia.value(host, gpu, 'power.draw')} of {nvidia.value(host, gpu, 'power.limit')} W"
    yield report(f"{gpu} temperature and power", f"{temperature} C, {power}")


def _partitions(host: Host) -> Iterable[Setting]:
    gpu = gpu_of(host).name
    found = nvidia.value(host, gpu, "mig.mode.current")
    wanted = host.profile.mig
    if wanted == "any":
        yield report(f"{gpu} MIG", found, wanted="as configured")
    else:
        yield judge(f"{gpu} MIG", found.lower() == wanted, wanted, found, "never changed here: it resets the GPU")


def _loop_ms(words: list[str]) -> float:
    """Return how often an nvidia-smi with these words looks at the GPU; infinity for once."""
    flags = {"-l": 1000, "--loop": 1000, "-lms": 1, "--loop-ms": 1, "-d": 1000}
    watches = {"dmon", "pmon"} & set(words)
    often = 1000.0 if watches else math.inf
    for word, after in itertools.pairwise([*words, ""]):
        flag, _, value = word.partition("=")
        if flag in flags and (watches or flag != "-d"):
            # Without a number it is 5 s; a word that is none tells nothing, so the worst is taken.
            often = float(value or after) * flags[flag] if (value or after).isdigit() else 1000.0
    return often


def _watch_ms(words: list[str]) -> float:
    """Return how often a ``watch`` with these words runs its command."""
    given = re.search(r"(?:^| )(?:-n ?|--interval[ =])([0-9.]+)", " ".join(words))
    try:
        return float(given[1]) * 1000 if given else 2000.0
    except ValueError:
        return 0.0


def _pollers(host: Host) -> Iterable[Setting]:
    gpu_of(host)
    host.see_processes()
    found = []
    for process, words in host.processes():
        name = words[0].rsplit("/", 1)[-1] if words else ""
        rest = words[1:]
        if (name == "nvidia-smi" and _loop_ms(rest) < POLL_MS_MIN) or (
            name == "watch" and "nvidia-smi" in " ".join(rest) and _watch_ms(rest) < POLL_MS_MIN
        ):
            found.append(f"{' '.join(words)} (process {process})")
        elif name.startswith("dcgm-exporter"):
            given = [after for flag, after in itertools.pairwise(rest) if flag in {"-c", "--collect-interval"}]
            if given and given[0].isdigit() and int(given[0]) < POLL_MS_MIN:
                found.append(f"{name} every {given[0]} ms (process {process})")
    yield judge(
        "who watches the GPU", not found, "nobody more often than every 10 s", ", ".join(found) or "nobody", "stop it, or ask less often",
    )  # fmt: skip


def _direct(host: Host) -> Iterable[Setting]:
    gpu_of(host)
    modules = {line.split()[0] for line in host.read("/proc/modules").splitlines() if line.strip()}
    there = sorted(modules & {"nvidia_peermem", "gdrdrv"})
    yield report(
        "modules", ", ".join(there) or "neither nvidia_peermem nor gdrdrv", wanted="not needed: ticks come by TCP"
    )


ITEMS: Final = (
    Item(
        "G1", "persistence mode", "gpu", MUST, R, "Enabled",
        "without it the driver unloads the GPU when nobody uses it, and the next start takes seconds",
        "a few watts; -pm 1 is legacy: nvidia-persistenced is preferred", "nvidia-smi -pm 0", "nvidia-persistenced(1)", _persistence,
    ),
    Item(
        "G2", "GPU clocks", "gpu", MUST, R, "locked, at a value that survives the power cap",
        "a GPU that idles between ticks lowers its clock, and the next tick pays",
        "heat, power cap; some cards refuse; whether a clock is locked can't be read", "nvidia-smi -rgc", "nvidia-smi(1), NVIDIA Aerial",
        _clocks,
    ),
    Item(
        "G3", "compute mode", "gpu", INFO, R, "Exclusive_Process on a dedicated host",
        "another process on the GPU takes turns with ours", "blocks profilers, and a warm standby on the same GPU",
        "nvidia-smi -c DEFAULT, or what was there before", "nvidia-smi(1)", _compute_mode,
    ),
    Item(
        "G4", "PCIe link", "gpu", SHOULD, R, "as wide and fast as it can be; ASPM policy performance",
        "a link that sleeps takes microseconds to wake", "power", WRITTEN_BACK, "kernel documentation, PCI/pcieaspm", _bus,
    ),
    Item(
        "G5", "the GPU's node", "gpu", MUST, B, "hot cores and network card on the GPU's node",
        "each tick crosses between sockets, twice", *_ONLY_READ, "nvidia-smi topo -m; NVIDIA Aerial", _node,
    ),
    Item(
        "G6", "the GPU's health", "gpu", MUST, B, "no error pending", "a GPU that mends itself pauses, or fails",
        *_ONLY_READ, "NVIDIA, Xid errors", _health,
    ),
    Item(
        "G7", "MIG", "gpu", INFO, B, "as configured", "a slice of a GPU has a slice of its speed", *_ONLY_READ,
        "nvidia-smi(1)", _partitions,
    ),
    Item(
        "G8", "who watches the GPU", "gpu", SHOULD, Persistence.PROCESS, "nobody more often than every 10 s",
        "watching nvidia-smi takes locks in the driver, and launches wait", *_ONLY_READ,
        "open-gpu-kernel-modules issue 953 (open)", _pollers,
    ),
    Item(
        "G9", "GPUDirect modules", "gpu", INFO, B, "not needed", "ticks come by TCP, through the host's memory",
        *_ONLY_READ, "NVIDIA GPUDirect RDMA", _direct,
    ),
)  # fmt: skip
