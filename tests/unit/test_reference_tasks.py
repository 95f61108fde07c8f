"""Reference tasks: each series follows its published recursion, the measure divides by the deviation, figures hold."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels.network import Network
from penstock_tuning.bench import reference, reference_runs
from penstock_tuning.bench.errors import BenchError
from penstock_tuning.bench.reference_subjects import (
    OurNetwork,
    Peer,
    ReservoirSettings,
    drawn,
    ridge_by_qr,
    simple_cycle,
)
from penstock_tuning.bench.reference_tasks import (
    _narma_outputs,
    lagged,
    mackey_glass,
    memory_capacity,
    memory_inputs,
    narma10,
    nrmse,
)


def test_narma10_follows_its_recursion() -> None:
    inputs, wanted = narma10(3, 400)
    assert 0.0 <= inputs.min() < 0.01
    assert 0.49 < inputs.max() < 0.5
    u = dict(enumerate(inputs))
    y = {step + 1: value for step, value in enumerate(wanted)}  # wanted[t] is y[t + 1].
    for t in range(len(inputs)):
        past = sum(y.get(t - lag, 0.0) for lag in range(10))
        expected = 0.3 * y.get(t, 0.0) + 0.05 * y.get(t, 0.0) * past + 1.5 * u.get(t - 9, 0.0) * u[t] + 0.1
        assert wanted[t] == pytest.approx(expected, abs=1e-14)


def test_narma10_that_diverges_is_drawn_again() -> None:
    assert _narma_outputs([0.5] * 400) is None
    assert _narma_outputs([0.2] * 400) is not None
    for seed in range(20):
        assert narma10(seed, 4_200)[1].max() <= 1.0


def test_mackey_glass_follows_its_delay_equation() -> None:
    """A step of the series is what a fine fourth-order integration between its own points gives, to Euler's error."""
    values = np.arctanh(mackey_glass(2, 600)) + 1.0

    def slope(now: float, late: float) -> float:
        return 0.2 * late / (1.0 + late**10) - 0.1 * now

    errors = []
    for t in range(17, len(values) - 1):
        now, late, late_next = values[t], values[t - 17], values[t - 16]
        middle = (late + late_next) / 2
        k1 = slope(now, late)
        k2 = slope(now + k1 / 2, middle)
        k3 = slope(now + k2 / 2, middle)
        k4 = slope(now + k3, late_next)
        errors.append(now + (k1 + 2 * k2 + 2 * k3 + k4) / 6 - values[t + 1])
    assert np.abs(errors).max() < 0.01  # Between 0.22 and 1.32, and a step is up to 0.07.
    assert np.sqrt(np.mean(np.square(errors))) < 0.003


def test_mackey_glass_is_the_attractor_of_the_published_data() -> None:
    series = mackey_glass(0, 4_000)
    assert np.var(series) == pytest.approx(0.046, abs=0.003)  # Jaeger's variance of the squashed series.
    assert -0.56 < series.min() < -0.5
    assert 0.29 < series.max() < 0.33
    assert not np.allclose(series[:100], mackey_glass(1, 100))


def test_nrmse_is_one_for_the_mean_and_scales_with_the_error() -> None:
    wanted = np.array([1.0, 2.0, 3.0, 6.0])
    assert nrmse(np.full(4, 3.0), wanted) == pytest.approx(1.0)
    assert nrmse(wanted + 0.5, wanted) == pytest.approx(0.5 / wanted.std())
    assert nrmse(10 * wanted + 5.0, 10 * wanted) == pytest.approx(nrmse(wanted + 0.5, wanted))  # Variance would not.
    assert nrmse(wanted + 0.5, wanted, variance=0.25) == pytest.approx(1.0)


def test_lagged_holds_the_last_inputs_newest_first() -> None:
    assert lagged(np.array([1.0, 2.0, 3.0]), 2).tolist() == [[1, 0, 1], [2, 1, 1], [3, 2, 1]]


def test_memory_capacity_of_a_delay_line_counts_its_lags() -> None:
    inputs = memory_inputs(0, 4_000)
    wanted = lagged(inputs, 9)[:, 1:-1]
    assert memory_capacity(wanted, wanted) == pytest.approx(8.0)
    half = wanted.copy()
    half[:, 4:] = memory_inputs(1, 4_000)[:, None]
    assert memory_capacity(half, wanted) == pytest.approx(4.0, abs=0.02)


