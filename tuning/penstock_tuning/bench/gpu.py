"""``penstock-bench gpu``: host-to-host latency on an NVIDIA GPU, beside the CPU engine and a plain CuPy program.

    trips_us[mode][N x states]      a micro-batch of one tick for each state: p50, p99, p99.9; p99.9 from 1,000 trips on
    echo_us        a captured graph whose kernel does nothing but say so: the empty graph's round trip
    floor_us       echo_us plus the time to move the micro-batch's bytes once at the measured bandwidth
    graph_over_echo, graph_over_floor      p50 by the graph over those
    transfers_us   the ways across the bus, side by side; the default is the one that is faster on most cards
    busy_us        one state beside a Python thread that never waits, by the compiled loop and through the interpreter

Bytes of a micro-batch: the weights once, and each state's words read and written.

Sections follow one another, each in a process and a share of the time of its own: one that breaks the device, or hangs,
is named in ``incomplete``, and the others are measured. What was found lies in the file of findings at once.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.gpu_device import missing_device
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.settings import Bench

_UNITS: Final = (512, 1024, 2048, 4096)
_STATES: Final = (1, 8, 64, 512, 1024)
_MIDDLE_UNITS: Final = 1024  # What the aims are for.
_CELL_S: Final = 0.5
_QUICK_CELL_S: Final = 0.03
_TIMEOUT_S: Final = 230.0
_LEAST_S: Final = 3.0  # A section that has less is not begun.
_MIB: Final = 2**20

SECTIONS: Final = {"graph": 0.45, "resident": 0.3, "sizes": 0.45, "plain": 0.3}  # Each's share of the time, at most.
MODES: Final = ("graph", "resident", "eager", "cpu", "cupy_take", "cupy_dense", "engine", "engine_cpu")
SHOWN: Final = (
    *("graph_1_1024_p50_us", "graph_1_1024_p99_us", "resident_1_1024_p99_us", "echo_us", "graph_over_echo"),
    *("graph_over_floor", "graph_1024_1024_p99_us", "graph_ticks_per_s", "burst_us_per_tick"),
    *("busy_graph_p99_us", "busy_interpreter_p99_us", "state_kib", "device_memory_mib"),
    *("bandwidth_gb_per_s", "context_s", "compile_s", "first_launch_s", "capture_s", "ready_s"),
)


@dataclass(frozen=True)
class GpuSettings:
    """How long each cell may take, for how long all of it, and where findings are kept; None for nowhere."""

    index: int = 0
    quick: bool = False
    timeout_s: float = _TIMEOUT_S
    found: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 63:
            raise BenchError(f"--index must be from 0 to 63: index={self.index}")
        if not 10.0 <= self.timeout_s <= 3600.0:
            raise BenchError(f"--seconds must be from 10 to 3,600: seconds={self.timeout_s:g}")
        if self.found is not None and not self.found.absolute().parent.is_dir():
            raise BenchError(f"--found must lie in a folder that is there: found={str(self.found)!r}")


def measure(settings: GpuSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: there is no GPU to measure, or nothing at all could be measured.
    """
    if missing := missing_device(settings.index):
        raise BenchError(missing)
    found = (settings.found or bench.folder / "found.jsonl").absolute()
    found.unlink(missing_ok=True)
    plan = {
        "index": settings.index,
        "units": _UNITS,
        "states": _STATES,
        "middle_units": _MIDDLE_UNITS,
        "cell_s": _QUICK_CELL_S if settings.quick else _CELL_S,
        "market_s": 10.0,
        "found": str(found),
    }
    ends_s = time.monotonic() + settings.timeout_s
    failures = []
    with bench.progress.step("gpu: every mode at every size", 150.0):
        for section, share in SECTIONS.items():
            limit_s = min(share * settings.timeout_s, ends_s - time.monotonic())
            if limit_s < _LEAST_S:
                failures.append(f"{section}: no time was left")
                continue
            try:
                run_part("gpu_part", plan | {"sections": [section]}, bench.folder, limit_s)
            except BenchError as exc:
                failures.append(f"{section}: {exc}")
    incomplete = "; ".join(failures)
    findings = read_findings(found)
    if not findings:
        raise BenchError(f"nothing could be measured: {incomplete}")
    return outcome_of(findings, quick=settings.quick, incomplete=incomplete)


