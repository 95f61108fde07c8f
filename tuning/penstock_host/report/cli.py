"""The verb ``report``: look at everything, and write it down as one page of HTML.

It reads alone: what it writes is the page, all or nothing.
"""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from penstock_host.change.journal import read_journal
from penstock_host.change.plan import plan, script
from penstock_host.check import check
from penstock_host.faults import HostError
from penstock_host.host import Host
from penstock_host.measure.cli import measurements_of
from penstock_host.measure.facts import host_facts
from penstock_host.measure.result import Measurement, load, results_folder
from penstock_host.measure.runs import latest_sides
from penstock_host.output import finding_json, say, say_json
from penstock_host.output import host_facts as topology_facts
from penstock_host.report.page import JournalRow, Report, compared, rendered
from penstock_host.topology import picture

if TYPE_CHECKING:
    from penstock_host.cli import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add ``report`` to the parser of penstock-tune."""
    from penstock_host.cli import common_options, host_of

    words = "write check, plan, journal and measurements as one page of HTML"
    report = subparsers.add_parser("report", parents=[common_options()], help=words, description=words)
    report.add_argument(
        "measurements",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="what `measure` saved, before first (default: the two latest labels of each kind)",
    )
    report.add_argument(
        "--out", type=Path, default=Path("penstock-host.html"), metavar="FILE", help="the page (default: %(default)s)"
    )
    report.add_argument(
        "--results", type=Path, metavar="DIR", help=f"where measurements are (default: {results_folder()})"
    )
    report.set_defaults(run=lambda options: report_verb(host_of(options), options))


def report_verb(host: Host, options: argparse.Namespace) -> int:
    """Write the page. Returns 0, whatever the page says.

    Raises:
        HostError: a measurement can't be read, or the page not written.
    """
    found = [load(path) for path in options.measurements] or latest_of_each(options.results or results_folder())
    report = gather(host, found)
    _write(options.out, rendered(report))
    comparisons, _ = compared(found)
    if options.json:
        say_json(
            {
                "verb": "report",
                "file": str(options.out),
                "verdicts": {one.before.kind: one.verdict.value for one in comparisons},
                "exit_status": 0,
            }
        )
    else:
        say(f"written: {options.out}")
    return 0


def gather(host: Host, measurements: list[Measurement]) -> Report:
    """Look at *host* and return all that the page says."""
    journal = read_journal(host)
    facts = {**host_facts(host.root), **topology_facts(host)}
    return Report(
        node=host.read_or("/proc/sys/kernel/hostname", str(facts.get("node", "host"))),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=facts,
        picture=picture(host.topology),
        items=[finding_json(finding) for finding in check(host, journal)],
        plan=script(plan(host, journal)),
        journal=[
            JournalRow(
                entry.item_id,
                entry.knob.label,
                entry.knob.show(entry.original),
                entry.knob.show(entry.took if entry.took is not None else entry.written),
            )
            for entry in journal.entries.values()
        ],
        measurements=measurements,
    )


def latest_of_each(folder: Path) -> list[Measurement]:
    """Return the two sides of each kind in *folder* that were measured last (see latest_sides), oldest first."""
    kept: dict[str, list[Measurement]] = {}
    for _, measurement in measurements_of(folder):
        kept.setdefault(measurement.kind, []).append(measurement)
    return [several[place] for several in kept.values() for place in latest_sides(several)]


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as refusal:
        scratch.unlink(missing_ok=True)
        raise HostError(f"--out: want a file that can be written, was {path}: {refusal.strerror}") from refusal