def test_ridge_by_qr_is_the_normal_equations() -> None:
    random = np.random.default_rng(0)
    design, targets = random.normal(size=(80, 6)), random.normal(size=(80, 2))
    found = ridge_by_qr(design, targets, 0.7)
    centred = design - design.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + 0.7 * np.eye(6), centred.T @ (targets - targets.mean(axis=0)))
    assert np.allclose(found[:-1], weights)
    assert np.allclose(found[-1], targets.mean(axis=0) - design.mean(axis=0) @ weights)
    assert np.allclose(ridge_by_qr(design, design[:, :1] * 3 + 1, 0.0)[[0, -1]].ravel(), [3, 1])


@pytest.mark.parametrize("name", ["cyclic", "sparse", "dense"])
def test_linear_memory_of_the_simple_cycle_is_its_theory(name: str) -> None:
    assert reference_runs.cycle_capacity(name, 0) == pytest.approx(99.0, abs=0.5)


@pytest.mark.parametrize("name", ["cyclic", "sparse", "dense"])
def test_narma10_with_100_units_beats_the_linear_control(name: str) -> None:
    """Ten seeds gave .26 to .38; the control needs fifty taps for .38."""
    found = reference_runs.narma10_error(name, 2, 100)
    assert 0.2 < found < 0.36
    assert found < reference_runs.narma10_error(reference_runs.LINEAR, 2, 0)


def test_a_network_left_alone_feeds_itself() -> None:
    """A network that is read out as its own input stays where it is: what it generates is that value for ever."""
    subject = OurNetwork(Network.draw("cyclic", 0, units=20, input_scale=0.1))
    state = subject.run(np.full(200, 0.25))[-1]
    found = reference_runs._left_alone(subject, lambda rows: rows[:, -1:], state, 0.25, 30)
    assert np.all(found == 0.25)
    found = reference_runs._left_alone(subject, lambda rows: rows[:, -1:] * 2, state, 0.25, 3)
    assert found.tolist() == [0.5, 1.0, 2.0]


def test_a_network_that_runs_away_is_stopped() -> None:
    subject = OurNetwork(Network.draw("cyclic", 0, units=20))
    found = reference_runs._left_alone(subject, lambda rows: rows[:, -1:] * 1e5, np.zeros(20), 1.0, 5)
    assert found.tolist() == [1e5, *[reference_runs.DIVERGED] * 4]


def test_mackey_glass_and_minimal_esn_are_scored_with_small_networks() -> None:
    assert 0.0 < reference_runs.mackey_glass_error("sparse", 2, 300) < 0.05
    assert 0.0 < reference_runs.minimal_esn_error("sparse", 0, 100) < 0.02


def test_network_that_runs_away_scores_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (float("nan"), float("inf"), 1e200):
        monkeypatch.setitem(reference_runs.TASKS, "away", lambda _name, _seed, _units, value=value: value)
        assert reference_runs.run_jobs({"jobs": [["away", "cyclic", 0, 10]]})["values"] == [reference_runs.DIVERGED]


def test_peer_goes_on_where_it_stopped() -> None:
    pytest.importorskip("reservoirpy", reason="the extra peers is not installed")
    settings = ReservoirSettings(30, spectral_radius=0.9, leak=0.5, input_scale=0.5, bias_scale=0.1)
    inputs = memory_inputs(0, 40)
    whole = drawn("reservoirpy", settings, 1).run(inputs)
    subject = drawn("reservoirpy", settings, 1)
    parts = np.concatenate([subject.run(inputs[:20]), subject.run(inputs[20:21]), subject.run(inputs[21:])])
    assert np.allclose(parts, whole)
    subject.go_to(whole[19])
    assert np.allclose(subject.run(inputs[20:]), whole[20:])
    cycle = simple_cycle("reservoirpy", 10, 0.9, 0).run(inputs)
    assert np.allclose(cycle[1:, 1:] - 0.9 * cycle[:-1, :-1], (inputs[1:, None] * np.sign(cycle[0, 1:] * inputs[0])))


def test_singular_sums_of_the_peer_are_its_worst_score() -> None:
    pytest.importorskip("reservoirpy", reason="the extra peers is not installed")
    wanted = np.stack([memory_inputs(seed, 50) for seed in (0, 1)], axis=1)
    states = np.zeros((50, 3))
    given = Peer.fit(states, wanted, 0.0)(states)
    assert np.isnan(given).all()
    assert memory_capacity(given, wanted) == 0.0


def test_impossible_subject_and_seeds_are_sentences() -> None:
    with pytest.raises(BenchError, match="there is no such subject: name='tree'"):
        simple_cycle("tree", 10, 0.9, 0)
    with pytest.raises(BenchError, match="--seeds must be from 1 to 100: seeds=0"):
        reference.ReferenceSettings(0)
