"""The one list of checks that every way to predict must pass: reference, CPU engine, and a device in each of its modes.

    agreement      forecasts are within tolerance_of() of the float64 reference; the tolerance itself is small
    sameness       bits are those of the CPU engine, whatever the micro-batches looked like
    separation     no state, model or tick of one session is seen by another

The bound is derived in tolerance.py. A side that claims to be exact is held to the CPU's bits and not to the bound:
the kernels do the same float32 operations in the same order, so any difference is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from penstock_kernels import reference
from penstock_kernels.model import Model
from penstock_tuning.bench.kernel_sides import drawn_model
from support.backend_sides import Answer, CpuSide, Part, Schedule, Side, Stream
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream
from support.tolerance import contracting, tolerance_of

TICKS: Final = 26
PROBABILITY_TOLERANCE_MAX: Final = 2e-4  # What the derived bound comes to for the models here, at most.

Check = Callable[[Side], None]


def models() -> dict[str, Model]:
    """Return a model for each thing a kernel may do differently; no size is a multiple of anything."""
    made = {
        "cyclic": random_model(1, units=67, fan_in=4, horizons=HORIZONS),
        "sparse": random_model(2, units=83, fan_in=3, topology="sparse", horizons=HORIZONS[:1]),
        "dense": random_model(3, units=45, topology="dense", horizons=HORIZONS[:2]),
        "seconds": random_model(4, units=33, fan_in=2, time_base="seconds"),
        "memory": random_model(5, units=40, fan_in=3, memory_gains=(0.4, 0.05), memory_lags=3, products=16),
        "few inputs": random_model(6, units=129, fan_in=5, features=("imbalance", "order_flow", "last_move")),
        "tiny": random_model(7, units=3, fan_in=2, features=("imbalance",), horizons=HORIZONS[1:2]),
        "whole blocks": random_model(8, units=128, fan_in=4, memory_lags=1, products=64),
    }
    return {name: contracting(model) for name, model in made.items()}


# --- Schedules ------------------------------------------------------------------------------------------------------------


def alone(streams: Sequence[Stream]) -> Schedule:
    """Return a micro-batch for each tick, stream after stream."""
    return [[Part(number, 1)] for number, stream in enumerate(streams) for _ in stream.ticks]


def together(streams: Sequence[Stream], size: int = 8) -> Schedule:
    """Return micro-batches of the next *size* ticks of every stream."""
    schedule = []
    for start in range(0, max(len(stream.ticks) for stream in streams), size):
        counts = [min(size, len(stream.ticks) - start) for stream in streams]
        schedule.append([Part(number, count) for number, count in enumerate(counts) if count > 0])
    return schedule


def shuffled(streams: Sequence[Stream], seed: int, size: int = 6) -> Schedule:
    """Return micro-batches of some streams in any order, each with any number of ticks."""
    noise = np.random.default_rng(seed)
    left = [len(stream.ticks) for stream in streams]
    schedule = []
    while any(left):
        waiting = [number for number, count in enumerate(left) if count]
        chosen = noise.permutation(waiting)[: noise.integers(1, len(waiting) + 1)]
        batch = [Part(int(number), int(noise.integers(1, min(size, left[number]) + 1))) for number in chosen]
        for part in batch:
            left[part.stream] -= part.count
        schedule.append(batch)
    return schedule


def _streams(count: int, model: int = 0, ticks: int = TICKS) -> list[Stream]:
    return [Stream(tick_stream(10 + number, ticks - number), model) for number in range(count)]


# --- Comparing ------------------------------------------------------------------------------------------------------------


def assert_within_tolerance(model: Model, stream: Stream, answer: Answer, wanted: np.ndarray) -> float:
    """Check against *wanted* in float64; returns the largest share of the tolerance that was used."""
    bound, horizons = tolerance_of(model, stream.ticks), len(model.horizons)
    apart = np.abs(answer.forecasts - wanted).max(axis=0)
    assert np.all(apart[horizons:] == 0.0)
    used = np.concatenate(
        [apart[:horizons, 0] / bound.expected_return, apart[:horizons, 2:].max(axis=1) / bound.probability]
    )
    assert np.all(used <= 1.0), f"{model.name}: {used.max():.3g} times the tolerance"
    assert np.all(apart[:horizons, 1] <= 1e-10), "the deviation is the model's"
    return float(used.max())


def assert_same(side: Side, model: Model, stream: Stream, answer: Answer, wanted: Answer) -> None:
    """Check against the CPU engine's answer: its bits where the side is exact, else the tolerance."""
    if not side.exact:
        assert_within_tolerance(model, stream, answer, wanted.forecasts)
        return
    assert np.array_equal(answer.forecasts, wanted.forecasts), (
        f"{side.name}, {model.topology}: the largest difference is {np.abs(answer.forecasts - wanted.forecasts).max():.3g}"
    )
    assert np.array_equal(np.asarray(answer.flags), np.asarray(wanted.flags))


