"""The checklist's N3 to N6: whether the host's clock follows its master, one discipline alone, and how far from UTC."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.cpu import INFO, MUST, SHOULD
from penstock_host.checklist.items import Item, Persistence, Setting, Status, judge
from penstock_host.faults import AbsentError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host

P: Final = Persistence.PROCESS
WRITERS: Final = (
    "chronyd", "ntpd", "systemd-timesyncd", "openntpd", "ntp-daemon", "ptpd", "ptpd2", "sfptpd",
)  # fmt: skip
_ONLY_READ: Final = ("none: it is only read", "nothing to undo")


def offset_ns(host: Host) -> int:
    """Return ptp4l's offset from its master; AbsentError and UnreadableError as ``Host.ask``."""
    text = host.ask("pmc", "-u", "-b", "0", "GET TIME_STATUS_NP")
    found = re.search(r"^\s*master_offset\s+(-?\d+)", text, re.MULTILINE)
    if not found:
        raise UnreadableError("pmc got no answer: ptp4l does not run, or listens elsewhere")
    return int(found[1])


def system_rms_ns(host: Host) -> tuple[int, float]:
    """Return phc2sys's last word on how far the system clock is, and how many seconds old it is."""
    text = host.ask("journalctl", "_COMM=phc2sys", "-n", "20", "-o", "short-unix", "--no-pager")
    for line in reversed(text.splitlines()):
        found = re.match(r"(\d+\.\d+) .*?(?:\brms\s+(\d+)|\boffset\s+(-?\d+))", line)
        if found:
            return abs(int(found[2] or found[3])), host.now_unix_s() - float(found[1])
    running = [process for process, words in host.processes() if _program(words) == "phc2sys"]
    if running:
        raise UnreadableError(f"phc2sys (process {running[0]}) runs, and the journal has no word of it")
    raise AbsentError("phc2sys has said nothing")


def _master(host: Host) -> Iterable[Setting]:
    ports = host.ask("pmc", "-u", "-b", "0", "GET PORT_DATA_SET")
    states = re.findall(r"^\s*portState\s+(\S+)", ports, re.MULTILINE)
    if not states:
        raise UnreadableError("pmc got no answer: ptp4l does not run, or listens elsewhere")
    yield judge("portState", "SLAVE" in states, "SLAVE", ", ".join(states), "look at ptp4l's log, and at the switch")
    status = host.ask("pmc", "-u", "-b", "0", "GET TIME_STATUS_NP")
    present = re.search(r"^\s*gmPresent\s+(\S+)", status, re.MULTILINE)
    yield judge(
        "gmPresent",
        present is not None and present[1] == "true",
        "true",
        present[1] if present else "nothing",
        "no grandmaster is seen",
    )
    offset, most = offset_ns(host), host.profile.offset_ns_max
    yield judge(
        "master_offset", abs(offset) < most, f"under {most} ns", f"{offset} ns", "let ptp4l settle; see its log"
    )


def _system(host: Host) -> Iterable[Setting]:
    rms_ns, age_s = system_rms_ns(host)
    most_ns, most_s = host.profile.rms_ns_max, host.profile.stale_s_max
    yield judge("phc2sys rms", rms_ns < most_ns, f"under {most_ns} ns", f"{rms_ns} ns", "see phc2sys's log")
    yield judge(
        "phc2sys age",
        0 <= age_s < most_s,
        f"newer than {most_s:g} s",
        f"{age_s:.1f} s",
        "phc2sys has fallen silent: start it again",
    )


def _program(words: list[str]) -> str:
    return words[0].rsplit("/", 1)[-1] if words else ""


def _sets_system_clock(words: list[str]) -> bool:
    """Whether a process with these words sets CLOCK_REALTIME, as far as they tell."""
    name = _program(words)
    flags = "".join(word[1:] for word in words[1:] if re.fullmatch("-[a-zA-Z]+", word))
    if name == "chronyd":
        return "x" not in flags
    if name == "phc2sys":
        # By itself it sets the clock that -c names; with -a the cards' alone, unless -r adds the system's.
        into_card = any(one == "-c" and other != "CLOCK_REALTIME" for one, other in itertools.pairwise(words))
        return not into_card and ("a" not in flags or "r" in flags)
    if name == "ptp4l":
        return "S" in flags  # With software stamps it has no card's clock to set.
    return name in WRITERS


def _one_writer(host: Host) -> Iterable[Setting]:
    host.see_processes()
    writers = {process: _program(words) for process, words in host.processes() if _sets_system_clock(words)}
    # chronyd and ntpd keep a helper beside them that has the same name.
    found = [
        f"{name} (process {process})"
        for process, name in writers.items()
        if writers.get(_parent(host, process)) != name
    ]
    yield judge(
        "CLOCK_REALTIME", len(found) <= 1, "one writer at most", ", ".join(found) or "none", "stop all but one",
    )  # fmt: skip


def _parent(host: Host, process: int) -> int:
    found = re.search(r"^PPid:\s*(\d+)", host.read_or(f"/proc/{process}/status"), re.MULTILINE)
    return int(found[1]) if found else 0


def _from_utc(host: Host) -> Iterable[Setting]:
    most = host.profile.utc_ns_max
    rms_ns, _ = system_rms_ns(host)
    bound = abs(offset_ns(host)) + rms_ns
    # What was said long ago, or without a master, says nothing of now.
    unsure = [setting.target for setting in (*_master(host), *_system(host)) if _doubtful(setting)]
    good = bound < most and not unsure
    found = f"{bound} ns" + (f", and can't be trusted: {', '.join(unsure)}" if unsure else "")
    yield judge("UTC", good, f"within {most} ns", found, "mend N3 and N4 first")


def _doubtful(setting: Setting) -> bool:
    return setting.status is not Status.OK and setting.target in {"portState", "gmPresent", "phc2sys age"}


ITEMS: Final = (
    Item(
        "N3", "ptp4l", "nic", SHOULD, P, "a slave of a grandmaster, within 1 us",
        "latency between hosts is only as true as their clocks", *_ONLY_READ, "linuxptp, pmc(8)", _master,
    ),
    Item(
        "N4", "phc2sys", "host", SHOULD, P, "rms under 1 us, said within 1.5 s",
        "the system clock follows the card's through it alone", *_ONLY_READ, "linuxptp; NVIDIA's staleness limit", _system,
    ),
    Item(
        "N5", "one clock discipline", "host", MUST, P, "one program alone sets CLOCK_REALTIME",
        "two of them pull the clock to and fro, and stamps run backwards", *_ONLY_READ, "linuxptp, chrony", _one_writer,
    ),
    Item(
        "N6", "distance from UTC", "host", INFO, P, "under 100 us, in steps of 1 us",
        "what a regulator asks of firms that trade fast", *_ONLY_READ, "RTS 25", _from_utc,
    ),
)  # fmt: skip
