"""A model: everything that turns the ticks of an instrument into forecasts, as one immutable value.

    u = clip((raw features - mean) / scale)
    x <- (1 - leak) x + leak tanh(W x + W_in u + b)
    p = [x_0 x_n, x_1 x_(n+1) ... x_(n-1) x_(2n-1)]      n products of units: what a linear readout can't see in x
    m = [a <- a + gain (u - a) for each gain, then the u of one, two ... memory_lags ticks ago]
    outputs = readout [x, p, m, u, 1]           three per horizon: return, direction, moved

A Model is valid by construction: whatever is wrong with it raises ModelError when it is made, with a sentence that
names field, value and mend.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels.features import FEATURE_NAMES

TOPOLOGIES: Final = {"cyclic": 0, "sparse": 1, "dense": 2}
TIME_BASES: Final = {"events": 0, "seconds": 1}
UNITS_MAX: Final = 65_536
FAN_IN_MAX: Final = 64
INPUTS_MAX: Final = 64
MEMORY_GAINS_MAX: Final = 8
MEMORY_LAGS_MAX: Final = 16
REBUILD_TICKS_MAX: Final = 1_000_000
EVENTS_MAX: Final = 2**32 - 1
DURATION_NS_MAX: Final = 2**63 - 1
WEIGHT_MAX: Final = 1e9  # No sum over units and inputs can overflow float32 then.
TEXT_MAX: Final = 64
NOTICE_MAX: Final = 1_000
PRODUCTS_STEP: Final = 16
OUTPUTS_PER_HORIZON: Final = 3  # In this order: return, direction, moved.


class ModelError(ValueError):
    """A model or model file that cannot be used; the message names field, value and mend."""


class HorizonKind(IntEnum):
    """How a horizon's end is found; the numbers are those of penstock.v1 Horizon.Kind."""

    NEXT_MOVE = 1  # At the first change of the mid.
    EVENTS = 2  # After a number of the instrument's ticks.
    TIME = 3  # After a time, by ts_recv.


@dataclass(frozen=True)
class Horizon:
    """One thing that a model predicts."""

    name: str  # Short and stable, such as "next", "50ev", "100ms".
    kind: HorizonKind
    events: int = 0  # Ticks, for EVENTS.
    duration_ns: int = 0  # For TIME; for NEXT_MOVE the latency allowed before a move counts.


