"""What ``load`` and ``feed`` have in common: a stretch of a recording, sent several times at a pace, each with its figures.

Figures that are numbers are medians over the repeats, counts are sums; every repeat stands beside them as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.figures import Figures, median_of
from penstock_tuning.bench.raw import Raw
from penstock_tuning.bench.settings import Bench


@dataclass(frozen=True)
class StretchSettings:
    """How fast a stretch is sent, in times the market's pace; how long it is; how often."""

    speed: float = 1.0
    seconds: float = 30.0
    repeat: int = 3

    def __post_init__(self) -> None:
        """Check the user's numbers.

        Raises:
            BenchError: one of them can't be.
        """
        for name, value in (("speed", self.speed), ("seconds", self.seconds)):
            if not 0 < value < 1e6:
                raise BenchError(f"--{name} must be above 0 and below 1,000,000: {name}={value}")
        if not 1 <= self.repeat <= 1000:
            raise BenchError(f"--repeat must be from 1 to 1,000: repeat={self.repeat}")

    @property
    def conditions(self) -> dict[str, float]:
        """What a figure is to be published with."""
        return {"speed": self.speed, "seconds": self.seconds, "repeat": self.repeat}


def over_repeats(
    name: str,
    settings: StretchSettings,
    bench: Bench,
    one_repeat: Callable[[int], tuple[dict[str, Any], Raw]],
    *,
    counts: Iterable[str],
) -> tuple[dict[str, Any], list[Raw]]:
    """Send the stretch as often as wanted.

    Args:
        name: of the benchmark, for the progress.
        one_repeat: sends it once, by its number, and returns figures and rows.
        counts: figures that are summed.

    Returns:
        The figures with ``stall_probe`` and ``repeats``, and each repeat's rows.
    """
    repeats: list[dict[str, Any]] = []
    raw: list[Raw] = []
    for number in range(settings.repeat):
        title = f"{name}: repeat {number + 1} of {settings.repeat}"
        with bench.progress.step(title, settings.seconds / settings.speed):
            figures, rows = one_repeat(number)
        repeats.append(figures)
        raw.append(rows)
    numbers: list[Figures] = [{k: v for k, v in one.items() if isinstance(v, int | float)} for one in repeats]
    found: dict[str, Any] = dict(median_of(numbers, summed=counts))
    found["stall_probe"] = repeats[0]["stall_probe"]
    found["repeats"] = repeats
    return found, raw
