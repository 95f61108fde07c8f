"""``penstock feed``: a recorded file as a multicast feed, so that a whole path can be tried on one machine.

Everything that can be wrong with the arguments and the file is found before the first packet is sent.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import sys
import time
from typing import TYPE_CHECKING, Final

from penstock_client.errors import LocalUsageError
from penstock_client.exits import Exit, signal_exit_code

if TYPE_CHECKING:
    from penstock_client.feed_file import FeedFile
    from penstock_client.feed_player import FeedPlan

DESCRIPTION: Final = """\
Plays a recorded file onto a multicast group as a market-data feed: MoldUDP64 packets with DBN mbp-1 records or ITCH 5.0
messages, each when it is due, with heartbeats while nothing is, an end of session, and a server of re-requests."""

EXAMPLES: Final = """\
examples:
  penstock feed day.mbp-1.dbn.zst --group 239.1.2.3:26400                 on this machine (lo), at true speed
  penstock feed 12302019.NASDAQ_ITCH50.gz --date 2019-12-30 --group 239.1.2.3:26400 --speed 10
  penstock feed day.dbn --group 239.1.2.3:26400 --group-b 239.1.2.4:26400 --recovery-port 26500
  penstock feed day.dbn --group 239.1.2.3:26400 --interface eth0 --ttl 2
  penstock feed day.dbn --group 239.1.2.3:26400 --drop 0.01 --reorder 0.01 --seed 7 --recovery-port 26500

The daemon's side is its [feed] section (docs/feed.md); what it predicts is delivered by penstock subscribe.

