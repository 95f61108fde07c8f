"""ethtool, nvidia-smi, systemctl and their like, with a state of their own, in the formats that they document.

``Tools`` is a runner: what is set is what is read next. ``record`` writes what they print into a folder, for the runner
that only reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock_host.checklist import nvidia
from penstock_host.faults import AbsentError
from penstock_host.runner import Outcome, recorded_name

GPU = "0000:81:00.0"
NOW_UNIX_S = 1_731_000_001.0

CHANNELS = """Channel parameters for eth0:
Pre-set maximums:
RX:\t\tn/a
TX:\t\tn/a
Other:\t\tn/a
Combined:\t63
Current hardware settings:
RX:\t\tn/a
TX:\t\tn/a
Other:\t\tn/a
Combined:\t{combined}
"""
COALESCE = """Coalesce parameters for eth0:
Adaptive RX: {adaptive-rx}  TX: on
stats-block-usecs:\tn/a
sample-interval:\tn/a

rx-usecs:\t{rx-usecs}
rx-frames:\t128
rx-usecs-irq:\tn/a

tx-usecs:\t16
"""
PAUSE = """Pause parameters for eth0:
Autonegotiate:\toff
RX:\t\t{rx}
TX:\t\t{tx}

"""
RING = """Ring parameters for eth0:
Pre-set maximums:
RX:\t\t\t8192
RX Mini:\t\tn/a
TX:\t\t\t8192
Current hardware settings:
RX:\t\t\t{rx}
RX Mini:\t\tn/a
TX:\t\t\t1024
"""
STAMPS = """Time stamping parameters for eth0:
Capabilities:
\thardware-transmit
\thardware-receive
\thardware-raw-clock
PTP Hardware Clock: 0
Hardware Transmit Timestamp Modes:
\toff
\ton
Hardware Receive Filter Modes:
\tnone
\tall
"""
PORT = """sending: GET PORT_DATA_SET
\t507c6f.fffe.0d5f5b-1 seq 0 RESPONSE MANAGEMENT PORT_DATA_SET
\t\tportIdentity            507c6f.fffe.0d5f5b-1
\t\tportState               SLAVE
\t\tlogMinDelayReqInterval  0
"""
STATUS = """sending: GET TIME_STATUS_NP
\t507c6f.fffe.0d5f5b-0 seq 0 RESPONSE MANAGEMENT TIME_STATUS_NP
\t\tmaster_offset              -12
\t\tingress_time               1730999999123456789
\t\tgmPresent                  true
\t\tgmIdentity                 ec4670.fffe.0a1b2c
"""
PHC2SYS = """1731000000.123456 host phc2sys[711]: [5321.4] CLOCK_REALTIME rms   12 max   25 freq  -1234 +/-  10 delay   500 +/-   5
1731000000.523456 host phc2sys[711]: [5321.8] CLOCK_REALTIME rms   14 max   25 freq  -1234 +/-  10 delay   500 +/-   5
"""

_ETHTOOL = {"-l": ("channels", CHANNELS), "-c": ("coalesce", COALESCE), "-a": ("pause", PAUSE), "-g": ("ring", RING)}


class Tools:
    """The programs of a bare-metal host."""

    def __init__(self) -> None:
        self.state: dict[str, dict[str, str]] = {
            "channels": {"combined": "16"},
            "coalesce": {"adaptive-rx": "on", "rx-usecs": "8"},
            "pause": {"rx": "on", "tx": "off"},
            "ring": {"rx": "512"},
            "stamps": {"tx": "0", "rx": "0"},
            "gpu": dict(
                zip(
                    nvidia.FIELDS,
                    (
                        "Disabled",
                        "345",
                        "1980",
                        "Default",
                        "4",
                        "4",
                        "16",
                        "16",
                        "0",
                        "Disabled",
                        "41",
                        "68.42",
                        "350.00",
                    ),
                    strict=True,
                )
            ),
            "units": {"irqbalance": "active"},
            "system.slice": {"AllowedCPUs": ""},
            "user.slice": {"AllowedCPUs": ""},
        }
        self.orders: list[str] = []
        self.broken: set[str] = set()

    def snapshot(self) -> str:
        return json.dumps(self.state, sort_keys=True)

    def has(self, program: str) -> bool:
        return program in {"ethtool", "nvidia-smi", "systemctl", "hwstamp_ctl", "pmc", "journalctl", "dmesg"}

    def run(self, command: Sequence[str], *, timeout_s: float = 1.0) -> Outcome:
        del timeout_s
        before = self.snapshot()
        outcome = self._run(list(command))
        if outcome is None:
            raise AbsentError(f"{command[0]} is not installed")
        if command[0] in self.broken:
            return Outcome(1, "", f"{command[0]}: Operation not permitted")
        if self.snapshot() != before:
            self.orders.append(" ".join(command))
        return outcome

    def _run(self, command: list[str]) -> Outcome | None:
        program: dict[str, Callable[[list[str]], str | None]] = {
            "ethtool": self._ethtool,
            "nvidia-smi": self._nvidia,
            "hwstamp_ctl": self._stamp,
            "pmc": lambda words: PORT if "PORT_DATA_SET" in words[-1] else STATUS,
            "journalctl": lambda _: PHC2SYS,
            "dmesg": lambda _: "[    0.000000] Linux version 6.8.0\n",
        }
        if command[0] == "systemctl":
            return self._systemctl(command[1:])
        if command[0] not in program:
            return None
        said = program[command[0]](command[1:])
        return Outcome(1, "", f"{command[0]}: Operation not supported") if said is None else Outcome(0, said)

    def _ethtool(self, words: list[str]) -> str | None:
        if words[1] != "eth0":
            return None
        if words[0] == "-T":
            return STAMPS
        part, text = _ETHTOOL[words[0].lower()]
        if words[0].isupper():
            self.state[part][words[2]] = words[3]
            return ""
        for key, value in self.state[part].items():
            text = text.replace(f"{{{key}}}", value)
        return text

    def _nvidia(self, words: list[str]) -> str | None:
        gpu = self.state["gpu"]
        order = words[2]
        if order == "-pm":
            gpu["persistence_mode"] = "Enabled" if words[3] == "1" else "Disabled"
        elif order == "-c":
            gpu["compute_mode"] = words[3].title()
        elif order == "-lgc":
            gpu["clocks.gr"] = words[3].split(",")[0]
        elif order == "-rgc":
            gpu["clocks.gr"] = "345"
        elif order.startswith("--query-gpu="):
            fields = order.partition("=")[2].split(",")
            return ", ".join("0x0000000000000001" if field == nvidia.REASONS else gpu[field] for field in fields) + "\n"
        elif order.startswith("--query-remapped-rows"):
            return "No, No\n"
        else:
            return None
        return ""

    def _stamp(self, words: list[str]) -> str | None:
        stamps = self.state["stamps"]
        if "-t" in words:
            stamps["tx"], stamps["rx"] = words[words.index("-t") + 1], words[words.index("-r") + 1]
        return f"current settings:\ntx_type {stamps['tx']}\nrx_filter {stamps['rx']}\n"

    def _systemctl(self, words: list[str]) -> Outcome:
        units = self.state["units"]
        if words[0] == "is-active":
            state = units.get(words[1], "inactive")
            return Outcome(0 if state == "active" else 3, f"{state}\n")
        if words[0] in {"start", "stop"}:
            units[words[1]] = "active" if words[0] == "start" else "inactive"
        elif words[0] == "show" and words[-1] == "penstockd.service":
            slice_name = self.state["units"].get("penstockd slice", "")
            return Outcome(0, f"LoadState={'loaded' if slice_name else 'not-found'}\nSlice={slice_name}\n")
        elif words[0] == "show":
            return Outcome(0, f"{words[2]}={self.state[words[3]][words[2]]}\n")
        elif words[0] == "set-property":
            key, _, value = words[3].partition("=")
            self.state[words[2]][key] = value.replace(",", " ")
        return Outcome(0, "")

    def record(self, folder: Path) -> None:
        """Write what the programs print when they are only asked."""
        folder.mkdir(parents=True, exist_ok=True)
        query = ("--format=csv,noheader,nounits",)
        commands = [
            *(("ethtool", flag, "eth0") for flag in ("-l", "-c", "-a", "-g", "-T")),
            ("nvidia-smi", "-i", GPU, f"--query-gpu={','.join(nvidia.FIELDS)}", *query),
            ("nvidia-smi", "-i", GPU, f"--query-gpu={nvidia.REASONS}", *query),
            ("nvidia-smi", "-i", GPU, *nvidia.REMAPPED),
            ("hwstamp_ctl", "-i", "eth0"),
            ("pmc", "-u", "-b", "0", "GET PORT_DATA_SET"),
            ("pmc", "-u", "-b", "0", "GET TIME_STATUS_NP"),
            ("journalctl", "_COMM=phc2sys", "-n", "20", "-o", "short-unix", "--no-pager"),
            ("systemctl", "is-active", "irqbalance"),
            ("systemctl", "show", "-p", "AllowedCPUs", "system.slice"),
            ("systemctl", "show", "-p", "AllowedCPUs", "user.slice"),
            ("dmesg",),
        ]
        for command in commands:
            (folder / recorded_name(command)).write_text(self.run(command).output, encoding="utf-8")
        (folder / "now").write_text(str(NOW_UNIX_S), encoding="ascii")
