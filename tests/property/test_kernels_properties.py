"""Whatever ticks come in whatever pieces, and whatever becomes of a model file's bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.v1.records import UNDEFINED_PRICE, PredictionFlag
from penstock_kernels.drive import new_place, run_design, run_features, run_predictions, run_raw_features
from penstock_kernels.elementary import asinh, exp, log, logistic
from penstock_kernels.model import ModelError
from penstock_kernels.model_file import model_from_bytes, model_to_bytes
from penstock_kernels.predictor import pack
from support.models import random_model
from support.tick_arrays import odd_ticks
from support.tick_stream import tick_stream

PACKED = pack(random_model(1, units=33, rebuild_ticks=16))
FILE = model_to_bytes(random_model(2, units=20, fan_in=2))
HEADER_END = 8 + int.from_bytes(FILE[:8], "little")
untimed = settings(deadline=None)  # Slow machines and first compilations are no faults.
finite = st.floats(allow_nan=False, allow_infinity=False)


@untimed
@given(odd_ticks(max_size=40))
def test_any_ticks_give_finite_forecasts_and_probabilities(ticks):
    place = new_place(PACKED)
    flags = np.zeros(len(ticks), dtype=np.int64)
    forecasts = run_predictions(PACKED, ticks, place, flags)
    assert np.all(np.isfinite(forecasts))
    assert np.all(np.abs(place.state) <= 1.0)
    up, down = forecasts[:, :, 2].astype(np.float64), forecasts[:, :, 3]
    assert np.all((up >= 0) & (down >= 0) & (up + down <= 1 + 1e-7))
    one_sided = (ticks["bid_px"] == UNDEFINED_PRICE) | (ticks["ask_px"] == UNDEFINED_PRICE)
    crossed = (ticks["bid_px"] >= ticks["ask_px"]) & ~one_sided
    backwards = np.append(False, np.diff(ticks["ts_recv"].astype(np.int64)) < 0)[: len(ticks)]
    for bit, expected in (
        (PredictionFlag.BOOK_ONE_SIDED, one_sided),
        (PredictionFlag.BOOK_CROSSED, crossed),
        (PredictionFlag.TIME_BACKWARDS, backwards),
    ):
        assert np.array_equal((flags & bit) != 0, expected)


@untimed
@given(odd_ticks(max_size=40), st.integers(0, 40))
def test_a_stream_in_two_pieces_gives_the_bits_of_the_whole(ticks, cut):
    place = new_place(PACKED)
    pieces = [run_predictions(PACKED, ticks[:cut], place), run_predictions(PACKED, ticks[cut:], place)]
    assert np.array_equal(np.concatenate(pieces), run_predictions(PACKED, ticks))


@untimed
@given(odd_ticks(max_size=30), odd_ticks(max_size=3))
def test_no_feature_depends_on_a_later_tick(ticks, later):
    alone = run_raw_features(ticks)
    assert np.array_equal(run_raw_features(np.concatenate([ticks, later]))[: len(ticks)], alone)


@untimed
@given(st.integers(0, 2**32), st.integers(-(2**62), 2**62))
@example(1, 2**62 - 12_345)
def test_the_level_of_prices_does_not_matter(seed, offset):
    ticks = tick_stream(seed, 60)
    moved = ticks.copy()
    for name in ("bid_px", "ask_px"):
        moved[name][ticks[name] != UNDEFINED_PRICE] += offset
    assert np.array_equal(run_raw_features(moved), run_raw_features(ticks))


@untimed
@given(st.integers(0, 2**32))
def test_event_time_sequence_and_other_opaque_fields_do_not_matter(seed):
    ticks = tick_stream(seed, 60)
    other = ticks.copy()
    for name in ("ts_event", "sequence", "publisher_id", "flags", "depth", "ts_in_delta", "bid_ct", "ask_ct"):
        other[name] = np.random.default_rng(seed).integers(0, 100, len(ticks))
    assert np.array_equal(run_features(PACKED, other), run_features(PACKED, ticks))


@untimed
@given(st.integers(0, 2**32), st.integers(1, 80))
def test_design_rows_in_any_pieces_are_those_of_the_whole(seed, piece):
    ticks = tick_stream(seed, 80)
    place = new_place(PACKED)
    parts = [run_design(PACKED, ticks[first : first + piece], place) for first in range(0, 80, piece)]
    assert np.array_equal(np.concatenate(parts), run_design(PACKED, ticks))


@untimed
@given(finite)
def test_elementary_functions_are_within_their_bounds(value):
    magnitude = max(abs(value), 2.3e-308)
    assert abs(log(magnitude) - math.log(magnitude)) <= 2e-15 * max(1.0, abs(math.log(magnitude)))
    limited = min(max(value, -1e150), 1e150)
    assert abs(asinh(value) - math.asinh(limited)) <= 2e-15 * max(1.0, abs(math.asinh(limited)))
    limited = min(max(value, -700.0), 700.0)
    assert exp(value) == pytest.approx(math.exp(limited), rel=5e-15, abs=0.0)
    assert 0.0 <= logistic(value) <= 1.0


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
@settings(untimed, max_examples=300)
def test_a_file_with_any_byte_changed_is_refused(position, change):
    data = bytearray(FILE)
    data[position] ^= change
    with pytest.raises(ModelError) as caught:
        model_from_bytes(bytes(data))
    assert len(str(caught.value)) > 20


@untimed
@given(st.integers(0, len(FILE) - 1))
def test_a_file_cut_anywhere_is_refused(length):
    with pytest.raises(ModelError):
        model_from_bytes(FILE[:length])


@untimed
@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(data):
    for candidate in (data, len(data).to_bytes(8, "little") + data, FILE[:HEADER_END] + data):
        with pytest.raises(ModelError):
            model_from_bytes(candidate)


@untimed
@given(
    st.sampled_from(["seed", "features", "clip", "horizons", "calibration", "rebuild_ticks", "training", "name"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
)
def test_foreign_metadata_is_refused_or_a_model(name, value):
    """Behind a checksum that fits, as a foreign writer would make it."""
    header = json.loads(FILE[8:HEADER_END])
    described = json.loads(header["__metadata__"]["model"])
    described[name] = value
    text = json.dumps(described)
    header["__metadata__"] |= {"model": text, "sha256": hashlib.sha256(text.encode() + FILE[HEADER_END:]).hexdigest()}
    encoded = json.dumps(header).encode()
    with contextlib.suppress(ModelError):
        model = model_from_bytes(len(encoded).to_bytes(8, "little") + encoded + FILE[HEADER_END:])
        assert model_from_bytes(model_to_bytes(model)).name == model.name
