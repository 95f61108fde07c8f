"""The online readout: corrects a model's outputs by what followed the ticks of this very session.

    outputs' = outputs + w . z        w = 0 until something is learned; z as in online_layout.py

Two calls per tick. ``online_observe`` takes the tick in: labels that it makes known are learned, at most
``updates_per_tick`` of each horizon. ``online_adjust`` corrects the outputs of the same tick and keeps its row until the
label is known. Nothing but ticks drives either, so the same ticks give the same bits however they are cut into batches.

    learned + skipped + pending = rows seen         each row counts once per horizon
    the work of a tick is bounded: horizons * updates_per_tick updates, and pending_max labels written, each once a row

Labels are those of training (penstock_tuning/model/targets.py), found causally. The rows that one tick labels are always
the oldest ones without a label, and all of them have the same end. They are learned in the order of their ticks, the
rest at the next ticks: a row is skipped for want of room alone, never for what became of it, which would bias what is
learned. All rows that one change of the mid labels have one outcome for NEXT_MOVE, so each counts 1 / sqrt(such rows).
"""

from __future__ import annotations

from math import isnan, sqrt
from typing import Final

from penstock.v1.records import UNDEFINED_PRICE
from penstock_kernels import online_layout as layout
from penstock_kernels.compiled import Float32s, Int64, Int64s, compiled
from penstock_kernels.elementary import from_bits
from penstock_kernels.model import OUTPUTS_PER_HORIZON, HorizonKind
from penstock_kernels.online_rls import rls_predict, rls_step

REGRESSOR_MAX: Final = 8.0  # Bound of a regressor's size: more would only lose digits.
_PRICE_MAX: Final = 2**61  # As in targets.py: above it a price is taken for undefined.
_NEXT_MOVE: Final = int(HorizonKind.NEXT_MOVE)
_EVENTS: Final = int(HorizonKind.EVENTS)
_TIME: Final = int(HorizonKind.TIME)
_COUNT, _WIDTH, _UNITS, _INPUTS, _HORIZONS = (
    layout.COUNT,
    layout.WIDTH,
    layout.UNITS,
    layout.INPUTS,
    layout.HORIZONS,
)


@compiled
def online_observe(words: Int64s, values: Float32s, ts_recv: Int64, bid_px: Int64, ask_px: Int64) -> None:
    """Take one tick in: learn from the rows whose labels it makes known.

    To be called for every tick of the instrument, those that only rebuild a state included: they have no rows, so
    nothing is learned twice.

    Args:
        words: of one online readout. Overwritten.
        values: of the same. Overwritten.
        ts_recv: Unix time, ns.
        bid_px: best bid after the event, 1e-9, or undefined.
        ask_px: best ask after the event.

    Allocates nothing.
    """
    before = words[layout.DOUBLED_MID]
    mid = before
    defined = UNDEFINED_PRICE not in (bid_px, ask_px)
    if defined and -_PRICE_MAX < bid_px < _PRICE_MAX and -_PRICE_MAX < ask_px < _PRICE_MAX:
        mid = bid_px + ask_px
    words[layout.DOUBLED_MID] = mid
    words[layout.TICKS] += 1
    words[layout.STAMP] = max(words[layout.STAMP], ts_recv)
    for horizon in range(words[_HORIZONS]):
        block = layout.FIRST_HORIZON + horizon * layout.HORIZON_WORDS
        if words[block + layout.WAITING] > words[block + layout.LABELLED]:
            _label(words, horizon, block, before, mid)
        if words[block + layout.LABELLED] > 0:
            _learn(words, values, horizon, block)


@compiled
def _label(words: Int64s, horizon: int, block: int, before: Int64, mid: Int64) -> None:
    """Write the labels that this tick, which took the mid from *before* to *mid*, makes known."""
    kind = words[block + layout.KIND]
    if kind == _NEXT_MOVE and (mid == before or before <= 0):
        return
    known = _known_rows(words, horizon, block, kind)
    end = before if kind == _TIME else mid
    labelled = known - words[block + layout.LABELLED]
    for place in range(words[block + layout.LABELLED], known):
        row = _row(words, horizon, block, place)
        words[row + layout.ROW_END] = max(end, 0)
        words[row + layout.ROW_BEFORE] = before if kind == _NEXT_MOVE else words[row + layout.ROW_MID]
        words[row + layout.ROW_SHARERS] = labelled if kind == _NEXT_MOVE else 1
    words[block + layout.LABELLED] = known


@compiled
def _known_rows(words: Int64s, horizon: int, block: int, kind: int) -> int:
    """Return how many of the oldest rows have a label now: rows are in order, so by bisection."""
    low, high = words[block + layout.LABELLED], words[block + layout.WAITING]
    while low < high:
        middle = (low + high) // 2
        row = _row(words, horizon, block, middle)
        if kind == _EVENTS:
            known = words[layout.TICKS] - words[row + layout.ROW_TICK] >= words[block + layout.EVENTS]
        else:
            known = words[layout.STAMP] - words[row + layout.ROW_STAMP] > words[block + layout.DURATION_NS]
        if known:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _slot(words: Int64s, block: int, place: int) -> int:
    """Return the slot in its ring of the *place*-th oldest row that waits."""
    slot = words[block + layout.HEAD] + place
    return slot - words[layout.PENDING] if slot >= words[layout.PENDING] else slot


