"""apply: turn the knobs of what is not as wanted, one by one, each remembered before and read again after.

every write has its intent on disk first
what somebody else changed since we set it is not written over, unless forced
what is as wanted is not written: a second apply changes nothing
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock_host.change.journal import Entry, Journal
from penstock_host.check import all_as_wanted, examine, selected
from penstock_host.checklist.items import Finding, Item, Setting, Status
from penstock_host.faults import HostError, WriteRefusedError

if TYPE_CHECKING:
    from penstock_host.host import Host


class Step(enum.StrEnum):
    """What became of one target."""

    SET = "SET"
    SET_OTHERWISE = "SET_OTHERWISE"  # Written, and reads as something else.
    RESTORED = "RESTORED"
    FAILED = "FAILED"
    UNSAFE = "UNSAFE"
    NEEDS_FORCE = "NEEDS_FORCE"
    MANAGED = "MANAGED"
    CONFLICT = "CONFLICT"
    ALREADY = "ALREADY"
    GONE = "GONE"


@dataclass(frozen=True)
class Deed:
    """What was done, or not done, to one target, and why."""

    item_id: str
    target: str
    step: Step
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True)
class Applied:
    """What apply did, and how the items stand now."""

    deeds: tuple[Deed, ...]
    findings: tuple[Finding, ...]

    @property
    def exit_status(self) -> int:
        """3 where something was refused as unsafe, 2 where a write failed, 1 where not all can be as wanted, else 0."""
        steps = {deed.step for deed in self.deeds}
        if Step.UNSAFE in steps:
            return 3
        if Step.FAILED in steps:
            return 2
        return 0 if all_as_wanted(self.findings) else 1


def apply(host: Host, journal: Journal, *, force: bool = False) -> Applied:
    """Make the items that the host's profile asks for as wanted, as far as that can be done while it runs.

    Args:
        host: whose knobs.
        journal: of this boot, open to write; the lock is held.
        force: also where a daemon serves, somebody else changed it, or it needs a decision.
    """
    serving = host.daemons()
    deeds: list[Deed] = []
    items = selected(host.profile)
    for item in sorted(items, key=lambda one: one.turn):
        deeds += [
            _one(host, journal, item, setting, serving, force=force)
            for setting in examine(host, item, journal).settings
            if setting.knob is not None and setting.status in {Status.DRIFT, Status.CONFLICT}
        ]
    findings = tuple(examine(host, item, journal) for item in items)
    return Applied(tuple(deeds), findings)


def _one(host: Host, journal: Journal, item: Item, setting: Setting, serving: list[int], *, force: bool) -> Deed:
    assert setting.knob is not None, "nothing to turn"
    knob = setting.knob

    def deed(step: Step, after: str, reason: str = "") -> Deed:
        return Deed(item.item_id, setting.target, step, setting.found, after, reason)

    if item.unsafe_online and serving and not force:
        return deed(
            Step.UNSAFE, setting.found, f"penstockd {serving[0]} serves: {item.unsafe_online}; --force overrides"
        )
    if setting.force and not force:
        return deed(Step.NEEDS_FORCE, setting.found, f"{setting.force}; --force does it")
    if setting.status is Status.CONFLICT and not force:
        return deed(Step.CONFLICT, setting.found, setting.mend)
    try:
        now = knob.read(host)
    except (HostError, ValueError) as fault:
        return deed(Step.FAILED, setting.found, str(fault))
    before = journal.outstanding(knob)
    if before is not None and before.ended and knob.same(before.written, setting.text) and before.is_ours(now):
        return deed(Step.ALREADY, setting.found, f"{setting.text} was written before, and reads as {knob.show(now)}")
    entry = journal.intent(item.item_id, knob, now, setting.text)
    try:
        knob.write(host, setting.text)
    except WriteRefusedError as refusal:
        return _refused(host, journal, entry, before, now, refusal, deed(Step.FAILED, setting.found, str(refusal)))
    try:
        took = knob.read(host)
    except (HostError, ValueError) as fault:
        journal.done(entry, setting.text)
        return deed(Step.SET_OTHERWISE, "unreadable", str(fault))
    journal.done(entry, took)
    if knob.same(took, setting.text):
        return deed(Step.SET, knob.show(took))
    return deed(Step.SET_OTHERWISE, knob.show(took), f"wrote {setting.text}: the kernel made another value of it")


def _refused(
    host: Host, journal: Journal, entry: Entry, before: Entry | None, was: str, refusal: WriteRefusedError, failed: Deed
) -> Deed:
    """Set the journal right after a write that was refused: as a rule nothing has changed."""
    try:
        now = entry.knob.read(host)
    except (HostError, ValueError):
        return failed  # The intent stays: revert will look again.
    if now != was:
        return failed
    if before is None:
        journal.void(entry, refusal.errno)
    else:
        journal.done(entry, now)
    if journal.is_managed(entry.knob):
        return Deed(
            failed.item_id,
            failed.target,
            Step.MANAGED,
            failed.before,
            failed.before,
            "the kernel places this interrupt itself",
        )
    return failed
