"""What a replay says of itself: percentiles, shares, the hash, the tables."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from pyarrow import parquet

from penstock.v1.records import PREDICTION_DTYPE, PredictionFlag, PredictionHash
from penstock_client.batches import TickError, TickErrorReason
from penstock_client.errors import LocalUsageError, SessionLost
from penstock_client.replay_output import check_output_name, write_predictions
from penstock_client.replay_summary import (
    closing_text,
    percentile_ns,
    prediction_hash,
    summarise,
)
from penstock_client.wording import microseconds_text, share_text
from support.replay_runs import finished_run


def test_a_percentile_is_a_duration_that_was_measured():
    ascending = np.arange(1, 101)
    assert [percentile_ns(ascending, share) for share in (0.0, 0.5, 0.99, 0.999, 1.0)] == [1, 50, 99, 100, 100]
    assert percentile_ns(ascending[:0], 0.5) == 0
    assert percentile_ns(ascending[:1], 0.5) == 1


def test_the_summary_counts_and_measures_from_when_a_tick_was_due():
    run = finished_run(1000, latency_ns=400_000)
    summary = summarise(run, ["a.dbn"])
    assert (summary["ticks"], summary["predictions"], summary["errors"], summary["lost"]) == (1000, 1000, 0, 0)
    assert summary["p50_us"] == pytest.approx(400.499)
    assert summary["max_us"] == pytest.approx(400.999)
    assert summary["share_within_5ms"] == 1.0
    assert summary["latency_from"] == "scheduled"
    assert summary["sender_behind_us"]["p99"] == 20.0
    assert summary["stages_us"] == {"ring": {"p50": 30.0, "p99": 30.0, "max": 30.0}}
    assert summary["model"]["content_hash"] == bytes(range(32)).hex()
    assert summary["model"]["horizons"] == ["next", "100ms"]
    json.dumps(summary, allow_nan=False)


def test_a_lost_tick_was_not_within_the_budget():
    run = finished_run(100)
    run.received_ns[90:] = 0
    run.predicted[90:] = False
    run.answered = 90
    summary = summarise(run, [])
    assert summary["lost"] == 10
    assert summary["share_within_5ms"] == 0.9
    assert summary["predictions"] == 90


def test_a_latency_of_just_the_budget_is_within_it():
    run = finished_run(2, latency_ns=5_000_000)
    assert summarise(run, [])["share_within_5ms"] == 0.5


def test_a_replay_that_never_began_has_a_summary():
    run = finished_run(10)
    run.sent = run.answered = 0
    run.predicted[:] = False
    run.failure = SessionLost("gone")
    summary = summarise(run, [])
    assert (summary["ticks"], summary["predictions"], summary["seconds"]) == (0, 0, 0.0)
    assert summary["failure"] == "gone"
    assert "failed       gone" in closing_text(summary, [])


def test_the_hash_is_the_contracts_over_the_predictions_in_order():
    run = finished_run(70_000)
    run.predicted[5] = False
    expected = PredictionHash()
    expected.update(run.predictions[:5])
    expected.update(run.predictions[6:])
    assert prediction_hash(run) == expected.hexdigest()


@pytest.mark.parametrize("name", ["received_ns", "wire_ns", "clock", "batch"])
def test_the_hash_leaves_times_out(name):
    run, other = finished_run(50), finished_run(50)
    other.predictions[name] = 77
    other.predictions["flags"] |= np.uint32(PredictionFlag.LATE | PredictionFlag.STALE | PredictionFlag.DEGRADED)
    assert prediction_hash(run) == prediction_hash(other)


@pytest.mark.parametrize("name", ["sequence", "ts_recv", "instrument_id", "model_serial", "flags"])
def test_the_hash_takes_everything_else_in(name):
    run, other = finished_run(50), finished_run(50)
    other.predictions[name][7] += 1
    assert prediction_hash(run) != prediction_hash(other)


def test_the_closing_text_says_what_a_person_asks_first():
    run = finished_run(1000)
    run.errors = 7
    run.tick_errors = [TickError(n, TickErrorReason.TIME_OUT_OF_RANGE, f"tick {n} is odd") for n in range(7)]
    run.resumed = 2
    text = closing_text(summarise(run, ["a.dbn"]), [error.message for error in run.tick_errors])
    for part in (
        "1,000 ticks at 1x",
        "7 errors, 0 lost; connection regained 2 times",
        "p99 401 µs",
        "100 % within 5 ms",
    ):
        assert part in text
    assert text.count("is odd") == 5
    assert "and 2 more errors" in text


@pytest.mark.parametrize(("speed", "behind"), [(1.5, True), (np.inf, False)])
def test_faster_than_the_market_no_share_of_a_budget_is_told(speed, behind):
    text = closing_text(summarise(finished_run(1000, speed=speed), ["a.dbn"]), [])
    assert "within 5 ms" not in text
    assert ("behind by p99" in text) is behind
    assert "p99 401" in text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0.25, "0.2 µs"), (9.94, "9.9 µs"), (400, "400 µs"), (1500, "1.50 ms"), (2.5e6, "2.50 s")],
)
def test_durations_have_the_unit_that_suits_them(microseconds, text):
    assert microseconds_text(microseconds) == text


def test_a_share_never_rounds_up_to_all():
    assert share_text(1.0) == "100 %"
    assert share_text(0.9999999) == "99.999 %"
    assert share_text(0.99895) == "99.895 %"


def test_predictions_are_written_as_the_records_they_are(tmp_path):
    run = finished_run(30)
    run.predicted[3] = False
    write_predictions(str(tmp_path / "a.npy"), run)
    read = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert read.dtype == PREDICTION_DTYPE
    assert read["sequence"].tolist() == [n for n in range(30) if n != 3]


def test_predictions_are_written_as_a_table_with_names_and_units(tmp_path):
    run = finished_run(30)
    write_predictions(str(tmp_path / "a.parquet"), run)
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["symbol"][:3] == ["BTCUSDT", "ETHUSDT", "BTCUSDT"]
    assert table["latency_ns"][:2] == [400_000, 400_001]
    assert table["stage_ring_ns"][0] == 30_000
    assert table["100ms_probability_up"][4] == run.predictions["forecasts"]["probability_up"][4, 1] / 65535
    assert table["next_expected_return"][4] == run.predictions["forecasts"]["expected_return"][4, 0]
    write_predictions(str(tmp_path / "a.csv"), run)
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert float(rows[4]["next_expected_return"]) == pytest.approx(table["next_expected_return"][4])


def test_a_name_that_cannot_be_written_is_refused_before_the_replay(tmp_path):
    with pytest.raises(LocalUsageError, match=r"must end in one of \.parquet, \.csv, \.npy"):
        check_output_name("a.txt")
    with pytest.raises(LocalUsageError, match="in a folder that is there"):
        check_output_name(str(tmp_path / "missing" / "a.npy"))


def test_raw_times_give_the_figures_again(tmp_path):
    run = finished_run(500)
    run.save_raw(str(tmp_path / "raw.npy"))
    raw = np.load(tmp_path / "raw.npy", allow_pickle=False)
    again = np.sort(raw["received"] - raw["scheduled"])
    assert percentile_ns(again, 0.99) / 1e3 == summarise(run, [])["p99_us"]
    assert raw["sequence"].tolist() == list(range(500))
