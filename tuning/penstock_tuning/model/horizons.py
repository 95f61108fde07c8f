"""What a model is asked for, as people write it: ``next,100ms,50ev``.

next        direction of the first change of the mid after the tick's own stamp
next_1ms    the same, where a change counts only after one millisecond
50ev        the mid 50 of the instrument's ticks later
100ms       the mid 100 milliseconds later; ns, us, ms, s and min are understood
"""

from __future__ import annotations

import re
from typing import Final

from penstock.v1.records import HORIZONS_MAX
from penstock_kernels.model import Horizon, HorizonKind
from penstock_tuning.model.errors import TrainingError

EVENTS_MAX: Final = 1_000_000
DURATION_NS_MAX: Final = 24 * 3600 * 10**9

_UNITS_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9}
_EVENTS: Final = re.compile(r"([0-9]{1,12})ev")
_TIME: Final = re.compile(r"(next_)?([0-9]{1,18})(ns|us|ms|s|min)")
_EXAMPLES: Final = "write next, next_1ms, 50ev or 100ms, separated by commas"


def parse_horizons(spec: str, horizons_max: int = HORIZONS_MAX) -> tuple[Horizon, ...]:
    """Return the horizons that *spec* names, in its order.

    Raises:
        TrainingError: a name is not understood or out of range, there are none or more than *horizons_max*, one stands
            twice, or those of one kind don't grow.
    """
    names = [part.strip() for part in spec.split(",")]
    if len(names) > horizons_max:
        raise TrainingError(f"horizons must be 1 to {horizons_max}: horizons={spec!r} has {len(names)}; leave some out")
    horizons = tuple(_parse_one(name, spec) for name in names)
    for kind in HorizonKind:
        ends = [(one.events, one.duration_ns) for one in horizons if one.kind == kind]
        if ends != sorted(ends):
            raise TrainingError(f"horizons of one kind must grow: horizons={spec!r}; put the shorter ones first")
        if len(set(ends)) != len(ends):
            raise TrainingError(f"horizons must be different: horizons={spec!r} names one twice; leave it out")
    return horizons


def _parse_one(name: str, spec: str) -> Horizon:
    if name == "next":
        return Horizon(name, HorizonKind.NEXT_MOVE)
    if match := _EVENTS.fullmatch(name):
        events = int(match[1])
        if not 1 <= events <= EVENTS_MAX:
            raise TrainingError(f"horizons: {name!r} must be 1 to {EVENTS_MAX} events; choose another")
        return Horizon(name, HorizonKind.EVENTS, events=events)
    if match := _TIME.fullmatch(name):
        duration_ns = int(match[2]) * _UNITS_NS[match[3]]
        if not 1 <= duration_ns <= DURATION_NS_MAX:
            raise TrainingError(f"horizons: {name!r} must be 1 ns to 24 hours; choose another")
        kind = HorizonKind.NEXT_MOVE if match[1] else HorizonKind.TIME
        return Horizon(name, kind, duration_ns=duration_ns)
    raise TrainingError(f"horizons: {name!r} is not understood: horizons={spec!r}; {_EXAMPLES}")
