"""The verb ``measure``: its modes, what it refuses while a daemon serves, and where results are kept.

a mode that turns interrupts off    never runs beside a daemon, forced or not
a mode that takes a whole CPU       not on the daemon's CPUs, unless forced
the others                          at any time
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock_host.affinity import format_cpus
from penstock_host.cpu_lists import parse_cpus
from penstock_host.faults import HostError, UnsafeError
from penstock_host.host import Host
from penstock_host.measure.compare import Comparison, Verdict, compare
from penstock_host.measure.compare import rendered as comparison_rendered
from penstock_host.measure.drawing import draw_comparison
from penstock_host.measure.jitter import THRESHOLD_US, measure_jitter
from penstock_host.measure.path import measure_path
from penstock_host.measure.progress import Progress
from penstock_host.measure.result import Measurement, MeasurementError, load, rendered, results_folder, save
from penstock_host.measure.runs import by_label, latest_sides
from penstock_host.measure.tools import TOOLS, Tool, measure_with
from penstock_host.measure.words import comparison_text, measurement_text
from penstock_host.output import complain, say, say_json

if TYPE_CHECKING:
    from penstock_host.cli import Subparsers

SECONDS: Final = 60.0

EXAMPLES: Final = """\
examples:
  penstock-tune measure jitter --hot --seconds 600 --label before
  sudo penstock-tune apply
  penstock-tune measure jitter --hot --seconds 600 --label after
  penstock-tune measure compare            the two latest labels, and a drawing of them
  penstock-tune measure path --seconds 60  the running daemon's own stages

exit status: 0 done, 1 a comparison found something worse, 2 an error, 3 refused as unsafe
"""


def register(subparsers: Subparsers) -> None:
    """Add ``measure`` and its modes to the parser of penstock-tune."""
    from penstock_host.cli import common_options, host_of

    measure = subparsers.add_parser(
        "measure",
        help="find out how quiet the CPUs are, and whether tuning helped",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modes = measure.add_subparsers(title="modes", dest="mode", metavar="MODE", required=True)

    def add(name: str, words: str) -> argparse.ArgumentParser:
        return modes.add_parser(name, parents=[common_options()], help=words, description=words)

    jitter = add("jitter", "gaps of a loop that never sleeps, per CPU; needs nothing")
    _add_measuring(jitter)
    _add_cpus(jitter)
    jitter.add_argument(
        "--threshold-us",
        type=float,
        default=THRESHOLD_US,
        metavar="US",
        help="count longer gaps (default: %(default)g)",
    )
    jitter.set_defaults(run=lambda options: _run_jitter(host_of(options), options))
    for tool in TOOLS.values():
        mode = add(tool.name, f"{tool.words}; needs {tool.packages.split(' ')[0]}")
        _add_measuring(mode)
        _add_cpus(mode)
        mode.set_defaults(run=lambda options, tool=tool: _run_tool(host_of(options), tool, options))
    path = add("path", "stages of the running daemon, while ticks come; needs its client")
    _add_measuring(path)
    path.add_argument("--to", default="", metavar="ADDRESS", help="the daemon, as `penstock --to` takes it")
    path.set_defaults(run=lambda options: _run_path(host_of(options), options))
    comparing = add(
        "compare", "whether tuning helped: the first against each of the others, files of one label taken together"
    )
    comparing.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="what `measure` saved (default: all of the two latest labels, or the two latest)",
    )
    comparing.add_argument("--svg", type=Path, metavar="FILE", help="the drawing (default: beside the last file)")
    comparing.add_argument("--no-svg", action="store_true", help="draw nothing")
    comparing.add_argument("--out", type=Path, metavar="DIR", help="where the latest are looked for")
    comparing.set_defaults(run=_run_compare)


def measurements_of(folder: Path) -> list[tuple[Path, Measurement]]:
    """Return what was measured and lies in *folder*, oldest first; other JSON may lie there too."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(MeasurementError):
            found.append((path, load(path)))
    return sorted(found, key=lambda one: (one[1].taken, one[0].stat().st_mtime_ns))


def latest(folder: Path) -> list[Path]:
    """Return the two sides in *folder* that were measured last (see latest_sides), oldest first.

    Raises:
        MeasurementError: there are not two.
    """
    found = measurements_of(folder)
    chosen = latest_sides([one for _, one in found]) if found else []
    if len(chosen) < 2:
        raise MeasurementError(
            f"want 2 measurements of one kind and settings in {folder}, was {len(chosen)}; measure before and after, or name "
            "files"
        )
    return [found[place][0] for place in chosen]


def check_safe(host: Host, name: str, cpus: frozenset[int], *, stops: bool, fills: bool, force: bool) -> None:
    """Refuse what would hurt a daemon that serves.

    Args:
        host: where daemons are looked for.
        name: of the mode.
        cpus: that it measures.
        stops: it turns interrupts off.
        fills: it takes all of a CPU's time.
        force: the operator said so.

    Raises:
        UnsafeError: a daemon serves, and the mode would stop it or take its CPUs.
    """
    daemons = host.daemons()
    if not daemons:
        return
    who = f"penstockd serves (process {', '.join(map(str, daemons))})"
    if stops:
        raise UnsafeError(
            f"measure {name}: it stops CPUs, and {who}; stop the daemon first, --force does not change it"
        )
    shared = cpus & _cpus_of(host, daemons)
    if fills and shared and not force:
        raise UnsafeError(
            f"measure {name}: it takes all of CPU {format_cpus(shared)}, where {who}; stop the daemon, choose others with "
            "--cpus, measure its stages with `measure path`, or say --force"
        )


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="how long (default: %(default)g)")
    parser.add_argument("--label", default="", metavar="WORD", help="your word for it, such as before")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"keep the result here (default: {results_folder()})")


