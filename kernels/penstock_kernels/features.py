"""What one tick says about the market: features, from the tick and a running state of fixed size.

There is one definition for training, replay and serving. Each feature is causal, costs O(1), and is made of prices
only through differences, so that the level of a price never matters. docs/features.md says in words what each means
and which rule applies to undefined, crossed and one-sided books and to clocks that step.

    running, all zeros     no tick seen yet
    running                after enough ticks depends on the last ones alone: every average and the tick size fade
"""

from __future__ import annotations

from typing import Final

from penstock.v1.records import UNDEFINED_PRICE, PredictionFlag
from penstock_kernels.compiled import Float64s, Int64, compiled
from penstock_kernels.elementary import asinh, bits_of, from_bits, log

FEATURE_NAMES: Final = (
    "imbalance",
    "microprice_ticks",
    "spread_ticks",
    "mid_change",
    "bid_change",
    "ask_change",
    "order_flow",
    "trade_size_signed",
    "trade",
    "interarrival_log",
    "since_trade_log",
    "volatility_ratio",
    "trade_sign",
    "last_move",
    "depth_log",
    "events_since_move_log",
)
FEATURES: Final = len(FEATURE_NAMES)

# Positions in FEATURE_NAMES.
_IMBALANCE: Final = 0
_MICROPRICE: Final = 1
_SPREAD: Final = 2
_MID_CHANGE: Final = 3
_BID_CHANGE: Final = 4
_ASK_CHANGE: Final = 5
_ORDER_FLOW: Final = 6
_TRADE_SIZE_SIGNED: Final = 7
_TRADE: Final = 8
_INTERARRIVAL: Final = 9
_SINCE_TRADE: Final = 10
_VOLATILITY_RATIO: Final = 11
_TRADE_SIGN: Final = 12
_LAST_MOVE: Final = 13
_DEPTH: Final = 14
_EVENTS_SINCE_MOVE: Final = 15

# The running state, float64 words. Those marked as bits hold an int64 in the same 64 bits.
_TICKS: Final = 0  # Bits. Ticks seen.
_BOOKS: Final = 1  # Bits. Two-sided books seen.
_TRADES: Final = 2  # Bits. Trades seen.
_TS_RECV: Final = 3  # Bits. Of the last tick, ns.
_BID_PRICE: Final = 4  # Bits. Of the last two-sided book, 1e-9.
_ASK_PRICE: Final = 5  # Bits. As above.
_BID_SIZE: Final = 6  # Of the last two-sided book.
_ASK_SIZE: Final = 7  # As above.
_TICK_SIZE: Final = 8  # Smallest price step seen lately, 1e-9; 0 for none yet.
_MOVEMENT_FAST: Final = 9  # Mean absolute change of the mid per tick, 1e-9.
_MOVEMENT_SLOW: Final = 10  # As above.
_FLOW_MEAN: Final = 11  # Mean absolute order flow per tick.
_DEPTH_MEAN: Final = 12  # Mean size on both sides.
_TRADE_SIZE_MEAN: Final = 13
_TRADE_SIGN_MEAN: Final = 14
_SINCE_TRADE_NS: Final = 15  # Since the last trade; 0 before the first.
_SINCE_MOVE: Final = 16  # Ticks since the mid moved, or the first tick.
_DIRECTION: Final = 17  # Of the mid's last move: 1, -1, or 0 for none yet.
ELAPSED_NS: Final = 18  # Between the last two ticks; 0 where the clock stepped back.
RAW: Final = 19  # The features before standardisation, FEATURES words.
RUNNING_WORDS: Final = RAW + FEATURES

# Weights of a new value in each average; 1 / events. Averages are plain means until that many events were seen.
_FAST: Final = 1.0 / 8.0
_SLOW: Final = 1.0 / 64.0
_TRADE_SIZES: Final = 1.0 / 32.0
_TRADE_SIGNS: Final = 2.0 / 11.0  # An exponential average "of 10".

_MOVEMENT_FLOOR: Final = 1.0 / 32.0  # Of a tick size, added to both movements: a quiet market's past is forgotten too.

_TICK_SIZE_GROWTH: Final = 1.0 + 2.0**-10  # Per tick: a step that no longer occurs is forgotten.
_TICK_SIZE_MAX: Final = 2.0**62
_NOTHING: Final = 1e-12  # Averages below it are 0: no quiet market runs into subnormal numbers.
_EXACT: Final = 2.0**52  # Price differences below it are computed in integers.
_NS_PER_US: Final = 1000.0

_ACTION_TRADE: Final = ord("T")
_SIDE_SELL: Final = ord("A")
_SIDE_BUY: Final = ord("B")

_BOOK_ONE_SIDED: Final = int(PredictionFlag.BOOK_ONE_SIDED)
_BOOK_CROSSED: Final = int(PredictionFlag.BOOK_CROSSED)
_TIME_BACKWARDS: Final = int(PredictionFlag.TIME_BACKWARDS)


