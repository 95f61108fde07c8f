"""Who solves the reference tasks: our networks, and ReservoirPy as it ships, behind the same few calls.

Both see the same inputs, give a state per step, are read by a ridge regression with the same penalty and columns, and
are judged by the same measure. Ours has float32 states and solves in float64; ReservoirPy is float64 throughout.

    run(inputs[:n]) then run(inputs[n:])      ==      run(inputs)          for every subject
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike

from penstock_kernels.compiled import Float64s
from penstock_kernels.network import Network
from penstock_kernels.philox import Stream
from penstock_tuning.bench.errors import BenchError

OURS: Final = ("cyclic", "sparse", "dense")
PEER: Final = "reservoirpy"

_STREAM_SIGNS: Final = 104

Readout = Callable[[Float64s], Float64s]  # Design rows, shape (rows, columns), to outputs, shape (rows, targets).


@dataclass(frozen=True)
class ReservoirSettings:
    """What is drawn, in the words that both sides understand.

    Attributes:
        units: number of units.
        spectral_radius: of W.
        leak: of every unit.
        input_scale: W_in is uniform in -input_scale .. input_scale.
        bias_scale: b is uniform in -bias_scale .. bias_scale.
        fan_in: of our cyclic and sparse networks.
        peer: further arguments of ReservoirPy's Reservoir; what is not named is its default.
    """

    units: int
    spectral_radius: float
    leak: float
    input_scale: float
    bias_scale: float
    fan_in: int = 10
    peer: dict[str, Any] = field(default_factory=dict)


class Subject(Protocol):
    """A reservoir of one input that goes on where it stopped."""

    def run(self, inputs: Float64s) -> Float64s:
        """Return the state after each of *inputs*, shape (steps,), as shape (steps, units)."""
        ...

    def go_to(self, state: Float64s) -> None:
        """Take *state*, shape (units,), for the present one."""
        ...

    def fit(self, design: Float64s, targets: Float64s, penalty: float) -> Readout:
        """Return a ridge readout with a constant of its own that no penalty falls on.

        Args:
            design: shape (rows, columns).
            targets: shape (rows, targets).
            penalty: of the squared weights, against the sum of squared errors.
        """
        ...


class OurNetwork:
    """A Network, and ridge by QR."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, inputs: Float64s) -> Float64s:
        """See Subject; float32 numbers in float64."""
        return self._network.run(inputs).astype(np.float64)

    def go_to(self, state: Float64s) -> None:
        """See Subject."""
        self._network.state = state

    @staticmethod
    def fit(design: Float64s, targets: Float64s, penalty: float) -> Readout:
        """See Subject."""
        weights = ridge_by_qr(design, targets, penalty)
        return lambda rows: np.asarray(rows @ weights[:-1] + weights[-1])


class Peer:
    """ReservoirPy's Reservoir and Ridge, of the version that is installed."""

    def __init__(self, **arguments: Any) -> None:
        from reservoirpy.nodes import Reservoir

        self._reservoir = Reservoir(**arguments)
        self._started = False

    def run(self, inputs: Float64s) -> Float64s:
        """See Subject."""
        if len(inputs) == 1 and self._started:
            return np.asarray(self._reservoir.step(inputs))[None]
        self._started = True
        return np.asarray(self._reservoir.run(inputs[:, None]))

    def go_to(self, state: Float64s) -> None:
        """See Subject."""
        self._reservoir.state = {"out": state}

    @staticmethod
    def fit(design: Float64s, targets: Float64s, penalty: float) -> Readout:
        """See Subject; what can't be solved foretells NaN, the worst score of every task."""
        from reservoirpy.nodes import Ridge

        ridge = Ridge(ridge=penalty)
        try:
            ridge.fit(design, targets)
        except np.linalg.LinAlgError:  # Its normal equations are singular where ours, by QR, are not.
            return lambda rows: np.full((len(rows), targets.shape[1]), np.nan)
        return lambda rows: np.asarray(ridge.run(rows))


def peer_name() -> str:
    """Return the name and version of the library beside us, or "" where it is not installed."""
    found = importlib.util.find_spec("reservoirpy") is not None
    return f"ReservoirPy {metadata.version('reservoirpy')}" if found else ""


def drawn(name: str, settings: ReservoirSettings, seed: int) -> Subject:
    """Return the subject called *name*, drawn from *seed*."""
    if name in OURS:
        network = Network.draw(
            name,
            seed,
            units=settings.units,
            fan_in=min(settings.fan_in, settings.units - 1),
            spectral_radius=settings.spectral_radius,
            leak=settings.leak,
            input_scale=settings.input_scale,
            bias_scale=settings.bias_scale,
        )
        return OurNetwork(network)
    _check_name(name)
    random = np.random.default_rng(seed)
    return Peer(
        units=settings.units,
        sr=settings.spectral_radius,
        lr=settings.leak,
        Win=random.uniform(-settings.input_scale, settings.input_scale, (settings.units, 1)),
        bias=random.uniform(-settings.bias_scale, settings.bias_scale, settings.units),
        seed=seed,
        **settings.peer,
    )


def simple_cycle(name: str, units: int, weight: float, seed: int) -> Subject:
    """Return a linear ring, x_i <- weight x_(i-1) + v_i u, with v of one size and random signs.

    Ours have no linear units: their input is so small that tanh is linear to less than 1e-8.
    """
    signs = np.where(Stream(seed, _STREAM_SIGNS).uniform(units) < 0.5, -1.0, 1.0)
    before = (np.arange(units) - 1) % units
    ring = np.zeros((units, units))
    ring[np.arange(units), before] = weight
    if name in OURS:
        recurrent = ring if name == "dense" else np.full((1, units), weight)
        heard: dict[str, ArrayLike] = {"cyclic": [units - 1], "sparse": [before], "dense": []}
        return OurNetwork(Network(name, recurrent, heard[name], 1e-4 * signs[None], np.zeros(units)))
    _check_name(name)
    from scipy.sparse import csr_array

    return Peer(units=units, W=csr_array(ring), Win=signs[:, None], bias=0.0, activation="identity", lr=1.0)


def ridge_by_qr(design: Float64s, targets: Float64s, penalty: float) -> Float64s:
    """Return the weights that minimise |design w + c - targets|^2 + penalty |w|^2, the constant c in the last row.

    The triangle of [design 1; sqrt(penalty) I] keeps what its Gram matrix would square away: small penalties, such as
    the 1e-12 of Mackey-Glass, still count. Shape (columns + 1, targets). Source: Golub, Numer. Math. 7 (1965).
    """
    rows, columns = design.shape
    system = np.zeros((rows + columns, columns + 1))
    system[:rows, :columns] = design
    system[:rows, columns] = 1.0
    system[rows:, :columns] = np.sqrt(penalty) * np.eye(columns)
    orthogonal, triangle = np.linalg.qr(system if penalty > 0.0 else system[:rows])
    return np.linalg.solve(triangle, orthogonal[:rows].T @ targets)


def _check_name(name: str) -> None:
    if name != PEER:
        raise BenchError(f"there is no such subject: name={name!r}; choose one of {', '.join((*OURS, PEER))}")
