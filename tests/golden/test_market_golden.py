"""The simulator's bytes, fixed: every machine, NumPy and Python must give these."""

from __future__ import annotations

import hashlib

from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.market.simulator import simulate

FIVE_SECONDS_OF_SEED_1 = "0e01acbaadace4b84feab079ac7497120c4eedc44b0a0210395cbc8e43261c0a"
BUSY_SECOND_OF_SEED_7 = "ac7dd4e6bde84ad5c7210d07fdb725d0ed1635af48379d61f218259df657a350"


def test_seed_1_gives_the_bytes_it_always_gave() -> None:
    ticks = simulate(MarketSettings(seed=1), 5.0).ticks
    assert hashlib.sha256(ticks.tobytes()).hexdigest() == FIVE_SECONDS_OF_SEED_1


def test_busy_market_of_five_instruments_gives_the_bytes_it_always_gave() -> None:
    ticks = simulate(MarketSettings(seed=7, instruments=5, ticks_per_second=20_000.0, signal=0.5), 1.0).ticks
    assert hashlib.sha256(ticks.tobytes()).hexdigest() == BUSY_SECOND_OF_SEED_7
