"""The online readout: labels as training has them, found causally; bounded, exact in its books, and of use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_kernels import online_layout as layout
from penstock_kernels.drive import new_place, run_features, run_predictions
from penstock_kernels.model import Horizon, HorizonKind, Model
from penstock_kernels.online import REGRESSOR_MAX
from penstock_kernels.online_drive import OnlinePlace, new_online_place, run_online
from penstock_kernels.online_layout import OnlineError, OnlineSettings, learned_parts
from penstock_kernels.online_rls import rls_reset, rls_step
from penstock_kernels.predictor import PackedModel, pack
from penstock_tuning.model.targets import doubled_mid, make_targets, stamps
from support.models import HORIZONS, random_model
from support.simulated import market, of_instrument, pairwise_auc, small_model
from support.tick_stream import tick_stream

NEXT_1MS = Horizon("next_1ms", HorizonKind.NEXT_MOVE, duration_ns=1_000_000)
QUICK = OnlineSettings(units=5, forgetting=0.999, trace_max=10.0, updates_per_tick=4, pending_max=64)


def known_ticks(ticks: NDArray[np.void], horizon: Horizon) -> NDArray[np.int64]:
    """Return at which tick each row's label is known, by looking at every later tick; the number of ticks for never."""
    mid, stamp = doubled_mid(ticks), stamps(ticks)
    count = len(ticks)
    known = np.full(count, count)
    for row in range(count):
        for end in range(row + 1, count):
            if horizon.kind == HorizonKind.EVENTS:
                reached = end - row == horizon.events
            elif stamp[end] - stamp[row] <= horizon.duration_ns:
                continue
            else:
                reached = horizon.kind == HorizonKind.TIME or (mid[end] != mid[end - 1] and mid[end - 1] > 0)
            if reached:
                known[row] = end
                break
    return known


def reference(
    packed: PackedModel, model: Model, ticks: NDArray[np.void], index: int, settings: OnlineSettings
) -> tuple[NDArray[np.float32], int]:
    """Return the weights of one horizon after *ticks* and how many rows were learned, from training's own labels."""
    horizon, scale = model.horizons[index], model.calibration[index].return_scale
    quiet = new_online_place(model, replace(settings, pending_max=1))
    quiet.values[:] = 0.0  # A root of zeros learns nothing, so these are the model's own outputs.
    outputs = np.empty((len(ticks), 4, 4), np.float32)
    frozen = new_place(packed)
    run_online(packed, ticks, quiet, frozen, outputs)
    inputs = run_features(packed, ticks)
    count, width = int(quiet.words[layout.COUNT]), int(quiet.words[layout.WIDTH])
    design = design_states(packed, ticks, settings.units)
    rows = np.zeros((len(ticks), width), np.float32)
    rows[:, :count] = np.concatenate([outputs[:, index, :3], inputs, np.ones((len(ticks), 1)), design], axis=1)
    rows = np.clip(rows, -REGRESSOR_MAX, REGRESSOR_MAX).astype(np.float32)
    targets, known, mid = make_targets(ticks, horizon), known_ticks(ticks, horizon), doubled_mid(ticks)
    root, weights = np.zeros((count, width), np.float32), np.zeros((3, width), np.float32)
    gain, learned = np.zeros(width, np.float32), 0
    rls_reset(root, weights, count, settings.trace_max)

    def weight_of(row: int) -> float:
        if not skipped:
            return float(targets.weights[row])
        return 1.0 / np.sqrt(sharers[int(known[row])]) if horizon.kind == HorizonKind.NEXT_MOVE else 1.0

    sharers, skipped = np.zeros(len(ticks) + 1), False  # Rows that each tick labels; whether any found no room.
    waiting: list[int] = []
    for tick in range(len(ticks)):
        sharers[tick] = sum(known[row] == tick for row in waiting)
        ready = [row for row in waiting if known[row] <= tick][: settings.updates_per_tick]
        waiting = waiting[len(ready) :]
        for row in ready:
            assert targets.known[row]
            direction = float(targets.direction[row])
            limited = min(max(targets.returns[row] / float(np.float64(scale)), -1.0), 1.0)
            wanted = np.array([limited, direction, abs(direction)]) - rows[row, :3]
            rls_step(
                root,
                weights,
                rows[row],
                wanted.astype(np.float32),
                gain,
                count,
                weight_of(row),
                settings.forgetting,
                settings.trace_max,
            )
            learned += 1
        if mid[tick] > 0 and len(waiting) < settings.pending_max:
            waiting.append(tick)
        else:
            skipped = True
    return weights, learned


