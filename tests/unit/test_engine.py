"""What the engine computes: the kernels' forecasts, bit for bit, whatever batches, refusals, rebuilds and swaps do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from penstock.v1.records import UNDEFINED_TIME, BookFlag, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import engine_turns, rings
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command
from penstock_kernels.predictor import pack
from support.engines import (
    SIZES,
    close_source,
    driven,
    open_source,
    predict,
    publish,
    running_engine,
    take,
)
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream

MODELS = (random_model(1), random_model(2, units=48, rebuild_ticks=200, horizons=HORIZONS[:3]))
OWN = int(memory.ANSWER_REFUSED | memory.ANSWER_REBUILT)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine with two models that all tests of this file may use, each with sources and states of its own."""
    with running_engine(*MODELS) as engine:
        yield engine


# --- What it computes -------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_kernels_bit_for_bit(engine: Engine) -> None:
    ticks = tick_stream(11, 900)
    source = open_source(engine)
    found = predict(engine, source, ticks, first=50)
    close_source(engine, source)
    forecasts, flags = driven(pack(MODELS[0]), ticks)
    assert found["forecasts"].tobytes() == forecasts.tobytes()
    assert (found["flags"] & ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)).tolist() == flags.tolist()
    assert found["sequence"].tolist() == list(range(50, 950))
    for name in ("ts_event", "ts_recv", "instrument_id"):
        assert (found[name] == ticks[name]).all(), name
    assert (found["model_serial"] == 100).all()
    assert (found["horizons"] == 3).all()
    assert (found["clock"] == 1).all()
    assert not any(found["forecasts"][:, 3].tobytes()), "a horizon that the model lacks is zeros"


