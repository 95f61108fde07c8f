"""revert: put back what the journal remembers, the last first, and only where the value is still ours.

original stands there already       nothing is written
ours                                the original is written, to the byte, and read again
anything else                       CONFLICT: somebody else's, left alone unless forced
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock_host.change.apply import Deed, Step
from penstock_host.change.journal import Entry, Journal
from penstock_host.checklist.catalogue import BY_ID
from penstock_host.faults import AbsentError, HostError, WriteRefusedError
from penstock_host.profile import Profile

if TYPE_CHECKING:
    from penstock_host.host import Host


@dataclass(frozen=True)
class Reverted:
    """What revert did."""

    deeds: tuple[Deed, ...]

    @property
    def exit_status(self) -> int:
        """3 where something was refused as unsafe, 2 where a write failed, 1 where somebody else's value stays, else 0."""
        steps = {deed.step for deed in self.deeds}
        for step, status in ((Step.UNSAFE, 3), (Step.FAILED, 2), (Step.CONFLICT, 1), (Step.GONE, 1)):
            if step in steps:
                return status
        return 0


def revert(host: Host, journal: Journal, *, force: bool = False) -> Reverted:
    """Put back what the journal remembers of the items that the profile asks for.

    Args:
        host: whose knobs.
        journal: of this boot, open to write; the lock is held.
        force: also where a daemon serves, or somebody else changed the value.
    """
    serving = host.daemons()
    outstanding = sorted(journal.entries.values(), key=lambda entry: entry.number, reverse=True)
    chosen = [entry for entry in outstanding if _asked(host.profile, entry.item_id)]
    return Reverted(tuple(_one(host, journal, entry, serving, force=force) for entry in chosen))


def _asked(profile: Profile, item_id: str) -> bool:
    return (not profile.only or item_id in profile.only) and item_id not in profile.skip


def _one(host: Host, journal: Journal, entry: Entry, serving: list[int], *, force: bool) -> Deed:
    knob = entry.knob
    item = BY_ID.get(entry.item_id)
    original = knob.show(entry.original)

    def deed(step: Step, before: str, after: str, reason: str = "") -> Deed:
        return Deed(entry.item_id, knob.label, step, before, after, reason)

    try:
        now = knob.read(host)
    except AbsentError as fault:
        return deed(Step.GONE, "absent", "absent", f"{fault}; it was {original}")
    except (HostError, ValueError) as fault:
        if not force:
            return deed(
                Step.CONFLICT, "not understood", "not understood", f"{fault}; it was {original}; --force overrides"
            )
        now = ""
    if now == entry.original:
        journal.undone(entry)
        return deed(Step.ALREADY, original, original)
    if item is not None and item.unsafe_online and serving and not force:
        reason = f"penstockd {serving[0]} serves: {item.unsafe_online}; --force overrides"
        return deed(Step.UNSAFE, knob.show(now), knob.show(now), reason)
    if not entry.is_ours(now) and not knob.same(now, entry.original) and not force:
        ours = knob.show(entry.took or entry.written)
        reason = f"somebody changed it: we set {ours}, it was {original}; --force puts that back"
        return deed(Step.CONFLICT, knob.show(now), knob.show(now), reason)
    try:
        knob.restore(host, entry.original)
        after = knob.read(host)
    except WriteRefusedError as refusal:
        return deed(Step.FAILED, knob.show(now), knob.show(now), str(refusal))
    except (HostError, ValueError) as fault:
        # Put back, and not readable: an original that made no sense to us, or a device that is gone.
        journal.undone(entry)
        return deed(Step.RESTORED, knob.show(now), original, str(fault))
    if not knob.restored(after, entry.original):
        return deed(
            Step.FAILED, knob.show(now), knob.show(after), f"wrote {original}: the kernel made another value of it"
        )
    journal.undone(entry)
    return deed(Step.RESTORED, knob.show(now), knob.show(after))
