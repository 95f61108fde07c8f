"""Features: the reference's to rounding, causal, and odd data handled by the rules of docs/features.md."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.v1.records import TICK_DTYPE, UNDEFINED_PRICE, PredictionFlag
from penstock_kernels import reference
from penstock_kernels.drive import run_raw_features
from penstock_kernels.features import FEATURE_NAMES, FEATURES, RUNNING_WORDS, features_advance
from support.tick_stream import START_NS, TICK_SIZE, tick_stream

BID = 100 * TICK_SIZE


def book(bid=BID, ask=BID + TICK_SIZE, bid_size=30, ask_size=10, at_us=0, **trade):
    tick = np.zeros(1, dtype=TICK_DTYPE)[0]
    tick["ts_recv"], tick["bid_px"], tick["ask_px"] = START_NS + 1_000 * at_us, bid, ask
    tick["bid_sz"], tick["ask_sz"], tick["action"], tick["side"] = bid_size, ask_size, ord("M"), ord("N")
    for name, value in trade.items():
        tick[name] = value
    return tick


def trade(side, size, at_us=0):
    return book(at_us=at_us, action=ord("T"), side=ord(side), size=size)


class Feed:
    """One instrument's features, tick by tick, as numbers with names."""

    def __init__(self):
        self.running = np.zeros(RUNNING_WORDS)
        self.flags = 0

    def __call__(self, tick):
        integers = [int(tick[name]) for name in ("size", "action", "side", "bid_px", "ask_px", "bid_sz", "ask_sz")]
        self.flags = features_advance(self.running, int(tick["ts_recv"]), *integers)
        return dict(zip(FEATURE_NAMES, self.running[-FEATURES:].tolist(), strict=True))


def test_features_are_those_of_the_reference():
    ticks = tick_stream(1, 5_000)
    assert np.max(np.abs(run_raw_features(ticks) - reference.raw_features(ticks))) < 1e-9


def test_every_feature_varies_on_a_market_that_has_everything():
    assert np.all(run_raw_features(tick_stream(2, 2_000)).std(axis=0) > 0.05)


def test_first_tick_has_no_changes_and_no_elapsed_time():
    features = Feed()(book())
    assert features["imbalance"] == 0.5
    assert features["spread_ticks"] == pytest.approx(np.arcsinh(1.0), abs=1e-14)
    assert features["microprice_ticks"] == pytest.approx(np.arcsinh(0.25), abs=1e-14)
    for name in ("mid_change", "bid_change", "ask_change", "order_flow", "trade", "last_move", "interarrival_log"):
        assert features[name] == 0.0


def test_a_lone_bid_step_moves_the_mid_by_half_of_it():
    feed = Feed()
    feed(book())
    features = feed(book(bid=BID + TICK_SIZE, ask=BID + 2 * TICK_SIZE, bid_size=7))
    assert features["last_move"] == 1.0
    assert features["mid_change"] > 0.0
    assert features["events_since_move_log"] == 0.0
    # The bid rose: its new size was added. The ask rose: its old size was taken away, for the ask's loss is a gain.
    assert features["order_flow"] == pytest.approx(np.arcsinh(1.0), abs=1e-14)
    still = feed(book(bid=BID + TICK_SIZE, ask=BID + 2 * TICK_SIZE, bid_size=7))
    assert still["mid_change"] == still["order_flow"] == 0.0
    assert still["last_move"] == 1.0
    assert still["events_since_move_log"] == pytest.approx(np.log(2.0), abs=1e-14)


