"""What ethtool prints, as values: ``combined`` of now, ``max combined`` of what the card can do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from penstock_host.faults import AbsentError

if TYPE_CHECKING:
    from penstock_host.host import Host

READ: Final = {"coalesce": "-c", "pause": "-a", "ring": "-g", "channels": "-l"}
WRITE: Final = {"coalesce": "-C", "pause": "-A", "ring": "-G", "channels": "-L"}


def read_values(host: Host, port: str, part: str) -> dict[str, str]:
    """Return what *part* of *port* is set to; keys are those that ethtool takes, ``max`` before a limit.

    Raises:
        AbsentError: no ethtool, or no such thing on this card.
        UnreadableError: ethtool failed.
    """
    return parse(host.ask("ethtool", READ[part], port))


def value(host: Host, port: str, part: str, key: str) -> str:
    """Return one value; faults as ``read_values``, absent too where the card has no such value."""
    found = read_values(host, port, part).get(key, "n/a")
    if found == "n/a":
        raise AbsentError(f"{port} has no {part} {key}")
    return found


def parse(text: str) -> dict[str, str]:
    """Return the values of an output of ``ethtool -c``, ``-a``, ``-g`` or ``-l``."""
    values: dict[str, str] = {}
    prefix = ""
    for line in text.splitlines():
        if line.startswith("Pre-set maximums"):
            prefix = "max "
        elif line.startswith("Current hardware settings"):
            prefix = ""
        elif both := re.fullmatch(r"Adaptive RX:\s*(\S+)\s+TX:\s*(\S+)\s*", line):
            values["adaptive-rx"], values["adaptive-tx"] = both[1], both[2]
        elif one := re.fullmatch(r"([A-Za-z][A-Za-z0-9 -]*):\s*(\S+)\s*", line):
            values[prefix + one[1].lower().replace(" ", "-")] = one[2]
    return values
