"""Knobs behind programs: ethtool, nvidia-smi, systemctl, swapon, hwstamp_ctl.

They are read from what the program prints and turned by its own commands; the same promises as in ``knobs``.
"""

from __future__ import annotations

import re
import shlex
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from penstock_host.checklist import ethtool, nvidia
from penstock_host.checklist.knobs import KINDS, Knob
from penstock_host.cpu_lists import format_cpus, parse_cpus
from penstock_host.faults import AbsentError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host

_STATES: Final = frozenset({"active", "activating", "reloading", "inactive", "deactivating", "failed", "unknown"})
_ACTIVE: Final = frozenset({"active", "activating", "reloading"})


@dataclass(frozen=True)
class CommandKnob(Knob):
    """A knob that one command turns."""

    @abstractmethod
    def command(self, text: str) -> tuple[str, ...]:
        """Return the command that sets *text*."""

    def write(self, host: Host, text: str) -> None:
        """Run the command."""
        host.order(*self.command(text.strip()))

    def shell(self, text: str) -> str:
        """Return the command as shell."""
        return shlex.join(self.command(text.strip()))


@dataclass(frozen=True)
class EthtoolKnob(CommandKnob):
    """One value of a network port: coalesce, pause, ring or channels."""

    kind: ClassVar[str] = "ethtool"
    port: str
    part: str
    key: str

    def read(self, host: Host) -> str:
        """Return the value."""
        return ethtool.value(host, self.port, self.part, self.key)

    def command(self, text: str) -> tuple[str, ...]:
        """Return ethtool's."""
        return ("ethtool", ethtool.WRITE[self.part], self.port, self.key, text)


@dataclass(frozen=True)
class GpuKnob(CommandKnob):
    """A mode of a GPU: persistence_mode or compute_mode, as nvidia-smi prints it."""

    kind: ClassVar[str] = "gpu"
    gpu: str
    field: str

    def read(self, host: Host) -> str:
        """Return the mode."""
        return nvidia.value(host, self.gpu, self.field)

    def command(self, text: str) -> tuple[str, ...]:
        """Return nvidia-smi's."""
        if self.field == "persistence_mode":
            return ("nvidia-smi", "-i", self.gpu, "-pm", "1" if text == "Enabled" else "0")
        return ("nvidia-smi", "-i", self.gpu, "-c", text.upper())

    def same(self, one: str, other: str) -> bool:
        """Whether both are the same mode, however it is written."""
        return one.strip().lower() == other.strip().lower()


@dataclass(frozen=True)
class GpuClockKnob(CommandKnob):
    """The graphics clock of a GPU, locked at one value in MHz.

    Whether a clock is locked can't be read, only where it stands: a locked one may stand lower while idle or at its
    power limit, so lower is still ours; higher is not. What was before is "not locked".
    """

    kind: ClassVar[str] = "gpu-clock"
    gpu: str

    @property
    def label(self) -> str:
        """The GPU and what of it."""
        return f"{self.gpu} graphics clock MHz"

    def read(self, host: Host) -> str:
        """Return where the clock stands."""
        return nvidia.value(host, self.gpu, "clocks.gr")

    def command(self, text: str) -> tuple[str, ...]:
        """Return nvidia-smi's."""
        return ("nvidia-smi", "-i", self.gpu, "-lgc", f"{text},{text}")

    def restore(self, host: Host, original: str) -> None:
        """Unlock the clock."""
        del original
        host.order("nvidia-smi", "-i", self.gpu, "-rgc")

    def restored(self, now: str, original: str) -> bool:
        """Nothing tells: the driver moves the clock as it likes."""
        del now, original
        return True

    def holds(self, now: str, written: str) -> bool:
        """Whether the clock stands at *written* or lower."""
        return now.strip().isdigit() and written.strip().isdigit() and int(now) <= int(written)


@dataclass(frozen=True)
class UnitKnob(CommandKnob):
    """Whether a systemd unit runs: "active" or "inactive"."""

    kind: ClassVar[str] = "unit"
    unit: str

    def read(self, host: Host) -> str:
        """Return the unit's state."""
        state = host.outcome("systemctl", "is-active", self.unit).output.strip()
        if state not in _STATES:
            raise AbsentError(f"systemctl does not know {self.unit}")
        return "active" if state in _ACTIVE else "inactive"

    def command(self, text: str) -> tuple[str, ...]:
        """Return systemctl's."""
        return ("systemctl", "start" if text == "active" else "stop", self.unit)