def test_a_trade_is_signed_by_its_aggressor_and_resets_the_time_since():
    feed = Feed()
    assert feed(book())["since_trade_log"] == 0.0
    assert feed(book(at_us=500))["since_trade_log"] == 0.0, "no trade was seen yet"
    assert feed(trade("B", 4, at_us=1_000))["trade_size_signed"] == pytest.approx(np.arcsinh(1.0), abs=1e-14)
    quote = feed(book(at_us=1_100))
    assert quote["trade"] == quote["trade_size_signed"] == 0.0
    assert quote["since_trade_log"] == pytest.approx(np.log(101.0), abs=1e-14)
    sold = feed(trade("A", 4, at_us=1_300))
    assert sold["trade_size_signed"] < 0.0
    assert sold["trade"] == 1.0
    assert sold["trade_sign"] == 0.0, "one bought, one sold"
    assert sold["since_trade_log"] == pytest.approx(np.log(301.0), abs=1e-14)
    assert feed(trade("N", 4, at_us=1_300))["trade_size_signed"] == 0.0


@pytest.mark.parametrize("missing", ["bid_px", "ask_px"])
def test_a_one_sided_book_holds_the_last_two_sided_one(missing):
    feed = Feed()
    feed(book())
    before = feed(book(bid=BID + TICK_SIZE, ask=BID + 3 * TICK_SIZE))
    tick = book(bid=BID + 9 * TICK_SIZE, ask=BID + 10 * TICK_SIZE, bid_size=1, ask_size=900)
    tick[missing] = UNDEFINED_PRICE
    features = feed(tick)
    assert feed.flags == PredictionFlag.BOOK_ONE_SIDED
    for name in ("imbalance", "microprice_ticks", "mid_change", "bid_change", "ask_change", "order_flow"):
        assert features[name] == 0.0
    for name in ("spread_ticks", "depth_log", "last_move"):
        assert features[name] == before[name]
    assert feed(book(bid=BID + TICK_SIZE, ask=BID + 3 * TICK_SIZE))["mid_change"] == 0.0
    assert feed.flags == 0


@pytest.mark.parametrize("ask", [BID, BID - 2 * TICK_SIZE])
def test_a_crossed_book_has_a_flag_no_imbalance_and_a_spread_of_its_sign(ask):
    feed = Feed()
    feed(book())
    features = feed(book(ask=ask))
    assert feed.flags == PredictionFlag.BOOK_CROSSED
    assert features["imbalance"] == features["microprice_ticks"] == 0.0
    assert np.sign(features["spread_ticks"]) == np.sign(ask - BID)
    assert features["ask_change"] < 0.0


def test_sizes_of_zero_give_no_imbalance():
    features = Feed()(book(bid_size=0, ask_size=0))
    assert features["imbalance"] == features["microprice_ticks"] == features["depth_log"] == 0.0


def test_a_clock_that_steps_back_counts_as_no_time_and_is_followed():
    feed = Feed()
    feed(book(at_us=1_000))
    assert feed(book(at_us=400))["interarrival_log"] == 0.0
    assert feed.flags == PredictionFlag.TIME_BACKWARDS
    assert feed(book(at_us=500))["interarrival_log"] == pytest.approx(np.log(101.0), abs=1e-14)
    assert feed.flags == 0


def test_tick_size_follows_the_smallest_step_and_forgets_one_that_is_gone():
    feed = Feed()
    wide = {"bid": BID, "ask": BID + 8 * TICK_SIZE}
    assert feed(book(**wide))["spread_ticks"] == pytest.approx(np.arcsinh(1.0), abs=1e-12)
    assert feed(book())["spread_ticks"] == pytest.approx(np.arcsinh(1.0), abs=1e-12)
    assert feed(book(**wide))["spread_ticks"] == pytest.approx(np.arcsinh(8.0), abs=1e-2)
    for _ in range(4_000):
        features = feed(book(**wide))
    assert features["spread_ticks"] == pytest.approx(np.arcsinh(1.0), abs=1e-12)


def test_a_fresh_state_agrees_with_an_old_one_after_enough_ticks():
    ticks = tick_stream(3, 6_000)
    warm = run_raw_features(ticks)[3_000:]
    cold = run_raw_features(ticks[3_000:])
    assert np.max(np.abs(warm[:50] - cold[:50])) > 0.1
    assert np.max(np.abs(warm[1_500:] - cold[1_500:])) < 1e-3