@dataclass(frozen=True)
class Calibration:
    """How a horizon's three outputs become a forecast.

    expected_return = return_scale * return_output
    deviation       = deviation
    moved           = logistic(moved_slope * moved_output + moved_offset), 1 for NEXT_MOVE
    up              = moved * logistic(direction_slope * direction_output + direction_offset)
    down            = moved - up
    """

    return_scale: float = 1.0  # Unit of the return output, as a fraction of the mid.
    deviation: float = (
        0.0  # Standard deviation of the realised about the expected return, a fraction; 0: not estimated.
    )
    direction_slope: float = 1.0
    direction_offset: float = 0.0
    moved_slope: float = 0.0
    moved_offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Model:
    """All of a model. Arrays are copied, made read-only, and checked.

    Raises:
        ModelError: a field is impossible, or does not fit the others.
    """

    name: str  # 1 to 64 characters; what Hello asks for.
    version: str  # The author's, free text, 0 to 64 characters.
    topology: str  # A key of TOPOLOGIES.
    seed: int  # That the reservoir was drawn from.
    recurrent: NDArray[np.float32]  # Of W; shape (fan_in, units), dense: (units, units), row i the weights of unit i.
    connections: NDArray[np.int64]  # Whom a unit hears, by topology:
    #   cyclic  shape (fan_in,): unit i hears unit (i + connections_j) modulo units by weight recurrent_ji;
    #   sparse  shape (fan_in, units): unit i hears unit connections_ji by weight recurrent_ji;
    #   dense   shape (0,): everyone hears everyone.
    input_weights: NDArray[np.float32]  # W_in, shape (inputs, units).
    bias: NDArray[np.float32]  # b, shape (units,).
    leak: NDArray[np.float32]  # Shape (units,). Per event, in (0, 1]; by seconds a rate 1 / T, above 0, in 1/s.
    features: tuple[str, ...]  # The inputs, each once, of FEATURE_NAMES.
    feature_mean: NDArray[np.float64]  # Shape (inputs,).
    feature_scale: NDArray[np.float64]  # Above 0, shape (inputs,).
    clip: float  # Bound of a standardised input, in standard deviations.
    horizons: tuple[Horizon, ...]  # 1 to 4.
    readout: NDArray[np.float32]  # Shape (3 * horizons, columns); columns x, p, m, u, 1.
    calibration: tuple[Calibration, ...]  # One per horizon.
    rebuild_ticks: int  # How many past ticks of an instrument restore its state.
    demonstration: bool  # Trained on a simulated market: never trade on it.
    time_base: str = (
        "events"  # A key of TIME_BASES. By seconds a tick's leak is 1 - exp(-seconds since the last * leak).
    )
    memory_gains: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))  # In (0, 1], 0 to 8.
    memory_lags: int = 0  # How many past inputs are columns, 0 to 16.
    products: int = 0  # How many products of units are columns: whole sixteens, at most half the units.
    notice: str = ""  # A sentence for people; not empty for a demonstration.
    training: dict[str, Any] = field(default_factory=dict)  # The training report; JSON.

    def __post_init__(self) -> None:
        for name, dtype in _ARRAYS.items():
            object.__setattr__(self, name, _frozen_copy(name, getattr(self, name), dtype))
        _check_texts(self)
        _check_reservoir(self)
        _check_features(self)
        _check_memory(self)
        _check_horizons(self)
        _check_readout(self)

    @property
    def units(self) -> int:
        """Number of reservoir units."""
        return len(self.bias)

    @property
    def fan_in(self) -> int:
        """How many units each unit hears."""
        return self.units if self.topology == "dense" else len(self.connections)

    @property
    def inputs(self) -> int:
        """Number of features."""
        return len(self.features)

    @property
    def memory_columns(self) -> int:
        """Number of readout columns that are linear memory of the inputs: averages gain by gain, then lag 1, 2 ..."""
        return self.inputs * (len(self.memory_gains) + self.memory_lags)

    @property
    def columns(self) -> int:
        """Number of readout columns: x, products, linear memory, inputs, 1."""
        return self.units + self.products + self.memory_columns + self.inputs + 1

    @property
    def outputs(self) -> int:
        """Number of readout rows."""
        return OUTPUTS_PER_HORIZON * len(self.horizons)


_ARRAYS: Final[dict[str, Any]] = {
    "recurrent": np.float32,
    "connections": np.int64,
    "input_weights": np.float32,
    "bias": np.float32,
    "leak": np.float32,
    "memory_gains": np.float32,
    "feature_mean": np.float64,
    "feature_scale": np.float64,
    "readout": np.float32,
}


