"""``penstock-bench kernels``: one tick, features in and three horizons out, per topology, beside what others do.

    X_us[N]       median over the rounds of X's microseconds per tick at N units
    ratio_X[N]    X_us[N] / cyclic_us[N]
    cyclic_with_products_us         cyclic, with half as many products of units in the readout (the default of fit)
    cyclic_with_linear_memory_us    cyclic, with four averages and five lags of the inputs in the readout
    cyclic_batched_us   per tick of one state, keyed by N x states that are advanced together, features not among it
    quickest_us   the quickest round of each: what a median tells besides is how busy the machine was
    floor_us[N]   the time to read the bytes of the cyclic model's weights once, from the cache they lie in

All sides take turns in every round, in one process on one processor, so that a slow moment of the machine meets all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np

from penstock_tuning.bench import kernel_part
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.outcome import Outcome
from penstock_tuning.bench.parts import run_part
from penstock_tuning.bench.reference_subjects import peer_name
from penstock_tuning.bench.settings import Bench

FAN_IN: Final = 8
_UNITS: Final = (512, 1024, 2048, 4096)
_UNITS_QUICK: Final = (64, 128)
_BATCHES: Final = (1, 4, 16, 64)
_FAN_INS: Final = (4, 16, 32)  # Beside FAN_IN, for the fit.
_MIB: Final = 2**20
_BEYOND_L2_BYTES: Final = 8 * _MIB
_WITHIN_L2_BYTES: Final = 256 * 1024
_TIMEOUT_S: Final = 1_800.0
_ROUNDS_MAX: Final = 1_000
_AT: Final = "1024"  # The size that the aims are for.

TIMED: Final = (
    *("cyclic", "sparse", "dense", *kernel_part.PEERS, "floor", "numpy_dense", "scipy_csr"),
    *("cyclic_with_products", "cyclic_with_linear_memory"),
)


@dataclass(frozen=True)
class KernelSettings:
    """How often each side takes its turn, and whether networks are small ones that only show that all works."""

    rounds: int
    quick: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= _ROUNDS_MAX:
            raise BenchError(f"--rounds must be from 1 to {_ROUNDS_MAX:,}: rounds={self.rounds}")

    @property
    def units(self) -> tuple[int, ...]:
        """Sizes of the networks."""
        return _UNITS_QUICK if self.quick else _UNITS


def measure(settings: KernelSettings, bench: Bench) -> Outcome:
    """Run the benchmark.

    Raises:
        BenchError: the process that measures failed.
    """
    peer = peer_name()
    processor = max(os.sched_getaffinity(0))
    plan = {
        "units": settings.units,
        "fan_in": FAN_IN,
        "fan_ins": _FAN_INS,
        "batches": _BATCHES,
        "rounds": settings.rounds,
        "peers": bool(peer),
        "larger_bytes": [_WITHIN_L2_BYTES, _BEYOND_L2_BYTES],
    }
    with bench.progress.step(f"kernels: {settings.rounds} rounds of all sides", 60.0):
        found = run_part("kernel_part", plan, bench.folder, _TIMEOUT_S, frozenset({processor}))
    figures = figures_of(found)
    conditions = {
        "peer": peer or "ReservoirPy is not installed: pip install 'penstock[peers]' to compare",
        "rounds": settings.rounds,
        "scale": "quick: small networks; the figures mean nothing" if settings.quick else "full",
        "placement": f"one processor: CPU {processor}, one thread for every side",
        "precision": "ours, NumPy and SciPy float32; ReservoirPy float64, as it ships",
    }
    return Outcome("kernels", figures, conditions, _SHOWN, lines=tuple(table(figures)))


_SHOWN: Final = (
    *("cyclic_1024_us", "cyclic_1024_over_floor", "ratio_1024_reservoirpy_degree10", "ratio_1024_reservoirpy_default"),
    *("l2_bandwidth_gb_per_s", "l3_bandwidth_gb_per_s"),
)


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of what the part has found; None, or an empty object, for sides that took no part."""
    times: dict[str, dict[str, list[float]]] = found["times_us"]
    figures: dict[str, Any] = {f"{name}_us": _medians(times.get(name, {})) for name in TIMED}
    figures["quickest_us"] = {
        name: {units: min(values) for units, values in times.get(name, {}).items()} for name in TIMED
    }
    for name in kernel_part.PEERS:
        figures[f"ratio_{name}"] = {
            units: value / figures["cyclic_us"][units] for units, value in figures[f"{name}_us"].items()
        }
        figures[f"ratio_1024_{name}"] = figures[f"ratio_{name}"].get(_AT)
    figures["weight_bytes"] = found["weight_bytes"]
    figures["cyclic_over_floor"] = {
        units: value / figures["floor_us"][units] for units, value in figures["cyclic_us"].items()
    }
    figures["cyclic_1024_us"] = figures["cyclic_us"].get(_AT)
    figures["cyclic_1024_over_floor"] = figures["cyclic_over_floor"].get(_AT)
    for name, size_bytes in (("l2", _WITHIN_L2_BYTES), ("l3", _BEYOND_L2_BYTES)):
        figures[f"{name}_bandwidth_gb_per_s"] = size_bytes / 1e3 / median(times["read"][str(size_bytes)])
    figures["cyclic_by_fan_in_us"] = _medians(times["cyclic_by_fan_in"])
    figures["cyclic_batched_us"] = _medians(times["cyclic_batched"])
    figures["linearity"] = linearity(figures)
    return figures


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {key: median(values) for key, values in times.items()}


def linearity(figures: dict[str, Any]) -> dict[str, float]:
    """Return the fit us = fixed + per_unit N + per_connection N k over all sizes and fan-ins, and how well it fits.

    ``r2`` is the share of the variance that it explains, ``worst_deviation`` the largest share by which a time differs
    from it. Weights are 1 / time, so that every size counts the same.
    """
    rows = [(int(units), FAN_IN, value) for units, value in figures["cyclic_us"].items()]
    for key, value in figures["cyclic_by_fan_in_us"].items():
        units, _, fan_in = key.partition("x")
        rows.append((int(units), int(fan_in), value))
    design = np.array([[1.0, units, units * fan_in] for units, fan_in, _ in rows])
    wanted = np.array([value for _, _, value in rows])
    weights = np.linalg.lstsq(design / wanted[:, None], np.ones(len(wanted)), rcond=None)[0]
    errors = design @ weights - wanted
    return {
        "fixed_us": float(weights[0]),
        "per_unit_ns": float(weights[1]) * 1e3,
        "per_connection_ns": float(weights[2]) * 1e3,
        "r2": float(1.0 - np.sum(errors**2) / np.sum((wanted - wanted.mean()) ** 2)),
        "worst_deviation": float(np.abs(errors / wanted).max()),
    }


def table(figures: dict[str, Any]) -> list[str]:
    """Return the times as a table in Markdown: a line per side, a column per size."""
    sizes = list(figures["cyclic_us"])
    lines = [f"| us per tick | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    rows = {name: figures[f"{name}_us"] for name in TIMED}
    rows |= {name: figures[name] for name in ("cyclic_over_floor", *(f"ratio_{peer}" for peer in kernel_part.PEERS))}
    lines += [f"| {name} | {' | '.join(_cell(values.get(size)) for size in sizes)} |" for name, values in rows.items()]
    return lines


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
