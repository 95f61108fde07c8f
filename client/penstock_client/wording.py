"""Figures as people read them; imports nothing, so that the process that draws is there at once."""

from __future__ import annotations

import math


def microseconds_text(microseconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if microseconds < 10:
        return f"{microseconds:.1f} µs"
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.2f} ms"
    return f"{microseconds / 1e6:.2f} s"


def share_text(share: float) -> str:
    """Return a share that never rounds up to all."""
    if share == 1:
        return "100 %"
    return f"{math.floor(share * 1e5) / 1e3:.3f} %"
