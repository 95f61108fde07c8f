"""What penstockd asks of its host when it starts: the items that concern it, seen from its own process, in bounded time.

hot cores    those of its engine, unless the profile names some; none of them where the engine has no CPU of its own
daemon       the asking process alone: another penstockd's threads on its cores are as foreign as anybody's
in time      what was not looked at when the daemon has waited long enough is missed, and nothing is said of it

Read alone, as ``penstock-tune check`` reads. No program is run, but nvidia-smi and dmesg where a GPU predicts and ethtool
where the profile names a port.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from penstock_host.change.journal import read_journal
from penstock_host.check import examine, selected
from penstock_host.checklist.items import Finding, Item, Severity, Status
from penstock_host.faults import AbsentError, HostError
from penstock_host.host import Host
from penstock_host.output import alike_settings
from penstock_host.profile import Profile
from penstock_host.runner import TIMEOUT_S, Outcome, Runner

HOST_ITEMS: Final = (
    "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C12", "C13", "C14", "C17", "C18", "C19", "C20", "C23",
    "I1", "I2", "I3",
)  # fmt: skip
PORT_ITEMS: Final = ("I4", "I5", "I6", "I7", "I8", "N8")
GPU_ITEMS: Final = ("I9", "G1", "G2", "G4", "G5", "G6", "G8")
PROCESS_ITEMS: Final = ("C22", "P1")  # To be looked at once threads are placed and memory is locked.

# What costs latency now. An interrupt that is PENDING moves before it could cost a second one.
COSTLY: Final = frozenset({Status.DRIFT, Status.NEEDS_REBOOT, Status.CONFLICT})


_PROGRAM_S: Final = 5.0
_HELD_UP_S: Final = 0.2  # How much longer a look is waited for: a program that can't be killed holds it up.
_SHOWN_MAX: Final = 3


class TooLateError(Exception):
    """The deadline has passed. No HostError: nothing between a file and ``Look`` makes a finding of it."""


@dataclass(frozen=True)
class Concern:
    """One thing that costs latency: targets that are alike, what is wanted of them, what they are, and the mend."""

    item: Item
    status: Status
    target: str
    wanted: str
    found: str
    mend: str


@dataclass(frozen=True)
class Looked:
    """What was found.

    Attributes:
        findings: one for each item that was looked at, in the order of the checklist.
        missed: the ids of those for which time was too short.
        fault: what is wrong with the cores or devices that were named; empty for nothing.
    """

    findings: tuple[Finding, ...] = ()
    missed: tuple[str, ...] = ()
    fault: str = ""

    def __add__(self, other: Looked) -> Looked:
        return Looked(self.findings + other.findings, self.missed + other.missed, self.fault or other.fault)

    def costly(self, severities: Collection[Severity]) -> list[Finding]:
        """Return the findings of *severities* that cost latency."""
        return [one for one in self.findings if one.status in COSTLY and one.item.severity in severities]

    def ids(self, status: Status) -> list[str]:
        """Return the ids of the items that stand so."""
        return [one.item.item_id for one in self.findings if one.status is status]

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many items of a severity stand how."""
        return dict(Counter((one.item.severity.value, one.status.value) for one in self.findings))


class Deadline:
    """Until when may be looked: without end, until ``set``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at_s = math.inf

    def set(self, time_s: float) -> None:
        """Let it be *time_s* from now."""
        self._at_s = self._clock() + time_s

    def left_s(self) -> float:
        """Return how much time is left.

        Raises:
            TooLateError: none.
        """
        left_s = self._at_s - self._clock()
        if left_s <= 0.0:
            raise TooLateError
        return left_s


class DaemonHost(Host):
    """A host with a deadline, on which one process is the daemon.

    Args:
        process: the daemon's.
        deadline: reading raises TooLateError once it has passed.
        programs: that may be run.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        profile: Profile,
        process: int,
        deadline: Deadline,
        programs: Collection[str] = (),
        runner: Runner | None = None,
    ) -> None:
        # What should stand still is watched while the daemon serves, by who asks: not in the seconds before it.
        super().__init__(root, profile=replace(profile, sample_s=0.0), runner=runner)
        self.runner = _InTime(self.runner, programs, deadline)
        self._process = process
        self._deadline = deadline

    def read_bytes(self, name: str, size: int = 1 << 24, *, offset: int | None = None) -> bytes:
        """Return bytes of a file, as any host does, in time."""
        self._deadline.left_s()
        return super().read_bytes(name, size, offset=offset)

    def names(self, pattern: str) -> list[str]:
        """Return names of files, as any host does, in time."""
        self._deadline.left_s()
        return super().names(pattern)

    def daemons(self) -> list[int]:
        """Return the process that asks."""
        return [self._process]


