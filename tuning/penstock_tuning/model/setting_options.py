"""Settings of training as people give them: flags of a command, over a JSON file, over the defaults.

a flag that was given wins over the file, the file over settings.py; FitSettings then checks all of it at once
what settings_as_json writes, read_settings reads: equal settings
"""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.settings import (
    DEFAULT_FAN_IN,
    DEFAULT_HORIZONS,
    DEFAULT_SPECTRAL_RADIUS,
    DEFAULT_TOPOLOGY,
    DEFAULT_UNITS,
    FitSettings,
)

_WHOLE: Final = ("units", "fan_in", "seed", "memory_lags")
_REAL: Final = ("spectral_radius", "time_constant_events_min", "time_constant_events_max", "bias_scale", "clip")
_REAL_OR_NONE: Final = ("leak", "input_scale")
_LISTS: Final = ("memory_averages", "penalties", "linear_penalties")
_TEXTS: Final = ("topology", "time_base")
KEYS: Final = ("horizons", "recurrence", *_WHOLE, *_REAL, *_REAL_OR_NONE, *_LISTS, *_TEXTS)


def add_setting_options(parser: argparse.ArgumentParser, horizons: str = DEFAULT_HORIZONS) -> None:
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
    group.add_argument("--time-constants", metavar="MIN,MAX", help="of the units, log-uniform between (default 0.2,30)")
    group.add_argument("--leak", type=float, metavar="A", help="one for all units, per event, above 0 and at most 1")
    group.add_argument("--input-scale", type=float, metavar="S", help="of W_in (default 1 / sqrt(inputs / 4))")
    group.add_argument("--bias-scale", type=float, metavar="S", help="of the biases (default 1)")
    group.add_argument(
        "--memory-averages", metavar="A,B", help="time constants in events of the linear memory, or none"
    )
    group.add_argument("--memory-lags", type=int, metavar="L", help="past inputs that the readout sees")
    group.add_argument("--penalty", metavar="A,B", help="tried on past blocks, relative to the rows (1e-4 to 1e3)")
    group.add_argument(
        "--linear-penalty", metavar="A,B", help="of inputs and their memory, as shares of the penalty (default 1)"
    )
    group.add_argument("--seed", type=int, help="of the reservoir (default 1)")


def settings_of(options: Namespace, **others: Any) -> FitSettings:
    """Return the settings that *options* of ``add_setting_options`` say; *others* are fields that are no flags.

    Raises:
        TrainingError: a value is impossible or can't be read.
    """
    given: dict[str, Any] = dict(read_settings(Path(options.settings))) if options.settings else {}
    for name in ("topology", "time_base", "leak", "input_scale", "bias_scale", "spectral_radius", *_WHOLE):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.leak is None and options.time_constants is not None:
        given["leak"] = None
    if options.no_recurrence:
        given["recurrence"] = False
    elif options.spectral_radius is not None:
        given["recurrence"] = True
    if options.horizons is not None:
        given["horizons"] = parse_horizons(options.horizons)
    if options.time_constants is not None:
        both = _numbers("time-constants", options.time_constants)
        if len(both) != 2:
            raise TrainingError(
                f"time constants must be two numbers: time-constants={options.time_constants!r}; write for example 0.2,30"
            )
        given["time_constant_events_min"], given["time_constant_events_max"] = both
    if options.memory_averages is not None:
        text = options.memory_averages.strip()
        given["memory_averages"] = () if text in ("", "none") else _numbers("memory-averages", text)
    if options.penalty is not None:
        given["penalties"] = _numbers("penalty", options.penalty)
    if options.linear_penalty is not None:
        given["linear_penalties"] = _numbers("linear-penalty", options.linear_penalty)
    return FitSettings(**{**given, **others})


def settings_as_json(settings: FitSettings) -> dict[str, Any]:
    """Return what ``read_settings`` reads: everything but name, version and notice."""
    found = {name: getattr(settings, name) for name in KEYS}
    found["horizons"] = ",".join(one.name for one in settings.horizons)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def read_settings(path: Path) -> dict[str, Any]:
    """Return the fields of FitSettings that the JSON file *path* names, at its top or under "settings".

    Raises:
        TrainingError: it can't be read, or names what is no setting.
    """
    try:
        whole = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise TrainingError(f"settings: {path} can't be read as JSON: {reason}; give what search wrote") from exc
    told = whole.get("settings", whole) if isinstance(whole, dict) else None
    if not isinstance(told, dict):
        raise TrainingError(f"settings: {path} must hold an object of settings; give what search wrote")
    return fields_of(told, str(path))


def fields_of(told: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of FitSettings that *told*, plain JSON, names; *where* stands in the sentences.

    Raises:
        TrainingError: a name is no setting, or a value of another kind.
    """
    return {name: _field(name, value, where) for name, value in told.items()}


def _field(name: str, value: Any, where: str) -> Any:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "horizons" and isinstance(value, str):
        return parse_horizons(value)
    if name == "recurrence" and isinstance(value, bool):
        return value
    if name in _WHOLE and isinstance(value, int) and real:
        return value
    if (name in _REAL and real) or (name in _REAL_OR_NONE and (real or value is None)):
        return None if value is None else float(value)
    if name in _TEXTS and isinstance(value, str):
        return value
    if name in _LISTS and isinstance(value, list) and all(isinstance(one, int | float) for one in value):
        return tuple(float(one) for one in value)
    if name in KEYS:
        raise TrainingError(f"settings: {where}: {name} has a value of another kind: {name}={value!r:.80}; mend it")
    raise TrainingError(f"settings: {where}: {name!r:.80} is no setting; take from {', '.join(KEYS)}")


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as exc:
        raise TrainingError(f"{name} must be numbers with commas between them: {name}={text!r:.80}; mend it") from exc
