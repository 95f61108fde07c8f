"""The configuration's section about clocks: what stages are timed with, and what is compared with the host's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from penstock_daemon.config_limits import PtpDevice

Stamps = Literal["auto", "tsc", "monotonic"]


@dataclass(frozen=True, slots=True)
class ClockConfig:
    """The clocks that stages are stamped with, and those that are compared with the host's."""

    stamps: Annotated[
        Stamps,
        "What the engine times its stages with. auto takes the CPU's cycle counter (TSC) where it is sound, else "
        "CLOCK_MONOTONIC, and the log says which and why. tsc refuses to start where it is not.",
    ] = "auto"
    ptp: Annotated[
        str,
        PtpDevice(),
        "The clock of the network card whose time stamps a feed brings; it is compared with the host's once a second. "
        '"" takes that of feed.interface, where its card stamps. auto takes the first that there is where it does not.',
    ] = ""
