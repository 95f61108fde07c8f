"""``measure compare``: did tuning help? Figure by figure, with intervals, and "worse" where it made things worse.

A figure is judged over all CPUs at once (the worst of them in each slice, or all of their time), so that one verdict
has one chance to err; CPUs by themselves are shown beside it and are no part of the verdict.

    worse    the whole interval of after - before is above 0, and the change is large enough to matter
    better   the same below 0
    of several runs a side, every one of one side is beyond every one of the other, else it is no difference
    the same files give the same verdicts
"""

from __future__ import annotations

import math
import statistics as stats
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from penstock_host.cpu_lists import parse_cpus
from penstock_host.measure.bootstrap import RESAMPLES, SLICES_MIN, Interval, differences, order_quantile
from penstock_host.measure.facts import changes
from penstock_host.measure.facts import differences as host_differences
from penstock_host.measure.result import JUDGED_US, Measurement, MeasurementError, Series, Slice, title_of
from penstock_host.measure.runs import runs_of

BUSY_LOAD: Final = 0.3  # Per CPU, before measuring: others are at work.
RELEVANT_SHARE: Final = 0.05  # A change below a twentieth matters to nobody.
ERRING_SHARE: Final = 0.05  # Of comparisons of a host with itself that may find a difference.
_RESAMPLES_PER_SERIES: Final = 200
ALL: Final = "all"


class Verdict(Enum):
    """What a comparison says of one figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"
    UNKNOWN = "can't say"


@dataclass(frozen=True)
class Figure:
    """A number that tuning should make smaller.

    Attributes:
        name: in JSON.
        words: for people.
        unit: what its values are in.
        of: slices to the value.
        relevant: the least change that matters, in its unit.
    """

    name: str
    words: str
    unit: str
    of: Callable[[Sequence[Slice]], float]
    relevant: float


@dataclass(frozen=True)
class Row:
    """One figure of one series, before and after."""

    series: str
    figure: Figure
    before: float
    after: float
    interval: Interval | None
    verdict: Verdict

    @property
    def change_share(self) -> float | None:
        """The change as a share of before; None where that was 0."""
        return (self.after - self.before) / self.before if self.before else None


@dataclass(frozen=True)
class Comparison:
    """Two measurements, and what they say of each other.

    Attributes:
        before: the first.
        after: the second.
        judged: a row per figure, over all series.
        shown: rows of single series, no part of the verdict.
        warnings: why a reader should be careful.
        changed: what was set differently.
    """

    before: Measurement
    after: Measurement
    judged: tuple[Row, ...]
    shown: tuple[Row, ...]
    warnings: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether any judged figure became worse."""
        return any(row.verdict is Verdict.WORSE for row in self.judged)

    @property
    def verdict(self) -> Verdict:
        """What it says as a whole: worse where anything is, else better where anything is."""
        found = {row.verdict for row in self.judged}
        for verdict in (Verdict.WORSE, Verdict.BETTER, Verdict.SAME):
            if verdict in found:
                return verdict
        return Verdict.UNKNOWN


def _typical_worst_us(slices: Sequence[Slice]) -> float:
    return stats.median(piece.max_ns for piece in slices) / 1000


def _rare_worst_us(slices: Sequence[Slice]) -> float:
    return order_quantile(sorted(piece.max_ns for piece in slices), 0.95) / 1000


def _taken_ppm(slices: Sequence[Slice]) -> float:
    return 1e6 * sum(piece.sum_ns for piece in slices) / max(sum(piece.duration_ns for piece in slices), 1)


def _over_per_s(slices: Sequence[Slice]) -> float:
    return 1e9 * sum(piece.over for piece in slices) / max(sum(piece.duration_ns for piece in slices), 1)


def _p50_us(slices: Sequence[Slice]) -> float:
    return stats.median(piece.p50_ns for piece in slices) / 1000


def _p99_us(slices: Sequence[Slice]) -> float:
    return stats.median(piece.p99_ns for piece in slices) / 1000