@compiled
def features_advance(
    running: Float64s,
    ts_recv: Int64,
    size: Int64,
    action: Int64,
    side: Int64,
    bid_price: Int64,
    ask_price: Int64,
    bid_size: Int64,
    ask_size: Int64,
) -> int:
    """Take one tick into *running* and leave its raw features there; see raw_features.

    Args:
        running: shape (RUNNING_WORDS,), one instrument's. Overwritten.
        ts_recv: Unix time, ns.
        size: of the trade, in the instrument's scale.
        action: ASCII, as in a tick record.
        side: ASCII, as in a tick record.
        bid_price: 1e-9, or UNDEFINED_PRICE.
        ask_price: 1e-9, or UNDEFINED_PRICE.
        bid_size: in the instrument's scale.
        ask_size: in the instrument's scale.

    Returns:
        Bits of PredictionFlag: BOOK_ONE_SIDED, BOOK_CROSSED, TIME_BACKWARDS.

    Allocates nothing.
    """
    flags = _advance_time(running, ts_recv)
    _advance_trade(running, size, action, side)
    if UNDEFINED_PRICE in (bid_price, ask_price):
        _hold_book(running)
        return flags | _BOOK_ONE_SIDED
    _advance_book(running, bid_price, ask_price, bid_size, ask_size)
    if bid_price >= ask_price:
        running[RAW + _IMBALANCE] = 0.0
        running[RAW + _MICROPRICE] = 0.0
        return flags | _BOOK_CROSSED
    return flags


@compiled
def _advance_time(running: Float64s, ts_recv: Int64) -> int:
    """Take in the arrival time: a clock that steps back counts as no time."""
    flags = 0
    elapsed_ns = 0.0
    ticks = bits_of(running[_TICKS])
    if ticks > 0:
        before = bits_of(running[_TS_RECV])
        if ts_recv < before:
            flags = _TIME_BACKWARDS
        else:
            elapsed_ns = float(ts_recv - before)
    running[_TICKS] = from_bits(ticks + 1)
    running[_TS_RECV] = from_bits(ts_recv)
    running[ELAPSED_NS] = elapsed_ns
    if bits_of(running[_TRADES]) > 0:
        running[_SINCE_TRADE_NS] += elapsed_ns
    running[RAW + _INTERARRIVAL] = log(1.0 + elapsed_ns / _NS_PER_US)
    running[RAW + _SINCE_TRADE] = log(1.0 + running[_SINCE_TRADE_NS] / _NS_PER_US)
    return flags


@compiled
def _advance_trade(running: Float64s, size: Int64, action: Int64, side: Int64) -> None:
    """Take in a trade; on any other tick only say that there was none."""
    if action != _ACTION_TRADE:
        running[RAW + _TRADE] = 0.0
        running[RAW + _TRADE_SIZE_SIGNED] = 0.0
        return
    trades = bits_of(running[_TRADES]) + 1
    running[_TRADES] = from_bits(trades)
    sign = 1.0 if side == _SIDE_BUY else (-1.0 if side == _SIDE_SELL else 0.0)
    _average(running, _TRADE_SIZE_MEAN, float(size), _TRADE_SIZES, trades)
    _average(running, _TRADE_SIGN_MEAN, sign, _TRADE_SIGNS, trades)
    running[_SINCE_TRADE_NS] = 0.0
    running[RAW + _TRADE] = 1.0
    running[RAW + _TRADE_SIGN] = running[_TRADE_SIGN_MEAN]
    running[RAW + _TRADE_SIZE_SIGNED] = asinh(sign * _ratio(float(size), running[_TRADE_SIZE_MEAN]))


@compiled
def _hold_book(running: Float64s) -> None:
    """Take in a one-sided book: the last two-sided one stands, nothing moved, no imbalance is known."""
    running[RAW + _IMBALANCE] = 0.0
    running[RAW + _MICROPRICE] = 0.0
    running[RAW + _MID_CHANGE] = 0.0
    running[RAW + _BID_CHANGE] = 0.0
    running[RAW + _ASK_CHANGE] = 0.0
    running[RAW + _ORDER_FLOW] = 0.0
    running[_SINCE_MOVE] += 1.0
    running[RAW + _EVENTS_SINCE_MOVE] = log(1.0 + running[_SINCE_MOVE])


