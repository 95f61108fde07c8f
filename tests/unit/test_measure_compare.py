"""Comparing: verdicts that are right on slices whose truth is known, intervals that cover, and nothing judged in vain."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_host.measure import bootstrap
from penstock_host.measure.compare import ALL, Verdict, compare, mend_of, rendered
from penstock_host.measure.result import MeasurementError, Slice, load, save
from penstock_host.measure.runs import by_label
from penstock_host.measure.words import comparison_text, measurement_text
from support.measured import SETTINGS, halves, jitter, restless


def verdicts(comparison) -> dict[str, Verdict]:
    return {row.figure.name: row.verdict for row in comparison.judged}


def test_shorter_gaps_are_better_and_longer_ones_worse() -> None:
    plain, shorter, longer = jitter("before"), jitter("after", scale=0.3, seed=2), jitter("after", scale=4.0, seed=3)
    helped, harmed = compare(plain, shorter), compare(plain, longer)
    assert helped.verdict is Verdict.BETTER
    assert not helped.worse
    assert verdicts(helped)["worst_gap_us"] is verdicts(helped)["over_50us_per_s"] is Verdict.BETTER
    assert harmed.verdict is Verdict.WORSE
    assert verdicts(harmed)["worst_gap_us"] is verdicts(harmed)["taken_ppm"] is Verdict.WORSE
    assert "penstock-tune revert" in mend_of(harmed)
    assert mend_of(helped) == ""


def test_one_cpu_made_worse_among_many_is_worse() -> None:
    plain = jitter("before", cpus=(2, 3, 4, 5))
    after = jitter("after", seed=2, cpus=(2, 3, 4, 5))
    bad = jitter("after", seed=3, cpus=(4,), scale=8.0)
    after = replace(after, series=(*after.series[:2], *bad.series, after.series[3]))
    comparison = compare(plain, after)
    assert verdicts(comparison)["worst_gap_us"] is Verdict.WORSE
    assert next(row for row in comparison.shown if row.series == "CPU 4").verdict is Verdict.WORSE


@pytest.mark.parametrize("spell", [1, 8])
def test_the_same_host_measured_again_and_again_shows_no_difference_nearly_always(spell: int) -> None:
    """One run of a busy guest, cut in two: at blocks of a few slices, and 95 % for each figure, 15 of 40 differed."""
    judged = [compare(*halves(restless(seed, slices=96, spell=spell))) for seed in range(40)]
    wrong = sum(one.verdict is not Verdict.SAME for one in judged)
    assert wrong <= 4, f"{wrong} of 40"


def test_few_blocks_widen_the_interval_as_students_t_does() -> None:
    """Student's t beside the normal's 1.960 and 2.498, from tables: 7 degrees of freedom, then 15."""
    for blocks, tail, t, z in ((8, 0.025, 2.365, 1.960), (16, 0.025, 2.131, 1.960), (8, 0.00625, 3.335, 2.498)):
        expected = t / z * (blocks / (blocks - 1)) ** 0.5
        assert bootstrap.widening(blocks, tail) == pytest.approx(expected, rel=0.002)


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """Exponential gaps with known means: the mean of after minus before is 20."""
    covered = 0
    for seed in range(100):
        draws = random.Random(seed)
        before = [draws.expovariate(1 / 100) for _ in range(80)]
        after = [draws.expovariate(1 / 120) for _ in range(80)]
        (interval,) = (
            bootstrap.differences([before], [after], [lambda drawn: sum(drawn) / len(drawn)], resamples=200) or []
        )
        covered += interval.low <= 20 <= interval.high
    assert 88 <= covered <= 100


def test_neighbours_that_resemble_each_other_widen_the_interval() -> None:
    """Twelve noisy stretches of ten slices hold no more than twelve numbers' worth of news."""
    draws = random.Random(5)
    shuffled = [level for level in (draws.uniform(0, 100) for _ in range(12)) for _ in range(10)]
    runs, mixed = list(shuffled), list(shuffled)
    draws.shuffle(mixed)

    def width(values: list[float]) -> float:
        (found,) = bootstrap.differences([values], [[0.0] * 120], [lambda drawn: sum(drawn) / len(drawn)]) or []
        return found.high - found.low

    assert width(runs) > 1.5 * width(mixed)


