"""An engine over a device gives the CPU engine's bytes, whatever the transfer, the sources, the bursts and the swaps."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys
from numpy.typing import NDArray

from penstock.v1.records import BookFlag, PredictionFlag, Stage
from penstock_daemon import engine_memory as memory
from penstock_daemon import rings
from penstock_daemon.device.memory import Transfer
from penstock_daemon.engine import Engine, EngineSettings
from penstock_daemon.engine_memory import Command, OldTick
from penstock_kernels import online_layout
from penstock_kernels.online_drive import new_online_place, run_online
from penstock_kernels.predictor import pack
from support.device_engines import DEVICE_SIZES, ITEMS_MAX, WARM_UP_TICKS, device_engine, device_settings, kept_asleep
from support.engines import Source, close_source, driven, frozen, open_source, predict, publish, take
from support.host_device import HostDevice
from support.models import HORIZONS, random_model
from support.tick_stream import tick_stream

MODELS = (
    random_model(1),
    random_model(2, units=48, rebuild_ticks=200, topology="sparse", horizons=HORIZONS[:2]),
    random_model(3, units=40, memory_gains=(0.1, 0.02), memory_lags=2, products=16, time_base="seconds"),
)
UNTIMED = ~np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)

Running = tuple[Engine, HostDevice]


@pytest.fixture(scope="module", params=list(Transfer), ids=lambda transfer: transfer.name.lower())
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """An engine over a device, once for each transfer, with three models."""
    with device_engine(*MODELS, device=device_settings(request.param)) as running:
        yield running


def check(found: NDArray[np.void], ticks: NDArray[np.void], model: int, *, seen: int = 0) -> None:
    """Hold answers of one instrument, from a cold state on, against the CPU's kernels."""
    forecasts, flags = driven(pack(MODELS[model]), ticks, seen=seen)
    assert found["forecasts"].tobytes() == forecasts.tobytes()
    assert (found["flags"] & UNTIMED).tolist() == flags.tolist()
    assert (found["model_serial"] == 100 + model).all()
    assert (found["horizons"] == len(MODELS[model].horizons)).all()


# --- What it computes -------------------------------------------------------------------------------------------------


def test_sources_of_all_models_get_the_bits_of_the_cpu(running: Running) -> None:
    engine, _ = running
    sources = [
        open_source(engine, 1 + model, states=[1 + 2 * model, 2 + 2 * model], model_slot=model) for model in range(3)
    ]
    streams = {
        (source.number, one): tick_stream(10 * source.number + one, 90, instrument_id=one)
        for source in sources
        for one in (1, 2)
    }
    mixed: dict[int, NDArray[np.void]] = {}
    for source in sources:
        both = np.concatenate([streams[source.number, 1], streams[source.number, 2]])
        mixed[source.number] = both[np.random.default_rng(source.number).permutation(len(both))]
        publish(engine, source, mixed[source.number])
    for source in sources:
        found = take(engine, source, 180)
        assert found["sequence"].tolist() == list(range(180))
        assert (found["instrument_id"] == mixed[source.number]["instrument_id"]).all()
        for one in (1, 2):
            own = mixed[source.number]["instrument_id"] == one
            check(found[own], mixed[source.number][own], source.number - 1)
        close_source(engine, source)
    assert engine.device is not None
    assert engine.device.fault_text == ""


def test_unsound_books_are_told_as_on_the_cpu(running: Running) -> None:
    engine, _ = running
    ticks = tick_stream(32, 60)
    ticks["flags"][20:40] |= np.uint8(BookFlag.MAYBE_BAD_BOOK)
    source = open_source(engine)
    found = predict(engine, source, ticks)
    close_source(engine, source)
    check(found, ticks, 0)
    assert np.count_nonzero(found["flags"] & np.uint32(PredictionFlag.BOOK_UNSOUND)) == 20


def test_refused_and_rebuilding_ticks_keep_their_places(running: Running) -> None:
    engine, _ = running
    ticks = tick_stream(12, 130)
    good = np.ones(130, bool)
    good[::7] = False
    ticks["instrument_id"][::7] = 99
    source = open_source(engine)
    rebuilt = predict(engine, source, ticks[:70], rebuild=True)
    found = predict(engine, source, ticks[70:], first=70)
    nothing_else = predict(engine, source, ticks[::7], first=130)
    close_source(engine, source)
    for answers, of in ((rebuilt, good[:70]), (found, good[70:]), (nothing_else, np.zeros(19, bool))):
        assert (((answers["flags"] & np.uint32(memory.ANSWER_REFUSED)) == 0) == of).all()
        assert set(answers["horizons"][~of]) == {rings.UNKNOWN_INSTRUMENT}
    assert ((rebuilt["flags"][good[:70]] & np.uint32(memory.ANSWER_REBUILT)) != 0).all()
    assert found["sequence"].tolist() == list(range(70, 130))
    forecasts, _ = driven(pack(MODELS[0]), ticks[good])
    assert found["forecasts"][good[70:]].tobytes() == forecasts[good[:70].sum() :].tobytes()


