"""A reservoir by itself, for series of any kind: draw it or give its weights, run inputs through it, get its states.

It advances by the very step that serves ticks, so what holds for the engine holds here: float32 states, the same bits
on any x86-64, a run that goes on where the last one stopped.

    x <- x + leak (tanh(b + W_in u + W x) - x)
    run(inputs[:n]) then run(inputs[n:])      ==      run(inputs)

A linear readout of the states, fitted in float64, makes it an echo state network; docs/reference-tasks.md has examples.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from penstock_kernels.compiled import Float32s, Int64s, compiled
from penstock_kernels.drawing import draw
from penstock_kernels.lanes import LANES
from penstock_kernels.model import FAN_IN_MAX, INPUTS_MAX, TIME_BASES, TOPOLOGIES, UNITS_MAX, WEIGHT_MAX, ModelError
from penstock_kernels.packed import (
    HEADER_WORDS,
    TIME_BASE,
    UNITS,
    aligned_float32,
    describe_reservoir,
    padded,
    reservoir_words,
)
from penstock_kernels.reservoir import reservoir_step

_LEAK_NONE: Final = 1.0  # The new state forgets the old one.


class Network:
    """A reservoir with its weights and its present state.

    Args:
        topology: "cyclic", "sparse" or "dense"; what the next two mean, as in Model.
        recurrent: cyclic (fan_in, units): diagonals; sparse (fan_in, units): weights; dense (units, units): W.
        connections: cyclic (fan_in,): shifts; sparse (fan_in, units): whom a unit hears; dense: empty.
        input_weights: W_in, shape (inputs, units).
        bias: b, shape (units,).
        leak: in (0, 1], one for all or shape (units,); 1 forgets the previous state.

    Raises:
        ModelError: an array has a wrong shape, or a number is out of bounds.
    """

    def __init__(
        self,
        topology: str,
        recurrent: ArrayLike,
        connections: ArrayLike,
        input_weights: ArrayLike,
        bias: ArrayLike,
        leak: ArrayLike = _LEAK_NONE,
    ) -> None:
        if topology not in TOPOLOGIES:
            raise ModelError(f"topology must be one of {', '.join(TOPOLOGIES)}: topology={topology!r:.80}; choose one")
        self.topology = topology
        self.bias: Float32s = _weights("bias", bias, 1)
        self.input_weights: Float32s = _weights("input_weights", input_weights, 2)
        self.recurrent: Float32s = _weights("recurrent", recurrent, 2)
        self.connections: Int64s = np.array(connections, dtype=np.int64, order="C")
        self.leak: Float32s = _weights("leak", np.broadcast_to(np.asarray(leak, np.float32), self.bias.shape), 1)
        _check_shapes(self)
        self._header = _header_of(self)
        words = reservoir_words(self)
        self._weights = aligned_float32(len(words))
        self._weights[:] = words
        self._state = self._new_states(1)

    @classmethod
    def draw(
        cls,
        topology: str,
        seed: int,
        *,
        units: int,
        inputs: int = 1,
        fan_in: int = 10,
        spectral_radius: float = 0.9,
        leak: ArrayLike = _LEAK_NONE,
        input_scale: float = 1.0,
        bias_scale: float = 0.0,
    ) -> Network:
        """Draw a network: uniform weights, scaled; the same for a seed on every platform.

        Args:
            topology: "cyclic", "sparse" or "dense".
            seed: 0 to 2^64 - 1.
            units: number of units.
            inputs: number of inputs.
            fan_in: how many units each unit hears; a dense network ignores it.
            spectral_radius: of W, by its eigenvalues.
            leak: in (0, 1], one for all or shape (units,).
            input_scale: W_in is uniform in -input_scale .. input_scale.
            bias_scale: b is uniform in -bias_scale .. bias_scale.

        Raises:
            ModelError: an argument is impossible.
        """
        drawn = draw(
            topology,
            seed,
            units=units,
            inputs=inputs,
            fan_in=fan_in,
            spectral_radius=spectral_radius,
            input_scale=input_scale,
            bias_scale=bias_scale,
        )
        return cls(topology, drawn.recurrent, drawn.connections, drawn.input_weights, drawn.bias, leak)

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.bias)

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return len(self.input_weights)

    @property
    def state(self) -> Float32s:
        """The present state, a copy, shape (units,); zeros at first. May be set, to go on from somewhere else."""
        return self._state[0, : self.units].copy()

    @state.setter
    def state(self, state: ArrayLike) -> None:
        x = np.asarray(state, dtype=np.float32)
        if x.shape != (self.units,):
            raise ModelError(f"state must have shape (units,) = ({self.units},): shape={x.shape}; give one per unit")
        self._state[0, : self.units] = self._state[0, self.units : 2 * self.units] = x

    def reset(self) -> None:
        """Go back to a state of zeros."""
        self._state[:] = 0.0

    def run(self, inputs: ArrayLike) -> Float32s:
        """Advance by one step per row of *inputs*, from the present state on.

        Args:
            inputs: u, shape (steps, inputs), or (steps,) where there is one input. Rounded to float32.

        Returns:
            The state after each of them, shape (steps, units), float32.

        Raises:
            ModelError: *inputs* have another shape.
        """
        given = np.asarray(inputs, dtype=np.float32)
        rows = np.ascontiguousarray(given[:, None] if given.ndim == 1 and self.inputs == 1 else given)
        if rows.ndim != 2 or rows.shape[1] != self.inputs:
            raise ModelError(f"inputs must have shape (steps, {self.inputs}): shape={given.shape}; give a row per step")
        states = np.empty((1, len(rows), self.units), dtype=np.float32)
        _run_loop(self._header, self._weights, self._state, rows[None], self._scratch(), states)
        return states[0]

    def run_batch(self, inputs: ArrayLike) -> Float32s:
        """Run independent series, each from zeros; the present state plays no part and stays as it is.

        Args:
            inputs: u, shape (series, steps, inputs). Rounded to float32.

        Returns:
            Shape (series, steps, units), float32: for each series, to the bit, what run() gives from zeros.

        Raises:
            ModelError: *inputs* have another shape.
        """
        given = np.ascontiguousarray(inputs, dtype=np.float32)
        if given.ndim != 3 or given.shape[2] != self.inputs:
            raise ModelError(f"inputs must have shape (series, steps, {self.inputs}): shape={given.shape}; reshape it")
        states = np.empty((*given.shape[:2], self.units), dtype=np.float32)
        _run_loop(self._header, self._weights, self._new_states(len(given)), given, self._scratch(), states)
        return states

    def _new_states(self, count: int) -> Float32s:
        return np.zeros((count, 2 * self.units + LANES), dtype=np.float32)

    def _scratch(self) -> Float32s:
        return aligned_float32(padded(self.units))


def _weights(name: str, values: ArrayLike, dimensions: int) -> Float32s:
    found = np.array(values, dtype=np.float32, order="C")
    if found.ndim != dimensions or not np.all(np.abs(found) <= WEIGHT_MAX):
        raise ModelError(
            f"{name} must be {dimensions}-dimensional, finite and at most {WEIGHT_MAX:g} in size: "
            f"{name}.shape={found.shape}; see Network"
        )
    return found


def _check_shapes(network: Network) -> None:
    units, inputs = network.units, network.inputs
    if not 1 <= units <= UNITS_MAX or not 1 <= inputs <= INPUTS_MAX:
        raise ModelError(
            f"a network has 1 to {UNITS_MAX} units and 1 to {INPUTS_MAX} inputs: units={units}, inputs={inputs}"
        )
    rows = len(network.recurrent)
    connected = {"cyclic": (rows,), "sparse": (rows, units), "dense": (0,)}[network.topology]
    wanted = {"input_weights": (inputs, units), "recurrent": (rows, units), "connections": connected}
    for name, shape in wanted.items():
        found = getattr(network, name).shape
        if found != shape:
            raise ModelError(f"{name} must have shape {shape} when {network.topology}: shape={found}; see Network")
    if network.topology == "dense":
        if rows != units:
            raise ModelError(f"recurrent must have shape ({units}, {units}) when dense: shape={(rows, units)}")
    elif not 1 <= rows <= FAN_IN_MAX:
        raise ModelError(f"a unit may hear 1 to {FAN_IN_MAX} others: fan_in={rows}; a dense network has no bound")
    elif network.connections.min() < 0 or network.connections.max() >= units:
        raise ModelError(f"connections must be in 0 to units - 1 = {units - 1}: max={network.connections.max()}")
    if not (network.leak.min() > 0.0 and network.leak.max() <= 1.0):
        raise ModelError(f"leak must be above 0 and at most 1: min={network.leak.min()}, max={network.leak.max()}")


def _header_of(network: Network) -> Int64s:
    header = np.zeros(HEADER_WORDS, dtype=np.int64)  # The weights begin at 0, and there is no readout.
    describe_reservoir(header, network)
    header[TIME_BASE] = TIME_BASES["events"]
    return header


@compiled
def _run_loop(header: Int64s, weights: Float32s, state: Float32s, inputs: Any, scratch: Float32s, states: Any) -> None:
    for series in range(inputs.shape[0]):
        for step in range(inputs.shape[1]):
            reservoir_step(header, weights, state[series], inputs[series, step], scratch)
            for unit in range(header[UNITS]):
                states[series, step, unit] = scratch[unit]
