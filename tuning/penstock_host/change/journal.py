"""The journal: what each knob was before we turned it, kept for this boot, on disk before the first write.

One line of JSON per event, in /run/penstock-tune/journal-BOOT.jsonl, each fsynced before anything goes on:

    intent   a knob, its original value, what will be written          before the write
    done     what the knob read after the write                        after it
    void     the write was refused and changed nothing
    undone   the original is back

    original of a knob   that of its first intent since it was last undone: kept once, never replaced
    outstanding          has an intent, and neither void nor undone after it

A line that was cut short was never acted upon, so it is passed over. Any other that makes no sense is counted, and told.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from penstock_host.checklist.knobs import Knob, knob_of
from penstock_host.faults import AbsentError, HostError, LockedError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host

STATE: Final = "/run/penstock-tune"
BOOT: Final = "/proc/sys/kernel/random/boot_id"

# For an interrupt that it places itself the kernel said EIO until 6.10, and says EPERM since.
_NOT_MOVED: Final = frozenset({errno.EIO, errno.EPERM})


@dataclass
class Entry:
    """A knob that we turned, or were about to.

    Attributes:
        number: of its latest intent; they count up.
        item_id: for which item.
        knob: what was turned.
        original: as it was read before.
        written: what the latest intent writes.
        took: what the knob read after the latest write that is known to have ended.
        ended: whether the latest intent is known to have ended.
    """

    number: int
    item_id: str
    knob: Knob
    original: str
    written: str
    took: str | None = None
    ended: bool = False

    def is_ours(self, now: str) -> bool:
        """Whether *now* is a value that we gave the knob."""
        if self.took is not None and self.knob.same(now, self.took):
            return True
        if not self.ended and self.knob.partly(now):
            return True
        return self.knob.holds(now, self.written)


@dataclass
class Journal:
    """The journal of this boot; ``open_journal`` to write, ``read_journal`` to look."""

    host: Host
    name: str
    entries: dict[tuple[str, ...], Entry] = field(default_factory=dict)
    refused: dict[tuple[str, ...], int | None] = field(default_factory=dict)
    count: int = 0
    damaged: int = 0  # Lines that were written whole, and make no sense now.
    descriptor: int = -1

    def outstanding(self, knob: Knob) -> Entry | None:
        """Return what we did to *knob* and have not undone."""
        return self.entries.get(knob.words)

    def intent(self, item_id: str, knob: Knob, original: str, text: str) -> Entry:
        """Say that *text* is about to be written; on disk when this returns."""
        before = self.outstanding(knob)
        entry = Entry(
            self.count + 1,
            before.item_id if before else item_id,
            knob,
            before.original if before else original,
            text,
            before.took if before else None,
        )
        self._append(
            {
                "event": "intent",
                "number": entry.number,
                "item": entry.item_id,
                "knob": list(knob.words),
                "original": entry.original,
                "writing": text,
            }
        )
        self.count += 1
        self.entries[knob.words] = entry
        return entry

    def done(self, entry: Entry, took: str) -> None:
        """Say what the knob read after the write."""
        self._append({"event": "done", "number": entry.number, "knob": list(entry.knob.words), "took": took})
        entry.took, entry.ended = took, True

    def void(self, entry: Entry, error: int | None) -> None:
        """Say that the write was refused with *error*, changed nothing, and nothing of ours was there before."""
        self._append({"event": "void", "number": entry.number, "knob": list(entry.knob.words), "errno": error})
        del self.entries[entry.knob.words]
        self.refused[entry.knob.words] = error

    def is_managed(self, knob: Knob) -> bool:
        """Whether the kernel refused to let *knob*, an interrupt's, be moved."""
        return self.refused.get(knob.words) in _NOT_MOVED and "/smp_affinity" in knob.label

    def undone(self, entry: Entry) -> None:
        """Say that the original is back."""
        self._append({"event": "undone", "number": entry.number, "knob": list(entry.knob.words)})
        del self.entries[entry.knob.words]

    @property
    def fault(self) -> str:
        """What the operator should know of damaged lines; empty where there are none."""
        if not self.damaged:
            return ""
        return f"{self.name}: {self.damaged} lines make no sense: what they tell of can't be put back; look at them"

    def _append(self, event: dict[str, Any]) -> None:
        assert self.descriptor >= 0, "the journal was opened to look"
        self.host.step("before journal")
        data = json.dumps(event).encode("ascii") + b"\n"
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
            os.fsync(self.descriptor)
        except OSError as refusal:
            raise HostError(
                f"{self.name}: {refusal.strerror}; stopped: revert still puts back what was set"
            ) from refusal
        self.host.step("after journal")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def read_journal(host: Host) -> Journal:
    """Return the journal of this boot as it is, to look at; an absent or closed one is empty."""
    journal = Journal(host, f"{STATE}/journal-{_boot(host)}.jsonl")
    try:
        text = host.read(journal.name)
    except (AbsentError, UnreadableError):
        return journal
    for line in text.split("\n"):
        try:
            _replay(journal, json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, UnreadableError):
            cut = not line or (line.startswith("{") and not line.endswith("}"))
            journal.damaged += not cut
    return journal


def open_journal(host: Host) -> Journal:
    """Return the journal of this boot, to write into; the lock is held (``take_lock``).

    Raises:
        HostError: it can't be made.
    """
    journal = read_journal(host)
    try:
        path = host.own_path(journal.name)
        journal.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        size = os.fstat(journal.descriptor).st_size
        if size and os.pread(journal.descriptor, 1, size - 1) != b"\n":
            os.write(journal.descriptor, b"\n")  # After a line that was cut short.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as refusal:
        raise HostError(f"{journal.name}: can't be written: {refusal.strerror}; run as root") from refusal
    return journal


class Lock:
    """The right to be the one penstock-tune that writes; the kernel takes it back from the dead."""

    def __init__(self, host: Host) -> None:
        """Take it.

        Raises:
            LockedError: another has it.
            HostError: the lock's file can't be made.
        """
        try:
            path = host.own_path(f"{STATE}/lock")
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as refusal:
            raise HostError(f"{STATE}/lock: can't be made: {refusal.strerror}; run as root") from refusal
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise LockedError(
                f"another penstock-tune is at work{f' (process {holder})' if holder else ''}; wait until it is done"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _boot(host: Host) -> str:
    name = host.read_or(BOOT)
    return name if name and name.replace("-", "").isalnum() and name.isascii() else "unknown"


def _replay(journal: Journal, event: dict[str, Any]) -> None:
    words = tuple(event["knob"])
    number = event["number"]
    texts = [*words, *(event[key] for key in ("item", "original", "writing", "took") if key in event)]
    if not isinstance(number, int) or not all(isinstance(text, str) for text in texts):
        raise TypeError("an event must have a number and texts")
    journal.count = max(journal.count, number)
    if event["event"] == "intent":
        before = journal.entries.get(words)
        journal.entries[words] = Entry(
            number,
            event["item"],
            knob_of(words),
            event["original"],
            event["writing"],
            before.took if before else None,
        )
        return
    entry = journal.entries.get(words)
    if entry is None or entry.number != number:
        return
    if event["event"] == "done":
        entry.took, entry.ended = event["took"], True
    elif event["event"] in {"void", "undone"}:
        del journal.entries[words]
        if event["event"] == "void":
            journal.refused[words] = event["errno"]