@compiled
def _row(words: Int64s, horizon: int, block: int, place: int) -> int:
    """Return the first word of the *place*-th oldest row that waits."""
    slot = horizon * words[layout.PENDING] + _slot(words, block, place)
    return words[layout.ROWS_OFFSET] + slot * layout.ROW_WORDS


@compiled
def _learn(words: Int64s, values: Float32s, horizon: int, block: int) -> None:
    """Learn from the oldest labelled rows, as many as a tick may, and let them go."""
    count, width = words[_COUNT], words[_WIDTH]
    gain = values[width : 2 * width]
    targets = values[2 * width : 2 * width + OUTPUTS_PER_HORIZON]
    first = words[layout.VALUES_OFFSET] + horizon * words[layout.VALUES_STRIDE]
    middle = first + OUTPUTS_PER_HORIZON * width
    rows = middle + count * width
    weights = values[first:middle].reshape((OUTPUTS_PER_HORIZON, width))
    root = values[middle:rows].reshape((count, width))
    scale, forgetting = from_bits(words[block + layout.SCALE]), from_bits(words[layout.FORGETTING])
    uses = min(words[block + layout.LABELLED], words[layout.UPDATES_PER_TICK])
    for place in range(uses):
        row = _row(words, horizon, block, place)
        end, mid = words[row + layout.ROW_END], words[row + layout.ROW_MID]
        if end == 0:
            words[layout.SKIPPED] += 1
            continue
        start = rows + _slot(words, block, place) * width
        regressors = values[start : start + width]
        moved = end - words[row + layout.ROW_BEFORE]
        direction = 1.0 if moved > 0 else (-1.0 if moved < 0 else 0.0)
        change = float(end - mid) / float(mid)
        limited = min(max(change / scale, -1.0), 1.0) if scale > 0.0 else 0.0
        targets[0] = limited - regressors[0]
        targets[1] = direction - regressors[1]
        targets[2] = abs(direction) - regressors[2]
        weight = 1.0 / sqrt(words[row + layout.ROW_SHARERS])
        trace_max = from_bits(words[layout.TRACE])
        rls_step(root, weights, regressors, targets, gain, count, weight, forgetting, trace_max)
        words[layout.LEARNED] += 1
    words[block + layout.HEAD] = _slot(words, block, uses)
    words[block + layout.WAITING] -= uses
    words[block + layout.LABELLED] -= uses


@compiled
def online_adjust(words: Int64s, values: Float32s, outputs: Float32s, inputs: Float32s, state: Float32s) -> None:
    """Correct the outputs of the tick that was observed last, and keep its row until the label is known.

    Args:
        words: of one online readout. Overwritten.
        values: of the same. Overwritten.
        outputs: of the model, from readout.outputs_step, shape (HORIZONS_MAX, 4). Overwritten.
        inputs: of the tick, shape (inputs,), standardised.
        state: x after the tick, shape (at least units,).

    Allocates nothing.
    """
    count, width = words[_COUNT], words[_WIDTH]
    regressors = values[:width]
    place = OUTPUTS_PER_HORIZON
    for position in range(words[_INPUTS]):
        regressors[place + position] = _limited(inputs[position])
    place += words[_INPUTS]
    regressors[place] = 1.0
    for position in range(words[_UNITS]):
        regressors[place + 1 + position] = _limited(state[position])
    for horizon in range(words[_HORIZONS]):
        block = layout.FIRST_HORIZON + horizon * layout.HORIZON_WORDS
        first = words[layout.VALUES_OFFSET] + horizon * words[layout.VALUES_STRIDE]
        middle = first + OUTPUTS_PER_HORIZON * width
        weights = values[first:middle].reshape((OUTPUTS_PER_HORIZON, width))
        for output in range(OUTPUTS_PER_HORIZON):
            regressors[output] = _limited(outputs[horizon, output])
        for output in range(OUTPUTS_PER_HORIZON):
            outputs[horizon, output] += rls_predict(weights, output, regressors)
        waiting = words[block + layout.WAITING]
        if words[layout.DOUBLED_MID] <= 0 or waiting == words[layout.PENDING]:
            words[layout.SKIPPED] += 1
            continue
        row = _row(words, horizon, block, waiting)
        words[row + layout.ROW_STAMP] = words[layout.STAMP]
        words[row + layout.ROW_MID] = words[layout.DOUBLED_MID]
        words[row + layout.ROW_TICK] = words[layout.TICKS]
        words[block + layout.WAITING] = waiting + 1
        start = middle + count * width + _slot(words, block, waiting) * width
        for index in range(width):  # An assigned slice would count references, which a drain is compiled without.
            values[start + index] = regressors[index]


@compiled
def _limited(value: float) -> float:
    """Return *value* within REGRESSOR_MAX of 0; NaN becomes 0."""
    return min(max(value, -REGRESSOR_MAX), REGRESSOR_MAX) if not isnan(value) else 0.0
