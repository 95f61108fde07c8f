"""One model's rows in a walk, with the readouts that are fitted on them: the model itself, or its linear baselines.

a bench knows nothing of scores: it makes rows, sums them, and tells what its readouts foretell
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.compiled import Float32s, Float64s
from penstock_kernels.drive import Place, new_place, run_design
from penstock_kernels.model import Model
from penstock_kernels.predictor import pack
from penstock_tuning.model.readouts import Family, Readouts
from penstock_tuning.model.ridge import apply
from penstock_tuning.model.walk import PART_TICKS, Part

_READOUTS: Final = "readouts/"


class Bench:
    """Design rows of *model*, stream by stream, and readouts of *families* on them."""

    def __init__(self, model: Model, families: Sequence[Family]) -> None:
        self.readouts = Readouts(families, model.units + model.products, model.columns, model.horizons)
        self._packed = pack(model)
        self._places: dict[tuple[int, str], Place] = {}
        self._design = np.empty((PART_TICKS, model.columns), dtype=np.float32)
        self._weights: dict[str, Float64s] = {}

    def begin(self, block: int, *, foretells: bool) -> None:
        """Solve for what *block* needs."""
        self.readouts.begin(block)
        self._weights = {}
        if foretells:
            self._weights = {one.name: self.readouts.weights(block, one) for one in self.readouts.families}

    def rows(self, part: Part) -> Float32s:
        """Return the rows of *part*, which the next call overwrites."""
        key = (part.source, part.stream.name)
        place = self._places.setdefault(key, new_place(self._packed))
        ticks = part.stream.ticks[part.start : part.stop]
        if part.ends_stream:
            del self._places[key]
        return run_design(self._packed, ticks, place, self._design[: len(ticks)])

    def foretold(self, design: Float32s) -> dict[str, Float64s]:
        """Return the outputs of each family for *design*, shape (rows, outputs) each; empty where nothing is foretold."""
        found = {}
        for family in self.readouts.families:
            if family.name in self._weights:
                found[family.name] = np.empty((len(design), self.readouts.outputs))
                columns = np.ascontiguousarray(design[:, family.first :])
                apply(columns, self._weights[family.name][:, family.first :].T.copy(), found[family.name])
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a continuation needs, by name."""
        kept = {f"{_READOUTS}{name}": one for name, one in self.readouts.arrays().items()}
        for (source, name), place in self._places.items():
            kept[f"running{source}/{name}"] = place.running
            kept[f"state{source}/{name}"] = place.state
        return kept

    def restore(self, kept: Mapping[str, NDArray[Any]], sources: int) -> None:
        """Go on from *kept*, which ``arrays`` of an equal bench over so many recordings gave."""
        self.readouts.restore(under(_READOUTS, kept))
        for source in range(sources):
            states = under(f"state{source}/", kept)
            for name, running in under(f"running{source}/", kept).items():
                place = new_place(self._packed)
                place.running[:], place.state[:] = running, states[name]
                self._places[source, name] = place


def under(prefix: str, kept: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names begin with *prefix*, without it."""
    return {name[len(prefix) :]: one for name, one in kept.items() if name.startswith(prefix)}
