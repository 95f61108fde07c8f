"""One reference task, one subject, one seed: the number that it scores. Run as a part, in a process of its own.

A part runs on one processor, so that the linear algebra library has one thread: on shared processors its threads
wait for each other, and a solve that takes a third of a second alone took eight.

    the same (task, case, subject, seed)  ->  the same number, on one machine
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from penstock_kernels.compiled import Float64s
from penstock_tuning.bench.parts import Plan, be_part
from penstock_tuning.bench.reference_subjects import PEER, ReservoirSettings, Subject, drawn, ridge_by_qr, simple_cycle
from penstock_tuning.bench.reference_tasks import (
    lagged,
    mackey_glass,
    memory_capacity,
    memory_inputs,
    narma10,
    nrmse,
)

DIVERGED: Final = 1e6  # What a network that runs away scores: worse than all that stay, and still a number.

LINEAR: Final = "linear"  # The control of NARMA10: no reservoir at all.

NARMA_WASHOUT, NARMA_TRAIN, NARMA_TEST = 200, 2_000, 2_000
NARMA_PENALTY: Final = 1e-8
NARMA_TAPS: Final = 50

JAEGER_UNITS, JAEGER_TRAIN, JAEGER_WASHOUT, JAEGER_HORIZON = 1_000, 3_000, 1_000, 84
JAEGER_STARTS, JAEGER_SPACING = 100, 50
JAEGER_PENALTY: Final = 1e-12

CYCLE_UNITS, CYCLE_WEIGHT, CYCLE_LAGS = 100, 0.9, 200
CYCLE_WASHOUT, CYCLE_TRAIN, CYCLE_TEST = 500, 6_000, 20_000

MINIMAL_UNITS, MINIMAL_WASHOUT, MINIMAL_TRAIN, MINIMAL_JUDGED = 1_000, 100, 2_000, 500
MINIMAL_PENALTY: Final = 1e-8


def narma10_error(name: str, seed: int, units: int) -> float:
    """Return the NRMSE of NARMA10 over the test stretch; *name* may be "linear", the filter of fifty taps."""
    inputs, wanted = narma10(seed, NARMA_WASHOUT + NARMA_TRAIN + NARMA_TEST)
    train = slice(NARMA_WASHOUT, NARMA_WASHOUT + NARMA_TRAIN)
    test = slice(train.stop, train.stop + NARMA_TEST)
    targets = wanted[:, None]
    if name == LINEAR:
        taps = lagged(inputs, NARMA_TAPS)[:, :-1]
        weights = ridge_by_qr(taps[train], targets[train], NARMA_PENALTY)
        return nrmse(taps[test] @ weights[:-1, 0] + weights[-1, 0], wanted[test])
    subject = drawn(name, narma_settings(units), seed)
    states = subject.run(inputs)
    readout = subject.fit(states[train], targets[train], NARMA_PENALTY)
    return nrmse(readout(states[test])[:, 0], wanted[test])


def narma_settings(units: int) -> ReservoirSettings:
    """Return the settings of NARMA10."""
    return ReservoirSettings(units, spectral_radius=0.95, leak=1.0, input_scale=0.2, bias_scale=0.1)


def mackey_glass_error(name: str, seed: int, units: int = JAEGER_UNITS) -> float:
    """Return NRMSE84 on Mackey-Glass 17: how far off a network is that has fed itself for 84 steps.

    It is trained to give the next value, then set on the true series at a hundred places, and left alone at each.
    """
    series = mackey_glass(seed, JAEGER_TRAIN + JAEGER_STARTS * JAEGER_SPACING + JAEGER_HORIZON + 1)
    settings = ReservoirSettings(units, spectral_radius=0.88, leak=0.6, input_scale=1.0, bias_scale=0.1)
    subject = drawn(name, settings, seed)
    states = subject.run(series[:-1])
    design = np.concatenate([states, series[:-1, None]], axis=1)
    train = slice(JAEGER_WASHOUT, JAEGER_TRAIN)
    readout = subject.fit(design[train], series[1:, None][train], JAEGER_PENALTY)
    starts = JAEGER_TRAIN - 1 + JAEGER_SPACING * np.arange(JAEGER_STARTS)
    found = np.array([_left_alone(subject, readout, states[at], series[at], JAEGER_HORIZON)[-1] for at in starts])
    return nrmse(found, series[starts + JAEGER_HORIZON], float(np.var(series)))


def minimal_esn_error(name: str, seed: int, units: int = MINIMAL_UNITS) -> float:
    """Return the mean squared error of the first 500 steps that a network generates, as the minimalESN script does.

    Source: Lukosevicius, "minimalESN", the script to "A practical guide to applying echo state networks" (2012).
    """
    series = mackey_glass(seed, MINIMAL_TRAIN + MINIMAL_JUDGED + 1)
    whole = {"rc_connectivity": 1.0} if name == PEER else {}
    settings = ReservoirSettings(units, spectral_radius=1.25, leak=0.3, input_scale=0.5, bias_scale=0.5, peer=whole)
    subject = drawn(name, settings, seed)
    states = subject.run(series[: MINIMAL_TRAIN + 1])
    design = np.concatenate([states, series[: MINIMAL_TRAIN + 1, None]], axis=1)
    train = slice(MINIMAL_WASHOUT, MINIMAL_TRAIN)
    readout = subject.fit(design[train], series[1 : MINIMAL_TRAIN + 2, None][train], MINIMAL_PENALTY)
    found = _left_alone(subject, readout, states[-1], series[MINIMAL_TRAIN], MINIMAL_JUDGED)
    return float(np.mean((found - series[MINIMAL_TRAIN + 1 :]) ** 2))


def cycle_capacity(name: str, seed: int, units: int = CYCLE_UNITS) -> float:
    """Return the linear memory capacity of the simple cycle over lags 1 to 200; theory: units - (1 - r^(2 units)).

    Source: Rodan and Tino, "Minimum complexity echo state network", IEEE Transactions on Neural Networks 22 (2011).
    """
    steps = CYCLE_WASHOUT + CYCLE_TRAIN + CYCLE_TEST
    inputs = memory_inputs(seed, steps)
    subject = simple_cycle(name, units, CYCLE_WEIGHT, seed)
    states = subject.run(inputs)
    wanted = lagged(inputs, CYCLE_LAGS + 1)[:, 1:-1]
    train = slice(CYCLE_WASHOUT, CYCLE_WASHOUT + CYCLE_TRAIN)
    readout = subject.fit(states[train], wanted[train], 0.0)
    return memory_capacity(readout(states[train.stop :]), wanted[train.stop :])


def _left_alone(
    subject: Subject, readout: Callable[[Float64s], Float64s], state: Float64s, value: float, steps: int
) -> Float64s:
    """Return what the network gives when its own output is its input: from *state*, which has seen *value*."""
    subject.go_to(state)
    found = np.empty(steps)
    row = np.concatenate([state, [value]])[None]
    for step in range(steps):
        found[step] = readout(row)[0, 0]
        if not abs(found[step]) < DIVERGED:
            found[step:] = DIVERGED
            break
        if step + 1 < steps:
            row = np.concatenate([subject.run(found[step : step + 1]), [found[step : step + 1]]], axis=1)
    return found


TASKS: Final[dict[str, Callable[..., float]]] = {
    "narma10": narma10_error,
    "mackey_glass": mackey_glass_error,
    "memory": cycle_capacity,
    "minimal_esn": minimal_esn_error,
}


def run_jobs(plan: Plan) -> dict[str, Any]:
    """Return the number and the seconds of each job of *plan*, in order; a job is [task, subject, seed, units]."""
    values, seconds = [], []
    for task, name, seed, units in plan["jobs"]:
        started_s = time.perf_counter()
        value = TASKS[task](name, seed, units)
        values.append(min(DIVERGED, value))  # Not so for NaN.
        seconds.append(time.perf_counter() - started_s)
    return {"values": values, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(be_part(run_jobs))
