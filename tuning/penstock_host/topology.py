"""The host's CPUs: which are online, siblings and nodes; which of them are hot, and which are left for all else.

hot              cores of the pinned threads: asked for, or isolated at boot, or chosen here
siblings         the other threads of the hot cores; nobody should run there
housekeeping     online - hot - siblings

0 not in hot | siblings;  hot <= online;  every node with CPUs keeps a housekeeping core
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from penstock_host.cpu_lists import format_cpus, parse_cpus
from penstock_host.faults import ProfileError, TopologyError

if TYPE_CHECKING:
    from penstock_host.host import Host

CPU: Final = "/sys/devices/system/cpu"
NODE: Final = "/sys/devices/system/node"
P_CORES: Final = "/sys/devices/cpu_core/cpus"  # Of a processor that has E cores too.
_NVIDIA: Final = "0x10de"
_CORES_PER_LINE: Final = 32
_CORES_FOR_TWO: Final = 6  # A node with this many cores can spare one for the engine and one for the event loop.


@dataclass(frozen=True)
class Device:
    """A network card's port or a GPU: its name, where it is in /sys, and the node it hangs on (-1 for none said)."""

    name: str
    folder: str
    node: int
    irqs: frozenset[int]


@dataclass(frozen=True)
class Topology:
    """What the host has, and how it is divided."""

    online: frozenset[int]
    cores: tuple[frozenset[int], ...]  # The threads of each core, of what is online.
    packages: dict[int, int]  # Of each CPU.
    nodes: dict[int, frozenset[int]]
    hot: frozenset[int]
    siblings: frozenset[int]
    chosen: str  # By whom: words for the picture.
    nic: Device | None
    gpu: Device | None

    @property
    def housekeeping(self) -> frozenset[int]:
        """The CPUs for everything but the pinned threads."""
        return self.online - self.hot - self.siblings

    def near(self, device: Device | None) -> frozenset[int]:
        """Return the housekeeping CPUs on *device*'s node, or all where it has none."""
        local = self.nodes.get(device.node, frozenset()) if device else frozenset()
        return local & self.housekeeping or self.housekeeping

    def node_of(self, cpu: int) -> int:
        """Return the node of *cpu*, or -1."""
        return next((node for node, cpus in self.nodes.items() if cpu in cpus), -1)


def read_topology(host: Host) -> Topology:
    """Return the topology of *host*, with the hot cores that its profile names, or some chosen here.

    Raises:
        ProfileError: the card or GPU that was named is not there.
        TopologyError: the host does not say what CPUs it has, or those asked for can't be set aside.
    """
    try:
        online = parse_cpus(host.read_or(f"{CPU}/online"))
    except ValueError as fault:
        raise TopologyError(f"{CPU}/online: {fault}") from fault
    if not online:
        online = frozenset(
            int(name[len(CPU) + 4 :]) for name in host.names(f"{CPU}/cpu[0-9]*") if name[len(CPU) + 4 :].isdigit()
        )
    if not online:
        raise TopologyError(f"{CPU}/online is needed to tell the cores apart, and can't be read")
    siblings = {cpu: _list(host, f"{CPU}/cpu{cpu}/topology/thread_siblings_list") & online | {cpu} for cpu in online}
    cores = tuple(sorted({frozenset(threads) for threads in siblings.values()}, key=min))
    packages = {cpu: _number(host, f"{CPU}/cpu{cpu}/topology/physical_package_id", 0) for cpu in online}
    nodes = {
        int(name.rsplit("node", 1)[1]): _list(host, f"{name}/cpulist") & online
        for name in host.names(f"{NODE}/node[0-9]*")
        if name.rsplit("node", 1)[1].isdigit()
    }
    nodes = {node: cpus for node, cpus in nodes.items() if cpus} or {0: online}
    nic, gpu = find_nic(host), find_gpu(host)
    asked = host.profile.hot_cores
    isolated = _list(host, f"{CPU}/isolated")
    if asked is not None:
        hot, chosen = asked, "asked for"
        _check(hot, siblings, online, nodes)
    elif isolated and not _faults(isolated, siblings, online, nodes):
        hot, chosen = isolated, "isolated already"
    else:
        hot = _choose(cores, _strong(host, cores), nodes, gpu, nic)
        chosen = "chosen here; --hot-cores for others" if hot else "no core can be set aside"
    beside = frozenset[int]().union(*(siblings[cpu] for cpu in hot)) - hot
    return Topology(online, cores, packages, nodes, hot, beside, chosen, nic, gpu)


def find_nic(host: Host) -> Device | None:
    """Return the port that the profile names, or the fastest one with a device behind it that is up."""
    ports = []
    for folder in host.names("/sys/class/net/*"):
        name = folder.rsplit("/", 1)[1]
        if not host.exists(f"{folder}/device") or name.startswith("."):
            continue
        if host.profile.nic is None and host.read_or(f"{folder}/operstate") not in {"up", "unknown"}:
            continue
        if host.profile.nic in {None, name}:
            ports.append((_number(host, f"{folder}/speed", 0), name, folder))
    if not ports and host.profile.nic is not None:
        known = [folder.rsplit("/", 1)[1] for folder in host.names("/sys/class/net/*")]
        raise ProfileError(
            f"--nic: must be a port of this host with a device behind it, was {host.profile.nic}; there are {', '.join(known) or 'none'}"
        )
    if not ports:
        return None
    _, name, folder = max(ports, key=lambda port: port[0])
    return Device(name, folder, _number(host, f"{folder}/device/numa_node", -1), _irqs(host, f"{folder}/device"))


