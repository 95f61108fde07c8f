"""Settings of training as people give them: flags of a command, over a JSON file, over the defaults.

a flag that was given wins over the file, the file over settings.py; FitSettings then checks all of it at once
what settings_as_json writes, read_settings reads: equal settings
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.horizons import parse_horizons
from penstock_tuning.model.settings import FitSettings

_WHOLE: Final = ("units", "fan_in", "seed", "memory_lags")
_WHOLE_OR_NONE: Final = ("products",)
_REAL: Final = ("spectral_radius", "time_constant_events_min", "time_constant_events_max", "bias_scale", "clip")
_REAL_OR_NONE: Final = ("leak", "input_scale")
_LISTS: Final = ("memory_averages", "penalties", "linear_penalties")
_TEXTS: Final = ("topology", "time_base")
KEYS: Final = ("horizons", "recurrence", *_WHOLE, *_WHOLE_OR_NONE, *_REAL, *_REAL_OR_NONE, *_LISTS, *_TEXTS)


def settings_of(options: Namespace, **others: Any) -> FitSettings:
    """Return the settings that *options* of ``add_setting_flags`` say; *others* are fields that are no flags.

    Raises:
        TrainingError: a value is impossible or can't be read.
    """
    given: dict[str, Any] = dict(read_settings(Path(options.settings))) if options.settings else {}
    for name in (
        "topology",
        "time_base",
        "leak",
        "input_scale",
        "bias_scale",
        "spectral_radius",
        *_WHOLE,
        *_WHOLE_OR_NONE,
    ):
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
    if name in (*_WHOLE, *_WHOLE_OR_NONE) and isinstance(value, int) and real:
        return value
    if name in _WHOLE_OR_NONE and value is None:
        return None
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
