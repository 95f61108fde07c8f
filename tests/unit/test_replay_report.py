"""The report: skill that is computed by hand, a page with everything in it, figures for every kind of run."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import UNDEFINED_PRICE, PredictionFlag
from penstock_client.errors import LocalUsageError
from penstock_client.replay_summary import summarise
from penstock_client.report_figures import draw_course, draw_distribution, figures_of
from penstock_client.report_page import check_report_name, page, write_report
from penstock_client.report_skill import area_under_curve, measure_skill, mids, next_moves
from penstock_client.report_theme import DAY, NIGHT
from support.replay_runs import finished_run
from support.tick_arrays import quotes


def test_the_next_move_is_the_first_change_of_the_mid():
    assert next_moves(np.array([5.0, 5, 6, 6, 4, 4])).tolist() == [1, 1, -1, -1, 0, 0]
    assert next_moves(np.array([math.nan, 5, 5, 7])).tolist() == [1, 1, 1, 0]
    assert next_moves(np.array([5.0])).tolist() == [0]


def test_a_mid_without_a_book_is_the_last_known_one():
    ticks = quotes(4)
    ticks["bid_px"], ticks["ask_px"] = 10 * 10**9, 12 * 10**9
    ticks["bid_px"][[0, 2]] = UNDEFINED_PRICE
    ticks["ask_px"][3] = 14 * 10**9
    found = mids(ticks)
    assert math.isnan(found[0])
    assert found[1:].tolist() == [11.0, 11.0, 12.0]


def test_the_area_under_the_curve_counts_ties_half():
    rose = np.array([True, True, False, False])
    assert area_under_curve(np.array([4.0, 3, 2, 1]), rose) == 1.0
    assert area_under_curve(np.array([1.0, 2, 3, 4]), rose) == 0.0
    assert area_under_curve(np.array([1.0, 1, 1, 1]), rose) == 0.5
    assert area_under_curve(np.array([2.0, 1, 1, 0]), rose) == 0.875
    assert math.isnan(area_under_curve(np.array([1.0]), np.array([True])))


def test_a_prediction_that_knows_the_future_has_an_area_of_one():
    run = finished_run(400)
    for one in (1, 2):
        (of_it,) = np.nonzero(run.plan.ticks["instrument_id"] == one)
        moves = next_moves(mids(run.plan.ticks[of_it]))
        run.predictions["forecasts"]["probability_up"][of_it, 0] = np.where(moves > 0, 50_000, 1_000)
        run.predictions["forecasts"]["probability_down"][of_it, 0] = np.where(moves < 0, 50_000, 1_000)
    skill = measure_skill(run)
    assert skill is not None
    assert skill.auc == 1.0
    assert skill.horizon == "next"
    assert skill.was_up[0] == 0.0
    assert skill.was_up[-1] == 1.0
    assert 0.3 < skill.baseline_auc < 0.7, "queue imbalance knows nothing of a random walk"


def test_warming_predictions_and_other_horizons_have_no_skill_to_show():
    run = finished_run(400)
    run.predictions["flags"] |= np.uint32(PredictionFlag.WARMING)
    assert measure_skill(run) is None
    run = finished_run(400)
    run.welcome.horizons[0].kind = pb.Horizon.KIND_TIME
    assert measure_skill(run) is None


class Page(HTMLParser):
    """Collects tags, and what the page would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset") and not (value or "").startswith("data:"):
                self.outside.append(str(value))


def test_the_page_holds_everything_and_loads_nothing():
    run = finished_run(600)
    run.failure = LocalUsageError("<b>broken</b> & torn")
    found = Page(text := page(run, summarise(run, ["folder/a<b>.dbn"])))
    assert found.outside == []
    assert found.tags.count("figure") == 4
    assert found.tags.count("source") == 4
    assert "b" not in found.tags[: found.tags.index("div")], "what a file is called is text, not markup"
    assert "&lt;b&gt;broken&lt;/b&gt; &amp; torn" in text
    assert "Do not." in text
    assert "100 %" in text


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("speed", [1.0, math.inf])
def test_short_replays_have_a_page_too(count, speed):
    run = finished_run(count, speed=speed)
    assert Page(page(run, summarise(run, ["a.dbn"]))).tags.count("figure") >= 3


@pytest.mark.parametrize(("speed", "told"), [(1.0, True), (50.0, False), (math.inf, False)])
def test_the_page_tells_a_share_of_the_budget_at_the_markets_pace_only(speed, told):
    run = finished_run(30, speed=speed, latency_ns=6_000_000)
    text = page(run, summarise(run, ["a.dbn"]))
    assert ("<span>within 5 ms</span>" in text) is told
    assert ("tile bad" in text) is told


def test_a_replay_over_years_has_a_page_too():
    run = finished_run(100)
    run.plan.ticks["ts_recv"][50:] += np.uint64(10 * 365 * 86_400 * 10**9)
    assert Page(page(run, summarise(run, ["a.dbn", "b.dbn"]))).tags.count("figure") >= 3


def test_a_replay_without_an_answer_has_a_page_without_figures():
    run = finished_run(5)
    run.received_ns[:] = 0
    run.predicted[:] = False
    run.answered = 0
    assert figures_of(run) == []
    assert "No tick was answered" in page(run, summarise(run, []))


@pytest.mark.parametrize("theme", [DAY, NIGHT])
def test_every_picture_of_latency_shows_the_budget_with_its_unit(theme):
    run = finished_run(600)
    for draw in (draw_distribution, draw_course):
        figure = Figure()
        draw(figure, theme, run)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert any("budget 5 ms" in text for text in texts)
        assert all(axes.get_ylabel() for axes in figure.axes)


def test_the_report_is_written_whole_under_either_name(tmp_path):
    run = finished_run(200)
    summary = summarise(run, ["a.dbn"])
    write_report(str(tmp_path / "r.html"), run, summary)
    write_report(str(tmp_path / "r.png"), run, summary)
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.png"]


def test_a_name_that_cannot_be_written_is_refused_before_the_replay(tmp_path):
    with pytest.raises(LocalUsageError, match=r"must end in one of \.html, \.png"):
        check_report_name("report.pdf")
    with pytest.raises(LocalUsageError, match="in a folder that is there"):
        check_report_name(str(tmp_path / "missing" / "r.html"))