def test_unsound_books_are_told_as_the_drive_tells_them(engine: Engine) -> None:
    ticks = tick_stream(32, 60)
    ticks["flags"][20:40] |= np.uint8(BookFlag.MAYBE_BAD_BOOK)
    source = open_source(engine)
    found = predict(engine, source, ticks)
    close_source(engine, source)
    _, flags = driven(pack(MODELS[0]), ticks)
    assert (found["flags"] & ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)).tolist() == flags.tolist()
    unsound = (found["flags"] & np.uint32(PredictionFlag.BOOK_UNSOUND)) != 0
    assert unsound.tolist() == (np.arange(60) // 20 == 1).tolist()


def test_instruments_of_a_source_have_states_of_their_own(engine: Engine) -> None:
    streams = {number: tick_stream(20 + number, 300, instrument_id=number) for number in (1, 2, 3)}
    mixed = np.concatenate(list(streams.values()))
    mixed = mixed[np.random.default_rng(3).permutation(len(mixed))]
    source = open_source(engine, states=[3, 1, 2])
    found = predict(engine, source, mixed)
    close_source(engine, source)
    for number in streams:
        forecasts, _ = driven(pack(MODELS[0]), mixed[mixed["instrument_id"] == number])
        assert found["forecasts"][found["instrument_id"] == number].tobytes() == forecasts.tobytes()


def test_refused_ticks_enter_no_state_and_keep_the_order(engine: Engine) -> None:
    ticks = tick_stream(12, 200)
    good = np.ones(200, bool)
    good[::7] = False
    ticks["instrument_id"][::14] = 99
    ticks["ts_recv"][7::14] = UNDEFINED_TIME
    source = open_source(engine)
    found = predict(engine, source, ticks)
    close_source(engine, source)
    refused = (found["flags"] & np.uint32(memory.ANSWER_REFUSED)) != 0
    assert (refused == ~good).all()
    assert set(found["horizons"][::14]) == {rings.UNKNOWN_INSTRUMENT}
    assert set(found["horizons"][7::14]) == {rings.TIME_OUT_OF_RANGE}
    assert found["sequence"].tolist() == list(range(200))
    forecasts, _ = driven(pack(MODELS[0]), ticks[good])
    assert found["forecasts"][good].tobytes() == forecasts.tobytes()


def test_rebuild_ticks_leave_the_state_that_predicted_ticks_leave(engine: Engine) -> None:
    ticks = tick_stream(13, 500)
    source = open_source(engine)
    marks = predict(engine, source, ticks[:400], rebuild=True)
    found = predict(engine, source, ticks[400:])
    close_source(engine, source)
    assert ((marks["flags"] & np.uint32(memory.ANSWER_REBUILT)) != 0).all()
    forecasts, flags = driven(pack(MODELS[0]), ticks)
    assert found["forecasts"].tobytes() == forecasts[400:].tobytes()
    assert not (found["flags"] & np.uint32(OWN)).any()
    assert not (flags[400:] & int(PredictionFlag.WARMING)).any(), "rebuild ticks count as seen"


def test_state_that_is_reset_is_cold_to_the_bit(engine: Engine) -> None:
    ticks = tick_stream(14, 120)
    found = []
    for _ in range(2):
        source = open_source(engine, states=[2])
        found.append(predict(engine, source, ticks))
        close_source(engine, source)
    assert found[0]["forecasts"].tobytes() == found[1]["forecasts"].tobytes()
    assert (found[1]["flags"] & np.uint32(PredictionFlag.WARMING)).all()


def test_probabilities_never_add_up_to_more_than_one() -> None:
    sure = random_model(3)
    sure = replace(
        sure,
        readout=np.zeros_like(sure.readout),
        calibration=tuple(replace(one, moved_slope=0.0, moved_offset=100.0) for one in sure.calibration),
    )
    with running_engine(sure) as engine:
        found = predict(engine, open_source(engine), tick_stream(27, 3))["forecasts"][:, :3]
    assert (found["probability_up"] == 32768).all()
    assert (found["probability_up"].astype(int) + found["probability_down"] == 65535).all()


@pytest.mark.parametrize("batch_max", [1, 7, 4096])
def test_bounds_of_a_pass_change_no_bit(batch_max: int) -> None:
    ticks = tick_stream(15, 300)
    with running_engine(MODELS[0], settings=EngineSettings(batch_max=batch_max)) as engine:
        found = predict(engine, open_source(engine), ticks)
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert found["forecasts"].tobytes() == forecasts.tobytes()
    assert found["batch"].max() <= batch_max


def test_stages_of_a_prediction_add_up_to_its_age(engine: Engine) -> None:
    source = open_source(engine)
    before = engine.buffers.histograms.copy()
    sent_ns = time.time_ns()
    found = predict(engine, source, tick_stream(16, 100))
    done_ns = time.time_ns()
    close_source(engine, source)
    assert (found["received_ns"] >= sent_ns - 1_000_000).all()
    assert (found["received_ns"] <= done_ns).all()
    ages_ns = found["stage_ns"].sum(axis=1)
    assert (ages_ns > 0).all()
    assert (ages_ns < done_ns - sent_ns + 1_000_000).all()
    assert not found["stage_ns"][:, [Stage.UPLOAD, Stage.DOWNLOAD]].any()
    added = (engine.buffers.histograms - before)[memory.PATH_GRPC, 0].sum(axis=1)
    assert added.tolist() == [100, 100, 100, 0, 100, 0, 100, 100]


@pytest.mark.parametrize(
    ("settings", "bulk", "expected"),
    [
        (EngineSettings(budget_ns=1, stale_ns=1), False, PredictionFlag.LATE | PredictionFlag.STALE),
        (EngineSettings(budget_ns=1, stale_ns=10**15), False, PredictionFlag.LATE),
        (EngineSettings(budget_ns=10**15, stale_ns=10**15), False, PredictionFlag(0)),
        (EngineSettings(budget_ns=1, stale_ns=1), True, PredictionFlag(0)),
    ],
    ids=["stale", "late", "in-time", "bulk"],
)
def test_age_makes_late_and_stale_but_never_in_bulk(
    settings: EngineSettings, bulk: bool, expected: PredictionFlag
) -> None:
    with running_engine(MODELS[0], settings=settings) as engine:
        source = open_source(engine, bulk=bulk)
        publish(engine, source, tick_stream(17, 20))
        found = take(engine, source, 20, bulk=bulk)
        assert (found["flags"] & np.uint32(PredictionFlag.LATE | PredictionFlag.STALE) == np.uint32(expected)).all()
        for word, flag in ((memory.LATE, PredictionFlag.LATE), (memory.STALE, PredictionFlag.STALE)):
            assert engine.buffers.words[word] == (20 if flag in expected else 0)
        counted = engine.buffers.histograms[memory.PATH_GRPC].sum(axis=(1, 2))
        assert counted[int(bulk)] == 120
        assert counted[int(not bulk)] == 0


# --- Swaps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 130, 199, 200, 201, 511, 512, 900])
def test_swapped_model_goes_on_as_if_it_had_seen_the_last_ticks(engine: Engine, before: int) -> None:
    ticks = tick_stream(18, before + 50)
    source = open_source(engine, states=[4])
    predict(engine, source, ticks[:before])
    engine.command(Command.HOLD_SOURCE, source.number)
    engine.command(Command.REBUILD_STATE, 4, 1)
    engine.wait_applied(engine.command(Command.BIND_MODEL, source.number, 1))
    found = predict(engine, source, ticks[before:], first=before)
    close_source(engine, source)
    replayed = min(before, MODELS[1].rebuild_ticks)
    forecasts, _ = driven(pack(MODELS[1]), ticks[before - replayed :])
    assert found["forecasts"].tobytes() == forecasts[replayed:].tobytes()
    assert (found["model_serial"] == 101).all()
    warming = (found["flags"] & np.uint32(PredictionFlag.WARMING)) != 0
    assert (warming == (np.arange(before, before + 50) < MODELS[1].rebuild_ticks)).all()


def test_ticks_of_a_held_source_wait_and_others_do_not(engine: Engine) -> None:
    held, other = open_source(engine, 1, states=[5]), open_source(engine, 2, states=[6])
    engine.wait_applied(engine.command(Command.HOLD_SOURCE, 1))
    publish(engine, held, tick_stream(19, 10))
    assert len(predict(engine, other, tick_stream(20, 30))) == 30
    for _ in range(3):
        engine.wait_applied(engine.command(Command.RESET_STATE, 8))
    assert engine.answers(1, 100)[1] == 0
    engine.command(Command.BIND_MODEL, 1, 1)
    assert (take(engine, held, 10)["model_serial"] == 101).all()
    for source in (held, other):
        close_source(engine, source)


def test_rebuild_takes_a_bounded_part_of_a_pass() -> None:
    engine = Engine(SIZES, EngineSettings())
    try:
        engine.load_model(0, pack(MODELS[0]), serial=1)
        engine.buffers.seen[3] = 10_000
        parts = 0
        while not engine_turns.rebuild_part(engine.buffers, 3, 0):
            parts += 1
            assert engine.buffers.rebuilt[0] == parts * engine_turns.REBUILD_PART
            assert parts < 100
        assert parts == MODELS[0].rebuild_ticks // engine_turns.REBUILD_PART - 1
        assert engine.buffers.rebuilt[0] == 0, "ready for the next rebuild"
        assert engine_turns.REBUILD_PART <= 64
    finally:
        engine.close()
