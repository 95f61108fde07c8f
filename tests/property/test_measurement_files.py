"""Any file that stands where a measurement should is one, or a sentence: never a traceback, in no verb that reads it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_host.measure import compare as measure_compare
from penstock_host.measure.compare import compare
from penstock_host.measure.drawing import draw_comparison
from penstock_host.measure.result import MeasurementError, load, rendered
from penstock_host.measure.words import comparison_text, measurement_text
from penstock_host.report.page import Report
from penstock_host.report.page import rendered as page_of
from support.measured import jitter

PLAIN = jitter("before", cpus=(2,), slices=20)
WHOLE = json.loads(json.dumps(rendered(jitter("after", cpus=(2,), slices=20, seed=2, host={"load": ["0.1"]}))))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.sampled_from([0, 1, 8200, 8201, 1 << 64]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([[], {}, [1, "x"], {"x": 1}, [[]]]),
)


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(place for key, one in inside for place in places_of(one, (*path, key)))]


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """Draw little: what is asked here is whether it ends, not what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure_compare, "RESAMPLES", 5)
        patch.setattr(measure_compare, "_RESAMPLES_PER_SERIES", 5)
        yield


PLACES = [place for place in places_of(WHOLE) if place]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), min_size=1, max_size=3))
def test_measurement_with_anything_in_it_is_read_or_refused(tmp_path_factory, changes) -> None:
    found = copy.deepcopy(WHOLE)
    for place, value in changes:
        target = found
        try:
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):  # An earlier change took it away.
            continue
    path = tmp_path_factory.mktemp("odd") / "x.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    try:
        measurement = load(path)
    except MeasurementError:
        return
    measurement_text(measurement)
    for first, second in ((PLAIN, measurement), (measurement, PLAIN)):
        try:
            comparison = compare(first, second)
        except MeasurementError:
            continue
        comparison_text(comparison).encode("utf-8", "replace")
        draw_comparison(comparison).rendered().encode()
    page_of(Report(node="x", made="now", measurements=[PLAIN, measurement])).encode()


@given(st.binary(max_size=40))
def test_file_of_any_bytes_is_no_measurement(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.json"
    path.write_bytes(data)
    with pytest.raises(MeasurementError) as fault:
        load(path)
    assert str(path) in str(fault.value)
