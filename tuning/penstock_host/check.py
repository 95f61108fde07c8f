"""check: examine items, read alone, and say how each stands.

every item gets exactly one finding;  an item that can't be read is a finding, not a failure
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from penstock_host.change.journal import Journal
from penstock_host.checklist.catalogue import ITEMS
from penstock_host.checklist.irq import managed
from penstock_host.checklist.items import AS_WANTED, Finding, Item, Setting, Severity, Status, seen_by
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.profile import Profile

if TYPE_CHECKING:
    from penstock_host.host import Host

_RIVALS: Final = frozenset(
    {"tuned", "power-profiles-daemon", "thermald", "cpufreqd", "auto-cpufreq", "tlp", "numad", "ksmtuned"}
)


def selected(profile: Profile) -> list[Item]:
    """Return the items that *profile* asks for, in the order of the checklist."""
    grades = list(Severity)
    least = grades.index(Severity(profile.severity))
    return [
        item
        for item in ITEMS
        if (not profile.only or item.item_id in profile.only)
        and item.item_id not in profile.skip
        and grades.index(item.severity) <= least
    ]


def examine(host: Host, item: Item, journal: Journal | None = None) -> Finding:
    """Return how *item* stands on *host*; with a *journal*, what somebody else changed since is a CONFLICT."""
    settings: list[Setting] = []
    try:
        settings.extend(item.examine(host))
    except AbsentError as fault:
        settings.append(Setting(item.title, Status.UNSUPPORTED, item.wanted, "absent", str(fault)))
    except UnreadableError as fault:
        settings.append(Setting(item.title, Status.UNREADABLE, item.wanted, "unreadable", seen_by(fault)))
    except ValueError as fault:
        settings.append(Setting(item.title, Status.UNREADABLE, item.wanted, "not understood", str(fault)))
    if not settings:
        settings.append(Setting(item.title, Status.UNSUPPORTED, item.wanted, "absent", "this host has none"))
    if journal is not None:
        settings = [_contested(host, setting, journal) for setting in settings]
    return Finding(item, tuple(settings))


def check(host: Host, journal: Journal | None = None) -> list[Finding]:
    """Return the findings of all items that the host's profile asks for."""
    return [examine(host, item, journal) for item in selected(host.profile)]


def all_as_wanted(findings: Iterable[Finding]) -> bool:
    """Whether nothing is left to do or to see."""
    return all(finding.status in AS_WANTED for finding in findings)


def _contested(host: Host, setting: Setting, journal: Journal) -> Setting:
    """Return *setting* as a CONFLICT where its value is neither ours nor the one before us."""
    if setting.knob is None or setting.status is not Status.DRIFT:
        return setting
    entry = journal.outstanding(setting.knob)
    if entry is None:
        return managed(host, setting) if journal.is_managed(setting.knob) else setting
    now = setting.knob.read(host)
    if entry.is_ours(now) or setting.knob.same(now, entry.original):
        return setting
    who = _rival(host, setting.knob.label) or "somebody"
    mend = f"{who} changed it since penstock-tune set {setting.knob.show(entry.written)}; --force overrides"
    return replace(setting, status=Status.CONFLICT, mend=mend)


def _rival(host: Host, label: str) -> str:
    """Return which program that is known to set such things runs here, and so may have changed *label*; or nothing."""
    rivals = {"irqbalance"} if "/irq/" in label else _RIVALS
    for process, words in host.processes():
        # A script comes after its interpreter and that one's flags.
        names = [word.rsplit("/", 1)[-1] for word in words[:3]]
        found = next((name for name in names if name in rivals), None)
        if found:
            return f"somebody, perhaps {found} (process {process}: stop it, or change its profile),"
    return ""
