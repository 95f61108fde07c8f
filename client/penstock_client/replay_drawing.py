"""The drawing process of a replay: JSON lines on standard input, a live picture on standard error."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, Final

from penstock_client.wording import microseconds_text, share_text

BUDGET_US: Final = 5000.0
_NOTHING_YET: Final[dict[str, Any]] = {
    "total": 1,
    "answered": 0,
    "seconds": 0.0,
    "p50_us": 0.0,
    "p99_us": 0.0,
    "max_us": 0.0,
    "share_within_5ms": 1.0,
    "resumed": 0,
    "horizons": [],
    "latest": [],
}


def draw(sample: dict[str, Any]) -> Any:
    """Return *sample* as something rich can show."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total, answered, seconds = max(sample["total"], 1), sample["answered"], sample["seconds"]
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text("replaying", style="bold"),
        ProgressBar(total=total, completed=answered, width=32),
        f"{answered:,} of {total:,} ticks",
        f"{seconds:.0f} s",
        f"{answered / seconds if seconds else 0:,.0f}/s",
    )
    p99 = sample["p99_us"]
    figures = Text.assemble(
        ("latency now  ", "dim"),
        f"p50 {microseconds_text(sample['p50_us'])}   ",
        (f"p99 {microseconds_text(p99)}   ", "red" if p99 > BUDGET_US else "green"),
        f"max {microseconds_text(sample['max_us'])}   ",
        ("within 5 ms  ", "dim"),
        share_text(sample["share_within_5ms"]),
        (f"   regained {sample['resumed']} times" if sample["resumed"] else "", "yellow"),
    )
    latest = Table.grid(padding=(0, 2))
    horizon = sample["horizons"][0] if sample["horizons"] else ""
    for one in sample["latest"]:
        up, down = one["up"], one["down"]
        latest.add_row(
            Text(one["symbol"], style="bold"),
            "no mid" if one["mid"] is None else f"{one['mid']:,.10g}",
            Text(f"up {up:4.0%}", style="green" if up > down else "dim"),
            Text(f"down {down:4.0%}", style="red" if down > up else "dim"),
            f"{one['return_bp']:+.3f} bp",
            Text("warming" if one["warming"] else horizon, style="dim"),
        )
    return Group(head, figures, latest)


def _step_back() -> None:
    """Run only while nobody else wants the core."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        os.nice(19)


def main() -> int:
    """Draw every line of standard input until it ends."""
    _step_back()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # A background process that writes to the terminal is stopped by it.
    from rich.console import Console
    from rich.live import Live

    draw(_NOTHING_YET)  # Loads what drawing needs.
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=False) as live:
        for line in sys.stdin:
            live.update(draw(json.loads(line)), refresh=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
