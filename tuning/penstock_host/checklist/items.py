"""The record of a checklist entry, and what is found of it.

An ``Item`` says what, why, at what risk and by whose word; its ``examine`` reads the host's effective state and returns
settings: one target each, what is wanted, what was found, and, where it can be changed while the host runs, the knob.

    a Setting with a knob and Status.DRIFT      is what apply writes; nothing else is
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock_host.checklist.knobs import FileKnob, Knob
from penstock_host.faults import AbsentError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host


class Status(enum.StrEnum):
    """How a target, or an item as a whole, stands."""

    OK = "OK"
    DRIFT = "DRIFT"
    PENDING = "PENDING"  # Written, and not yet in effect: an interrupt moves when it next comes.
    UNSUPPORTED = "UNSUPPORTED"  # This host has no such thing; not a failure.
    UNREADABLE = "UNREADABLE"  # It has, and does not let us see it.
    NEEDS_REBOOT = "NEEDS_REBOOT"  # Configured, and takes effect with the next boot.
    REPORT_ONLY = "REPORT_ONLY"  # For the operator to judge.
    CONFLICT = "CONFLICT"  # Somebody else changed what we had set.


# An item stands as the worst of its targets.
WORST = (
    Status.CONFLICT,
    Status.DRIFT,
    Status.PENDING,
    Status.NEEDS_REBOOT,
    Status.UNREADABLE,
    Status.REPORT_ONLY,
    Status.OK,
    Status.UNSUPPORTED,
)
AS_WANTED = frozenset({Status.OK, Status.REPORT_ONLY, Status.UNSUPPORTED})


class Severity(enum.StrEnum):
    """How much an item matters."""

    MUST = "must"
    SHOULD = "should"
    INFO = "info"


class Persistence(enum.StrEnum):
    """How long a setting lasts, and so who can set it."""

    RUNTIME = "runtime"
    BOOT = "boot"
    FIRMWARE = "firmware"
    PROCESS = "process"


@dataclass(frozen=True)
class Setting:
    """One target of an item: what is wanted of it, what was found.

    Attributes:
        target: as the operator calls it.
        status: DRIFT with a *knob* can be applied.
        wanted: in words or as the file has it.
        found: the same.
        mend: what to do, as an instruction; empty where all is well.
        knob: what apply turns.
        write: what apply writes, where it is not *wanted*.
        force: why apply wants ``--force`` for it; empty where it does not.
        boot: the parameter that mends it at boot: ``name=value``, or ``-name`` to drop one.
    """

    target: str
    status: Status
    wanted: str
    found: str
    mend: str = ""
    knob: Knob | None = None
    write: str | None = None
    force: str = ""
    boot: str = ""

    @property
    def text(self) -> str:
        """What apply writes."""
        return self.wanted if self.write is None else self.write


@dataclass(frozen=True)
class Item:
    """A checklist entry.

    Attributes:
        item_id: such as "C5".
        title: a few words.
        scope: what its targets are: host, cpu, irq, nic, gpu, process.
        severity: how much it matters.
        persistence: how long a setting lasts.
        wanted: the desired state, in words.
        why: what it costs a tick if it is not so.
        risk: what applying it can break.
        undo: how it is taken back.
        source: by whose word.
        examine: reads the effective state; may raise AbsentError and UnreadableError.
        unsafe_online: why it is refused while a daemon serves; empty where it is not.
        turn: -1 to be applied before the others, 1 after them; revert goes the other way round.
    """

    item_id: str
    title: str
    scope: str
    severity: Severity
    persistence: Persistence
    wanted: str
    why: str
    risk: str
    undo: str
    source: str
    examine: Callable[[Host], Iterable[Setting]]
    unsafe_online: str = ""
    turn: int = 0


@dataclass(frozen=True)
class Finding:
    """An item with all its settings."""

    item: Item
    settings: tuple[Setting, ...]

    @property
    def status(self) -> Status:
        """The worst of the settings."""
        present = {setting.status for setting in self.settings}
        return next((status for status in WORST if status in present), Status.UNSUPPORTED)

    @property
    def telling(self) -> tuple[Setting, ...]:
        """The settings that made the status what it is."""
        return tuple(setting for setting in self.settings if setting.status == self.status)


def absent(target: str, reason: str, *, wanted: str = "") -> Setting:
    """Return the setting of something that this host does not have."""
    return Setting(target, Status.UNSUPPORTED, wanted, "absent", reason)


def seen_by(fault: Exception) -> str:
    """Return a fault with what to do about it, where that is to be root."""
    sentence = str(fault)
    closed = any(words in sentence.lower() for words in ("needs root", "not permitted", "permission", "pmc got no"))
    return f"{sentence}; run as root to see it" if closed else sentence


def report(target: str, found: str, *, wanted: str = "as you see fit", mend: str = "") -> Setting:
    """Return a setting that is only told."""
    return Setting(target, Status.REPORT_ONLY, wanted, found, mend)


def judge(target: str, good: bool, wanted: str, found: str, mend: str) -> Setting:
    """Return a setting that nothing here can write."""
    return Setting(target, Status.OK if good else Status.DRIFT, wanted, found, "" if good else mend)


def turn(
    host: Host,
    knob: Knob,
    wanted: str,
    *,
    accept: Callable[[str], bool] | None = None,
    shown: str | None = None,
    mend: str = "",
    force: str = "",
) -> Setting:
    """Return the setting of *knob*, as it stands.

    Args:
        host: whose.
        knob: what is read, and written where it is not as wanted.
        wanted: what to write.
        accept: whether a value is as good; the same value otherwise. It may raise ValueError for what makes no sense.
        shown: the wanted state in words, where *wanted* does not say it.
        mend: what to do by hand; the knob's shell otherwise.
        force: why apply wants ``--force``.
    """
    words = wanted if shown is None else shown
    try:
        found = knob.read(host)
        good = knob.same(found, wanted) or (accept is not None and accept(found))
    except AbsentError as fault:
        return absent(knob.label, str(fault), wanted=words)
    except UnreadableError as fault:
        return Setting(knob.label, Status.UNREADABLE, words, "unreadable", seen_by(fault))
    except ValueError as fault:
        return Setting(knob.label, Status.UNREADABLE, words, "not understood", str(fault))
    if good:
        return Setting(knob.label, Status.OK, words, knob.show(found), knob=knob, write=wanted)
    return Setting(knob.label, Status.DRIFT, words, knob.show(found), mend or knob.shell(wanted), knob, wanted, force)


def file(
    host: Host,
    name: str,
    wanted: str,
    *,
    form: str = "text",
    accept: Callable[[str], bool] | None = None,
    shown: str | None = None,
    mend: str = "",
    force: str = "",
) -> Setting:
    """Return the setting of a file that holds one value; see ``turn``."""
    return turn(host, FileKnob(name, form), wanted, accept=accept, shown=shown, mend=mend, force=force)
