"""The predictor once more, in float64 NumPy, written to read like its formulas and not to be fast.

The kernels are tested against it: features to 1e-9, states and forecasts to what float32 allows. Nothing else uses it.
"""

from __future__ import annotations

from math import asinh, copysign, exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX, UNDEFINED_PRICE
from penstock_kernels.compiled import Float64s
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.model import Calibration, HorizonKind, Model
from penstock_kernels.spectral import dense_matrix


class Average:
    """A plain mean of the first 1 / weight values, then an exponential average of that weight."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        """Take in *value*."""
        self._count += 1
        gain = max(self._weight, 1 / self._count)
        self.value = (1 - gain) * self.value + gain * value


class Features:
    """The running features of one instrument; docs/features.md says the same in words."""

    def __init__(self) -> None:
        self._ts_recv: int | None = None
        self._book: tuple[int, int, int, int] | None = None  # bid, ask, their sizes.
        self._since_trade_ns: int | None = None
        self._since_move = 0
        self._tick_size = 0.0
        self._movement_fast, self._movement_slow = Average(1 / 8), Average(1 / 64)
        self._flow, self._depth = Average(1 / 64), Average(1 / 64)
        self._trade_size, self._trade_sign = Average(1 / 32), Average(2 / 11)
        self.values: dict[str, float] = dict.fromkeys(FEATURE_NAMES, 0.0)

    def add(self, tick: Any) -> None:
        """Take in one tick record; *values* are then those of this tick."""
        elapsed_ns = max(int(tick["ts_recv"]) - self._ts_recv, 0) if self._ts_recv is not None else 0
        self._ts_recv = int(tick["ts_recv"])
        self._set(interarrival_log=log(1 + elapsed_ns / 1e3))
        if self._since_trade_ns is not None:
            self._since_trade_ns += elapsed_ns
            self._set(since_trade_log=log(1 + self._since_trade_ns / 1e3))
        self._set(trade=0.0, trade_size_signed=0.0)
        if tick["action"] == ord("T"):
            self._add_trade(int(tick["size"]), {ord("B"): 1, ord("A"): -1}.get(int(tick["side"]), 0))
        moved = 0.0
        self._set(imbalance=0.0, microprice_ticks=0.0, mid_change=0.0, bid_change=0.0, ask_change=0.0, order_flow=0.0)
        if UNDEFINED_PRICE not in (tick["bid_px"], tick["ask_px"]):
            moved = self._add_book(*(int(tick[name]) for name in ("bid_px", "ask_px", "bid_sz", "ask_sz")))
        self._since_move = 0 if moved else self._since_move + 1
        self._set(events_since_move_log=log(1 + self._since_move))
        if moved:
            self._set(last_move=copysign(1.0, moved))

    def _set(self, **values: float) -> None:
        self.values.update(values)

    def _add_trade(self, size: int, sign: int) -> None:
        self._trade_size.add(size)
        self._trade_sign.add(sign)
        self._since_trade_ns = 0
        signed_size = asinh(sign * size / self._trade_size.value) if self._trade_size.value else 0.0
        self._set(trade=1.0, trade_sign=self._trade_sign.value, trade_size_signed=signed_size)

    def _add_book(self, bid: int, ask: int, bid_size: int, ask_size: int) -> float:
        """Take in a two-sided book and return the change of the mid."""
        bid_change = ask_change = flow = 0
        if self._book is not None:
            bid_before, ask_before, bid_size_before, ask_size_before = self._book
            bid_change, ask_change = bid - bid_before, ask - ask_before
            flow = (bid >= bid_before) * bid_size - (bid <= bid_before) * bid_size_before
            flow += (ask >= ask_before) * ask_size_before - (ask <= ask_before) * ask_size
            self._flow.add(abs(flow))
            self._movement_fast.add(abs(bid_change + ask_change) / 2)
            self._movement_slow.add(abs(bid_change + ask_change) / 2)
        self._book = (bid, ask, bid_size, ask_size)
        self._depth.add(bid_size + ask_size)
        spread = ask - bid
        steps = [abs(bid_change), abs(ask_change), spread, self._tick_size * (1 + 2**-10)]
        self._tick_size = min((step for step in steps if step > 0), default=0.0)

        fast = self._movement_fast.value + self._tick_size / 32
        slow = self._movement_slow.value + self._tick_size / 32
        mid_change = (bid_change + ask_change) / 2
        depth = bid_size + ask_size
        imbalance = (bid_size - ask_size) / depth if depth and spread > 0 else 0.0
        microprice_less_mid = imbalance * spread / 2
        self._set(
            imbalance=imbalance,
            microprice_ticks=asinh(_ratio(microprice_less_mid, self._tick_size)),
            spread_ticks=asinh(_ratio(spread, self._tick_size)),
            mid_change=asinh(_ratio(mid_change, slow)),
            bid_change=asinh(_ratio(bid_change, slow)),
            ask_change=asinh(_ratio(ask_change, slow)),
            order_flow=asinh(_ratio(flow, self._flow.value)),
            volatility_ratio=log(fast / slow) if slow else 0.0,
            depth_log=log((1 + depth) / (1 + self._depth.value)),
        )
        return mid_change


def _ratio(value: float, scale: float) -> float:
    return value / scale if scale else 0.0


def raw_features(ticks: NDArray[np.void]) -> Float64s:
    """Return the features of every tick of one instrument, shape (ticks, FEATURES), not standardised."""
    features = Features()
    rows = []
    for tick in ticks:
        features.add(tick)
        rows.append([features.values[name] for name in FEATURE_NAMES])
    return np.array(rows, dtype=np.float64).reshape(len(ticks), len(FEATURE_NAMES))


def inputs_of(model: Model, raw: Float64s) -> Float64s:
    """Return the reservoir's inputs, shape (ticks, inputs), of *raw* features, shape (ticks, FEATURES)."""
    chosen = raw[:, [FEATURE_NAMES.index(name) for name in model.features]]
    return np.clip((chosen - model.feature_mean) / model.feature_scale, -model.clip, model.clip)


