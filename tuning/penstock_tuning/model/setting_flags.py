"""The flags of a model's settings, for every command that makes a model; setting_options.py reads them.

no heavy library is imported here: --help works in any environment
"""

from __future__ import annotations

import argparse

from penstock_tuning.model.defaults import (
    DEFAULT_BIAS_SCALE,
    DEFAULT_FAN_IN,
    DEFAULT_HORIZONS,
    DEFAULT_MEMORY_AVERAGES,
    DEFAULT_MEMORY_LAGS,
    DEFAULT_SPECTRAL_RADIUS,
    DEFAULT_TIME_CONSTANTS,
    DEFAULT_TOPOLOGY,
    DEFAULT_UNITS,
    LINEAR_PENALTIES,
    PENALTIES,
)


def add_setting_flags(parser: argparse.ArgumentParser, horizons: str = DEFAULT_HORIZONS) -> None:
    """Let *parser* take every setting of a model; None where a flag is not given."""
    group = parser.add_argument_group("settings of the model")
    group.add_argument("--settings", metavar="FILE", help="JSON, such as search writes; flags win over it")
    group.add_argument("--horizons", metavar="A,B", help=f"what to foretell (default {horizons})")
    group.add_argument("--topology", help=f"cyclic, sparse or dense (default {DEFAULT_TOPOLOGY})")
    group.add_argument("--units", type=int, metavar="N", help=f"of the reservoir (default {DEFAULT_UNITS})")
    group.add_argument("--fan-in", type=int, metavar="K", help=f"units that each unit hears (default {DEFAULT_FAN_IN})")
    group.add_argument(
        "--spectral-radius", type=float, metavar="R", help=f"of W, above 0 (default {DEFAULT_SPECTRAL_RADIUS})"
    )
    group.add_argument("--no-recurrence", action="store_true", help="W = 0: the baseline W0")
    group.add_argument("--time-base", metavar="BASE", help="events or seconds: what time constants are counted in")
    group.add_argument(
        "--time-constants",
        metavar="MIN,MAX",
        help=f"of the units, log-uniform between (default {_listed(DEFAULT_TIME_CONSTANTS)})",
    )
    group.add_argument("--leak", type=float, metavar="A", help="one for all units, per event, above 0 and at most 1")
    group.add_argument("--input-scale", type=float, metavar="S", help="of W_in (default 1 / sqrt(inputs / 4))")
    group.add_argument("--bias-scale", type=float, metavar="S", help=f"of the biases (default {DEFAULT_BIAS_SCALE:g})")
    group.add_argument(
        "--memory-averages",
        metavar="A,B",
        help=f"time constants in events of the linear memory, or none (default {_listed(DEFAULT_MEMORY_AVERAGES)})",
    )
    group.add_argument(
        "--memory-lags",
        type=int,
        metavar="L",
        help=f"past inputs that the readout sees (default {DEFAULT_MEMORY_LAGS})",
    )
    group.add_argument(
        "--products", type=int, metavar="P", help="of units, that the readout sees (default half the units)"
    )
    group.add_argument(
        "--penalty", metavar="A,B", help=f"tried on past blocks, relative to the rows (default {_listed(PENALTIES)})"
    )
    group.add_argument(
        "--linear-penalty",
        metavar="A,B",
        help=f"of inputs and their memory, as shares of the penalty (default {_listed(LINEAR_PENALTIES)})",
    )
    group.add_argument("--seed", type=int, help="of the reservoir (default 1)")


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{one:g}" for one in values) or "none"
