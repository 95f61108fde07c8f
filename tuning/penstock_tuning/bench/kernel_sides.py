"""One tick, features in and three horizons out, as each side of the kernel benchmark computes it.

    ours          a raw tick -> features -> reservoir -> readout -> calibration      one compiled call for many ticks
    reservoirpy   sixteen features -> Model.step of Reservoir >> Ridge               one call of Python per tick
    numpy, scipy  sixteen features -> x <- tanh(W x + W_in u + b) -> readout         one call of Python per tick

Ours does more (features and calibration) and hands in no call per tick; the others could not, that is how they ship.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels.batch import predict_batch
from penstock_kernels.compiled import Float32s, Int64s, compiled
from penstock_kernels.drive import new_place, run_predictions
from penstock_kernels.features import FEATURE_NAMES, FEATURES
from penstock_kernels.lanes import LANES, load, splat, total
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Calibration, Horizon, HorizonKind, Model
from penstock_kernels.packed import PackedModel, aligned_float32, pack
from penstock_kernels.predictor import FORECAST_WORDS, input_words, scratch_words, state_words

Side = Callable[[int], None]  # Compute so many ticks.

HORIZONS: Final = (
    Horizon("next", HorizonKind.NEXT_MOVE),
    Horizon("50ev", HorizonKind.EVENTS, events=50),
    Horizon("100ms", HorizonKind.TIME, duration_ns=100_000_000),
)
OUTPUTS: Final = OUTPUTS_PER_HORIZON * len(HORIZONS)
MEMORY_GAINS: Final[tuple[float, ...]] = (0.4, 0.2, 0.1, 0.03)
MEMORY_LAGS: Final = 5
_FITTED_STEPS: Final = 200  # Of random inputs, to fit ReservoirPy's readout so that it runs.
_SEED: Final = 1


def drawn_model(topology: str, units: int, fan_in: int, *, products: int = 0, memory: bool = False) -> Model:
    """Return a valid model with random weights, of which nothing is asked but to take its time.

    Its readout sees *products* of units, and with *memory* four averages and five lags of the inputs. Weights are scaled by the circular law, not by eigenvalues: a dense matrix of 4,096 units would take minutes.
    """
    random = np.random.default_rng(_SEED)
    rows = units if topology == "dense" else fan_in
    connections: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    if topology == "cyclic":
        connections = random.choice(np.arange(1, units), fan_in, replace=False)
    elif topology == "sparse":
        connections = random.integers(0, units, (fan_in, units))
    bound = 0.9 * np.sqrt(3.0 / rows)
    gains, lags = (MEMORY_GAINS, MEMORY_LAGS) if memory else ((), 0)
    columns = units + products + FEATURES * (len(gains) + lags + 1) + 1
    return Model(
        name=f"{topology}-{units}",
        version="1",
        topology=topology,
        seed=_SEED,
        recurrent=random.uniform(-bound, bound, (rows, units)).astype(np.float32),
        connections=connections,
        input_weights=random.uniform(-0.5, 0.5, (FEATURES, units)).astype(np.float32),
        bias=random.uniform(-1.0, 1.0, units).astype(np.float32),
        leak=random.uniform(0.1, 1.0, units).astype(np.float32),
        features=FEATURE_NAMES,
        feature_mean=np.zeros(FEATURES),
        feature_scale=np.ones(FEATURES),
        clip=6.0,
        horizons=HORIZONS,
        readout=(random.normal(size=(OUTPUTS, columns)) / np.sqrt(columns)).astype(np.float32),
        calibration=tuple(Calibration() for _ in HORIZONS),
        rebuild_ticks=256,
        demonstration=True,
        notice="Drawn at random for a benchmark.",
        memory_gains=np.array(gains, dtype=np.float32),
        memory_lags=lags,
        products=products,
    )


def our_side(packed: PackedModel, ticks: NDArray[np.void]) -> Side:
    """Return ours, by the drive's loop over the very steps that the engine calls; *ticks* are taken round and round."""
    place = new_place(packed)

    def go(count: int) -> None:
        left = count
        while left > 0:
            run_predictions(packed, ticks[:left], place)
            left -= len(ticks)

    return go


