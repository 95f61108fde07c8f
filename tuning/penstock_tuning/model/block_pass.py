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

from penstock_kernels.compiled import Float32s, Float64s
from penstock_kernels.drive import Place, new_place, run_design
from penstock_kernels.model import OUTPUTS_PER_HORIZON, Model
from penstock_kernels.predictor import pack
from penstock_tuning.model.labelled import Labelled, label
from penstock_tuning.model.readouts import Family, Readouts, target_columns
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.ridge import apply
from penstock_tuning.model.scores import queue_imbalance
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST
from penstock_tuning.model.skill import PARTS, HorizonSkill
from penstock_tuning.model.survey import Survey
from penstock_tuning.model.walk import PART_TICKS, Cursor, Part, parts_of_block

STREAMS_NAMED_MAX: Final = 8  # Scores are kept per stream up to so many instruments.


@dataclass(frozen=True, eq=False)
class Task:
    """What a walk needs to know.

    Attributes:
        model: with its reservoir and the features' scale; its readout plays no part.
        boundaries_ns: between the blocks.
        part_boundaries_ns: between the PARTS cells of time of the test blocks; empty where nothing is scored.
    """

    recordings: Recordings
    survey: Survey
    model: Model
    boundaries_ns: tuple[int, ...]
    part_boundaries_ns: tuple[int, ...] = ()


class BlockPass:
    """The walk, block by block."""

    def __init__(self, task: Task, families: Sequence[Family]) -> None:
        model = task.model
        self.task = task
        self.readouts = Readouts(families, model.units, model.columns, model.horizons)
        self.skills = [HorizonSkill([one.name for one in families]) for _ in model.horizons]
        self.cursor = Cursor()
        self.ticks_done = 0
        names = sorted({name for one in task.recordings.all for name in one.instruments})
        self._named = names if len(names) <= STREAMS_NAMED_MAX else []
        self._packed = pack(model)
        self._places: dict[tuple[int, str], Place] = {}
        self._design = np.empty((PART_TICKS, model.columns), dtype=np.float32)

    def run_block(self, block: int, after_part: Callable[[], None], *, scored: bool) -> None:
        """Walk *block*, from the cursor on where that lies in it.

        Args:
            block: the one after the last.
            after_part: called after each part, when the state is whole.
            scored: whether rows of the test blocks are foretold.
        """
        self.readouts.begin(block)
        weights = {}
        if scored and block >= FIRST_TEST:
            weights = {one.name: self.readouts.weights(block, one) for one in self.readouts.families}
        for part in parts_of_block(self.task.recordings, self.task.boundaries_ns, block, self.cursor):
            self._walk(part, block, weights)
            self.cursor = Cursor(block, part.source, part.stream.name, part.stop)
            self.ticks_done += part.stop - part.start
            after_part()
        self.readouts.end(block)
        self.cursor = Cursor(block + 1)

    def _walk(self, part: Part, block: int, weights: Mapping[str, Float64s]) -> None:
        task, key = self.task, (part.source, part.stream.name)
        place = self._places.setdefault(key, new_place(self._packed))
        ticks = part.stream.ticks[part.start : part.stop]
        design = run_design(self._packed, ticks, place, self._design[: len(ticks)])
        if part.ends_stream:
            del self._places[key]
        labelled = label(part.stream, task.model.horizons, task.boundaries_ns, part.start, part.stop)
        kept = labelled.segment == block
        if kept.any():
            targets = target_columns(labelled.targets, kept, task.survey.ranges)
            self.readouts.add(design[kept], targets, [one.weights[kept] for one in labelled.targets])
        if weights:
            self._score(labelled, block, ticks, design, weights)

    def _score(
        self, labelled: Labelled, block: int, ticks: NDArray[np.void], design: Float32s, weights: Mapping[str, Float64s]
    ) -> None:
        survey = self.task.survey
        outputs = {}
        for family in self.readouts.families:
            outputs[family.name] = np.empty((len(design), self.readouts.outputs))
            columns = np.ascontiguousarray(design[:, family.first :])
            apply(columns, weights[family.name][:, family.first :].T.copy(), outputs[family.name])
        stamp = labelled.stream.line.stamp[labelled.start : labelled.start + len(ticks)]
        cell = np.searchsorted(self.task.part_boundaries_ns, stamp, side="right")
        imbalance = queue_imbalance(ticks)
        name = labelled.stream.name if labelled.stream.name in self._named else None
        for index, targets in enumerate(labelled.targets):
            kept = targets.known & labelled.settled
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
                survey.moved[index],
                name,
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a continuation needs beside the cursor, by name."""
        kept = {f"readouts/{name}": one for name, one in self.readouts.arrays().items()}
        for index, skill in enumerate(self.skills):
            kept |= {f"skill{index}/{name}": one for name, one in skill.arrays().items()}
        for (source, name), place in self._places.items():
            kept[f"running{source}/{name}"] = place.running
            kept[f"state{source}/{name}"] = place.state
        kept["ticks_done"] = np.array(self.ticks_done)
        return kept

    def restore(self, cursor: Cursor, kept: Mapping[str, NDArray[Any]]) -> None:
        """Go on at *cursor* from *kept*, which ``arrays`` of an equal task gave."""
        self.cursor = cursor
        self.ticks_done = int(kept["ticks_done"])
        self.readouts.restore(_under("readouts/", kept))
        for index, skill in enumerate(self.skills):
            skill.restore(_under(f"skill{index}/", kept), self._named)
        for source in range(len(self.task.recordings.all)):
            states = _under(f"state{source}/", kept)
            for name, running in _under(f"running{source}/", kept).items():
                place = new_place(self._packed)
                place.running[:], place.state[:] = running, states[name]
                self._places[source, name] = place


def block_boundaries(recordings: Recordings) -> tuple[int, ...]:
    """Return the times between the BLOCKS blocks, Unix ns."""
    return tuple(recordings.quantile_times_ns([block / BLOCKS for block in range(1, BLOCKS)]))


def part_boundaries(recordings: Recordings) -> tuple[int, ...]:
    """Return the times between the PARTS cells of the test blocks, Unix ns."""
    first = FIRST_TEST / BLOCKS
    return tuple(recordings.quantile_times_ns([first + (1.0 - first) * part / PARTS for part in range(1, PARTS)]))


def _under(prefix: str, kept: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: one for name, one in kept.items() if name.startswith(prefix)}