def _frozen_copy(name: str, value: Any, dtype: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise ModelError(f"{name} must be {np.dtype(dtype)}: {name}.dtype={array.dtype}; save it with that type")
    copy = np.array(array, dtype=dtype, order="C")
    usable = np.abs(copy) <= WEIGHT_MAX  # Not so for NaN.
    if not np.all(usable):
        position = tuple(int(index) for index in np.argwhere(~usable)[0])
        raise ModelError(
            f"{name} must be finite and at most {WEIGHT_MAX:g} in size: {name}{list(position)}={copy[position]:g}; "
            "train the model again"
        )
    copy.setflags(write=False)
    return copy


def _check_texts(model: Model) -> None:
    _check_text("name", model.name, 1, TEXT_MAX)
    _check_text("version", model.version, 0, TEXT_MAX)
    _check_text("notice", model.notice, 0, NOTICE_MAX)
    _check_type("demonstration", model.demonstration, bool, "true or false")
    if model.demonstration and not model.notice:
        raise ModelError("notice must say why the model is a demonstration: notice=''; add a sentence")
    _check_type("training", model.training, dict, "a JSON object")
    try:
        json.dumps(model.training, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ModelError(f"training must be JSON without NaN: {exc}; give plain numbers, texts, lists, dicts") from exc


def _check_type(name: str, value: Any, kind: type, meaning: str) -> None:
    if not isinstance(value, kind):
        raise ModelError(f"{name} must be {meaning}: {name}={value!r:.80}; train the model again")


def _check_text(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, str) or not low <= len(value) <= high or not value.isprintable():
        raise ModelError(f"{name} must be {low} to {high} printable characters: {name}={value!r:.80}; choose another")


def _check_integer(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"{name} must be an integer of {low} to {high}: {name}={value!r:.80}; choose one")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= WEIGHT_MAX:
        raise ModelError(
            f"{name} must be a number of at most {WEIGHT_MAX:g} in size: {name}={value!r:.80}; train the model again"
        )


def _check_shape(name: str, array: NDArray[Any], shape: tuple[int, ...], meaning: str) -> None:
    if array.shape != shape:
        raise ModelError(f"{name} must have shape {meaning} = {shape}: {name}.shape={array.shape}; make them agree")


def _check_reservoir(model: Model) -> None:
    _check_type("topology", model.topology, str, "a text")
    if model.topology not in TOPOLOGIES:
        known = ", ".join(TOPOLOGIES)
        raise ModelError(f"topology must be one of: {known}: topology={model.topology!r:.80}; train with one of these")
    _check_integer("seed", model.seed, 0, 2**64 - 1)
    _check_integer("rebuild_ticks", model.rebuild_ticks, 1, REBUILD_TICKS_MAX)
    if model.bias.ndim != 1 or not 1 <= model.units <= UNITS_MAX:
        raise ModelError(f"bias must have shape (units,), units in 1 to {UNITS_MAX}: bias.shape={model.bias.shape}")
    _check_connections(model)
    _check_shape("leak", model.leak, (model.units,), "(units,)")
    _check_type("time_base", model.time_base, str, "a text")
    if model.time_base not in TIME_BASES:
        known = ", ".join(TIME_BASES)
        raise ModelError(
            f"time_base must be one of: {known}: time_base={model.time_base!r:.80}; train with one of these"
        )
    if model.time_base == "seconds" and model.leak.min() <= 0.0:
        raise ModelError(f"leak must be above 0: leak={model.leak.min()}; by seconds it is 1 / time constant, in 1/s")
    if model.time_base == "events" and (model.leak.min() <= 0.0 or model.leak.max() > 1.0):
        worst = model.leak.min() if model.leak.min() <= 0.0 else model.leak.max()
        raise ModelError(f"leak must be above 0 and at most 1: leak={worst}; 1 forgets the state at each tick")


def _check_connections(model: Model) -> None:
    units, found = model.units, model.connections.shape
    if model.topology == "dense":
        _check_shape("connections", model.connections, (0,), "(0,) in a dense reservoir")
        _check_shape("recurrent", model.recurrent, (units, units), "(units, units)")
        return
    wanted = "(fan_in,)" if model.topology == "cyclic" else "(fan_in, units)"
    if len(found) != (1 if model.topology == "cyclic" else 2) or not 1 <= found[0] <= FAN_IN_MAX:
        raise ModelError(
            f"connections must have shape {wanted}, fan_in in 1 to {FAN_IN_MAX}: shape={found}; train again"
        )
    if model.topology == "sparse":
        _check_shape("connections", model.connections, (found[0], units), wanted)
    if model.connections.min() < 0 or model.connections.max() >= units:
        outside = model.connections[(model.connections < 0) | (model.connections >= units)].flat[0]
        raise ModelError(
            f"connections must be in 0 to units - 1 = {units - 1}: connection={outside}; train the model again"
        )
    _check_shape("recurrent", model.recurrent, (found[0], units), "(fan_in, units)")


def _check_memory(model: Model) -> None:
    gains = model.memory_gains
    if gains.ndim != 1 or len(gains) > MEMORY_GAINS_MAX:
        raise ModelError(f"memory_gains must be 0 to {MEMORY_GAINS_MAX} in a row: memory_gains.shape={gains.shape}")
    if len(gains) and (gains.min() <= 0.0 or gains.max() > 1.0):
        worst = gains.min() if gains.min() <= 0.0 else gains.max()
        raise ModelError(f"memory_gains must be above 0 and at most 1: memory_gain={worst}; 1 / events is usual")
    _check_integer("memory_lags", model.memory_lags, 0, MEMORY_LAGS_MAX)
    _check_integer("products", model.products, 0, model.units // 2)
    if model.products % PRODUCTS_STEP:
        raise ModelError(
            f"products must be whole times {PRODUCTS_STEP}: products={model.products}; half the units is usual"
        )


def _check_features(model: Model) -> None:
    _check_type("features", model.features, tuple, "a tuple of names")
    if not 1 <= model.inputs <= INPUTS_MAX:
        raise ModelError(f"features must be 1 to {INPUTS_MAX}: features={model.features!r:.80}; choose some")
    for name in model.features:
        if name not in FEATURE_NAMES:
            known = ", ".join(FEATURE_NAMES)
            raise ModelError(f"features must be of this version's list ({known}): feature={name!r:.80}; train again")
    if len(set(model.features)) != model.inputs:
        raise ModelError(f"features must be named once each: features={model.features!r:.200}; drop the repeats")
    _check_shape("input_weights", model.input_weights, (model.inputs, model.units), "(inputs, units)")
    _check_shape("feature_mean", model.feature_mean, (model.inputs,), "(inputs,)")
    _check_shape("feature_scale", model.feature_scale, (model.inputs,), "(inputs,)")
    if model.feature_scale.min() < np.finfo(np.float32).tiny:
        constant = model.features[int(model.feature_scale.argmin())]
        raise ModelError(
            f"feature_scale must be above 0: feature_scale={model.feature_scale.min()} for {constant}; "
            "leave out features that are constant in training"
        )
    _check_number("clip", model.clip)
    if not model.clip > 0.0:
        raise ModelError(f"clip must be above 0: clip={model.clip}; 6 is usual")


def _check_horizons(model: Model) -> None:
    _check_type("horizons", model.horizons, tuple, "a tuple of Horizon values")
    if not 1 <= len(model.horizons) <= HORIZONS_MAX:
        raise ModelError(f"horizons must be 1 to {HORIZONS_MAX}: horizons={model.horizons!r:.80}; choose some")
    for horizon in model.horizons:
        _check_type("horizon", horizon, Horizon, "a Horizon")
        _check_text("horizon name", horizon.name, 1, TEXT_MAX)
        _check_type(f"kind of horizon {horizon.name!r}", horizon.kind, HorizonKind, "a HorizonKind")
        events = f"events of horizon {horizon.name!r}"
        duration_ns = f"duration_ns of horizon {horizon.name!r}"
        if horizon.kind == HorizonKind.EVENTS:
            _check_integer(events, horizon.events, 1, EVENTS_MAX)
            _check_integer(duration_ns, horizon.duration_ns, 0, 0)
        else:
            _check_integer(events, horizon.events, 0, 0)
            _check_integer(duration_ns, horizon.duration_ns, int(horizon.kind == HorizonKind.TIME), DURATION_NS_MAX)
    if len({horizon.name for horizon in model.horizons}) != len(model.horizons):
        raise ModelError(f"horizons must have different names: horizons={[h.name for h in model.horizons]!r:.200}")


def _check_readout(model: Model) -> None:
    _check_shape("readout", model.readout, (model.outputs, model.columns), "(3 * horizons, columns)")
    _check_type("calibration", model.calibration, tuple, "a tuple of Calibration values")
    if len(model.calibration) != len(model.horizons):
        raise ModelError(
            f"calibration must be one per horizon: calibrations={len(model.calibration)}, "
            f"horizons={len(model.horizons)}; make them agree"
        )
    for horizon, calibration in zip(model.horizons, model.calibration, strict=True):
        _check_type(f"calibration of horizon {horizon.name!r}", calibration, Calibration, "a Calibration")
        for name in Calibration.__dataclass_fields__:
            _check_number(f"{name} of horizon {horizon.name!r}", getattr(calibration, name))
        if calibration.deviation < 0.0:
            raise ModelError(f"deviation of horizon {horizon.name!r} must not be negative: {calibration.deviation}")
