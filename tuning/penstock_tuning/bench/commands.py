"""What each name of penstock-bench does; progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock_tuning.bench import machine as machines
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.outcome import Outcome, number_text
from penstock_tuning.bench.processes import DaemonOptions, scratch_folder
from penstock_tuning.bench.progress import Progress
from penstock_tuning.bench.raw import check_raw_name, save_raw
from penstock_tuning.bench.settings import Bench

NAMES = (
    "load",
    "feed",
    "grpc",
    "shm",
    "throughput",
    "memory",
    "startup",
    "kernels",
    "stamps",
)  # As `all` runs them: the one that wants quiet first.


def run(options: Namespace) -> int:
    """Run what *options* name and return the exit code.

    Raises:
        BenchError: an option does not fit, or a process failed.
    """
    check_raw_name(options.raw)
    if options.model and not Path(options.model).is_file():
        raise BenchError(f"--model names no file: model={options.model!r}")
    machine = machines.describe()
    with scratch_folder() as folder:
        bench = Bench(
            folder=folder,
            daemon=DaemonOptions(options.model, tuple(options.set)),
            ticks=options.ticks,
            placement_name=options.placement,
            progress=Progress(enabled=not options.quiet and (not options.json or sys.stderr.isatty())),
        )
        planned = _planned(options)
        outcomes = [measure(bench) for measure in planned.values()]
    for outcome in outcomes:
        if options.raw is not None:
            save_raw(_raw_path(options, outcome.name), outcome.raw)
    if options.json:
        print(json.dumps(_as_json(options, outcomes, machine), indent=2, allow_nan=False))
    else:
        print("\n".join(outcome.as_text() for outcome in outcomes))
        if len(outcomes) > 1:
            print(table(outcomes))
        print(f"machine: {machines.line(machine)}")
    missed = [f"{outcome.name}: {phrase}" for outcome in outcomes for phrase in outcome.missed]
    if options.require_aims and missed:
        print("\n".join(f"penstock-bench: aim missed: {phrase}" for phrase in missed), file=sys.stderr)
        return 1
    return 0


def table(outcomes: list[Outcome]) -> str:
    """Return the figures that have aims as one table in Markdown."""
    lines = ["", "| benchmark | figure | aim | measured | |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        for aim in outcome.aims:
            verdict = "met" if aim.met(outcome.figures) else "missed"
            measured = number_text(outcome.figures[aim.key])
            lines.append(f"| {outcome.name} | {aim.key} | {aim.words()} | {measured} | {verdict} |")
    return "\n".join([*lines, ""])


def _planned(options: Namespace) -> dict[str, Callable[[Bench], Outcome]]:
    """Return what is to be measured, with every option checked before anything starts."""
    given = vars(options)
    if options.name == "gpu":  # Apart: it runs where the daemon's libraries may not be.
        from penstock_tuning.bench import gpu

        wanted = gpu.GpuSettings(options.index, options.quick, options.seconds, options.found)
        return {"gpu": lambda bench: gpu.measure(wanted, bench)}
    from penstock_tuning.bench import (
        feed,
        kernel_times,
        load,
        memory,
        reference,
        round_trips,
        shm,
        stamps,
        startup,
        throughput,
    )

    share = 0.1 if given.get("quick") else 1.0

    def number(name: str, default: float) -> Any:
        value = given.get(name, default)
        return type(default)(value * share) if "quick" in given else value

    grpc = round_trips.RoundTripSettings(number("trips", 3_000), given.get("block", 100), given.get("repeat", 5))
    open_loop = load.LoadSettings(given.get("speed", 1.0), number("seconds", 30.0), given.get("repeat", 3))
    played = feed.FeedSettings(
        given.get("speed", 1.0), number("seconds", 30.0), given.get("repeat", 3), given.get("date", "")
    )
    full_speed = throughput.ThroughputSettings(number("count", 500_000), given.get("repeat", 3))
    held = memory.MemorySettings(number("count", 1_000_000))
    starts = startup.StartupSettings(given.get("repeat", 3))
    rings = shm.ShmSettings(
        number("ring_trips", 20_000), number("count", 500_000), number("seconds", 10.0), given.get("repeat", 5)
    )
    tasks = reference.ReferenceSettings(given.get("seeds", 10), bool(given.get("quick")))
    ticks = kernel_times.KernelSettings(given.get("rounds", 51), bool(given.get("quick")))
    stamped = stamps.StampSettings(given.get("rounds", 301), bool(given.get("quick")))
    measures: dict[str, Callable[[Bench], Outcome]] = {
        "load": lambda bench: load.measure(open_loop, bench),
        "feed": lambda bench: feed.measure(played, bench),
        "grpc": lambda bench: round_trips.measure(grpc, bench),
        "shm": lambda bench: shm.measure(rings, bench),
        "throughput": lambda bench: throughput.measure(full_speed, bench),
        "memory": lambda bench: memory.measure(held, bench),
        "startup": lambda bench: startup.measure(starts, bench),
        "reference": lambda bench: reference.measure(tasks, bench),
        "kernels": lambda bench: kernel_times.measure(ticks, bench),
        "stamps": lambda bench: stamps.measure(stamped, bench),
    }
    return {name: measures[name] for name in (NAMES if options.name == "all" else (options.name,))}


def _as_json(options: Namespace, outcomes: list[Outcome], machine: dict[str, object]) -> dict[str, Any]:
    if options.name != "all":
        return outcomes[0].as_json(machine)
    return {"benchmark": "all", "machine": machine, **{one.name: one.as_json(machine) for one in outcomes}}


def _raw_path(options: Namespace, name: str) -> Path:
    path: Path = options.raw
    return path if options.name != "all" else path.with_name(f"{path.stem}-{name}{path.suffix}")
