"""The simulated market: the same for a seed, bursty as markets are, and telling as much as it was told to."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1.records import TICK_LENGTH_WORDS, TICK_RTYPE, UNDEFINED_PRICE
from penstock_kernels.model import Horizon, HorizonKind
from penstock_tuning.market.settings import MarketError, MarketSettings
from penstock_tuning.market.simulator import Simulator, simulate
from penstock_tuning.model.scores import queue_imbalance
from penstock_tuning.model.targets import make_targets
from support.simulated import market, of_instrument, pairwise_auc

NEXT = Horizon("next", HorizonKind.NEXT_MOVE)


def imbalance_auc(ticks: np.ndarray) -> float:
    targets = make_targets(ticks, NEXT)
    known = targets.known
    return pairwise_auc(queue_imbalance(ticks)[known], targets.direction[known] > 0)


def test_equal_settings_give_equal_bytes_whatever_the_chunks() -> None:
    simulator = Simulator(MarketSettings(seed=1), 10.0)
    chunks = []
    while len(chunk := simulator.next(997)):
        assert len(chunk) <= 998
        chunks.append(chunk)
    assert np.concatenate(chunks).tobytes() == simulate(MarketSettings(seed=1), 10.0).ticks.tobytes()


def test_longer_market_begins_like_a_shorter_one() -> None:
    short, long = simulate(MarketSettings(seed=1), 5.0).ticks, simulate(MarketSettings(seed=1), 10.0).ticks
    assert short.tobytes() == long[: len(short)].tobytes()
    assert len(long) > len(short)


def test_another_seed_gives_another_market() -> None:
    assert (
        simulate(MarketSettings(seed=2), 2.0).ticks.tobytes() != simulate(MarketSettings(seed=1), 2.0).ticks.tobytes()
    )


def test_every_record_is_a_sound_mbp_1_record() -> None:
    made = market()
    assert set(made.ticks["length"]) == {TICK_LENGTH_WORDS}
    assert set(made.ticks["rtype"]) == {TICK_RTYPE}
    assert set(made.ticks["instrument_id"]) == {one.instrument_id for one in made.instruments}
    trades = made.ticks["action"] == ord("T")
    assert (made.ticks["price"] == UNDEFINED_PRICE).tolist() == (~trades).tolist()
    assert (made.ticks["size"][trades] > 0).all()
    assert not made.ticks["size"][~trades].any()


def test_ts_recv_grows_and_ts_event_is_earlier_and_at_times_runs_backwards() -> None:
    ticks = market().ticks
    received, event = ticks["ts_recv"].astype(np.int64), ticks["ts_event"].astype(np.int64)
    assert (np.diff(received) > 0).all()
    assert (event < received).all()
    assert 0.005 < (np.diff(event) < 0).mean() < 0.1
    assert received[-1] < market().settings.start_ns + 60 * 10**9


def test_arrivals_are_bursty() -> None:
    received = market().ticks["ts_recv"].astype(np.int64)
    per_tenth = np.bincount((received - received[0]) // 10**8)
    assert per_tenth.var() / per_tenth.mean() > 5.0  # 1 for arrivals without memory.
    assert np.bincount((received - received[0]) // 10**6).max() >= 20


@pytest.mark.parametrize(("instruments", "rate"), [(1, 500.0), (2, 450.0), (6, 5_000.0)])
def test_rate_is_about_the_one_asked_for(instruments: int, rate: float) -> None:
    seconds = 200_000 / rate
    ticks = simulate(MarketSettings(instruments=instruments, ticks_per_second=rate), seconds).ticks
    assert len(ticks) == pytest.approx(200_000, rel=0.15)


def test_books_are_never_crossed_and_at_times_one_sided() -> None:
    ticks = market().ticks
    no_bid, no_ask = ticks["bid_px"] == UNDEFINED_PRICE, ticks["ask_px"] == UNDEFINED_PRICE
    assert no_bid.any()
    assert no_ask.any()
    assert (no_bid | no_ask).mean() < 0.02
    assert not (no_bid & no_ask).any()
    assert (ticks["bid_px"][~no_bid & ~no_ask] < ticks["ask_px"][~no_bid & ~no_ask]).all()
    assert ((ticks["bid_sz"] == 0) == no_bid).all()
    assert ((ticks["ask_sz"] == 0) == no_ask).all()


def test_trade_prints_before_the_quote_that_shows_what_it_left() -> None:
    ticks = of_instrument(market().ticks, 1)
    trades = np.flatnonzero(ticks["action"] == ord("T"))
    assert 0.1 < len(trades) / len(ticks) < 0.3
    trades = trades[trades > 0]
    assert (ticks["bid_sz"][trades] == ticks["bid_sz"][trades - 1]).all()
    assert (ticks["ask_px"][trades] == ticks["ask_px"][trades - 1]).all()
    bought = ticks["side"][trades] == ord("B")
    assert (ticks["price"][trades] == np.where(bought, ticks["ask_px"][trades], ticks["bid_px"][trades])).all()
    assert (ticks["action"][trades[:-1] + 1] == ord("M")).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_queue_imbalance_tells_something_but_not_all_of_the_next_move(seed: int) -> None:
    ticks = of_instrument(market(seed, 200.0).ticks, 1)
    assert 0.62 < imbalance_auc(ticks) < 0.80


def test_market_without_signal_is_a_fair_coin() -> None:
    ticks = of_instrument(market(3, 2_000.0, 0.0).ticks, 1)
    targets = make_targets(ticks, NEXT)
    assert abs(imbalance_auc(ticks) - 0.5) < 0.02
    assert abs((targets.direction[targets.known] > 0).mean() - 0.5) < 0.03
    last_move = np.sign(np.diff(ticks["bid_px"] + ticks["ask_px"], prepend=0))
    moves = (last_move != 0) & targets.known & (np.abs(ticks["bid_px"]) < 2**61) & (np.abs(ticks["ask_px"]) < 2**61)
    assert abs(pairwise_auc(last_move[moves], targets.direction[moves] > 0) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": -1}, "seed must be a whole number from 0 to 2**64 - 1: seed=-1"),
        ({"instruments": 0}, "instruments must be from 1 to 64: instruments=0"),
        ({"ticks_per_second": 0.5}, "rate must be from 1 to 100000 ticks per second: rate=0.5"),
        ({"ticks_per_second": float("nan")}, "rate must be"),
        ({"signal": 1.5}, "signal must be from 0"),
        ({"start_ns": 0}, "start_ns must be"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(MarketError) as caught:
        MarketSettings(**changes)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 1e9])
def test_impossible_length_is_refused(seconds: float) -> None:
    with pytest.raises(MarketError, match="seconds must be above 0"):
        Simulator(MarketSettings(), seconds)


def test_market_larger_than_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(MarketError, match=r"at most 100000000 ticks: seconds=200000 at rate=1000 make about 200000000"):
        simulate(MarketSettings(ticks_per_second=1000.0), 200_000.0)