def _assert_cpu(side: Side, many: Sequence[Model], streams: Sequence[Stream], schedule: Schedule) -> list[Answer]:
    answers = side.predict(many, streams, schedule)
    wanted = CpuSide().predict(many, streams, schedule)
    for stream, answer, right in zip(streams, answers, wanted, strict=True):
        assert_same(side, many[stream.model], stream, answer, right)
    return answers


# --- The checks -----------------------------------------------------------------------------------------------------------


def check_agrees_with_the_reference_and_equals_the_cpu_engine(side: Side) -> None:
    for model in models().values():
        streams = _streams(2)
        for stream, answer in zip(streams, _assert_cpu(side, [model], streams, together(streams)), strict=True):
            wanted = reference.predictions(model, stream.ticks)
            assert wanted[:, : len(model.horizons), 0].std(axis=0).min() > 0.0
            assert_within_tolerance(model, stream, answer, wanted)
            assert tolerance_of(model, stream.ticks).probability.max() < PROBABILITY_TOLERANCE_MAX


def check_does_not_see_how_ticks_were_batched(side: Side) -> None:
    model = models()["cyclic"]
    streams = _streams(3)
    first = side.predict([model], streams, alone(streams))
    for schedule in (together(streams, 8), shuffled(streams, 1), shuffled(streams, 2, size=17)):
        for answer, before in zip(side.predict([model], streams, schedule), first, strict=True):
            assert np.array_equal(answer.forecasts, before.forecasts)


def check_does_not_see_its_neighbours(side: Side) -> None:
    """Other neighbours, and neighbours whose states are NaN: theirs stay NaN, and nobody else's change."""
    model = models()["memory"]
    streams = _streams(4)
    schedule = together(streams, 3)
    alone_in_it = side.predict([model], streams[1:2], together(streams[1:2], 3))[0]
    assert np.array_equal(side.predict([model], streams, schedule)[1].forecasts, alone_in_it.forecasts)
    answers = side.predict([model], streams, schedule, poisoned=(0, 2))
    assert np.array_equal(answers[1].forecasts, alone_in_it.forecasts)
    for poisoned in (0, 2):
        assert np.isnan(answers[poisoned].forecasts[:, : len(model.horizons), 0]).all(), (
            "poison must not heal by itself"
        )
    assert np.isfinite(answers[3].forecasts).all()


def check_cold_begins_anew(side: Side) -> None:
    model = models()["memory"]
    ticks = tick_stream(30, TICKS)
    streams = [Stream(np.concatenate([ticks, ticks])), Stream(ticks)]
    schedule = [[Part(0, 20)], [Part(0, TICKS - 20), Part(1, TICKS)], [Part(0, TICKS, cold=True)]]
    answer = side.predict([model], streams, schedule)[0]
    assert np.array_equal(answer.forecasts[:TICKS], answer.forecasts[TICKS:])
    warm = side.predict([model], streams, [[Part(0, TICKS)], [Part(0, TICKS)], [Part(1, TICKS)]])[0]
    assert side.name == "reference" or not np.array_equal(warm.forecasts[TICKS:], answer.forecasts[TICKS:])
    healed = side.predict([model], streams, [[Part(0, TICKS, cold=True)], [Part(0, TICKS, cold=True)]], poisoned=(0,))[
        0
    ]
    assert np.array_equal(healed.forecasts[TICKS:], answer.forecasts[TICKS:])


