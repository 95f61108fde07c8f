"""Every default of training in one place, without a heavy import, so that --help knows them in any environment."""

from __future__ import annotations

from typing import Final

DEFAULT_HORIZONS: Final = "next,100ms,50ev"
DEFAULT_TOPOLOGY: Final = "cyclic"
DEFAULT_UNITS: Final = 1024
DEFAULT_FAN_IN: Final = 8
DEFAULT_SPECTRAL_RADIUS: Final = 0.6
DEFAULT_TIME_CONSTANTS: Final = (0.2, 30.0)  # Shortest and longest, in time-base units.
DEFAULT_BIAS_SCALE: Final = 1.0
# No linear memory: beside 1,024 units it was worth nothing on recorded markets (docs/nonlinear-memory.md).
DEFAULT_MEMORY_AVERAGES: Final[tuple[float, ...]] = ()  # Time constants, in events. d2: 2,5,10,30.
DEFAULT_MEMORY_LAGS: Final = 0  # d2: 5.
DEFAULT_PRODUCTS: Final[int | None] = None  # Half the units, in whole sixteens.
DEFAULT_CLIP: Final = 6.0
PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)  # Relative to the number of rows.
LINEAR_PENALTIES: Final = (1.0,)  # Of the columns [m, u], as shares of the units' penalty.