@pytest.mark.parametrize("transfer", list(Transfer), ids=lambda transfer: transfer.name.lower())
@pytest.mark.parametrize("policy", list(OldTick), ids=lambda policy: policy.name.lower())
def test_old_ticks_of_a_micro_batch_are_predicted_or_only_taken_in_as_on_the_cpu(
    transfer: Transfer, policy: OldTick
) -> None:
    ticks = tick_stream(31, 60)
    old = np.arange(60) // 20 == 1
    settings = EngineSettings(budget_ns=30_000_000_000, stale_ns=30_000_000_000, old_ticks=policy)
    with device_engine(MODELS[0], settings=settings, device=device_settings(transfer)) as (engine, _):
        source = open_source(engine)
        with kept_asleep(engine):
            for first in (0, 20, 40):
                some, age_ns = frozen(ticks[first : first + 20]), 60_000_000_000 if old[first] else 0
                stamp_ns = time.monotonic_ns() - age_ns
                engine.publish_ticks(source.number, some, first, False, source.ids, source.states, stamp_ns)
        found = take(engine, source, 60)
        words = engine.buffers.words
        assert words[memory.OLD_TICKS] == 20
        assert words[memory.SKIPPED] == (20 if policy == OldTick.UPDATE else 0)
        assert engine.buffers.seen[1] == 60
        assert (found["batch"] == 60).all()
    aged = np.where(old, np.uint32(PredictionFlag.LATE | PredictionFlag.STALE), np.uint32(0))
    assert (found["flags"] & np.uint32(PredictionFlag.LATE | PredictionFlag.STALE)).tolist() == aged.tolist()
    skipped = (found["flags"] & np.uint32(PredictionFlag.SKIPPED)) != 0
    assert skipped.tolist() == (old if policy == OldTick.UPDATE else np.zeros(60, bool)).tolist()
    forecasts, _ = driven(pack(MODELS[0]), ticks)
    assert found["forecasts"][~skipped].tobytes() == forecasts[~skipped].tobytes()
    assert not any(found["forecasts"][skipped].tobytes())


@pytest.mark.parametrize("before", [0, 1, 130, 600])
def test_swapped_model_goes_on_as_if_it_had_seen_the_last_ticks(running: Running, before: int) -> None:
    engine, _ = running
    ticks = tick_stream(18, before + 20)
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


def test_state_that_is_reset_is_cold_to_the_bit(running: Running) -> None:
    engine, _ = running
    for _ in range(2):
        source = open_source(engine, states=[2])
        check(predict(engine, source, tick_stream(14, 40)), tick_stream(14, 40), 0)
        close_source(engine, source)


def test_online_readouts_learn_on_the_cpu_beside_the_device(running: Running) -> None:
    engine, _ = running
    ticks, others = tick_stream(31, 240), tick_stream(32, 240)
    model, settings = MODELS[0], DEVICE_SIZES.online
    online = new_online_place(model, settings)
    held = engine.buffers.online
    assert held is not None
    learning = open_source(engine, 1, states=[7])
    held.words[0] = 0
    online_layout.lay_out(model, settings, held.words[0], held.values[0])
    engine.buffers.online_of[7] = 0
    plain = open_source(engine, 2, states=[8])
    for first in range(0, 240, 80):
        assert publish(engine, learning, ticks[first : first + 80], first=first) == 0
        assert publish(engine, plain, others[first : first + 80], first=first) == 0
    found, beside = take(engine, learning, 240), take(engine, plain, 240)
    close_source(engine, learning)
    close_source(engine, plain)
    engine.buffers.online_of[7] = memory.NO_ONLINE
    check(beside, others, 0)
    expected = run_online(pack(model), ticks, online)
    assert online.learned > 0
    assert found["forecasts"]["expected_return"][:, :3].tobytes() == expected[:, :3, 0].tobytes()


# --- How it behaves ---------------------------------------------------------------------------------------------------


