"""Whatever an online readout is fed, its P stays positive definite and bounded, and its numbers stay numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_kernels.model import Calibration
from penstock_kernels.online import REGRESSOR_MAX
from penstock_kernels.online_drive import new_online_place, run_online
from penstock_kernels.online_layout import OnlineSettings, learned_parts
from penstock_kernels.online_rls import MEMORY_PER_REGRESSOR_MIN, rls_reset, rls_step
from penstock_kernels.packed import padded
from penstock_kernels.predictor import pack
from support.models import random_model
from support.tick_stream import tick_stream

_EXTREMES = (0.0, 1.0, -1.0, REGRESSOR_MAX, -REGRESSOR_MAX, 1e-30, 1e-8, 1e6, -1e6, 1e12)
_STRETCHES = st.lists(
    st.tuples(st.sampled_from(["zeros", "constant", "one", "drawn", "extremes", "collinear"]), st.integers(1, 200)),
    min_size=1,
    max_size=6,
)


def stretch(kind: str, rows: int, count: int, draws: np.random.Generator) -> np.ndarray:
    """Return rows of regressors of one kind, shape (rows, count)."""
    if kind == "zeros":
        return np.zeros((rows, count))
    if kind == "constant":
        return np.tile(draws.choice(_EXTREMES, count), (rows, 1))
    if kind == "one":
        return np.eye(count)[draws.integers(0, count, rows)] * draws.choice(_EXTREMES, (rows, 1))
    if kind == "extremes":
        return draws.choice(_EXTREMES, (rows, count))
    if kind == "collinear":
        return draws.normal(size=(rows, 1)) * np.ones((1, count))
    return draws.normal(size=(rows, count))


@settings(max_examples=60, deadline=None)
@given(
    stretches=_STRETCHES,
    count=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    trace_max=st.sampled_from([1e-6, 1.0, 1e6]),
    fast=st.booleans(),
)
def test_p_stays_positive_definite_and_bounded_under_any_input(
    stretches: list[tuple[str, int]], count: int, seed: int, trace_max: float, fast: bool
) -> None:
    draws = np.random.default_rng(seed)
    width = padded(count)
    root, weights = np.zeros((count, width), np.float32), np.zeros((2, width), np.float32)
    gain, row = np.zeros(width, np.float32), np.zeros(width, np.float32)
    forgetting = 1.0 - 1.0 / (MEMORY_PER_REGRESSOR_MIN * count) if fast else 0.9999
    rls_reset(root, weights, count, trace_max)
    for kind, rows in stretches:
        for values in stretch(kind, rows, count, draws):
            row[:count] = values
            weight = draws.choice([1.0, 1e-3])
            targets = draws.choice(_EXTREMES[:5], 2).astype(np.float32)
            trace = rls_step(root, weights, row, targets, gain, count, weight, forgetting, trace_max)
            assert 0.0 < trace <= trace_max * (1.0 + 1e-5)
    inverse = root[:, :count].astype(np.float64)
    assert np.isfinite(weights).all()
    assert (np.diag(inverse) > 0.0).all()  # Triangular with a positive diagonal: positive definite.
    assert not np.triu(inverse, 1).any()
    assert np.square(inverse).sum() <= 1.001 * trace_max + count * 1e-10


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0, 1e-9, 1e-4, 1e9]), size=st.sampled_from([1.0, 1e7]))
def test_forecasts_stay_probabilities_whatever_the_model_says(seed: int, scale: float, size: float) -> None:
    model = random_model(seed, calibration=(Calibration(return_scale=scale),) * 3)
    model = random_model(seed, calibration=model.calibration, readout=model.readout * np.float32(size))
    packed, ticks = pack(model), tick_stream(seed, 300)
    online = new_online_place(model, OnlineSettings(units=3, forgetting=0.996, trace_max=100.0))
    forecasts = run_online(packed, ticks, online)
    assert np.isfinite(forecasts[:, :, 2:]).all()
    assert (forecasts[:, :, 2:] >= 0.0).all()
    assert (forecasts[:, :, 2] + forecasts[:, :, 3] <= 1.0 + 1e-6).all()
    for horizon in range(3):
        weights, root = learned_parts(online.words, online.values, horizon)
        assert np.isfinite(weights).all()
        assert np.isfinite(root).all()
        assert weights.any()
    assert online.learned > 0
