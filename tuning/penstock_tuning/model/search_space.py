"""What search tries: a range or a choice for each setting, and how a trial's draws become settings.

    settings_of_draws(draws_of(settings)) ~ settings        so that the defaults are the first trial

The units' penalty is not drawn: every trial chooses it per output from the whole grid, on past blocks. What is drawn
is the share of it that the linear columns get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Final

from penstock_tuning.model.settings import FitSettings

TOPOLOGIES: Final = ("cyclic", "sparse")  # A dense one costs as much as it has weights.
MEMORIES: Final[dict[str, tuple[float, ...]]] = {
    "none": (),
    "short": (2.0, 5.0),
    "usual": (2.0, 5.0, 10.0, 30.0),
    "long": (2.0, 5.0, 10.0, 30.0, 100.0, 300.0),
}
RANGES: Final[dict[str, tuple[float, float]]] = {
    "time_constant_min": (0.1, 5.0),
    "time_constant_ratio": (2.0, 1_000.0),
    "input_gain": (0.2, 5.0),  # 1: the usual 1 / sqrt(inputs / 4).
    "linear_penalty": (1e-3, 1.0),
}
RADIUS: Final = (0.05, 1.2)
BIAS: Final = (0.0, 2.0)
FAN_IN: Final = (2, 16)
LAGS: Final = (0, 10)
PRODUCTS: Final = ("none", "half")  # Of the units.


@dataclass(frozen=True)
class Space:
    """What is drawn from, beside the ranges above.

    Attributes:
        units: sizes to try, growing.
        inputs: how many features the recordings have.
    """

    units: tuple[int, ...]
    inputs: int

    @property
    def fan_in_max(self) -> int:
        """What fits the smallest reservoir too."""
        return min(FAN_IN[1], self.units[0] - 1)


def draw_settings(trial: Any, base: FitSettings, space: Space) -> FitSettings:
    """Return *base* with what the Optuna *trial* draws from *space*."""
    draws = {
        "topology": trial.suggest_categorical("topology", TOPOLOGIES),
        "units": trial.suggest_categorical("units", space.units),
        "fan_in": trial.suggest_int("fan_in", FAN_IN[0], space.fan_in_max, log=True),
        "spectral_radius": trial.suggest_float("spectral_radius", *RADIUS),
        "bias_scale": trial.suggest_float("bias_scale", *BIAS),
        "memory": trial.suggest_categorical("memory", tuple(MEMORIES)),
        "memory_lags": trial.suggest_int("memory_lags", *LAGS),
        "products": trial.suggest_categorical("products", PRODUCTS),
    }
    draws |= {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in RANGES.items()}
    return settings_of_draws(draws, base, space)


def settings_of_draws(draws: Mapping[str, Any], base: FitSettings, space: Space) -> FitSettings:
    """Return *base* with *draws*, the parameters of a trial."""
    shortest = float(draws["time_constant_min"])
    return replace(
        base,
        topology=str(draws["topology"]),
        units=int(draws["units"]),
        fan_in=int(draws["fan_in"]),
        recurrence=True,
        spectral_radius=float(draws["spectral_radius"]),
        leak=None,
        time_constant_events_min=shortest,
        time_constant_events_max=shortest * float(draws["time_constant_ratio"]),
        input_scale=float(draws["input_gain"]) / sqrt(space.inputs / 4),
        bias_scale=float(draws["bias_scale"]),
        memory_averages=MEMORIES[draws["memory"]],
        memory_lags=int(draws["memory_lags"]),
        products=None if draws["products"] == "half" else 0,
        linear_penalties=(float(draws["linear_penalty"]),),
    )


def draws_of(settings: FitSettings, space: Space) -> dict[str, Any]:
    """Return the draws nearest to *settings*, for the first trial."""
    near = {name: averages for name, averages in MEMORIES.items() if averages == settings.memory_averages}
    scale = settings.input_scale or 1.0 / sqrt(space.inputs / 4)
    real = {
        "time_constant_min": settings.time_constant_events_min,
        "time_constant_ratio": settings.time_constant_events_max / settings.time_constant_events_min,
        "input_gain": scale * sqrt(space.inputs / 4),
        "linear_penalty": settings.linear_penalties[0],
    }
    return {
        "topology": settings.topology if settings.topology in TOPOLOGIES else TOPOLOGIES[0],
        "units": min(space.units, key=lambda one: abs(one - settings.units)),
        "fan_in": min(max(settings.fan_in, FAN_IN[0]), space.fan_in_max),
        "spectral_radius": min(max(settings.spectral_radius, RADIUS[0]), RADIUS[1]),
        "bias_scale": min(max(settings.bias_scale, BIAS[0]), BIAS[1]),
        "memory": next(iter(near), "usual"),
        "products": "none" if settings.products == 0 else "half",
        "memory_lags": min(max(settings.memory_lags, LAGS[0]), LAGS[1]),
        **{name: min(max(value, RANGES[name][0]), RANGES[name][1]) for name, value in real.items()},
    }