def test_stages_of_a_prediction_add_up_to_its_age(running: Running) -> None:
    engine, _ = running
    source = open_source(engine)
    before = engine.buffers.histograms.copy()
    negatives = engine.buffers.totals[..., 2].copy()
    sent_ns = time.time_ns()
    found = predict(engine, source, tick_stream(16, 50))
    done_ns = time.time_ns()
    close_source(engine, source)
    ages_ns = found["stage_ns"].sum(axis=1, dtype=np.int64)
    assert (ages_ns > 0).all()
    assert (ages_ns < done_ns - sent_ns + 1_000_000).all()
    assert not found["stage_ns"][:, Stage.FEATURES].any(), "features are made on the device, in PREDICT"
    assert found["stage_ns"][:, [Stage.UPLOAD, Stage.PREDICT, Stage.DOWNLOAD]].all()
    added = (engine.buffers.histograms - before)[memory.PATH_GRPC, 0].sum(axis=1)
    assert added.tolist() == [50, 50, 0, 50, 50, 50, 50, 50]
    assert (engine.buffers.totals[..., 2] == negatives).all(), "the device's clock maps into the launch"


def test_every_bucket_ran_before_serving_and_nothing_is_eager_or_new_after() -> None:
    buckets = ITEMS_MAX.bit_length()
    with device_engine(*MODELS) as (engine, host):
        device = engine.device
        assert device is not None
        assert len(set(device.buffers.graphs.tolist())) == buckets
        assert host.launches() == 1 + buckets + WARM_UP_TICKS
        assert (host.counters.eager_launches, device.launches) == (1, 0)
        for states in range(1, 9):
            source = open_source(engine, states=range(1, 1 + states))
            ticks = np.concatenate([tick_stream(one, 3, instrument_id=one) for one in range(1, 1 + states)])
            predict(engine, source, ticks)
            close_source(engine, source)
        assert device.items == 3 * sum(range(1, 9))
        assert host.launches() == 1 + buckets + WARM_UP_TICKS + device.launches
        assert (device.counters.eager_launches, device.counters.allocations) == (0, 0)


def test_sources_take_turns_where_a_micro_batch_holds_no_more() -> None:
    with device_engine(*MODELS) as (engine, _):
        sources = [open_source(engine, 1 + place, states=[1 + place]) for place in range(2)]
        for source in sources:
            engine.wait_applied(engine.command(Command.HOLD_SOURCE, source.number))
        with kept_asleep(engine):
            for source in sources:
                publish(engine, source, tick_stream(40 + source.number, 256))
                engine.command(Command.BIND_MODEL, source.number, 0)
        long, other = (take(engine, source, 256) for source in sources)
    gathered_ns = [
        np.int64(one["received_ns"]) + one["stage_ns"][:, :2].sum(axis=1, dtype=np.int64) for one in (long, other)
    ]
    assert max(long["batch"].max(), other["batch"].max()) == ITEMS_MAX
    assert gathered_ns[1].min() < gathered_ns[0].max(), "the second source did not wait for all of the first"


def test_interpreter_is_never_entered_and_nothing_allocated_while_ticks_flow() -> None:
    """The switch interval is so long that a thread which asks for the GIL would not get it while this one is busy."""
    ticks = tick_stream(24, 4_000)
    with device_engine(*MODELS, sizes=replace(DEVICE_SIZES, slots=4_096)) as (engine, _):
        idle, busy = open_source(engine, 1), open_source(engine, 2, states=[2])
        engine.wait_applied(engine.command(Command.HOLD_SOURCE, idle.number))
        engine.buffers.words[memory.LOOP_WAITING] = 1
        thread = next(one for one in threading.enumerate() if one.name == "penstock-engine")
        frame = sys._current_frames()[thread.ident]
        where = (frame.f_code.co_name, frame.f_lasti)
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(60.0)
        _nrt_python.memsys_enable_stats()
        try:
            stats = [rtsys.get_allocation_stats()]
            publish(engine, idle, ticks)
            stats.append(rtsys.get_allocation_stats())
            publish(engine, busy, ticks)
            consumed = memory.cursor(busy.number, memory.TICK_CONSUMED)
            deadline_s = time.monotonic() + 60
            while engine.buffers.cursors[consumed] < len(ticks):
                assert time.monotonic() < deadline_s
            stats.append(rtsys.get_allocation_stats())
        finally:
            _nrt_python.memsys_disable_stats()
            sys.setswitchinterval(interval_s)
        assert sys._current_frames()[thread.ident] is frame
        assert (frame.f_code.co_name, frame.f_lasti) == where
        assert engine.buffers.words[memory.WAKES] > 0, "it signalled, too"
        check(take(engine, busy, len(ticks)), ticks, 0)
    idle_call, busy_call = np.subtract(stats[1], stats[0]), np.subtract(stats[2], stats[1])
    assert busy_call.tolist() == idle_call.tolist()


def test_nobody_helps_an_engine_that_has_a_device() -> None:
    with device_engine(*MODELS, settings=EngineSettings(assist_max=8)) as (engine, _):
        source: Source = open_source(engine)
        time.sleep(0.005)
        publish(engine, source, tick_stream(29, 4), assist=True)
        assert engine.assisted == 0
        check(take(engine, source, 4), tick_stream(29, 4), 0)
