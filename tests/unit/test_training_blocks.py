"""Readouts by blocks: each of earlier rows alone, penalties of past errors alone, the sums those of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from penstock_kernels.model import OUTPUTS_PER_HORIZON
from penstock_tuning.model.block_pass import BlockPass, Task, block_boundaries, part_boundaries
from penstock_tuning.model.bootstrap import make_draws
from penstock_tuning.model.calibrate import fit_slope
from penstock_tuning.model.fit import untrained
from penstock_tuning.model.gram import Gram
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.progress import silent
from penstock_tuning.model.readouts import (
    FEATURES,
    LINEAR_MEMORY,
    MODEL,
    Family,
    Penalty,
    Readouts,
    baselines_of,
    families_of,
)
from penstock_tuning.model.recordings import Recording, Recordings, Source, Stream, market_recording
from penstock_tuning.model.ridge import solve
from penstock_tuning.model.scores import Ranking
from penstock_tuning.model.settings import BLOCKS, FIRST_FOLD, FIRST_TEST, WASHOUT_TICKS
from penstock_tuning.model.skill import BINS, PARTS, ForecasterSkill, HorizonSkill, bins_of_scores
from penstock_tuning.model.survey import survey
from penstock_tuning.model.targets import NEVER_NS, make_targets
from penstock_tuning.model.walk import Cursor, parts_of_block
from support.simulated import SMALL, market, pairwise_auc

COLUMNS, UNITS = 12, 8
HORIZONS = parse_horizons("20ev")


def rows_of(block: int, rows: int = 150) -> np.ndarray:
    noise = np.random.default_rng(block)
    made = noise.standard_normal((rows, COLUMNS + OUTPUTS_PER_HORIZON)).astype(np.float32)
    made[:, COLUMNS - 1] = 1.0
    made[:, COLUMNS:] += 0.3 * made[:, :3]
    return made


def walked(penalties: tuple[Penalty, ...]) -> tuple[Readouts, list[np.ndarray]]:
    """Return readouts after all blocks, and what each block was foretold by."""
    family = Family(MODEL, 0, penalties)
    readouts = Readouts([family], UNITS, COLUMNS, HORIZONS)
    used = []
    for block in range(BLOCKS):
        readouts.begin(block)
        if block >= FIRST_TEST:
            used.append(readouts.weights(block, family))
        rows = rows_of(block)
        for part in (rows[:70], rows[70:]):
            readouts.add(part[:, :COLUMNS], part[:, COLUMNS:], [np.ones(len(part))])
        readouts.end(block)
    return readouts, used


def test_each_block_is_foretold_by_a_ridge_of_the_rows_before_it() -> None:
    penalties = (Penalty(0.01), Penalty(1.0), Penalty(100.0))
    readouts, used = walked(penalties)
    missed = np.zeros((BLOCKS, len(penalties), OUTPUTS_PER_HORIZON))
    for block in range(FIRST_FOLD, BLOCKS):
        past = Gram(COLUMNS + OUTPUTS_PER_HORIZON)
        past.add(np.concatenate([rows_of(one) for one in range(block)]))
        own = rows_of(block).astype(np.float64)
        trials = [solve(past, COLUMNS, one.units) for one in penalties]
        for index, weights in enumerate(trials):
            missed[block, index] = ((own[:, COLUMNS:] - own[:, :COLUMNS] @ weights.T) ** 2).sum(axis=0)
        if block >= FIRST_TEST:
            best = missed[FIRST_FOLD:block].sum(axis=0).argmin(axis=0)
            expected = np.stack([trials[which][output] for output, which in enumerate(best)])
            np.testing.assert_allclose(used[block - FIRST_TEST], expected, rtol=1e-9)
        told = [one.units for one in readouts.chosen(block, readouts.families[0])]  # As search asks, when all is over.
        before = missed[FIRST_FOLD:block].sum(axis=0).argmin(axis=0)
        assert told == [penalties[which].units for which in before]
    np.testing.assert_allclose(readouts.errors[MODEL], missed, rtol=1e-9)
    squares = (rows_of(5)[:, COLUMNS:].astype(np.float64) ** 2).sum(axis=0)
    np.testing.assert_allclose(readouts.totals[5], squares, rtol=1e-12)


def test_linear_columns_have_their_own_share_of_the_penalty() -> None:
    gram = Gram(COLUMNS + OUTPUTS_PER_HORIZON)
    gram.add(rows_of(1))
    matrix = gram.matrix()
    penalty = 150 * 0.5 * np.diag([1.0] * UNITS + [0.1] * (COLUMNS - UNITS - 1) + [0.0])
    expected = np.linalg.solve(matrix[:COLUMNS, :COLUMNS] + penalty, matrix[:COLUMNS, COLUMNS:]).T
    np.testing.assert_allclose(solve(gram, COLUMNS, 0.5, linear_from=UNITS, linear=0.1), expected, rtol=1e-9)
    readouts, _ = walked((Penalty(0.5, 0.1),))
    whole = Gram(COLUMNS + OUTPUTS_PER_HORIZON)
    for block in range(BLOCKS):
        whole.add(rows_of(block))
    final, chosen = readouts.final(readouts.families[0])
    assert {one.linear for one in chosen} == {0.05}
    np.testing.assert_allclose(final, solve(whole, COLUMNS, 0.5, linear_from=UNITS, linear=0.1), rtol=1e-9)


@pytest.fixture(scope="module")
def task() -> Task:
    recordings = market_recording(market(), "market 1")
    boundaries = block_boundaries(recordings)
    horizons = parse_horizons("next,20ev")
    found = survey(recordings, horizons, boundaries, silent)
    settings = replace(SMALL, units=16, horizons=horizons)
    model = untrained(settings, found.features, found.mean, found.scale)
    return Task(recordings, found, model, boundaries, part_boundaries(recordings))


def test_every_row_is_walked_once_in_blocks_of_time(task: Task) -> None:
    seen: dict[str, int] = {}
    for block in range(BLOCKS):
        for part in parts_of_block(task.recordings, task.boundaries_ns, block):
            stamp = part.stream.line.stamp[part.start : part.stop]
            assert block == 0 or stamp[0] >= task.boundaries_ns[block - 1]
            assert block == BLOCKS - 1 or stamp[-1] < task.boundaries_ns[block]
            assert seen.get(part.stream.name, 0) == part.start
            seen[part.stream.name] = part.stop
    assert seen == {one.name: len(one.ticks) for one in task.recordings.streams()}


def test_walk_goes_on_after_any_row(task: Task) -> None:
    parts = [(one.stream.name, one.start, one.stop) for one in parts_of_block(task.recordings, task.boundaries_ns, 4)]
    for index, (name, _, stop) in enumerate(parts):
        after = Cursor(4, 0, name, stop)
        rest = parts_of_block(task.recordings, task.boundaries_ns, 4, after)
        assert [(one.stream.name, one.start, one.stop) for one in rest] == parts[index + 1 :]


def test_interrupted_pass_goes_on_with_the_same_bits(task: Task) -> None:
    families = families_of(replace(SMALL, units=16, penalties=(0.1, 1.0)))
    whole = BlockPass(task, families)
    kept = {}

    def keep() -> None:
        if whole.cursor.block == 5 and not kept:
            arrays = {name: np.array(one) for name, one in whole.arrays().items()}
            kept.update(cursor=whole.cursor, arrays=arrays)

    for block in range(BLOCKS):
        whole.run_block(block, keep, scored=True)
    resumed = BlockPass(task, families)
    resumed.restore(kept["cursor"], kept["arrays"])
    for block in range(5, BLOCKS):
        resumed.run_block(block, lambda: None, scored=True)
    after, expected = resumed.arrays(), whole.arrays()
    assert after.keys() == expected.keys()
    for name, one in expected.items():
        assert after[name].tobytes() == one.tobytes(), name
    assert [one.log_loss() for one in resumed.skills] == [one.log_loss() for one in whole.skills]
    assert resumed.ticks_done == task.recordings.ticks


def test_baselines_see_the_last_columns_alone(task: Task) -> None:
    linear = replace(SMALL, units=16, memory_averages=(2.0, 5.0), memory_lags=1, horizons=task.model.horizons)
    baseline = untrained(linear, task.model.features, task.model.feature_mean, task.model.feature_scale)
    families = baselines_of(SMALL, baseline)
    inputs = len(task.model.features)
    assert [(one.name, one.first) for one in families] == [(LINEAR_MEMORY, 16), (FEATURES, 16 + 3 * inputs)]
    both = BlockPass(replace(task, baseline=baseline), families_of(SMALL), families)
    alone = BlockPass(task, families_of(SMALL))
    for block in range(FIRST_TEST + 1):
        both.run_block(block, lambda: None, scored=True)
        alone.run_block(block, lambda: None, scored=True)
    assert set(both.skills[0].forecasters) == {MODEL, LINEAR_MEMORY, FEATURES, "queue_imbalance"}
    assert both.readouts.errors[MODEL].tobytes() == alone.readouts.errors[MODEL].tobytes()
    counts = {name: one.direction.total for name, one in both.skills[0].forecasters.items()}
    assert len(set(counts.values())) == 1
    assert counts[MODEL] > 100


def test_bins_of_scores_keep_their_order_within_a_sixteenth() -> None:
    scores = np.sort(np.random.default_rng(0).standard_normal(5_000) * 0.3)
    bins = bins_of_scores(scores)
    assert (np.diff(bins) >= 0).all()
    assert (bins_of_scores(np.array([-1e9, -0.0, 0.0, 1e9])) == [0, BINS // 2, BINS // 2, BINS - 1]).all()
    apart = scores[:-1][np.abs(scores[:-1]) > 1e-3] * 1.07
    assert (bins_of_scores(apart) != bins_of_scores(apart / 1.07)).all()


def test_log_loss_is_that_of_curves_through_earlier_blocks() -> None:
    skill, noise = HorizonSkill([MODEL]), np.random.default_rng(5)
    blocks = []
    for ranking, known in zip(skill.by_block, skill.known_by_block, strict=True):
        up = noise.random(400) < 0.5
        scores = 0.2 * (up - 0.5) + noise.normal(size=400)
        up[300:] = scores[300:] < 0.0  # These mislead, and their labels became known only later.
        ranking.add(scores, up)
        known.add(scores[:300], up[:300])
        blocks.append((scores, up))
    loss, rows = 0.0, 0
    for place in range(1, len(blocks)):
        past = Ranking()
        for scores, up in blocks[:place]:
            past.add(scores[:300], up[:300])
        scores, up = blocks[place]
        said = 1.0 / (1.0 + np.exp(-fit_slope(past.negatives, past.positives) * scores))
        loss -= float(np.log(np.where(up, said, 1.0 - said)).sum())
        rows += len(scores)
    found, coin, counted = skill.log_loss()
    assert counted == rows
    assert found == pytest.approx(loss / rows, rel=1e-3)  # Scores are counted in bins.
    assert coin == pytest.approx(np.log(2.0))


def test_skill_intervals_hold_the_skill_and_a_paired_difference_of_nothing_is_nothing() -> None:
    noise = np.random.default_rng(1)
    rows = 24_000
    signal = noise.standard_normal(rows)
    direction = np.where(signal + noise.standard_normal(rows) > 0, 1, -1).astype(np.int8)
    part = np.arange(rows) * PARTS // rows
    skill = HorizonSkill([MODEL, FEATURES])
    outputs = np.stack([0.4 * signal, 0.1 * signal, signal], axis=1)
    worse = outputs + 0.3 * noise.standard_normal(outputs.shape)
    both, every = {MODEL: outputs, FEATURES: worse}, np.ones(rows, dtype=bool)
    skill.add(FIRST_TEST, part, both, 0.1 * signal, direction, signal, signal, every, 1.0, None)
    auc, r2 = skill.intervals()
    exact = pairwise_auc(signal, direction > 0)
    assert auc[MODEL][0] < exact < auc[MODEL][1]
    assert auc[MODEL][1] - auc[MODEL][0] < 0.05
    assert auc[f"model_minus_{FEATURES}"][0] > 0.0
    assert auc["model_minus_queue_imbalance"] == [0.0, 0.0]
    assert r2[MODEL] == pytest.approx([1.0 - 0.6**2] * 2, abs=1e-6)  # Every row is missed by the same share.
    assert r2[f"model_minus_{FEATURES}"][0] > 0.0
    one = ForecasterSkill()
    one.add_direction(part, 0.1 * signal, direction > 0)
    assert one.auc_values(np.ones((1, PARTS)))[0] == pytest.approx(exact, abs=2e-3)
    assert make_draws(PARTS).counts.shape[1] == PARTS


def twice(pause_ns: int) -> Recordings:
    """Return two recordings with the same ticks, the second *pause_ns* after the end of the first."""
    first = market_recording(market(), "first")
    streams = first.first_streams()
    pause_ns += first.all[0].last_ns - first.all[0].first_ns
    later = []
    for one in streams:
        ticks = one.ticks.copy()
        ticks["ts_recv"] += np.uint64(pause_ns)
        later.append(Stream(one.name, ticks))
    about = first.all[0]
    again = Recording(
        "later", "1" * 64, about.ticks, about.first_ns + pause_ns, about.last_ns + pause_ns, about.instruments
    )
    return Recordings([Source(about, lambda: streams), Source(again, lambda: later)])


def test_rows_are_scored_past_their_washout_and_curves_see_those_known_in_time(task: Task) -> None:
    """The second file begins in a tested block."""
    both = twice(10**9)
    boundaries = block_boundaries(both)
    starts = np.searchsorted(boundaries, [one.line.stamp[0] for one in both.streams()], side="right")
    assert starts.max() >= FIRST_TEST
    work = BlockPass(replace(task, recordings=both, boundaries_ns=boundaries), families_of(replace(SMALL, units=16)))
    for block in range(BLOCKS):
        work.run_block(block, lambda: None, scored=True)
    for index, horizon in enumerate(task.model.horizons):
        scored, known = np.zeros(BLOCKS, dtype=int), np.zeros(BLOCKS, dtype=int)
        for stream in both.streams():
            labels = make_targets(stream.ticks, horizon)
            moved = np.flatnonzero(labels.known & (labels.direction != 0))
            moved = moved[moved >= WASHOUT_TICKS]
            of_row = np.searchsorted(boundaries, stream.line.stamp[moved], side="right")
            in_time = labels.known_ns[moved] < np.append(boundaries, NEVER_NS)[of_row]
            scored += np.bincount(of_row, minlength=BLOCKS)
            known += np.bincount(of_row[in_time], minlength=BLOCKS)
        skill = work.skills[index]
        assert [one.total for one in skill.by_block] == list(scored[FIRST_TEST:])
        assert [one.total for one in skill.known_by_block] == list(known[FIRST_TEST:])
        assert known[FIRST_TEST:].sum() < scored[FIRST_TEST:].sum()


@pytest.mark.parametrize("pause_days", [0.001, 7, 365])
def test_a_pause_between_recordings_takes_no_block_of_its_own(pause_days: float) -> None:
    both = twice(int(pause_days * 86_400e9))
    edges = [0, *block_boundaries(both), 2**63 - 1]
    stamps = np.concatenate([one.line.stamp for one in both.streams()])
    counts = np.histogram(stamps, bins=np.array(edges, dtype=np.int64))[0]
    assert counts.sum() == both.ticks
    assert counts.min() > 0.95 * counts.max()
