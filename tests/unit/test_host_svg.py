"""Drawings: well-formed whatever the words are, in the frame, for day and night, and nothing loaded from anywhere."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_host.measure.compare import Verdict, compare
from penstock_host.measure.drawing import (
    PANELS_MAX,
    Panel,
    draw_changes,
    draw_comparison,
    draw_panel,
    panels_of,
    scales_of,
)
from penstock_host.measure.result import Series
from penstock_host.measure.svg import Drawing, escaped
from support.measured import jitter

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "</text><script>alert(1)</script> & \"'\x00\x1b\ud800￾"


def parsed(drawing: Drawing) -> ET.Element:
    return ET.fromstring(drawing.rendered())


def words_of(drawing: Drawing) -> list[str]:
    return [element.text or "" for element in parsed(drawing).iter(f"{SVG}text")]


def points_of(drawing: Drawing) -> list[tuple[float, float]]:
    found = []
    for kind in ("polyline", "polygon"):
        for element in parsed(drawing).iter(f"{SVG}{kind}"):
            found += [tuple(map(float, pair.split(","))) for pair in element.attrib["points"].split()]
    return found


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_words_are_well_formed(text: str) -> None:
    drawing = Drawing(10, 10, text)
    drawing.words(1, 1, text)
    root = ET.fromstring(drawing.rendered().encode())
    assert next(iter(root.iter(f"{SVG}text"))) is not None


def test_words_can_not_become_elements() -> None:
    drawing = Drawing(10, 10, NASTY)
    drawing.words(1, 1, NASTY)
    assert not list(parsed(drawing).iter(f"{SVG}script"))
    assert "<script" not in drawing.rendered()
    assert escaped('<a b="c">') == "&lt;a b=&quot;c&quot;&gt;"


def test_drawing_loads_nothing_and_has_a_look_for_the_night() -> None:
    text = draw_comparison(compare(jitter("before"), jitter("after", seed=2))).rendered()
    assert re.findall(r"(?:href|src|url|@import)\b", text) == []
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme:dark" in text
    used = set(re.findall(r'class="(pt-[a-z-]+)"', text))
    styled = set(re.findall(r"\.(pt-[a-z-]+)\{", text))
    assert used
    assert used <= styled


def test_unknown_look_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="no look of the name purple"):
        Drawing(1, 1, "").line(0, 0, 1, 1, "purple")


def test_comparison_names_figures_verdicts_units_and_both_sides() -> None:
    drawing = draw_comparison(compare(jitter("before"), jitter("after", scale=0.3, seed=2)))
    words = words_of(drawing)
    assert "jitter: it helped" in words
    assert {"longest gap of a typical slice", "time taken away", "better", "CPU 2", "CPU 3", "length of a gap"} <= set(
        words
    )
    assert "1 us" in words
    assert any(word.endswith("/s") for word in words)
    assert [word for word in words if word.startswith(("before", "after"))] == ["before, 30 s", "after, 30 s"]
    worse = words_of(draw_comparison(compare(jitter("before"), jitter("after", scale=5.0, seed=2))))
    assert "jitter: it made things WORSE" in worse


@settings(max_examples=30)
@given(
    st.dictionaries(st.integers(0, 8200), st.integers(1, 10**9), min_size=1, max_size=40),
    st.dictionaries(st.integers(0, 8200), st.integers(1, 10**9), max_size=40),
    st.integers(0, 10**12),
)
def test_any_histogram_stays_inside_its_panel(before, after, duration_ns) -> None:
    sides = [Series("CPU 1", counts, 0, 0, duration_ns) for counts in (before, after)]
    panel = Panel("CPU 1", *sides)
    drawing = draw_panel(panel, scales_of([panel], "jitter"))
    for x, y in points_of(drawing):
        assert 0 <= x <= drawing.width
        assert 0 <= y <= drawing.height


def test_more_often_is_higher_and_longer_is_further_right() -> None:
    sides = [Series("CPU 1", counts, 0, 0, 10**9) for counts in ({1000: 1}, {1000: 100}, {3700: 1})]
    panels = [Panel("CPU 1", None, one) for one in sides]
    scales = scales_of(panels, "jitter")
    rare, often, far = (points_of(draw_panel(panel, scales)) for panel in panels)
    assert min(y for _, y in often) < min(y for _, y in rare)
    assert min(x for x, _ in far) > max(x for x, _ in rare)


def test_of_many_cpus_the_worst_are_drawn_and_the_rest_is_said() -> None:
    many = jitter("after", cpus=tuple(range(30)), slices=10)
    bad = max(many.series, key=lambda series: series.max_ns).name
    assert len(panels_of(None, many)) == PANELS_MAX
    assert bad in [panel.name for panel in panels_of(None, many)]
    drawing = draw_comparison(compare(many, replace(many, label="again")))
    assert f"and {30 - PANELS_MAX} more with shorter longest gaps; the JSON has them" in words_of(drawing)


def test_tool_without_a_histogram_is_drawn_without_one() -> None:
    empty = jitter("a", cpus=(2,))
    empty = replace(empty, kind="rtla-osnoise", series=(Series("CPU 2", {}, 1000, 5000, 10**9),))
    assert "no histogram" in words_of(draw_comparison(compare(empty, empty)))


def test_change_of_many_times_still_shows_its_interval() -> None:
    rows = compare(jitter("before"), jitter("after", scale=6.0, seed=2)).judged
    drawing = draw_changes(rows)
    lines = [line.attrib for line in parsed(drawing).iter(f"{SVG}line") if line.attrib["class"] == "pt-worse"]
    wide = [float(line["x2"]) - float(line["x1"]) for line in lines if line["y1"] == line["y2"]]
    assert len(wide) == sum(row.verdict is Verdict.WORSE for row in rows) == 3
    assert max(wide) > 5
    assert not [
        word for word in words_of(drawing) if word.startswith("-") and word.endswith("%") and int(word[:-1]) < -100
    ]