def design_states(packed: PackedModel, ticks: NDArray[np.void], units: int) -> NDArray[np.float32]:
    place, states = new_place(packed), []
    for tick in range(len(ticks)):
        run_predictions(packed, ticks[tick : tick + 1], place)
        states.append(place.state[:units].copy())
    return np.array(states)


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        replace(QUICK, pending_max=400),  # No row is skipped: the weights too are training's own.
        replace(QUICK, updates_per_tick=1, pending_max=7, units=0),
    ],
)
def test_weights_are_those_of_training_labels_learned_when_they_become_known(settings: OnlineSettings) -> None:
    model = random_model(5, horizons=(*HORIZONS[:2], NEXT_1MS, HORIZONS[2]))
    packed, ticks = pack(model), tick_stream(11, 400)
    online = new_online_place(model, settings)
    run_online(packed, ticks, online)
    learned = 0
    for index in range(4):
        wanted, rows = reference(packed, model, ticks, index, settings)
        learned += rows
        weights = learned_parts(online.words, online.values, index)[0]
        assert np.abs(wanted).max() > 0.0
        assert np.abs(weights - wanted).max() < 1e-4, model.horizons[index].name
    assert online.learned == learned


def test_books_add_up_and_the_queue_is_bounded() -> None:
    model = random_model(6)
    packed, ticks = pack(model), tick_stream(12, 500)
    for pending_max in (1, 5, 64):
        online = new_online_place(model, replace(QUICK, pending_max=pending_max))
        run_online(packed, ticks, online)
        assert online.learned + online.skipped + online.pending == len(ticks) * len(model.horizons)
        assert 0 < online.pending <= pending_max * len(model.horizons)
        assert online.learned > 0


def test_nothing_changes_before_something_is_learned() -> None:
    model = random_model(7, horizons=(Horizon("400ev", HorizonKind.EVENTS, events=400),))
    packed, ticks = pack(model), tick_stream(13, 500)
    online = new_online_place(model, QUICK)
    corrected, plain = run_online(packed, ticks, online), run_predictions(packed, ticks)
    assert corrected[:400].tobytes() == plain[:400].tobytes()
    assert corrected[400:].tobytes() != plain[400:].tobytes()
    assert online.learned > 0


@pytest.mark.parametrize("cuts", [(1, 2, 3), (250,), (100, 101, 499)])
def test_same_ticks_give_the_same_bytes_however_they_are_cut(cuts: tuple[int, ...]) -> None:
    model = random_model(8)
    packed, ticks = pack(model), tick_stream(14, 500)
    whole, parts = new_online_place(model, QUICK), new_online_place(model, QUICK)
    place = new_place(packed)
    wanted = run_online(packed, ticks, whole)
    got = np.concatenate([run_online(packed, part, parts, place) for part in np.split(ticks, cuts)])
    assert got.tobytes() == wanted.tobytes()
    assert parts.values.tobytes() == whole.values.tobytes()
    assert parts.words.tobytes() == whole.words.tobytes()


def direction_auc(model: Model, ticks: NDArray[np.void], forecasts: NDArray[np.float32], start: int) -> float:
    targets = make_targets(ticks, model.horizons[0])
    rows = np.flatnonzero(targets.known & (targets.direction != 0))
    rows = rows[rows >= start]
    score = forecasts[rows, 0, 2] - forecasts[rows, 0, 3]
    return pairwise_auc(score, targets.direction[rows] > 0)


def test_market_whose_relation_turns_round_is_learned_anew() -> None:
    made = market(seed=4, seconds=60.0)
    ticks = of_instrument(made.ticks, made.ticks["instrument_id"][0]).copy()
    half = len(ticks) // 2
    turned = ticks[half:]
    turned["bid_sz"], turned["ask_sz"] = turned["ask_sz"].copy(), turned["bid_sz"].copy()
    model = small_model()
    packed = pack(model)
    online: OnlinePlace = new_online_place(model, OnlineSettings(forgetting=0.999, trace_max=10.0))
    learned, plain = run_online(packed, ticks, online), run_predictions(packed, ticks)
    start = half + len(turned) // 2
    assert direction_auc(model, ticks, plain, start) < 0.5
    assert direction_auc(model, ticks, learned, start) > direction_auc(model, ticks, plain, start) + 0.1
    assert direction_auc(model, ticks, learned, start) > 0.55


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units": -1}, "units must be 0 to 256: units=-1"),
        ({"updates_per_tick": 0}, "updates_per_tick must be 1 to 64"),
        ({"pending_max": 0}, "pending_max must be 1 to 65536"),
        ({"trace_max": 0.0}, "trace_max must be 1e-06 to"),
        ({"trace_max": float("nan")}, "trace_max must be 1e-06 to"),
        ({"forgetting": 0.9}, "forgetting must be"),
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(OnlineError, match=sentence):
        OnlineSettings(**changes)  # type: ignore[arg-type]  # Wrong values are the point.


def test_settings_that_do_not_fit_the_model_are_refused() -> None:
    model = random_model(9)
    with pytest.raises(OnlineError, match="units must be at most the model's: units=100, the model has 64"):
        new_online_place(model, OnlineSettings(units=100, forgetting=0.9999))
    with pytest.raises(OnlineError, match="for 84 regressors"):
        new_online_place(model, OnlineSettings(units=64, forgetting=0.9983))