class _InTime:
    """Runs the programs that it may, for as long as there is time."""

    def __init__(self, runner: Runner, programs: Collection[str], deadline: Deadline) -> None:
        self._runner = runner
        self._programs = frozenset(programs)
        self._deadline = deadline

    def run(self, command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Return what *command* did; one that may not be run is absent."""
        if command[0] not in self._programs:
            raise AbsentError(f"{command[0]} is not asked while a daemon starts")
        return self._runner.run(command, timeout_s=min(timeout_s, _PROGRAM_S, self._deadline.left_s()))

    def has(self, program: str) -> bool:
        """Whether *program* may be run, and is there."""
        return program in self._programs and self._runner.has(program)


@dataclass(frozen=True)
class Question:
    """Of what host, for whom, with which hot cores and devices.

    Attributes:
        process: the daemon's.
        engine_cpus: of its engine; empty where it has none of its own.
        profile: the operator's; what it names goes before the engine's CPUs and GPU.
        gpu: PCI address of the GPU that predicts; empty for none.
        root, runner: as of ``Host``.
    """

    process: int
    engine_cpus: frozenset[int]
    profile: Profile
    gpu: str = ""
    root: Path = Path("/")
    runner: Runner | None = None

    @property
    def hot_cpus(self) -> frozenset[int]:
        """The hot cores."""
        return self.engine_cpus if self.profile.hot_cores is None else self.profile.hot_cores

    def host(self, deadline: Deadline) -> tuple[DaemonHost, str]:
        """Return the host, and what is wrong with the cores or devices that were named, else nothing.

        One that can't be divided as asked is looked at without hot cores.

        Raises:
            HostError: it does not say what CPUs it has.
            TooLateError: the deadline has passed.
        """
        asked = replace(self.profile, hot_cores=self.hot_cpus)
        fault = ""
        # A container need not show the GPU that it was given, which is nobody's fault.
        for profile in (replace(asked, gpu=asked.gpu or self.gpu or None), asked):
            host = self._host(profile, deadline)
            try:
                host.topology  # noqa: B018 (finds what is wrong with it)
            except HostError as refusal:
                fault = str(refusal)
            else:
                return host, ""
        host = self._host(replace(asked, hot_cores=frozenset(), nic=None, gpu=None), deadline)
        host.topology  # noqa: B018 (as above)
        return host, fault

    def _host(self, profile: Profile, deadline: Deadline) -> DaemonHost:
        programs = [*(["ethtool"] if profile.nic else []), *(["nvidia-smi", "dmesg"] if profile.gpu else [])]
        return DaemonHost(
            self.root,
            profile=profile,
            process=self.process,
            deadline=deadline,
            programs=programs,
            runner=self.runner,
        )


class Look:
    """A look at the host, by a thread of its own: whatever holds it up, ``looked`` comes back in time.

    Args:
        question: of what host.
        items: the ids to look at; None for all that concern a daemon but its process.
    """

    def __init__(self, question: Question, items: Collection[str] | None = None) -> None:
        self._question = question
        self._deadline = Deadline()
        self._asked = items
        self._items: list[Item] = []
        self._findings: list[Finding] = []
        self._fault = ""
        self._thread = threading.Thread(target=self._main, name="penstock-host", daemon=True)
        self._thread.start()

    def looked(self, wait_s: float) -> Looked:
        """Return what was found; the look ends within *wait_s*, and what it has not come to is missed."""
        self._deadline.set(wait_s)
        self._thread.join(wait_s + _HELD_UP_S)
        findings, items = tuple(self._findings), list(self._items)
        return Looked(findings, tuple(item.item_id for item in items[len(findings) :]), self._fault)

    def _main(self) -> None:
        try:
            host, self._fault = self._question.host(self._deadline)
            ids = concerned(host) if self._asked is None else self._asked
            self._items = [item for item in selected(host.profile) if item.item_id in ids]
            journal = read_journal(host)
            for item in self._items:
                self._deadline.left_s()
                self._findings.append(examine(host, item, journal))
        except TooLateError:
            pass
        except HostError:  # It tells of no CPUs: there is nothing to look at.
            pass


def concerned(host: Host) -> frozenset[str]:
    """Return the ids of the items that concern a daemon on *host*, but for those of its process."""
    wanted = set(HOST_ITEMS)
    if host.profile.nic is not None:
        wanted |= set(PORT_ITEMS)
    if host.profile.gpu is not None:
        wanted |= set(GPU_ITEMS)
    return frozenset(wanted)


def concerns(finding: Finding) -> Iterator[Concern]:
    """Yield what is to be said of *finding*: targets that are alike are one."""
    for group in alike_settings(finding.telling):
        first = group[0]
        names = ", ".join(setting.target for setting in group[:_SHOWN_MAX])
        more = f" and {len(group) - _SHOWN_MAX} more" if len(group) > _SHOWN_MAX else ""
        wanted = first.wanted or finding.item.wanted
        yield Concern(finding.item, finding.status, f"{names}{more}", wanted, first.found, first.mend)
