"""How many past ticks restore the state of an instrument: measured on the recordings, and capped.

    rebuild_ticks    until a state that began cold agrees with a warm one to TOLERANCE in every unit and input,
                     rounded up to whole STEPs, at most REBUILD_TICKS_MAX

What remembers longest waits for an event (a move, a trade), so quiet markets need more. The cap is what the daemon's
journal holds for each state (80 KiB), and keeps a rebuild at some milliseconds. What a state rebuilt from that many ticks is worth is
measured too, as the largest difference of a probability, and stands in the training report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.drive import run_predictions
from penstock_kernels.forgetting import measured_forgetting, measured_rebuild_ticks
from penstock_kernels.model import Model, ModelError
from penstock_kernels.predictor import pack
from penstock_tuning.model.recordings import Stream

TOLERANCE: Final = 1e-3  # Of a unit's state, and of a standardised input.
REBUILD_TICKS_MAX: Final = 1_024
STEP: Final = 64
STREAMS_MAX: Final = 8  # The longest ones are measured.
_LIMIT_TICKS: Final = 4_096
_COMPARED_TICKS: Final = 256
_FORGETTING_TICKS: Final = 8_192
_FORGETTING_DIGITS: Final = 3  # The last bits of its fit are those of a linear algebra library.


def forgetting_of(model: Model, ticks: NDArray[np.void]) -> float:
    """Return the measured rate at which *model* forgets, the exponent per tick: the check of the echo state property.

    Args:
        model: its readout plays no part.
        ticks: of one instrument, shape (any,), dtype TICK_DTYPE; its end is measured.

    Raises:
        ModelError: the memory does not fade: a state would depend on how it began for ever, and could not be rebuilt.
    """
    return float(f"{measured_forgetting(pack(model), ticks[-_FORGETTING_TICKS:]):.{_FORGETTING_DIGITS}g}")


def rebuild_ticks_of(model: Model, streams: Sequence[Stream]) -> tuple[int, int | None]:
    """Return the rebuild_ticks that *model* should have, and the most that any stream needed.

    Args:
        model: its readout plays no part.
        streams: ticks like those to be served.

    Returns:
        The number for the model; and the uncapped measure, None where a stream was too short or did not forget.
    """
    packed = pack(model)
    longest = sorted(streams, key=lambda stream: -len(stream.ticks))[:STREAMS_MAX]
    try:
        needed = max(
            measured_rebuild_ticks(packed, one.ticks, tolerance=TOLERANCE, limit=_LIMIT_TICKS) for one in longest
        )
    except ModelError:  # Too short, or a memory longer than the stretches: the cap is all that can be promised.
        return REBUILD_TICKS_MAX, None
    return min(REBUILD_TICKS_MAX, -(-max(1, needed) // STEP) * STEP), needed


def measured_agreement(model: Model, ticks: NDArray[np.void]) -> float | None:
    """Return the largest difference of a probability between a rebuilt state and one that saw as many ticks before.

    Args:
        model: with its readout and rebuild_ticks.
        ticks: of one instrument, shape (any,), dtype TICK_DTYPE; its end is compared.

    Returns:
        None where there are fewer ticks than twice ``model.rebuild_ticks`` and the ones compared.
    """
    needed = 2 * model.rebuild_ticks + _COMPARED_TICKS
    if len(ticks) < needed:
        return None
    packed = pack(model)
    whole = run_predictions(packed, ticks[-needed:])[-_COMPARED_TICKS:]
    rebuilt = run_predictions(packed, ticks[model.rebuild_ticks - needed :])[-_COMPARED_TICKS:]
    return float(np.abs(whole[:, :, 2:] - rebuilt[:, :, 2:]).max())
