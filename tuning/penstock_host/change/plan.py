"""plan: what apply would do, as shell that can be pasted, and what only the operator can do, as remarks.

bash < plan       gives what apply gives, without the journal: only apply can take it back
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from penstock_host.change.journal import Journal
from penstock_host.check import check
from penstock_host.checklist.boot import boot_line
from penstock_host.checklist.items import AS_WANTED, Setting, Status

if TYPE_CHECKING:
    from penstock_host.host import Host


BOOT: Final = "BOOT"  # In place of an item's id: one line for all boot parameters.


@dataclass(frozen=True)
class Line:
    """One target of a plan.

    Attributes:
        item_id: whose.
        setting: as it was found.
        shell: that mends it; empty where only the operator can.
        reason: why apply would not do it without ``--force``; empty where it would.
    """

    item_id: str
    setting: Setting
    shell: str
    reason: str


def plan(host: Host, journal: Journal | None = None, *, force: bool = False) -> list[Line]:
    """Return what would be done to each target that is not as wanted, in the order of apply."""
    serving = host.daemons()
    lines = []
    done = set()
    for finding in sorted(check(host, journal), key=lambda one: one.item.turn):
        item = finding.item
        for setting in finding.settings:
            if setting.status in AS_WANTED:
                continue
            shell = reason = ""
            if setting.knob is not None and setting.status in {Status.DRIFT, Status.CONFLICT}:
                if setting.knob.words in done:
                    continue  # Another item has it already.
                done.add(setting.knob.words)
                shell = setting.knob.shell(setting.text)
                if item.unsafe_online and serving and not force:
                    reason = f"unsafe while penstockd {serving[0]} serves: {item.unsafe_online}"
                elif setting.status is Status.CONFLICT and not force:
                    reason = setting.mend
                elif setting.force and not force:
                    reason = setting.force
            lines.append(Line(item.item_id, setting, shell, reason))
    changes = list(dict.fromkeys(line.setting.boot for line in lines if line.setting.boot))
    if len(changes) > 1 and (together := boot_line(host, changes)):
        setting = Setting("all boot parameters at once", Status.DRIFT, ", ".join(changes), "see above", together)
        lines.append(Line(BOOT, setting, "", ""))
    return lines


def script(lines: list[Line]) -> str:
    """Return the plan as shell; what apply would refuse, and what only a boot sets, is there as a remark."""
    text = [
        "#!/bin/sh",
        "# penstock-tune plan: paste as root. penstock-tune apply does the same, and can take it back.",
    ]
    if not lines:
        text.append("# Nothing to do.")
    told = ""
    for line in lines:
        if line.item_id != told:
            text += ["", f"# {line.item_id}"]
            told = line.item_id
        setting = line.setting
        text.append(_remark(f"{setting.target}: want {setting.wanted}, was {setting.found}"))
        if not line.shell:
            text.append(_remark(f"by hand: {setting.mend}" if setting.mend else f"{setting.status.value}"))
        elif line.reason:
            text += [_remark(f"not without --force: {line.reason}"), _remark(line.shell)]
        else:
            text.append(line.shell)
            if setting.mend and setting.mend != line.shell:
                text.append(_remark(f"or: {setting.mend}"))
    return "\n".join(text)


def _remark(words: str) -> str:
    return "\n".join(f"# {part}" for part in words.splitlines()) or "#"
