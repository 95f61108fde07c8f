"""What a starting daemon asks of its host: the checklist's entries that will cost its ticks time, one line each.

    for line in costs(cores).lines:        log them
    if costs(cores, require="must").unmet: refuse to start

Nothing is written, nothing waits, and nothing of it raises: a host that can't be read costs a line, not the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_host.check import check
from penstock_host.faults import HostError
from penstock_host.host import Host
from penstock_host.items import AS_WANTED, Finding, Severity, Status
from penstock_host.profile import Profile

# Those that a daemon's ticks feel, and that are true before its first one: not what it does itself once it serves
# (C7, C22, P1), nor whose threads happen to run on its cores while everything starts (C10).
CONCERNED: Final = ("C1", "C4", "C5", "C6", "C9", "C15", "C17", "C18", "C19", "C23", "I1", "I2", "I3", "I5", "I7", "I9")
CONCERNED_GPU: Final = ("G1", "G2", "G4", "G5", "G6")


@dataclass(frozen=True)
class Costs:
    """What will cost latency.

    Attributes:
        lines: one per entry that is not as wanted: ``C5 governor: want performance, was powersave; ...``.
        unmet: ids of those that were required.
    """

    lines: tuple[str, ...]
    unmet: tuple[str, ...]


def costs(
    hot_cores: frozenset[int] | None, *, require: str = "none", gpu: str | None = None, root: Path = Path("/")
) -> Costs:
    """Return what of this host will cost a daemon's ticks time.

    Args:
        hot_cores: where its threads are pinned; None to have them found.
        require: "must" or "should": items that matter at least so much are unmet where they are not as wanted; "none".
        gpu: its address or number, where one is used.
        root: "/" for this machine.
    """
    required = {"none": (), "must": (Severity.MUST,), "should": (Severity.MUST, Severity.SHOULD)}[require]
    only = CONCERNED + (CONCERNED_GPU if gpu is not None else ())
    try:
        findings = check(Host(root, profile=Profile(hot_cores=hot_cores, gpu=gpu, only=only, sample_s=0.0)))
    except HostError as fault:
        return Costs((f"this host can't be judged: {fault}",), ("topology",) if required else ())
    drifting = [finding for finding in findings if finding.status not in AS_WANTED | {Status.UNREADABLE}]
    return Costs(
        tuple(_line(finding) for finding in drifting),
        tuple(finding.item.item_id for finding in drifting if finding.item.severity in required),
    )


def _line(finding: Finding) -> str:
    item, first = finding.item, finding.telling[0]
    more = len(finding.telling) - 1
    others = f" (and {more} more)" if more else ""
    wanted = first.wanted or item.wanted
    return f"{item.item_id} {item.title}: want {wanted}, was {first.found}{others}; {item.why}; see penstock-tune explain {item.item_id}"
