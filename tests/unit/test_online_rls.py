"""Recursive least squares that cannot wind up: right against batch least squares, and alive where the plain form dies."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_kernels.online_rls import (
    MEMORY_PER_REGRESSOR_MIN,
    OnlineError,
    check_forgetting,
    rls_predict,
    rls_reset,
    rls_step,
)
from penstock_kernels.packed import padded

TICKS, QUIET = 30_000, 15_000


def run_rls(
    rows: NDArray[np.floating],
    targets: NDArray[np.floating],
    forgetting: float,
    trace_max: float,
    counts: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Return the errors before each update, shape (rows, outputs), then weights, root and the traces."""
    count, width = rows.shape[1], padded(rows.shape[1])
    root, gain = np.zeros((count, width), np.float32), np.zeros(width, np.float32)
    weights = np.zeros((targets.shape[1], width), np.float32)
    rls_reset(root, weights, count, trace_max)
    regressors = np.zeros((len(rows), width), np.float32)
    regressors[:, :count] = rows
    wanted = np.ascontiguousarray(targets, dtype=np.float32)
    errors, traces = np.empty(targets.shape), np.empty(len(rows))
    weights_of = np.ones(len(rows)) if counts is None else counts
    for index, row in enumerate(regressors):
        for output in range(targets.shape[1]):
            errors[index, output] = targets[index, output] - rls_predict(weights, output, row)
        traces[index] = rls_step(
            root, weights, row, wanted[index], gain, count, weights_of[index], forgetting, trace_max
        )
    return errors, weights[:, :count], root[:, :count], traces


def plain_rls(rows: NDArray[np.float32], targets: NDArray[np.float32], forgetting: float) -> NDArray[np.float64]:
    """Return the errors of the conventional recursion, P <- (P - g z'P) / forgetting, all in float32."""
    inverse = np.eye(rows.shape[1], dtype=np.float32)
    weights = np.zeros(rows.shape[1], np.float32)
    factor, errors = np.float32(forgetting), np.empty(len(rows))
    with np.errstate(all="ignore"):
        for index, row in enumerate(rows):
            errors[index] = targets[index] - weights @ row
            product = inverse @ row
            gain = product / (factor + row @ product)
            weights += gain * np.float32(errors[index])
            inverse = (inverse - np.outer(gain, product)) / factor
    return errors


def reservoir_rows(inputs: NDArray[np.float64], units: int, seed: int) -> NDArray[np.float32]:
    """Return [x, 1] of a small random reservoir that hears *inputs*, shape (ticks, units + 1)."""
    draws = np.random.default_rng(seed)
    recurrent = draws.normal(size=(units, units)) * (0.9 / np.sqrt(units))
    input_weights, bias = draws.uniform(-0.1, 0.1, units), draws.uniform(-0.1, 0.1, units)
    state, rows = np.zeros(units), np.ones((len(inputs), units + 1), np.float32)
    for tick, value in enumerate(inputs):
        state = np.tanh(recurrent @ state + input_weights * value + bias)
        rows[tick, :units] = state
    return rows


def quiet_experiment() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return rows and targets: excited, quiet from QUIET to TICKS, excited again for 5,000 ticks.

    The targets are sums over the rows, with noise of 1e-3: no readout can do better than that.
    """
    draws = np.random.default_rng(3)
    inputs = draws.uniform(-1.0, 1.0, TICKS + 5_000)
    inputs[QUIET:TICKS] = 0.0
    rows = reservoir_rows(inputs, 30, 1)
    targets = rows @ draws.normal(size=rows.shape[1]) + 1e-3 * draws.normal(size=len(rows))
    return rows, targets.astype(np.float32)


def rms(errors: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize("trace_max", [3_100.0, 31_000.0])
def test_quiet_input_leaves_our_recursion_alive_and_breaks_the_plain_one(trace_max: float) -> None:
    rows, targets = quiet_experiment()
    errors, weights, root, traces = run_rls(rows, targets[:, None], 0.99, trace_max)
    assert np.isfinite(weights).all()
    assert np.isfinite(root).all()
    assert traces.max() <= trace_max * (1.0 + 1e-6)
    assert rms(errors[10_000:QUIET]) < 1.7e-3, "while excited"
    assert rms(errors[QUIET + 100 : TICKS]) < 1.7e-3, "while quiet"
    assert rms(errors[TICKS : TICKS + 500]) < 1.7e-3, "as soon as the excitation returns"
    assert np.abs(errors[TICKS:]).max() < 1e-2


@pytest.mark.parametrize("forgetting", [0.99, 0.998])
def test_plain_recursion_breaks_in_the_same_experiment(forgetting: float) -> None:
    rows, targets = quiet_experiment()
    errors = plain_rls(rows, targets, forgetting)
    assert not np.isfinite(errors[QUIET:]).all() or rms(errors[TICKS:]) > 1.0


@pytest.mark.parametrize(("count", "forgetting"), [(5, 0.99), (20, 0.998), (33, 0.9999), (20, 1.0)])
def test_weights_are_those_of_batch_weighted_least_squares(count: int, forgetting: float) -> None:
    draws = np.random.default_rng(count)
    rows = draws.normal(size=(3_000, count)) @ draws.normal(size=(count, count)) / np.sqrt(count)
    rows = rows.astype(np.float32)
    truth = draws.normal(size=(count, 2))
    targets = rows @ truth + 0.1 * draws.normal(size=(3_000, 2))
    trace_max = 4.0 * count * count  # Never reached while rows come, so that nothing but forgetting is in the way.
    counts = draws.uniform(0.05, 1.0, 3_000)
    weights = run_rls(rows, targets, forgetting, trace_max, counts)[1]
    ages = counts * forgetting ** np.arange(len(rows) - 1, -1, -1, dtype=np.float64)
    exact = rows.astype(np.float64)
    gram = exact.T @ (ages[:, None] * exact) + np.eye(count) * (forgetting ** len(rows) * count / trace_max)
    wanted = np.linalg.solve(gram, exact.T @ (ages[:, None] * targets.astype(np.float32)))
    assert np.abs(weights.T - wanted).max() < 2e-3


def test_root_stands_for_the_inverse_of_the_gram_matrix() -> None:
    rows = np.random.default_rng(2).normal(size=(500, 7)).astype(np.float32)
    root = run_rls(rows, np.zeros((500, 1)), 0.99, 70.0)[2].astype(np.float64)
    ages = 0.99 ** np.arange(499, -1, -1)
    gram = rows.astype(np.float64).T @ (ages[:, None] * rows) + np.eye(7) * 0.99**500 * 0.1
    assert np.abs(root.T @ root @ gram - np.eye(7)).max() < 1e-3


def test_same_rows_give_the_same_bits() -> None:
    draws = np.random.default_rng(9)
    rows, targets = draws.normal(size=(400, 21)), draws.normal(size=(400, 3))
    first, second = run_rls(rows, targets, 0.999, 21.0), run_rls(rows, targets, 0.999, 21.0)
    assert first[1].tobytes() == second[1].tobytes()
    assert first[2].tobytes() == second[2].tobytes()


def test_memory_too_short_for_the_regressors_is_refused_with_a_sentence() -> None:
    count = 50
    least = 1.0 - 1.0 / (MEMORY_PER_REGRESSOR_MIN * count)
    check_forgetting(least, count)
    check_forgetting(1.0, count)
    for forgetting in (least - 1e-6, 0.9, -1.0, 1.5, float("nan")):
        with pytest.raises(OnlineError, match=r"forgetting must be 0\.997500 to 1 for 50 regressors.*raise it"):
            check_forgetting(forgetting, count)