GAP_FIGURES: Final = (
    Figure("worst_gap_us", "longest gap of a typical slice", "us", _typical_worst_us, 1.0),
    Figure("worst_gap_p95_us", "longest gap of one slice in twenty", "us", _rare_worst_us, 1.0),
    Figure("taken_ppm", "time taken away", "ppm", _taken_ppm, 1.0),
    Figure("over_50us_per_s", f"gaps of {JUDGED_US} us or longer", "/s", _over_per_s, 0.01),
)
PATH_FIGURES: Final = (
    Figure("p50_us", "p50 of a typical slice", "us", _p50_us, 1.0),
    Figure("p99_us", "p99 of a typical slice", "us", _p99_us, 1.0),
    Figure("worst_us", "longest of a typical slice", "us", _typical_worst_us, 1.0),
)
FIGURES: Final = {"jitter": GAP_FIGURES, "path": PATH_FIGURES}
# A tool that keeps no slices: its longest is shown, and nobody judges one number.
_MAX_FIGURE: Final = Figure("max_us", "longest of the run", "us", _typical_worst_us, 1.0)


def compare(before: Measurement, after: Measurement) -> Comparison:
    """Say how *after* differs from *before*.

    Raises:
        MeasurementError: they are of different kinds, or have no series in common.
    """
    if before.kind != after.kind:
        raise MeasurementError(
            f"compare: want two measurements of one kind, was {before.kind} and {after.kind}; measure the same twice"
        )
    pairs = [
        (one, other) for one in before.series for other in after.series if one.name == other.name
    ]  # Few series; the order is that of before.
    if not pairs:
        raise MeasurementError(
            f"compare: want series in common, was {_names(before)} and {_names(after)}; measure the same CPUs twice"
        )
    faults = _setting_faults(before, after)
    figures = FIGURES.get(before.kind, (_MAX_FIGURE,))
    judged = _rows(_pooled(before.kind, pairs), figures, judge=not faults, resamples=RESAMPLES)
    shown: list[Row] = []
    for pair in pairs if len(pairs) > 1 else []:
        shown += _rows((pair[0].name, *pair), figures, judge=not faults, resamples=_RESAMPLES_PER_SERIES)
    return Comparison(
        before=before,
        after=after,
        judged=tuple(judged),
        shown=tuple(shown),
        warnings=(*faults, *_warnings(before, after, pairs)),
        changed=tuple(changes(before.host, after.host)),
    )


