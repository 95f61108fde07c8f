"""The checklist's C17 to C21: nothing moves, merges, compacts or swaps the daemon's memory while it serves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.cpu import INFO, MUST, SHOULD, TUNED, WRITTEN_BACK, R
from penstock_host.checklist.items import Item, Setting, Status, file, report, turn
from penstock_host.checklist.knobs import ChoiceKnob
from penstock_host.checklist.knobs_command import SwapKnob, swap_devices
from penstock_host.topology import NODE

if TYPE_CHECKING:
    from penstock_host.host import Host

THP: Final = "/sys/kernel/mm/transparent_hugepage"
VM: Final = "/proc/sys/vm"


def _numa(host: Host) -> Iterable[Setting]:
    yield file(host, "/proc/sys/kernel/numa_balancing", "0", form="number")


def _huge_transparent(host: Host) -> Iterable[Setting]:
    yield turn(
        host, ChoiceKnob(f"{THP}/enabled"), "madvise", accept=lambda found: found == "never", shown="madvise or never"
    )
    yield turn(host, ChoiceKnob(f"{THP}/defrag"), "never")
    yield file(host, f"{THP}/khugepaged/defrag", "0", form="number")


def _merging_and_swap(host: Host) -> Iterable[Setting]:
    # 2 would un-merge pages as well, which takes long.
    yield file(host, "/sys/kernel/mm/ksm/run", "0", form="number", accept=lambda found: int(found) == 2)
    yield file(host, f"{VM}/swappiness", "10", form="number", accept=lambda found: int(found) <= 10, shown="at most 10")
    devices = swap_devices(host)
    if not devices:
        yield Setting("/proc/swaps", Status.OK, "none", "none")
    for device in devices:
        yield turn(host, SwapKnob(device), "off", force="swapoff needs room in memory for all that is swapped out")


def _compaction(host: Host) -> Iterable[Setting]:
    yield file(host, f"{VM}/compaction_proactiveness", "0", form="number")


def _huge_pages(host: Host) -> Iterable[Setting]:
    topology = host.topology
    wanted = host.profile.hugepages
    node = host.profile.hugepages_node
    if node < 0:
        node = (
            topology.gpu.node
            if topology.gpu and topology.gpu.node >= 0
            else topology.node_of(max(topology.hot, default=0))
        )
    folder = f"{NODE}/node{node}/hugepages/hugepages-2048kB"
    name = f"{folder}/nr_hugepages"
    if wanted == 0:
        count = host.read(name).strip()
        yield report(
            name,
            f"{count} of 2 MiB, {host.read_or(f'{folder}/free_hugepages', '?')} free",
            wanted="as configured: none",
        )
        return
    total = re.search(r"MemTotal:\s*(\d+) kB", host.read_or(f"{NODE}/node{node}/meminfo"))
    most = int(total[1]) // 2048 // 2 if total else wanted
    yield file(
        host, name, str(wanted), form="number", accept=lambda found: int(found) >= wanted, shown=f"at least {wanted}",
        force=f"more than half of node {node}'s memory: {most} pages are that" if wanted > most else "",
    )  # fmt: skip


ITEMS: Final = (
    Item(
        "C17", "NUMA balancing", "host", MUST, R, "0",
        "the kernel unmaps pages to see who uses them, and each costs the daemon a page fault",
        "none for pinned threads", WRITTEN_BACK, TUNED, _numa,
    ),
    Item(
        "C18", "transparent huge pages", "host", MUST, R, "madvise or never; defrag never",
        "a page fault that compacts memory to find a huge page takes milliseconds", "other workloads may want them",
        WRITTEN_BACK, "rigtorp, low latency tuning guide", _huge_transparent,
    ),
    Item(
        "C19", "page merging and swap", "host", SHOULD, R, "not merged; no swap, or swappiness at most 10",
        "a page that was merged or swapped out is a page fault for the tick that needs it",
        "without swap, a host that runs out of memory kills processes; swapoff needs --force",
        f"{WRITTEN_BACK}; swapon", "rigtorp, low latency tuning guide", _merging_and_swap,
    ),
    Item(
        "C20", "proactive compaction", "host", INFO, R, "0",
        "it moves pages in the background; what it costs here is not measured", "huge pages get rarer", WRITTEN_BACK,
        "kernel documentation, admin-guide/sysctl/vm.rst (not verified)", _compaction,
    ),
    Item(
        "C21", "huge pages", "host", INFO, R, "at least as many as configured, on the GPU's node",
        "fewer entries of the translation cache for the arena", "the memory is lost to everybody else",
        f"{WRITTEN_BACK}; it fails for pages in use",
        "cudaHostAlloc does not take them; mmap(MAP_HUGETLB) and cudaHostRegister would (not verified)", _huge_pages,
    ),
)  # fmt: skip
