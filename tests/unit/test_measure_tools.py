"""cyclictest, oslat, rtla, hwlatdetect and the daemon's own stages: read as they print, and missing ones said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from penstock_host.measure.compare import compare
from penstock_host.measure.histogram import quantile_ns
from penstock_host.measure.path import client_command, measure_path, parse_latency
from penstock_host.measure.result import MeasurementError, load, save
from penstock_host.measure.tools import TOOLS, measure_with
from penstock_host.runner import RealRunner, RecordedRunner

OUTPUTS = Path(__file__).parents[1] / "support" / "tool_outputs"
FILES = {
    "cyclictest": "cyclictest.json",
    "oslat": "oslat.json",
    "rtla-osnoise": "rtla-osnoise-top.txt",
    "rtla-timerlat": "rtla-timerlat-hist.txt",
    "hwlatdetect": "hwlatdetect.txt",
}
CPUS = frozenset({2, 3})


def recorded(folder: Path, tool: str, text: str, exit_status: int = 0) -> RecordedRunner:
    name = " ".join(TOOLS[tool].command("2-3", 2, 5)).replace("/", "_")
    (folder / name).write_text(text)
    if exit_status:
        (folder / f"{name}.exit").write_text(str(exit_status))
    return RecordedRunner(folder)


def measured(folder: Path, tool: str):
    runner = recorded(folder, tool, (OUTPUTS / FILES[tool]).read_text())
    return measure_with(TOOLS[tool], runner, CPUS, seconds=5)


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_recorded_output_of_a_tool_is_saved_and_compared(tmp_path, tool) -> None:
    measurement = measured(tmp_path, tool)
    assert measurement.kind == tool
    assert measurement.settings["command"].startswith(tool.split("-")[0])
    assert load(save(measurement, tmp_path / "results")) == measurement
    comparison = compare(measurement, measurement)
    assert not comparison.worse
    assert any("without an interval" in warning for warning in comparison.warnings)


def test_cyclictest_counts_wake_ups_beyond_its_histogram_too(tmp_path) -> None:
    (series,) = measured(tmp_path, "cyclictest").series
    assert series.name == "CPU 1"
    assert series.count == series.extra["cycles"] == 998
    assert series.max_ns == 2_984_000
    assert quantile_ns(series.counts, 0.5) == 67_000
    assert quantile_ns(series.counts, 1.0) == 2_980_000, "the two of the overflow are as long as the longest"


def test_oslat_leaves_out_its_own_loop(tmp_path) -> None:
    (series,) = measured(tmp_path, "oslat").series
    assert series.count == 346, "36 million turns of 1 us are no gaps"
    assert series.max_ns == 4_087_000
    assert series.duration_ns == 1_002_000_000
    assert quantile_ns(series.counts, 1.0) == 4_080_000


def test_osnoise_says_who_took_the_time(tmp_path) -> None:
    series = measured(tmp_path, "rtla-osnoise").series
    assert [one.name for one in series] == ["CPU 0", "CPU 1", "CPU 2", "CPU 3"]
    first = series[0]
    assert (first.sum_ns, first.max_ns, first.duration_ns) == (304_896_000, 56_000, 53_100_000_000)
    assert first.extra["sources"] == {"hardware": 549, "nmi": 0, "irq": 53111, "softirq": 1590, "thread": 13}


def test_timerlat_has_a_series_per_column(tmp_path) -> None:
    series = {one.name: one for one in measured(tmp_path, "rtla-timerlat").series}
    assert len(series) == 10
    assert series["CPU 1 thread"].max_ns == 58_000
    assert series["CPU 0 interrupt"].count == 600_002
    assert quantile_ns(series["CPU 1 thread"].counts, 1.0) == 58_000


def test_timerlat_counts_what_is_over_its_table_as_its_longest(tmp_path) -> None:
    table = "Index   Thr-002\n0   5\n7   2\nover:   3\ncount:   10\nmin:   0\navg:   2\nmax:   900\n"
    (series,) = measure_with(TOOLS["rtla-timerlat"], recorded(tmp_path, "rtla-timerlat", table), CPUS, seconds=5).series
    assert (series.count, series.max_ns) == (10, 900_000)
    assert quantile_ns(series.counts, 0.8) == 900_000


def test_hwlatdetect_tells_gaps_and_interrupts_of_the_firmware(tmp_path) -> None:
    (series,) = measured(tmp_path, "hwlatdetect").series
    assert (series.max_ns, series.count) == (48_000, 3)
    assert series.extra == {"samples_exceeding": 3, "smis": 2}
    quiet = "Max Latency: Below threshold\nSamples recorded: 0\nSamples exceeding threshold: 0\n"
    measurement = measure_with(TOOLS["hwlatdetect"], recorded(tmp_path, "hwlatdetect", quiet), CPUS, seconds=5)
    assert measurement.series[0].max_ns == 0


@pytest.mark.parametrize("tool", sorted(TOOLS))
@pytest.mark.parametrize("text", ["", "nonsense", '{"thread": {}}', '{"thread": {"0": {}}}', "Index CPU-000\n0 1\n"])
def test_output_that_nobody_understands_is_a_sentence_and_no_figure(tmp_path, tool, text) -> None:
    with pytest.raises(MeasurementError, match=rf"measure {tool}: want its results, was .*by hand, as root"):
        measure_with(TOOLS[tool], recorded(tmp_path, tool, text), CPUS, seconds=5)


def test_tool_that_fails_is_quoted(tmp_path) -> None:
    runner = recorded(tmp_path, "oslat", "oslat: please run as root\n", exit_status=1)
    with pytest.raises(MeasurementError, match="was exit status 1: oslat: please run as root"):
        measure_with(TOOLS["oslat"], runner, CPUS, seconds=5)


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_absent_tool_says_how_to_get_it(tmp_path, tool) -> None:
    with pytest.raises(MeasurementError, match=r"was not found; install \S+ \(apt install"):
        measure_with(TOOLS[tool], RecordedRunner(tmp_path), CPUS, seconds=5)


NO_TICKS = {"buckets": [], "counts": [], "sum_ns": 0, "max_ns": 9_999_999, "negative": 0}
LATENCY = {
    "address": "unix:/run/penstock.sock",
    "interval_s": 0.5,
    "intervals": [
        {
            "taken_ns": 1,
            "histograms": [
                {
                    "path": "GRPC",
                    "stage": stage,
                    "pace": "REALTIME",
                    "buckets": [500, 1400],
                    "counts": [99, 1],
                    "sum_ns": 99 * 500 + 50_000,
                    "max_ns": 9_999_999,
                    "negative": 0,
                }
                for stage in ("RECEIVE", "TOTAL")
            ],
        },
        {"taken_ns": 2, "histograms": []},
        {"taken_ns": 3, "histograms": [{"path": "GRPC", "stage": "TOTAL", "pace": "REALTIME", **NO_TICKS}]},
    ]
    * 10,
    "budgets": [{"path": "GRPC", "stage": "TOTAL", "bound_ns": 5_000_000, "exceeded": 0}],
}


def test_stages_of_the_daemon_are_series_with_total_first() -> None:
    total, receive = parse_latency(json.dumps(LATENCY), 500_000_000)
    assert (total.name, receive.name) == ("TOTAL", "RECEIVE")
    assert len(total.slices) == 10, "an interval without ticks is no slice"
    assert (total.slices[0].p50_ns, total.slices[0].p99_ns, total.slices[0].count) == (500, 500, 100)
    assert total.max_ns == 5_010, (
        "the daemon's own maximum is since its start; a bucket's upper edge is of these seconds"
    )
    assert total.extra["budget_us"] == 5000


def test_path_is_asked_of_the_installed_client(tmp_path) -> None:
    command = "penstock latency --json --seconds 10 --interval 0.5 --to unix:/run/x.sock"
    (tmp_path / command.replace("/", "_")).write_text(json.dumps(LATENCY))
    measurement = measure_path(RecordedRunner(tmp_path), seconds=10, address="unix:/run/x.sock", label="before")
    assert load(save(measurement, tmp_path / "results")) == measurement
    comparison = compare(measurement, measurement)
    assert {row.series for row in comparison.judged} == {"TOTAL"}
    assert not comparison.worse


def test_path_without_client_ticks_or_sense_says_what_is_missing(tmp_path) -> None:
    with pytest.raises(MeasurementError, match=r"want the client `penstock`.*pip install penstock"):
        measure_path(RecordedRunner(tmp_path), seconds=10)
    recording = tmp_path / "penstock latency --json --seconds 10 --interval 0.5"
    for text, said in (
        (json.dumps({**LATENCY, "intervals": []}), "want ticks meanwhile, was none"),
        ("{}", "was something else"),
        ("?", "was something else"),
    ):
        recording.write_text(text)
        with pytest.raises(MeasurementError, match=said):
            measure_path(RecordedRunner(tmp_path), seconds=10)
    recording.write_text("penstock: no daemon answered at unix:/x\n")
    recording.with_name(recording.name + ".exit").write_text("3")
    with pytest.raises(MeasurementError, match="no daemon answered"):
        measure_path(RecordedRunner(tmp_path), seconds=10)
    recording.write_text("penstock: error: argument COMMAND: invalid choice: 'latency' (choose from ...)\n")
    with pytest.raises(MeasurementError, match="an older one; upgrade it"):
        measure_path(RecordedRunner(tmp_path), seconds=10)


def test_client_beside_this_interpreter_comes_first(tmp_path) -> None:
    assert client_command(RecordedRunner(tmp_path)) == "penstock"
    assert client_command(RealRunner()) == str(Path(sys.executable).with_name("penstock"))


def test_real_client_without_a_daemon_is_quoted(tmp_path) -> None:
    with pytest.raises(MeasurementError, match=r"measure path: .*no daemon answered"):
        measure_path(RealRunner(), seconds=1, address=f"unix:{tmp_path}/none.sock")