def find_gpu(host: Host) -> Device | None:
    """Return the NVIDIA GPU that the profile names by address or number, or the first one."""
    found = [
        folder
        for folder in host.names("/sys/bus/pci/devices/*")
        if host.read_or(f"{folder}/vendor") == _NVIDIA and host.read_or(f"{folder}/class").startswith("0x03")
    ]
    wanted = host.profile.gpu
    for number, folder in enumerate(found):
        name = folder.rsplit("/", 1)[1]
        # nvidia-smi writes eight digits of the domain, /sys four.
        if wanted is None or wanted == str(number) or wanted.lower().endswith(name.lower()):
            return Device(name, folder, _number(host, f"{folder}/numa_node", -1), _irqs(host, folder))
    if wanted is not None:
        known = ", ".join(folder.rsplit("/", 1)[1] for folder in found)
        raise ProfileError(f"--gpu: must be an NVIDIA GPU of this host, was {wanted}; there are {known or 'none'}")
    return None


def picture(topology: Topology) -> str:
    """Draw the host: a line per node, a letter per CPU, and the devices on their nodes."""
    lines = []
    for node, cpus in sorted(topology.nodes.items()):
        cells = ["".join(_letter(topology, cpu) for cpu in sorted(core)) for core in topology.cores if core & cpus]
        devices = [
            f"{kind} {device.name}"
            for kind, device in (("NIC", topology.nic), ("GPU", topology.gpu))
            if device and (device.node == node or (device.node not in topology.nodes and node == min(topology.nodes)))
        ]
        package = sorted({topology.packages[cpu] for cpu in cpus})
        where = f"node {node} (package {','.join(map(str, package))})"
        rows = [" ".join(cells[first : first + _CORES_PER_LINE]) for first in range(0, len(cells), _CORES_PER_LINE)]
        drawn = f"\n{'':<24}".join(rows)
        lines.append(f"  {where:<20} [{drawn}]{''.join(f'  -- {device}' for device in devices)}")
    hot = format_cpus(topology.hot) or "none"
    beside = format_cpus(topology.siblings)
    lines.append(f"  H hot {hot} ({topology.chosen})")
    if beside:
        lines.append(f"  s siblings of hot {beside}, to stay idle")
    lines.append(f"  . housekeeping {format_cpus(topology.housekeeping)}")
    return "\n".join(lines)


def _letter(topology: Topology, cpu: int) -> str:
    return "H" if cpu in topology.hot else "s" if cpu in topology.siblings else "."


def _strong(host: Host, cores: tuple[frozenset[int], ...]) -> frozenset[int]:
    """Return the CPUs of the strongest kind, where a processor has several: Intel's P beside E, Arm's big beside little."""
    strong = _list(host, P_CORES)
    if strong:
        return strong
    capacity = {core: _number(host, f"{CPU}/cpu{min(core)}/cpu_capacity", 0) for core in cores}
    most = max(capacity.values())
    return frozenset[int]().union(*(core for core in cores if capacity[core] == most))


def _choose(
    cores: tuple[frozenset[int], ...],
    strong: frozenset[int],
    nodes: dict[int, frozenset[int]],
    gpu: Device | None,
    nic: Device | None,
) -> frozenset[int]:
    """Choose the last strong cores of the node where the GPU, else the network card is, else of the last node."""
    preferred = [device.node for device in (gpu, nic) if device and device.node in nodes]
    for node in [*preferred, *sorted(nodes, reverse=True)]:
        local = [core for core in cores if core & nodes[node]]
        free = sorted((core for core in local if 0 not in core), key=lambda core: bool(core & strong))
        count = 2 if len(local) >= _CORES_FOR_TWO else 1
        if len(local) > count and len(free) >= count:
            # The first thread of each: the choice stays the same once the others are offline.
            return frozenset(min(core) for core in free[-count:])
    return frozenset()


def _check(
    hot: frozenset[int],
    siblings: dict[int, frozenset[int]],
    online: frozenset[int],
    nodes: dict[int, frozenset[int]],
) -> None:
    faults = _faults(hot, siblings, online, nodes)
    if faults:
        raise TopologyError("; ".join(faults))


def _faults(
    hot: frozenset[int],
    siblings: dict[int, frozenset[int]],
    online: frozenset[int],
    nodes: dict[int, frozenset[int]],
) -> list[str]:
    faults = []
    was = format_cpus(hot)
    if hot - online:
        faults.append(f"hot cores must be online, was {was}, of which {format_cpus(hot - online)} is not")
    if 0 in hot:
        faults.append(f"hot cores must not include CPU 0, which the kernel itself needs, was {was}")
    taken = hot.union(*(siblings[cpu] for cpu in hot & online))
    if 0 in taken and 0 not in hot:
        faults.append(f"hot cores must not share a core with CPU 0, was {was}; choose another core")
    for node, cpus in sorted(nodes.items()):
        if cpus & hot and cpus <= taken:
            faults.append(
                f"node {node} must keep a housekeeping core beside hot {was}; leave one of {format_cpus(cpus)}"
            )
    return faults


def _list(host: Host, name: str) -> frozenset[int]:
    try:
        return parse_cpus(host.read_or(name))
    except ValueError:
        return frozenset()


def _number(host: Host, name: str, otherwise: int) -> int:
    try:
        return int(host.read_or(name))
    except ValueError:
        return otherwise


def _irqs(host: Host, device: str) -> frozenset[int]:
    numbers = {name.rsplit("/", 1)[1] for name in host.names(f"{device}/msi_irqs/*")} or {host.read_or(f"{device}/irq")}
    return frozenset(int(number) for number in numbers if number.isdigit() and number != "0")
