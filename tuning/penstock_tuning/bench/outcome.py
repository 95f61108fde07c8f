"""What a benchmark gives back: figures for machines, the aims they are held against, and raw times.

An aim that was missed is shown, never hidden: `missed` is part of every result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from penstock_tuning.bench.raw import Raw


@dataclass(frozen=True)
class Aim:
    """A bound on one figure.

    Attributes:
        key: of the figure.
        bound: its limit.
        at_least: the figure must not be below it, else not above it.
    """

    key: str
    bound: float
    at_least: bool = False

    def met(self, figures: Mapping[str, Any]) -> bool:
        """Return whether *figures* meet it."""
        value = float(figures[self.key])
        return value >= self.bound if self.at_least else value <= self.bound

    def words(self) -> str:
        """Return it for people, such as "<= 1.3"."""
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


AIMS: Final[dict[str, tuple[Aim, ...]]] = {
    "grpc": (Aim("p50_ratio", 1.3), Aim("p99_ratio", 1.5)),
    "load": (
        Aim("p50_us", 500),
        Aim("p99_us", 2000),
        Aim("share_within_5ms", 0.995, at_least=True),
        Aim("share_within_5ms_outside_stalls", 0.999, at_least=True),
        Aim("lost", 0),
    ),
    "feed": (Aim("p99_us", 5000), Aim("delivery_p99_us", 5000), Aim("lost", 0), Aim("gaps", 0)),
    "shm": (
        Aim("rtt_p50_us", 6.0),
        Aim("speedup_p50", 20.0, at_least=True),
        Aim("predictions_per_s", 400_000, at_least=True),
        Aim("ratio_to_floor", 2.0),
        Aim("lost", 0),
        Aim("replay_lost", 0),
    ),
    "throughput": (Aim("grpc_predictions_per_s", 100_000, at_least=True),),
    "memory": (Aim("growth_kib_over_million_ticks", 1024), Aim("engine_allocations", 0)),
    "startup": (Aim("second_serving_s", 5.0), Aim("first_serving_s", 30.0)),
    "reference": (Aim("comparisons_missed", 0), Aim("memory_capacity_error", 0.5)),
    "kernels": (
        Aim("cyclic_1024_us", 1.5),
        Aim("cyclic_1024_over_floor", 2.0),
        Aim("ratio_1024_reservoirpy_degree10", 12.0, at_least=True),
        Aim("ratio_1024_reservoirpy_default", 30.0, at_least=True),
    ),
    "stamps": (Aim("overhead_share", 0.03),),
    "gpu": (
        Aim("graph_over_echo", 1.5),
        Aim("graph_1_1024_p99_us", 25.0),
        Aim("resident_1_1024_p99_us", 10.0),
        Aim("graph_1024_1024_p99_us", 200.0),
        Aim("device_memory_mib", 2048.0),
        Aim("ready_s", 30.0),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What one benchmark found.

    Attributes:
        name: of the benchmark.
        figures: for ``--json``; the flat numbers among them are what people read first.
        conditions: under which they hold: ticks, placement, model and so on.
        shown: keys of *figures* for the table, in order.
        raw: one array per series.
        lines: further text for people, under the figures.
    """

    name: str
    figures: dict[str, Any]
    conditions: dict[str, Any]
    shown: tuple[str, ...]
    raw: list[Raw] = field(default_factory=list)
    lines: tuple[str, ...] = ()

    @property
    def aims(self) -> tuple[Aim, ...]:
        """The aims of this benchmark whose figure was measured; a library beside us may not be installed."""
        return tuple(aim for aim in AIMS[self.name] if self.figures.get(aim.key) is not None)

    @property
    def missed(self) -> list[str]:
        """A phrase for each aim that was missed."""
        return [
            f"{aim.key} {aim.words()}, was {self.figures[aim.key]:g}" for aim in self.aims if not aim.met(self.figures)
        ]

    def as_json(self, machine: dict[str, object]) -> dict[str, Any]:
        """Return everything that ``--json`` prints."""
        aims = {aim.key: {"aim": aim.words(), "met": aim.met(self.figures)} for aim in self.aims}
        return {"benchmark": self.name, **self.figures, "aims": aims, **self.conditions, "machine": machine}

    def as_text(self) -> str:
        """Return the figures for people, one a line, with the aims beside them."""
        aims = {aim.key: aim for aim in self.aims}
        lines = []
        for key in self.shown:
            if self.figures.get(key) is None:
                continue
            aim = aims.get(key)
            verdict = "" if aim is None else f"   aim {aim.words()}{'' if aim.met(self.figures) else '   MISSED'}"
            lines.append(f"  {key:<34}{number_text(self.figures[key]):>14}{verdict}")
        lines += [f"  {name}: {value}" for name, value in self.conditions.items() if isinstance(value, str) and value]
        return "\n".join([self.name, *lines, *self.lines])


def number_text(value: float) -> str:
    """Return a figure with as many digits as tell something."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
