"""Horizons as people write them."""

from __future__ import annotations

import pytest

from penstock_kernels.model import Horizon, HorizonKind
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.horizons import parse_horizons


def test_every_kind_is_understood_in_the_order_given() -> None:
    assert parse_horizons("next, 50ev,next_1ms,100ms") == (
        Horizon("next", HorizonKind.NEXT_MOVE),
        Horizon("50ev", HorizonKind.EVENTS, events=50),
        Horizon("next_1ms", HorizonKind.NEXT_MOVE, duration_ns=1_000_000),
        Horizon("100ms", HorizonKind.TIME, duration_ns=100_000_000),
    )


@pytest.mark.parametrize(
    ("name", "duration_ns"), [("5ns", 5), ("5us", 5_000), ("2s", 2 * 10**9), ("3min", 180 * 10**9)]
)
def test_units_of_time_are_understood(name: str, duration_ns: int) -> None:
    assert parse_horizons(name) == (Horizon(name, HorizonKind.TIME, duration_ns=duration_ns),)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("", "'' is not understood"),
        ("next,", "'' is not understood"),
        ("100", "'100' is not understood"),
        ("soon", "write next, next_1ms, 50ev or 100ms"),
        ("-5ev", "'-5ev' is not understood"),
        ("0ev", "'0ev' must be 1 to 1000000 events"),
        ("2000000ev", "'2000000ev' must be 1 to 1000000 events"),
        ("0ms", "'0ms' must be 1 ns to 24 hours"),
        ("2000min", "'2000min' must be 1 ns to 24 hours"),
        ("next,next", "names one twice"),
        ("1000ms,1s", "names one twice"),
        ("1s,100ms", "put the shorter ones first"),
        ("next,1ev,2ev,3ev,4ev", "horizons must be 1 to 4"),
    ],
)
def test_impossible_horizons_are_refused_by_name(spec: str, sentence: str) -> None:
    with pytest.raises(TrainingError) as caught:
        parse_horizons(spec)
    assert sentence in str(caught.value)