@dataclass(frozen=True)
class PropertyKnob(CommandKnob):
    """A list of CPUs that is a property of a systemd unit, until the next boot."""

    kind: ClassVar[str] = "property"
    unit: str
    name: str

    def read(self, host: Host) -> str:
        """Return the property's value; empty for none."""
        outcome = host.outcome("systemctl", "show", "-p", self.name, self.unit)
        lines = [line for line in outcome.output.splitlines() if line.startswith(f"{self.name}=")]
        if not outcome.worked or not lines:
            raise AbsentError(f"systemctl shows no {self.name} of {self.unit}")
        return lines[0].partition("=")[2]

    def command(self, text: str) -> tuple[str, ...]:
        """Return systemctl's."""
        return ("systemctl", "set-property", "--runtime", self.unit, f"{self.name}={','.join(text.split())}")

    def same(self, one: str, other: str) -> bool:
        """Whether both name the same CPUs; systemd puts blanks between them."""
        try:
            return parse_cpus(",".join(one.split())) == parse_cpus(",".join(other.split()))
        except ValueError:
            return one.strip() == other.strip()

    def show(self, value: str) -> str:
        """Show CPUs as a list."""
        try:
            return format_cpus(parse_cpus(",".join(value.split()))) or "all"
        except ValueError:
            return repr(value)


@dataclass(frozen=True)
class SwapKnob(CommandKnob):
    """Whether a swap device or file is in use: "off", "on", or "on 10" with a priority that somebody chose."""

    kind: ClassVar[str] = "swap"
    device: str

    @property
    def label(self) -> str:
        """The device, as swap."""
        return f"swap on {self.device}"

    def read(self, host: Host) -> str:
        """Return how it is used; a priority below 0 is the kernel's own."""
        priority = swap_devices(host).get(self.device)
        return "off" if priority is None else f"on {priority}" if priority >= 0 else "on"

    def command(self, text: str) -> tuple[str, ...]:
        """Return swapon or swapoff."""
        how, _, priority = text.partition(" ")
        return (f"swap{how}", *(("-p", priority) if priority else ()), self.device)


@dataclass(frozen=True)
class TimestampKnob(CommandKnob):
    """Which packets a port's hardware stamps: ``tx_type rx_filter``, as numbers of linux/net_tstamp.h."""

    kind: ClassVar[str] = "hwstamp"
    port: str

    @property
    def label(self) -> str:
        """The port and what of it."""
        return f"{self.port} hardware timestamps (tx_type rx_filter)"

    def read(self, host: Host) -> str:
        """Return both numbers."""
        text = host.ask("hwstamp_ctl", "-i", self.port)
        sent, received = (
            re.search(r"^tx_type (\d+)", text, re.MULTILINE),
            re.search(r"^rx_filter (\d+)", text, re.MULTILINE),
        )
        if not sent or not received:
            raise UnreadableError(f"hwstamp_ctl says nothing of {self.port} that is understood")
        return f"{sent[1]} {received[1]}"

    def command(self, text: str) -> tuple[str, ...]:
        """Return hwstamp_ctl's."""
        sent, received = text.split()
        return ("hwstamp_ctl", "-i", self.port, "-t", sent, "-r", received)


def swap_devices(host: Host) -> dict[str, int]:
    """Return the devices and files that are swapped to, with their priorities.

    Raises:
        ValueError: a line makes no sense.
    """
    rows = [line.split() for line in host.read("/proc/swaps").splitlines()[1:] if line.strip()]
    if any(len(row) < 5 for row in rows):
        raise ValueError(f"/proc/swaps must have five columns, was {rows[0]}")
    # The kernel writes a blank in a name as \040.
    return {re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), row[0]): int(row[-1]) for row in rows}


for _knob in (EthtoolKnob, GpuKnob, GpuClockKnob, UnitKnob, PropertyKnob, SwapKnob, TimestampKnob):
    KINDS[_knob.kind] = _knob
