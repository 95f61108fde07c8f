"""Network: the reservoir by itself follows its formula, goes on where it stopped, and refuses what can't be."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels.model import TOPOLOGIES, ModelError
from penstock_kernels.network import Network
from penstock_kernels.spectral import dense_matrix

INPUTS = np.random.default_rng(5).normal(size=(60, 2)).astype(np.float32)


def drawn(topology: str, units: int = 50) -> Network:
    return Network.draw(topology, 3, units=units, inputs=2, fan_in=6, bias_scale=0.3, leak=0.4)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("units", [7, 50])
def test_states_follow_the_formula(topology: str, units: int) -> None:
    network = drawn(topology, units)
    matrix = dense_matrix(topology, network.recurrent, network.connections)
    x = np.zeros(units)
    for u, found in zip(INPUTS, network.run(INPUTS), strict=True):
        x = x + 0.4 * (np.tanh(matrix @ x + u @ network.input_weights + network.bias) - x)
        assert np.abs(x - found).max() < 3e-6
    assert np.array_equal(network.state, found)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_run_in_parts_and_in_a_batch_gives_the_same_bits(topology: str) -> None:
    network = drawn(topology)
    whole = network.run(INPUTS)
    network.reset()
    parts = np.concatenate([network.run(INPUTS[:17]), network.run(INPUTS[17:])])
    assert np.array_equal(parts, whole)
    before = network.state
    batch = network.run_batch(np.stack([INPUTS[::-1], INPUTS]))
    assert np.array_equal(batch[1], whole)
    assert not np.array_equal(batch[0], whole)
    assert np.array_equal(network.state, before)


def test_state_can_be_set_to_go_on_from_elsewhere() -> None:
    network = drawn("cyclic")
    network.run(INPUTS[:20])
    kept = network.state
    wanted = network.run(INPUTS[20:])
    other = drawn("cyclic")
    other.state = kept
    assert np.array_equal(other.run(INPUTS[20:]), wanted)


def test_one_topology_can_stand_for_another() -> None:
    cycle = Network("cyclic", np.full((1, 9), 0.9), [8], np.ones((1, 9)), np.zeros(9))
    sparse = Network("sparse", np.full((1, 9), 0.9), [(np.arange(9) - 1) % 9], np.ones((1, 9)), np.zeros(9))
    dense = Network("dense", dense_matrix("cyclic", cycle.recurrent, cycle.connections), [], np.ones((1, 9)), [0] * 9)
    states = cycle.run(INPUTS[:, 0])
    assert np.allclose(sparse.run(INPUTS[:, 0]), states, atol=1e-6)
    assert np.allclose(dense.run(INPUTS[:, 0]), states, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"topology": "ring"}, "topology must be one of cyclic, sparse, dense: topology='ring'"),
        ({"leak": 0.0}, "leak must be above 0 and at most 1: min=0.0"),
        ({"leak": 1.5}, "leak must be above 0 and at most 1"),
        ({"connections": [9]}, "connections must be in 0 to units - 1 = 8: max=9"),
        ({"connections": [1, 2]}, r"connections must have shape \(1,\) when cyclic"),
        ({"bias": [np.nan] * 9}, "bias must be 1-dimensional, finite"),
        ({"input_weights": np.ones((1, 8))}, r"input_weights must have shape \(1, 9\)"),
        ({"topology": "dense", "connections": []}, r"recurrent must have shape \(9, 9\) when dense"),
    ],
)
def test_impossible_weights_are_refused_with_a_sentence(change: dict[str, object], sentence: str) -> None:
    given = {
        "topology": "cyclic",
        "recurrent": np.ones((1, 9)),
        "connections": [8],
        "input_weights": np.ones((1, 9)),
        "bias": np.zeros(9),
        "leak": 1.0,
    }
    Network(**given)  # As it stands it is fine.
    with pytest.raises(ModelError, match=sentence):
        Network(**(given | change))


def test_impossible_inputs_are_refused_with_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"inputs must have shape \(steps, 2\): shape=\(60,\)"):
        drawn("sparse").run(INPUTS[:, 0])
    with pytest.raises(ModelError, match=r"inputs must have shape \(series, steps, 2\)"):
        drawn("sparse").run_batch(INPUTS)
    with pytest.raises(ModelError, match=r"state must have shape \(units,\) = \(50,\)"):
        drawn("sparse").state = np.zeros(3)
