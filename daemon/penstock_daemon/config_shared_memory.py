"""The configuration's part about shared memory: where strategies on this host attach, who may, and how much they get.

memory at most = segments_max * (4096 + 256 * slots) bytes, beside the arena
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from penstock_daemon.config_limits import Between, PathText, PowerOfTwo, UnixSocketOrNone


@dataclass(frozen=True, slots=True)
class SharedMemoryConfig:
    """Rings in memory for strategies on this host; see docs/shared-memory.md."""

    enabled: Annotated[
        bool,
        "Whether strategies may attach through shared memory. Where server.address is TCP, they may only if "
        "shared_memory.address is given.",
    ] = True
    address: Annotated[
        str,
        UnixSocketOrNone(),
        "Where they attach: a Unix socket. Left out, it is server.address with .shm after it, where that is a Unix socket "
        "and the path still fits 107 bytes.",
    ] = ""
    group: Annotated[
        str,
        PathText(64),
        "A group of this host whose members may attach beside the daemon's own user and root. Its members can open a Unix "
        'server.address too. "" lets nobody else.',
    ] = ""
    slots: Annotated[
        int,
        PowerOfTwo(64, 1_048_576),
        "Ticks that a strategy can write before the daemon takes them, and predictions that wait to be read. 256 bytes each.",
    ] = 8192
    segments_max: Annotated[int, Between(1, 1024), "Most strategies attached at once."] = 16
    attach_timeout_s: Annotated[
        float,
        Between(0.01, 60),
        "How long a strategy may take to attach after Welcome, and to speak once it has connected.",
    ] = 5.0
