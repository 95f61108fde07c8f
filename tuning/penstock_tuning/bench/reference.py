"""Reference tasks beside ReservoirPy and beside what was published: the same seeds, tasks, measure and run for all.

A comparison is one of our topologies against ReservoirPy on one case of one task. Ours is within its spread where
our median over the seeds is no worse than the worst quarter of ReservoirPy's seeds begins; what is not is a miss, and
shown. Where ReservoirPy is not installed, its column is empty and nothing is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock_tuning.bench import reference_runs as runs
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.reference_subjects import OURS, PEER, peer_name
from penstock_tuning.bench.settings import Bench

SEEDS_MAX: Final = 100
_TIMEOUT_S: Final = 3_600.0

NARMA_UNITS: Final = (50, 100, 200, 300, 400)
_NARMA_PUBLISHED: Final = {50: 0.399, 100: 0.325, 200: 0.226, 300: 0.201, 400: 0.157}


@dataclass(frozen=True)
class ReferenceSettings:
    """How much of the reference tasks is run.

    Attributes:
        seeds: of each case and subject.
        quick: networks of a tenth of the size, to see that everything works; the figures mean nothing.
    """

    seeds: int
    quick: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= SEEDS_MAX:
            raise BenchError(f"--seeds must be from 1 to {SEEDS_MAX}: seeds={self.seeds}")


@dataclass(frozen=True)
class Case:
    """One size of one task.

    Attributes:
        task: a key of reference_runs.TASKS.
        units: of every network.
        measure: what the number is.
        higher_is_better: else lower.
        published: what others have written, and where; 0 and "" where there is no number to hold against.
    """

    task: str
    units: int
    measure: str
    higher_is_better: bool = False
    published: float = 0.0
    source: str = ""

    @property
    def name(self) -> str:
        """Short, such as "narma10_100"."""
        return f"{self.task}_{self.units}" if self.task == "narma10" else self.task


def cases(settings: ReferenceSettings) -> list[Case]:
    """Return what is run, in order."""
    share = 10 if settings.quick else 1
    jaeger = "Jaeger and Haas, Science 304 (2004)"
    theory = "theory: Rodan and Tino, IEEE Transactions on Neural Networks 22 (2011)"
    found = [
        Case("narma10", units // share, "NRMSE", published=published, source="ReservoirPy 0.4.2, measured before")
        for units, published in _NARMA_PUBLISHED.items()
    ]
    cycle = runs.CYCLE_UNITS // share
    capacity = cycle - (1.0 - runs.CYCLE_WEIGHT ** (2 * cycle))
    return [
        *found,
        Case("mackey_glass", runs.JAEGER_UNITS // share, "NRMSE84", published=0.00028, source=jaeger),
        Case("memory", cycle, "memory capacity", higher_is_better=True, published=capacity, source=theory),
        Case("minimal_esn", runs.MINIMAL_UNITS // share, "mean squared error of 500 steps"),
    ]


def measure(settings: ReferenceSettings, bench: Bench) -> Outcome:
    """Run every case for every subject and seed.

    Raises:
        BenchError: a part failed.
    """
    peer = peer_name()
    subjects = (*OURS, PEER) if peer else OURS
    rows: list[dict[str, Any]] = []
    planned = cases(settings)
    for task in ("all",) if settings.quick else tuple(dict.fromkeys(case.task for case in planned)):
        chosen = [case for case in planned if task in ("all", case.task)]
        with bench.progress.step(f"reference: {task}, {settings.seeds} seeds of {', '.join(subjects)}"):
            rows += _rows(chosen, subjects, settings.seeds, bench.folder)
    compared = [row for row in rows if row["within_peer_spread"] is not None]
    capacities = [abs(row["median"] - row["published"]) for row in rows if row["task"] == "memory"]
    figures: dict[str, Any] = {
        "comparisons": len(compared),
        "comparisons_missed": sum(not row["within_peer_spread"] for row in compared),
        "memory_capacity_error": max(capacities),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "rows": rows,
    }
    said = peer or "ReservoirPy is not installed: pip install 'penstock[peers]' to compare"
    conditions = {
        "peer": said,
        "seeds": settings.seeds,
        "scale": "quick: networks of a tenth of the size; the figures mean nothing" if settings.quick else "full",
    }
    shown = ("comparisons", "comparisons_missed", "memory_capacity_error", "seconds")
    return Outcome("reference", figures, conditions, shown, lines=tuple(table(rows)))


def _rows(chosen: list[Case], subjects: tuple[str, ...], seeds: int, folder: Path) -> list[dict[str, Any]]:
    """Run *chosen* and return a row for each case and subject; the linear control needs no units, so it is run once."""
    plan = [(case, name) for case in chosen for name in subjects]
    control = next((position for position, case in enumerate(chosen) if case.task == "narma10"), None)
    if control is not None:
        plan.insert(control * len(subjects), (chosen[control], runs.LINEAR))
    found = _run_jobs([(case.task, name, seed, case.units) for seed in range(seeds) for case, name in plan], folder)
    rows = [_row(case, name, found[position :: len(plan)]) for position, (case, name) in enumerate(plan)]
    for (case, _), row in zip(plan, rows, strict=True):
        peers = [one for one in rows if one["case"] == case.name and one["subject"] == PEER]
        row["within_peer_spread"] = _within(row, peers[0], case) if peers and row["subject"] in OURS else None
    return rows


def _row(case: Case, name: str, found: list[tuple[float, float]]) -> dict[str, Any]:
    values = [value for value, _ in found]
    low, middle, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return {
        "task": case.task,
        "case": case.name,
        "units": case.units if name != runs.LINEAR else 0,
        "subject": name,
        "measure": case.measure,
        "mean": float(np.mean(values)),
        "deviation": float(np.std(values)),
        "lower_quartile": low,
        "median": middle,
        "upper_quartile": high,
        "values": values,
        "published": case.published or None,
        "source": case.source,
        "seconds": round(sum(seconds for _, seconds in found), 2),
    }


def _within(ours: dict[str, Any], peer: dict[str, Any], case: Case) -> bool:
    if case.task == "memory":  # Both are exact to a few hundredths, and the spread is that of the input series.
        return bool(abs(ours["median"] - peer["median"]) <= 0.05)
    if case.higher_is_better:
        return bool(ours["median"] >= peer["lower_quartile"])
    return bool(ours["median"] <= peer["upper_quartile"])


def _run_jobs(jobs: list[tuple[str, str, int, int]], folder: Path) -> list[tuple[float, float]]:
    """Return the value and the seconds of each job; a process on each processor takes its share of them."""
    processors = sorted(os.sched_getaffinity(0))[: len(jobs)]

    def share(number: int) -> Iterator[tuple[float, float]]:
        place = folder / f"reference-{number}"
        place.mkdir(exist_ok=True)
        plan = {"jobs": jobs[number :: len(processors)]}
        done = run_part("reference_runs", plan, place, _TIMEOUT_S, frozenset({processors[number]}))
        return zip(done["values"], done["seconds"], strict=True)

    with ThreadPoolExecutor(len(processors)) as pool:
        shares = list(pool.map(share, range(len(processors))))
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(jobs)
    for number, values in enumerate(shares):
        found[number :: len(processors)] = values
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the medians as a table in Markdown: a line per case, a column per subject."""
    names = (*OURS, PEER, runs.LINEAR)
    lines = [f"| task | {' | '.join(names)} | published |", "|---" * (len(names) + 2) + "|"]
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = {row["subject"]: row for row in rows if row["case"] == case}
        cells = [_cell(mine.get(name)) for name in names]
        published = next(iter(mine.values()))["published"]
        lines.append(f"| {case} | {' | '.join(cells)} | {f'{published:.4g}' if published else ''} |")
    return lines


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    mark = " MISSED" if row["within_peer_spread"] is False else ""
    return f"{row['median']:.3g} ({row['lower_quartile']:.3g} to {row['upper_quartile']:.3g}){mark}"