def reservoir_step(model: Model, x: Float64s, u: Float64s, elapsed_s: float = 0.0) -> Float64s:
    """Return x <- (1 - leak) x + leak tanh(W x + W_in u + b), shape (units,)."""
    heard = dense_matrix(model.topology, model.recurrent, model.connections) @ x
    leak = model.leak if model.time_base == "events" else -np.expm1(-elapsed_s * model.leak.astype(np.float64))
    return (1 - leak) * x + leak * np.tanh(heard + u @ model.input_weights + model.bias)


def memory_columns(model: Model, inputs: Float64s) -> Float64s:
    """Return the linear memory after every tick, shape (ticks, memory_columns), of *inputs*, shape (ticks, inputs)."""
    columns = []
    for gain in model.memory_gains.astype(np.float64):
        average, averages = np.zeros(inputs.shape[1]), []
        for u in inputs:
            average = average + gain * (u - average)
            averages.append(average)
        columns.append(np.array(averages).reshape(inputs.shape))
    columns += [
        np.concatenate([np.zeros_like(inputs[:lag]), inputs[:-lag]])[: len(inputs)]
        for lag in range(1, model.memory_lags + 1)
    ]
    return np.concatenate([np.zeros((len(inputs), 0)), *columns], axis=1)


def forecasts_of(model: Model, x: Float64s, u: Float64s, m: Float64s | None = None) -> Float64s:
    """Return readout [x, p, m, u, 1], calibrated: shape (HORIZONS_MAX, 4), rows past the model's horizons 0."""
    p = x[: model.products] * x[model.products : 2 * model.products]
    columns = np.concatenate([x, p, m if m is not None else np.zeros(model.memory_columns), u, [1.0]])
    outputs = model.readout.astype(np.float64) @ columns
    forecasts = np.zeros((HORIZONS_MAX, 4))
    for row, (horizon, calibration) in enumerate(zip(model.horizons, model.calibration, strict=True)):
        forecasts[row] = _forecast(horizon.kind, calibration, *outputs[3 * row : 3 * row + 3])
    return forecasts


def _forecast(
    kind: HorizonKind, calibration: Calibration, returns: float, direction: float, moved: float
) -> tuple[float, float, float, float]:
    moved_share = _logistic(calibration.moved_slope * moved + calibration.moved_offset)
    if kind == HorizonKind.NEXT_MOVE:
        moved_share = 1.0
    up_share = _logistic(calibration.direction_slope * direction + calibration.direction_offset)
    return (
        calibration.return_scale * returns,
        calibration.deviation,
        moved_share * up_share,
        moved_share * (1 - up_share),
    )


def _logistic(value: float) -> float:
    return 1 / (1 + exp(-value)) if value > 0 else 1 - 1 / (1 + exp(value))


def predictions(model: Model, ticks: NDArray[np.void]) -> Float64s:
    """Return the forecasts of every tick of one instrument, shape (ticks, HORIZONS_MAX, 4)."""
    inputs = inputs_of(model, raw_features(ticks))
    memory = memory_columns(model, inputs)
    x = np.zeros(model.units)
    rows = np.zeros((len(ticks), HORIZONS_MAX, 4))
    for row, (u, m, elapsed_s) in enumerate(zip(inputs, memory, elapsed_times_s(ticks), strict=True)):
        x = reservoir_step(model, x, u, elapsed_s)
        rows[row] = forecasts_of(model, x, u, m)
    return rows


def elapsed_times_s(ticks: NDArray[np.void]) -> Float64s:
    """Return the time since the tick before, shape (ticks,): 0 for the first, and where the clock stepped back."""
    return (
        np.maximum(np.diff(ticks["ts_recv"].astype(np.int64), prepend=ticks["ts_recv"][:1].astype(np.int64)), 0) / 1e9
    )