def test_the_same_files_give_the_same_verdict_to_the_bit(tmp_path) -> None:
    paths = [save(jitter("a"), tmp_path), save(jitter("b", scale=0.5, seed=4), tmp_path)]
    first, second = (json.dumps(rendered(compare(*(load(path) for path in paths)))) for _ in range(2))
    assert first == second


def test_runs_of_one_label_are_one_side_and_must_all_be_beyond_the_other() -> None:
    """One setting whose runs differ by themselves, and another that is really better than all of them."""
    before = [jitter("before", scale=scale, seed=number) for number, scale in enumerate((1.0, 3.0, 2.0))]
    same = [jitter("after", scale=scale, seed=10 + number) for number, scale in enumerate((2.5, 1.2, 4.0))]
    good = [jitter("after", scale=scale, seed=20 + number) for number, scale in enumerate((0.2, 0.4, 0.3))]
    first, other = by_label([before[0], same[0], before[1], same[1], before[2], same[2]])
    comparison = compare(first, other)
    assert comparison.verdict is Verdict.SAME
    assert compare(before[0], same[2]).verdict is Verdict.WORSE, "which one pair alone would have said"
    better = compare(*by_label([*before, *good]))
    assert better.verdict is Verdict.BETTER
    assert [warning[:10] for warning in better.warnings] == ["3 and 3 ru"]
    assert "in 10% of cases by chance alone; take four or more" in better.warnings[0]
    assert compare(*by_label([*before, before[0], *good, good[0]])).warnings == ()
    assert first.seconds == 90
    assert first.notes[0] == "3 runs taken together."
    assert first.series[0].count == sum(run.series[0].count for run in before)


def test_runs_that_differ_widen_the_interval() -> None:
    def width(*scales: float) -> float:
        runs = [jitter("before", scale=scale, seed=number) for number, scale in enumerate(scales)]
        interval = compare(*by_label([*runs, jitter("after", scale=0.1)])).judged[0].interval
        return interval.high - interval.low

    assert width(1.0, 6.0, 3.0) > 3 * width(3.0, 3.0, 3.0)


def test_runs_without_labels_or_all_of_one_stay_apart() -> None:
    runs = [jitter(""), jitter("", seed=2)]
    assert by_label(runs) == runs
    same = [jitter("a"), jitter("a", seed=2)]
    assert by_label(same) == same
    with pytest.raises(MeasurementError, match="want runs of one kind and the same settings under one label"):
        by_label([jitter("a"), jitter("a", settings={"slice_ms": 9.0}), jitter("b")])
    with pytest.raises(MeasurementError, match="want series in common in all runs of the label"):
        by_label([jitter("a", cpus=(1,)), jitter("a", cpus=(2,)), jitter("b")])


def test_busy_host_is_warned_of() -> None:
    busy = jitter("before", host={"load": ["3.2", "1", "1"], "cpus_online": "0-3"})
    comparison = compare(busy, jitter("after", host={"load": ["0.4", "1", "1"], "cpus_online": "0-3"}))
    assert [warning[:26] for warning in comparison.warnings] == ["before: load 0.8 per CPU w"]


def test_too_few_slices_are_no_verdict() -> None:
    comparison = compare(jitter("a", slices=5), jitter("b", slices=60, scale=9.0))
    assert comparison.verdict is Verdict.UNKNOWN
    assert all(row.interval is None for row in comparison.judged)
    assert any(warning.startswith("5 slices: want 20 or more") for warning in comparison.warnings)
    assert "measure both longer" in mend_of(comparison)