def check_advancing_gives_no_forecast_and_the_same_state(side: Side) -> None:
    model = models()["memory"]
    streams = _streams(2)
    answers = _assert_cpu(side, [model], streams, [[Part(0, 20, advance=True), Part(1, 7)], [Part(0, 6), Part(1, 18)]])
    assert not answers[0].forecasts[:20].any()
    plain = side.predict([model], streams, together(streams))[0]
    assert np.array_equal(answers[0].forecasts[20:], plain.forecasts[20:])


def check_several_models_in_one_launch(side: Side) -> None:
    many = list(models().values())
    streams = [Stream(tick_stream(40 + number, 12), number % len(many)) for number in range(len(many) + 3)]
    _assert_cpu(side, many, streams, shuffled(streams, 3, size=5))


def check_odd_sizes(side: Side) -> None:
    for units in (2, 15, 16, 17, 63, 65):
        model = contracting(random_model(50 + units, units=units, fan_in=1, horizons=HORIZONS[: 1 + units % 4]))
        streams = _streams(2, ticks=9)
        _assert_cpu(side, [model], streams, together(streams, 4))


def check_odd_ticks(side: Side) -> None:
    """Sizes, prices and times at their ends: what looks odd in market data is data."""
    ticks = tick_stream(60, 24)
    ticks["bid_sz"][3], ticks["ask_sz"][4], ticks["size"][5] = 2**32 - 1, 2**32 - 1, 2**32 - 1
    ticks["bid_px"][6], ticks["ask_px"][7] = -(2**62), 2**62
    ticks["ts_recv"][8], ticks["ts_recv"][9] = 0, 2**63 - 1
    ticks["bid_sz"][10] = ticks["ask_sz"][10] = 0
    model = contracting(random_model(61, units=20, fan_in=2, memory_gains=(0.5,)))
    stream = Stream(ticks)
    if side.exact:
        _assert_cpu(side, [model], [stream], together([stream]))


CHECKS: Final[tuple[Check, ...]] = (
    check_agrees_with_the_reference_and_equals_the_cpu_engine,
    check_does_not_see_how_ticks_were_batched,
    check_does_not_see_its_neighbours,
    check_cold_begins_anew,
    check_advancing_gives_no_forecast_and_the_same_state,
    check_several_models_in_one_launch,
    check_odd_sizes,
    check_odd_ticks,
)

# Of the resident kernel, which is compiled for each model anew: no further sizes, and never several models.
OF_ONE_MODEL: Final[tuple[Check, ...]] = (
    check_agrees_with_the_reference_and_equals_the_cpu_engine,
    check_does_not_see_how_ticks_were_batched,
    check_does_not_see_its_neighbours,
    check_cold_begins_anew,
    check_advancing_gives_no_forecast_and_the_same_state,
)


def check_half_weights(side: Side, round_to_half: Callable[[Model], Model]) -> None:
    """A side that keeps half weights has the CPU's bits of the rounded model, and moves away from the model as fitted."""
    for name in ("cyclic", "sparse", "dense", "memory"):
        model = models()[name]
        rounded = round_to_half(model)
        streams = _streams(2)
        answers = _assert_cpu(side, [rounded], streams, together(streams))
        as_fitted = CpuSide().predict([model], streams, together(streams))
        assert not np.array_equal(answers[0].forecasts, as_fitted[0].forecasts), "rounding must move something"


def large_model(units: int) -> Model:
    """Return a model of *units* units, drawn without looking for its eigenvalues, with all that a readout may see."""
    return drawn_model("cyclic", units, 8, products=units // 32 * 16, memory=True)


def check_large(side: Side, units: int) -> None:
    streams = _streams(3, ticks=12)
    _assert_cpu(side, [large_model(units)], streams, together(streams, 5))


def check_many_states(side: Side, states: int) -> None:
    """One tick of every state in one launch, three times over."""
    ticks = tick_stream(80, states + 3)
    streams = [Stream(ticks[number : number + 3]) for number in range(states)]
    _assert_cpu(side, [models()["cyclic"]], streams, together(streams, 1))
