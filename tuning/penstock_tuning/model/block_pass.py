"""One walk over all rows: each is foretold by readouts of earlier blocks, then joins the sums of its own.

    state after a row = f(recordings, settings, rows before it)        so a walk can stop and go on with the same bits

What a continuation needs is the cursor, the places of streams that are not at their end, the sums and the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float64s
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Model
from penstock_tuning.model.bench_rows import Bench, under
from penstock_tuning.model.labelled import Labelled, label
from penstock_tuning.model.readouts import Family, target_columns
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.scores import queue_imbalance
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST
from penstock_tuning.model.skill import PARTS, HorizonSkill
from penstock_tuning.model.survey import Survey
from penstock_tuning.model.walk import Cursor, Part, parts_of_block

STREAMS_NAMED_MAX: Final = 8  # Scores are kept per stream up to so many instruments.


@dataclass(frozen=True, eq=False)
class Task:
    """What a walk needs to know.

    Attributes:
        model: with its reservoir and the features' scale; its readout plays no part.
        boundaries_ns: between the blocks.
        baseline: the linear baselines' columns are its last ones: memory, inputs, 1.
        part_boundaries_ns: between the PARTS cells of time of the test blocks; empty where nothing is scored.
    """

    recordings: Recordings
    survey: Survey
    model: Model
    boundaries_ns: tuple[int, ...]
    part_boundaries_ns: tuple[int, ...] = ()
    baseline: Model | None = None


class BlockPass:
    """The walk, block by block."""

    def __init__(self, task: Task, families: Sequence[Family], baselines: Sequence[Family] = ()) -> None:
        """Fit *families* on the rows of the model, and *baselines* on those of its linear stand-in."""
        self.task = task
        self._benches = [Bench(task.model, families)]
        if task.baseline is not None and baselines:
            self._benches.append(Bench(task.baseline, baselines))
        self.readouts = self._benches[0].readouts
        self.skills = [HorizonSkill([one.name for one in (*families, *baselines)]) for _ in task.model.horizons]
        self.cursor = Cursor()
        self.ticks_done = 0
        names = sorted({name for one in task.recordings.all for name in one.instruments})
        self._named = names if len(names) <= STREAMS_NAMED_MAX else []

    def run_block(self, block: int, after_part: Callable[[], None], *, scored: bool) -> None:
        """Walk *block*, from the cursor on where that lies in it.

        Args:
            block: the one after the last.
            after_part: called after each part, when the state is whole.
            scored: whether rows of the test blocks are foretold.
        """
        for bench in self._benches:
            bench.begin(block, foretells=scored and block >= FIRST_TEST)
        for part in parts_of_block(self.task.recordings, self.task.boundaries_ns, block, self.cursor):
            self._walk(part, block)
            self.cursor = Cursor(block, part.source, part.stream.name, part.stop)
            self.ticks_done += part.stop - part.start
            after_part()
        for bench in self._benches:
            bench.readouts.end(block)
        self.cursor = Cursor(block + 1)

    def _walk(self, part: Part, block: int) -> None:
        task = self.task
        labelled = label(part.stream, task.model.horizons, task.boundaries_ns, part.start, part.stop)
        kept = labelled.segment == block
        targets = target_columns(labelled.targets, kept, task.survey.ranges)
        weights = [one.weights[kept] for one in labelled.targets]
        outputs: dict[str, Float64s] = {}
        for bench in self._benches:
            design = bench.rows(part)
            if kept.any():
                bench.readouts.add(design[kept], targets, weights)
            outputs |= bench.foretold(design)
        if outputs:
            self._score(labelled, block, part.stream.ticks[part.start : part.stop], outputs)

    def _score(self, labelled: Labelled, block: int, ticks: NDArray[np.void], outputs: Mapping[str, Float64s]) -> None:
        survey = self.task.survey
        stamp = labelled.stream.line.stamp[labelled.start : labelled.start + len(ticks)]
        cell = np.searchsorted(self.task.part_boundaries_ns, stamp, side="right")
        imbalance = queue_imbalance(ticks)
        name = labelled.stream.name if labelled.stream.name in self._named else None
        for index, targets in enumerate(labelled.targets):
            kept = targets.known & labelled.settled
            known_in = np.searchsorted(self.task.boundaries_ns, targets.known_ns[kept], side="right")
            limits = survey.ranges[index]
            raw = targets.returns[kept]
            first = index * OUTPUTS_PER_HORIZON
            self.skills[index].add(
                block,
                cell[kept],
                {family: found[kept, first : first + OUTPUTS_PER_HORIZON] for family, found in outputs.items()},
                imbalance[kept],
                targets.direction[kept],
                np.clip(raw, limits.low, limits.high) / limits.scale,
                raw / limits.scale,
                known_in == block,
                survey.moved[index],
                name,
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a continuation needs beside the cursor, by name."""
        kept: dict[str, NDArray[Any]] = {"ticks_done": np.array(self.ticks_done)}
        for index, bench in enumerate(self._benches):
            kept |= {f"bench{index}/{name}": one for name, one in bench.arrays().items()}
        for index, skill in enumerate(self.skills):
            kept |= {f"skill{index}/{name}": one for name, one in skill.arrays().items()}
        return kept

    def restore(self, cursor: Cursor, kept: Mapping[str, NDArray[Any]]) -> None:
        """Go on at *cursor* from *kept*, which ``arrays`` of an equal task gave."""
        self.cursor = cursor
        self.ticks_done = int(kept["ticks_done"])
        for index, bench in enumerate(self._benches):
            bench.restore(under(f"bench{index}/", kept), len(self.task.recordings.all))
        for index, skill in enumerate(self.skills):
            skill.restore(under(f"skill{index}/", kept), self._named)


def block_boundaries(recordings: Recordings) -> tuple[int, ...]:
    """Return the times between the BLOCKS blocks, Unix ns."""
    return tuple(recordings.quantile_times_ns([block / BLOCKS for block in range(1, BLOCKS)]))


def part_boundaries(recordings: Recordings) -> tuple[int, ...]:
    """Return the times between the PARTS cells of the test blocks, Unix ns."""
    first = FIRST_TEST / BLOCKS
    return tuple(recordings.quantile_times_ns([first + (1.0 - first) * part / PARTS for part in range(1, PARTS)]))
