"""The embedded default model: trained on the simulator's market, by one command whose second run gives the same bytes.

penstock-train default              makes kernels/penstock_kernels/default_model.safetensors
penstock-train default --check      makes it again beside, and compares
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from penstock_kernels.model import Model
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import simulate
from penstock_tuning.model.fit import fit
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.recordings import market_recording
from penstock_tuning.model.settings import DEMONSTRATION_NOTICE, FitSettings

MARKET: Final = MarketSettings(seed=20_260_101)
SECONDS: Final = 600.0
SETTINGS: Final = FitSettings(
    horizons=parse_horizons("next,100ms,50ev"),
    units=1024,
    fan_in=8,
    seed=1,
    name="default",
    version="1",
    demonstration=True,
    notice=DEMONSTRATION_NOTICE,
)


def make_default(
    on_progress: Progress = silent,
    *,
    market: MarketSettings = MARKET,
    seconds: float = SECONDS,
    settings: FitSettings = SETTINGS,
) -> Model:
    """Simulate, train, and return the default model; other arguments give a smaller one of the same kind."""

    def simulated(done_s: float) -> None:
        on_progress("simulating a market", int(done_s), int(seconds))

    recording = simulate(market, seconds, simulated)
    traits = ", ".join(f"{name}={value}" for name, value in asdict(market).items())
    return fit(market_recording(recording, f"simulated market ({traits}, seconds={seconds:g})"), settings, on_progress)
