"""``penstock subscribe``: the predictions of a daemon's feed, one line each, and figures at the end."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from typing import Final

from penstock_client.default_address import default_address
from penstock_client.errors import LocalUsageError
from penstock_client.exits import Exit, complain, exit_code_of, signal_exit_code

EXAMPLES: Final = """\
examples:
  penstock subscribe                                one line for each prediction, until Ctrl-C
  penstock subscribe --symbols AAPL,MSFT --seconds 60 --quiet
  penstock subscribe --count 10000 --json           figures for scripts: latency, flags, hash

exit codes: 0 done; 2 bad input; 3 no daemon, no such feed or symbol, or cut off for reading too slowly;
130 interrupted (the figures are printed all the same)"""


def add_subscribe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``penstock``."""
    parser = commands.add_parser(
        "subscribe",
        help="receive the predictions of a daemon's feed",
        description="Subscribes to a feed that the daemon itself receives, and prints its predictions.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_subscribe)
    parser.add_argument("--to", default=default_address(), metavar="ADDRESS", help="the daemon (default: %(default)s)")
    parser.add_argument("--feed", default="", metavar="NAME", help="which feed (default: the only one)")
    parser.add_argument(
        "--symbols", default="", metavar="SYMBOL,...", help="only these; DATASET:SYMBOL tells twins apart"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after this long")
    parser.add_argument("--count", type=int, metavar="N", help="stop after this many predictions")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="wait this long for a daemon (default: %(default)g)"
    )
    parser.add_argument("--quiet", action="store_true", help="print the figures alone")
    parser.add_argument("--json", action="store_true", help="print the figures alone, as JSON")


def run_subscribe(options: argparse.Namespace) -> int:
    """Subscribe, print, and return the exit code.

    Raises:
        PenstockError: an argument does not fit, nobody answered, or the daemon refused.
    """
    from penstock_client.subscribe_reading import Reading
    from penstock_client.subscribe_summary import Received, received_text
    from penstock_client.subscription import subscribe

    for name in ("seconds", "timeout"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise LocalUsageError(f"--{name} must be a number of seconds above 0: {name}={value}")
    if options.count is not None and options.count < 1:
        raise LocalUsageError(f"--count must be 1 or more: count={options.count}")
    symbols = [name.strip() for name in options.symbols.split(",") if name.strip()]
    received = Received(whole=not symbols)
    lines = not (options.quiet or options.json)
    subscription = subscribe(options.to, feed=options.feed, symbols=symbols, connect_deadline_s=options.timeout)
    reading = Reading(subscription, received, options.count, lines=lines)
    failure, stopped_by = reading.run(options.seconds)
    if reading.subscribed is None:  # Interrupted before there was anything to tell.
        return signal_exit_code(stopped_by or signal.SIGINT)
    figures = received.figures(reading.subscribed)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.write(received_text(figures) + "\n")
    if failure is not None:
        complain(str(failure))
        return exit_code_of(failure)
    return Exit.DONE if stopped_by is None else signal_exit_code(stopped_by)
