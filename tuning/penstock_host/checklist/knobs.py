"""Knobs: what can be read, turned and turned back, each named by words that a journal can keep.

knob_of(knob.words) == knob
after write(host, text):  same(read(host), text)      or the kernel thinks otherwise, and we say so
restore(host, original)   gives back what read() gave before the first write, to the byte
"""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from penstock_host.cpu_lists import format_cpus, parse_cpus, parse_mask
from penstock_host.faults import AbsentError, UnreadableError, WriteRefusedError

if TYPE_CHECKING:
    from penstock_host.host import Host


@dataclass(frozen=True)
class Knob(ABC):
    """Something of a host that has a value; a subclass says how it is read and turned."""

    kind: ClassVar[str] = ""

    @property
    def words(self) -> tuple[str, ...]:
        """What names it: its kind and its fields."""
        return (self.kind, *(str(value) for value in vars(self).values()))

    @classmethod
    def of(cls, *fields: str) -> Self:
        """Return the knob with these fields."""
        return cls(*fields)

    @property
    def label(self) -> str:
        """How the operator calls it."""
        return " ".join(self.words[1:])

    @abstractmethod
    def read(self, host: Host) -> str:
        """Return the value; AbsentError, UnreadableError, or ValueError where it makes no sense."""

    @abstractmethod
    def write(self, host: Host, text: str) -> None:
        """Turn it; WriteRefusedError with the reason."""

    def restore(self, host: Host, original: str) -> None:
        """Turn it back to what ``read`` gave."""
        self.write(host, original)

    def restored(self, now: str, original: str) -> bool:
        """Whether *now* is what it was."""
        return self.same(now, original)

    def partly(self, now: str) -> bool:
        """Whether *now* can be the trace of a write of ours that was cut short."""
        del now
        return False

    def holds(self, now: str, written: str) -> bool:
        """Whether *now* can be what became of our *written*; the same value, unless a knob says otherwise."""
        return self.same(now, written)

    def same(self, one: str, other: str) -> bool:
        """Whether two values mean the same."""
        return one.strip() == other.strip()

    def show(self, value: str) -> str:
        """Return a value as a line shows it."""
        return value.strip() or "empty"

    @abstractmethod
    def shell(self, text: str) -> str:
        """Return shell that does what ``write`` does."""


def _number(text: str) -> object:
    text = text.strip()
    return int(text, 0) if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|[1-9]\d*|0)", text, re.ASCII) else text


_FORMS: Final[dict[str, Callable[[str], object]]] = {
    "text": str.strip,
    "number": _number,
    "list": parse_cpus,
    "mask": parse_mask,
}


@dataclass(frozen=True)
class FileKnob(Knob):
    """A file of one value: text, a number, a list of CPUs or a mask of them."""

    kind: ClassVar[str] = "file"
    name: str
    form: str = "text"

    def __post_init__(self) -> None:
        """Refuse a form that is not known."""
        if self.form not in _FORMS:
            raise TypeError(f"a file's form must be one of {', '.join(_FORMS)}, was {self.form}")

    @property
    def label(self) -> str:
        """The file's name."""
        return self.name

    def read(self, host: Host) -> str:
        """Return the file's text."""
        return host.read(self.name)

    def write(self, host: Host, text: str) -> None:
        """Write *text*, with the line's end that the kernel's own texts have."""
        host.write(self.name, text if text.endswith("\n") else f"{text}\n")

    def restore(self, host: Host, original: str) -> None:
        """Write what was there, to the byte."""
        host.write(self.name, original)

    def same(self, one: str, other: str) -> bool:
        """Whether both mean the same number, list or mask; texts that make no sense must be alike."""
        if one.strip() == other.strip():
            return True
        meaning = _FORMS[self.form]
        try:
            return meaning(one) == meaning(other)
        except ValueError:
            return False

    def show(self, value: str) -> str:
        """Show CPUs as a list."""
        if self.form in {"text", "number"}:
            return super().show(value)
        try:
            cpus = parse_mask(value) if self.form == "mask" else parse_cpus(value)
        except ValueError:
            return repr(value.strip())
        return format_cpus(cpus) or "none"

    def shell(self, text: str) -> str:
        """Return an echo; kernel settings of /proc/sys are files as well."""
        return f"echo {shlex.quote(text)} > {shlex.quote(self.name)}"


