"""The checklist's I4, I6 to I8, I10, N1, N2, N7, N8: the network card and its way through the kernel."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from penstock_host.checklist import ethtool
from penstock_host.checklist.cpu import INFO, SHOULD, WRITTEN_BACK, R, hot_cpus
from penstock_host.checklist.items import Item, Persistence, Setting, Status, file, judge, report, turn
from penstock_host.checklist.knobs_command import EthtoolKnob, TimestampKnob
from penstock_host.cpu_lists import format_cpus, format_mask, parse_mask
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.topology import Device

if TYPE_CHECKING:
    from penstock_host.host import Host

NET: Final = "/proc/sys/net"
BUFFER_BYTES: Final = 2 << 20
FILTER_ALL: Final = "1"  # HWTSTAMP_FILTER_ALL
_FLAP: Final = "the link goes down for a moment, and TCP flows with it"
_BEFORE_INTERRUPTS: Final = -1  # The driver registers them anew, wherever it likes.
_COMMAND: Final = "ethtool sets what was there before"


def nic_of(host: Host) -> Device:
    """Return the port that carries ticks.

    Raises:
        AbsentError: there is none.
    """
    if host.topology.nic is None:
        raise AbsentError("no network card was found; --nic names one")
    return host.topology.nic


def _queues(host: Host) -> Iterable[Setting]:
    port = nic_of(host).name
    most = int(ethtool.value(host, port, "channels", "max combined"))
    wanted = min(most, host.profile.nic_queues or len(host.topology.housekeeping))
    yield turn(host, EthtoolKnob(port, "channels", "combined"), str(wanted))


def _steering(host: Host) -> Iterable[Setting]:
    hot_cpus(host)
    nic = nic_of(host)
    rest = host.topology.housekeeping
    for kind, mask in (("rx-*/rps_cpus", "0"), ("tx-*/xps_cpus", format_mask(rest))):
        for name in host.names(f"{nic.folder}/queues/{kind}"):
            yield file(
                host, name, mask, form="mask", shown=f"none, or within {format_cpus(rest)}",
                accept=lambda found: parse_mask(found) <= rest,
            )  # fmt: skip


def _coalescing(host: Host) -> Iterable[Setting]:
    port = nic_of(host).name
    most = host.profile.rx_usecs_max
    yield turn(host, EthtoolKnob(port, "coalesce", "adaptive-rx"), "off")
    yield turn(
        host, EthtoolKnob(port, "coalesce", "rx-usecs"), str(most), accept=lambda found: int(found) <= most,
        shown=f"at most {most}",
    )  # fmt: skip


def _pause(host: Host) -> Iterable[Setting]:
    port = nic_of(host).name
    yield turn(host, EthtoolKnob(port, "pause", "rx"), "off")
    yield turn(host, EthtoolKnob(port, "pause", "tx"), "off")
    ring = EthtoolKnob(port, "ring", "rx")
    if host.profile.nic_ring:
        yield turn(host, ring, str(host.profile.nic_ring))
    else:
        setting = turn(host, ring, "")
        if setting.status is Status.DRIFT:
            setting = report(ring.label, setting.found, wanted="as measured", mend="nic_ring = in the profile sets it")
        yield setting


def _busy_poll(host: Host) -> Iterable[Setting]:
    for name in ("busy_read", "busy_poll"):
        yield file(host, f"{NET}/core/{name}", "50", form="number")


def _stamps(host: Host) -> Iterable[Setting]:
    port = nic_of(host).name
    text = host.ask("ethtool", "-T", port)
    abilities = {name for name in ("hardware-receive", "hardware-transmit") if name in text}
    clock = re.search(r"(?:PTP Hardware Clock|Hardware timestamp provider index): (\d+)", text)
    found = ", ".join(sorted(abilities)) or "no hardware time stamps"
    yield judge(
        f"{port} time stamps", len(abilities) == 2 and clock is not None, "hardware-receive, hardware-transmit, a clock",
        f"{found}, {f'clock {clock[1]}' if clock else 'no clock'}", "ticks get the kernel's time; a card with PTP has better",
    )  # fmt: skip


def _filter(host: Host) -> Iterable[Setting]:
    port = nic_of(host).name
    knob = TimestampKnob(port)
    now = knob.read(host)
    wanted = f"{now.split()[0]} {FILTER_ALL}"
    setting = turn(host, knob, wanted, shown=f"rx_filter {FILTER_ALL} (all packets)")
    owners = [process for process, words in host.processes() if _may_stamp(host, words, port)]
    if setting.status is Status.DRIFT and owners:
        setting = replace(
            setting, knob=None,
            mend=f"ptp4l (process {owners[0]}) owns this: give it hwts_filter full, or another port",
        )  # fmt: skip
    yield setting


def _may_stamp(host: Host, words: list[str], port: str) -> bool:
    """Whether *words* are a ptp4l's that uses *port*, or may: its flags name it, or a file that does or is closed."""
    if not words or words[0].rsplit("/", 1)[-1] != "ptp4l":
        return False
    if port in words or f"-i{port}" in words:
        return True
    for flag, name in itertools.pairwise(words):
        if flag == "-f":
            try:
                return re.search(rf"^\s*\[{re.escape(port)}\]", host.read(name), re.MULTILINE) is not None
            except (AbsentError, UnreadableError):
                return True
    return False