def _add_cpus(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cpus", metavar="CPUS", help="these, such as 2-5 (default: all that are allowed)")
    which.add_argument("--hot", action="store_true", help="the hot cores, those of the pinned threads")
    parser.add_argument("--force", action="store_true", help="on a serving daemon's CPUs too")


def _run_jitter(host: Host, options: argparse.Namespace) -> int:
    cpus = _cpus_asked(host, options)
    check_safe(host, "jitter", cpus, stops=False, fills=True, force=options.force)
    if host.is_tree:
        raise HostError("--root: a tree of files has no CPUs to measure; leave it out")
    with Progress("measuring", options.seconds) as progress:
        found = measure_jitter(
            cpus, seconds=options.seconds, threshold_us=options.threshold_us, label=options.label, progress=progress
        )
    return _keep(found, options)


def _run_tool(host: Host, tool: Tool, options: argparse.Namespace) -> int:
    cpus = _cpus_asked(host, options)
    check_safe(host, tool.name, cpus, stops=tool.stops_cpus, fills=tool.fills_cpus, force=options.force)
    return _keep(measure_with(tool, host.runner, cpus, seconds=options.seconds, label=options.label), options)


def _run_path(host: Host, options: argparse.Namespace) -> int:
    found = measure_path(host.runner, seconds=options.seconds, address=options.to, label=options.label)
    return _keep(found, options)


def _run_compare(options: argparse.Namespace) -> int:
    files = options.files or latest(options.out or results_folder())
    if len(files) < 2:
        raise MeasurementError(f"compare: want two files or more, was {len(files)}; name before and after")
    first, *others = by_label([load(path) for path in files])
    comparisons = [compare(first, other) for other in others]
    drawings = [] if options.no_svg else _draw(comparisons, files, options.svg)
    code = 1 if any(comparison.worse for comparison in comparisons) else 0
    if options.json:
        say_json(
            {
                "verb": "measure compare",
                "files": [str(path) for path in files],
                "comparisons": [comparison_rendered(comparison) for comparison in comparisons],
                "drawings": [str(path) for path in drawings],
                "verdict": Verdict.WORSE.value if code else comparisons[-1].verdict.value,
                "exit_status": code,
            }
        )
    else:
        say("\n\n".join(comparison_text(comparison) for comparison in comparisons))
        for path in drawings:
            say(f"drawn: {path}")
    return code


def _draw(comparisons: list[Comparison], files: list[Path], asked: Path | None) -> list[Path]:
    drawn = []
    for number, comparison in enumerate(comparisons, 1):
        # Beside the last file of what is compared; a side of several runs has several.
        path = files[-1] if number == len(comparisons) else files[number]
        target = asked or path.with_name(f"{path.stem}-against-{files[0].stem}.svg")
        if asked and len(comparisons) > 1:
            target = asked.with_name(f"{asked.stem}-{number}{asked.suffix}")
        try:
            target.write_text(draw_comparison(comparison).rendered(), encoding="utf-8")
        except OSError as refusal:
            if asked:
                raise MeasurementError(f"--svg: can't be written, was {target}: {refusal.strerror}") from refusal
            complain(f"penstock-tune: {target} can't be written ({refusal.strerror}): name another with --svg")
            continue
        drawn.append(target)
    return drawn


def _keep(measurement: Measurement, options: argparse.Namespace) -> int:
    """Print the result and write it down; a result that can't be kept is still printed."""
    try:
        path: Path | None = save(measurement, options.out or results_folder())
    except MeasurementError as fault:
        path = None
        complain(f"penstock-tune: {fault}")
    if options.json:
        found: dict[str, Any] = {"verb": f"measure {measurement.kind}", **rendered(measurement)}
        say_json({**found, "saved": str(path) if path else None, "exit_status": 0 if path else 2})
    else:
        say(measurement_text(measurement))
        if path:
            say(f"saved: {path}")
    return 0 if path else 2


def _cpus_asked(host: Host, options: argparse.Namespace) -> frozenset[int]:
    if options.hot:
        if not host.topology.hot:
            raise HostError("--hot: want hot cores, was none on this host; name CPUs with --cpus, or set --hot-cores")
        return host.topology.hot
    if options.cpus is None:
        return frozenset(os.sched_getaffinity(0))
    try:
        return parse_cpus(options.cpus)
    except ValueError as fault:
        raise HostError(f"--cpus: want CPUs such as 2-5,8, was {options.cpus}: {fault}") from fault


def _cpus_of(host: Host, processes: list[int]) -> frozenset[int]:
    """Return the CPUs that any thread of *processes* may use; all where they do not say."""
    found: frozenset[int] = frozenset()
    for process in processes:
        for name in host.names(f"/proc/{process}/task/[0-9]*"):
            for line in host.read_or(f"{name}/status").splitlines():
                if line.startswith("Cpus_allowed_list:"):
                    found |= parse_cpus(line.partition(":")[2].strip())
    return found or host.topology.online
