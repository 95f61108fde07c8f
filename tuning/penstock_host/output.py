"""What penstock-tune says, as text for people and as JSON for programs; both say the same.

One line per finding: ``status id severity  target: want X, was Y; mend``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from penstock_host.change.apply import Deed
from penstock_host.checklist.items import Finding, Setting, Status
from penstock_host.cpu_lists import format_cpus
from penstock_host.printable import one_line, printable, whole
from penstock_host.topology import picture

if TYPE_CHECKING:
    from penstock_host.host import Host

_ALIKE_MAX = 3
_GROUPS_MAX = 6  # A card of a large host has hundreds of interrupts, each on a CPU of its own.


def say(text: str) -> None:
    """Write *text* and a line's end to standard output."""
    _write(sys.stdout, text)


def say_json(document: dict[str, Any]) -> None:
    """Write *document* to standard output."""
    say(json.dumps(whole(document), indent=2))


def complain(text: str) -> None:
    """Write *text* and a line's end to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(f"{printable(text).encode(encoding, 'backslashreplace').decode(encoding)}\n")


def host_facts(host: Host) -> dict[str, Any]:
    """Return what a result should say of the host it came from."""
    topology = host.topology
    return {
        "kernel": host.read_or("/proc/sys/kernel/osrelease", "unknown"),
        "online": format_cpus(topology.online),
        "hot": format_cpus(topology.hot),
        "hot_chosen": topology.chosen,
        "siblings": format_cpus(topology.siblings),
        "housekeeping": format_cpus(topology.housekeeping),
        "nodes": {str(node): format_cpus(cpus) for node, cpus in sorted(topology.nodes.items())},
        "nic": topology.nic.name if topology.nic else None,
        "nic_node": topology.nic.node if topology.nic else None,
        "gpu": topology.gpu.name if topology.gpu else None,
        "gpu_node": topology.gpu.node if topology.gpu else None,
        "daemons": host.daemons(),
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    """Return one checklist entry; wanted, found and mend are those of the settings that made its status."""
    item = finding.item
    return {
        "id": item.item_id,
        "title": item.title,
        "scope": item.scope,
        "severity": item.severity.value,
        "persistence": item.persistence.value,
        "status": finding.status.value,
        "wanted": "; ".join(dict.fromkeys(setting.wanted or item.wanted for setting in finding.telling)),
        "found": "; ".join(dict.fromkeys(setting.found for setting in finding.telling)),
        "mend": "; ".join(dict.fromkeys(setting.mend for setting in finding.telling if setting.mend)),
        "targets": [setting_json(setting) for setting in finding.settings],
    }


def setting_json(setting: Setting) -> dict[str, Any]:
    """Return one target."""
    return {
        "target": setting.target,
        "status": setting.status.value,
        "wanted": setting.wanted,
        "found": setting.found,
        "mend": setting.mend,
    }


def finding_lines(finding: Finding) -> list[str]:
    """Return the lines of one finding: settings that are alike share one, and so do those of a host with very many."""
    item = finding.item
    groups = alike_settings(finding.telling)
    if len(groups) > _GROUPS_MAX:
        groups = [
            [setting for group in groups for setting in group if setting.wanted == wanted]
            for wanted in _wishes(finding)
        ]
    lines = []
    for alike in groups:
        first = alike[0]
        names = ", ".join(setting.target for setting in alike[:_ALIKE_MAX])
        more = f" and {len(alike) - _ALIKE_MAX} more" if len(alike) > _ALIKE_MAX else ""
        head = f"{finding.status.value:<12} {item.item_id:<4}{item.severity.value:<7} {names}{more}"
        want = first.wanted or item.wanted
        values = list(dict.fromkeys(setting.found for setting in alike))
        found = ", ".join(values[:_ALIKE_MAX]) + (" and so on" if len(values) > _ALIKE_MAX else "")
        if finding.status is Status.OK:
            lines.append(f"{head}: {found}" if found == want else f"{head}: {found} (want {want})")
        elif finding.status is Status.UNSUPPORTED:
            reason = first.mend.removeprefix(f"{first.target} is ")
            lines.append(f"{head}: {reason or 'absent'}")
        elif finding.status is Status.REPORT_ONLY:
            lines.append(f"{head}: {found}{f'; {first.mend}' if first.mend else ''}")
        else:
            lines.append(f"{head}: want {want}, was {found}{f'; {first.mend}' if first.mend else ''}")
    return [one_line(line) for line in lines]


def _wishes(finding: Finding) -> list[str]:
    return list(dict.fromkeys(setting.wanted for setting in finding.telling))


def say_findings(host: Host, findings: list[Finding]) -> None:
    """Print the picture of the host, a line per finding, and the sum."""
    say(picture(host.topology))
    for daemon in host.daemons():
        say(f"  penstockd serves: process {daemon}")
    say("")
    for finding in findings:
        for line in finding_lines(finding):
            say(line)
    say("")
    say(sum_line(findings))


def deed_json(deed: Deed) -> dict[str, Any]:
    """Return what was done to one target."""
    return {
        "id": deed.item_id,
        "target": deed.target,
        "step": deed.step.value,
        "before": deed.before,
        "after": deed.after,
        "reason": deed.reason,
    }


def say_deeds(deeds: Iterable[Deed]) -> None:
    """Print a line per target that was, or was not, changed."""
    for deed in deeds:
        change = f"{deed.before} -> {deed.after}" if deed.before != deed.after else deed.before
        reason = f"; {deed.reason}" if deed.reason else ""
        say(one_line(f"{deed.step.value:<14}{deed.item_id:<4} {deed.target}: {change}{reason}"))
    if not deeds:
        say("nothing to change")


def sum_line(findings: Iterable[Finding]) -> str:
    """Return how many items stand how."""
    counts = Counter(finding.status for finding in findings)
    return ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status]) or "no items"


def alike_settings(settings: tuple[Setting, ...]) -> list[list[Setting]]:
    """Return *settings* in groups that one line can tell of: wanted, found and mend are the same but for the target."""
    groups: dict[tuple[str, str, str], list[Setting]] = {}
    for setting in settings:
        mend = setting.mend.replace(setting.target, "")
        groups.setdefault((setting.wanted, setting.found, mend), []).append(setting)
    return list(groups.values())
