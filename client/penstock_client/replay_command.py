"""``penstock replay``: recorded files through a daemon, with a bar, a report and figures that can be checked.

Everything that can be wrong with the arguments is found before the first tick is sent.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from penstock_client.default_address import default_address
from penstock_client.errors import LocalUsageError, PenstockError
from penstock_client.exits import Exit, complain, exit_code_of, signal_exit_code

if TYPE_CHECKING:
    from penstock_client.replay import ReplayPlan

DESCRIPTION: Final = """\
Sends recorded ticks to a daemon at the market's own pace, open loop, and reports how long each prediction took from the
moment its tick was due. Several files become one stream, ordered by (ts_recv, file, record)."""

EXAMPLES: Final = """\
examples:
  penstock replay day.mbp-1.dbn.zst                          true speed, to the daemon's default socket
  penstock replay day.dbn.zst --start-busiest --seconds 30   the busiest half minute
  penstock replay day.dbn.zst --speed max --json             as fast as the daemon takes them; figures for scripts
  penstock replay btc.dbn eth.dbn --instruments BTCUSDT --to 127.0.0.1:50051 --out predictions.parquet
  penstock replay quotes.csv --columns ts_recv=time,time_unit=ms,bid_px=bid,ask_px=ask,price_unit=decimal
  penstock replay recordings/*.dbn --session 3               one session of a folder that penstockd recorded into
  penstock replay day.dbn.zst --report report.html --require-share 0.999

exit codes: 0 done; 1 ticks were lost or a --require-... was missed; 2 bad input; 3 no daemon, or it refused;
130 interrupted (the report of what was replayed is written all the same)"""

BUSIEST_S: Final = 30.0  # What --start-busiest looks for without --seconds.


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that reads tick files takes."""
    parser.add_argument(
        "--columns",
        default="penstock",
        metavar="MAPPING",
        help="what the columns of CSV and Parquet files mean: penstock, databento, a .toml file, or FIELD=COLUMN pairs "
        "with commas between them (docs/tick-files.md)",
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="NAME",
        help="take NAME for the instruments' dataset: once for all files, or once for each, in order",
    )


def add_session_argument(parser: argparse._ActionsContainer) -> None:
    """Add the choice of a session among recordings."""
    parser.add_argument(
        "--session",
        type=int,
        metavar="ID",
        help="of penstockd's recordings, only those of this session (penstock inspect names it)",
    )


def add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``penstock``."""
    parser = commands.add_parser(
        "replay",
        help="send recorded ticks to a daemon and report latency and predictions",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_replay)
    parser.add_argument("files", nargs="+", metavar="FILE", help="DBN, Parquet or CSV")
    parser.add_argument("--to", default=default_address(), metavar="ADDRESS", help="the daemon (default: %(default)s)")
    what = parser.add_argument_group("what is replayed")
    what.add_argument(
        "--instruments", default="", metavar="SYMBOL,...", help="only these; DATASET:SYMBOL tells twins apart"
    )
    what.add_argument("--seconds", type=float, metavar="S", help="this much market time, from the start of the replay")
    start = what.add_mutually_exclusive_group()
    start.add_argument(
        "--start-busiest", action="store_true", help="start where the most ticks come within --seconds (or 30)"
    )
    start.add_argument(
        "--skip", type=float, default=0.0, metavar="S", help="start this much market time into the files"
    )
    what.add_argument(
        "--order",
        choices=("auto", "ts_recv", "record"),
        default="auto",
        help="auto keeps the order of the daemon's own recordings of a session and sorts all others by ts_recv",
    )
    add_session_argument(what)
    add_file_arguments(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--speed", default="1", metavar="N", help="times the market's speed, or max (default: %(default)s)"
    )
    how.add_argument("--model", default="", metavar="NAME", help="the model wanted (default: the daemon's active one)")
    how.add_argument(
        "--online",
        action="store_true",
        help="correct forecasts by what followed the ticks (docs/online.md); starts from nothing at every replay, so that "
        "the same ticks give the same predictions",
    )
    how.add_argument(
        "--shared-memory",
        action="store_true",
        help="send ticks through memory shared with the daemon, which must run on this host (docs/shared-memory.md)",
    )
    how.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="wait this long for Welcome, for a lost connection and for any answer (default: %(default)g)",
    )
    how.add_argument(
        "--batch-splits", type=int, metavar="SEED", help="cut the ticks into batches at random places, for tests"
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument("--out", metavar="FILE", help="write the predictions: .parquet, .csv or .npy")
    out.add_argument("--raw", metavar="FILE.npy", help="write sequence, scheduled, sent and received ns of every tick")
    out.add_argument(
        "--report", metavar="FILE", help="write the report: .html (one file with everything in it) or .png"
    )
    out.add_argument("--json", action="store_true", help="print the figures as JSON on standard output, no bar")
    out.add_argument("--quiet", action="store_true", help="no bar, and no closing report but for errors")
    must = parser.add_argument_group("what must hold, else exit 1")
    must.add_argument(
        "--require-share", type=float, metavar="SHARE", help="share of ticks answered within 5 ms, such as 0.999"
    )
    must.add_argument("--require-p99-us", type=float, metavar="US", help="99th percentile of latency, in microseconds")
    must.add_argument("--require-hash", metavar="HASH", help="the prediction hash, or its first characters")


def run_replay(options: argparse.Namespace) -> int:
    """Replay, report, and return the exit code.

    Raises:
        PenstockError: an argument or a file doesn't fit; nothing was sent.
    """
    from penstock_client.replay import replay
    from penstock_client.replay_output import check_output_name, write_predictions
    from penstock_client.replay_progress import Progress
    from penstock_client.replay_summary import closing_text, summarise

    if options.out:
        check_output_name(options.out)
    if options.raw and not options.raw.endswith(".npy"):
        raise LocalUsageError(f"--raw must end in .npy: raw={options.raw!r}")
    if options.report:
        from penstock_client.report_page import check_report_name

        check_report_name(options.report)
    with Progress(enabled=not (options.json or options.quiet)) as progress:
        run = replay(plan_of(options), progress)
    if not run.sent and not options.json:  # There is nothing to report but why.
        if run.failure is not None:
            raise run.failure
        if run.interrupted_by is not None:
            return signal_exit_code(run.interrupted_by)
    summary = summarise(run, options.files)
    written: list[str] = []
    problems = _missed(options, summary)
    try:
        if options.out:
            write_predictions(options.out, run)
            written.append(options.out)
        if options.raw:
            run.save_raw(options.raw)
            written.append(options.raw)
        if options.report:
            from penstock_client.report_page import write_report

            write_report(options.report, run, summary)
            written.append(options.report)
    except (PenstockError, OSError) as error:
        problems.append(str(error))
    summary["written"] = written
    if options.json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    elif not options.quiet:
        print(closing_text(summary, [error.message for error in run.tick_errors]))
        for name in written:
            print(f"{'written':<13}{name}")
    if run.failure is not None and (options.json or options.quiet):
        complain(str(run.failure))
    for problem in problems:
        complain(problem)
    if run.interrupted_by is not None:
        return signal_exit_code(run.interrupted_by)
    if run.failure is not None:
        return exit_code_of(run.failure)
    return Exit.MISSED if problems or run.lost else Exit.DONE


def plan_of(options: argparse.Namespace) -> ReplayPlan:
    """Read and cut the files, and say what is to be replayed.

    Raises:
        TickFileError: a file is not sound.
        LocalUsageError: an argument doesn't fit, or nothing is left to replay.
    """
    from dataclasses import replace

    import numpy as np

    from penstock_client.files import (
        Order,
        busiest_start,
        merge,
        of_session,
        open_ticks,
        order_of,
        recorded_session,
        select,
    )
    from penstock_client.replay import ReplayPlan
    from penstock_client.replay_schedule import cut, duration_ns, parse_speed

    speed = parse_speed(options.speed)
    for name in ("seconds", "timeout"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise LocalUsageError(f"--{name} must be a number of seconds above 0: {name}={value}")
    if not 0 <= options.skip < math.inf:
        raise LocalUsageError(f"--skip must be a number of seconds, 0 or more: skip={options.skip}")
    if options.batch_splits is not None and options.batch_splits < 0:
        raise LocalUsageError(f"--batch-splits must be 0 or more: batch_splits={options.batch_splits}")
    files = [
        open_ticks(file, options.columns, dataset=dataset)
        for file, dataset in zip(options.files, datasets_of(options), strict=True)
    ]
    if options.session is not None:
        files = of_session(files, options.session)
    order = order_of(files, options.order)
    instruments, ticks = merge(files, order)
    ticks_of_files = len(ticks)
    if options.instruments:
        wanted = [name.strip() for name in options.instruments.split(",") if name.strip()]
        instruments, ticks = select(instruments, ticks, wanted)
    market_ns = np.maximum.accumulate(ticks["ts_recv"]) if len(ticks) else ticks["ts_recv"]
    start = 0
    if options.start_busiest:
        start = busiest_start(market_ns, duration_ns(options.seconds or BUSIEST_S))
    elif options.skip and len(ticks):
        start = int(np.searchsorted(market_ns, market_ns[0] + np.uint64(duration_ns(options.skip)), side="left"))
    ticks = ticks[cut(ticks["ts_recv"], start, options.seconds)]
    if not len(ticks):
        raise LocalUsageError(
            f"nothing is left to replay of {', '.join(options.files)}: take less --skip, or other files"
        )
    recording = None
    if order is Order.RECORD and all(file.keeps_order for file in files):
        recording = recorded_session(files)
    if recording is not None:
        recording = replace(recording, left_out_ticks=ticks_of_files - len(ticks))
    return ReplayPlan(
        instruments=instruments,
        ticks=ticks,
        address=options.to,
        speed=speed,
        model=options.model,
        client_name="" if options.online else ReplayPlan.client_name,
        online_readout=options.online,
        shared_memory=options.shared_memory,
        timeout_s=options.timeout,
        splits_seed=options.batch_splits,
        recording=recording,
    )


def datasets_of(options: argparse.Namespace) -> Sequence[str | None]:
    """Return what ``--dataset`` says for each file; None to keep the file's own.

    Raises:
        LocalUsageError: neither one for all nor one for each.
    """
    given, files = options.dataset, len(options.files)
    if not given:
        return [None] * files
    if len(given) == 1:
        return given * files
    if len(given) != files:
        raise LocalUsageError(f"--dataset must be given once, or once for each of {files} files: given={len(given)}")
    return given


def _missed(options: argparse.Namespace, summary: dict[str, object]) -> list[str]:
    """Return a sentence for each requirement that was missed."""
    found = []
    share, p99_us, digest = summary["share_within_5ms"], summary["p99_us"], str(summary["prediction_hash"])
    if options.require_share is not None and not float(str(share)) >= options.require_share:
        found.append(f"share_within_5ms={share} is below --require-share {options.require_share}")
    if options.require_p99_us is not None and not float(str(p99_us)) <= options.require_p99_us:
        found.append(f"p99_us={p99_us} is above --require-p99-us {options.require_p99_us}")
    if options.require_hash is not None and not digest.startswith(options.require_hash.lower()):
        found.append(f"prediction_hash={digest} is not --require-hash {options.require_hash}")
    return found