def read_findings(path: Path) -> list[dict[str, Any]]:
    """Return what has been found so far; a line that was cut off when its section was stopped is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def outcome_of(findings: list[dict[str, Any]], *, quick: bool, incomplete: str = "") -> Outcome:
    """Return the outcome of what was found, be it all or a part."""
    figures = figures_of(findings)
    device = _first(findings, "device") or {}
    conditions = {
        "device": f"{device.get('name', 'unknown')}, {device.get('architecture', '')}, driver {device.get('driver', '')}",
        "incomplete": incomplete,
        "scale": "quick: few trips; the figures mean little" if quick else "full",
        "software": {key: value for key, value in (_first(findings, "software") or {}).items() if key != "kind"},
        "model": "cyclic, 8 weights a unit, 16 inputs, three horizons, drawn at random",
        "plain": "CuPy and NumPy are handed features that are computed beforehand; the other modes compute them",
        "host_cores": len(os.sched_getaffinity(0)),
    }
    return Outcome("gpu", figures, conditions, SHOWN, lines=tuple(table(figures)))


def figures_of(findings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures; those that were not measured are None."""
    figures: dict[str, Any] = {
        "trips_us": {mode: _cells([row for row in findings if row.get("mode") == mode]) for mode in MODES},
        "transfers_us": {
            name: _cells([row for row in findings if row.get("transfer") == name])
            for name in sorted({row["transfer"] for row in findings if row["kind"] == "transfer"})
        },
        "busy_us": {
            f"{row['loop']}{'_beside_busy_thread' if row['busy_thread'] else ''}": _times(row)
            for row in findings
            if row["kind"] == "busy"
        },
        "echoes_us": {str(row["states"]): _times(row) for row in findings if row["kind"] == "echo"},
        "memory": {str(row["units"]): row for row in findings if row["kind"] == "memory"},
        "start": _first(findings, "start"),
        "device_facts": _first(findings, "device"),
        "not_measured": [row for row in findings if row["kind"] == "not_measured"],
    }
    trips = figures["trips_us"]
    one, many = f"{_MIDDLE_UNITS}x1", f"{_MIDDLE_UNITS}x1024"
    for mode in ("graph", "resident"):
        for key, cell in (("1_1024", one), ("1024_1024", many)):
            for share in ("p50", "p99", "p999"):
                figures[f"{mode}_{key}_{share}_us"] = trips[mode].get(cell, {}).get(f"{share}_us")
    figures["echo_us"] = (figures["echoes_us"].get("1") or {}).get("p50_us")
    bandwidth = _first(findings, "bandwidth") or {}
    figures["bandwidth_gb_per_s"] = bandwidth.get("gb_per_s")
    figures["floor_us"] = floors_us(figures)
    figures["graph_over_floor_us"] = {
        cell: _ratio(times["p50_us"], figures["floor_us"].get(cell)) for cell, times in trips["graph"].items()
    }
    figures["graph_over_echo"] = _ratio(figures["graph_1_1024_p50_us"], figures["echo_us"])
    figures["graph_over_floor"] = figures["graph_over_floor_us"].get(one)
    largest = trips["graph"].get(many, {}).get("p50_us")
    figures["graph_ticks_per_s"] = 1024 / largest * 1e6 if largest else None
    burst = _first(findings, "burst")
    figures["burst_us_per_tick"] = burst["p50_us"] / burst["ticks"] if burst else None
    figures["busy_graph_p99_us"] = figures["busy_us"].get("compiled_beside_busy_thread", {}).get("p99_us")
    figures["busy_interpreter_p99_us"] = figures["busy_us"].get("interpreter_beside_busy_thread", {}).get("p99_us")
    memory = figures["memory"].get(str(_MIDDLE_UNITS))
    figures["state_kib"] = memory["state_bytes"] / 1024 if memory else None
    held = [row["device_bytes"] for row in figures["memory"].values()]
    figures["device_memory_mib"] = max(held) / _MIB if held else None
    for name in ("context_s", "compile_s", "first_launch_s", "capture_s", "memory_and_replay_s", "ready_s"):
        figures[name] = (figures["start"] or {}).get(name)
    return figures


def floors_us(figures: dict[str, Any]) -> dict[str, float]:
    """Return what each cell of the graph can't be faster than: the empty graph, and the bytes at full bandwidth."""
    echo_us, bandwidth = figures["echo_us"], figures["bandwidth_gb_per_s"]
    floors = {}
    for units, memory in figures["memory"].items():
        for cell in figures["trips_us"]["graph"]:
            of_units, _, states = cell.partition("x")
            if of_units == units and echo_us and bandwidth:
                size_bytes = memory["weight_bytes"] + 2 * int(states) * memory["state_bytes"]
                floors[cell] = echo_us + size_bytes / (bandwidth * 1e3)
    return floors


def table(figures: dict[str, Any]) -> list[str]:
    """Return p50 / p99 / p99.9 of every cell in Markdown: a line for each size and number of states, modes beside."""
    trips = figures["trips_us"]
    modes = [mode for mode in MODES if trips[mode]]
    cells = sorted({cell for mode in modes for cell in trips[mode]}, key=lambda cell: [int(n) for n in cell.split("x")])
    lines = [f"| us: p50 / p99 / p99.9 | {' | '.join(modes)} | floor |", "|---" * (len(modes) + 2) + "|"]
    for cell in cells:
        row = " | ".join(_words(trips[mode].get(cell)) for mode in modes)
        lines.append(f"| {cell.replace('x', ' units, ')} states | {row} | {_number(figures['floor_us'].get(cell))} |")
    ways = figures["transfers_us"]
    if ways:
        lines += ["", f"| across the bus, us | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
        for cell in next(iter(ways.values())):
            row = " | ".join(_words(way.get(cell)) for way in ways.values())
            lines.append(f"| {cell.replace('x', ' units, ')} states | {row} |")
    if figures["busy_us"]:
        lines += ["", "| one state, us | p50 / p99 / p99.9 |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {_words(times)} |" for name, times in figures["busy_us"].items()]
    lines += [f"not measured: {row['what']}: {row['why']}" for row in figures["not_measured"]]
    return lines


def _cells(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{row['units']}x{row['states']}": _times(row) for row in rows}


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("p50_us", "p99_us", "p999_us", "max_us", "trips")}


def _first(findings: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    return next((row for row in findings if row["kind"] == kind), None)


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _words(times: dict[str, Any] | None) -> str:
    if not times:
        return ""
    return " / ".join(_number(times[name]) for name in ("p50_us", "p99_us", "p999_us"))