def batch_side(packed: PackedModel, inputs: NDArray[np.float32], states: int) -> Side:
    """Return ours for *states* states at a time, each with features of its own; features are not computed.

    A tick of this side is a tick of one state: a count is rounded up to whole batches.
    """
    header = packed.header
    held = aligned_float32(states * state_words(header)).reshape(states, -1)
    places = np.arange(states, dtype=np.int64)
    rows = np.zeros((states, input_words(header)), dtype=np.float32)
    rows[:, : inputs.shape[1]] = inputs[:states]
    scratch = aligned_float32(states * scratch_words(header)).reshape(states, -1)
    forecasts = np.zeros((states, HORIZONS_MAX, FORECAST_WORDS), dtype=np.float32)

    def go(count: int) -> None:
        _batches(header, packed.weights, held, places, rows, scratch, forecasts, -(-count // states))

    return go


@compiled
def _batches(
    header: Int64s,
    weights: Float32s,
    states: Float32s,
    places: Int64s,
    inputs: Float32s,
    scratch: Float32s,
    forecasts: Float32s,
    count: int,
) -> None:
    for _ in range(count):
        predict_batch(header, weights, states, places, inputs, scratch, forecasts)


def peer_side(units: int, inputs: NDArray[np.float64], degree: int | None) -> Side:
    """Return ReservoirPy's ``Model.step``, in float64 as it ships.

    Args:
        units: of the reservoir.
        inputs: features, shape (steps, FEATURES).
        degree: connections of a unit; None for the default connectivity, one pair in ten.
    """
    from reservoirpy.mat_gen import normal
    from reservoirpy.nodes import Reservoir, Ridge

    chosen: dict[str, Any] = {} if degree is None else {"W": normal(degree=degree)}
    model = Reservoir(units, sr=0.9, lr=0.5, seed=_SEED, **chosen) >> Ridge(ridge=1e-3)
    targets = np.random.default_rng(_SEED).normal(size=(_FITTED_STEPS, OUTPUTS))
    model.fit(inputs[:_FITTED_STEPS], targets)
    step = model.step

    def go(count: int) -> None:
        for position in range(count):
            step(inputs[position % len(inputs)])

    return go


def array_side(model: Model, inputs: NDArray[np.float32], *, by_csr: bool) -> Side:
    """Return a plain step in float32: dense NumPy, or SciPy with W in compressed rows.

    Args:
        model: sparse or dense; its W is used as it is.
        inputs: features, shape (steps, FEATURES).
        by_csr: SciPy.
    """
    matrix: Any = model.recurrent
    if by_csr:
        from scipy.sparse import csr_array

        rows = np.broadcast_to(np.arange(model.units), model.recurrent.shape)
        where = (rows.reshape(-1), model.connections.reshape(-1))
        matrix = csr_array((model.recurrent.reshape(-1), where), shape=(model.units, model.units))
    input_weights = np.ascontiguousarray(model.input_weights.T)
    readout, bias, leak = model.readout, model.bias, model.leak
    row = np.zeros(model.columns, dtype=np.float32)
    row[-1] = 1.0
    state = row[: model.units]

    def go(count: int) -> None:
        for position in range(count):
            now = inputs[position % len(inputs)]
            activation = matrix @ state
            activation += input_weights @ now
            activation += bias
            np.tanh(activation, out=activation)
            activation -= state
            activation *= leak
            np.add(state, activation, out=state)
            row[model.units : -1] = now
            readout @ row

    return go


def reading_side(size_bytes: int) -> Side:
    """Return what no step can be faster than: reading *size_bytes* once per tick, and nothing else."""
    words = -(-size_bytes // (4 * LANES * 8)) * LANES * 8
    buffer = aligned_float32(words)
    buffer[:] = 1.0
    kept = np.zeros(1, dtype=np.float32)

    def go(count: int) -> None:
        _read(buffer, count, kept)

    return go


@compiled
def _read(buffer: Float32s, count: int, kept: Float32s) -> None:
    for _ in range(count):
        a = b = c = d = e = f = g = h = splat(np.float32(0.0))
        for word in range(0, len(buffer), 8 * LANES):
            a = a + load(buffer, word)
            b = b + load(buffer, word + LANES)
            c = c + load(buffer, word + 2 * LANES)
            d = d + load(buffer, word + 3 * LANES)
            e = e + load(buffer, word + 4 * LANES)
            f = f + load(buffer, word + 5 * LANES)
            g = g + load(buffer, word + 6 * LANES)
            h = h + load(buffer, word + 7 * LANES)
        kept[0] = kept[0] * np.float32(0.5) + total(((a + b) + (c + d)) + ((e + f) + (g + h)))


def weight_bytes(packed: PackedModel) -> int:
    """Return the bytes of weights that a tick reads: all of them, once."""
    return int(packed.weights.nbytes)


def packed_model(topology: str, units: int, fan_in: int) -> PackedModel:
    """Return a drawn model, packed."""
    return pack(drawn_model(topology, units, fan_in))