@dataclass(frozen=True)
class ChoiceKnob(Knob):
    """A file of choices of which the one in brackets holds: ``always [madvise] never``."""

    kind: ClassVar[str] = "choice"
    name: str

    @property
    def label(self) -> str:
        """The file's name."""
        return self.name

    def read(self, host: Host) -> str:
        """Return the choice that holds."""
        text = host.read(self.name)
        found = re.findall(r"(?<!\S)\[([^][\s]+)\](?!\S)", text)
        if len(found) != 1 or text.count("[") != 1 or text.count("]") != 1:
            raise ValueError(f"{self.name} must have one choice in brackets, was {text.strip()!r}")
        return str(found[0])

    def write(self, host: Host, text: str) -> None:
        """Choose *text*."""
        host.write(self.name, text)

    def shell(self, text: str) -> str:
        """Return an echo."""
        return f"echo {shlex.quote(text)} > {shlex.quote(self.name)}"


@dataclass(frozen=True)
class ControllerKnob(Knob):
    """Whether a control group hands a controller to its children."""

    kind: ClassVar[str] = "controller"
    folder: str
    controller: str

    @property
    def label(self) -> str:
        """The file and the controller."""
        return f"{self.folder}/cgroup.subtree_control {self.controller}"

    def read(self, host: Host) -> str:
        """Return "on" or "off"."""
        return "on" if self.controller in host.read(f"{self.folder}/cgroup.subtree_control").split() else "off"

    def write(self, host: Host, text: str) -> None:
        """Hand it down or not."""
        host.write(f"{self.folder}/cgroup.subtree_control", self._order(text))

    def shell(self, text: str) -> str:
        """Return an echo."""
        return f"echo {self._order(text)} > {shlex.quote(self.folder)}/cgroup.subtree_control"

    def _order(self, text: str) -> str:
        return f"{'+' if text == 'on' else '-'}{self.controller}"


@dataclass(frozen=True)
class PartitionKnob(Knob):
    """A control group of ours that takes CPUs out of the scheduler's balancing; "absent", or its CPUs and kind."""

    kind: ClassVar[str] = "partition"
    folder: str

    def read(self, host: Host) -> str:
        """Return "absent", or such as ``2-5 isolated``; the kernel adds why, where it calls a partition invalid."""
        if not host.exists(self.folder):
            return "absent"
        try:
            cpus = host.read(f"{self.folder}/cpuset.cpus").strip()
            return f"{cpus or '-'} {host.read(f'{self.folder}/cpuset.cpus.partition').strip()}"
        except AbsentError:
            return "without cpuset"

    def write(self, host: Host, text: str) -> None:
        """Make the group with the CPUs and kind of *text*, or remove it."""
        if text == "absent":
            inside = host.read_or(f"{self.folder}/cgroup.procs").split()
            if inside:
                # Before anything is written: half of it would be nobody's value.
                raise WriteRefusedError(
                    f"{self.folder}: must be empty, was the group of process {', '.join(inside)}; end it, or write it into "
                    "another group's cgroup.procs"
                )
            if host.exists(f"{self.folder}/cpuset.cpus.partition"):
                host.write(f"{self.folder}/cpuset.cpus.partition", "member\n")
            if host.exists(self.folder):
                host.remove_folder(self.folder)
            return
        cpus, _, partition = text.partition(" ")
        if not host.exists(self.folder):
            host.make_folder(self.folder)
        host.write(f"{self.folder}/cpuset.cpus", f"{'' if cpus == '-' else cpus}\n")
        host.write(f"{self.folder}/cpuset.cpus.partition", f"{partition}\n")

    def partly(self, now: str) -> bool:
        """Our folder with anything but other CPUs in it is what a cut write leaves."""
        return now == "without cpuset" or now.endswith(" member")

    def same(self, one: str, other: str) -> bool:
        """Whether CPUs and kind are the same."""
        first, second = one.strip().partition(" "), other.strip().partition(" ")
        if first[2] != second[2]:
            return False
        try:
            return first[0] == second[0] or parse_cpus(first[0]) == parse_cpus(second[0])
        except ValueError:
            return False

    def shell(self, text: str) -> str:
        """Return the three steps."""
        folder = shlex.quote(self.folder)
        if text == "absent":
            return f"echo member > {folder}/cpuset.cpus.partition && rmdir {folder}"
        cpus, _, partition = text.partition(" ")
        return (
            f"mkdir -p {folder} && echo {cpus} > {folder}/cpuset.cpus"
            f" && echo {partition} > {folder}/cpuset.cpus.partition"
        )


KINDS: Final[dict[str, type[Knob]]] = {
    knob.kind: knob for knob in (FileKnob, ChoiceKnob, ControllerKnob, PartitionKnob)
}


def knob_of(words: tuple[str, ...]) -> Knob:
    """Return the knob that a journal's words name.

    Raises:
        UnreadableError: this version knows no such knob.
    """
    try:
        return KINDS[words[0]].of(*words[1:])
    except (KeyError, IndexError, TypeError) as fault:
        raise UnreadableError(f"the journal names a knob that is not known here: {' '.join(words)}") from fault