def test_slices_of_another_length_are_shown_and_not_judged() -> None:
    other = jitter("b", scale=9.0, settings={**SETTINGS, "slice_ms": 100.0})
    comparison = compare(jitter("a"), other)
    assert {row.verdict for row in comparison.judged} == {Verdict.UNKNOWN}
    assert "slice_ms: want the same in both, was 500.0 and 100.0" in comparison.warnings[0]


def test_another_host_is_warned_of_and_what_tuning_changed_is_named() -> None:
    before = jitter("a", host={"isolated": "", "cpu_model": "one"})
    after = jitter("b", host={"isolated": "2-3", "cpu_model": "another"})
    comparison = compare(before, after)
    assert "CPU: one and another: these are different hosts" in comparison.warnings
    assert comparison.changed == ("isolated: was none, is 2-3",)


def test_cpus_of_one_side_alone_are_left_out_and_said() -> None:
    comparison = compare(jitter("a", cpus=(2, 3)), jitter("b", cpus=(3, 4)))
    assert {row.series for row in comparison.judged} == {"CPU 3"}
    assert "CPU 2, CPU 4: in one of the two alone, and left out" in comparison.warnings
    assert compare(jitter("a"), jitter("b")).judged[0].series == ALL


def test_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(MeasurementError, match="want two measurements of one kind, was jitter and path"):
        compare(jitter("a"), replace(jitter("b"), kind="path"))
    with pytest.raises(MeasurementError, match="want series in common, was CPU 1 and CPU 2"):
        compare(jitter("a", cpus=(1,)), jitter("b", cpus=(2,)))


def test_change_too_small_to_matter_is_no_difference_however_sure() -> None:
    """Two per cent more, without any noise at all."""
    still = [Slice(500_000_000, 1, 100_000, 100_000, 1)] * 40
    before, after = jitter("a", cpus=(2,)), jitter("b", cpus=(2,))
    before = replace(before, series=(replace(before.series[0], slices=tuple(still)),))
    after = replace(
        after,
        series=(replace(after.series[0], slices=tuple(replace(one, max_ns=102_000) for one in still)),),
    )
    row = compare(before, after).judged[0]
    assert row.interval is not None
    assert row.interval.low == row.interval.high == pytest.approx(2.0)
    assert row.verdict is Verdict.SAME


def test_words_name_verdict_figures_and_mend() -> None:
    text = comparison_text(compare(jitter("before"), jitter("after", scale=5.0, seed=2)))
    assert text.startswith("jitter: before -> after: it made things WORSE\n60 slices of 500 ms")
    assert "worse          all: longest gap of a typical slice" in text
    assert text.endswith("measure again after it")
    shown = measurement_text(jitter("before"))
    assert "CPU 2" in shown
    assert "own step" in shown


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.01, 20))
def test_measurement_is_read_as_it_was_saved(tmp_path_factory, seed: int, slices: int, scale: float) -> None:
    measurement = jitter("any / label", seed=seed, slices=slices, scale=scale)
    folder = tmp_path_factory.mktemp("saved") / "made"
    path = save(measurement, folder)
    assert load(path) == measurement
    assert path.name == "jitter-20260504T100000-any-label.json"
    assert save(measurement, folder).name == "jitter-20260504T100000-any-label-2.json"
    assert sorted(one.suffix for one in folder.iterdir()) == [".json", ".json"], "no scratch file is left"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no measurement"),
        ("[]", "is no measurement"),
        ('{"penstock_measurement": 1}', "is no measurement"),
        ('{"penstock_measurement": 9}', "want format 1, was 9"),
        ("\udcff", "can't be read"),
    ],
)
def test_file_that_is_no_measurement_is_a_sentence(tmp_path, text, said) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MeasurementError, match=said):
        load(path)
    with pytest.raises(MeasurementError, match="No such file"):
        load(tmp_path / "absent.json")


def test_folder_that_can_not_be_written_is_a_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MeasurementError, match=r"--out: must be a folder that can be written"):
        save(jitter("a"), tmp_path / "file" / "below")
