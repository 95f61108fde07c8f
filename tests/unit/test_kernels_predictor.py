"""The predictor's two calls: right by the float64 reference, the drive's to the bit, and without an allocation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

from penstock.v1.records import HORIZONS_MAX, BookFlag, PredictionFlag
from penstock_kernels import predictor, reference
from penstock_kernels.compiled import Float32s, Float64s, Int64s, compiled
from penstock_kernels.drive import new_place, run_design, run_features, run_predictions
from penstock_kernels.features import FEATURE_NAMES
from penstock_kernels.forgetting import measured_rebuild_ticks
from penstock_kernels.model import Model, ModelError
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream


class Engine:
    """One instrument, one tick at a time, with memory laid out as an engine would: slices of larger arrays."""

    def __init__(self, model: Model, shift: int = 0) -> None:
        self.packed = predictor.pack(model)
        header = self.packed.header
        self.running = np.zeros((3, predictor.running_words(header)))[1]
        words = predictor.state_words(header)
        self.state = np.zeros(words + shift, dtype=np.float32)[shift:]
        self.scratch = np.full(predictor.scratch_words(header) + shift, np.nan, dtype=np.float32)[shift:]
        self.inputs = np.full(model.inputs, np.nan, dtype=np.float32)
        self.forecasts = np.full((HORIZONS_MAX, predictor.FORECAST_WORDS), np.nan, dtype=np.float32)
        self.flags = 0

    def __call__(self, tick: np.void) -> np.ndarray:
        packed = self.packed
        values = {name: int(tick[name]) for name in tick.dtype.names}
        event_ns = values["ts_event"] if values["ts_event"] < 2**63 else values["ts_event"] - 2**64
        names = ("price", "size", "action", "side", "bid_px", "ask_px", "bid_sz", "ask_sz")
        self.flags = predictor.features_step(
            packed.header,
            packed.constants,
            self.running,
            values["ts_recv"],
            event_ns,
            *(values[name] for name in names),
            self.inputs,
        )
        predictor.predict_step(packed.header, packed.weights, self.state, self.inputs, self.scratch, self.forecasts)
        return self.forecasts.copy()


@pytest.mark.parametrize("units", [64, 70])
def test_forecasts_follow_the_float64_reference(units):
    model = random_model(1, units=units, horizons=HORIZONS)
    ticks = tick_stream(1, 600)
    forecasts = run_predictions(predictor.pack(model), ticks)
    expected = reference.predictions(model, ticks)
    assert np.max(np.abs(forecasts - expected)[:, :, 2:]) < 2e-5
    assert np.max(np.abs(forecasts - expected)[:, :, 0]) < 2e-5 * model.calibration[0].return_scale
    assert expected[:, :, 2].std() > 0.01, "the forecasts must vary for this to say anything"


def test_unsound_book_is_told_and_changes_no_forecast():
    ticks = tick_stream(3, 60)
    marked = ticks.copy()
    marked["flags"][20:40] |= np.uint8(BookFlag.MAYBE_BAD_BOOK)
    packed = predictor.pack(random_model(1))
    flags, marked_flags = np.zeros(60, dtype=np.int64), np.zeros(60, dtype=np.int64)
    forecasts = run_predictions(packed, ticks, flags=flags)
    assert run_predictions(packed, marked, flags=marked_flags).tobytes() == forecasts.tobytes()
    assert not (flags & PredictionFlag.BOOK_UNSOUND).any()
    unsound = np.where(np.arange(60) // 20 == 1, int(PredictionFlag.BOOK_UNSOUND), 0)
    assert marked_flags.tolist() == (flags | unsound).tolist()


@pytest.mark.parametrize("shift", [0, 1, 7])
def test_ticks_fed_one_by_one_give_the_drives_bits_wherever_the_memory_lies(shift):
    model = random_model(2)
    ticks = tick_stream(2, 400)
    engine = Engine(model, shift)
    one_by_one, inputs, flags = [], [], []
    for tick in ticks:
        one_by_one.append(engine(tick))
        inputs.append(engine.inputs.copy())
        flags.append(engine.flags)
    packed = predictor.pack(model)
    driven_flags = np.zeros(len(ticks), dtype=np.int64)
    assert np.array_equal(np.array(one_by_one), run_predictions(packed, ticks, flags=driven_flags))
    assert np.array_equal(np.array(inputs), run_features(packed, ticks))
    assert flags == driven_flags.tolist()
    assert set(flags) >= {0, PredictionFlag.BOOK_CROSSED, PredictionFlag.BOOK_ONE_SIDED, PredictionFlag.TIME_BACKWARDS}


def test_design_rows_hold_state_inputs_and_one_and_explain_the_forecast():
    model = random_model(3, units=50)
    ticks = tick_stream(3, 200)
    packed = predictor.pack(model)
    design = run_design(packed, ticks)
    assert design.shape == (200, 50 + model.inputs + 1)
    assert np.array_equal(design[:, 50:-1], run_features(packed, ticks))
    assert np.all(design[:, -1] == 1.0)
    outputs = design[-1].astype(np.float64) @ model.readout[0]
    assert run_predictions(packed, ticks)[-1, 0, 0] == pytest.approx(outputs * 1e-4, rel=1e-4)


def test_a_drive_goes_on_where_it_stopped():
    model = random_model(4)
    packed, ticks = predictor.pack(model), tick_stream(4, 300)
    place = new_place(packed)
    design = np.empty((100, model.units + model.inputs + 1), dtype=np.float32)
    parts = [run_design(packed, ticks[first : first + 100], place, design).copy() for first in (0, 100, 200)]
    assert np.array_equal(np.concatenate(parts), run_design(packed, ticks))


def test_zeroing_both_states_is_a_reset():
    engine = Engine(random_model(5))
    ticks = tick_stream(5, 50)
    first = [engine(tick) for tick in ticks]
    engine.running[:] = 0.0
    engine.state[:] = 0.0
    assert np.array_equal(first, [engine(tick) for tick in ticks])


def test_inputs_are_standardised_in_the_order_of_the_model_and_clipped():
    names = ("depth_log", "imbalance", "interarrival_log")
    mean, scale = np.array([0.1, -0.2, 3.0]), np.array([0.05, 2.0, 0.5])
    model = random_model(6, features=names, feature_mean=mean, feature_scale=scale, clip=2.5)
    ticks = tick_stream(6, 500)
    chosen = reference.raw_features(ticks)[:, [FEATURE_NAMES.index(name) for name in names]]
    expected = np.clip((chosen - mean) / scale, -2.5, 2.5)
    inputs = run_features(predictor.pack(model), ticks)
    assert np.allclose(inputs, expected, atol=1e-6)
    assert np.abs(inputs).max() == 2.5


def test_a_state_is_rebuilt_by_the_ticks_that_were_measured_for_it():
    packed, ticks = predictor.pack(random_model(7)), tick_stream(7, 6_000)
    rebuild_ticks = measured_rebuild_ticks(packed, ticks, tolerance=1e-3)
    assert 50 < rebuild_ticks < 1_200
    warm, cold = run_design(packed, ticks), run_design(packed, ticks[3_000:])
    after = 3_000 + 2 * rebuild_ticks
    assert np.max(np.abs(warm[after:] - cold[2 * rebuild_ticks :])) <= 1e-3


def test_a_memory_that_does_not_fade_is_named():
    """A ring of two units with gain 5 falls to one side or the other for ever, as its first ticks decide."""
    model = random_model(8, units=2, fan_in=1, features=("imbalance",))
    stuck = random_model(
        8,
        units=2,
        fan_in=1,
        features=("imbalance",),
        recurrent=np.full((1, 2), 5.0, dtype=np.float32),
        bias=np.zeros(2, dtype=np.float32),
        input_weights=np.full((1, 2), 0.5, dtype=np.float32),
        leak=np.ones(2, dtype=np.float32),
    )
    ticks = tick_stream(8, 4_000)
    assert measured_rebuild_ticks(predictor.pack(model), ticks) < 800
    with pytest.raises(ModelError, match="still differ"):
        measured_rebuild_ticks(predictor.pack(stuck), ticks, starts=8)


@pytest.fixture
def counted_allocations() -> Iterator[None]:
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


@compiled
def many_steps(
    header: Int64s,
    constants: Float64s,
    weights: Float32s,
    running: Float64s,
    state: Float32s,
    inputs: Float32s,
    scratch: Float32s,
    forecasts: Float32s,
    steps: int,
) -> None:
    for step in range(steps):
        action = 84 if step % 3 == 0 else 77
        bid = 10_000_000 * (1_000 + step % 7)
        predictor.features_step(
            header, constants, running, step, -1, bid, 5, action, 65, bid, bid + 10_000_000, step % 11, 4, inputs
        )
        predictor.predict_step(header, weights, state, inputs, scratch, forecasts)


@compiled
def allocate(words: int) -> float:
    return np.zeros(words)[words - 1]


@pytest.mark.usefixtures("counted_allocations")
def test_steps_allocate_nothing():
    engine = Engine(random_model(9))
    packed = engine.packed
    arrays = (engine.running, engine.state, engine.inputs, engine.scratch, engine.forecasts)

    def allocations(steps: int) -> int:
        before = rtsys.get_allocation_stats().alloc
        many_steps(packed.header, packed.constants, packed.weights, *arrays, steps)
        return rtsys.get_allocation_stats().alloc - before

    entering = allocations(0)  # One per array that is handed over.
    assert allocations(10_000) == entering
    before = rtsys.get_allocation_stats().alloc
    allocate(10)
    assert rtsys.get_allocation_stats().alloc > before, "the counter must count"