exit codes: 0 done; 2 bad input; 130 interrupted (the session is ended properly; a second Ctrl-C leaves at once)"""

BUSIEST_S: Final = 30.0  # What --start-busiest looks for without --seconds.
TTL_MAX: Final = 255
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def add_feed(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``penstock``."""
    parser = commands.add_parser(
        "feed",
        help="play a recorded file as a multicast feed",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_feed)
    parser.add_argument("file", metavar="FILE", help="DBN (or Parquet, CSV), or ITCH 5.0, plain or .gz")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="the day of an ITCH file, which has times of day alone")
    where = parser.add_argument_group("where to")
    where.add_argument("--group", required=True, metavar="ADDRESS:PORT", help="of line A, such as 239.1.2.3:26400")
    where.add_argument("--group-b", metavar="ADDRESS:PORT", help="of line B, which carries the same packets")
    where.add_argument("--interface", default="lo", metavar="NAME", help="out of which (default: %(default)s)")
    where.add_argument(
        "--ttl", type=int, default=1, metavar="N", help="routers that may be passed, plus one (default: 1)"
    )
    where.add_argument("--no-loopback", action="store_true", help="this machine's own listeners hear nothing")
    where.add_argument("--recovery-port", type=int, metavar="PORT", help="answer re-requests there; 0 for any port")
    how = parser.add_argument_group("how")
    how.add_argument("--speed", default="1", metavar="N", help="times the recording's, or max (default: %(default)s)")
    how.add_argument("--seconds", type=float, metavar="S", help="this much of the recording, from the start")
    start = how.add_mutually_exclusive_group()
    start.add_argument(
        "--start-busiest", action="store_true", help="start where the most messages come within --seconds (or 30)"
    )
    start.add_argument("--skip", type=float, default=0.0, metavar="S", help="start this much into the recording")
    how.add_argument("--session", metavar="NAME", help="1 to 10 characters (default: the day, and a few that are new)")
    how.add_argument(
        "--payload", type=int, default=1472, metavar="BYTES", help="of a packet at most (default: %(default)s)"
    )
    how.add_argument(
        "--heartbeat", type=float, default=1.0, metavar="S", help="of silence until one (default: %(default)g)"
    )
    how.add_argument(
        "--linger",
        type=float,
        default=1.0,
        metavar="S",
        help="say the end again, and answer re-requests, for this long (default: %(default)g)",
    )
    faults = parser.add_argument_group("faults made on purpose, to try a feed handler out")
    faults.add_argument("--drop", type=float, default=0.0, metavar="SHARE", help="of packets, such as 0.01")
    faults.add_argument("--duplicate", type=float, default=0.0, metavar="SHARE", help="of packets, sent twice")
    faults.add_argument(
        "--reorder", type=float, default=0.0, metavar="SHARE", help="of packets, sent after the next one"
    )
    faults.add_argument("--seed", type=int, default=0, metavar="N", help="of the faults (default: %(default)s)")
    faults.add_argument(
        "--faults-on",
        choices=("a", "both"),
        default="a",
        help="line A alone, or the same on both lines, so that gaps are real (default: %(default)s)",
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument("--json", action="store_true", help="print the figures as JSON on standard output, no bar")
    out.add_argument("--quiet", action="store_true", help="no bar and no figures")


def run_feed(options: argparse.Namespace) -> int:
    """Play, report, and return the exit code.

    Raises:
        PenstockError: an argument or the file doesn't fit, or the kernel refused a packet.
    """
    from penstock_client.feed_player import play
    from penstock_client.feed_progress import FeedProgress
    from penstock_client.feed_summary import feed_text, summarise_feed

    plan = plan_of(options)
    if not options.quiet:
        _say_start(plan)
    progress = FeedProgress(enabled=not (options.json or options.quiet), announce=not options.quiet)
    try:
        run = play(plan, progress)
    finally:
        progress.close()
    found = summarise_feed(run)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
    elif not options.quiet:
        sys.stdout.write(feed_text(found) + "\n")
    return Exit.DONE if run.interrupted_by is None else signal_exit_code(run.interrupted_by)


def plan_of(options: argparse.Namespace) -> FeedPlan:
    """Check the arguments, read the file, and say what is to be played.

    Raises:
        PenstockError: an argument or the file doesn't fit.
    """
    from penstock.v1.moldudp64 import HEADER_BYTES, LENGTH_BYTES, UDP_PAYLOAD_BYTES_MAX, MoldError, session_bytes
    from penstock_client.feed_faults import FaultPlan
    from penstock_client.feed_file import open_feed_file
    from penstock_client.feed_group import parse_group
    from penstock_client.feed_player import FeedPlan
    from penstock_client.replay_schedule import parse_speed

    groups = [parse_group("--group", options.group)]
    if options.group_b is not None:
        groups.append(parse_group("--group-b", options.group_b))
        if groups[0] == groups[1]:
            raise LocalUsageError(f"--group-b must be another group than --group: both are {groups[0]}")
    speed = parse_speed(options.speed)
    for name in ("seconds", "heartbeat"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise LocalUsageError(f"--{name} must be a number of seconds above 0: {name}={value}")
    for name in ("skip", "linger"):
        value = getattr(options, name)
        if not 0 <= value < math.inf:
            raise LocalUsageError(f"--{name} must be a number of seconds, 0 or more: {name}={value}")
    for name, low, high in (
        ("ttl", 0, TTL_MAX),
        ("recovery_port", 0, 65535),
        ("payload", HEADER_BYTES + LENGTH_BYTES + 1, UDP_PAYLOAD_BYTES_MAX),
    ):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise LocalUsageError(f"--{name.replace('_', '-')} must be in {low} to {high}: {name}={value}")
    faults = FaultPlan(options.drop, options.duplicate, options.reorder, options.seed, options.faults_on)
    try:
        session = None if options.session is None else session_bytes(options.session)
    except MoldError as error:
        raise LocalUsageError(f"--{error}") from error
    date = _date(options.date)
    file = _part(open_feed_file(options.file, date), options)
    if session is None:
        session = session_bytes(new_session(int(file.times_ns[0]) // 10**9, time.time()))
    return FeedPlan(
        file=file,
        groups=tuple(groups),
        session=session,
        interface=options.interface,
        speed=speed,
        payload_bytes_max=options.payload,
        ttl=options.ttl,
        loopback=not options.no_loopback,
        heartbeat_s=options.heartbeat,
        linger_s=options.linger,
        recovery_port=options.recovery_port,
        faults=faults,
    )


def new_session(recorded_s: int, now_s: float) -> str:
    """Return a session's name: the day of the recording as YYMMDD, and four characters that are new for three weeks.

    A handler takes a session that it knows for the same one, whose sequences it has seen: each play is one of its own.
    """
    day = dt.datetime.fromtimestamp(recorded_s, tz=dt.UTC).strftime("%y%m%d")
    number, tail = int(now_s), ""
    for _ in range(4):
        number, digit = divmod(number, len(_DIGITS))
        tail = _DIGITS[digit] + tail
    return day + tail


def _date(text: str | None) -> dt.date | None:
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise LocalUsageError(f"--date must be a day as YYYY-MM-DD: date={text!r}") from error


def _part(file: FeedFile, options: argparse.Namespace) -> FeedFile:
    """Return the part of *file* that is to be played."""
    import numpy as np

    from penstock_client.files.joining import busiest_start
    from penstock_client.replay_schedule import cut, duration_ns

    start = 0
    if file.messages:
        ordered_ns = np.maximum.accumulate(file.times_ns)
        if options.start_busiest:
            start = busiest_start(ordered_ns, duration_ns(options.seconds or BUSIEST_S))
        elif options.skip:
            start = int(np.searchsorted(ordered_ns, ordered_ns[0] + np.uint64(duration_ns(options.skip)), side="left"))
    part = cut(file.times_ns, start, options.seconds)
    if part.stop <= part.start:
        raise LocalUsageError(f"nothing is left to play of {options.file}: take less --skip, or another file")
    return file.part(part)


def _say_start(plan: FeedPlan) -> None:
    """Say on standard error what is about to happen, faults first of all."""
    session = plan.session.decode("ascii").rstrip(" ")
    lines = f"session {session}, {plan.file.messages:,} {plan.file.payload} messages to "
    lines += " and ".join(str(group) for group in plan.groups) + f" by {plan.interface}"
    if plan.faults.any:
        lines += "\nfaults are made on purpose: packets will be lost, doubled or out of order"
    sys.stderr.write(lines + "\n")