def _tcp(host: Host) -> Iterable[Setting]:
    yield file(host, f"{NET}/ipv4/tcp_slow_start_after_idle", "0", form="number")
    yield file(host, f"{NET}/ipv4/tcp_autocorking", "0", form="number")
    for name in ("rmem_max", "wmem_max"):
        yield file(
            host, f"{NET}/core/{name}", str(BUFFER_BYTES), form="number", accept=lambda found: int(found) >= BUFFER_BYTES,
            shown=f"at least {BUFFER_BYTES}",
        )  # fmt: skip


def _link(host: Host) -> Iterable[Setting]:
    nic = nic_of(host)
    state = host.read_or(f"{nic.folder}/operstate", "unknown")
    # Of a port that is down the kernel says -1, or EINVAL.
    found = host.read_or(f"{nic.folder}/speed", "-1") if state == "down" else host.read(f"{nic.folder}/speed").strip()
    wanted = host.profile.link_mbps
    if state == "down":
        yield judge(f"{nic.folder}/operstate", False, "up", state, "the link is down: look at cable, module and switch")
    if not wanted:
        yield report(
            f"{nic.folder}/speed", f"{found} Mb/s", wanted="as configured", mend="link_mbps = in the profile checks it"
        )
        return
    yield judge(
        f"{nic.folder}/speed", found == str(wanted), f"{wanted} Mb/s", f"{found} Mb/s", "look at cable, module and switch",
    )  # fmt: skip


ITEMS: Final = (
    Item(
        "I4", "queues of the network card", "nic", SHOULD, R, "as many as housekeeping cores, or as configured",
        "a queue more than there are cores for it interrupts a hot one", _FLAP, _COMMAND, "AMD Onload guide UG1586",
        _queues, _FLAP, _BEFORE_INTERRUPTS,
    ),
    Item(
        "I6", "packet steering", "nic", SHOULD, R, "off, or within housekeeping CPUs",
        "steering hands packets to hot cores", "none known", WRITTEN_BACK,
        "kernel documentation, networking/scaling.rst", _steering,
    ),
    Item(
        "I7", "interrupt coalescing", "nic", SHOULD, R, "adaptive off; rx-usecs 0, or as configured",
        "the card otherwise waits for more packets before it says that one came", "more interrupts, more CPU", _COMMAND,
        "AMD Onload guide UG1586", _coalescing,
    ),
    Item(
        "I8", "pause frames and ring", "nic", INFO, R, "pause off; the ring as measured",
        "a pause frame from one slow receiver stops all", "packets are dropped instead; the ring's size flaps the link",
        _COMMAND, "AMD Onload guide UG1586", _pause, _FLAP, _BEFORE_INTERRUPTS,
    ),
    Item(
        "I10", "busy polling", "host", INFO, R, "50 us",
        "a socket that polls sees a packet without waiting for its interrupt; with gRPC's event loop not verified",
        "burns CPU", WRITTEN_BACK, "TuneD profile network-latency", _busy_poll,
    ),
    Item(
        "N1", "hardware time stamps", "nic", SHOULD, Persistence.FIRMWARE, "receive, transmit and a clock on the feed's card",
        "without them a tick's first stamp is the kernel's", "none: it is only read", "nothing to undo", "ethtool(8), linuxptp", _stamps,
    ),
    Item(
        "N2", "which packets are stamped", "nic", SHOULD, R, "all (HWTSTAMP_FILTER_ALL)",
        "a filter for PTP alone leaves ticks unstamped", "ptp4l owns the same setting", "hwstamp_ctl sets what was there before",
        "kernel documentation, networking/timestamping.rst", _filter,
    ),
    Item(
        "N7", "TCP", "host", SHOULD, R, "no slow start after idle, no corking, buffers of 2 MiB and more",
        "a connection that was quiet starts slowly, just when a burst comes", "counts for every connection of the host",
        WRITTEN_BACK, "Aeron performance testing; tcp(7) (corking not verified)", _tcp,
    ),
    Item(
        "N8", "link speed", "nic", SHOULD, Persistence.FIRMWARE, "as configured",
        "a link that came up slower delays every packet", "none: it is only read", "nothing to undo", "ethtool(8)", _link,
    ),
)  # fmt: skip
