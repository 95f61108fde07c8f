"""``penstock inspect`` and ``penstock convert``: look into tick files and ITCH files, and change a tick file's format."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from typing import Any, Final

from penstock_client.exits import Exit
from penstock_client.replay_command import add_file_arguments, add_session_argument, datasets_of

_UNDEFINED_PRICE: Final = 2**63 - 1
_UNDEFINED_TIME: Final = 2**64 - 1


def add_file_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to the parser of ``penstock``."""
    inspect = commands.add_parser(
        "inspect",
        help="say what a tick file or an ITCH file holds",
        description="Reads whole files and says what they hold: instruments, times, bursts, and what is odd.",
        epilog="examples:\n  penstock inspect day.mbp-1.dbn.zst\n  penstock inspect quotes.csv --columns databento --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.set_defaults(run=run_inspect)
    inspect.add_argument("files", nargs="+", metavar="FILE", help="DBN, Parquet or CSV, or ITCH 5.0, plain or .gz")
    inspect.add_argument("--json", action="store_true", help="print a JSON list, one object for each file")
    add_file_arguments(inspect)
    convert = commands.add_parser(
        "convert",
        help="write a tick file in another format",
        description="Reads one or more tick files and writes them as one, in order; size scales go into metadata.json.",
        epilog="examples:\n  penstock convert quotes.csv quotes.dbn.zst --columns databento\n"
        "  penstock convert monday.dbn tuesday.dbn both.parquet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.set_defaults(run=run_convert)
    convert.add_argument("files", nargs="+", metavar="IN", help="DBN, Parquet or CSV")
    convert.add_argument("out", metavar="OUT", help="ends in .dbn, .dbn.zst, .parquet, .csv, .csv.gz or .csv.zst")
    convert.add_argument("--order", choices=("auto", "ts_recv", "record"), default="auto", help="as penstock replay")
    add_session_argument(convert)
    convert.add_argument(
        "--out-dataset", default="", metavar="NAME", help="of a DBN header (default: the instruments' own)"
    )
    add_file_arguments(convert)


def run_inspect(options: argparse.Namespace) -> int:
    """Describe each file.

    Raises:
        PenstockError: a file is not sound.
    """
    from penstock_client.feed_file import open_itch_file
    from penstock_client.itch_description import ITCH_FORMAT, describe_itch, itch_text

    found = []
    for file, dataset in zip(options.files, datasets_of(options), strict=True):
        itch = open_itch_file(file)
        if itch is not None:
            found.append(describe_itch(itch))
            continue
        from penstock_client.files import open_ticks

        found.append(describe(open_ticks(file, options.columns, dataset=dataset)))
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        texts = [itch_text(one) if one["format"] == ITCH_FORMAT else _text(one) for one in found]
        sys.stdout.write("\n\n".join(texts) + "\n")
    return Exit.DONE


def run_convert(options: argparse.Namespace) -> int:
    """Write the files as one.

    Raises:
        PenstockError: a file is not sound, or can't be written.
    """
    from penstock_client.files import merge, of_session, open_ticks, write_ticks

    files = [
        open_ticks(file, options.columns, dataset=dataset)
        for file, dataset in zip(options.files, datasets_of(options), strict=True)
    ]
    if options.session is not None:
        files = of_session(files, options.session)
    instruments, ticks = merge(files, options.order)
    write_ticks(options.out, ticks, instruments, options.out_dataset)
    sys.stdout.write(f"wrote {len(ticks):,} ticks of {len(instruments)} instruments to {options.out}\n")
    return Exit.DONE


def describe(file: Any) -> dict[str, Any]:
    """Return what a TickFile holds, as JSON may hold it."""
    import numpy as np

    ticks = file.ticks
    times = ticks["ts_recv"].astype(np.int64)
    ordered = np.maximum.accumulate(times) if len(times) else times
    defined = ticks["ts_event"] != _UNDEFINED_TIME
    events = ticks["ts_event"][defined].astype(np.int64)
    both = (ticks["bid_px"] != _UNDEFINED_PRICE) & (ticks["ask_px"] != _UNDEFINED_PRICE)
    span_s = (int(ordered[-1]) - int(ordered[0])) / 1e9 if len(ordered) else 0.0
    return {
        "file": str(file.path),
        "format": file.format,
        "dataset": file.dataset,
        "ticks": len(ticks),
        "first_ts_recv": int(times[0]) if len(times) else None,
        "last_ts_recv": int(times[-1]) if len(times) else None,
        "span_s": round(span_s, 6),
        "ticks_per_s": round(len(ticks) / span_s, 1) if span_s else None,
        "busiest_second": busiest(ordered, 10**9),
        "busiest_millisecond": busiest(ordered, 10**6),
        "instruments": [
            {
                "instrument_id": one.instrument_id,
                "dataset": one.dataset,
                "symbol": one.symbol,
                "size_scale": one.size_scale,
                "ticks": int(np.count_nonzero(ticks["instrument_id"] == one.instrument_id)),
            }
            for one in file.instruments
        ],
        "trades": int(np.count_nonzero(ticks["action"] == ord("T"))),
        "odd": {
            "ts_recv_backwards": int(np.count_nonzero(np.diff(times) < 0)),
            "ts_event_backwards": int(np.count_nonzero(np.diff(events) < 0)),
            "ts_event_undefined": int(np.count_nonzero(~defined)),
            "one_sided_books": int(np.count_nonzero(~both)),
            "locked_books": int(np.count_nonzero(both & (ticks["bid_px"] == ticks["ask_px"]))),
            "crossed_books": int(np.count_nonzero(both & (ticks["bid_px"] > ticks["ask_px"]))),
            "books_without_sizes": int(np.count_nonzero((ticks["bid_sz"] == 0) & (ticks["ask_sz"] == 0))),
        },
        "recording": None
        if file.recording is None
        else {
            "session_id": file.recording.session_id,
            "first_tick": file.recording.first_tick,
            "rebuild_ticks": file.recording.rebuild_ticks,
            "missing_ticks": file.recording.missing_ticks,
        },
    }


def busiest(ordered: Any, width_ns: int) -> int:
    """Return the most of *ordered* (times that never run backwards, nanoseconds) in any stretch of *width_ns*."""
    import numpy as np

    if not len(ordered):
        return 0
    return int((np.searchsorted(ordered, ordered + width_ns, side="left") - np.arange(len(ordered))).max())


def _text(found: dict[str, Any]) -> str:
    lines = [
        ("file", found["file"]),
        ("format", found["format"] + (f", dataset {found['dataset']}" if found["dataset"] else "")),
        ("ticks", f"{found['ticks']:,}, of them {found['trades']:,} trades"),
    ]
    if found["ticks"]:
        lines += [
            ("time", f"{_utc(found['first_ts_recv'])} to {_utc(found['last_ts_recv'])} UTC, {found['span_s']:,.3f} s"),
            ("rate", f"{found['ticks_per_s'] or 0:,.0f} ticks/s on average"),
            ("", f"at most {found['busiest_second']:,} in a second, {found['busiest_millisecond']:,} in a millisecond"),
        ]
    for one in found["instruments"]:
        home = f"{one['dataset']}:" if one["dataset"] else ""
        name = f"{one['instrument_id']}  {home}{one['symbol']}"
        lines.append(("instrument", f"{name}  {one['ticks']:,} ticks, size scale {one['size_scale']:,}"))
    lines += [("odd", f"{count:,} {name.replace('_', ' ')}") for name, count in found["odd"].items() if count]
    if found["recording"]:
        recording = found["recording"]
        lines += [
            ("recording", f"session {recording['session_id']}, from its tick {recording['first_tick']:,} on"),
            ("", f"{recording['rebuild_ticks']:,} rebuild ticks, {recording['missing_ticks']:,} ticks missing"),
        ]
    return "\n".join(f"{label:<13}{text}" for label, text in lines)


def _utc(time_ns: int) -> str:
    whole = dt.datetime.fromtimestamp(time_ns // 10**9, tz=dt.UTC)
    return f"{whole:%Y-%m-%d %H:%M:%S}.{time_ns % 10**9:09d}"