def rendered(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as what JSON can hold."""
    return {
        "kind": comparison.before.kind,
        "before": title_of(comparison.before),
        "after": title_of(comparison.after),
        "verdict": comparison.verdict.value,
        "mend": mend_of(comparison),
        "figures": [_row_rendered(row) for row in comparison.judged],
        "series": [_row_rendered(row) for row in comparison.shown],
        "warnings": list(comparison.warnings),
        "changed": list(comparison.changed),
    }


def mend_of(comparison: Comparison) -> str:
    """Return what to do about it; empty for nothing."""
    if comparison.worse:
        return "what was applied made it worse: `penstock-tune revert` puts every value back; measure again after it"
    if comparison.verdict is Verdict.UNKNOWN:
        return "measure both longer, with the same settings: ten minutes each (--seconds 600)"
    return ""


def _pooled(kind: str, pairs: Sequence[tuple[Series, Series]]) -> tuple[str, Series, Series]:
    """Return all series as one: the daemon's TOTAL where there is one, else every CPU, slice by slice."""
    if kind == "path":
        total = next((pair for pair in pairs if pair[0].name.startswith("TOTAL")), pairs[-1])
        return (total[0].name, *total)
    if len(pairs) == 1:
        return (pairs[0][0].name, *pairs[0])
    return (ALL, _together([one for one, _ in pairs]), _together([other for _, other in pairs]))


def _together(series: Sequence[Series]) -> Series:
    """Return CPUs that were measured at the same time as one series: the longest of each slice, and all their time."""
    runs = [
        [_at_once(row) for row in zip(*pieces, strict=False)]
        for pieces in zip(*(runs_of(one) for one in series), strict=True)
    ]
    return Series(
        name=ALL,
        counts={},
        sum_ns=sum(one.sum_ns for one in series),
        max_ns=max(one.max_ns for one in series),
        duration_ns=sum(one.duration_ns for one in series),
        slices=tuple(piece for run in runs for piece in run),
        run_lengths=tuple(len(run) for run in runs),
    )


def _at_once(row: Sequence[Slice]) -> Slice:
    return Slice(
        duration_ns=sum(piece.duration_ns for piece in row),
        count=sum(piece.count for piece in row),
        sum_ns=sum(piece.sum_ns for piece in row),
        max_ns=max(piece.max_ns for piece in row),
        over=sum(piece.over for piece in row),
    )


def _rows(pair: tuple[str, Series, Series], figures: Sequence[Figure], *, judge: bool, resamples: int) -> list[Row]:
    name, before, after = pair
    if not before.slices or not after.slices:
        return [Row(name, _MAX_FIGURE, before.max_ns / 1000, after.max_ns / 1000, None, Verdict.UNKNOWN)]
    functions = [figure.of for figure in figures]
    runs_before, runs_after = runs_of(before), runs_of(after)
    # All figures together are to err once in twenty, not each of them.
    confidence = 1.0 - ERRING_SHARE / len(figures)
    found = differences(runs_before, runs_after, functions, resamples=resamples, confidence=confidence)
    intervals: list[Interval] | list[None] = found if found is not None else [None] * len(figures)
    rows = []
    for figure, interval in zip(figures, intervals, strict=True):
        was = figure.of(before.slices)
        verdict = _verdict(figure, was, interval) if judge else Verdict.UNKNOWN
        if not _apart([figure.of(run) for run in runs_before], [figure.of(run) for run in runs_after]):
            verdict = Verdict.SAME if verdict in (Verdict.BETTER, Verdict.WORSE) else verdict
        rows.append(Row(name, figure, was, figure.of(after.slices), interval, verdict))
    return rows


def _apart(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether all runs of one side are beyond all of the other; one run a side is beyond or equal."""
    return max(before) < min(after) or max(after) < min(before)


def _verdict(figure: Figure, before: float, interval: Interval | None) -> Verdict:
    if interval is None:
        return Verdict.UNKNOWN
    if abs(interval.value) < max(figure.relevant, RELEVANT_SHARE * abs(before)):
        return Verdict.SAME
    if interval.low > 0:
        return Verdict.WORSE
    return Verdict.BETTER if interval.high < 0 else Verdict.SAME


def _setting_faults(before: Measurement, after: Measurement) -> list[str]:
    """Return why the two can't be judged: a longer slice has a longer longest gap whatever is tuned."""
    return [
        f"{name}: want the same in both, was {before.settings.get(name)} and {after.settings.get(name)}; nothing is judged: "
        "measure again with the same settings"
        for name in sorted({*before.settings, *after.settings})
        if before.settings.get(name) != after.settings.get(name)
    ]


def _warnings(before: Measurement, after: Measurement, pairs: Sequence[tuple[Series, Series]]) -> list[str]:
    found = [f"{text}: these are different hosts" for text in host_differences(before.host, after.host)]
    left_out = sorted({one.name for one in (*before.series, *after.series)} - {one.name for one, _ in pairs})
    if left_out:
        found.append(f"{', '.join(left_out)}: in one of the two alone, and left out")
    for name, side in (("before", before), ("after", after)):
        busy = _load_per_cpu(side.host)
        if busy > BUSY_LOAD:
            found.append(
                f"{name}: load {busy:.1f} per CPU when it began; a busy host differs from one minute to the next: measure "
                "it quiet, or several times in turns under the same two labels, and compare all files"
            )
    runs = [len(runs_of(one)) for one in pairs[0]]
    chance = 2 / math.comb(sum(runs), runs[0])  # Of so many in any order: that one side's come first, or last.
    if sum(runs) > 2 and chance > ERRING_SHARE:
        found.append(
            f"{runs[0]} and {runs[1]} runs: where they differ by themselves, all of one side are beyond all of the other in "
            f"{chance:.0%} of cases by chance alone; take four or more of each"
        )
    fewest = min(len(run) for pair in pairs for one in pair for run in runs_of(one))
    if fewest == 0:
        found.append(f"{before.kind} keeps no slices: one number each, without an interval; take several to judge them")
    elif fewest < SLICES_MIN:
        found.append(f"{fewest} slices: want {SLICES_MIN} or more to tell chance from change; measure longer")
    return found


def _load_per_cpu(host: Mapping[str, Any]) -> float:
    try:
        return float(host["load"][0]) / max(len(parse_cpus(str(host["cpus_online"]))), 1)
    except (KeyError, IndexError, ValueError, TypeError):
        return 0.0


def _names(measurement: Measurement) -> str:
    return ", ".join(series.name for series in measurement.series) or "none"


def _row_rendered(row: Row) -> dict[str, Any]:
    return {
        "series": row.series,
        "figure": row.figure.name,
        "unit": row.figure.unit,
        "before": row.before,
        "after": row.after,
        "change": row.after - row.before,
        "low": row.interval.low if row.interval else None,
        "high": row.interval.high if row.interval else None,
        "verdict": row.verdict.value,
    }
