"""Drawing a reservoir from a seed: the same weights on every platform, for every topology.

Everything is made of raw Philox words, own elementary functions and sums in a stated order; the spectral radius is
rounded to six digits before it scales the weights (see spectral.py).

    spectral radius of the result  =  the one asked for, to six digits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_kernels.compiled import Float32s, Float64s, Int64s
from penstock_kernels.elementary import exp, log
from penstock_kernels.model import FAN_IN_MAX, INPUTS_MAX, TIME_BASES, TOPOLOGIES, UNITS_MAX, ModelError
from penstock_kernels.philox import Stream
from penstock_kernels.spectral import spectral_radius_of

# Streams of a seed; a new one gets a new number.
_STREAM_CONNECTIONS: Final = 1
_STREAM_RECURRENT: Final = 2
_STREAM_INPUT: Final = 3
_STREAM_BIAS: Final = 4
_STREAM_LEAK: Final = 5


@dataclass(frozen=True, eq=False)
class Reservoir:
    """The part of a model that is drawn, not trained; shapes as in Model."""

    recurrent: Float32s
    connections: Int64s
    input_weights: Float32s
    bias: Float32s
    leak: Float32s


def draw(
    topology: str,
    seed: int,
    *,
    units: int,
    inputs: int,
    fan_in: int = 8,
    spectral_radius: float = 0.6,
    input_scale: float | None = None,
    bias_scale: float = 1.0,
    time_constant_events_min: float = 0.2,
    time_constant_events_max: float = 30.0,
    time_base: str = "events",
    time_constant_s_min: float = 1e-4,
    time_constant_s_max: float = 10.0,
) -> Reservoir:
    """Draw a reservoir.

    Recurrent weights are uniform in -1 .. 1 and then scaled to the spectral radius; whom a unit hears is drawn without
    repeats, and never itself but in a dense reservoir; input weights and biases are uniform in -scale .. scale. A time
    constant T is log-uniform; the leak is 1 - exp(-1 / T) by events, and 1 / T by seconds.

    Args:
        topology: a key of TOPOLOGIES.
        seed: 0 to 2^64 - 1.
        units: number of units.
        inputs: number of features.
        fan_in: how many units each unit hears; below *units*. A dense reservoir ignores it.
        spectral_radius: of W; 0 switches recurrence off.
        input_scale: None for 1 / sqrt(inputs / 4).
        bias_scale: of b.
        time_constant_events_min: smallest T, in events, if that is the time base.
        time_constant_events_max: largest T, in events, if that is the time base.
        time_base: a key of TIME_BASES.
        time_constant_s_min: smallest T, in seconds, if that is the time base.
        time_constant_s_max: largest T, in seconds, if that is the time base.

    Raises:
        ModelError: an argument is impossible.
    """
    _check_choice("topology", topology, TOPOLOGIES)
    _check_choice("time_base", time_base, TIME_BASES)
    _check_whole("seed", seed, 0, 2**64 - 1)
    _check_whole("units", units, 2, UNITS_MAX)
    _check_whole("inputs", inputs, 1, INPUTS_MAX)
    if topology != "dense":
        _check_whole("fan_in", fan_in, 1, min(FAN_IN_MAX, units - 1))
    scale = input_scale if input_scale is not None else (inputs / 4) ** -0.5
    for name, value in (("spectral_radius", spectral_radius), ("input_scale", scale), ("bias_scale", bias_scale)):
        if not 0.0 <= value < np.inf:
            raise ModelError(f"{name} must be 0 or more: {name}={value}; see the defaults")
    by_seconds = time_base == "seconds"
    shortest = time_constant_s_min if by_seconds else time_constant_events_min
    longest = time_constant_s_max if by_seconds else time_constant_events_max
    if not 0.0 < shortest <= longest < np.inf:
        raise ModelError(
            f"time constants must be above 0 and in order: min={shortest}, max={longest}; see the defaults"
        )
    connections = _connections(topology, seed, units, fan_in)
    weights = _recurrent(topology, seed, units, fan_in, spectral_radius, connections)
    input_weights = Stream(seed, _STREAM_INPUT).uniform(inputs * units, -scale, scale).reshape(inputs, units)
    bias = Stream(seed, _STREAM_BIAS).uniform(units, -bias_scale, bias_scale)
    draws = Stream(seed, _STREAM_LEAK).uniform(units, log(shortest), log(longest))
    rates = [1.0 / exp(one) for one in draws]
    return Reservoir(
        recurrent=weights.astype(np.float32),
        connections=connections,
        input_weights=input_weights.astype(np.float32),
        bias=bias.astype(np.float32),
        leak=np.array(rates if by_seconds else [1.0 - exp(-rate) for rate in rates]).astype(np.float32),
    )


def _check_choice(name: str, value: str, known: dict[str, int]) -> None:
    if value not in known:
        raise ModelError(f"{name} must be one of {', '.join(known)}: {name}={value!r:.80}; choose one")


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ModelError(f"{name} must be in {low} to {high}: {name}={value}; choose one in between")


def _connections(topology: str, seed: int, units: int, fan_in: int) -> Int64s:
    stream = Stream(seed, _STREAM_CONNECTIONS)
    if topology == "dense":
        return np.zeros(0, dtype=np.int64)
    if topology == "cyclic":
        return stream.distinct(fan_in, 1, units)
    return _distinct_for_each(stream, units, fan_in)


def _distinct_for_each(stream: Stream, units: int, fan_in: int) -> Int64s:
    """Return for each unit *fan_in* other units without repeats, shape (fan_in, units).

    Floyd's way, all units at a time: of the n = units - 1 others, the j-th draw is of the first n - fan_in + j + 1, and
    stands for the last of these where it was drawn before.
    """
    others = units - 1
    chosen = np.empty((fan_in, units), dtype=np.int64)
    for position in range(fan_in):
        last = others - fan_in + position
        # Modulo favours small numbers by less than 1 part in 2^40 here.
        drawn = (stream.words(units) % np.uint64(last + 1)).astype(np.int64)
        seen = (chosen[:position] == drawn).any(axis=0)
        chosen[position] = np.where(seen, last, drawn)
    return (np.arange(units) + 1 + chosen) % units


def _recurrent(
    topology: str, seed: int, units: int, fan_in: int, spectral_radius: float, connections: Int64s
) -> Float64s:
    rows = units if topology == "dense" else fan_in
    weights = Stream(seed, _STREAM_RECURRENT).uniform(rows * units, -1.0, 1.0).reshape(rows, units)
    if spectral_radius == 0.0:
        return np.zeros_like(weights)
    found = spectral_radius_of(topology, weights, connections)
    if found == 0.0:
        raise ModelError(
            f"W has no eigenvalue but 0, so spectral_radius={spectral_radius} can't be reached: units={units}, "
            f"fan_in={fan_in}, seed={seed}; draw another seed, or more connections"
        )
    return weights * (spectral_radius / found)
