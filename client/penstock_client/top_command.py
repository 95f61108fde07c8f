"""``penstock top``: a daemon as it is now, on a screen, as lines of text, or as JSON.

a terminal      a screen, redrawn at each interval
no terminal     a line for each path and interval, for logs and pipes; --plain asks for them
--once          one interval, all there is to say, and the end
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from penstock_client.default_address import default_address
from penstock_client.errors import ConnectFailed, LocalUsageError
from penstock_client.exits import Exit
from penstock_client.extras import require
from penstock_client.wording import microseconds_text

if TYPE_CHECKING:
    from penstock_client.top_watch import Latest, Watch

_INTERVAL_S: Final = (0.1, 3600.0)  # The daemon's own least.
_WIDTH: Final = 100  # Of --once where nobody has a width.
EXAMPLES: Final = """\
examples:
  penstock top                                 q quits, p holds the picture
  penstock top --to 127.0.0.1:50051 --interval 5
  penstock top --once                          all there is to say of one interval
  penstock top --once --json                   the same as one JSON object, for scripts
  penstock top --plain >> top.log              a line for each path and interval

exit codes: 0 done; 2 bad input or usage; 3 no daemon (with --once), or one without DaemonService; 130 interrupted"""


def add_top(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``penstock``."""
    parser = commands.add_parser(
        "top",
        help="watch a daemon: stages against budget, sessions, rings, clocks, feed and device",
        description="Shows how a daemon is, again and again: each stage against its bound, who is connected, and what "
        "the daemon saw of itself.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_top)
    parser.add_argument(
        "--to", "--address", default=default_address(), metavar="ADDRESS", help="the daemon (default: %(default)s)"
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="between two pictures (default: %(default)g)"
    )
    parser.add_argument("--once", action="store_true", help="one interval, and the end")
    parser.add_argument("--json", action="store_true", help="a JSON object for each interval, on a line of its own")
    parser.add_argument("--plain", action="store_true", help="lines of text, on a terminal too")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="with --once: wait this long (default: %(default)g)"
    )


def run_top(options: argparse.Namespace) -> int:
    """Watch, and return the exit code.

    Raises:
        PenstockError: an argument does not fit, rich is not installed, nobody answered, or the daemon refused.
    """
    low, high = _INTERVAL_S
    if not low <= options.interval <= high:
        raise LocalUsageError(f"--interval must be in {low:g} to {high:g} seconds: was {options.interval:g}")
    if not 0 < options.timeout <= high:
        raise LocalUsageError(f"--timeout must be above 0, and {high:g} seconds at most: was {options.timeout:g}")
    screen = not (options.once or options.json or options.plain) and sys.stdout.isatty() and _can_move_cursor()
    if screen or (options.once and not options.json):
        require("rich.console", extra="report", purpose="penstock top on a screen")
    from penstock_client.top_watch import Watch

    watch = Watch(options.to, options.interval)
    watch.start()
    try:
        if screen:
            from penstock_client.top_screen import show_screen

            return show_screen(watch, options.interval)
        if options.once:
            return _once(watch, options)
        return _lines(watch, as_json=options.json)
    finally:
        watch.stop()


def _can_move_cursor() -> bool:
    return os.environ.get("TERM", "") not in ("", "dumb")


def _once(watch: Watch, options: argparse.Namespace) -> int:
    deadline_s = time.monotonic() + options.timeout + options.interval
    latest = watch.latest
    while latest.facts is None or latest.facts["interval_s"] is None:
        left_s = deadline_s - time.monotonic()
        latest = watch.wait(latest.number, min(max(left_s, 0.0), 0.1))
        if watch.failure is not None:
            raise watch.failure
        if left_s <= 0:
            raise ConnectFailed(
                f"no daemon answered at {options.to} within {options.timeout:g} s: {latest.trouble or 'no answer'}; "
                "start penstockd, or check the address (--to)"
            )
    if options.json:
        sys.stdout.write(json.dumps(latest.facts) + "\n")
        return Exit.DONE
    from rich.console import Console

    from penstock_client.top_layout import lay_out

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH)
    ascii_only = not console.encoding.lower().startswith("utf")
    for line in lay_out(latest.facts, max(console.width, 80), None, ascii_only=ascii_only):
        console.print(line, soft_wrap=True)
    return Exit.DONE


def _lines(watch: Watch, *, as_json: bool) -> int:
    """Print each interval, until the reader or somebody with Ctrl-C has enough."""
    number, trouble = 0, ""
    while True:
        latest = watch.wait(number, 0.5)
        if watch.failure is not None:
            raise watch.failure
        if latest.trouble != trouble:
            trouble = latest.trouble
            if trouble:
                sys.stderr.write(f"penstock: waiting for a daemon at {watch.address}: {trouble}\n")
        if latest.number > number:
            number = latest.number
            _print(latest, as_json=as_json)


def _print(latest: Latest, *, as_json: bool) -> None:
    facts = latest.facts
    if facts is None or facts["interval_s"] is None:
        return
    lines = [json.dumps(facts)] if as_json else plain_lines(facts)
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def plain_lines(facts: dict[str, Any]) -> list[str]:
    """Return an interval as text: a line for each path and pace, and one where there is something to look at."""
    when = time.strftime("%H:%M:%S", time.localtime(facts["taken_ns"] // 1_000_000_000))
    state = "serving" if facts["serving"] else "NOT SERVING"
    connected = sum(one["state"] != "LOST" for one in facts["sessions"])
    lines = []
    for one in facts["stages"]:
        if one["stage"] != "TOTAL":
            continue
        name = one["path"].lower() + ("" if one["pace"] == "REALTIME" else " bulk")
        figures = ", ".join(
            f"{figure.removesuffix('_ns')} {microseconds_text(one[figure] / 1000)}"
            for figure in ("p50_ns", "p99_ns", "max_ns")
            if one[figure] is not None
        )
        over = "" if one["exceeded"] is None else f", {one['exceeded']} over"
        lines.append(
            f"{when} {state}, {connected} sessions; {name}: {one['per_s']:,.0f} ticks/s, {figures or 'no tick'}{over}"
        )
    lines = lines or [f"{when} {state}, {connected} sessions; no tick yet"]
    if facts["alerts"]:
        lines.append(f"{when} look at: {'; '.join(facts['alerts'])}")
    return lines
