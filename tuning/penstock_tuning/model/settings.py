"""What training is asked to do, checked before the first tick is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_kernels.model import Horizon
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.horizons import parse_horizons

UNITS_MIN: Final = 16
UNITS_MAX: Final = 8_192
DEFAULT_HORIZONS: Final = "next,100ms,50ev"
PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # Relative to the number of rows.
TRAIN_SHARE: Final = 0.6  # Of the ticks, the earliest.
VALIDATION_SHARE: Final = 0.2  # The next ones; the rest, the latest, is the test.
WASHOUT_TICKS: Final = 256  # At the start of each stream: states and averages still remember that they began at 0.
WINSORISED: Final = (0.005, 0.995)  # Quantiles of the training returns that returns are limited to.
DEMONSTRATION_NOTICE: Final = "A demonstration, trained on a simulated market: never trade on it."


@dataclass(frozen=True)
class FitSettings:
    """Settings of one training run.

    Raises:
        TrainingError: a value is out of range.
    """

    horizons: tuple[Horizon, ...] = parse_horizons(DEFAULT_HORIZONS)
    units: int = 1024
    fan_in: int = 8
    seed: int = 1
    spectral_radius: float = 0.6
    time_constant_events_min: float = 0.2
    time_constant_events_max: float = 30.0
    clip: float = 6.0  # Of standardised features.
    name: str = "model"
    version: str = ""
    demonstration: bool = False
    notice: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; the kernels check the rest when the reservoir is drawn."""
        if not UNITS_MIN <= self.units <= UNITS_MAX:
            raise TrainingError(f"units must be {UNITS_MIN} to {UNITS_MAX}: units={self.units}; 1024 is usual")
        if not 1 <= self.fan_in < self.units:
            raise TrainingError(f"fan-in must be 1 to units - 1: fan-in={self.fan_in}, units={self.units}; 8 is usual")
        if not 0 <= self.seed < 2**64:
            raise TrainingError(f"seed must be a whole number from 0 to 2**64 - 1: seed={self.seed}; choose another")
        if not 0.0 <= self.spectral_radius <= 2.0:
            raise TrainingError(
                f"spectral radius must be 0 to 2: spectral-radius={self.spectral_radius}; 0.6 is usual, from 1 on echoes last"
            )
