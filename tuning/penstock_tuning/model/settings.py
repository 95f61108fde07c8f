"""What training is asked to do, checked before the first tick is read; the defaults stand in defaults.py.

a FitSettings that exists can be trained: whatever is impossible is refused with its name, value and mend
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Final

from penstock_kernels.elementary import exp
from penstock_kernels.model import (
    FAN_IN_MAX,
    MEMORY_GAINS_MAX,
    MEMORY_LAGS_MAX,
    PRODUCTS_STEP,
    TIME_BASES,
    TOPOLOGIES,
    Horizon,
)
from penstock_tuning.model.defaults import (
    DEFAULT_BIAS_SCALE,
    DEFAULT_CLIP,
    DEFAULT_FAN_IN,
    DEFAULT_HORIZONS,
    DEFAULT_MEMORY_AVERAGES,
    DEFAULT_MEMORY_LAGS,
    DEFAULT_PRODUCTS,
    DEFAULT_SPECTRAL_RADIUS,
    DEFAULT_TIME_CONSTANTS,
    DEFAULT_TOPOLOGY,
    DEFAULT_UNITS,
    LINEAR_PENALTIES,
    PENALTIES,
)
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.horizons import parse_horizons

UNITS_MIN: Final = 16
UNITS_MAX: Final = 8_192
TIME_CONSTANT_MAX: Final = 1e6
SCALE_MAX: Final = 100.0
PENALTIES_MAX: Final = 32
CLIP_MAX: Final = 1e3

BLOCKS: Final = 10  # Of time, with about as many ticks each.
SURVEY_BLOCKS: Final = 3  # The first ones, which scales and ranges come from.
FIRST_FOLD: Final = 2  # The first block, from 0, whose errors choose penalties.
FIRST_TEST: Final = 3  # The first block that skill is measured on.
SEARCH_BLOCKS: Final = 7  # The first ones: all that search may look at.
D2_AVERAGES: Final = (2.0, 5.0, 10.0, 30.0)  # Of the baseline d2, time constants in events.
D2_LAGS: Final = 5
WASHOUT_TICKS: Final = 256  # At the start of each stream: states and averages still remember that they began at 0.
WINSORISED: Final = (0.005, 0.995)  # Quantiles of the past returns that returns are limited to.
DEMONSTRATION_NOTICE: Final = "A demonstration, trained on a simulated market: never trade on it."


@dataclass(frozen=True)
class FitSettings:
    """Settings of one training run.

    Raises:
        TrainingError: a value is impossible.
    """

    horizons: tuple[Horizon, ...] = parse_horizons(DEFAULT_HORIZONS)
    topology: str = DEFAULT_TOPOLOGY
    units: int = DEFAULT_UNITS
    fan_in: int = DEFAULT_FAN_IN  # Plays no part in a dense reservoir.
    seed: int = 1
    spectral_radius: float = DEFAULT_SPECTRAL_RADIUS
    recurrence: bool = True  # False: W = 0, the baseline W0; the spectral radius plays no part.
    time_base: str = "events"
    time_constant_events_min: float = DEFAULT_TIME_CONSTANTS[0]  # In seconds where that is the time base.
    time_constant_events_max: float = DEFAULT_TIME_CONSTANTS[1]
    leak: float | None = None  # One for all units, per event, in place of the time constants.
    input_scale: float | None = None  # None: 1 / sqrt(inputs / 4).
    bias_scale: float = DEFAULT_BIAS_SCALE
    memory_averages: tuple[float, ...] = DEFAULT_MEMORY_AVERAGES  # Time constants in events, growing.
    memory_lags: int = DEFAULT_MEMORY_LAGS
    products: int | None = DEFAULT_PRODUCTS  # Of units, that the readout sees; None: half the units, in whole sixteens.
    clip: float = DEFAULT_CLIP  # Of standardised features.
    penalties: tuple[float, ...] = PENALTIES  # Tried on past blocks, growing.
    linear_penalties: tuple[float, ...] = LINEAR_PENALTIES
    name: str = "model"
    version: str = ""
    demonstration: bool = False
    notice: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; the kernels check the rest when the reservoir is drawn."""
        self._check_horizons()
        self._check_reservoir()
        self._check_times()
        self._check_readout()

    @property
    def memory_gains(self) -> tuple[float, ...]:
        """The gain of each average of the linear memory, 1 - exp(-1 / time constant in events)."""
        return tuple(1.0 - exp(-1.0 / one) for one in self.memory_averages)

    @property
    def made_products(self) -> int:
        """How many products of units the readout sees."""
        return self.units // (2 * PRODUCTS_STEP) * PRODUCTS_STEP if self.products is None else self.products

    @property
    def drawn_radius(self) -> float:
        """The spectral radius that the reservoir is drawn with; 0 without recurrence."""
        return self.spectral_radius if self.recurrence else 0.0

    def _check_horizons(self) -> None:
        if not self.horizons:
            raise TrainingError("horizons must be 1 to 4: horizons=(); write for example next,100ms")
        ends: dict[int, list[tuple[int, int]]] = {}
        for one in self.horizons:
            ends.setdefault(int(one.kind), []).append((one.events, one.duration_ns))
        if any(found != sorted(set(found)) for found in ends.values()):
            names = ",".join(one.name for one in self.horizons)
            raise TrainingError(f"horizons of one kind must grow: horizons={names!r}; put the shorter ones first")

    def _check_reservoir(self) -> None:
        if self.topology not in TOPOLOGIES:
            raise TrainingError(
                f"topology must be one of {', '.join(TOPOLOGIES)}: topology={self.topology!r}; cyclic is the fastest"
            )
        if not UNITS_MIN <= self.units <= UNITS_MAX:
            raise TrainingError(
                f"units must be {UNITS_MIN} to {UNITS_MAX}: units={self.units}; {DEFAULT_UNITS} is usual"
            )
        fan_in_max = min(self.units - 1, FAN_IN_MAX)
        if self.topology != "dense" and not 1 <= self.fan_in <= fan_in_max:
            raise TrainingError(
                f"fan-in must be 1 to units - 1, at most {FAN_IN_MAX}: fan-in={self.fan_in}, units={self.units}; "
                f"{DEFAULT_FAN_IN} is usual"
            )
        if not 0 <= self.seed < 2**64:
            raise TrainingError(f"seed must be a whole number from 0 to 2**64 - 1: seed={self.seed}; choose another")
        if self.recurrence and not 0.0 < self.spectral_radius <= 2.0:
            raise TrainingError(
                f"spectral radius must be above 0 and at most 2: spectral-radius={self.spectral_radius}; "
                f"{DEFAULT_SPECTRAL_RADIUS} is usual, and --no-recurrence gives the baseline W0 without recurrent weights"
            )
        if self.input_scale is not None and not 0.0 < self.input_scale <= SCALE_MAX:
            raise TrainingError(
                f"input scale must be above 0 and at most {SCALE_MAX:g}: input-scale={self.input_scale}; "
                "leave it out for 1 / sqrt(inputs / 4)"
            )
        if not 0.0 <= self.bias_scale <= SCALE_MAX:
            raise TrainingError(
                f"bias scale must be 0 to {SCALE_MAX:g}: bias-scale={self.bias_scale}; {DEFAULT_BIAS_SCALE:g} is usual"
            )
        if not 0.0 < self.clip <= CLIP_MAX:
            raise TrainingError(f"clip must be above 0 and at most {CLIP_MAX:g}: clip={self.clip}; 6 is usual")

    def _check_times(self) -> None:
        if self.time_base not in TIME_BASES:
            raise TrainingError(
                f"time base must be one of {', '.join(TIME_BASES)}: time-base={self.time_base!r}; events is usual"
            )
        shortest, longest = self.time_constant_events_min, self.time_constant_events_max
        if not 0.0 < shortest <= longest <= TIME_CONSTANT_MAX:
            raise TrainingError(
                f"time constants must be above 0, at most {TIME_CONSTANT_MAX:g}, the shorter one first: "
                f"time-constants={shortest:g},{longest:g}; 0.2,30 is usual"
            )
        if self.leak is not None and not 0.0 < self.leak <= 1.0:
            raise TrainingError(
                f"leak must be above 0 and at most 1: leak={self.leak}; 1 forgets the state at each tick, 0.3 is usual"
            )
        if self.leak is not None and self.time_base != "events":
            raise TrainingError(
                f"leak is counted per event: leak={self.leak}, time-base={self.time_base}; give time constants instead"
            )
        if len(self.memory_averages) > MEMORY_GAINS_MAX or not _grow(self.memory_averages, 1.0):
            raise TrainingError(
                f"memory averages must be at most {MEMORY_GAINS_MAX} time constants of at least 1 event that grow: "
                f"memory-averages={_listed(self.memory_averages)}; 2,5,10,30 is usual"
            )
        if not 0 <= self.memory_lags <= MEMORY_LAGS_MAX:
            raise TrainingError(
                f"memory lags must be 0 to {MEMORY_LAGS_MAX}: memory-lags={self.memory_lags}; "
                f"{DEFAULT_MEMORY_LAGS} is usual"
            )

    def _check_readout(self) -> None:
        if self.products is not None and (self.products % PRODUCTS_STEP or not 0 <= 2 * self.products <= self.units):
            raise TrainingError(
                f"products must be 0 to half the units in steps of {PRODUCTS_STEP}: products={self.products}, "
                f"units={self.units}; leave it out for half the units"
            )
        for name, values in (("penalty", self.penalties), ("linear penalty", self.linear_penalties)):
            if any(not isfinite(one) or one < 0.0 for one in values):
                raise TrainingError(
                    f"{name} must not be negative: {name.replace(' ', '-')}={_listed(values)}; 0.0001 to 1000 are usual"
                )
            if not 1 <= len(values) <= PENALTIES_MAX:
                raise TrainingError(
                    f"{name} must be 1 to {PENALTIES_MAX} numbers: {name.replace(' ', '-')}={_listed(values)}; "
                    "leave it out for the usual ones"
                )


def _grow(values: Sequence[float], least: float) -> bool:
    """Whether *values* are finite, at least *least* and each above the one before."""
    return all(isfinite(one) and one >= least for one in values) and all(
        before < after for before, after in pairwise(values)
    )


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{one:g}" for one in values)