@compiled
def _advance_book(running: Float64s, bid_price: Int64, ask_price: Int64, bid_size: Int64, ask_size: Int64) -> None:
    """Take in a two-sided book, crossed or not."""
    bid_change, ask_change, flow = 0.0, 0.0, 0.0
    books = bits_of(running[_BOOKS])
    if books > 0:
        bid_change = _difference(bid_price, bits_of(running[_BID_PRICE]))
        ask_change = _difference(ask_price, bits_of(running[_ASK_PRICE]))
        flow = _order_flow(running, bid_change, ask_change, float(bid_size), float(ask_size))
        _average(running, _FLOW_MEAN, abs(flow), _SLOW, books)
        _average(running, _MOVEMENT_FAST, abs(0.5 * (bid_change + ask_change)), _FAST, books)
        _average(running, _MOVEMENT_SLOW, abs(0.5 * (bid_change + ask_change)), _SLOW, books)
    spread = _difference(ask_price, bid_price)
    depth = float(bid_size) + float(ask_size)
    running[_BOOKS] = from_bits(books + 1)
    running[_BID_PRICE] = from_bits(bid_price)
    running[_ASK_PRICE] = from_bits(ask_price)
    running[_BID_SIZE] = float(bid_size)
    running[_ASK_SIZE] = float(ask_size)
    _average(running, _DEPTH_MEAN, depth, _SLOW, books + 1)
    _advance_tick_size(running, abs(bid_change), abs(ask_change), spread)
    _advance_move(running, 0.5 * (bid_change + ask_change))

    tick_size = running[_TICK_SIZE]
    fast = running[_MOVEMENT_FAST] + _MOVEMENT_FLOOR * tick_size
    slow = running[_MOVEMENT_SLOW] + _MOVEMENT_FLOOR * tick_size
    imbalance = _ratio(float(bid_size) - float(ask_size), depth)
    running[RAW + _IMBALANCE] = imbalance
    running[RAW + _MICROPRICE] = asinh(_ratio(0.5 * imbalance * spread, tick_size))
    running[RAW + _SPREAD] = asinh(_ratio(spread, tick_size))
    running[RAW + _MID_CHANGE] = asinh(_ratio(0.5 * (bid_change + ask_change), slow))
    running[RAW + _BID_CHANGE] = asinh(_ratio(bid_change, slow))
    running[RAW + _ASK_CHANGE] = asinh(_ratio(ask_change, slow))
    running[RAW + _ORDER_FLOW] = asinh(_ratio(flow, running[_FLOW_MEAN]))
    running[RAW + _VOLATILITY_RATIO] = log(fast / slow) if slow > 0.0 else 0.0
    running[RAW + _DEPTH] = log((1.0 + depth) / (1.0 + running[_DEPTH_MEAN]))


@compiled
def _order_flow(running: Float64s, bid_change: float, ask_change: float, bid_size: float, ask_size: float) -> float:
    """Return e_n of Cont, Kukanov and Stoikov (2014): what the event added to the bid less what it added to the ask.

    e_n = [bid >= bid'] q_bid - [bid <= bid'] q_bid' - [ask <= ask'] q_ask + [ask >= ask'] q_ask'
    """
    flow = 0.0
    if bid_change >= 0.0:
        flow += bid_size
    if bid_change <= 0.0:
        flow -= running[_BID_SIZE]
    if ask_change <= 0.0:
        flow -= ask_size
    if ask_change >= 0.0:
        flow += running[_ASK_SIZE]
    return flow


@compiled
def _advance_tick_size(running: Float64s, bid_step: float, ask_step: float, spread: float) -> None:
    """Let the tick size grow by 2^-10 of itself, then lower it to the smallest price step of this tick."""
    smallest = _TICK_SIZE_MAX
    if running[_TICK_SIZE] > 0.0:
        smallest = min(running[_TICK_SIZE] * _TICK_SIZE_GROWTH, _TICK_SIZE_MAX)
    if bid_step > 0.0:
        smallest = min(smallest, bid_step)
    if ask_step > 0.0:
        smallest = min(smallest, ask_step)
    if spread > 0.0:
        smallest = min(smallest, spread)
    running[_TICK_SIZE] = smallest if smallest < _TICK_SIZE_MAX else 0.0


@compiled
def _advance_move(running: Float64s, mid_change: float) -> None:
    """Take in whether and where the mid moved."""
    if mid_change != 0.0:
        running[_SINCE_MOVE] = 0.0
        running[_DIRECTION] = 1.0 if mid_change > 0.0 else -1.0
    else:
        running[_SINCE_MOVE] += 1.0
    running[RAW + _LAST_MOVE] = running[_DIRECTION]
    running[RAW + _EVENTS_SINCE_MOVE] = log(1.0 + running[_SINCE_MOVE])


@compiled
def _average(running: Float64s, position: int, value: float, weight: float, events: Int64) -> None:
    """Take the *events*-th *value* into an average: a plain mean at first, then an exponential one of *weight*."""
    gain = max(weight, 1.0 / events)
    average = running[position] + gain * (value - running[position])
    running[position] = average if abs(average) > _NOTHING else 0.0


@compiled
def _difference(price: Int64, before: Int64) -> float:
    """Return price - before in 1e-9: exact where it matters, and without overflow for any two prices."""
    rough = float(price) - float(before)
    return float(price - before) if abs(rough) < _EXACT else rough


@compiled
def _ratio(value: float, scale: float) -> float:
    """Return value / scale, or 0 where there is no scale yet."""
    return value / scale if scale > 0.0 else 0.0


@compiled
def raw_features(running: Float64s, features: Float64s) -> None:
    """Copy the features of the last tick, not standardised, into *features*, shape (FEATURES,)."""
    for position in range(FEATURES):
        features[position] = running[RAW + position]
